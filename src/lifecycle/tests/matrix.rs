//! All combinations of what matters, against a list of rules in the order in which a person would ask.

use super::*;
use crate::api::names::FINALIZER;
use crate::api::{ApiKey, Phase};

/// How an `ApiKey` came to where it stands in its life.
type History = fn(ApiKeySpec) -> Model;

/// Where in its life an `ApiKey` stands.
const STATUSES: [(&str, History); 9] = [
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
    let listed = status.versions.first().map(|version| version.hash.parse().unwrap());
    model.plant_foreign(secret != "foreign");
    model.edit(|facts| {
        let recorded = status.secret_ref.as_ref().map(|recorded| recorded.uid.clone());
        if let Some(recorded) = recorded.filter(|_| !matches!(secret, "foreign" | "planted" | "ours as a copy")) {
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
                facts
                    .annotations
                    .insert(crate::api::names::ANNOTATION_TEMPLATE.to_owned(), "{\"data\":{\"X\":\"y\"}}".to_owned());
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
    let finalizer = apikey.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER);
    let needs_finalizer = world.rules.finalizer && !finalizer;
    let there = if let SecretView::Present(secret) = &world.secret { Some(secret) } else { None };
    let listed = there.is_some_and(|secret| secret.key.is_some_and(|hash| status.version_of(hash).is_some()));
    let ours = listed || there.is_some_and(|secret| status.secret_ref.as_ref().is_some_and(|r| r.uid == secret.uid));
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
    match () {
        () if apikey.is_revoked() && !ended => "Revoked",
        () if ended => "ended",
        () if due && world.clock == Clock::Agrees => "Expired",
        () if due => "settled or told",
        () if !current && listed => "Active",
        () if needs_finalizer && !matches!(world.outstanding, Outstanding::Unsettled) && !refused_or_waiting(world) => {
            "add finalizer"
        }
        () if current => kept(world, there, ours),
        () if announced.is_some() => outcome(world, &status),
        () => beginning(world, &status),
    }
}

/// Whether something else than the finalizer decides: a refusal to report, or a settled outcome that is not "it does not exist".
fn refused_or_waiting(world: &World) -> bool {
    let status = world.status();
    match (world.outstanding, status.newest_announced()) {
        _ if status.current().is_some() => false,
        (Outstanding::Held { .. }, Some(_)) => matches!(world.delivery, Delivery::Refused(_)),
        (Outstanding::Settled, Some(_)) => world.secret != SecretView::Absent,
        _ => false,
    }
}

fn kept(world: &World, there: Option<&SecretFacts>, ours: bool) -> &'static str {
    let status = world.status();
    let Some(secret) = there else { return if world.secret == SecretView::Absent { "SecretMissing" } else { "settled" } };
    let holds = secret.key.is_some_and(|hash| Some(hash.to_string()) == status.hash);
    let (applied, wanted) = (applied_template(&secret.annotations), world.apikey.template());
    let template = applied != wanted;
    match () {
        () if !ours => "SecretConflict",
        () if !holds => "SecretChanged",
        () if !secret.edited_entries.is_empty() && !template => "SecretChanged",
        () if secret.immutable && applied.metadata == wanted.metadata && template => "SecretImmutable",
        () if matches!(world.delivery, Delivery::Refused(_)) && !(secret.immutable && applied.data != wanted.data) => {
            "QuotaExceeded"
        }
        () if secret.deleting => "settled",
        () if status.secret_ref.is_none_or(|recorded| recorded.uid != secret.uid) => "Active",
        () if template => "mend secret",
        () => "settled",
    }
}

fn outcome(world: &World, status: &ApiKeyStatus) -> &'static str {
    match (world.outstanding, &world.delivery, &world.secret) {
        (Outstanding::Held { .. }, Delivery::Refused(_), _) => "QuotaExceeded",
        (Outstanding::Held { .. }, ..) => "deliver",
        (Outstanding::Unsettled, ..) => "settled",
        (Outstanding::Settled, _, SecretView::Absent) => beginning(world, status),
        (Outstanding::Settled, ..) => "settled or told",
    }
}

