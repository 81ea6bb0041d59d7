//! When the next version comes, and when the one before it goes.

use super::model::{Fault, overlapping};
use super::table::plain;
use super::*;
use crate::api::VersionPhase;

fn raise(model: &mut Model) {
    model.wish(Wish::Raise);
    model.reconcile().unwrap();
}

fn named(uid: &str, spec: ApiKeySpec) -> Model {
    let mut model = new(spec);
    model.apikey().metadata.uid = Some(uid.to_owned());
    model.reconcile().unwrap();
    model
}

fn holds(model: &Model) -> i64 {
    let hash = model.there.as_ref().and_then(|secret| secret.key).unwrap();
    model.world.status().version_of(hash).unwrap().version
}

#[test]
fn a_raised_revision_brings_the_next_version_once() {
    let mut model = issued(rotating(None, Some("1h")));
    let uid = model.there.as_ref().unwrap().uid.clone();
    raise(&mut model);
    assert_eq!(
        (versions(&model).as_str(), holds(&model)),
        ("1 Retiring, 2 Current", 2)
    );
    assert_eq!(model.there.as_ref().unwrap().uid, uid, "in the same Secret");
    assert_eq!(heard(&mut model), ["Issued", "Rotated"]);
    assert_eq!(model.world.status().revision, Some(1));
    assert_eq!(
        (says(&model, "Ready"), says(&model, "Delivered")),
        ("Issued".to_owned(), "Delivered".to_owned())
    );
    let again = model.reconcile().unwrap();
    assert_eq!(
        again,
        (Wake::OnEvent, Some(at(NOON) + hours(1))),
        "and then the end of the first is waited for"
    );
    assert_eq!(versions(&model), "1 Retiring, 2 Current");
    model.pass(hours(1));
    model.reconcile().unwrap();
    assert_eq!(
        (versions(&model).as_str(), heard(&mut model)),
        ("1 Retired, 2 Current", vec!["Retired".to_owned()])
    );
}

/// Whoever reads the Secret uses its key at once, and is refused by a gate that has not heard of it.
#[test]
fn the_next_key_is_not_given_out_before_gates_know_it() {
    let mut model = announced_next(plain());
    model.world.gates = GateView::Behind;
    assert_eq!(model.finish().unwrap(), (Wake::WhenGatesKnow, None));
    assert_eq!(
        (versions(&model).as_str(), holds(&model)),
        ("1 Current, 2 Announced", 1)
    );
    model.world.gates = GateView::Ready;
    model.finish().unwrap();
    assert_eq!(
        (versions(&model).as_str(), holds(&model)),
        ("1 Retiring, 2 Current", 2)
    );

    let mut revoked = announced_next(plain());
    revoked.world.gates = GateView::Behind;
    revoked.wish(Wish::Revoke);
    revoked.reconcile().unwrap();
    assert_eq!(
        revoked.world.status().phase,
        Some(crate::api::Phase::Revoked),
        "and what ends a key does not wait"
    );

    let mut first = held(plain());
    first.world.gates = GateView::Behind;
    first.finish().unwrap();
    assert_eq!(
        (versions(&first).as_str(), holds(&first)),
        ("1 Current", 1),
        "there is none before the first that would pass"
    );
}

#[test]
fn what_is_raised_twice_is_done_once_and_what_is_raised_meanwhile_afterwards() {
    let mut model = issued(plain());
    model.wish(Wish::Raise);
    model.wish(Wish::Raise);
    model.reconcile().unwrap();
    assert_eq!(
        (versions(&model).as_str(), model.world.status().revision),
        ("1 Retiring, 2 Current", Some(2))
    );
    let mut model = announced_next(plain());
    model.wish(Wish::Raise);
    model.reconcile().unwrap();
    assert_eq!(
        (versions(&model).as_str(), model.world.status().revision),
        ("1 Retiring, 2 Retiring, 3 Current", Some(2))
    );
    let model = issued(ApiKeySpec {
        revision: Some(7),
        ..plain()
    });
    assert_eq!(
        (versions(&model).as_str(), model.world.status().revision),
        ("1 Current", Some(7)),
        "the first is for it"
    );
}

