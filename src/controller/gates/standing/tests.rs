//! Gates as the watch shows them, and what is told of them.

use super::*;

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A gate that has reached something; `write` tells one write of its object from the next.
fn gate(name: &str, reached: &str, write: u32) -> Gate {
    let mut gate = Gate::new(
        name,
        GateSpec {
            reached_resource_version: Some(reached.to_owned()),
            ..GateSpec::default()
        },
    );
    gate.metadata.namespace = Some("ns".to_owned());
    gate.metadata.uid = Some(format!("uid-{name}"));
    gate.metadata.resource_version = Some(format!("{write}"));
    gate
}

fn told(changes: &[Change]) -> Vec<(&str, &str)> {
    changes
        .iter()
        .map(|change| {
            (
                change.gate.metadata.name.as_deref().unwrap(),
                change.news.reason.as_str(),
            )
        })
        .collect()
}

#[test]
fn a_gate_is_silent_when_its_object_has_not_changed_for_half_a_minute() {
    let begun = Instant::now();
    let mut gates = Gates::new(begun);
    assert!(gates.shown(&gate("a", "1", 1), begun));
    assert_eq!(
        told(&gates.judge(begun + seconds(30))),
        [],
        "a first sight is no news"
    );
    gates.shown(&gate("a", "1", 1), begun + seconds(30));
    let changes = gates.judge(begun + seconds(31));
    assert_eq!(
        told(&changes),
        [("a", "GateSilent")],
        "a list that shows it unchanged is no sign of life"
    );
    assert_eq!(changes[0].news.tone, Tone::Warning);
    assert!(
        changes[0].news.note.contains("for 31 s"),
        "{}",
        changes[0].news.note
    );
    assert_eq!(changes[0].gate.metadata.uid.as_deref(), Some("uid-a"));
    assert_eq!(gates.judge(begun + seconds(99)), [], "once per change");
    assert_eq!(gates.counts(), [0, 0, 1]);
    gates.shown(&gate("a", "1", 2), begun + seconds(100));
    assert_eq!(
        told(&gates.judge(begun + seconds(100))),
        [("a", "GateCurrent")]
    );
    assert_eq!(gates.counts(), [1, 0, 0]);
}

#[test]
fn a_gate_is_behind_what_was_seen_more_than_ten_seconds_ago() {
    let begun = Instant::now();
    let mut gates = Gates::new(begun);
    gates.shown(&gate("a", "999", 1), begun);
    gates.apikey("team", "1000", begun);
    for (after, reached, standing) in [
        (0, "999", None),
        (11, "999", None),
        (12, "999", Some("GateBehind")),
        (13, "999", None),
        (14, "1000", Some("GateCurrent")),
        (15, "1001", None),
        (16, "99", Some("GateBehind")),
        (17, "nonsense", None),
        (
            18,
            "340282366920938463463374607431768211455",
            Some("GateCurrent"),
        ),
    ] {
        let now = begun + seconds(after);
        gates.shown(&gate("a", reached, u32::try_from(after).unwrap() + 2), now);
        let changes = gates.judge(now);
        assert_eq!(
            told(&changes),
            standing
                .map(|reason| ("a", reason))
                .into_iter()
                .collect::<Vec<_>>(),
            "after {after} s"
        );
    }
}

#[test]
fn what_is_seen_later_does_not_make_what_was_seen_before_younger() {
    let begun = Instant::now();
    let mut gates = Gates::new(begun);
    for second in 0..60 {
        gates.apikey(
            "team",
            &format!("{}", 100 + second),
            begun + seconds(second),
        );
        gates.apikey("team", "7", begun + seconds(second));
    }
    gates.shown(&gate("a", "147", 1), begun + seconds(59));
    gates.shown(&gate("b", "146", 1), begun + seconds(59));
    let changes = gates.judge(begun + seconds(59));
    assert_eq!(
        told(&changes),
        [("b", "GateBehind")],
        "one is seen each second; 147 was twelve seconds ago"
    );
    assert!(
        changes[0]
            .news
            .note
            .contains("resourceVersion 146 of ApiKeys, and 147 is"),
        "{}",
        changes[0].news.note
    );
}

/// Others have known for long what it has not listed yet.
#[test]
fn a_gate_that_starts_is_not_behind() {
    let begun = Instant::now();
    let mut gates = Gates::new(begun);
    gates.apikey("team", "1000", begun);
    let mut starting = gate("a", "", 1);
    starting.spec.state = Some(GateState::Loading);
    gates.shown(&starting, begun + seconds(60));
    assert_eq!(gates.judge(begun + seconds(61)), []);
    let mut started = gate("a", "999", 2);
    started.spec.state = Some(GateState::Current);
    gates.shown(&started, begun + seconds(62));
    assert_eq!(
        told(&gates.judge(begun + seconds(62))),
        [("a", "GateBehind")]
    );
}

