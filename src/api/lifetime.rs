//! Lengths of time as people write them: `90d`, `12h`.

use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};

/// A length of time in whole seconds: `<n>(s|m|h|d|w)` with n of one to five digits, without leading zeros. A day has 24 hours.
///
/// Zero is one, too: schemas refuse it where it makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lifetime(SignedDuration);

/// A text that is not a [`Lifetime`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a lifetime: write a number of one to five digits and s, m, h, d or w, such as 90d"
)]
pub struct LifetimeError(String);

impl Lifetime {
    /// The length, at most 99,999 weeks.
    #[must_use]
    pub fn duration(self) -> SignedDuration {
        self.0
    }

    /// The moment this long after `start`, or the last moment that a timestamp can name.
    #[must_use]
    pub fn after(self, start: Timestamp) -> Timestamp {
        start.checked_add(self.0).unwrap_or(Timestamp::MAX)
    }
}

impl FromStr for Lifetime {
    type Err = LifetimeError;

    fn from_str(text: &str) -> Result<Self, LifetimeError> {
        let wrong = || LifetimeError(text.to_owned());
        let unit = text.chars().next_back().ok_or_else(wrong)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return Err(wrong()),
        };
        let digits = text.strip_suffix(unit).unwrap_or_default();
        let fits = (1..=5).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
            && (digits == "0" || !digits.starts_with('0'));
        let count: i64 = if fits {
            digits.parse().map_err(|_| wrong())?
        } else {
            return Err(wrong());
        };
        Ok(Self(SignedDuration::from_secs(count * seconds)))
    }
}
