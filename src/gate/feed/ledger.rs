//! Takes down what the watches show: the one place where the index is changed, published, and known to be current.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kube::api::WatchEvent;
use serde_json::value::RawValue;

use super::wire::{Read, read};
use crate::gate::freshness::{Freshness, Watched};
use crate::gate::index::{Uid, Writer};
use crate::gate::metrics::Metrics;
use crate::gate::report::Uses;
use crate::gate::shown::{Meta, ShownApiKey, ShownMeta, ShownRole, seconds};

/// Takes down what is shown.
pub struct Ledger {
    writer: Mutex<Writer>,
    freshness: Arc<Freshness>,
    metrics: Arc<Metrics>,
    reached: Mutex<Reached>,
    uses: Arc<Uses>,
    /// Why a watch does not go on, until one does.
    trouble: Mutex<Option<String>>,
}

/// Up to which resourceVersion the index knows everything; empty before the first list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Of ApiKeys.
    pub apikeys: String,
    /// Of roles.
    pub roles: String,
}

impl Ledger {
    /// Changes `writer`'s index.
    #[must_use]
    pub fn new(writer: Writer, freshness: Arc<Freshness>, metrics: Arc<Metrics>, uses: Arc<Uses>) -> Self {
        Self { writer: Mutex::new(writer), freshness, metrics, reached: Mutex::default(), uses, trouble: Mutex::default() }
    }

    /// Up to where the index knows everything.
    #[must_use]
    pub fn reached(&self) -> Reached {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why a watch does not go on.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A watch has ended other than in order.
    pub(super) fn restarted(&self, watched: Watched, why: &str) {
        self.metrics.watch_restarted(watched);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{}: {why}", watched.as_str()));
    }

    /// The API server has given a sign.
    pub(super) fn heard(&self, watched: Watched) {
        self.freshness.heard(watched);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A page of a list.
    pub(super) fn listed(&self, watched: Watched, items: &[Box<RawValue>], seen: &mut HashSet<Uid>) {
        let mut writer = self.writer();
        for item in items {
            if let Some(meta) = self.applied(watched, item, &mut writer) {
                seen.insert(Uid::of(&meta.uid));
            }
        }
        writer.publish();
    }

    /// A list is complete: what it did not show is gone.
    pub(super) fn list_ends(&self, watched: Watched, seen: &HashSet<Uid>, resource_version: &str) {
        let mut writer = self.writer();
        match watched {
            Watched::ApiKeys => drop(writer.keep_only(seen)),
            Watched::Roles => writer.keep_only_roles(seen),
        }
        writer.publish();
        self.reach(watched, resource_version);
        self.heard(watched);
    }

    /// Events of a watch, in their order. Returns where the index stands now, if any of them says so.
    pub(super) fn happened(&self, watched: Watched, events: &[WatchEvent<Box<RawValue>>]) -> Option<String> {
        if events.is_empty() {
            return None;
        }
        let begun = Instant::now();
        let mut reached = None;
        let mut changes = 0;
        let mut writer = self.writer();
        for event in events {
            let meta = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => self.applied(watched, object, &mut writer),
                WatchEvent::Deleted(object) => self.deleted(watched, object, &mut writer),
                WatchEvent::Bookmark(bookmark) => {
                    reached = Some(bookmark.metadata.resource_version.clone());
                    continue;
                }
                WatchEvent::Error(_) => continue,
            };
            changes += 1;
            if let Some(meta) = meta.filter(|meta| !meta.resource_version.is_empty()) {
                reached = Some(meta.resource_version);
            }
        }
        if changes > 0 {
            writer.publish();
        }
        if let Some(reached) = &reached {
            self.reach(watched, reached);
        }
        drop(writer);
        self.heard(watched);
        self.metrics.changed(watched, changes, begun.elapsed());
        reached
    }

    fn applied(&self, watched: Watched, object: &RawValue, writer: &mut Writer) -> Option<Meta> {
        match watched {
            Watched::ApiKeys => match read::<ShownApiKey>(object)? {
                Read::Whole(shown) => {
                    writer.apply(&shown);
                    self.uses.seen(&shown.metadata.uid, shown.status.last_used_at.as_ref().map(seconds));
                    Some(shown.metadata)
                }
                Read::Broken(meta, reason) => {
                    // Nobody can say whether it was revoked.
                    writer.remove(Uid::of(&meta.uid));
                    self.uses.gone(&meta.uid);
                    self.undecodable("ApiKey", &meta, &reason);
                    Some(meta)
                }
            },
            Watched::Roles => match read::<ShownRole>(object)? {
                Read::Whole(shown) => {
                    writer.apply_role(&shown);
                    Some(shown.metadata)
                }
                Read::Broken(meta, reason) => {
                    writer.remove_role(Uid::of(&meta.uid));
                    self.undecodable("ApiKeyRole", &meta, &reason);
                    Some(meta)
                }
            },
        }
    }

    fn deleted(&self, watched: Watched, object: &RawValue, writer: &mut Writer) -> Option<Meta> {
        let ShownMeta { metadata } = serde_json::from_str(object.get()).ok()?;
        let uid = Uid::of(&metadata.uid);
        match watched {
            Watched::ApiKeys => {
                writer.remove(uid);
                self.uses.gone(&metadata.uid);
            }
            Watched::Roles => writer.remove_role(uid),
        }
        Some(metadata)
    }

    fn undecodable(&self, kind: &str, meta: &Meta, reason: &str) {
        self.metrics.undecodable();
        tracing::warn!(
            kind,
            name = meta.name,
            namespace = meta.namespace,
            reason,
            "an object cannot be read and counts for nothing"
        );
    }

    fn reach(&self, watched: Watched, resource_version: &str) {
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        match watched {
            Watched::ApiKeys => resource_version.clone_into(&mut reached.apikeys),
            Watched::Roles => resource_version.clone_into(&mut reached.roles),
        }
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
