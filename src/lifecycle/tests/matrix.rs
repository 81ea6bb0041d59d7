//! All combinations of what matters, against a list of rules in the order in which a person would ask.

use std::collections::BTreeSet;

use super::*;
use crate::api::names::{ANNOTATION_COLLECTED, ANNOTATION_ENDED_AT, FINALIZER};
use crate::api::{ApiKey, Phase};

/// How an `ApiKey` came to where it stands in its life.
pub(super) type History = fn(ApiKeySpec) -> Model;

/// Where in its life an `ApiKey` stands.
pub(super) const STATUSES: [(&str, History); 9] = [
    ("nothing", new),
    ("held", held),
    ("unsettled", crashed),
    ("settled", settled),
    ("announced twice", announced_twice),
    ("withdrawn", withdrawn),
    ("current", issued),
    ("revoked", revoked),
    ("revoked before anything", |spec| {
        let mut model = new(spec);
        model.wish(Wish::Revoke);
        model.reconcile().unwrap();
        model
    }),
];

/// What stands where the Secret should, seen from the controller.
const SECRETS: [&str; 12] = [
    "unknown",
    "absent",
    "ours",
    "ours as a copy",
    "of another template",
    "of another template and immutable",
    "edited",
    "empty",
    "entry edited",
    "deleting",
    "foreign",
    "planted",
];

fn specs() -> [(&'static str, ApiKeySpec); 6] {
    [
        ("plain", ApiKeySpec::default()),
        ("never", expiring(never())),
        ("after", expiring(after("30d"))),
        ("at past", expiring(ending_at("2026-11-21T12:00:00Z"))),
        ("at future", expiring(ending_at("2026-12-24T12:00:00Z"))),
        ("template", with_template("gold")),
    ]
}

fn put_there(model: &mut Model, secret: &str) {
    let status = model.world.status();
    let listed = status
        .versions
        .first()
        .map(|version| version.hash.parse().unwrap());
    model.plant_foreign(secret != "foreign");
    model.edit(|facts| {
        let recorded = status
            .secret_ref
            .as_ref()
            .map(|recorded| recorded.uid.clone());
        if let Some(recorded) =
            recorded.filter(|_| !matches!(secret, "foreign" | "planted" | "ours as a copy"))
        {
            facts.uid = recorded;
        }
        match secret {
            "foreign" | "planted" | "edited" => {}
            "empty" => facts.key = None,
            // Where nothing was ever listed, this is just another key.
            _ => facts.key = listed.or(facts.key),
        }
        match secret {
            "entry edited" => facts.edited_entries = vec!["HEADER".to_owned()],
            "deleting" => facts.deleting = true,
            "of another template" | "of another template and immutable" => {
                facts.immutable = secret.ends_with("immutable");
                facts.annotations.insert(
                    crate::api::names::ANNOTATION_TEMPLATE.to_owned(),
                    "{\"data\":{\"X\":\"y\"}}".to_owned(),
                );
            }
            _ => {}
        }
    });
    model.world.secret = match secret {
        "unknown" => SecretView::Unknown,
        "absent" => SecretView::Absent,
        _ => SecretView::Present(model.there.clone().unwrap()),
    };
}

/// The next step, by rules that a person would give. Only its kind, and for a status its phase and the reason of `Ready`.
fn expected(world: &World, now: Timestamp) -> &'static str {
    let (apikey, status) = (&world.apikey, world.status());
    let finalizer = apikey
        .metadata
        .finalizers
        .iter()
        .flatten()
        .any(|name| name == FINALIZER);
    let needs_finalizer = world.rules.finalizer && !finalizer;
    let there = if let SecretView::Present(secret) = &world.secret {
        Some(secret)
    } else {
        None
    };
    let listed = there.is_some_and(|secret| {
        secret
            .key
            .is_some_and(|hash| status.version_of(hash).is_some())
    });
    let ours = listed
        || there.is_some_and(|secret| {
            status
                .secret_ref
                .as_ref()
                .is_some_and(|r| r.uid == secret.uid)
        });
    let delivered = there.is_some_and(|secret| {
        secret
            .key
            .is_some_and(|hash| status.announced_of(hash).is_some())
    });
    let ended = matches!(status.phase, Some(Phase::Expired | Phase::Revoked));
    let due = match (&status.expires_at, &apikey.spec.expiry) {
        (Some(end), _) => end.0 <= now,
        (None, Some(expiry)) => expiry.at.as_ref().is_some_and(|end| end.0 <= now),
        (None, None) => false,
    };
    let announced = status.newest_announced().map(|version| version.version);
    let current = status.current().is_some();

    if apikey.is_deleting() {
        let dark = announced.is_some() && matches!(world.outstanding, Outstanding::Unsettled);
        return match &world.secret {
            _ if !finalizer => "settled",
            SecretView::Present(secret) if ours && secret.deleting => "settled",
            _ if ours => "delete secret",
            SecretView::Unknown if status.key_id.is_none() => "remove finalizer",
            SecretView::Unknown => "settled",
            _ if dark => "settled",
            _ => "remove finalizer",
        };
    }
    let nothing_known =
        status.key_id.is_none() && status.versions.is_empty() && status.secret_ref.is_none();
    match () {
        () if world.rules.hold_minting && nothing_known && !ended => beginning(world, &status),
        () if apikey.is_revoked() && !ended => "Revoked",
        () if ended => over(world, there, ours),
        () if due && world.clock == Clock::Agrees => "Expired",
        () if due => "settled or told",
        () if delivered => "Active",
        () if needs_finalizer
            && !matches!(world.outstanding, Outstanding::Unsettled)
            && !refused_or_waiting(world) =>
        {
            "add finalizer"
        }
        () if announced.is_some() => outcome(world, &status, there, ours),
        () if current => {
            shown(world, there, ours, now).unwrap_or_else(|| rotated(world, there, ours))
        }
        () => beginning(world, &status),
    }
}

