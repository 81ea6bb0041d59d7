//! Applies what the watches read: the one place where the index is changed, published, and known to
//! be current.

use std::collections::HashSet;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::freshness::{Freshness, Watched};
use super::index::Writer;
use super::metrics::Metrics;
use super::report::Uses;
use super::shown::{ShownApiKey, ShownRole, seconds};
use crate::api::{ApiKey, ApiKeyRole};
use crate::watch::{Change, Collection, Handler, Metadata, Object, Uid};

/// Applies changes to the index.
pub struct IndexUpdater {
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

impl IndexUpdater {
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

    fn decode_error(&self, watched: Watched, metadata: &Metadata, reason: &str) {
        self.metrics.undecodable();
        tracing::warn!(
            resource = watched.as_str(),
            name = metadata.name,
            namespace = metadata.namespace,
            reason,
            "an object cannot be decoded and counts for nothing"
        );
    }

    /// Applies changes, and publishes the index once for all of them.
    fn apply<T: Indexed>(&self, changes: Vec<Change<T>>) {
        if changes.is_empty() {
            return;
        }
        let mut writer = self.writer();
        for change in changes {
            T::apply(self, change, &mut writer);
        }
        writer.publish();
    }

    fn list_ended(&self, watched: Watched, resource_version: &str) {
        self.reach(watched, resource_version);
        self.freshness.listed(watched);
        *self.troubled().of(watched) = None;
        self.moved.notify_one();
    }

    fn events_applied(
        &self,
        watched: Watched,
        count: usize,
        reached: Option<&str>,
        arrived: Instant,
    ) {
        if let Some(reached) = reached {
            self.reach(watched, reached);
        }
        self.moved.notify_one();
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.metrics.changed(watched, count, arrived.elapsed());
    }

    /// The API server has given a sign; `false` where it came too late.
    fn alive(&self, watched: Watched) -> bool {
        let in_time = self.freshness.heard(watched);
        if in_time {
            *self.troubled().of(watched) = None;
        }
        in_time
    }

    fn interrupted(&self, watched: Watched, why: &str) {
        self.metrics.watch_restarted(watched);
        *self.troubled().of(watched) = Some(format!("{}: {why}", watched.as_str()));
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

/// A kind of object that the index is made from.
pub trait Indexed: Object + Send {
    /// Its watch.
    const WATCHED: Watched;

    /// Applies a change.
    fn apply(updater: &IndexUpdater, change: Change<Self>, writer: &mut Writer);

    /// Removes what a complete list does not show.
    fn keep_only(updater: &IndexUpdater, listed: &HashSet<Uid>, writer: &mut Writer);
}

impl Indexed for ShownApiKey {
    const WATCHED: Watched = Watched::ApiKeys;

    fn apply(updater: &IndexUpdater, change: Change<Self>, writer: &mut Writer) {
        match change {
            Change::Applied(apikey) => {
                writer.apply(&apikey);
                let uid = &apikey.metadata.uid;
                if apikey.metadata.deletion_timestamp.is_some() {
                    // The controller writes its uses down no more, however long a finalizer keeps it.
                    updater.uses.gone(uid);
                } else {
                    let used = apikey.status.last_used_at.as_ref().map(seconds);
                    updater.uses.seen(uid, used);
                }
            }
            Change::Broken { metadata, reason } => {
                // Whether it was revoked cannot be told.
                writer.remove(Uid::of(&metadata.uid));
                updater.uses.gone(&metadata.uid);
                updater.decode_error(Self::WATCHED, &metadata, &reason);
            }
            Change::Deleted(metadata) => {
                writer.remove(Uid::of(&metadata.uid));
                updater.uses.gone(&metadata.uid);
            }
        }
    }

    fn keep_only(updater: &IndexUpdater, listed: &HashSet<Uid>, writer: &mut Writer) {
        for gone in writer.keep_only(listed) {
            updater.uses.gone(&gone.to_string());
        }
    }
}

impl Indexed for ShownRole {
    const WATCHED: Watched = Watched::Roles;

    fn apply(updater: &IndexUpdater, change: Change<Self>, writer: &mut Writer) {
        match change {
            Change::Applied(role) => writer.apply_role(&role),
            Change::Broken { metadata, reason } => {
                writer.remove_role(Uid::of(&metadata.uid));
                updater.decode_error(Self::WATCHED, &metadata, &reason);
            }
            Change::Deleted(metadata) => writer.remove_role(Uid::of(&metadata.uid)),
        }
    }

    fn keep_only(_: &IndexUpdater, listed: &HashSet<Uid>, writer: &mut Writer) {
        writer.keep_only_roles(listed);
    }
}

/// Applies the changes of one kind of object.
pub struct IndexHandler<T> {
    updater: Arc<IndexUpdater>,
    kind: PhantomData<fn() -> T>,
}

impl<T> IndexHandler<T> {
    /// Applies changes by `updater`.
    #[must_use]
    pub fn new(updater: Arc<IndexUpdater>) -> Arc<Self> {
        let kind = PhantomData;
        Arc::new(Self { updater, kind })
    }
}

impl<T: Indexed> Handler for IndexHandler<T> {
    type Object = T;

    fn page(&self, changes: Vec<Change<T>>) {
        self.updater.apply(changes);
    }

    fn list_ends(&self, listed: &HashSet<Uid>, resource_version: &str) {
        let mut writer = self.updater.writer();
        T::keep_only(&self.updater, listed, &mut writer);
        writer.publish();
        drop(writer);
        self.updater.list_ended(T::WATCHED, resource_version);
    }

    fn events(&self, changes: Vec<Change<T>>, reached: Option<&str>, arrived: Instant) {
        let count = changes.len();
        self.updater.apply(changes);
        self.updater
            .events_applied(T::WATCHED, count, reached, arrived);
    }

    fn alive(&self) -> bool {
        self.updater.alive(T::WATCHED)
    }

    fn interrupted(&self, why: &str) {
        self.updater.interrupted(T::WATCHED, why);
    }

    fn needs_list(&self) -> bool {
        self.updater.freshness.is_overdue(T::WATCHED)
    }

    fn time_left(&self) -> Option<Duration> {
        self.updater.freshness.left(T::WATCHED)
    }
}

/// ApiKeys in a namespace, or everywhere.
#[must_use]
pub fn apikeys(namespace: Option<&str>) -> Collection {
    Collection::new::<ApiKey>("apikeys", namespace)
        .without_right(", or the name of the one namespace that the gate may watch (--namespace)")
}

/// ApiKeyRoles.
#[must_use]
pub fn roles() -> Collection {
    Collection::new::<ApiKeyRole>("apikeyroles", None)
        .without_right(", or --cluster-objects=false where no roles are used")
}

#[cfg(test)]
mod tests;
