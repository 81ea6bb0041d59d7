//! Keys that were made elsewhere: what can be a key at all, and how hard it is to guess.

use std::collections::HashSet;

use zeroize::Zeroizing;

use super::format::TAIL_LEN;
use super::mint::Key;

/// The longest key that is taken over, in bytes. Longer ones do not fit into the headers that proxies allow.
const MAX_IMPORTED: usize = 512;
/// A key must have more than this many bits to be stored as a plain digest (NIST SP 800-63B, section 5.1.2.2: a look-up secret of at
/// least 112 bits), not counting the tail, which everybody may see.
pub const MIN_BITS: u32 = 112;

/// Why a text is not taken over as a key. Says nothing of what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// It has a character that no header, query or file can carry unharmed.
    #[error(
        "it holds spaces, line ends or other characters than ! to ~ of ASCII: remove them (a file often ends with a line end)"
    )]
    Characters,
    /// It is too long.
    #[error("it has more than 512 bytes")]
    TooLong,
    /// It can be guessed.
    #[error(
        "it is too easy to guess: about {bits} bits without its last six characters, and at least 112 are needed; mint a new key, or, if \
         you know better, import it by source.hash"
    )]
    Weak {
        /// What it is estimated to have.
        bits: u32,
    },
}

impl Key {
    /// Takes over a key that was made elsewhere, byte for byte.
    ///
    /// # Errors
    /// [`ImportError`] says why it cannot be a key, or is too weak to be kept as a plain digest.
    pub fn import(text: &[u8]) -> Result<Self, ImportError> {
        if text.len() > MAX_IMPORTED {
            return Err(ImportError::TooLong);
        }
        let text = std::str::from_utf8(text).map_err(|_| ImportError::Characters)?;
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ImportError::Characters);
        }
        let bits = estimated_bits(text);
        if bits < MIN_BITS {
            return Err(ImportError::Weak { bits });
        }
        Ok(Self::from_text(Zeroizing::new(text.to_owned())))
    }
}

/// How many bits a guesser has to find, estimated from below: of the text without its tail and without a word at its beginning such
/// as `sk_live_`, the characters that do not repeat earlier ones or go on in steps, each as much as the alphabet gives that it seems to
/// be drawn from, and no more than its characters' frequencies give.
fn estimated_bits(text: &str) -> u32 {
    let body = text
        .get(..text.len().saturating_sub(TAIL_LEN))
        .unwrap_or_default();
    let body = without_word(body).as_bytes();
    let hex = body
        .iter()
        .all(|byte| byte.is_ascii_hexdigit() || *byte == b'-');
    // In a UUID and its like, dashes stand at fixed places.
    let body: Vec<u8> = body
        .iter()
        .copied()
        .filter(|byte| !(hex && *byte == b'-'))
        .collect();
    let body = body.as_slice();
    let fresh = fresh_characters(body);
    let count = f64::from(u32::try_from(fresh.len()).unwrap_or(u32::MAX));
    let by_alphabet = count * alphabet(body).log2();
    let mut frequencies = [0_u32; 256];
    for byte in body {
        if let Some(frequency) = frequencies.get_mut(usize::from(*byte)) {
            *frequency += 1;
        }
    }
    let all = f64::from(u32::try_from(body.len()).unwrap_or(u32::MAX)).max(1.0);
    let shares = frequencies
        .iter()
        .filter(|frequency| **frequency > 0)
        .map(|frequency| f64::from(*frequency) / all);
    let distinct = frequencies
        .iter()
        .filter(|frequency| **frequency > 0)
        .count();
    // The sample is small: the correction of Miller and Madow makes up for what its frequencies lack.
    let lacking = f64::from(u32::try_from(distinct.saturating_sub(1)).unwrap_or(0))
        / (2.0 * all * std::f64::consts::LN_2);
    let by_frequency = count * (shares.map(|share| -share * share.log2()).sum::<f64>() + lacking);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 8 bits for each of at most 512 bytes"
    )]
    let bits = by_alphabet.min(by_frequency).max(0.0) as u32;
    bits
}

/// Drops a word that keys of one kind have in common: lower-case letters and underscores before the last underscore of the first 16
/// characters.
fn without_word(text: &str) -> &str {
    let head = text.get(..text.len().min(16)).unwrap_or_default();
    match head.rfind(['_', '-']) {
        Some(end)
            if head
                .bytes()
                .take(end)
                .all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'-')) =>
        {
            text.get(end + 1..).unwrap_or_default()
        }
        _ => text,
    }
}

