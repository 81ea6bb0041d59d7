//! Keys without chance.

use crate::key::{Key, MintError, Prefix, RandomSource};

/// Different keys for different numbers.
pub(super) fn mint(number: u32) -> Key {
    Key::mint(&Prefix::default(), &mut Counter(number)).unwrap()
}

struct Counter(u32);

impl RandomSource for Counter {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), MintError> {
        // 32 digits, each of which a mint takes as it is.
        let text = format!("{:048}", self.0);
        bytes.copy_from_slice(&text.as_bytes()[..bytes.len()]);
        bytes.rotate_right(16);
        Ok(())
    }
}
