//! What every reconciliation shares.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PartialObjectMeta};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt};
use tokio::sync::OnceCell;

use super::clock::Clock;
use super::cluster::ClusterObjects;
use super::error::Error;
use super::events::Events;
use super::gates::reports::Reports;
use super::memory::Memory;
use crate::api::{ApiKey, whole_second};
use crate::lifecycle::{Rules, Surroundings};
use crate::telemetry::{Metrics, ServerClock};

/// What every reconciliation shares.
pub(super) struct Context {
    /// Asks the API server. It does not retry by itself.
    pub(super) client: Client,
    /// The watched Secrets of ours: metadata only.
    pub(super) secrets: Store<PartialObjectMeta<Secret>>,
    /// The cluster's own objects, where they are looked at.
    pub(super) cluster: Option<ClusterObjects>,
    /// Set once these watches have shown everything there is.
    pub(super) shown: OnceCell<()>,
    /// When this process began to work.
    pub(super) since: Timestamp,
    /// The watched ApiKeys.
    pub(super) apikeys: Store<DeserializeGuard<ApiKey>>,
    /// Tells people.
    pub(super) events: Events,
    /// Counts.
    pub(super) metrics: Arc<Metrics>,
    /// Remembers.
    pub(super) memory: Memory,
    /// ApiKeys that wait for their turn.
    pub(super) pending: Pending,
    /// What gates say of themselves.
    pub(super) reports: Reports,
    /// Our clock.
    pub(super) clock: Arc<dyn Clock>,
    /// The API server's clock.
    pub(super) server_clock: ServerClock,
    /// What the installation chose.
    pub(super) rules: Arc<Rules>,
    /// How long requests are waited for, and so on.
    pub(super) limits: Limits,
}

/// Times that an installation can set. All monotonic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long an announcement whose outcome is unknown must stand unchanged before a live read decides. Longer than any
    /// request can be under way: the API server's own limit (60 s) and ours.
    pub announce_grace: Duration,
    /// How long the delivery of a rotated key waits for gates to know it. They report once a second at most; who may write a `Gate`,
    /// or stops one, holds nothing up for longer.
    pub gate_wait: Duration,
    /// The longest pause of an object that is not as it should be.
    pub max_backoff: Duration,
    /// How long an answer of the API server is waited for.
    pub request_timeout: Duration,
    /// How many ApiKeys are worked on at once.
    pub concurrency: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            announce_grace: Duration::from_secs(100),
            gate_wait: Duration::from_secs(3),
            max_backoff: Duration::from_secs(300),
            request_timeout: Duration::from_secs(30),
            concurrency: 16,
        }
    }
}

/// ApiKeys that a watch has shown and nobody has looked at yet.
#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<HashSet<ObjectRef<DeserializeGuard<ApiKey>>>>);

impl Pending {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<ObjectRef<DeserializeGuard<ApiKey>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Context {
    /// Waits until the watches have shown everything there is besides ApiKeys. A store wakes only one of those who wait for it; here
    /// one waits and wakes the others.
    pub(super) async fn shown(&self) -> Result<(), Error> {
        let shown = self.shown.get_or_try_init(|| async {
            if let Some(cluster) = &self.cluster {
                cluster.shown().await?;
            }
            self.secrets.wait_until_ready().await
        });
        shown.await.copied().map_err(|_| Error::WatchesEnded)
    }

    /// What there is in the cluster around an `ApiKey`.
    pub(super) fn surroundings_of(&self, apikey: &ApiKey) -> Surroundings {
        self.cluster
            .as_ref()
            .map(|cluster| cluster.around(apikey))
            .unwrap_or_default()
    }

    /// A watch has shown an object.
    pub(super) fn arrived(&self, object: &DeserializeGuard<ApiKey>) {
        self.pending.lock().insert(ObjectRef::from_obj(object));
    }

    /// Work on an object begins.
    pub(super) fn started(&self, object: &DeserializeGuard<ApiKey>) {
        self.pending.lock().remove(&ObjectRef::from_obj(object));
    }

    /// The turn of an object has come, and it is gone.
    pub(super) fn gone(&self, name: &str, namespace: Option<&str>) {
        let mut object = ObjectRef::new(name);
        object.namespace = namespace.map(ToOwned::to_owned);
        self.pending.lock().remove(&object);
    }

    /// The ApiKeys of a namespace.
    pub(super) fn apikeys_in(&self, namespace: &str) -> Api<ApiKey> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The Secrets of a namespace.
    pub(super) fn secrets_in(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The current moment, cut to whole seconds: one value for what is written and what is compared.
    pub(super) fn now(&self) -> Timestamp {
        whole_second(self.clock.now())
    }

    /// Waits for an answer, but not for ever.
    pub(super) async fn ask<T>(
        &self,
        call: &'static str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        let limit = self.limits.request_timeout;
        match tokio::time::timeout(limit, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(Error::Api {
                call,
                source: Box::new(source),
            }),
            Err(_) => Err(Error::NoAnswer { call, limit }),
        }
    }

    /// Reads an `ApiKey` past the watch.
    pub(super) async fn read_apikey(&self, apikey: &ApiKey) -> Result<ApiKey, Error> {
        let api = self.apikeys_in(&apikey.namespace().unwrap_or_default());
        let mut live = self.ask("get apikeys", api.get(&apikey.name_any())).await?;
        if live.uid() != apikey.uid() {
            return Err(Error::Overtaken("the ApiKey was deleted and created again"));
        }
        live.metadata.managed_fields = None;
        Ok(live)
    }
}
