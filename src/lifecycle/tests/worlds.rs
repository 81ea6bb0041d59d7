//! Worlds put together at random.

use proptest::prelude::*;

use super::properties::specs;
use super::*;
use crate::api::{Phase, Version, VersionPhase};

/// Worlds put together at random: no life leads to most of them, but a restore or a person might.
pub(super) fn worlds() -> impl Strategy<Value = Model> {
    (specs(), statuses(), secrets(), surroundings()).prop_map(|(spec, status, secret, around)| {
        let mut world = new(spec).world;
        let apikey = std::sync::Arc::make_mut(&mut world.apikey);
        apikey.status = status;
        apikey.metadata.finalizers = around
            .finalizer
            .then(|| vec!["claviger.dev/finalizer".to_owned()]);
        apikey.metadata.deletion_timestamp = around
            .deleting
            .then(|| k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(NOON)));
        world.rules = Rules {
            finalizer: around.rule,
            ..Rules::clone(&world.rules)
        }
        .into();
        world.clock = Clock::judge(SignedDuration::from_secs(around.ahead));
        world.may_mend = around.may_mend;
        world.gates = if around.behind {
            GateView::Behind
        } else {
            GateView::Ready
        };
        world.secret = secret;
        let newest = world
            .status()
            .newest_announced()
            .map(|listed| listed.version);
        world.outstanding = match (around.outstanding, newest) {
            (0, Some(version)) => Outstanding::Held {
                version,
                ambiguous: around.ambiguous,
            },
            (1, Some(_)) => Outstanding::Unsettled,
            _ => Outstanding::Settled,
        };
        world.delivery = match around.delivery {
            0 => Delivery::Untried,
            1 => Delivery::Possible,
            _ => Delivery::Refused(Refusal {
                reason: reason::QUOTA_EXCEEDED,
                message: "full".to_owned(),
            }),
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
    behind: bool,
    ambiguous: bool,
    ahead: i64,
    outstanding: u8,
    delivery: u8,
}

fn surroundings() -> impl Strategy<Value = Around> {
    let flags = (
        any::<bool>(),
        prop::bool::weighted(0.3),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    );
    let rest = (
        prop_oneof![Just(0), Just(120), Just(-120)],
        0..3_u8,
        0..3_u8,
    );
    (flags, rest).prop_map(
        |(
            (finalizer, deleting, rule, may_mend, behind, ambiguous),
            (ahead, outstanding, delivery),
        )| Around {
            finalizer,
            deleting,
            rule,
            may_mend,
            behind,
            ambiguous,
            ahead,
            outstanding,
            delivery,
        },
    )
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
        .prop_map(|text| {
            text.map(|text| k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(text)))
        })
    };
    let phase = prop_oneof![
        Just(None),
        Just(Some(Phase::Pending)),
        Just(Some(Phase::Active)),
        Just(Some(Phase::Expired)),
        Just(Some(Phase::Revoked)),
    ];
    let ended = (
        prop::option::weighted(0.2, Just(at(NOON))),
        prop::option::weighted(0.2, Just(at(NOON))),
    );
    let facts = (phase, ended, time(), time(), any::<bool>());
    let lists = (
        0..3_u8,
        prop::option::of(0..8_u8),
        prop::option::of(prop_oneof![Just("uid-a"), Just("uid-b")]),
    );
    let said = prop_oneof![
        Just(None),
        Just(Some(reason::SECRET_CONFLICT)),
        Just(Some(reason::ISSUED))
    ];
    let status = (facts, lists, said).prop_map(
        |((phase, ended, issued_at, expires_at, known), lists, said)| {
            let (announced, replaced, recorded) = lists;
            let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
            let mut status = ApiKeyStatus {
                phase,
                revoked_at: ended.0.map(time),
                expired_at: ended.1.map(time),
                last_used_at: issued_at.clone(),
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
                let retires = at(NOON)
                    + if phase == VersionPhase::Retired {
                        hours(-1)
                    } else {
                        hours(i64::from(number))
                    };
                status.versions.push(Version {
                    version: i64::from(number) + 1,
                    hash: hash(number).to_string(),
                    tail: "abcdef".to_owned(),
                    phase,
                    announced_at: time(at(NOON)),
                    activated_at: (phase != VersionPhase::Announced)
                        .then(|| time(at(NOON) - hours(2))),
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
        },
    );
    prop::option::weighted(0.9, status)
}

fn secrets() -> impl Strategy<Value = SecretView> {
    let uid = prop_oneof![Just("uid-a"), Just("uid-b")];
    let key = prop::option::of(0..9_u8);
    let facts = (
        uid,
        key,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        prop_oneof![Just(None), Just(Some("gold"))],
    );
    let present = facts.prop_map(|(uid, key, deleting, immutable, edited, applied)| {
        let mut model = new(applied.map(with_template).unwrap_or_default());
        model.plant_foreign(true);
        let mut secret = model.there.unwrap();
        uid.clone_into(&mut secret.uid);
        (secret.key, secret.deleting, secret.immutable) = (key.map(hash), deleting, immutable);
        secret.edited_entries = if edited && applied.is_some() {
            vec!["HEADER".to_owned()]
        } else {
            Vec::new()
        };
        SecretView::Present(secret)
    });
    prop_oneof![1 => Just(SecretView::Absent), 1 => Just(SecretView::Unknown), 6 => present]
}