/// Whether something else than the finalizer decides: a refusal to report, or a settled outcome that is not "it does not exist".
fn refused_or_waiting(world: &World) -> bool {
    let status = world.status();
    match (world.outstanding, status.newest_announced()) {
        (Outstanding::Held { .. }, Some(_)) => {
            matches!(world.delivery, Delivery::Refused(_)) || in_the_way(world)
        }
        (Outstanding::Settled, Some(_)) => {
            world.secret != SecretView::Absent || status.current().is_some()
        }
        _ => false,
    }
}

fn kept(world: &World, there: Option<&SecretFacts>, ours: bool) -> &'static str {
    let status = world.status();
    let refused = matches!(world.delivery, Delivery::Refused(_));
    let Some(secret) = there else {
        return match world.secret {
            SecretView::Absent if refused => "QuotaExceeded",
            SecretView::Absent => "SecretMissing",
            _ => "settled",
        };
    };
    let holds = secret
        .key
        .is_some_and(|hash| Some(hash.to_string()) == status.hash);
    let (applied, wanted) = (
        applied_template(&secret.annotations),
        world.apikey.template(),
    );
    let template = applied != wanted;
    match () {
        () if !ours => "SecretConflict",
        () if refused && !holds => "QuotaExceeded",
        () if !holds => "SecretChanged",
        () if refused && !secret.edited_entries.is_empty() && !template => "QuotaExceeded",
        () if !secret.edited_entries.is_empty() && !template => "SecretChanged",
        () if secret.immutable && applied.metadata == wanted.metadata && template => {
            "SecretImmutable"
        }
        () if refused && !(secret.immutable && applied.data != wanted.data) => "QuotaExceeded",
        () if secret.deleting => "settled",
        () if status
            .secret_ref
            .is_none_or(|recorded| recorded.uid != secret.uid) =>
        {
            "Active"
        }
        () if template => "mend secret",
        () => "settled",
    }
}

/// Whether what is there cannot be replaced by the next version.
fn in_the_way(world: &World) -> bool {
    let SecretView::Present(secret) = &world.secret else {
        return false;
    };
    world.status().current().is_some()
        && (!world.owns(secret) || secret.immutable || secret.deleting)
}