/// The characters that tell something new: not those that go on in steps (`aaa`, `abc`, `aab`, `321`), and not those that repeat four
/// characters that were there before.
fn fresh_characters(body: &[u8]) -> Vec<u8> {
    const PIECE: usize = 4;
    let mut seen = HashSet::new();
    let mut fresh = Vec::new();
    let lower = body.to_ascii_lowercase();
    for (at, byte) in lower.iter().enumerate() {
        let window = |length: usize| {
            (at + 1)
                .checked_sub(length)
                .and_then(|from| lower.get(from..=at))
        };
        let steps = window(3).is_some_and(|three| {
            let step = |pair: &[u8]| match pair {
                [first, second] => i16::from(*second) - i16::from(*first),
                _ => i16::MAX,
            };
            let steps: Vec<_> = three.windows(2).map(step).collect();
            steps.iter().all(|step| step.abs() <= 1)
        });
        let repeats = window(PIECE).is_some_and(|piece| !seen.insert(piece.to_vec()));
        if !steps && !repeats {
            fresh.push(*byte);
        }
    }
    fresh
}

/// How many characters the alphabet has that a text seems to be drawn from.
fn alphabet(body: &[u8]) -> f64 {
    let any = |is: fn(&u8) -> bool| body.iter().any(is);
    if body.iter().all(u8::is_ascii_hexdigit) {
        return 16.0;
    }
    let sizes = [
        (any(u8::is_ascii_lowercase), 26.0),
        (any(u8::is_ascii_uppercase), 26.0),
        (any(u8::is_ascii_digit), 10.0),
        (any(u8::is_ascii_punctuation), 4.0),
    ];
    sizes
        .iter()
        .filter(|(there, _)| *there)
        .map(|(_, size)| size)
        .sum::<f64>()
        .max(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::{Hash, OsRandom, Prefix};

    fn bits(text: &str) -> Option<u32> {
        match Key::import(text.as_bytes()) {
            Err(ImportError::Weak { bits }) => Some(bits),
            Ok(_) => None,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn what_people_make_up_is_refused_however_long_it_is() {
        let made_up = [
            "password".to_owned(),
            "correct-horse-battery-staple".to_owned(),
            "a".repeat(100),
            "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ".to_owned(),
            "changeme".repeat(30),
            "sk_live_changeme_changeme_changeme".to_owned(),
            "0123456789".repeat(10),
            "aabbccddeeffgghhiijjkkllmmnnooppqqrrssttuuvvwwxxyyzz".to_owned(),
        ];
        for text in made_up {
            assert!(bits(&text).is_some_and(|bits| bits < MIN_BITS), "{text}");
        }
    }

    #[test]
    fn a_key_with_128_random_bits_has_too_few_without_its_tail() {
        assert!(
            bits("9f86d081884c7d659a2feaa0c55ad015").is_some_and(|bits| (90..112).contains(&bits)),
            "128 bits in hex"
        );
        assert!(
            bits("3f2b8c1d-9a4e-4c77-b1d0-6e5f8a9b7c21").is_some(),
            "a UUID"
        );
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let good = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b";
        assert!(Key::import(good.as_bytes()).is_ok());
        for text in [
            String::new(),
            format!("{good}\n"),
            format!(" {good}"),
            format!("{good}\u{e9}"),
            format!("{good}\0"),
        ] {
            assert_eq!(
                Key::import(text.as_bytes()).err(),
                Some(ImportError::Characters),
                "{text:?}"
            );
        }
        assert_eq!(
            Key::import(&[0xff; 40]).err(),
            Some(ImportError::Characters)
        );
        assert_eq!(Key::import(&[b'x'; 513]).err(), Some(ImportError::TooLong));
    }

    #[test]
    fn our_own_keys_are_taken_over_as_they_are() {
        for _ in 0..200 {
            let key = Key::mint(&Prefix::default(), &mut OsRandom).unwrap();
            let taken = Key::import(key.expose().as_bytes()).unwrap();
            assert_eq!((taken.hash(), taken.tail()), (key.hash(), key.tail()));
        }
    }

    proptest! {
        /// 160 random bits, however they are written, are enough.
        #[test]
        fn long_random_keys_are_taken_over(bytes in proptest::collection::vec(any::<u8>(), 24)) {
            prop_assume!(bytes.iter().collect::<HashSet<_>>().len() > 18);
            let hex = bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
            let key = Key::import(hex.as_bytes());
            prop_assert!(key.is_ok(), "{hex}: {key:?}");
            prop_assert_eq!(key.unwrap().hash(), Hash::of(hex.as_bytes()));
        }

        #[test]
        fn no_bytes_make_the_import_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Key::import(&bytes);
        }
    }
}
