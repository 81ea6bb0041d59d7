//! Clocks: ours, and the API server's as its answers tell it.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::lifecycle;

/// What time it is. A trait so that a test can set it; the product has no switch for it.
pub trait Clock: Send + Sync + 'static {
    /// The current moment.
    fn now(&self) -> Timestamp;
}

/// The clock of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// The API server's clock, by the `Date` header of its last answer (RFC 9110, section 6.6.1) and the time since on our
/// monotonic clock. Exact to about a second.
#[derive(Clone, Debug, Default)]
pub struct ServerClock(Arc<Mutex<Option<(Timestamp, Instant)>>>);

impl ServerClock {
    /// Takes in an answer's `Date` header. One that cannot be read is passed over.
    pub(super) fn heard(&self, date: &str) {
        if let Ok(moment) = jiff::fmt::rfc2822::parse(date) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((moment.timestamp(), Instant::now()));
        }
    }

    /// Compares `now` with the API server's clock; `None` while it was not heard yet.
    #[must_use]
    pub(super) fn judge(&self, now: Timestamp) -> Option<lifecycle::Clock> {
        let (date, heard) = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let since = SignedDuration::try_from(heard.elapsed()).unwrap_or(SignedDuration::MAX);
        let server = date.checked_add(since).unwrap_or(Timestamp::MAX);
        Some(lifecycle::Clock::judge(now.duration_since(server)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_offset_of_a_minute_agrees_and_a_larger_one_does_not() {
        let clock = ServerClock::default();
        let noon: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        assert_eq!(clock.judge(noon), None);
        clock.heard("Sat, 21 Nov 2026 12:00:00 GMT");
        tokio::time::advance(std::time::Duration::from_secs(3_600)).await;
        let later = noon + SignedDuration::from_hours(1);
        assert_eq!(
            clock.judge(later),
            Some(lifecycle::Clock::Agrees),
            "the time since the answer counts"
        );
        assert_eq!(
            clock.judge(later + SignedDuration::from_secs(60)),
            Some(lifecycle::Clock::Agrees)
        );
        assert_eq!(
            clock.judge(later + SignedDuration::from_secs(61)),
            Some(lifecycle::Clock::AheadBy(SignedDuration::from_secs(61)))
        );
        assert_eq!(
            clock.judge(later - SignedDuration::from_secs(61)),
            Some(lifecycle::Clock::AheadBy(SignedDuration::from_secs(-61)))
        );
        clock.heard("nonsense");
        assert_eq!(
            clock.judge(later),
            Some(lifecycle::Clock::Agrees),
            "an unreadable date changes nothing"
        );
    }
}
