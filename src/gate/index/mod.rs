//! Which key belongs to whom: immutable, so that whoever answers a request holds one state of the cluster from start to end.
//!
//! An [`Index`] is a tree of two levels with 64 branches each; its leaves hold the entries sorted by a keyed hash of their
//! hash. The [`Writer`] changes a copy that shares all but the touched leaf with what was published before, so that a change among
//! a million keys copies a few hundred pointers.
//!
//! The place of an entry is decided by SipHash under a random key of this process, and hashes are compared in constant time: how
//! long a look takes says nothing about hashes that resemble the one looked for.

mod entry;
mod interner;
mod name;
mod profile;
mod texts;
mod tree;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;

pub use entry::{End, Entry, KeyId, Listed};
pub use profile::Profile;
pub use texts::Texts;
use tree::Tree;
pub use writer::Writer;

use crate::key::Hash;
use crate::watch::Uid;

/// One state of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Index {
    tree: Tree,
    roles: Arc<Roles>,
    keys: usize,
}

/// What roles allow.
#[derive(Clone, Debug, Default)]
pub struct Roles(HashMap<Box<str>, Arc<Role>>);

#[derive(Debug)]
struct Role {
    uid: Uid,
    /// Sorted.
    permissions: Box<[Box<str>]>,
}

/// Who holds a key, and by which version.
#[derive(Clone, Debug)]
pub struct Holder {
    entry: Arc<Entry>,
    version: Listed,
    roles: Arc<Roles>,
}

impl Index {
    /// Who holds the key with this hash.
    #[must_use]
    pub fn find(&self, hash: &Hash) -> Option<Holder> {
        let (entry, version) = self.tree.find(hash)?;
        Some(Holder {
            entry: entry.clone(),
            version: *version,
            roles: self.roles.clone(),
        })
    }

    /// How many ApiKeys have a key in here.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// How many roles there are.
    #[must_use]
    pub fn roles(&self) -> usize {
        self.roles.0.len()
    }
}

impl Holder {
    /// The ApiKey.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The version of its key that was shown.
    #[must_use]
    pub fn version(&self) -> &Listed {
        &self.version
    }

    /// Whether the key may do this, by itself or by a role.
    #[must_use]
    pub fn may(&self, permission: &str) -> bool {
        let profile = self.entry.profile();
        profile.permissions().any(|own| own == permission)
            || profile
                .roles()
                .filter_map(|role| self.roles.0.get(role))
                .any(|role| role.allows(permission))
    }

    /// All that the key may do, sorted, each once. A role that does not exist grants nothing.
    #[must_use]
    pub fn permissions(&self) -> Vec<&str> {
        let profile = self.entry.profile();
        let by_roles = profile
            .roles()
            .filter_map(|role| self.roles.0.get(role))
            .flat_map(|role| &role.permissions);
        let mut all: Vec<&str> = profile
            .permissions()
            .chain(by_roles.map(|permission| &**permission))
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl Role {
    fn allows(&self, permission: &str) -> bool {
        self.permissions
            .binary_search_by(|own| (**own).cmp(permission))
            .is_ok()
    }
}

#[cfg(test)]
mod tests;
