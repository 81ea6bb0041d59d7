//! Equal things kept once.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Fewer than these are not worth looking through.
const FEW: usize = 1_024;

/// Keeps one copy of each thing, as long as somebody uses it.
#[derive(Debug)]
pub(super) struct Interner<T> {
    kept: HashSet<Arc<T>>,
    /// How many there may be before those that nobody uses are let go.
    bound: usize,
}

impl<T: Eq + Hash> Interner<T> {
    /// The one copy of `thing`.
    pub(super) fn keep(&mut self, thing: T) -> Arc<T> {
        if let Some(kept) = self.kept.get(&thing) {
            return kept.clone();
        }
        if self.kept.len() >= self.bound {
            self.kept.retain(|kept| Arc::strong_count(kept) > 1);
            self.bound = (self.kept.len() * 2).max(FEW);
        }
        let new = Arc::new(thing);
        self.kept.insert(new.clone());
        new
    }
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self {
            kept: HashSet::new(),
            bound: FEW,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_things_are_kept_once_and_unused_ones_are_let_go() {
        let mut interner = Interner::default();
        let used = interner.keep("used".to_owned());
        for number in 0..10 * FEW {
            interner.keep(number.to_string());
        }
        assert!(
            interner.kept.len() <= FEW,
            "{} are kept",
            interner.kept.len()
        );
        assert!(Arc::ptr_eq(&used, &interner.keep("used".to_owned())));
    }
}
