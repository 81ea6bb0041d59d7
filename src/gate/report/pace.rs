//! When to write: at most once a second, when something has changed or the heartbeat is due. Pure: `now` is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest time between two writes, and how often is looked whether something has changed.
pub const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// The longest time between two writes that succeed.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// The longest pause after failures. A gate that has just come back is not taken for a silent one, which takes 30 s.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Write.
    Write,
    /// There is something to write, and it is too early for it: look again after this time.
    Wait(Duration),
    /// There is nothing to write: look again when something has changed, or after this time.
    Rest(Duration),
}

/// When something was last written, and what; and how writing goes.
#[derive(Clone, Debug)]
pub(super) struct Pace<T> {
    written: Option<(Instant, T)>,
    failures: u32,
    not_before: Option<Instant>,
}

impl<T> Default for Pace<T> {
    fn default() -> Self {
        Self {
            written: None,
            failures: 0,
            not_before: None,
        }
    }
}

impl<T: PartialEq> Pace<T> {
    /// What to do `now`, where `facts` is what would be written.
    pub(super) fn next(&self, now: Instant, facts: &T) -> Next {
        if let Some(until) = self.not_before.filter(|until| *until > now) {
            return Next::Wait(until - now);
        }
        let Some((at, written)) = &self.written else {
            return Next::Write;
        };
        let since = now.saturating_duration_since(*at);
        if since >= HEARTBEAT || (since >= SHORTEST_PAUSE && written != facts) {
            return Next::Write;
        }
        if written == facts {
            Next::Rest(HEARTBEAT.saturating_sub(since).min(SHORTEST_PAUSE))
        } else {
            Next::Wait(SHORTEST_PAUSE.saturating_sub(since))
        }
    }

    /// Whether it is time to write whatever there is.
    pub(super) fn beats(&self, now: Instant) -> bool {
        self.written
            .as_ref()
            .is_none_or(|(at, _)| now.saturating_duration_since(*at) >= HEARTBEAT)
    }

    /// A write, begun at `now`, has succeeded.
    pub(super) fn written(&mut self, now: Instant, facts: T) {
        *self = Self {
            written: Some((now, facts)),
            failures: 0,
            not_before: None,
        };
    }

    /// A write has failed: it may have been carried out all the same. The next try is after one second, doubled each time, and up to
    /// half less according to `random`, so that the gates of a cluster do not come back all at once.
    pub(super) fn failed(&mut self, now: Instant, random: u64) {
        let pause = SHORTEST_PAUSE
            .saturating_mul(2_u32.saturating_pow(self.failures.saturating_add(1).min(20)))
            .min(LONGEST_PAUSE);
        let less = pause / 2_000 * u32::try_from(random % 1_001).unwrap_or(0);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + pause.saturating_sub(less));
    }

    /// How many writes have failed in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether `facts` are what was last written.
    pub(super) fn is_told(&self, facts: &T) -> bool {
        self.written
            .as_ref()
            .is_some_and(|(_, written)| written == facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_gate_writes_at_most_once_a_second_and_when_there_is_something_to_say() {
        let begun = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.next(begun, &"a"), Next::Write, "the first time");
        pace.written(begun, "a");
        for (after, facts, next) in [
            (ms(0), "a", Next::Rest(ms(1_000))),
            (ms(0), "b", Next::Wait(ms(1_000))),
            (ms(400), "b", Next::Wait(ms(600))),
            (ms(999), "b", Next::Wait(ms(1))),
            (ms(1_000), "b", Next::Write),
            (ms(1_000), "a", Next::Rest(ms(1_000))),
            (ms(5_000), "b", Next::Write),
            (ms(9_400), "a", Next::Rest(ms(600))),
            (ms(9_999), "a", Next::Rest(ms(1))),
            (ms(10_000), "a", Next::Write),
            (ms(60_000), "a", Next::Write),
        ] {
            assert_eq!(
                pace.next(begun + after, &facts),
                next,
                "{facts} after {after:?}"
            );
        }
        assert!(pace.is_told(&"a") && !pace.is_told(&"b"));
        assert!(
            !pace.beats(begun + ms(9_999))
                && pace.beats(begun + HEARTBEAT)
                && Pace::<&str>::default().beats(begun)
        );
    }

    #[test]
    fn after_failures_it_waits_longer_each_time_but_not_too_long() {
        let begun = Instant::now();
        let mut pace = Pace::default();
        for (pause, jittered) in [
            (2_000, 1_000),
            (4_000, 2_000),
            (8_000, 4_000),
            (16_000, 8_000),
            (20_000, 10_000),
            (20_000, 10_000),
        ] {
            let mut other = pace.clone();
            pace.failed(begun, 0);
            other.failed(begun, 1_000);
            assert_eq!(pace.next(begun, &"a"), Next::Wait(ms(pause)));
            assert_eq!(other.next(begun, &"a"), Next::Wait(ms(jittered)));
            assert_eq!(pace.next(begun + ms(pause), &"a"), Next::Write);
        }
        pace.failed(begun, u64::MAX);
        pace.written(begun, "a");
        assert_eq!(
            pace.next(begun, &"b"),
            Next::Wait(ms(1_000)),
            "a success makes up for all"
        );
        assert_eq!(pace.failures(), 0);
    }

    #[test]
    fn a_failure_never_makes_it_write_more_than_once_a_second() {
        let begun = Instant::now();
        let mut pace = Pace::default();
        for random in 0..5_000 {
            pace.failed(begun, random);
            let Next::Wait(pause) = pace.next(begun, &"a") else {
                panic!("it writes at once")
            };
            assert!(
                (SHORTEST_PAUSE..=LONGEST_PAUSE).contains(&pause),
                "{pause:?}"
            );
        }
    }
}
