use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn record(holder: &str, duration: u64) -> Record {
    Record {
        holder: Some(holder.to_owned()).filter(|h| !h.is_empty()),
        duration: Some(seconds(duration)),
        transitions: 0,
        renewed: None,
        resource_version: Some("1".to_owned()),
    }
}

#[test]
fn decisions() {
    let timing = Timing::default();
    let seen = Instant::now();
    let nameless = Record {
        duration: None,
        ..record("other", 15)
    };
    let cases: [(&str, Option<Record>, u64, Decision); 10] = [
        ("no lease yet", None, 0, Decision::Acquire),
        ("released", Some(record("", 1)), 0, Decision::Acquire),
        ("ours", Some(record("me", 15)), 0, Decision::Renew),
        (
            "ours, long ago",
            Some(record("me", 15)),
            999,
            Decision::Renew,
        ),
        (
            "another's, just seen",
            Some(record("other", 15)),
            0,
            Decision::Wait(seen + seconds(15)),
        ),
        (
            "another's, nearly over",
            Some(record("other", 15)),
            14,
            Decision::Wait(seen + seconds(15)),
        ),
        (
            "another's, over",
            Some(record("other", 15)),
            15,
            Decision::Acquire,
        ),
        (
            "the holder promised longer",
            Some(record("other", 60)),
            15,
            Decision::Wait(seen + seconds(60)),
        ),
        (
            "the holder promised shorter",
            Some(record("other", 5)),
            5,
            Decision::Acquire,
        ),
        (
            "no promise: ours counts",
            Some(nameless),
            14,
            Decision::Wait(seen + seconds(15)),
        ),
    ];
    for (case, observed, later, expected) in cases {
        assert_eq!(
            evaluate(
                observed.as_ref(),
                seen,
                seen + seconds(later),
                "me",
                &timing
            ),
            expected,
            "{case}"
        );
    }
}

#[test]
fn what_is_read_from_a_lease() {
    let lease = |spec: serde_json::Value| {
        serde_json::from_value::<Lease>(serde_json::json!({"spec": spec})).unwrap()
    };
    let read = Record::of(&lease(serde_json::json!({
        "holderIdentity": "a", "leaseDurationSeconds": 15, "leaseTransitions": 3, "renewTime": "2026-01-01T00:00:00.000001Z"
    })));
    assert_eq!(
        (read.holder.as_deref(), read.duration, read.transitions),
        (Some("a"), Some(seconds(15)), 3)
    );
    assert!(read.renewed.is_some());
    let odd = Record::of(&lease(
        serde_json::json!({"holderIdentity": "", "leaseDurationSeconds": -1}),
    ));
    assert_eq!((odd.holder, odd.duration, odd.transitions), (None, None, 0));
    assert_eq!(Record::of(&Lease::default()).holder, None);
}

#[test]
fn a_new_version_is_not_a_new_claim_but_a_renewal_is() {
    let known = record("a", 15);
    assert!(known.same_claim(&Record {
        resource_version: Some("2".into()),
        ..known.clone()
    }));
    assert!(!known.same_claim(&Record {
        renewed: Some(Timestamp::UNIX_EPOCH),
        ..known.clone()
    }));
}

#[test]
fn specs_are_written_as_client_go_does() {
    let timing = Timing::default();
    let at = |s| Timestamp::from_second(s).unwrap();
    let first = claimed(None, "a", &timing, at(10));
    assert_eq!(first.holder_identity.as_deref(), Some("a"));
    assert_eq!(
        (first.lease_transitions, first.lease_duration_seconds),
        (Some(0), Some(15))
    );
    assert_eq!(
        (&first.acquire_time, &first.renew_time),
        (&Some(MicroTime(at(10))), &Some(MicroTime(at(10))))
    );

    let renewed = claimed(Some(&first), "a", &timing, at(12));
    assert_eq!(
        (renewed.lease_transitions, &renewed.acquire_time),
        (Some(0), &Some(MicroTime(at(10))))
    );
    assert_eq!(renewed.renew_time, Some(MicroTime(at(12))));

    let back = claimed(Some(&renewed), "a", &timing, at(12));
    assert_ne!(
        back.renew_time, renewed.renew_time,
        "a clock set back must not hide a renewal"
    );

    let free = released(Some(&renewed), at(14));
    assert_eq!(
        (free.holder_identity.as_deref(), free.lease_duration_seconds),
        (Some(""), Some(1))
    );
    assert_eq!(free.lease_transitions, Some(0));

    let taken = claimed(Some(&free), "b", &timing, at(16));
    assert_eq!(
        (taken.lease_transitions, taken.acquire_time),
        (Some(1), Some(MicroTime(at(16))))
    );
}

// ---- two candidates, one lease, any delays -------------------------------------------------------------------------