#[test]
fn the_interval_is_kept_with_a_part_taken_off_that_stays_the_same() {
    let spec = || rotating(Some("30d"), None);
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..50 {
        let uid = format!("uid-{number}");
        let mut model = named(&uid, spec());
        let due = model.world.status().rotates_at.unwrap().0;
        assert!(
            at(NOON) + days(27) <= due && due <= at(NOON) + days(30),
            "{due}"
        );
        assert_eq!(
            named(&uid, spec()).world.status().rotates_at.unwrap().0,
            due,
            "the same for the same UID"
        );
        seen.insert(due);
        model.pass(due.duration_since(at(NOON)) - SignedDuration::from_secs(1));
        assert_eq!(model.reconcile().unwrap(), (Wake::OnEvent, Some(due)));
        assert_eq!(versions(&model), "1 Current");
        model.pass(SignedDuration::from_secs(1));
        model.reconcile().unwrap();
        assert_eq!(versions(&model), "1 Retiring, 2 Current");
        let next = model.world.status().rotates_at.unwrap().0;
        assert_eq!(
            next.duration_since(due),
            due.duration_since(at(NOON)),
            "counted from the last activation"
        );
    }
    assert!(
        seen.len() > 45,
        "keys made together are not replaced together"
    );
    let short = issued(ApiKeySpec {
        expiry: Some(after("20d")),
        ..spec()
    });
    assert_eq!(
        short.world.status().rotates_at,
        None,
        "not past the end of the key"
    );
}

#[test]
fn what_is_overdue_after_an_outage_is_spread() {
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..20 {
        let mut model = named(&format!("uid-{number}"), rotating(Some("30d"), None));
        model.pass(days(100));
        model.crash();
        model.world.since = model.now();
        let (_, due) = model.reconcile().unwrap();
        let wait = due.unwrap_or(model.now()).duration_since(model.now());
        assert!(wait <= SignedDuration::from_mins(10), "{wait}");
        seen.insert(wait);
        model.pass(wait);
        model.reconcile().unwrap();
        assert_eq!(versions(&model), "1 Retiring, 2 Current");
    }
    assert!(seen.len() > 15);
}

#[test]
fn eight_overlap_and_the_ninth_waits_and_says_so() {
    let mut model = issued(rotating(None, Some("3d")));
    for _ in 0..7 {
        raise(&mut model);
        model.pass(hours(1));
    }
    assert_eq!(overlapping(&model.world.status()).len(), 8);
    heard(&mut model);
    raise(&mut model);
    assert_eq!(
        (says(&model, "Ready"), says(&model, "Stalled")),
        ("!RotationWaits".to_owned(), "!NotStalled".to_owned())
    );
    assert_eq!(heard(&mut model), ["RotationWaits"]);
    let (wake, due) = model.reconcile().unwrap();
    assert_eq!((wake, due), (Wake::OnEvent, Some(at(NOON) + days(3))));
    model.pass(due.unwrap().duration_since(model.now()));
    model.reconcile().unwrap();
    assert_eq!(
        overlapping(&model.world.status()),
        (2..=9).collect::<Vec<_>>(),
        "one has retired, and the next has come"
    );
    assert_eq!(says(&model, "Ready"), "Issued");
    // Where the clock is wrong, no event says that it is right again.
    raise(&mut model);
    model.pass(days(4));
    model.ahead = hours(2);
    assert_eq!(model.reconcile().unwrap().0, Wake::BackOff);
    model.ahead = SignedDuration::ZERO;
    model.reconcile().unwrap();
    assert_eq!(versions(&model).matches("Retired").count(), 5);
}

#[test]
fn a_lowered_overlap_ends_at_once_and_a_raised_one_extends_nothing() {
    let mut model = issued(rotating(None, Some("3d")));
    for _ in 0..7 {
        raise(&mut model);
    }
    let end = |model: &Model| {
        model.world.status().versions[0]
            .retires_at
            .clone()
            .unwrap()
            .0
    };
    model.wish(Wish::Rotate(None, Some("9d")));
    model.reconcile().unwrap();
    assert_eq!(end(&model), at(NOON) + days(3));
    model.wish(Wish::Rotate(None, Some("1d")));
    model.reconcile().unwrap();
    assert_eq!(end(&model), at(NOON) + days(1));
    heard(&mut model);
    model.wish(Wish::Rotate(None, Some("0s")));
    model.reconcile().unwrap();
    assert_eq!(heard(&mut model), ["Retired"; 7], "each is told");
    assert_eq!(
        versions(&model),
        "3 Retired, 4 Retired, 5 Retired, 6 Retired, 7 Retired, 8 Current",
        "and five stay listed"
    );
    raise(&mut model);
    assert!(
        versions(&model).ends_with("8 Retired, 9 Current"),
        "a rotation without overlap"
    );
}