fn beginning(world: &World, status: &ApiKeyStatus) -> &'static str {
    let was_refused = status.conditions.iter().any(|one| one.type_ == "Delivered" && one.reason == "SecretConflict");
    let lifetime = world.apikey.spec.expiry.as_ref().is_some_and(|expiry| expiry.never.is_none());
    match () {
        () if matches!(world.delivery, Delivery::Refused(_)) => "QuotaExceeded",
        () if matches!(world.secret, SecretView::Present(_)) => "SecretConflict",
        () if world.clock != Clock::Agrees && lifetime && status.key_id.is_none() => "ClockDisagrees",
        () if world.delivery == Delivery::Untried && was_refused => "ask delivery",
        () => "announce",
    }
}

/// Whether the planned step is of the expected kind. What was said before needs no saying again.
fn fits(world: &World, step: &Step, expected: &str) -> bool {
    let says = |status: &ApiKeyStatus, reason: &str| {
        status.conditions.iter().any(|one| one.type_ == "Ready" && one.status == "False" && one.reason == reason)
    };
    match (step, expected) {
        (Step::Settled { .. }, "settled" | "settled or told" | "ended") => true,
        (Step::Settled { .. }, trouble) => says(&world.status(), trouble),
        (Step::WriteStatus(status), "settled or told") => !status.is_final(),
        (Step::WriteStatus(status), "ended") => {
            status.is_final() && !status.conditions.iter().any(|one| says(status, &one.reason))
        }
        (Step::WriteStatus(status), "Active") => status.phase == Some(Phase::Active) && status.secret_ref.is_some(),
        (Step::WriteStatus(status), "Expired") => status.phase == Some(Phase::Expired),
        (Step::WriteStatus(status), "Revoked") => status.phase == Some(Phase::Revoked),
        (Step::WriteStatus(status), trouble) => says(status, trouble),
        (step, kind) => step.name() == kind,
    }
}

#[test]
fn every_combination_follows_the_rules() {
    let mut seen = std::collections::BTreeSet::new();
    let mut count = 0;
    for (spec_name, spec) in specs() {
        for (status_name, history) in STATUSES {
            if spec_name == "at past" && !matches!(status_name, "nothing" | "revoked before anything") {
                continue; // never announced
            }
            let base = history(spec.clone());
            for (secret, others) in SECRETS.into_iter().flat_map(|secret| (0..144).map(move |others| (secret, others))) {
                let mut model = base.clone();
                let outstanding = model.world.outstanding;
                put_there(&mut model, secret);
                vary(&mut model, others);
                model.world.outstanding = outstanding;
                let (world, now) = (&model.world, model.now());
                let (step, wanted) = (plan(world, now).step, expected(world, now));
                let name = format!("{spec_name}, {status_name}, Secret {secret}, variant {others}");
                assert!(fits(world, &step, wanted), "{name}: expected {wanted}, planned {step:?}");
                if let Step::WriteStatus(status) = &step {
                    describe(world, status);
                }
                seen.insert(step.name());
                count += 1;
            }
        }
    }
    assert_eq!(count, 47 * 12 * 144);
    assert_eq!(seen.len(), 9, "every step occurs: {seen:?}");
}

/// Variants: deletion, revocation, finalizer, rule, clock, delivery, end.
fn vary(model: &mut Model, number: usize) {
    let mut rest = number;
    let mut choose = |of: usize| {
        let chosen = rest % of;
        rest /= of;
        chosen
    };
    let (person, finalizer, rule, clock, delivery, ended) =
        (choose(3), choose(2) == 0, choose(2) == 0, choose(2), choose(3), choose(2) == 1);
    model.world.rules = Rules { finalizer: rule, ..Rules::clone(&model.world.rules) }.into();
    model.world.clock = [Clock::Agrees, Clock::AheadBy(hours(1))][clock];
    model.world.delivery = match delivery {
        0 => Delivery::Untried,
        1 => Delivery::Possible,
        _ => Delivery::Refused(Refusal { reason: reason::QUOTA_EXCEEDED, message: "full".to_owned() }),
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