/// It knows everything that it is asked about, and answers nobody.
#[test]
fn a_gate_that_answers_nobody_is_not_current() {
    let begun = Instant::now();
    let mut gates = Gates::new(begun);
    let mut write = 0;
    let mut says = |gates: &mut Gates, state, after| {
        write += 1;
        let mut gate = gate("a", "10", write);
        gate.spec.state = Some(state);
        gates.shown(&gate, begun + seconds(after));
        gates.judge(begun + seconds(after))
    };
    for after in [0, 5, 10] {
        assert_eq!(
            says(&mut gates, GateState::Loading, after),
            [],
            "a start takes its time"
        );
    }
    let changes = says(&mut gates, GateState::Loading, 11);
    assert_eq!(told(&changes), [("a", "GateBehind")]);
    assert!(
        changes[0]
            .news
            .note
            .starts_with("the gate says that it is Loading: "),
        "{}",
        changes[0].news.note
    );
    assert_eq!(gates.counts(), [0, 1, 0]);
    assert_eq!(
        told(&says(&mut gates, GateState::Current, 12)),
        [("a", "GateCurrent")]
    );
    let changes = says(&mut gates, GateState::Stale, 20);
    assert_eq!(
        told(&changes),
        [("a", "GateBehind")],
        "it was silent for long enough"
    );
    assert!(
        changes[0].news.note.contains("is Stale: ")
            && changes[0].news.note.contains("answers nobody"),
        "{}",
        changes[0].news.note
    );
    assert_eq!(says(&mut gates, GateState::Stale, 21), [], "once");
}

#[test]
fn a_gate_for_one_namespace_is_held_against_that_namespace() {
    let begun = Instant::now();
    let mut gates = Gates::new(begun);
    let mut limited = gate("a", "10", 1);
    limited.spec.namespace = Some("team".to_owned());
    gates.shown(&limited, begun);
    gates.shown(&gate("b", "10", 1), begun);
    gates.apikey("other", "20", begun);
    assert_eq!(
        told(&gates.judge(begun + seconds(12))),
        [("b", "GateBehind")]
    );
    gates.apikey("team", "21", begun + seconds(12));
    assert_eq!(
        told(&gates.judge(begun + seconds(24))),
        [("a", "GateBehind")]
    );
    // One that names another namespace each time makes us remember no more.
    for number in 0..100 {
        limited.spec.namespace = Some(format!("team-{number}"));
        gates.shown(&limited, begun + seconds(25));
    }
    assert_eq!(gates.within.len(), 1);
    gates.gone(&limited, begun + seconds(25));
    assert!(gates.within.is_empty());
}

#[test]
fn an_api_server_that_was_restored_makes_nobody_late() {
    let begun = Instant::now();
    let mut gates = Gates::new(begun);
    gates.shown(&gate("a", "50", 1), begun);
    gates.apikey("team", "1000", begun);
    gates.apikeys_listed_anew();
    gates.apikey("team", "40", begun + seconds(1));
    assert_eq!(gates.judge(begun + seconds(20)), []);
}

#[test]
fn our_own_lost_watch_makes_no_gate_silent() {
    let begun = Instant::now();
    let mut gates = Gates::new(begun);
    gates.shown(&gate("a", "1", 1), begun);
    gates.shown(&gate("b", "1", 1), begun);
    for lost in [20, 50, 100, 150] {
        gates.blinded(begun + seconds(lost));
        assert_eq!(
            gates.judge(begun + seconds(lost + 30)),
            [],
            "the last error was at {lost} s"
        );
    }
    // It shows something again: now they have half a minute.
    gates.list_begins(begun + seconds(180));
    gates.shown(&gate("a", "1", 2), begun + seconds(180));
    gates.shown(&gate("b", "1", 1), begun + seconds(180));
    gates.list_ends(begun + seconds(180));
    assert_eq!(gates.judge(begun + seconds(210)), []);
    assert_eq!(
        told(&gates.judge(begun + seconds(211))),
        [("a", "GateSilent"), ("b", "GateSilent")]
    );
    // Who is silent stays so until it is heard.
    gates.blinded(begun + seconds(220));
    gates.shown(&gate("b", "1", 9), begun + seconds(230));
    assert_eq!(
        told(&gates.judge(begun + seconds(231))),
        [("b", "GateCurrent")]
    );
    // A watch that stays broken hides them, but not for ever.
    gates.blinded(begun + seconds(240));
    assert_eq!(gates.judge(begun + seconds(330)), []);
    assert_eq!(
        told(&gates.judge(begun + seconds(331))),
        [("b", "GateSilent")]
    );
}