#[test]
fn a_replaced_version_never_outlives_the_key() {
    let mut model = issued(ApiKeySpec {
        expiry: Some(after("2h")),
        ..rotating(None, Some("1d"))
    });
    raise(&mut model);
    assert_eq!(
        model.world.status().versions[0]
            .retires_at
            .clone()
            .unwrap()
            .0,
        at(NOON) + hours(2)
    );
}

#[test]
fn a_refused_delivery_is_withdrawn_and_asked_for_next() {
    let mut model = issued(plain());
    model.refuses = Some(reason::QUOTA_EXCEEDED);
    raise(&mut model);
    assert_eq!(
        (versions(&model).as_str(), model.world.status().revision),
        ("1 Current", None)
    );
    assert_eq!(
        (says(&model, "Ready"), says(&model, "Usable")),
        ("!QuotaExceeded".to_owned(), "Active".to_owned())
    );
    assert_eq!(
        says(&model, "Delivered"),
        "Delivered",
        "the Secret holds what it held"
    );
    model.back_off_passes();
    model.look();
    assert_eq!(tell(&model.world, model.now()), "ask delivery");
    model.reconcile().unwrap();
    assert_eq!(versions(&model), "1 Current");
    model.refuses = None;
    model.back_off_passes();
    model.reconcile().unwrap();
    assert_eq!(
        (versions(&model).as_str(), says(&model, "Ready").as_str()),
        ("1 Retiring, 2 Current", "Issued")
    );
    // Also where the Secret was edited: that is not what stands in the way.
    let mut model = when(issued(plain()), |model| {
        model.edit(|secret| secret.key = None);
    });
    model.refuses = Some(reason::DELIVERY_REFUSED);
    raise(&mut model);
    assert_eq!(says(&model, "Ready"), "!DeliveryRefused");
}

#[test]
fn a_rotation_heals_what_was_deleted_or_edited_and_leaves_what_is_not_ours() {
    let rotated = |change: fn(&mut Model)| {
        let mut model = issued(plain());
        change(&mut model);
        model.reconcile().unwrap();
        raise(&mut model);
        model
    };
    for (name, change) in [
        ("missing", (|model| model.there = None) as fn(&mut Model)),
        ("edited", |model| {
            model.edit(|secret| secret.key = Some(Hash::of(b"x")));
        }),
        ("empty", |model| model.edit(|secret| secret.key = None)),
    ] {
        let model = rotated(change);
        assert_eq!(
            (versions(&model).as_str(), holds(&model)),
            ("1 Retiring, 2 Current", 2),
            "{name}"
        );
        assert_eq!(says(&model, "Ready"), "Issued", "{name}");
    }
    let immutable = rotated(|model| model.edit(|secret| secret.immutable = true));
    assert_eq!(
        (
            versions(&immutable).as_str(),
            says(&immutable, "Ready").as_str()
        ),
        ("1 Current", "!SecretImmutable")
    );
    let gone = when(immutable, |model| {
        model.there = None;
        model.reconcile().unwrap();
    });
    assert_eq!(
        versions(&gone),
        "1 Retiring, 2 Current",
        "a new one is mutable"
    );
    let foreign = rotated(|model| model.plant_foreign(true));
    assert_eq!(
        (
            versions(&foreign).as_str(),
            says(&foreign, "Ready").as_str()
        ),
        ("1 Current", "!SecretConflict")
    );
}

