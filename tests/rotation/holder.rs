//! Rotation under load, from the view of who holds the key.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use claviger::api::VersionPhase;
use claviger::key::Hash;
use jiff::Timestamp;

use crate::stories;
use crate::support::history::{State, values};
use crate::support::proxy::{Call, Fault, Matcher, Verb, When};
use crate::support::stage::Stage;
use crate::support::wait::LIMIT;

stories![a_holder_that_reads_again_in_time_never_holds_a_key_that_does_not_pass,];

/// How many holders there are, each with a key, a controller and a proxy of its own.
const HOLDERS: usize = 8;
/// How many rotations each of them lives through.
const ROTATIONS: usize = 25;
/// How many requests a rotation makes at least: it is announced, delivered, activated and told.
const REQUESTS: usize = 4;
/// How long a replaced version passes, and when holders read again.
const OVERLAP: Duration = Duration::from_secs(8);
const DELAY: Duration = Duration::from_millis(300);
/// What still counts as having read again in time, on a machine that is busy: ends are whole seconds.
const IN_TIME: Duration = Duration::from_secs(7);

/// Incidents 1, 22: every rotation is hit by a kill, at each of its requests in turn, before and after. Whoever reads the Secret
/// again within the overlap holds, at every instant, a key that a gate accepts.
fn a_holder_that_reads_again_in_time_never_holds_a_key_that_does_not_pass() {
    let (kills, reads) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for holder in 0..HOLDERS {
            let (kills, reads) = (&kills, &reads);
            scope.spawn(move || rotate_and_hold(holder, kills, reads));
        }
    });
    println!(
        "{} rotations, {kills:?} kills, {reads:?} reads of a Secret",
        HOLDERS * ROTATIONS
    );
}

fn rotate_and_hold(holder: usize, kills: &AtomicUsize, reads: &AtomicUsize) {
    let stage = Stage::new("holder");
    let history = stage.history();
    let proxy = stage.cluster.proxy();
    let mut operator = stage.operator_via(&proxy).start_ready();
    stage.declare(
        "k",
        &format!("{{rotation: {{overlap: {}s}}}}", OVERLAP.as_secs()),
    );
    stage.wait_issued("k");
    let done = AtomicBool::new(false);
    let holds = std::thread::scope(|scope| {
        let holding = scope.spawn(|| hold(&stage, &done));
        // Also where the story ends badly: the holder must not go on for ever.
        let _ending = Ending(&done);
        for rotation in 1..=ROTATIONS {
            let strike = (holder + rotation) % (2 * REQUESTS);
            let when = if strike.is_multiple_of(2) {
                When::Before
            } else {
                When::After
            };
            let single = |call: &Call| {
                !matches!(call.verb, Verb::List | Verb::Watch) && call.namespace.is_some()
            };
            let killed = proxy.on(
                Matcher::any().filter(single).nth(strike / 2 + 1),
                when,
                Fault::call(operator.killer()),
            );
            stage.raise("k", rotation);
            assert!(killed.fired(LIMIT), "it is killed: {:#?}", proxy.calls());
            kills.fetch_add(1, Ordering::Relaxed);
            operator = stage.operator_via(&proxy).start_ready();
            stage.wait_rotated("k", rotation);
            proxy.reset();
        }
        done.store(true, Ordering::SeqCst);
        holding.join().unwrap()
    });
    reads.fetch_add(holds.len(), Ordering::Relaxed);
    history.check();
    let states = history.states();
    assert_eq!(
        values(&states)["k"].len(),
        1 + ROTATIONS,
        "one value for each rotation"
    );
    // What the gate said at two moments of each hold is so for all of it: no state ever ended a version before it was let go.
    let mut ends: BTreeMap<&str, Timestamp> = BTreeMap::new();
    let statuses = states.iter().filter_map(|state| match state {
        State::Apikey(apikey) => apikey.status.as_ref(),
        _ => None,
    });
    for version in statuses.flat_map(|status| &status.versions) {
        if let Some(end) = &version.retires_at {
            ends.entry(&version.hash)
                .and_modify(|known| *known = end.0.min(*known))
                .or_insert(end.0);
        }
    }
    for (hash, until) in &holds {
        assert!(
            ends.get(hash.as_str()).is_none_or(|end| until < end),
            "held until {until}: {hash} of {ends:?}"
        );
    }
    assert!(
        holds.len() > ROTATIONS,
        "it has read again and again: {}",
        holds.len()
    );
}

/// Reads the Secret, holds what it read for the delay, and so on. Returns what was held, and until when.
fn hold(stage: &Stage, done: &AtomicBool) -> Vec<(String, Timestamp)> {
    let mut holds = Vec::new();
    while !done.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let hash = Hash::of(stage.mounted("k")["api-key"].as_bytes()).to_string();
        assert_passes(stage, &hash);
        std::thread::park_timeout(DELAY);
        if begun.elapsed() < IN_TIME {
            holds.push((hash.clone(), Timestamp::now()));
            assert_passes_if(stage, &hash, begun);
        }
    }
    holds
}

/// What a gate says that has seen the ApiKey as it is now.
fn assert_passes(stage: &Stage, hash: &str) {
    assert_passes_if(stage, hash, Instant::now());
}

fn assert_passes_if(stage: &Stage, hash: &str, held_since: Instant) {
    let status = stage.status("k");
    let now = Timestamp::now();
    let version = status.versions.iter().find(|version| version.hash == hash);
    let passes = version.is_some_and(|version| match version.phase {
        VersionPhase::Announced | VersionPhase::Current => true,
        VersionPhase::Retiring => version.retires_at.as_ref().is_some_and(|end| now < end.0),
        VersionPhase::Retired => false,
    });
    let in_time = held_since.elapsed() < IN_TIME;
    assert!(
        passes || !in_time,
        "{hash} is held and does not pass at {now}: {status:?}"
    );
}

struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
