//! Minting: the one place where keys come into being, and the type that keeps them from leaking.

use std::fmt;

use rand::TryRng;
use zeroize::{Zeroize, Zeroizing};

use super::format::{self, Prefix, RANDOM_LEN, TAIL_LEN};
use super::{Hash, base62};

/// A key: the secret string itself.
///
/// It has no `Display` and no `Serialize`, its `Debug` prints none of it, and its memory
/// is wiped when it is dropped. [`Key::expose`] is the one way to its text.
pub struct Key(Zeroizing<String>);

/// The last six characters of a key, shown to people so that they can recognise it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail(String);

/// Where random bytes come from. A failure is an error, never a reason to take a weaker source.
pub trait RandomSource {
    /// Fills `bytes` with bytes that nobody can predict.
    ///
    /// # Errors
    /// [`MintError`] when the source has none to give.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), MintError>;
}

/// The random source of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRandom;

/// No random bytes were to be had.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct MintError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

impl Key {
    /// Mints a new key.
    ///
    /// # Errors
    /// [`MintError`] when `random` fails; nothing half-made is left behind.
    pub fn mint(prefix: &Prefix, random: &mut impl RandomSource) -> Result<Self, MintError> {
        // Room for the whole key at once: growing would leave a copy behind in freed memory.
        let mut text = Zeroizing::new(String::with_capacity(format::MAX_LEN));
        text.push_str(prefix.as_str());
        text.push('_');
        let mut pool = Zeroizing::new([0_u8; 48]);
        let mut missing = RANDOM_LEN;
        while missing > 0 {
            random.fill(pool.as_mut_slice())?;
            for digit in pool
                .iter()
                .filter_map(|byte| base62::unbiased_digit(*byte))
                .take(missing)
            {
                text.push(char::from(digit));
                missing -= 1;
            }
        }
        let mut checksum = format::checksum(text.as_bytes());
        text.extend(checksum.iter().map(|digit| char::from(*digit)));
        checksum.zeroize();
        Ok(Self(text))
    }

    /// A key that was made elsewhere, judged by the caller.
    pub(super) fn from_text(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// The key's text. For delivering it, and for nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What the cluster keeps of the key.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of(self.0.as_bytes())
    }

    /// What people may see of the key.
    #[must_use]
    pub fn tail(&self) -> Tail {
        Tail(
            self.0
                .get(self.0.len().saturating_sub(TAIL_LEN)..)
                .unwrap_or_default()
                .to_owned(),
        )
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(redacted)")
    }
}

impl Tail {
    /// The tail as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl RandomSource for OsRandom {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), MintError> {
        rand::rngs::SysRng
            .try_fill_bytes(bytes)
            .map_err(|error| MintError(Box::new(error)))
    }
}

/// 128 random bits in 32 lower-case hex digits: a key ID. Public, unlike everything else here.
///
/// # Errors
/// [`MintError`] when `random` fails.
pub fn random_hex_128(random: &mut impl RandomSource) -> Result<String, MintError> {
    let mut bytes = [0; 16];
    random.fill(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