/// An ended key: its Secret goes or is marked.
fn over(world: &World, there: Option<&SecretFacts>, ours: bool) -> &'static str {
    let stays = world.apikey.retention() == Retention::Always;
    let Some(secret) = there.filter(|_| ours) else {
        let gone =
            !stays && world.secret != SecretView::Unknown && world.status().secret_ref.is_some();
        return if gone { "removed" } else { "ended" };
    };
    let finalizer = world
        .apikey
        .metadata
        .finalizers
        .iter()
        .flatten()
        .any(|name| name == FINALIZER);
    let recorded = world
        .status()
        .secret_ref
        .is_none_or(|recorded| recorded.uid == secret.uid);
    let owner = owner_reference(&world.apikey).unwrap();
    let referenced = secret
        .owner_references
        .iter()
        .any(|one| one.uid == owner.uid);
    match () {
        () if stays && secret.deleting => "ended",
        () if stays && world.rules.finalizer && !finalizer => "add finalizer",
        () if stays && !recorded => "recorded",
        () if stays && referenced && secret.annotations.contains_key(ANNOTATION_ENDED_AT) => {
            "ended"
        }
        () if stays => "mend secret",
        () if secret.deleting => "ended",
        () => "delete secret",
    }
}

/// What becomes of a Secret that is shown once.
fn shown(
    world: &World,
    there: Option<&SecretFacts>,
    ours: bool,
    now: Timestamp,
) -> Option<&'static str> {
    let status = world.status();
    let since = status.current()?.activated_at.as_ref()?.0;
    let marked =
        there.is_some_and(|secret| ours && secret.annotations.contains_key(ANNOTATION_COLLECTED));
    match () {
        () if world.apikey.retention() != Retention::UntilCollected => None,
        () if marked => Some("Collected"),
        () if world.clock == Clock::Agrees
            && now >= since + days(1)
            && status.secret_ref.is_some() =>
        {
            Some("Uncollected")
        }
        () => None,
    }
}

/// A key in use, for which another version may be due.
fn rotated(world: &World, there: Option<&SecretFacts>, ours: bool) -> &'static str {
    let kept = kept(world, there, ours);
    let due = world.apikey.spec.revision.is_some();
    let immutable = there.is_some_and(|secret| secret.immutable);
    let deleting = there.is_some_and(|secret| secret.deleting);
    match () {
        () if !due || there.is_some() && !ours => kept,
        () if world.rules.hold_minting && kept == "settled" => "MintingHeld",
        () if world.clock != Clock::Agrees && kept == "settled" => "ClockDisagrees",
        () if world.rules.hold_minting || world.clock != Clock::Agrees => kept,
        () if deleting && kept == "settled" => "SecretMissing",
        () if immutable || deleting => kept,
        () if matches!(world.delivery, Delivery::Refused(_)) => kept,
        () => "announce",
    }
}

fn outcome(
    world: &World,
    status: &ApiKeyStatus,
    there: Option<&SecretFacts>,
    ours: bool,
) -> &'static str {
    let first = status.current().is_none();
    let refused = matches!(world.delivery, Delivery::Refused(_));
    let immutable = there.is_some_and(|secret| secret.immutable);
    let deleting = there.is_some_and(|secret| secret.deleting);
    let waits = world.rules.hold_minting || world.clock != Clock::Agrees || refused;
    match (world.outstanding, &world.secret) {
        (Outstanding::Unsettled, _) => "settled",
        (Outstanding::Held { .. }, SecretView::Present(_) | SecretView::Unknown)
            if refused && !first =>
        {
            "settled or told"
        }
        (Outstanding::Held { .. }, _) if refused => "QuotaExceeded",
        (Outstanding::Held { .. }, _) if there.is_some() && !ours && !first => "SecretConflict",
        (Outstanding::Held { .. }, _) if deleting && !first => "SecretMissing",
        (Outstanding::Held { .. }, _) if immutable && !first => "SecretImmutable",
        (Outstanding::Held { .. }, _) => "deliver",
        (Outstanding::Settled, SecretView::Absent) if first => beginning(world, status),
        (Outstanding::Settled, SecretView::Absent) if !waits => "announce",
        (Outstanding::Settled, SecretView::Present(_))
            if !first && !waits && ours && !immutable && !deleting =>
        {
            "announce"
        }
        (Outstanding::Settled, _) => "settled or told",
    }
}

