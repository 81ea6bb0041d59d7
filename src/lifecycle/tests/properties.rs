//! Long lives with accidents, and worlds that no life leads to.

use proptest::prelude::*;

use super::model::{Fault, Interrupted};
use super::*;
use crate::api::{Phase, Version, VersionPhase};

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
}

fn events() -> impl Strategy<Value = Event> {
    let wish = prop_oneof![
        3 => prop_oneof![Just("gold"), Just("silver")].prop_map(Wish::Template),
        1 => Just(Wish::Revoke),
        1 => Just(Wish::Delete),
    ];
    let fault = prop_oneof![Just(Fault::AnswerLost), Just(Fault::RequestLost), Just(Fault::Late)];
    let refusal = prop_oneof![
        Just(None),
        Just(Some(reason::QUOTA_EXCEEDED)),
        Just(Some(reason::DELIVERY_REFUSED)),
        Just(Some(reason::NAMESPACE_TERMINATING)),
    ];
    let ahead = prop_oneof![Just(0), Just(59), Just(61), Just(-61), Just(86_400), Just(-86_400), Just(31_536_000)];
    prop_oneof![
        3 => prop_oneof![1..100_i64, 1..10_000_i64, 1..3_000_000_i64].prop_map(Event::Pass),
        1 => ahead.prop_map(Event::ClockIsAheadBy),
        2 => wish.prop_map(Event::Wish),
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
        Event::SecretHoldsAnotherKey => model.edit(|secret| secret.key = Some(Hash::of(b"somebody else's"))),
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
        Event::SomebodyTakesTheName { cunning } if model.there.is_none() => model.plant_foreign(cunning),
        Event::SomebodyTakesTheName { .. } => {}
        Event::MendingIsPaused(paused) => model.world.may_mend = !paused,
        Event::TheFinalizerIsDropped if model.world.apikey.is_deleting() => {}
        Event::TheFinalizerIsDropped => model.apikey().metadata.finalizers = None,
    }
}

fn specs() -> impl Strategy<Value = ApiKeySpec> {
    let expiry = prop_oneof![
        Just(None),
        Just(Some(never())),
        Just(Some(after("1h"))),
        Just(Some(after("30d"))),
        Just(Some(after("what the schema refuses"))),
        Just(Some(ending_at("2026-11-21T11:59:59Z"))),
        Just(Some(ending_at("2026-12-01T12:00:00.9Z"))),
    ];
    let secret = prop_oneof![Just(None), Just(with_template("gold").secret)];
    let revoked = prop_oneof![9 => Just(None), 1 => Just(Some(true))];
    (expiry, secret, revoked).prop_map(|(expiry, secret, revoked)| ApiKeySpec {
        expiry,
        secret,
        revoked,
        ..ApiKeySpec::default()
    })
}

/// After a rest: nothing is left to do, not even on a fresh look, and what comes by itself is waited for.
fn rests(model: &mut Model, rest: (Wake, Option<Timestamp>)) {
    let settled = Step::Settled { wake: rest.0, at: rest.1 };
    let now = model.now();
    assert_eq!(plan(&model.world, now).step, settled, "planning twice says the same");
    model.look();
    assert_eq!(plan(&model.world, now).step, settled, "and so does a fresh look");
    let status = model.world.status();
    if model.world.apikey.is_deleting() || status.is_final() {
        return;
    }
    let fixed = status.expires_at.as_ref().map(|time| time.0);
    let asked = model.world.apikey.spec.expiry.as_ref().and_then(|expiry| expiry.at.as_ref()).map(|time| time.0);
    if let Some(end) = fixed.or(asked).filter(|end| *end > now) {
        let due = rest.1.expect("the end of a key is waited for, whatever else is");
        assert!(now < due && due <= end, "{due} is not between {now} and {end}");
        for notice in [days(7), days(1)].map(|before| end - before) {
            let early = status.issued_at.as_ref().is_some_and(|issued| issued.0 < notice) && now < notice;
            assert!(!early || due <= notice, "the notice at {notice} is waited for");
        }
    }
}

