//! Long lives with accidents, and worlds that no life leads to.

use proptest::prelude::*;

use super::model::{Fault, Interrupted, overlapping};
use super::worlds::worlds;
use super::*;
use crate::api::{ApiKeyPolicySpec, Phase, RequiredField, Retention, SecretSpec, VersionPhase};

/// What can happen between two looks at an `ApiKey`.
#[derive(Clone, Copy, Debug)]
enum Event {
    Pass(i64),
    ClockIsAheadBy(i64),
    Wish(Wish),
    Crash,
    GracePasses,
    BackOffPasses,
    AWriteFails(u8, Fault),
    TheLateCreateLands,
    TheServerRefuses(Option<&'static str>),
    SecretVanishes,
    SecretIsDeletedButHeld,
    SecretIsReplacedByACopy,
    SecretHoldsAnotherKey,
    SecretHoldsNoKey,
    AnEntryIsEdited,
    SecretIsMadeImmutable,
    SecretLosesItsMetadata,
    TheAppliedTemplateIsSpoilt,
    SomebodyTakesTheName { cunning: bool },
    MendingIsPaused(bool),
    TheFinalizerIsDropped,
    SomebodyCollects,
    SomebodyKeepsACopy,
    SomebodyPutsTheCopyBack,
    APolicyForbids(bool),
    ARoleIsMissing(bool),
    AnotherHasTheKey(bool),
    TheSourceIsThere(bool),
    MintingIsHeld(bool),
    TheControllerBegins,
}

fn events() -> impl Strategy<Value = Event> {
    let wish = prop_oneof![
        3 => prop_oneof![Just("gold"), Just("silver")].prop_map(Wish::Template),
        4 => Just(Wish::Raise),
        2 => rotations().prop_map(|(every, overlap)| Wish::Rotate(every, overlap)),
        1 => prop_oneof![Just(Retention::Always), Just(Retention::WhileActive)].prop_map(Wish::Retain),
        1 => Just(Wish::Adopt),
        1 => Just(Wish::Revoke),
        1 => Just(Wish::Delete),
    ];
    let fault = prop_oneof![
        Just(Fault::AnswerLost),
        Just(Fault::RequestLost),
        Just(Fault::Late)
    ];
    let refusal = prop_oneof![
        Just(None),
        Just(Some(reason::QUOTA_EXCEEDED)),
        Just(Some(reason::DELIVERY_REFUSED)),
        Just(Some(reason::NAMESPACE_TERMINATING)),
    ];
    let ahead = prop_oneof![
        Just(0),
        Just(59),
        Just(61),
        Just(-61),
        Just(86_400),
        Just(-86_400),
        Just(31_536_000)
    ];
    prop_oneof![
        3 => prop_oneof![1..100_i64, 1..10_000_i64, 1..3_000_000_i64].prop_map(Event::Pass),
        1 => ahead.prop_map(Event::ClockIsAheadBy),
        4 => wish.prop_map(Event::Wish),
        2 => Just(Event::Crash),
        3 => Just(Event::GracePasses),
        3 => Just(Event::BackOffPasses),
        5 => (0..4_u8, fault).prop_map(|(before, fault)| Event::AWriteFails(before, fault)),
        2 => Just(Event::TheLateCreateLands),
        2 => refusal.prop_map(Event::TheServerRefuses),
        1 => Just(Event::SecretVanishes),
        1 => Just(Event::SecretIsDeletedButHeld),
        1 => Just(Event::SecretIsReplacedByACopy),
        1 => Just(Event::SecretHoldsAnotherKey),
        1 => Just(Event::SecretHoldsNoKey),
        1 => Just(Event::AnEntryIsEdited),
        1 => Just(Event::SecretIsMadeImmutable),
        1 => Just(Event::SecretLosesItsMetadata),
        1 => Just(Event::TheAppliedTemplateIsSpoilt),
        1 => any::<bool>().prop_map(|cunning| Event::SomebodyTakesTheName { cunning }),
        1 => any::<bool>().prop_map(Event::MendingIsPaused),
        1 => Just(Event::TheFinalizerIsDropped),
        2 => Just(Event::SomebodyCollects),
        1 => Just(Event::SomebodyKeepsACopy),
        1 => Just(Event::SomebodyPutsTheCopyBack),
        2 => flags(),
    ]
}

fn flags() -> impl Strategy<Value = Event> {
    prop_oneof![
        any::<bool>().prop_map(Event::APolicyForbids),
        any::<bool>().prop_map(Event::ARoleIsMissing),
        any::<bool>().prop_map(Event::AnotherHasTheKey),
        any::<bool>().prop_map(Event::TheSourceIsThere),
        any::<bool>().prop_map(Event::MintingIsHeld),
        Just(Event::TheControllerBegins),
    ]
}

fn rotations() -> impl Strategy<Value = (Option<&'static str>, Option<&'static str>)> {
    prop_oneof![
        Just((None, None)),
        Just((None, Some("0s"))),
        Just((None, Some("3d"))),
        Just((Some("1h"), None)),
        Just((Some("30d"), Some("1h"))),
        Just((Some("10m"), Some("9m"))),
    ]
}

fn happens(model: &mut Model, event: Event) {
    match event {
        Event::Pass(seconds) => model.pass(SignedDuration::from_secs(seconds)),
        Event::ClockIsAheadBy(seconds) => model.ahead = SignedDuration::from_secs(seconds),
        Event::Wish(wish) => model.wish(wish),
        Event::Crash => model.crash(),
        Event::GracePasses => model.grace_passes(),
        Event::BackOffPasses => model.back_off_passes(),
        Event::AWriteFails(before, fault) => model.fault = Some((before, fault)),
        Event::TheLateCreateLands => model.lands(),
        Event::TheServerRefuses(reason) => model.refuses = reason,
        Event::SecretVanishes => model.there = None,
        Event::SecretIsDeletedButHeld => {
            model.held_by_others = model.there.is_some();
            model.edit(|secret| secret.deleting = true);
        }
        Event::SecretIsReplacedByACopy => model.replace_by_copy(),
        Event::SecretHoldsAnotherKey => {
            model.edit(|secret| secret.key = Some(Hash::of(b"somebody else's")));
        }
        Event::SecretHoldsNoKey => model.edit(|secret| secret.key = None),
        Event::AnEntryIsEdited => model.edit(|secret| {
            let applied = applied_template(&secret.annotations);
            secret.edited_entries = applied.data.into_keys().collect();
        }),
        Event::SecretIsMadeImmutable => model.edit(|secret| secret.immutable = true),
        Event::SecretLosesItsMetadata => model.edit(|secret| {
            secret.labels.clear();
            secret.annotations.clear();
            secret.owner_references.clear();
            secret.edited_entries.clear();
        }),
        Event::TheAppliedTemplateIsSpoilt => model.spoil_template(),
        Event::SomebodyTakesTheName { cunning } if model.there.is_none() => {
            model.plant_foreign(cunning);
        }
        Event::SomebodyTakesTheName { .. } => {}
        Event::MendingIsPaused(paused) => model.world.may_mend = !paused,
        Event::TheFinalizerIsDropped if model.world.apikey.is_deleting() => {}
        Event::TheFinalizerIsDropped => model.apikey().metadata.finalizers = None,
        Event::SomebodyCollects => model.collect(),
        Event::SomebodyKeepsACopy => model.keep_a_copy(),
        Event::SomebodyPutsTheCopyBack => model.put_back(),
        Event::APolicyForbids(on) => {
            let policy = ApiKeyPolicySpec {
                require: vec![RequiredField::Owner],
                ..ApiKeyPolicySpec::default()
            };
            let policies = if on {
                vec![("owned".to_owned(), Some(policy))]
            } else {
                Vec::new()
            };
            (
                model.world.surroundings.known,
                model.world.surroundings.policies,
            ) = (true, policies.into());
        }
        Event::ARoleIsMissing(on) => {
            model.world.surroundings.missing_roles = if on {
                vec!["viewer".to_owned()]
            } else {
                Vec::new()
            };
        }
        Event::AnotherHasTheKey(on) => model.twin = on.then(|| "f".repeat(32)),
        Event::TheSourceIsThere(on) => model.elsewhere = on.then(|| Hash::of(b"brought along")),
        Event::MintingIsHeld(on) => hold(model, on),
        Event::TheControllerBegins => {
            model.crash();
            model.world.since = model.now();
        }
    }
}

fn hold(model: &mut Model, on: bool) {
    model.world.rules = Rules {
        hold_minting: on,
        ..Rules::clone(&model.world.rules)
    }
    .into();
}

pub(super) fn specs() -> impl Strategy<Value = ApiKeySpec> {
    let expiry = prop_oneof![
        Just(None),
        Just(Some(never())),
        Just(Some(after("1h"))),
        Just(Some(after("30d"))),
        Just(Some(after("what the schema refuses"))),
        Just(Some(ending_at("2026-11-21T11:59:59Z"))),
        Just(Some(ending_at("2026-12-01T12:00:00.9Z"))),
    ];
    let retention = prop_oneof![3 => Just(Retention::Always), 1 => Just(Retention::WhileActive), 1 => Just(Retention::UntilCollected)];
    let template = prop_oneof![Just(None), Just(Some(template("gold")))];
    let source =
        prop_oneof![6 => Just(None), 1 => Just(Some(from_secret())), 1 => Just(Some(by_hash()))];
    let revision = prop_oneof![3 => Just(None), 1 => Just(Some(3))];
    let revoked = prop_oneof![9 => Just(None), 1 => Just(Some(true))];
    (
        expiry,
        retention,
        template,
        rotations(),
        source,
        revision,
        revoked,
    )
        .prop_map(
            |(expiry, retention, template, (every, overlap), source, revision, revoked)| {
                ApiKeySpec {
                    expiry,
                    secret: Some(SecretSpec {
                        template,
                        ..retained(retention).secret.unwrap_or_default()
                    }),
                    rotation: Some(rotation(every, overlap)),
                    source,
                    revision,
                    revoked,
                    ..ApiKeySpec::default()
                }
            },
        )
}

/// After a rest: nothing is left to do, not even on a fresh look, and what comes by itself is waited for.
fn rests(model: &mut Model, rest: (Wake, Option<Timestamp>)) {
    let settled = Step::Settled {
        wake: rest.0,
        at: rest.1,
    };
    let now = model.now();
    assert_eq!(
        plan(&model.world, now).step,
        settled,
        "planning twice says the same"
    );
    model.look();
    let status = model.world.status();
    if status.is_final() && rest.0 == Wake::WhenSettled {
        return; // the next look is for what has landed
    }
    let mut again = plan(&model.world, now).step;
    if again == Step::AskDelivery {
        // What stands in the place of a Secret that was removed is not looked at any more: a dry run says that it is still there.
        model.apply(again).unwrap();
        again = plan(&model.world, now).step;
    }
    assert_eq!(again, settled, "and so does a fresh look");
    if model.world.apikey.is_deleting() || status.is_final() {
        return;
    }
    let held = model.world.rules.hold_minting;
    let finished = status.newest_announced().is_none() || status.current().is_none();
    assert!(
        rest.0 != Wake::OnEvent || held || finished,
        "nothing is left announced"
    );
    let past = status
        .versions
        .iter()
        .filter(|version| version.phase == VersionPhase::Retired)
        .count();
    assert!(past <= 5, "{past} retired versions are listed");
    let retiring = status
        .versions
        .iter()
        .filter(|version| version.phase == VersionPhase::Retiring);
    for moment in retiring
        .filter_map(|version| version.retires_at.as_ref())
        .map(|time| time.0)
    {
        let waits = rest.0 != Wake::OnEvent || rest.1.is_some_and(|due| due <= moment);
        assert!(waits, "what retires at {moment} is waited for");
    }
    let fixed = status.expires_at.as_ref().map(|time| time.0);
    let asked = model
        .world
        .apikey
        .spec
        .expiry
        .as_ref()
        .and_then(|expiry| expiry.at.as_ref())
        .map(|time| time.0);
    if let Some(end) = fixed.or(asked).filter(|end| *end > now) {
        let due = rest
            .1
            .expect("the end of a key is waited for, whatever else is");
        assert!(
            now < due && due <= end,
            "{due} is not between {now} and {end}"
        );
        for notice in [days(7), days(1)].map(|before| end - before) {
            let early = status
                .issued_at
                .as_ref()
                .is_some_and(|issued| issued.0 < notice)
                && now < notice;
            assert!(
                !early || due <= notice,
                "the notice at {notice} is waited for"
            );
        }
    }
}

/// All that stands in the way is removed, and nothing new happens.
fn heals(model: &mut Model) {
    (
        model.refuses,
        model.fault,
        model.ahead,
        model.world.may_mend,
    ) = (None, None, SignedDuration::ZERO, true);
    (model.world.surroundings, model.twin, model.elsewhere) = (
        Surroundings::default(),
        None,
        Some(Hash::of(b"brought along")),
    );
    hold(model, false);
    model.apikey().metadata.annotations = None;
    model.lands();
    for _ in 0..6 {
        if model
            .there
            .as_ref()
            .is_some_and(|secret| secret.deleting || secret.immutable || !model.world.owns(secret))
        {
            model.there = None;
        }
        model.grace_passes();
        model.back_off_passes();
        if model.gone || model.reconcile().is_err() {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_accident_breaks_a_promise(
        spec in specs(),
        finalizer in prop_oneof![4 => Just(true), 1 => Just(false)],
        life in prop::collection::vec((events(), any::<bool>()), 0..24),
    ) {
        let mut model = new(spec);
        model.world.rules = Rules { finalizer, ..Rules::clone(&model.world.rules) }.into();
        for (event, look) in life {
            happens(&mut model, event);
            if model.gone {
                return Ok(());
            }
            model.check();
            if look && let Ok(rest) = model.reconcile() {
                if model.gone {
                    return Ok(());
                }
                rests(&mut model, rest);
            }
        }
        heals(&mut model);
        let status = model.world.status();
        if model.world.apikey.is_deleting() {
            let ours = model.world.apikey.metadata.finalizers.iter().flatten().any(|name| name == "claviger.dev/finalizer");
            prop_assert!(model.gone || !ours, "a deleted ApiKey goes");
        } else if model.world.apikey.is_revoked() {
            prop_assert!(status.is_final() && status.revoked_at.is_some(), "a revoked key is refused");
        } else {
            let over = status.expires_at.as_ref().is_some_and(|end| end.0 <= model.now());
            let expected = if over { Phase::Expired } else { Phase::Active };
            prop_assert_eq!(status.phase, Some(expected), "every other key is issued in the end, or has come to its end");
            let acted = model.world.apikey.spec.revision <= status.revision || overlapping(&status).len() == 8;
            prop_assert!(over || acted && status.newest_announced().is_none(), "and what was asked for was delivered");
        }
    }

    #[test]
    fn gates_matter_for_nothing_but_when_a_key_that_replaces_another_is_sent(model in worlds()) {
        let with = |gates| plan(&World { gates, ..model.world.clone() }, model.now()).step;
        let (ready, behind) = (with(GateView::Ready), with(GateView::Behind));
        // An announcement carries the world that it was made from.
        let same = ready == behind || matches!((&ready, &behind), (Step::Announce(_), Step::Announce(_)));
        if !same {
            prop_assert!(matches!(ready, Step::Deliver { .. }), "{ready:?}");
            prop_assert!(matches!(behind, Step::Settled { wake: Wake::WhenGatesKnow, .. }), "{behind:?}");
            prop_assert!(model.world.status().current().is_some());
        }
    }

    #[test]
    fn a_plan_for_any_world_comes_to_rest(mut model in worlds()) {
        let before = model.there.clone();
        let ours = before.as_ref().is_some_and(|secret| model.world.owns(secret));
        match model.finish() {
            Ok(_) if model.gone => {}
            Ok(rest) => {
                let settled = Step::Settled { wake: rest.0, at: rest.1 };
                prop_assert_eq!(plan(&model.world, model.now()).step, settled);
            }
            Err(Interrupted) => prop_assert!(false, "nothing was lost"),
        }
        if !ours && before.is_some() && !model.gone {
            prop_assert_eq!(model.there, before, "a Secret that is not ours is never touched");
        }
    }
}

/// A life that long runs of the above came to.
#[test]
fn a_rotation_rests_where_a_stranger_has_the_place_of_a_removed_secret() {
    let retention = Retention::UntilCollected;
    let secret = SecretSpec {
        retention: Some(retention),
        ..SecretSpec::default()
    };
    let mut model = issued(ApiKeySpec {
        secret: Some(secret),
        ..rotating(Some("10m"), Some("9m"))
    });
    happens(&mut model, Event::SecretHoldsAnotherKey);
    happens(&mut model, Event::SecretIsReplacedByACopy);
    model.pass(days(2));
    let rest = model.reconcile().unwrap();
    rests(&mut model, rest);
    assert_eq!(says(&model, "Ready"), "!SecretConflict");
}