fn beginning(world: &World, status: &ApiKeyStatus) -> &'static str {
    let was_refused = status
        .conditions
        .iter()
        .any(|one| one.type_ == "Delivered" && one.reason == "SecretConflict");
    let lifetime = world
        .apikey
        .spec
        .expiry
        .as_ref()
        .is_some_and(|expiry| expiry.never.is_none());
    match () {
        () if matches!(world.delivery, Delivery::Refused(_)) => "QuotaExceeded",
        () if matches!(world.source, SourceView::Unfit(_)) => "SourceMissing",
        () if world.rules.hold_minting => "MintingHeld",
        () if matches!(world.secret, SecretView::Present(_)) => "SecretConflict",
        () if world.clock != Clock::Agrees && lifetime && status.key_id.is_none() => {
            "ClockDisagrees"
        }
        () if world.delivery == Delivery::Untried && was_refused => "ask delivery",
        () => "announce",
    }
}

/// Whether the planned step is of the expected kind. What was said before needs no saying again.
fn fits(world: &World, step: &Step, expected: &str) -> bool {
    let says = |status: &ApiKeyStatus, reason: &str| {
        status
            .conditions
            .iter()
            .any(|one| one.type_ == "Ready" && one.status == "False" && one.reason == reason)
    };
    match (step, expected) {
        (Step::Settled { .. }, "settled" | "settled or told" | "ended") => true,
        (Step::Settled { .. }, trouble) => says(&world.status(), trouble),
        (Step::WriteStatus(status), "settled or told") => !status.is_final(),
        (Step::WriteStatus(status), "ended") => {
            status.is_final()
                && !status
                    .conditions
                    .iter()
                    .any(|one| says(status, &one.reason))
        }
        (Step::WriteStatus(status), "recorded") => status.is_final() && status.secret_ref.is_some(),
        (Step::WriteStatus(status), "removed") => status.is_final() && status.secret_ref.is_none(),
        (Step::WriteStatus(status), "Collected") => status
            .current()
            .is_some_and(|current| current.collected_at.is_some()),
        (Step::WriteStatus(status), "Uncollected") => status
            .current()
            .is_some_and(|current| current.discarded_at.is_some()),
        (Step::WriteStatus(status), "Active") => {
            status.phase == Some(Phase::Active) && status.secret_ref.is_some()
        }
        (Step::WriteStatus(status), "Expired") => status.phase == Some(Phase::Expired),
        (Step::WriteStatus(status), "Revoked") => status.phase == Some(Phase::Revoked),
        (Step::WriteStatus(status), trouble) => says(status, trouble),
        (step, kind) => step.name() == kind,
    }
}

/// Plans one world and compares.
fn look_up(model: &Model, name: impl Fn() -> String, seen: &mut BTreeSet<&'static str>) {
    let (world, now) = (&model.world, model.now());
    let (step, wanted) = (plan(world, now).step, expected(world, now));
    assert!(
        fits(world, &step, wanted),
        "{}: expected {wanted}, planned {step:?}",
        name()
    );
    if let Step::WriteStatus(status) = &step {
        describe(world, status);
    }
    seen.insert(step.name());
}

#[test]
fn every_combination_follows_the_rules() {
    let mut seen = BTreeSet::new();
    let mut count = 0;
    for (spec_name, spec) in specs() {
        for (status_name, history) in STATUSES {
            if spec_name == "at past"
                && !matches!(status_name, "nothing" | "revoked before anything")
            {
                continue; // never announced
            }
            let base = history(spec.clone());
            for (secret, others) in SECRETS
                .into_iter()
                .flat_map(|secret| (0..144).map(move |others| (secret, others)))
            {
                let mut model = base.clone();
                let outstanding = model.world.outstanding;
                put_there(&mut model, secret);
                vary(&mut model, others);
                model.world.outstanding = outstanding;
                look_up(
                    &model,
                    || format!("{spec_name}, {status_name}, Secret {secret}, variant {others}"),
                    &mut seen,
                );
                count += 1;
            }
        }
    }
    assert_eq!(count, 47 * 12 * 144);
    assert_eq!(seen.len(), 9, "every step occurs: {seen:?}");
}

