//! Pauses between tries: short, because every one of them is a time in which a revocation is not heard.

use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

/// The first pause.
const FIRST: Duration = Duration::from_millis(50);
/// The longest pause. Many gates that lost one API server come back spread over this time.
const LONGEST: Duration = Duration::from_secs(3);
/// What lasted this long was no failure to begin.
const WORKED: Duration = Duration::from_secs(5);
/// How often one trouble is told.
const TELL: Duration = Duration::from_secs(60);

/// How long to wait, and whether to tell people.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    told: Option<Instant>,
}

impl Backoff {
    /// A try that took this long has failed: the pause before the next, and whether it should be told.
    pub(super) fn failed(&mut self, lasted: Duration) -> (Duration, bool) {
        if lasted >= WORKED {
            self.failures = 0;
        }
        let longest = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let tell = self.told.is_none_or(|told| told.elapsed() >= TELL);
        if tell {
            self.told = Some(Instant::now());
        }
        (longest.mul_f64(rand::rng().random_range(0.5..1.0)), tell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tries_come_quickly_and_never_more_than_seconds_apart() {
        let mut backoff = Backoff::default();
        let (first, told) = backoff.failed(Duration::ZERO);
        assert!(first < FIRST && told);
        let mut last = first;
        for _ in 0..100 {
            let (pause, told) = backoff.failed(Duration::ZERO);
            assert!(pause <= LONGEST && !told);
            last = pause;
        }
        assert!(last >= LONGEST / 2);
        let (pause, _) = backoff.failed(WORKED);
        assert!(pause < FIRST, "it had worked in between");
        tokio::time::advance(TELL).await;
        assert!(backoff.failed(Duration::ZERO).1, "still in trouble");
    }
}
