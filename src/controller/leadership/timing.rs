//! The three durations of an election, valid by construction.

use std::time::Duration;

use tokio::time::Instant;

/// How long a lease lasts, how long its holder may act on it, and how often it is looked at.
///
/// `lease_duration > renew_deadline > 1.2 * retry_period`: a holder stops itself before anybody else may take over,
/// and has time for at least one renewal before it must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    lease_duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
}

/// Why three durations do not make a safe election; each message says what to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// The Lease holds whole seconds in an `i32`.
    #[error(
        "lease duration {0:?} is not a whole number of seconds from 1 to 2147483647: choose one that is"
    )]
    LeaseDuration(Duration),
    /// A holder would still act when another may take over.
    #[error(
        "renew deadline {renew_deadline:?} is not shorter than lease duration {lease_duration:?}: \
         lower the renew deadline or raise the lease duration"
    )]
    RenewDeadline {
        /// How long a holder would act after a renewal.
        renew_deadline: Duration,
        /// After which others would take over.
        lease_duration: Duration,
    },
    /// A holder would stop before its first renewal.
    #[error(
        "retry period {retry_period:?} with its jitter of a fifth is not shorter than renew deadline {renew_deadline:?}: \
         lower the retry period or raise the renew deadline"
    )]
    RetryPeriod {
        /// The pause between two renewals.
        retry_period: Duration,
        /// How long a holder would act after a renewal.
        renew_deadline: Duration,
    },
    /// A pause of nothing is a busy loop against the API server.
    #[error("retry period is zero: choose a second or more")]
    NoRetryPeriod,
}

impl Default for Timing {
    /// 15 s, 10 s and 2 s, as in client-go.
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

impl Timing {
    /// Checks that the three fit together.
    ///
    /// # Errors
    /// [`TimingError`] when one holder could act while another does, or could never renew in time.
    pub fn new(
        lease_duration: Duration,
        renew_deadline: Duration,
        retry_period: Duration,
    ) -> Result<Self, TimingError> {
        let whole = lease_duration.subsec_nanos() == 0
            && i32::try_from(lease_duration.as_secs()).is_ok_and(|s| s > 0);
        if !whole {
            return Err(TimingError::LeaseDuration(lease_duration));
        }
        if renew_deadline >= lease_duration {
            return Err(TimingError::RenewDeadline {
                renew_deadline,
                lease_duration,
            });
        }
        if retry_period.is_zero() {
            return Err(TimingError::NoRetryPeriod);
        }
        if retry_period.saturating_mul(6) >= renew_deadline.saturating_mul(5) {
            return Err(TimingError::RetryPeriod {
                retry_period,
                renew_deadline,
            });
        }
        Ok(Self {
            lease_duration,
            renew_deadline,
            retry_period,
        })
    }

    /// How long others wait after they saw the record change; whole seconds.
    #[must_use]
    pub fn lease_duration(&self) -> Duration {
        self.lease_duration
    }

    /// How long the holder may act after it sent a renewal that succeeded.
    #[must_use]
    pub fn renew_deadline(&self) -> Duration {
        self.renew_deadline
    }

    /// The shortest pause between two looks at the lease.
    #[must_use]
    pub fn retry_period(&self) -> Duration {
        self.retry_period
    }

    /// Until when the sender of a successful write may act, `sent` being an instant *before* the write left: the server
    /// cannot have committed it earlier, so nobody else can have begun to count earlier.
    #[must_use]
    pub fn may_act_until(&self, sent: Instant) -> Instant {
        sent + self.renew_deadline
    }

    /// What one request may take: half the renew deadline, so that a hung renewal leaves time to look and renew again.
    pub(super) fn request_timeout(&self) -> Duration {
        self.renew_deadline / 2
    }

    /// The retry period, lengthened by up to a fifth according to `random`.
    pub(super) fn jittered(&self, random: u64) -> Duration {
        let thousandths = u32::try_from(random % 201).unwrap_or(0);
        self.retry_period + self.retry_period / 1000 * thousandths
    }

    /// `leaseDurationSeconds`.
    pub(super) fn lease_seconds(&self) -> i32 {
        i32::try_from(self.lease_duration.as_secs()).unwrap_or(i32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(lease: u64, deadline: u64, retry: u64) -> Result<Timing, TimingError> {
        Timing::new(
            Duration::from_millis(lease),
            Duration::from_millis(deadline),
            Duration::from_millis(retry),
        )
    }

    #[test]
    fn only_safe_timings_exist() {
        assert_eq!(timing(15_000, 10_000, 2_000), Ok(Timing::default()));
        assert_eq!(
            timing(2_000, 1_300, 1_000).map(|t| t.lease_seconds()),
            Ok(2)
        );
        let cases = [
            (0, 0, 1, "lease duration 0ns is not a whole number"),
            (
                1_500,
                1_000,
                100,
                "lease duration 1.5s is not a whole number",
            ),
            (
                3_000_000_000_000_000,
                1_000,
                100,
                "is not a whole number of seconds from 1 to 2147483647",
            ),
            (
                10_000,
                10_000,
                2_000,
                "lower the renew deadline or raise the lease duration",
            ),
            (15_000, 10_000, 0, "retry period is zero"),
            (
                15_000,
                12_000,
                10_000,
                "lower the retry period or raise the renew deadline",
            ),
        ];
        for (lease, deadline, retry, says) in cases {
            let message = timing(lease, deadline, retry).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        let timing = Timing::default();
        let pauses = (0..1_000).map(|random| timing.jittered(random));
        let (low, high) = pauses.fold((Duration::MAX, Duration::ZERO), |(l, h), p| {
            (l.min(p), h.max(p))
        });
        assert_eq!(
            (low, high),
            (Duration::from_secs(2), Duration::from_millis(2_400))
        );
    }
}
