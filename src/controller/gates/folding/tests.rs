//! Which uses are written, in which order, and how fast.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::api::ApiKeyStatus;

const NOON: i64 = 1_795_262_400;

fn time(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

fn apikey(name: &str, last_used_at: Option<i64>) -> ApiKey {
    let mut apikey = ApiKey::new(name, crate::api::ApiKeySpec::default());
    apikey.metadata.namespace = Some("team".to_owned());
    apikey.metadata.uid = Some(format!("uid-{name}"));
    apikey.status = Some(ApiKeyStatus {
        last_used_at: last_used_at.map(time),
        ..ApiKeyStatus::default()
    });
    apikey
}

fn used(name: &str, used_at: i64) -> KeyUse {
    KeyUse {
        namespace: "team".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        used_at: time(used_at),
    }
}

fn write(name: &str, used_at: i64) -> Write {
    Write {
        namespace: "team".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        used_at,
    }
}

#[test]
fn a_use_is_written_where_it_is_news_can_be_and_is_of_this_apikey() {
    let mut going = apikey("k", None);
    going.metadata.deletion_timestamp = Some(time(NOON));
    let mut anew = apikey("k", None);
    anew.metadata.uid = Some("uid-anew".to_owned());
    for (what, apikey, used_at, taken) in vec![
        ("the first", Some(apikey("k", None)), NOON, true),
        ("long ago", Some(apikey("k", None)), 0, true),
        (
            "after an hour",
            Some(apikey("k", Some(NOON - 3_600))),
            NOON,
            true,
        ),
        (
            "within the hour",
            Some(apikey("k", Some(NOON - 3_599))),
            NOON,
            false,
        ),
        ("the same", Some(apikey("k", Some(NOON))), NOON, false),
        (
            "backwards",
            Some(apikey("k", Some(NOON))),
            NOON - 7_200,
            false,
        ),
        (
            "a clock that is a little ahead",
            Some(apikey("k", None)),
            NOON + 60,
            true,
        ),
        ("the future", Some(apikey("k", None)), NOON + 61, false),
        (
            "the far future",
            Some(apikey("k", None)),
            Timestamp::MAX.as_second(),
            false,
        ),
        ("gone", None, NOON, false),
        ("going", Some(going), NOON, false),
        ("created anew", Some(anew), NOON, false),
    ] {
        let (mut folding, now) = (Folding::default(), Instant::now());
        assert_eq!(
            folding.told("gate-a", &used("k", used_at), apikey.as_ref(), NOON, now),
            taken,
            "{what}"
        );
        let wanted = taken.then(|| Ok(write("k", used_at)));
        assert_eq!(folding.next(now), wanted, "{what}");
    }
}

#[test]
fn no_key_was_used_before_there_was_one() {
    let (hour, now) = (3_600, Instant::now());
    for (created, issued, used_at, taken) in [
        (Some(NOON - hour), Some(NOON), NOON - 61, false),
        (Some(NOON - hour), Some(NOON), NOON - 60, true),
        (Some(NOON), Some(NOON - hour), NOON - hour, true),
        (Some(NOON), None, NOON - 61, false),
        (Some(NOON), None, NOON - 60, true),
        (None, None, 0, true),
    ] {
        let mut apikey = apikey("k", None);
        apikey.metadata.creation_timestamp = created.map(time);
        apikey.status.as_mut().unwrap().issued_at = issued.map(time);
        let mut folding = Folding::default();
        let told = folding.told("gate-a", &used("k", used_at), Some(&apikey), NOON, now);
        assert_eq!(
            told, taken,
            "created {created:?}, issued {issued:?}, used {used_at}"
        );
    }
}

/// Writes what comes next, which goes well.
fn writes_next(folding: &mut Folding, now: &mut Instant) -> Option<String> {
    let Ok(write) = folding.next(*now)? else {
        panic!("it must wait")
    };
    folding.ended(&write, Outcome::Done, *now);
    *now += SPACING;
    Some(write.name)
}

#[test]
fn what_was_told_first_is_written_first_and_later_uses_push_it_not_back() {
    let (mut folding, mut now) = (Folding::default(), Instant::now());
    for (name, used_at) in [
        ("b", NOON - 10),
        ("c", NOON - 20),
        ("b", NOON),
        ("a", NOON - 30),
        ("b", NOON - 15),
    ] {
        assert!(folding.told(
            "gate-a",
            &used(name, used_at),
            Some(&apikey(name, None)),
            NOON,
            now
        ));
    }
    for (name, used_at) in [("b", NOON), ("c", NOON - 20), ("a", NOON - 30)] {
        assert_eq!(folding.next(now), Some(Ok(write(name, used_at))));
        folding.ended(&write(name, used_at), Outcome::Done, now);
        now += SPACING;
    }
    assert_eq!(folding.next(now), None);
}

/// However many uses one of them tells, how old it says they are, and however often it tells more.
#[test]
fn a_gate_that_tells_much_holds_up_no_other() {
    let (mut folding, mut now) = (Folding::default(), Instant::now());
    let mut forged = 0..;
    let mut forge = |folding: &mut Folding, now| {
        for number in forged.by_ref().take(50) {
            let name = format!("forged-{number}");
            assert!(folding.told(
                "forger",
                &used(&name, 0),
                Some(&apikey(&name, None)),
                NOON,
                now
            ));
        }
    };
    for _ in 0..20 {
        forge(&mut folding, now);
    }
    for _ in 0..30 {
        writes_next(&mut folding, &mut now);
    }
    for name in ["x", "y", "z"] {
        assert!(folding.told(
            "gate-a",
            &used(name, NOON),
            Some(&apikey(name, None)),
            NOON,
            now
        ));
    }
    let mut written = Vec::new();
    for _ in 0..6 {
        forge(&mut folding, now);
        written
            .extend(writes_next(&mut folding, &mut now).filter(|name| !name.starts_with("forged")));
    }
    assert_eq!(written, ["x", "y", "z"], "they take turns");
    // Nor do many gates make us remember many.
    for number in 0..1_000 {
        let name = format!("k{number}");
        folding.told(
            &format!("gate-{number}"),
            &used(&name, NOON),
            Some(&apikey(&name, None)),
            NOON,
            now,
        );
        folding.ended(&write(&name, NOON), Outcome::Done, now);
    }
    assert!(folding.turns.len() <= MANY_GATES, "{}", folding.turns.len());
}

/// As the loop does it, with time that passes only where it waits.
#[tokio::test(start_paused = true)]
async fn a_hundred_uses_cost_at_most_five_writes_a_second() {
    let mut folding = Folding::default();
    for number in 0..100 {
        let name = format!("k{number}");
        assert!(folding.told(
            "gate-a",
            &used(&name, NOON - number),
            Some(&apikey(&name, None)),
            NOON,
            Instant::now()
        ));
    }
    let begun = Instant::now();
    let mut moments = Vec::new();
    while let Some(next) = folding.next(Instant::now()) {
        match next {
            Ok(write) => {
                moments.push(begun.elapsed());
                // Answers take their time, some longer than the pause.
                tokio::time::advance(Duration::from_millis(if moments.len() % 10 == 0 {
                    300
                } else {
                    7
                }))
                .await;
                folding.ended(&write, Outcome::Done, Instant::now());
            }
            Err(until) => tokio::time::sleep_until(until).await,
        }
    }
    assert_eq!(moments.len(), 100);
    for six in moments.windows(6) {
        assert!(
            six[0] + Duration::from_secs(1) <= six[5],
            "no six writes within a second: {six:?}"
        );
    }
    assert!(begun.elapsed() >= Duration::from_millis(99 * 200));
}

#[test]
fn our_own_write_counts_before_the_watch_shows_it() {
    let (mut folding, now) = (Folding::default(), Instant::now());
    let stale = apikey("k", None);
    assert!(folding.told("gate-a", &used("k", NOON), Some(&stale), NOON, now));
    folding.ended(&write("k", NOON), Outcome::Done, now);
    assert!(
        !folding.told("gate-a", &used("k", NOON), Some(&stale), NOON, now),
        "the gate tells it until it has seen it"
    );
    assert!(!folding.told("gate-a", &used("k", NOON + 50), Some(&stale), NOON, now));
    assert!(
        folding.told("gate-a", &used("k", NOON), Some(&stale), NOON, now + UNSEEN),
        "but it is not trusted for ever"
    );
    folding.gone("uid-k");
    assert_eq!(folding.next(now + UNSEEN), None);
    assert!(folding.written.is_empty());

    assert!(folding.told("gate-a", &used("k", NOON), Some(&stale), NOON, now));
    folding.ended(&write("k", NOON), Outcome::Done, now);
    folding.seen(&stale);
    assert_eq!(folding.written.len(), 1);
    folding.seen(&apikey("k", Some(NOON)));
    assert!(
        folding.written.is_empty(),
        "what was shown needs no remembering"
    );
}

#[test]
fn what_the_status_comes_to_say_is_not_written_again() {
    let (mut folding, now) = (Folding::default(), Instant::now());
    folding.told(
        "gate-a",
        &used("k", NOON),
        Some(&apikey("k", None)),
        NOON,
        now,
    );
    folding.seen(&apikey("k", Some(NOON - 3_600)));
    assert_eq!(folding.waiting.len(), 1);
    folding.seen(&apikey("k", Some(NOON - 3_599)));
    assert_eq!(
        (folding.next(now), folding.order.len()),
        (None, 0),
        "another controller has written it"
    );
}

#[test]
fn a_write_that_fails_is_tried_again_after_ever_longer_pauses_and_holds_up_nobody() {
    let (mut folding, mut now) = (Folding::default(), Instant::now());
    folding.told(
        "gate-a",
        &used("a", NOON - 2),
        Some(&apikey("a", None)),
        NOON,
        now,
    );
    folding.told(
        "gate-a",
        &used("b", NOON - 1),
        Some(&apikey("b", None)),
        NOON,
        now,
    );
    let (a, b) = (write("a", NOON - 2), write("b", NOON - 1));
    for (pause, failing) in [
        (1, &a),
        (2, &b),
        (4, &a),
        (8, &b),
        (16, &a),
        (30, &b),
        (30, &a),
    ] {
        assert_eq!(folding.next(now), Some(Ok(failing.clone())), "in turn");
        folding.ended(failing, Outcome::Failed, now);
        let until = now + Duration::from_secs(pause);
        assert_eq!(folding.next(now), Some(Err(until)));
        now = until;
    }
    folding.told(
        "gate-a",
        &used("c", NOON),
        Some(&apikey("c", None)),
        NOON,
        now,
    );
    assert_eq!(
        folding.next(now),
        Some(Ok(write("c", NOON))),
        "what was not tried comes first"
    );
    folding.ended(&write("c", NOON), Outcome::Done, now);
    assert_eq!(
        folding.next(now),
        Some(Err(now + SPACING)),
        "a success makes up for all"
    );
    assert_eq!(
        folding.next(now + SPACING),
        Some(Ok(b)),
        "and nothing is lost"
    );
}

#[test]
fn what_nobody_can_write_any_more_is_dropped() {
    let (mut folding, now) = (Folding::default(), Instant::now());
    folding.told(
        "gate-a",
        &used("a", NOON),
        Some(&apikey("a", None)),
        NOON,
        now,
    );
    folding.told(
        "gate-a",
        &used("b", NOON),
        Some(&apikey("b", None)),
        NOON,
        now,
    );
    folding.ended(&write("a", NOON), Outcome::Moot, now);
    folding.gone("uid-b");
    assert_eq!(folding.next(now), None);
    assert!(folding.order.is_empty() && folding.written.is_empty());
}