/// How one request fares; times in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Fate {
    /// Between the decision and the sending: also a freeze.
    freeze: u64,
    /// From sending to the commit.
    out: u64,
    /// From the commit to the answer being read: also a freeze.
    back: u64,
    /// The sender gives up after this long; the request goes on its way.
    give_up: Option<u64>,
    /// Once it leads: stop and release instead of renewing.
    release: bool,
}

#[derive(Clone, Debug)]
enum Request {
    Get,
    Put {
        based_on: Option<u64>,
        holder: String,
    },
}

#[derive(Debug)]
enum Event {
    Act,
    Send(Request, Fate),
    Arrive(Request, u64, Fate),
    Answer(u64, Reply),
}

#[derive(Clone, Debug)]
enum Reply {
    Seen(Option<Record>),
    Stored(Record, u64),
    Failed,
}

#[derive(Default)]
struct Candidate {
    skew: u64,
    name: String,
    life: u32,
    seen: Option<Record>,
    seen_at: u64,
    fresh: bool,
    /// The request whose answer counts.
    waiting: u64,
    /// Every `[sent, until]` in which it might act.
    reign: Vec<(u64, u64)>,
    leading_until: u64,
}

fn version(record: Option<&Record>) -> Option<u64> {
    record
        .and_then(|r| r.resource_version.as_deref())
        .map(|v| v.parse().unwrap())
}

#[allow(clippy::too_many_lines)] // One loop over one queue reads best in one piece.
/// Plays until the fates are used up; returns the reigns of both.
fn play(timing: &Timing, skews: [u64; 2], fates: [Vec<Fate>; 2]) -> [Vec<(u64, u64)>; 2] {
    let base = Instant::now();
    let ms = Duration::from_millis;
    let mut fates = fates.map(Vec::into_iter);
    let mut who: [Candidate; 2] = [0, 1].map(|i| Candidate {
        skew: skews[i],
        name: format!("{i}-0"),
        ..Candidate::default()
    });
    let mut lease: Option<Record> = None;
    let mut queue = BinaryHeap::new();
    let mut events: Vec<Option<(usize, Event)>> = Vec::new();
    let mut renewals = 0;
    macro_rules! at {
        ($time:expr, $i:expr, $event:expr) => {{
            events.push(Some(($i, $event)));
            queue.push(Reverse(($time, events.len() - 1)));
        }};
    }
    at!(0, 0, Event::Act);
    at!(0, 1, Event::Act);
    while let Some(Reverse((now, id))) = queue.pop() {
        let Some((i, event)) = events[id].take() else {
            continue;
        };
        let c = &mut who[i];
        let local = |skew: u64, t: u64| base + ms(skew + t);
        match event {
            Event::Act => {
                let Some(fate) = fates[i].next() else {
                    continue;
                };
                if c.leading_until > 0 && (now >= c.leading_until || fate.release) {
                    // The fence closes first; then the lease is given back, or simply lost. A new process follows.
                    c.reign
                        .iter_mut()
                        .for_each(|reign| reign.1 = reign.1.min(now));
                    let based_on = version(c.seen.as_ref());
                    if fate.release && c.fresh {
                        at!(
                            now,
                            i,
                            Event::Send(
                                Request::Put {
                                    based_on,
                                    holder: String::new()
                                },
                                Fate {
                                    give_up: Some(0),
                                    ..fate
                                }
                            )
                        );
                    }
                    let c = &mut who[i];
                    c.life += 1;
                    *c = Candidate {
                        name: format!("{i}-{}", c.life),
                        life: c.life,
                        skew: c.skew,
                        waiting: c.waiting + 1,
                        reign: std::mem::take(&mut c.reign),
                        ..Candidate::default()
                    };
                    at!(now + 500, i, Event::Act);
                } else if c.fresh {
                    let put = Request::Put {
                        based_on: version(c.seen.as_ref()),
                        holder: c.name.clone(),
                    };
                    at!(now + fate.freeze, i, Event::Send(put, fate));
                } else {
                    at!(now, i, Event::Send(Request::Get, fate));
                }
            }
            Event::Send(request, fate) => {
                c.fresh = false;
                let mut ticket = u64::MAX; // of a release: nobody waits for it
                if !matches!(&request, Request::Put { holder, .. } if holder.is_empty()) {
                    c.waiting = (c.waiting + 1).max(now << 8);
                    ticket = c.waiting;
                    if let Some(after) = fate.give_up {
                        at!(now + after, i, Event::Answer(ticket, Reply::Failed));
                    }
                }
                at!(
                    now + fate.out,
                    i,
                    Event::Arrive(
                        request,
                        ticket,
                        Fate {
                            freeze: now,
                            ..fate
                        }
                    )
                );
            }
            Event::Arrive(request, ticket, fate) => {
                let sent = fate.freeze;
                let reply = match request {
                    Request::Get => Reply::Seen(lease.clone()),
                    Request::Put { based_on, .. } if based_on != version(lease.as_ref()) => {
                        Reply::Failed
                    }
                    Request::Put { holder, .. } => {
                        renewals += 1;
                        let stored = Record {
                            renewed: Some(Timestamp::from_second(renewals).unwrap()),
                            resource_version: Some(renewals.to_string()),
                            ..record(&holder, timing.lease_duration().as_secs())
                        };
                        lease = Some(stored.clone());
                        Reply::Stored(stored, sent)
                    }
                };
                at!(now + fate.back, i, Event::Answer(ticket, reply));
            }
            Event::Answer(ticket, _) if ticket != c.waiting => {}
            Event::Answer(_, reply) => {
                c.waiting += 1;
                let seen = |c: &mut Candidate, record: Option<Record>| {
                    let known = c
                        .seen
                        .as_ref()
                        .zip(record.as_ref())
                        .is_some_and(|(a, b)| a.same_claim(b));
                    if !known {
                        c.seen_at = now;
                    }
                    c.seen = record;
                };
                match reply {
                    Reply::Failed => at!(now + 100, i, Event::Act),
                    Reply::Stored(record, sent) => {
                        let until = timing.may_act_until(local(c.skew, sent)) - local(c.skew, 0);
                        c.leading_until = u64::try_from(until.as_millis()).unwrap();
                        c.reign.push((sent, c.leading_until));
                        c.fresh = true;
                        seen(c, Some(record));
                        at!((now + 2000).min(c.leading_until.max(now)), i, Event::Act);
                    }
                    Reply::Seen(record) => {
                        seen(c, record);
                        let me = c.name.clone();
                        let decision = evaluate(
                            c.seen.as_ref(),
                            local(c.skew, c.seen_at),
                            local(c.skew, now),
                            &me,
                            timing,
                        );
                        let ours = c
                            .seen
                            .as_ref()
                            .is_some_and(|r| r.holder.as_ref() == Some(&me));
                        if c.leading_until > 0 && !ours {
                            c.leading_until = c.leading_until.min(now); // lost: the next act restarts it
                            at!(now, i, Event::Act);
                        } else if let Decision::Wait(_) = decision {
                            at!(now + 2000, i, Event::Act);
                        } else if let Some(fate) = fates[i].next() {
                            let put = Request::Put {
                                based_on: version(c.seen.as_ref()),
                                holder: me,
                            };
                            at!(now + fate.freeze, i, Event::Send(put, fate));
                        }
                    }
                }
            }
        }
    }
    who.map(|c| c.reign)
}

