//! Pauses between tries: short, because every one of them is a time in which a revocation is not heard.

use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

/// The first pause.
const FIRST: Duration = Duration::from_millis(50);
/// The longest pause. Many gates that lost one API server come back spread over this time.
const LONGEST: Duration = Duration::from_secs(3);
/// A watch that ran this long was no failure to begin.
const WORKED: Duration = Duration::from_secs(5);
/// The longest pause that an API server may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(30);
/// After so many failures the pauses are the longest.
const LONG: u32 = 6;
/// How often one trouble is logged.
const LOG_AGAIN: Duration = Duration::from_secs(60);

/// How long to wait, and whether to log an error.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    logged: Option<(Instant, String)>,
}

impl Backoff {
    /// It works: the next failure is the first.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// A try has failed, after a watch that ran for this long: the pause before the next. How long a list took says nothing.
    pub(super) fn failed(&mut self, ran: Duration) -> Duration {
        if ran >= WORKED {
            self.reset();
        }
        let longest = FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        longest.mul_f64(rand::rng().random_range(0.5..1.0))
    }

    /// The API server has too much to do, and may have said when to come back, or nothing: not sooner, and not all at once.
    pub(super) fn throttled(&mut self, after: Duration) -> Duration {
        self.failures = self.failures.max(LONG);
        let pause = self.failed(Duration::ZERO);
        if after.is_zero() {
            return pause;
        }
        after
            .min(LONGEST_ASKED)
            .mul_f64(rand::rng().random_range(1.0..1.5))
    }

    /// Whether a trouble should be logged: when it is another one, and now and then.
    pub(super) fn should_log(&mut self, trouble: &impl ToString) -> bool {
        let trouble = trouble.to_string();
        if self
            .logged
            .as_ref()
            .is_some_and(|(then, logged)| then.elapsed() < LOG_AGAIN && *logged == trouble)
        {
            return false;
        }
        self.logged = Some((Instant::now(), trouble));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_quickly_and_never_more_than_seconds_apart() {
        let mut backoff = Backoff::default();
        let mut pauses: Vec<Duration> = (0..100).map(|_| backoff.failed(Duration::ZERO)).collect();
        assert!(pauses[0] >= FIRST / 2 && pauses[0] < FIRST);
        assert!(pauses.iter().all(|pause| *pause <= LONGEST));
        assert!(pauses[99] >= LONGEST / 2);
        pauses.dedup();
        assert!(
            pauses.len() > 50,
            "many gates do not come back at one moment"
        );
        assert!(backoff.failed(WORKED) < FIRST, "it had worked in between");
        backoff.failed(Duration::ZERO);
        backoff.reset();
        assert!(backoff.failed(Duration::ZERO) < FIRST, "it has worked");
    }

    #[test]
    fn an_api_server_with_too_much_to_do_says_when_to_come_back() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            let pause = backoff.throttled(Duration::from_secs(7));
            assert!(
                pause >= Duration::from_secs(7) && pause < Duration::from_secs(11),
                "{pause:?}"
            );
        }
        assert!(
            backoff.throttled(Duration::from_secs(1_000_000)) < Duration::from_secs(45),
            "but not for ever"
        );
        let pause = Backoff::default().throttled(Duration::ZERO);
        assert!(
            pause >= LONGEST / 2 && pause <= LONGEST,
            "{pause:?} where it says nothing"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_trouble_is_told_when_it_is_new_and_once_a_minute() {
        let mut backoff = Backoff::default();
        assert!(backoff.should_log(&"no answer"));
        assert!(!backoff.should_log(&"no answer"));
        assert!(backoff.should_log(&"a right is missing"), "another one");
        assert!(!backoff.should_log(&"a right is missing"));
        tokio::time::advance(LOG_AGAIN).await;
        assert!(
            backoff.should_log(&"a right is missing"),
            "still in trouble"
        );
    }
}
