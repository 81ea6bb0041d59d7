//! Takes down what the watches show: the one place where the index is changed, published, and known to be current.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::api::WatchEvent;
use serde_json::value::RawValue;
use tokio::sync::Notify;

use super::wire::{Read, known, read};
use crate::api::resource_version_number;
use crate::gate::freshness::{Freshness, Watched};
use crate::gate::index::{Uid, Writer};
use crate::gate::metrics::Metrics;
use crate::gate::report::Uses;
use crate::gate::shown::{Meta, ShownApiKey, ShownRole, seconds};

/// Takes down what is shown.
pub struct Ledger {
    writer: Mutex<Writer>,
    freshness: Arc<Freshness>,
    metrics: Arc<Metrics>,
    reached: Mutex<Reached>,
    uses: Arc<Uses>,
    trouble: Mutex<Trouble>,
    moved: Arc<Notify>,
}

/// Up to which resourceVersion the index knows everything; empty before the first list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Of ApiKeys.
    pub apikeys: String,
    /// Of roles.
    pub roles: String,
}

/// Why each watch does not go on, until it does.
#[derive(Debug, Default)]
struct Trouble {
    apikeys: Option<String>,
    roles: Option<String>,
}

/// What became of events.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Where the index stands now, if any of them says so.
    pub(super) reached: Option<String>,
    /// Where one of them stands that is before the one that came before it: what came after it is not taken in.
    pub(super) lower: Option<String>,
    /// Of one it could not be told which object it was about.
    pub(super) unreadable: bool,
    /// They came too late to count as a sign: only a list makes good for it.
    pub(super) overdue: bool,
}

impl Ledger {
    /// Changes `writer`'s index.
    #[must_use]
    pub fn new(
        writer: Writer,
        freshness: Arc<Freshness>,
        metrics: Arc<Metrics>,
        uses: Arc<Uses>,
    ) -> Self {
        Self {
            writer: Mutex::new(writer),
            freshness,
            metrics,
            reached: Mutex::default(),
            uses,
            trouble: Mutex::default(),
            moved: Arc::default(),
        }
    }

    /// Up to where the index knows everything.
    #[must_use]
    pub fn reached(&self) -> Reached {
        self.reached
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Tells one who waits that the index knows more than before.
    #[must_use]
    pub fn moved(&self) -> Arc<Notify> {
        self.moved.clone()
    }

    /// Why watches do not go on.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.troubled();
        let told: Vec<&str> = [&trouble.apikeys, &trouble.roles]
            .into_iter()
            .filter_map(Option::as_deref)
            .collect();
        (!told.is_empty()).then(|| told.join("; "))
    }

    /// Whether no verdict is given because a watch has been silent for too long.
    pub(super) fn is_overdue(&self, watched: Watched) -> bool {
        self.freshness.is_overdue(watched)
    }

    /// How long verdicts may still be given without a sign; `None` where that is not bounded.
    pub(super) fn left(&self, watched: Watched) -> Option<Duration> {
        self.freshness.left(watched)
    }

    /// A watch has ended other than in order.
    pub(super) fn restarted(&self, watched: Watched, why: &str) {
        self.metrics.watch_restarted(watched);
        *self.troubled().of(watched) = Some(format!("{}: {why}", watched.as_str()));
    }

    /// The API server has given a sign; `false` where it came too late.
    #[must_use]
    pub(super) fn heard(&self, watched: Watched) -> bool {
        let in_time = self.freshness.heard(watched);
        if in_time {
            *self.troubled().of(watched) = None;
        }
        in_time
    }

