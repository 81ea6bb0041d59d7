//! Hash to entry, with structure shared between one state and the next.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::entry::{Entry, Listed};
use crate::key::Hash;

/// Branches at each of the two levels. 4,096 leaves of 244 entries hold a million.
const WIDTH: usize = 64;
const WIDTH_BITS: u32 = WIDTH.trailing_zeros();

/// Hash to entry. A clone shares everything; what is changed afterwards is copied as far as the touched leaf.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    branches: Vec<Arc<Branch>>,
    places: RandomState,
}

#[derive(Clone, Debug)]
struct Branch {
    leaves: Vec<Arc<Leaf>>,
}

/// Sorted by place. An entry stands next to its place: who finds the one has the other in the same cache line.
#[derive(Clone, Debug, Default)]
struct Leaf(Vec<(u64, Arc<Entry>)>);

impl Default for Tree {
    fn default() -> Self {
        let leaf = Arc::new(Leaf::default());
        let branch = Arc::new(Branch {
            leaves: vec![leaf; WIDTH],
        });
        Self {
            branches: vec![branch; WIDTH],
            places: RandomState::new(),
        }
    }
}

impl Tree {
    /// The entry that counts for this hash, and the version that has it.
    pub(super) fn find(&self, hash: &Hash) -> Option<(&Arc<Entry>, &Listed)> {
        let place = self.places.hash_one(hash);
        let (branch, leaf) = way(place);
        let leaf = self.branches.get(branch)?.leaves.get(leaf)?;
        let with_hash = leaf
            .at(place)
            .filter_map(|entry| Some((entry, entry.version_of(hash)?)));
        with_hash.reduce(|first, other| {
            if other.0.counts_before(first.0) {
                other
            } else {
                first
            }
        })
    }

    /// Lists an entry under each of its hashes.
    pub(super) fn insert(&mut self, entry: &Arc<Entry>) {
        for version in entry.versions() {
            let place = self.places.hash_one(version.hash());
            if let Some(leaf) = self.leaf_mut(place) {
                leaf.insert(place, entry.clone());
            }
        }
    }

    /// Takes an entry off the list of each of its hashes.
    pub(super) fn remove(&mut self, entry: &Arc<Entry>) {
        for version in entry.versions() {
            let place = self.places.hash_one(version.hash());
            if let Some(leaf) = self.leaf_mut(place) {
                leaf.remove(place, entry);
            }
        }
    }

    fn leaf_mut(&mut self, place: u64) -> Option<&mut Leaf> {
        let (branch, leaf) = way(place);
        let branch = Arc::make_mut(self.branches.get_mut(branch)?);
        branch.leaves.get_mut(leaf).map(Arc::make_mut)
    }
}

impl Leaf {
    fn at(&self, place: u64) -> impl Iterator<Item = &Arc<Entry>> {
        let from_start = self.0.iter().skip(self.start(place));
        from_start
            .take_while(move |(other, _)| *other == place)
            .map(|(_, entry)| entry)
    }

    /// Where entries with this place begin, or would. Places are spread evenly, so that the place itself says about where: of a
    /// leaf that is in no cache, one or two lines are read and not those that halving would visit.
    fn start(&self, place: u64) -> usize {
        let place_at = |at: usize| self.0.get(at).map(|(place, _)| *place);
        let about = (u128::from(place) * self.0.len() as u128) >> u64::BITS;
        let mut at = usize::try_from(about).unwrap_or_default();
        while let Some(before) = at
            .checked_sub(1)
            .filter(|before| place_at(*before).is_some_and(|other| other >= place))
        {
            at = before;
        }
        while place_at(at).is_some_and(|other| other < place) {
            at += 1;
        }
        at
    }

    /// Room is made for one more at a time: spare room in thousands of leaves would be most of the index.
    fn insert(&mut self, place: u64, entry: Arc<Entry>) {
        let at = self.start(place);
        self.0.reserve_exact(1);
        self.0.insert(at, (place, entry));
    }

    fn remove(&mut self, place: u64, entry: &Arc<Entry>) {
        let start = self.start(place);
        let offset = self.at(place).position(|other| Arc::ptr_eq(other, entry));
        if let Some(at) = offset.map(|offset| start + offset) {
            self.0.remove(at);
            self.0.shrink_to_fit();
        }
    }
}

/// Which branch, and which leaf in it. The lowest bits: leaves are sorted by the whole.
fn way(place: u64) -> (usize, usize) {
    let bits = |shift: u32| usize::try_from((place >> shift) % WIDTH as u64).unwrap_or_default();
    (bits(0), bits(WIDTH_BITS))
}
