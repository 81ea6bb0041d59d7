//! How keys end, and what a clock that is wrong does not do.

use super::model::Fault;
use super::table::{after_all, check, no_finalizer, plain, unanswered};
use super::*;

// Statuses that rows expect: phase, conditions with their reasons, and what kstatus computes.
const ENDING: &str = "write Active: Ready(Issued) !Stalled(NotStalled) Usable(ExpiringSoon) Delivered(Delivered) = Current";
const EXPIRED: &str = "write Expired: Ready(Expired) !Stalled(NotStalled) !Usable(Expired) Delivered(Delivered) = Current";
const EXPIRED_MISSING: &str = "write Expired: Ready(Expired) !Stalled(NotStalled) !Usable(Expired) !Delivered(SecretMissing) = Current";
const EXPIRED_UNDELIVERED: &str = "write Expired: Ready(Expired) !Stalled(NotStalled) !Usable(Expired) !Delivered(Expired) = Current";
const REVOKED: &str = "write Revoked: Ready(Revoked) !Stalled(NotStalled) !Usable(Revoked) Delivered(Delivered) = Current";
const REVOKED_MISSING: &str = "write Revoked: Ready(Revoked) !Stalled(NotStalled) !Usable(Revoked) !Delivered(SecretMissing) = Current";
const REVOKED_UNDELIVERED: &str = "write Revoked: Ready(Revoked) !Stalled(NotStalled) !Usable(Revoked) !Delivered(Revoked) = Current";
const NO_CLOCK: &str = "write Pending: !Ready(ClockDisagrees) !Stalled(NotStalled) !Usable(Pending) !Delivered(ClockDisagrees) = InProgress";

#[test]
fn time_ends_a_key() {
    let hour = || expiring(after("1h"));
    let past = || expiring(ending_at("2026-11-21T11:00:00Z"));
    let future = || expiring(ending_at("2026-12-24T12:00:00Z"));
    let later = |model: Model, time| when(model, |model| model.pass(time));
    check(vec![
        (
            "Asked to end in the past: never minted",
            seen(new(past())),
            EXPIRED_UNDELIVERED,
        ),
        (
            "Asked to end at this very second: the same",
            seen(new(expiring(ending_at(NOON)))),
            EXPIRED_UNDELIVERED,
        ),
        (
            "Asked to end in the future",
            seen(new(future())),
            "add finalizer",
        ),
        (
            "A second before the end it passes",
            later(issued(hour()), SignedDuration::from_secs(3_599)),
            "wait, OnEvent, until 2026-11-21T13:00:00Z at the latest",
        ),
        (
            "At the end it is over",
            later(issued(hour()), hours(1)),
            EXPIRED,
        ),
        (
            "Also when the Secret has gone before",
            when(issued(hour()), |model| {
                model.there = None;
                model.pass(hours(1));
            }),
            EXPIRED_MISSING,
        ),
        (
            "Also before it was delivered",
            later(held(hour()), hours(1)),
            EXPIRED_UNDELIVERED,
        ),
        (
            "Also when its fate was unknown",
            later(crashed(hour()), hours(1)),
            EXPIRED_UNDELIVERED,
        ),
        (
            "Also when it was refused",
            later(withdrawn(hour()), hours(1)),
            EXPIRED_UNDELIVERED,
        ),
        (
            "It is over for good, also when the clock steps back",
            later(expired("1h"), days(-500)),
            "wait, OnEvent",
        ),
        (
            "An expired key can be revoked, and stays expired",
            when(expired("1h"), |model| model.wish(Wish::Revoke)),
            EXPIRED,
        ),
        (
            "and then nothing more",
            seen(after_all(when(expired("1h"), |model| {
                model.wish(Wish::Revoke);
            }))),
            "wait, OnEvent",
        ),
        (
            "Its Secret is not mended any more, only watched",
            when(expired("1h"), |model| model.edit(|s| s.labels.clear())),
            "wait, OnEvent",
        ),
        (
            "Its Secret was deleted",
            when(expired("1h"), |model| model.there = None),
            EXPIRED_MISSING,
        ),
        (
            "Seven days before the end",
            later(issued(expiring(after("90d"))), days(83)),
            ENDING,
        ),
        (
            "A day before the end",
            later(issued(expiring(after("90d"))), days(89)),
            ENDING,
        ),
        (
            "A lifetime that nobody can read is none",
            after_all(new(expiring(after("soon")))),
            "wait, WhenSettled",
        ),
    ]);
}