fn overlap(reigns: &[Vec<(u64, u64)>; 2]) -> Option<((u64, u64), (u64, u64))> {
    reigns[0].iter().find_map(|a| {
        reigns[1]
            .iter()
            .find(|b| a.0 < b.1 && b.0 < a.1)
            .map(|b| (*a, *b))
    })
}

fn delay() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 1..50_u64, 2 => 50..3_000_u64, 1 => 3_000..40_000_u64]
}

fn fate() -> impl Strategy<Value = Fate> {
    let give_up = prop_oneof![5 => Just(None), 1 => (1..6_000_u64).prop_map(Some)];
    (
        delay(),
        delay(),
        delay(),
        give_up,
        prop::bool::weighted(0.05),
    )
        .prop_map(|(freeze, out, back, give_up, release)| Fate {
            freeze,
            out,
            back,
            give_up,
            release,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// However requests are delayed, lost, applied late or their senders frozen, the two never may act at once.
    #[test]
    fn two_never_act_at_once(
        skews in [0..1_000_000_u64, 0..1_000_000_u64],
        first in prop::collection::vec(fate(), 1..60),
        second in prop::collection::vec(fate(), 1..60),
    ) {
        let reigns = play(&Timing::default(), skews, [first, second]);
        prop_assert_eq!(overlap(&reigns), None);
    }
}

/// The game above must be one in which leadership does change hands, or it proves nothing.
#[test]
fn the_game_has_both_lead() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut led, mut both) = (0, 0);
    for _ in 0..200 {
        let mut draw = || {
            prop::collection::vec(fate(), 60)
                .new_tree(&mut runner)
                .unwrap()
                .current()
        };
        let fates = [draw(), draw()];
        let reigns = play(&Timing::default(), [7, 70_000], fates);
        led += usize::from(reigns.iter().any(|r| !r.is_empty()));
        both += usize::from(reigns.iter().all(|r| !r.is_empty()));
    }
    assert!(led > 190 && both > 50, "led {led}, both {both}");
}