#[test]
fn a_crash_at_any_write_loses_no_key_that_somebody_holds() {
    for fault in [Fault::AnswerLost, Fault::RequestLost, Fault::Late] {
        for writes in 0..3 {
            for crash in [false, true] {
                let mut model = issued(plain());
                model.wish(Wish::Raise);
                model.fault = Some((writes, fault));
                assert!(model.reconcile().is_err(), "announce, deliver, activate");
                if crash {
                    model.crash();
                }
                let landing = model.clone();
                for (mut model, lands) in [(model, false), (landing, true)] {
                    if lands {
                        model.lands();
                    }
                    let _ = model.reconcile();
                    model.grace_passes();
                    model.reconcile().unwrap();
                    let status = model.world.status();
                    let current = status.current().unwrap();
                    let name = format!("{fault:?} {writes} {crash} {lands}: {}", versions(&model));
                    assert_eq!(
                        (holds(&model), status.revision),
                        (current.version, Some(1)),
                        "{name}"
                    );
                    assert_eq!(overlapping(&status).len(), 2, "{name}");
                    assert!(status.newest_announced().is_none(), "{name}");
                }
            }
        }
    }
}

#[test]
fn a_late_replacement_cannot_take_the_place_of_a_newer_one() {
    let mut model = announced_next(plain());
    model.fault = Some((0, Fault::Late));
    assert!(model.finish().is_err());
    let flying = model.flying.clone();
    model.reconcile().unwrap();
    raise(&mut model);
    model.flying = flying;
    model.lands();
    assert_eq!(
        (versions(&model).as_str(), holds(&model)),
        ("1 Retiring, 2 Retiring, 3 Current", 3)
    );
}

#[test]
fn a_wrong_clock_neither_rotates_nor_retires() {
    let mut model = issued(rotating(Some("30d"), None));
    model.ahead = days(31);
    model.reconcile().unwrap();
    assert_eq!(
        (versions(&model).as_str(), says(&model, "Ready").as_str()),
        ("1 Current", "!ClockDisagrees")
    );
    model.ahead = SignedDuration::ZERO;
    raise(&mut model);
    model.ahead = days(2);
    assert_eq!(model.reconcile().unwrap().0, Wake::BackOff);
    assert_eq!(versions(&model), "1 Retiring, 2 Current");
}

#[test]
fn an_end_or_a_deletion_during_a_rotation_comes_first() {
    let mut model = announced_next(plain());
    model.wish(Wish::Revoke);
    model.reconcile().unwrap();
    assert_eq!(
        (says(&model, "Usable").as_str(), holds(&model)),
        ("!Revoked", 1)
    );
    let mut model = announced_next(expiring(after("1h")));
    model.pass(hours(1));
    model.reconcile().unwrap();
    assert_eq!(
        (says(&model, "Usable").as_str(), holds(&model)),
        ("!Expired", 1)
    );
    let mut model = announced_next(plain());
    model.fault = Some((0, Fault::Late));
    assert!(model.finish().is_err());
    model.wish(Wish::Delete);
    model.reconcile().unwrap();
    model.lands();
    assert_eq!(model.there, None, "what replaces cannot create");
    model.grace_passes();
    model.reconcile().unwrap();
    assert!(model.gone);
}

#[test]
fn who_reads_again_more_often_than_the_overlap_always_has_a_version_that_passes() {
    let mut model = issued(rotating(Some("10h"), Some("1h")));
    let mut mine = model.there.as_ref().unwrap().key.unwrap();
    for round in 0..400_i64 {
        if round % 23 == 0 {
            model.wish(Wish::Raise);
        }
        if round % 7 == 0 {
            model.fault = Some((
                u8::try_from(round % 4).unwrap(),
                [Fault::AnswerLost, Fault::Late][usize::from(round % 2 == 0)],
            ));
        }
        if round % 11 == 0 {
            model.crash();
        }
        model.pass(SignedDuration::from_mins(23));
        model.grace_passes();
        for _ in 0..3 {
            let _ = model.reconcile();
            let status = model.world.status();
            let version = status.version_of(mine).unwrap();
            let passes = version
                .retires_at
                .as_ref()
                .is_none_or(|end| model.true_time() < end.0);
            assert!(
                passes && version.phase != VersionPhase::Retired,
                "round {round}: {}",
                versions(&model)
            );
        }
        mine = model.there.as_ref().unwrap().key.unwrap();
        let version = model.world.status().version_of(mine).cloned().unwrap();
        assert!(
            matches!(
                version.phase,
                VersionPhase::Announced | VersionPhase::Current
            ),
            "round {round}"
        );
    }
    assert!(
        model.world.status().version.unwrap() > 15,
        "many versions have come and gone"
    );
}