#[test]
fn a_clock_that_is_wrong_ends_nothing_and_fixes_nothing() {
    let ahead = |model: Model, seconds| {
        when(model, |model| {
            model.apikey().metadata.finalizers = Some(vec!["claviger.dev/finalizer".to_owned()]);
            model.ahead = SignedDuration::from_secs(seconds);
        })
    };
    let hour = || expiring(after("1h"));
    check(vec![
        (
            "A lifetime cannot be counted from it",
            ahead(new(hour()), 3_600),
            NO_CLOCK,
        ),
        (
            "nor from one that is slow",
            ahead(new(hour()), -3_600),
            NO_CLOCK,
        ),
        (
            "A minute does not matter",
            ahead(new(hour()), 60),
            "announce 1",
        ),
        (
            "A key without an end needs no clock",
            ahead(new(plain()), 3_600),
            "announce 1",
        ),
        (
            "nor one that never ends",
            ahead(new(expiring(never())), 3_600),
            "announce 1",
        ),
        (
            "nor one whose end is fixed already",
            ahead(settled(expiring(after("2h"))), 3_600),
            "announce 2",
        ),
        (
            "It seems to be over",
            ahead(issued(hour()), 7_200),
            "write Active: !Ready(ClockDisagrees) !Stalled(NotStalled) Usable(Active) Delivered(Delivered) = InProgress",
        ),
        (
            "It was never issued and seems to be over",
            ahead(new(expiring(ending_at("2026-11-21T12:30:00Z"))), 7_200),
            NO_CLOCK,
        ),
        (
            "A revocation needs no clock",
            when(ahead(new(hour()), 7_200), |model| model.wish(Wish::Revoke)),
            REVOKED_UNDELIVERED,
        ),
    ]);
    // Measured anew at every look, and never twice the same.
    let mut model = after_all(ahead(new(hour()), 3_600));
    model.ahead += SignedDuration::from_secs(1);
    let told = tell(&seen(model.clone()).world, model.now());
    assert_eq!(told, "wait, BackOff", "another second off is no news");
}