#[test]
fn a_gate_that_is_gone_is_no_news() {
    let begun = Instant::now();
    let mut gates = Gates::new(begun);
    for name in ["a", "b", "c"] {
        gates.shown(&gate(name, "1", 1), begun);
    }
    gates.gone(&gate("a", "1", 1), begun);
    assert_eq!(gates.counts(), [2, 0, 0]);
    gates.list_begins(begun);
    gates.shown(&gate("c", "1", 1), begun);
    gates.list_ends(begun);
    assert_eq!(
        gates.counts(),
        [1, 0, 0],
        "what a list does not show is gone"
    );
    // One that was created anew under the name of a silent one is another.
    assert_eq!(
        told(&gates.judge(begun + seconds(31))),
        [("c", "GateSilent")]
    );
    let mut anew = gate("c", "1", 2);
    anew.metadata.uid = Some("another".to_owned());
    gates.shown(&anew, begun + seconds(32));
    assert_eq!(gates.judge(begun + seconds(32)), []);
    assert_eq!(gates.counts(), [1, 0, 0]);
}

#[test]
fn there_is_an_end_to_how_many_are_looked_at() {
    let begun = Instant::now();
    let mut gates = Gates::new(begun);
    for number in 0..MAX_GATES {
        assert!(gates.shown(&gate(&format!("g{number}"), "1", 1), begun));
    }
    assert!(!gates.shown(&gate("one-more", "1", 1), begun));
    assert!(
        gates.shown(&gate("g7", "1", 2), begun),
        "who is known goes on"
    );
    assert_eq!(gates.counts(), [1_000, 0, 0]);
}

#[test]
fn a_version_is_reached_when_every_gate_that_counts_has_reached_it() {
    let begun = Instant::now();
    let mut gates = Gates::new(begun);
    assert!(
        !gates.have_reached("team", 1, begun),
        "nobody has looked which gates there are"
    );
    gates.list_begins(begun);
    gates.list_ends(begun);
    assert!(gates.have_reached("team", 1, begun), "there are none");

    gates.shown(&gate("a", "10", 1), begun);
    gates.shown(&gate("b", "11", 1), begun);
    let mut elsewhere = gate("elsewhere", "1", 1);
    elsewhere.spec.namespace = Some("other".to_owned());
    gates.shown(&elsewhere, begun);
    let reached = |gates: &Gates, now| {
        (9..13)
            .map(|version| gates.have_reached("team", version, now))
            .collect::<Vec<_>>()
    };
    assert_eq!(reached(&gates, begun), [true, true, false, false]);
    assert!(
        !gates.have_reached("other", 2, begun),
        "it counts where it serves"
    );

    let mut loading = gate("b", "", 2);
    loading.spec.state = Some(GateState::Loading);
    gates.shown(&loading, begun);
    assert_eq!(
        reached(&gates, begun),
        [false; 4],
        "what it lists may be older"
    );
    loading.spec.state = Some(GateState::Stale);
    loading.metadata.resource_version = Some("3".to_owned());
    gates.shown(&loading, begun);
    assert_eq!(
        reached(&gates, begun),
        [true, true, false, false],
        "it answers nobody"
    );

    let later = begun + seconds(31);
    assert_eq!(
        reached(&gates, later),
        [true; 4],
        "who says nothing is not waited for"
    );
    gates.judge(later);
    gates.shown(&gate("a", "10", 2), later);
    assert_eq!(
        reached(&gates, later),
        [true, true, false, false],
        "and is as soon as it says something"
    );
    gates.gone(&gate("a", "10", 2), later);
    assert_eq!(reached(&gates, later), [true; 4]);
}

#[test]
fn where_gates_cannot_be_seen_none_is_waited_for() {
    let begun = Instant::now();
    let mut gates = Gates::new(begun);
    gates.shown(&gate("a", "1", 1), begun);
    gates.list_ends(begun);
    assert!(!gates.have_reached("team", 2, begun));
    gates.blinded(begun);
    assert!(gates.have_reached("team", 2, begun));
    gates.shown(&gate("a", "1", 2), begun + seconds(1));
    assert!(
        !gates.have_reached("team", 2, begun + seconds(1)),
        "until they are seen again"
    );

    let mut gates = Gates::new(begun);
    gates.blinded(begun);
    assert!(
        gates.have_reached("team", 1, begun + seconds(3_600)),
        "where the right to look is missing there is no end to it"
    );
}
