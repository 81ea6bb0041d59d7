//! The format of a key and its checksum.

use std::fmt;
use std::str::FromStr;

use super::base62;

/// Random characters in a key.
pub const RANDOM_LEN: usize = 32;
/// Characters of the checksum, which are the last of a key and are shown to people as its tail.
pub const TAIL_LEN: usize = 6;
/// The longest key in bytes: a prefix of 16, an underscore, and the rest. Fits one SHA-256 block (55 bytes).
pub const MAX_LEN: usize = Prefix::MAX_LEN + 1 + RANDOM_LEN + TAIL_LEN;
/// The prefix of keys whose `ApiKey` asks for none.
pub const DEFAULT_PREFIX: &str = "clv";

/// What stands before the first random character, so that secret scanners recognise a key.
///
/// Two to sixteen characters: `^[a-z][a-z0-9_]{0,14}[a-z0-9]$`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

/// A text that is not a key of ours. Says what is wrong with its shape, never what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not `<prefix>_<38 base62 characters>`.
    #[error("not of the form <prefix>_<38 letters and digits>")]
    Shape,
    /// The checksum does not fit: mistyped, cut, or made up.
    #[error("the checksum does not match")]
    Checksum,
}

/// A prefix that is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a prefix has 2 to 16 characters out of a-z, 0-9 and _, begins with a letter and does not end with _"
)]
pub struct PrefixError;

/// Tells a key of ours from a mistyped or made-up text, without knowing any key.
///
/// # Errors
/// [`Malformed`] when the shape or the checksum is wrong.
pub fn check(text: &str) -> Result<(), Malformed> {
    let (prefix, body) = text.rsplit_once('_').ok_or(Malformed::Shape)?;
    if !Prefix::is_valid(prefix)
        || body.len() != RANDOM_LEN + TAIL_LEN
        || !body.bytes().all(base62::is_digit)
    {
        return Err(Malformed::Shape);
    }
    let (signed, tail) = text.split_at(text.len() - TAIL_LEN);
    if checksum(signed.as_bytes()) == tail.as_bytes() {
        Ok(())
    } else {
        Err(Malformed::Checksum)
    }
}

/// CRC-32 (IEEE) of everything before the checksum, in six base62 digits.
pub(super) fn checksum(signed: &[u8]) -> [u8; TAIL_LEN] {
    base62::encode_u32(crc32fast::hash(signed))
}

impl Prefix {
    /// Characters of the longest prefix.
    pub const MAX_LEN: usize = 16;

    /// The prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_valid(text: &str) -> bool {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        (2..=Self::MAX_LEN).contains(&text.len())
            && text.bytes().all(inner)
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && !text.ends_with('_')
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self(DEFAULT_PREFIX.to_owned())
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        if Self::is_valid(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(PrefixError)
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