    /// A page of a list.
    pub(super) fn listed(
        &self,
        watched: Watched,
        items: &[Box<RawValue>],
        seen: &mut HashSet<Uid>,
    ) {
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
            Watched::ApiKeys => {
                for gone in writer.keep_only(seen) {
                    self.uses.gone(&gone.to_string());
                }
            }
            Watched::Roles => writer.keep_only_roles(seen),
        }
        writer.publish();
        self.reach(watched, resource_version);
        self.freshness.listed(watched);
        *self.troubled().of(watched) = None;
        self.moved.notify_one();
    }

    /// Events of a watch, of which the first arrived at that moment, in their order, up to the first that cannot be read.
    pub(super) fn happened(
        &self,
        watched: Watched,
        events: &[WatchEvent<Box<RawValue>>],
        arrived: Instant,
    ) -> Taken {
        let mut taken = Taken::default();
        if events.is_empty() {
            return taken;
        }
        let mut changes = 0;
        let before = self.reached_of(watched);
        let mut writer = self.writer();
        for event in events {
            if taken.lower.is_some() {
                break;
            }
            let meta = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    self.applied(watched, object, &mut writer)
                }
                WatchEvent::Deleted(object) => self.deleted(watched, object, &mut writer),
                WatchEvent::Bookmark(bookmark) => {
                    taken.reach(&bookmark.metadata.resource_version, &before);
                    continue;
                }
                WatchEvent::Error(_) => continue,
            };
            let Some(meta) = meta else {
                taken.unreadable = true;
                break;
            };
            changes += 1;
            taken.reach(&meta.resource_version, &before);
        }
        if changes > 0 {
            writer.publish();
        }
        if let Some(reached) = &taken.reached {
            self.reach(watched, reached);
        }
        drop(writer);
        taken.overdue = taken.lower.is_none() && !self.heard(watched);
        self.moved.notify_one();
        self.metrics.changed(watched, changes, arrived.elapsed());
        taken
    }

    fn applied(&self, watched: Watched, object: &RawValue, writer: &mut Writer) -> Option<Meta> {
        let meta = match watched {
            Watched::ApiKeys => match read::<ShownApiKey>(object) {
                Some(Read::Whole(shown)) => {
                    writer.apply(&shown);
                    if shown.metadata.deletion_timestamp.is_some() {
                        // Nobody writes its uses down any more, however long something holds it.
                        self.uses.gone(&shown.metadata.uid);
                    } else {
                        self.uses.seen(
                            &shown.metadata.uid,
                            shown.status.last_used_at.as_ref().map(seconds),
                        );
                    }
                    Some(shown.metadata)
                }
                Some(Read::Broken(meta, reason)) => {
                    // Nobody can say whether it was revoked.
                    writer.remove(Uid::of(&meta.uid));
                    self.uses.gone(&meta.uid);
                    self.undecodable(watched, &meta, &reason);
                    Some(meta)
                }
                None => None,
            },
            Watched::Roles => match read::<ShownRole>(object) {
                Some(Read::Whole(shown)) => {
                    writer.apply_role(&shown);
                    Some(shown.metadata)
                }
                Some(Read::Broken(meta, reason)) => {
                    writer.remove_role(Uid::of(&meta.uid));
                    self.undecodable(watched, &meta, &reason);
                    Some(meta)
                }
                None => None,
            },
        };
        if meta.is_none() {
            self.undecodable(watched, &Meta::default(), "not even its UID can be read");
        }
        meta
    }

    fn deleted(&self, watched: Watched, object: &RawValue, writer: &mut Writer) -> Option<Meta> {
        let Some(metadata) = known(object) else {
            self.undecodable(watched, &Meta::default(), "not even its UID can be read");
            return None;
        };
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

    fn undecodable(&self, watched: Watched, meta: &Meta, reason: &str) {
        self.metrics.undecodable();
        tracing::warn!(
            resource = watched.as_str(),
            name = meta.name,
            namespace = meta.namespace,
            reason,
            "an object cannot be read and counts for nothing"
        );
    }

    fn reached_of(&self, watched: Watched) -> String {
        let reached = self.reached();
        match watched {
            Watched::ApiKeys => reached.apikeys,
            Watched::Roles => reached.roles,
        }
    }

    fn reach(&self, watched: Watched, resource_version: &str) {
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        match watched {
            Watched::ApiKeys => resource_version.clone_into(&mut reached.apikeys),
            Watched::Roles => resource_version.clone_into(&mut reached.roles),
        }
    }

    fn troubled(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trouble {
    fn of(&mut self, watched: Watched) -> &mut Option<String> {
        match watched {
            Watched::ApiKeys => &mut self.apikeys,
            Watched::Roles => &mut self.roles,
        }
    }
}

impl Taken {
    fn reach(&mut self, resource_version: &str, before: &str) {
        let last = self.reached.as_deref().unwrap_or(before);
        if resource_version.is_empty() {
            // A watch from nowhere would pass over what is between.
        } else if resource_version_number(resource_version) < resource_version_number(last) {
            self.lower = Some(resource_version.to_owned());
        } else {
            self.reached = Some(resource_version.to_owned());
        }
    }
}