/// All that stands in the way is removed, and nothing new happens.
fn heals(model: &mut Model) {
    (model.refuses, model.fault, model.ahead, model.world.may_mend) = (None, None, SignedDuration::ZERO, true);
    model.lands();
    for _ in 0..4 {
        if model.there.as_ref().is_some_and(|secret| secret.deleting || !model.world.owns(secret)) {
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

/// Worlds put together at random: no life leads to most of them, but a restore or a person might.
fn worlds() -> impl Strategy<Value = Model> {
    (specs(), statuses(), secrets(), surroundings()).prop_map(|(spec, status, secret, around)| {
        let mut world = new(spec).world;
        let apikey = std::sync::Arc::make_mut(&mut world.apikey);
        apikey.status = status;
        apikey.metadata.finalizers = around.finalizer.then(|| vec!["claviger.dev/finalizer".to_owned()]);
        apikey.metadata.deletion_timestamp =
            around.deleting.then(|| k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(NOON)));
        world.rules = Rules { finalizer: around.rule, ..Rules::clone(&world.rules) }.into();
        world.clock = Clock::judge(SignedDuration::from_secs(around.ahead));
        world.may_mend = around.may_mend;
        world.secret = secret;
        let newest = world.status().newest_announced().map(|listed| listed.version);
        world.outstanding = match (around.outstanding, newest) {
            (0, Some(version)) => Outstanding::Held { version, ambiguous: around.ambiguous },
            (1, Some(_)) => Outstanding::Unsettled,
            _ => Outstanding::Settled,
        };
        world.delivery = match around.delivery {
            0 => Delivery::Untried,
            1 => Delivery::Possible,
            _ => Delivery::Refused(Refusal { reason: reason::QUOTA_EXCEEDED, message: "full".to_owned() }),
        };
        Model::of(world, at(NOON))
    })
}

#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
struct Around {
    finalizer: bool,
    deleting: bool,
    rule: bool,
    may_mend: bool,
    ambiguous: bool,
    ahead: i64,
    outstanding: u8,
    delivery: u8,
}

fn surroundings() -> impl Strategy<Value = Around> {
    let flags = (any::<bool>(), prop::bool::weighted(0.3), any::<bool>(), any::<bool>(), any::<bool>());
    let rest = (prop_oneof![Just(0), Just(120), Just(-120)], 0..3_u8, 0..3_u8);
    (flags, rest).prop_map(|((finalizer, deleting, rule, may_mend, ambiguous), (ahead, outstanding, delivery))| Around {
        finalizer,
        deleting,
        rule,
        may_mend,
        ambiguous,
        ahead,
        outstanding,
        delivery,
    })
}

/// A hash by the number of its key.
fn hash(number: u8) -> Hash {
    Hash::of(&[number])
}

fn statuses() -> impl Strategy<Value = Option<ApiKeyStatus>> {
    let time = || {
        prop_oneof![
            Just(None),
            Just(Some("2026-11-01T00:00:00Z")),
            Just(Some("2026-11-21T12:00:00Z")),
            Just(Some("2026-11-27T00:00:00Z")),
            Just(Some("2027-11-21T00:00:00Z")),
        ]
        .prop_map(|text| text.map(|text| k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(text))))
    };
    let phase = prop_oneof![
        Just(None),
        Just(Some(Phase::Pending)),
        Just(Some(Phase::Active)),
        Just(Some(Phase::Expired)),
        Just(Some(Phase::Revoked)),
    ];
    let ended = (prop::option::weighted(0.2, Just(at(NOON))), prop::option::weighted(0.2, Just(at(NOON))));
    let facts = (phase, ended, time(), time(), any::<bool>());
    let lists = (0..3_u8, prop::option::of(0..8_u8), prop::option::of(prop_oneof![Just("uid-a"), Just("uid-b")]));
    let said = prop_oneof![Just(None), Just(Some(reason::SECRET_CONFLICT)), Just(Some(reason::ISSUED))];
    let status = (facts, lists, said).prop_map(|((phase, ended, issued_at, expires_at, known), lists, said)| {
        let (announced, replaced, recorded) = lists;
        let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
        let mut status = ApiKeyStatus {
            phase,
            revoked_at: ended.0.map(time),
            expired_at: ended.1.map(time),
            issued_at,
            // Written together, at the first announcement.
            expires_at: expires_at.filter(|_| known),
            key_id: known.then(|| "0".repeat(32)),
            ..ApiKeyStatus::default()
        };
        // Where one is in use, so many were replaced before; announced ones come last.
        let before = replaced.map_or(0, |replaced| replaced + 1);
        for number in 0..before + announced {
            let phase = match before {
                _ if number >= before => VersionPhase::Announced,
                _ if number + 1 == before => VersionPhase::Current,
                _ if number % 3 == 0 => VersionPhase::Retired,
                _ => VersionPhase::Retiring,
            };
            let is_replaced = matches!(phase, VersionPhase::Retiring | VersionPhase::Retired);
            let retires = at(NOON) + if phase == VersionPhase::Retired { hours(-1) } else { hours(i64::from(number)) };
            status.versions.push(Version {
                version: i64::from(number) + 1,
                hash: hash(number).to_string(),
                tail: "abcdef".to_owned(),
                phase,
                announced_at: time(at(NOON)),
                activated_at: (phase != VersionPhase::Announced).then(|| time(at(NOON) - hours(2))),
                revision: None,
                replaced_at: is_replaced.then(|| time(at(NOON) - hours(2))),
                retires_at: is_replaced.then(|| time(retires)),
                collected_at: None,
                discarded_at: None,
            });
        }
        if let Some(listed) = status.current().cloned() {
            (status.version, status.hash) = (Some(listed.version), Some(listed.hash));
        }
        status.secret_ref = recorded.map(|uid| crate::api::DeliveredSecret {
            name: "billing".to_owned(),
            key: "api-key".to_owned(),
            uid: uid.to_owned(),
            resource_version: "1".to_owned(),
        });
        if let Some(reason) = said {
            let statement = crate::api::conditions::Statement {
                type_: crate::api::ConditionType::Delivered,
                holds: reason == reason::ISSUED,
                reason,
                message: String::new(),
            };
            crate::api::conditions::set(&mut status.conditions, statement, Some(1), at(NOON));
        }
        status
    });
    prop::option::weighted(0.9, status)
}

fn secrets() -> impl Strategy<Value = SecretView> {
    let uid = prop_oneof![Just("uid-a"), Just("uid-b")];
    let key = prop::option::of(0..9_u8);
    let facts = (uid, key, any::<bool>(), any::<bool>(), any::<bool>(), prop_oneof![Just(None), Just(Some("gold"))]);
    let present = facts.prop_map(|(uid, key, deleting, immutable, edited, applied)| {
        let mut model = new(applied.map(with_template).unwrap_or_default());
        model.plant_foreign(true);
        let mut secret = model.there.unwrap();
        uid.clone_into(&mut secret.uid);
        (secret.key, secret.deleting, secret.immutable) = (key.map(hash), deleting, immutable);
        secret.edited_entries = if edited && applied.is_some() { vec!["HEADER".to_owned()] } else { Vec::new() };
        SecretView::Present(secret)
    });
    prop_oneof![1 => Just(SecretView::Absent), 1 => Just(SecretView::Unknown), 6 => present]
}
