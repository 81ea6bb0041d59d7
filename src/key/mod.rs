//! What a key is: `<prefix>_<32 random base62 characters><6 characters of checksum>`.
//!
//! Pure: this module knows nothing of Kubernetes, of clocks or of sockets. Randomness comes in as a
//! [`RandomSource`], which outside of tests is the operating system ([`OsRandom`]).
//!
//! A key is at most 55 bytes, so that hashing it costs one SHA-256 block, and stays within the
//! characters of a bearer token (RFC 6750, section 2.1). Its 32 random characters carry 190 bits. Whoever
//! has seen the tail still misses 158 of them, above the 112 bits at which NIST SP 800-63B lets a secret be
//! stored as the plain digest of an approved hash; a slow password hash would add nothing.

mod base62;
mod format;
mod hash;
mod import;
mod mint;

pub use format::{
    DEFAULT_PREFIX, MAX_LEN, Malformed, Prefix, PrefixError, RANDOM_LEN, TAIL_LEN, check,
};
pub use hash::{Hash, HashError};
pub use import::{ImportError, MIN_BITS};
pub use mint::{Key, MintError, OsRandom, RandomSource, Tail, random_hex_128};

#[cfg(test)]
mod tests;
