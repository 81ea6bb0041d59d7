//! Base62 with the alphabet `0-9A-Za-z`, as far as a key needs it.

/// Digits in ascending order of value, which is also their order in ASCII.
pub(super) const ALPHABET: &[u8; 62] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The largest multiple of 62 that a byte can count to: bytes from here on are thrown away, so that every
/// digit is equally likely (256 is no multiple of 62).
const UNBIASED: u8 = 248;

/// The digit for a random byte, or `None` for a byte that would favour the first digits.
pub(super) fn unbiased_digit(byte: u8) -> Option<u8> {
    (byte < UNBIASED).then(|| digit(u32::from(byte)))
}

/// A checksum in six digits, most significant first, padded with zeros. `62^6 > 2^32`, so it always fits.
pub(super) fn encode_u32(mut value: u32) -> [u8; 6] {
    let mut out = [b'0'; 6];
    for place in out.iter_mut().rev() {
        *place = digit(value);
        value /= 62;
    }
    out
}

/// The digit that stands for `value mod 62`.
fn digit(value: u32) -> u8 {
    // The remainder is below the length of the alphabet; `get` only spares us an indexing panic.
    ALPHABET.get((value % 62) as usize).copied().unwrap_or(b'0')
}

/// Whether `byte` is one of the 62 digits.
pub(super) fn is_digit(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}
