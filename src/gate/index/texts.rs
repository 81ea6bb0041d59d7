//! Many texts in one piece of memory.

use std::iter::FusedIterator;

/// Bits of a length that a byte before its text holds. Such a byte is below 128, and so a character of its own.
const BITS: u32 = 6;
/// Says that the length goes on in the next byte.
const MORE: u8 = 1 << BITS;

/// Appends a text, with its length before it.
pub(super) fn push(all: &mut String, text: &str) {
    let mut rest = text.len();
    loop {
        let low = u8::try_from(rest % usize::from(MORE)).unwrap_or_default();
        rest >>= BITS;
        all.push(char::from(if rest > 0 { low | MORE } else { low }));
        if rest == 0 {
            break;
        }
    }
    all.push_str(text);
}

/// The texts that were pushed, in their order.
#[derive(Clone, Debug)]
pub struct Texts<'a>(&'a str);

impl<'a> Texts<'a> {
    pub(super) fn of(all: &'a str) -> Self {
        Self(all)
    }
}

impl<'a> Iterator for Texts<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let (mut length, mut shift) = (0_usize, 0);
        for (at, byte) in self.0.bytes().enumerate() {
            length |= usize::from(byte % MORE) << shift;
            if byte & MORE == 0 {
                let (text, rest) = self.0.get(at + 1..)?.split_at_checked(length)?;
                self.0 = rest;
                return Some(text);
            }
            shift += BITS;
        }
        None
    }
}

impl FusedIterator for Texts<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_as_they_were() {
        let long = "ä".repeat(5_000);
        let texts = [
            "",
            "a",
            "zürich",
            &"b".repeat(63),
            &"c".repeat(64),
            "",
            &long,
            "z",
        ];
        let mut all = String::new();
        for text in texts {
            push(&mut all, text);
        }
        assert_eq!(Texts::of(&all).collect::<Vec<_>>(), texts);
        assert_eq!(Texts::of("").next(), None);
    }
}