/// As [`STATUSES`], of a key whose next version was asked for and announced.
const ROTATIONS: [(&str, History); 3] = [
    ("the next is held", announced_next),
    ("the next is unsettled", |spec| {
        let mut model = announced_next(spec);
        model.crash();
        seen(model)
    }),
    ("the next is settled", |spec| {
        let mut model = announced_next(spec);
        model.crash();
        model.look();
        model.grace_passes();
        seen(model)
    }),
];

#[test]
fn every_combination_with_a_rotation_a_retention_a_source_or_a_hold_follows_the_rules() {
    let mut seen = BTreeSet::new();
    let retentions = [
        (Retention::Always, None),
        (Retention::WhileActive, Some(after("30d"))),
        (Retention::UntilCollected, None),
    ];
    for (retention, expiry) in retentions {
        let spec = ApiKeySpec {
            expiry,
            ..retained(retention)
        };
        for (status_name, history) in STATUSES.into_iter().chain(ROTATIONS) {
            let base = history(spec.clone());
            for (secret, others) in SECRETS
                .into_iter()
                .flat_map(|secret| (0..192).map(move |others| (secret, others)))
            {
                let mut model = base.clone();
                let outstanding = model.world.outstanding;
                put_there(&mut model, secret);
                // Among the variants, those that have the finalizer and a rule for it.
                let (chosen, others) = (others % 24, others / 24);
                vary(
                    &mut model,
                    chosen % 3 + chosen / 3 % 2 * 12 + chosen / 6 % 2 * 48 + chosen / 12 * 72,
                );
                let (due, hold, more) = (others % 2 == 1, others / 2 % 2 == 1, others / 4 == 1);
                if due {
                    model.apikey().spec.revision = Some(5);
                }
                model.world.rules = Rules {
                    hold_minting: hold,
                    ..Rules::clone(&model.world.rules)
                }
                .into();
                if more {
                    model.world.source = SourceView::Unfit(Unfit {
                        reason: reason::SOURCE_MISSING,
                        message: "where?".to_owned(),
                    });
                    model.edit(|secret| {
                        drop(
                            secret
                                .annotations
                                .insert(ANNOTATION_COLLECTED.to_owned(), "true".to_owned()),
                        );
                    });
                    if let (SecretView::Present(seen), Some(there)) =
                        (&mut model.world.secret, &model.there)
                    {
                        seen.clone_from(there);
                    }
                }
                model.world.outstanding = outstanding;
                let name = || {
                    format!(
                        "{retention:?}, {status_name}, Secret {secret}, variant {chosen}, {due}, {hold}, {more}"
                    )
                };
                look_up(&model, name, &mut seen);
            }
        }
    }
    assert_eq!(
        seen.len(),
        8,
        "every step but that of the finalizer occurs: {seen:?}"
    );
}

/// Variants: deletion, revocation, finalizer, rule, clock, delivery, end.
fn vary(model: &mut Model, number: usize) {
    let mut rest = number;
    let mut choose = |of: usize| {
        let chosen = rest % of;
        rest /= of;
        chosen
    };
    let (person, finalizer, rule, clock, delivery, ended) = (
        choose(3),
        choose(2) == 0,
        choose(2) == 0,
        choose(2),
        choose(3),
        choose(2) == 1,
    );
    model.world.rules = Rules {
        finalizer: rule,
        ..Rules::clone(&model.world.rules)
    }
    .into();
    model.world.clock = [Clock::Agrees, Clock::AheadBy(hours(1))][clock];
    model.world.delivery = match delivery {
        0 => Delivery::Untried,
        1 => Delivery::Possible,
        _ => Delivery::Refused(Refusal {
            reason: reason::QUOTA_EXCEEDED,
            message: "full".to_owned(),
        }),
    };
    let apikey: &mut ApiKey = model.apikey();
    apikey.metadata.finalizers = finalizer.then(|| vec![FINALIZER.to_owned()]);
    match person {
        1 => model.wish(Wish::Revoke),
        2 => model.wish(Wish::Delete),
        _ => {}
    }
    if ended {
        model.pass(days(365));
    }
}