#[test]
fn a_decision_ends_a_key() {
    let revoke = |model: Model| when(model, |model| model.wish(Wish::Revoke));
    check(vec![
        ("Before anything", revoke(new(plain())), REVOKED_UNDELIVERED),
        (
            "Created as revoked, after its end",
            revoke(new(expiring(ending_at("2026-11-21T11:00:00Z")))),
            REVOKED_UNDELIVERED,
        ),
        (
            "While it is held",
            revoke(held(plain())),
            REVOKED_UNDELIVERED,
        ),
        (
            "While its fate is unknown",
            revoke(crashed(plain())),
            REVOKED_UNDELIVERED,
        ),
        (
            "While it is refused",
            revoke(withdrawn(plain())),
            REVOKED_UNDELIVERED,
        ),
        ("In use", revoke(issued(plain())), REVOKED),
        (
            "In use, and its Secret is gone",
            when(revoke(issued(plain())), |model| model.there = None),
            REVOKED_MISSING,
        ),
        (
            "Without the finalizer",
            when(revoke(issued(plain())), |model| {
                model.apikey().metadata.finalizers = None;
            }),
            REVOKED,
        ),
        (
            "At the very moment of its end",
            when(revoke(issued(expiring(after("1h")))), |model| {
                model.pass(hours(1));
            }),
            REVOKED,
        ),
        ("Once", seen(revoked(plain())), "wait, OnEvent"),
        (
            "It never expires afterwards",
            when(revoked(expiring(after("1h"))), |model| model.pass(hours(2))),
            "wait, OnEvent",
        ),
        (
            "An edit of the ended is observed",
            when(revoked(plain()), |model| model.wish(Wish::Template("gold"))),
            REVOKED,
        ),
        (
            "A status that says Active for a revoked key is set right",
            when(revoked(plain()), |model| {
                model.apikey().status.as_mut().unwrap().phase = Some(crate::api::Phase::Active);
            }),
            REVOKED,
        ),
    ]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn a_deleted_apikey_takes_its_secret_with_it() {
    let delete = |model: Model| when(model, |model| model.wish(Wish::Delete));
    check(vec![
        ("In use", delete(issued(plain())), "delete Secret secret-2"),
        (
            "Revoked",
            delete(revoked(plain())),
            "delete Secret secret-2",
        ),
        ("Expired", delete(expired("1h")), "delete Secret secret-2"),
        (
            "Whatever the clock says",
            when(delete(issued(plain())), |m| {
                m.world.clock = Clock::AheadBy(hours(1));
            }),
            "delete Secret secret-2",
        ),
        (
            "Its Secret is gone",
            when(delete(issued(plain())), |model| model.there = None),
            "remove finalizer",
        ),
        (
            "Its Secret was edited: still ours",
            when(delete(issued(plain())), |model| {
                model.edit(|s| s.key = None);
            }),
            "delete Secret secret-2",
        ),
        (
            "Its Secret was put back from a copy: ours",
            when(delete(issued(plain())), Model::replace_by_copy),
            "delete Secret secret-4",
        ),
        (
            "Its Secret is held by others",
            when(delete(issued(plain())), |model| {
                model.held_by_others = true;
                model.edit(|secret| secret.deleting = true);
            }),
            "wait, BackOff",
        ),
        (
            "Somebody else's is there",
            when(delete(issued(plain())), |model| model.plant_foreign(false)),
            "remove finalizer",
        ),
        (
            "and claims to be ours",
            when(delete(issued(plain())), |model| model.plant_foreign(true)),
            "remove finalizer",
        ),
        (
            "Nobody has looked for the Secret",
            unlooked(delete(issued(plain()))),
            "wait, BackOff",
        ),
        ("Never looked at", delete(new(plain())), "wait, OnEvent"),
        (
            "Between the finalizer and the announcement",
            {
                let mut model = new(plain());
                model.apply(Step::AddFinalizer).unwrap();
                delete(model)
            },
            "remove finalizer",
        ),
        (
            "Held, and nothing was sent yet",
            delete(held(plain())),
            "remove finalizer",
        ),
        (
            "A create in the dark may still land",
            delete(unanswered(Fault::Late)),
            "wait, WhenSettled",
        ),
        (
            "also while its key is held",
            {
                let mut model = delete(unanswered(Fault::Late));
                model.world.outstanding = Outstanding::Held {
                    version: 1,
                    ambiguous: true,
                };
                model
            },
            "wait, WhenSettled",
        ),
        (
            "A create in the dark has landed",
            delete(unanswered(Fault::AnswerLost)),
            "delete Secret secret-2",
        ),
        (
            "Nobody knows what the dead controller did",
            delete(crashed(plain())),
            "wait, WhenSettled",
        ),
        (
            "until nothing can land any more",
            delete(settled(plain())),
            "remove finalizer",
        ),
        ("Refused", delete(withdrawn(plain())), "remove finalizer"),
        (
            "Nothing more to do",
            when(delete(issued(plain())), |m| {
                m.apikey().metadata.finalizers = None;
            }),
            "wait, OnEvent",
        ),
        (
            "Somebody else's finalizer is not ours to remove",
            when(delete(issued(plain())), |model| {
                model.apikey().metadata.finalizers = Some(vec!["example.com/theirs".to_owned()]);
            }),
            "wait, OnEvent",
        ),
        (
            "Where no finalizer is used any more, one that is there still counts",
            when(delete(issued(plain())), |model| {
                model.world.rules = no_finalizer(model);
            }),
            "delete Secret secret-2",
        ),
    ]);
}

fn unlooked(mut model: Model) -> Model {
    model.world.secret = SecretView::Unknown;
    model
}
