//! Keeps the index as the watches show the cluster, and publishes it.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::HashTable;

use super::entry::Entry;
use super::interner::Interner;
use super::profile::Profile;
use super::{Index, Role, Roles};
use crate::gate::shown::{ShownApiKey, ShownRole};
use crate::watch::Uid;

/// The only one who changes the index. What is changed is seen by others when it is published.
#[derive(Debug)]
pub struct Writer {
    index: Index,
    by_uid: HashTable<Arc<Entry>>,
    uids: RandomState,
    profiles: Interner<Profile>,
    published: Arc<ArcSwap<Index>>,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            index: Index::default(),
            by_uid: HashTable::new(),
            uids: RandomState::new(),
            profiles: Interner::default(),
            published: Arc::default(),
        }
    }
}

impl Writer {
    /// Where the index is published.
    #[must_use]
    pub fn published(&self) -> Arc<ArcSwap<Index>> {
        self.published.clone()
    }

    /// Makes all changes since the last publication visible, together.
    pub fn publish(&self) {
        self.published.store(Arc::new(self.index.clone()));
    }

    /// An `ApiKey` is as shown.
    pub fn apply(&mut self, shown: &ShownApiKey) {
        let uid = Uid::of(&shown.metadata.uid);
        let new = Entry::of(shown, &mut self.profiles).map(Arc::new);
        let old = self.take(uid);
        if let Some(new) = new {
            if let Some(old) = &old {
                new.succeed(old);
            }
            self.index.tree.insert(&new);
            let (hash, uids) = (self.uids.hash_one(uid), &self.uids);
            self.by_uid
                .insert_unique(hash, new, |entry| uids.hash_one(entry.uid()));
        }
        self.index.keys = self.by_uid.len();
    }

    /// An `ApiKey` is gone, or cannot be read: its keys do not pass any more.
    pub fn remove(&mut self, uid: Uid) {
        self.take(uid);
        self.index.keys = self.by_uid.len();
    }

    /// A list has shown these and no others: what went while no watch ran shows by its absence alone.
    pub fn keep_only(&mut self, listed: &HashSet<Uid>) -> Vec<Uid> {
        let gone: Vec<Uid> = self
            .by_uid
            .iter()
            .map(|entry| entry.uid())
            .filter(|uid| !listed.contains(uid))
            .collect();
        for uid in &gone {
            self.remove(*uid);
        }
        gone
    }

    /// A role is as shown.
    pub fn apply_role(&mut self, shown: &ShownRole) {
        if shown.metadata.deletion_timestamp.is_some() {
            return self.remove_role(Uid::of(&shown.metadata.uid));
        }
        let mut permissions: Vec<Box<str>> = shown
            .spec
            .permissions
            .iter()
            .map(|name| name.as_str().into())
            .collect();
        permissions.sort_unstable();
        permissions.dedup();
        let role = Role {
            uid: Uid::of(&shown.metadata.uid),
            permissions: permissions.into(),
        };
        self.roles_mut()
            .insert(shown.metadata.name.as_str().into(), Arc::new(role));
    }

    /// A role is gone, or cannot be read: it grants nothing any more.
    pub fn remove_role(&mut self, uid: Uid) {
        self.roles_mut().retain(|_, role| role.uid != uid);
    }

    /// The same as [`Writer::keep_only`], for roles.
    pub fn keep_only_roles(&mut self, listed: &HashSet<Uid>) {
        self.roles_mut()
            .retain(|_, role| listed.contains(&role.uid));
    }

    fn roles_mut(&mut self) -> &mut HashMap<Box<str>, Arc<Role>> {
        let Roles(roles) = Arc::make_mut(&mut self.index.roles);
        roles
    }

    fn take(&mut self, uid: Uid) -> Option<Arc<Entry>> {
        let found = self
            .by_uid
            .find_entry(self.uids.hash_one(uid), |entry| entry.uid() == uid)
            .ok()?;
        let (entry, _) = found.remove();
        self.index.tree.remove(&entry);
        Some(entry)
    }
}
