//! The API server's clock, as its answers tell it.

use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, header};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// The API server's clock, by the `Date` header of its last answer (RFC 9110, section 6.6.1) and the
/// time since on our monotonic clock. Exact to about a second.
#[derive(Clone, Debug, Default)]
pub struct ServerClock(Arc<Mutex<Option<(Timestamp, Instant)>>>);

impl ServerClock {
    /// Takes in the `Date` of an answer. One that cannot be read is passed over.
    pub fn hear(&self, headers: &HeaderMap) {
        let date = headers
            .get(header::DATE)
            .and_then(|date| date.to_str().ok());
        if let Some(Ok(moment)) = date.map(jiff::fmt::rfc2822::parse) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((moment.timestamp(), Instant::now()));
        }
    }

    /// How far `now` is ahead of the API server's clock; `None` while no answer has told it.
    #[must_use]
    pub fn skew(&self, now: Timestamp) -> Option<SignedDuration> {
        let (date, heard) = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let since = SignedDuration::try_from(heard.elapsed()).unwrap_or(SignedDuration::MAX);
        let server = date.checked_add(since).unwrap_or(Timestamp::MAX);
        Some(now.duration_since(server))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn skew_counts_the_time_since_the_last_date() {
        let clock = ServerClock::default();
        let hear = |date: &str| {
            clock.hear(&HeaderMap::from_iter([(
                header::DATE,
                date.parse().unwrap(),
            )]));
        };
        let noon: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        assert_eq!(clock.skew(noon), None);
        hear("Sat, 21 Nov 2026 12:00:00 GMT");
        tokio::time::advance(std::time::Duration::from_secs(3_600)).await;
        let later = noon + SignedDuration::from_hours(1);
        assert_eq!(clock.skew(later), Some(SignedDuration::ZERO));
        let ahead = SignedDuration::from_secs(61);
        assert_eq!(clock.skew(later + ahead), Some(ahead));
        assert_eq!(clock.skew(later - ahead), Some(-ahead));
        hear("nonsense");
        assert_eq!(clock.skew(later), Some(SignedDuration::ZERO));
    }
}
