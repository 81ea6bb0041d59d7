//! The watches, and the loop that they drive.

use std::collections::{BTreeSet, HashSet};
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, ObjectMeta, PartialObjectMeta};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, PredicateConfig, WatchStreamExt, controller, predicates, watcher};
use kube::{Client, Resource, ResourceExt};
use tokio_util::sync::CancellationToken;

use super::cluster::{self, ClusterObjects};
use super::context::Context;
use super::reconcile::{after_error, reconcile};
use crate::api::names::{LABEL_APIKEY, OWN_PREFIX};
use crate::api::{ApiKey, ApiKeyPolicy, ApiKeyRole};
use crate::telemetry::Metrics;
use crate::telemetry::describe;

/// How often notes of objects that are gone are dropped.
const TIDY: Duration = Duration::from_secs(60);

/// The ends of the stores that the watches write into.
pub(super) struct Writers {
    /// ApiKeys.
    pub(super) apikeys: Writer<DeserializeGuard<ApiKey>>,
    /// Our Secrets, metadata only.
    pub(super) secrets: Writer<PartialObjectMeta<Secret>>,
    /// The cluster's own objects, where they are looked at.
    pub(super) cluster: Option<ClusterWriters>,
}

/// The same for the cluster's own objects.
pub(super) struct ClusterWriters {
    /// Roles, metadata only.
    pub(super) roles: Writer<PartialObjectMeta<ApiKeyRole>>,
    /// Policies.
    pub(super) policies: Writer<DeserializeGuard<ApiKeyPolicy>>,
    /// Namespaces, metadata only.
    pub(super) namespaces: Writer<PartialObjectMeta<Namespace>>,
}

/// Watches and works until `stop` is cancelled and what was begun is done. ApiKeys that come from `released` are looked at again.
pub(super) async fn work(
    context: Arc<Context>,
    writers: Writers,
    namespace: Option<&str>,
    released: impl Stream<Item = ObjectRef<DeserializeGuard<ApiKey>>> + Send + 'static,
    stop: CancellationToken,
) {
    let reporting = context.clone();
    let apikeys = watched(
        api(&context.client, namespace),
        watcher::Config::default(),
        "apikeys",
        &context.metrics,
    )
    .modify(|object: &mut DeserializeGuard<ApiKey>| forget_what_is_not_read(object.meta_mut()))
    .reflect(writers.apikeys)
    .inspect_ok(move |event| reporting.reports.apikeys(event))
    .applied_objects()
    .predicate_filter(predicates::resource_version, PredicateConfig::default());
    let arriving = context.clone();
    let apikeys = apikeys.inspect_ok(move |object| arriving.arrived(object));
    let secrets = watched(
        api(&context.client, namespace),
        watcher::Config::default().labels(LABEL_APIKEY),
        "secrets",
        &context.metrics,
    );
    let secrets = with_losses(secrets, context.secrets.clone())
        .reflect(writers.secrets)
        .touched_objects();
    let tidying = tokio::spawn(tidy(context.clone(), stop.clone()));
    let (going, leaving) = (context.clone(), context.clone());
    let told = {
        let (stop, context) = (stop.clone(), context.clone());
        async move {
            stop.cancelled().await;
            // What is still announced from here on is delivered at once.
            context.reports.leave();
        }
    };
    let mut controller = Controller::for_stream(apikeys, context.apikeys.clone())
        .with_config(controller::Config::default().concurrency(context.limits.concurrency))
        .watches_stream(secrets, |secret| apikeys_of(&secret))
        .reconcile_on(released);
    if let (Some(writers), Some(stores)) = (writers.cluster, context.cluster.clone()) {
        controller = with_cluster_objects(controller, &context, writers, stores);
    }
    controller
        .graceful_shutdown_on(told)
        .run(reconcile, after_error, context)
        .for_each(|done| {
            match done {
                Err(controller::Error::ObjectNotFound(gone)) => {
                    going.gone(&gone.name, gone.namespace.as_deref());
                }
                Err(error @ controller::Error::QueueError(_)) => {
                    tracing::debug!(%error, "a watch reported an error");
                }
                _ => {}
            }
            ready(())
        })
        .await;
    stop.cancel();
    hand_out(&leaving).await;
    if let Err(error) = tidying.await {
        tracing::warn!(%error, "tidying ended badly");
    }
}

/// Delivers the keys that were held back for gates: who comes next does not have them, and would have to wait until nothing of us can
/// arrive any more, and mint others.
async fn hand_out(context: &Arc<Context>) {
    context.reports.leave();
    let unsent = context.memory.unsent_to_hand_out();
    let objects = context
        .apikeys
        .state()
        .into_iter()
        .filter(|object| object.uid().is_some_and(|uid| unsent.contains(&uid)));
    let handing = stream::iter(objects).for_each_concurrent(
        usize::from(context.limits.concurrency),
        |object| async {
            // What fails was told, and is taken up by who comes next.
            let _ = reconcile(object, context.clone()).await;
        },
    );
    handing.await;
}

/// Also looks at the ApiKeys that a change of a role, a policy or a namespace's labels matters for.
fn with_cluster_objects(
    controller: Controller<DeserializeGuard<ApiKey>>,
    context: &Context,
    writers: ClusterWriters,
    stores: ClusterObjects,
) -> Controller<DeserializeGuard<ApiKey>> {
    let (client, metrics) = (context.client.clone(), &context.metrics);
    let roles = watched(
        Api::all(client.clone()),
        watcher::Config::default(),
        "apikeyroles",
        metrics,
    )
    .modify(|role: &mut PartialObjectMeta<ApiKeyRole>| forget_what_is_not_read(role.meta_mut()));
    let roles = with_losses(roles, stores.roles)
        .reflect(writers.roles)
        .touched_objects();
    let policies = watched(
        Api::all(client.clone()),
        watcher::Config::default(),
        "apikeypolicies",
        metrics,
    )
    .modify(|policy: &mut DeserializeGuard<ApiKeyPolicy>| {
        forget_what_is_not_read(policy.meta_mut());
    });
    let policies = with_losses(policies, stores.policies)
        .reflect(writers.policies)
        .touched_objects();
    let namespaces = watched(
        Api::all(client),
        watcher::Config::default(),
        "namespaces",
        metrics,
    )
    .modify(|namespace: &mut PartialObjectMeta<Namespace>| {
        namespace.meta_mut().annotations = None;
    });
    let namespaces = with_losses(namespaces, stores.namespaces)
        .reflect(writers.namespaces)
        .touched_objects();
    let (by_role, by_policy, by_namespace) = (
        context.apikeys.clone(),
        context.apikeys.clone(),
        context.apikeys.clone(),
    );
    controller
        .watches_stream(roles, move |role| cluster::with_role(&by_role, &role))
        .watches_stream(policies, move |_| cluster::living(&by_policy))
        .watches_stream(namespaces, move |namespace| {
            cluster::in_namespace(&by_namespace, &namespace)
        })
}

/// A list made anew shows what is there; what went while events were lost shows by its absence alone. Here it becomes an event
/// like any other.
fn with_losses<K>(
    events: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send,
    known: Store<K>,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let mut listed = HashSet::new();
    events.flat_map(move |event| {
        let mut lost = Vec::new();
        match &event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(object)) => {
                listed.insert(ObjectRef::from_obj(object));
            }
            Ok(watcher::Event::InitDone) => {
                // The store still holds what was there before this list.
                let before = known.state();
                let gone = before
                    .iter()
                    .filter(|object| !listed.contains(&ObjectRef::from_obj(&***object)));
                lost.extend(gone.map(|object| Ok(watcher::Event::Delete(K::clone(object)))));
                listed = HashSet::new();
            }
            _ => {}
        }
        lost.push(event);
        stream::iter(lost)
    })
}

/// A watch that goes on after errors, and keeps no `managedFields`.
fn watched<K>(
    api: Api<K>,
    config: watcher::Config,
    resource: &'static str,
    metrics: &Arc<Metrics>,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + use<K>
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    // They were told and waited for. Further on, the loop would have all watches wait for the one that failed.
    watched_with_errors(api, config, resource, metrics).filter(|event| ready(event.is_ok()))
}

/// The same for who wants to know of errors. They are told and waited for here.
pub(super) fn watched_with_errors<K>(
    api: Api<K>,
    config: watcher::Config,
    resource: &'static str,
    metrics: &Arc<Metrics>,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + use<K>
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let metrics = metrics.clone();
    watcher(api, config)
        .inspect_err(move |error| {
            metrics.watch_restarted(resource);
            let cause = match error {
                watcher::Error::InitialListFailed(source)
                | watcher::Error::WatchStartFailed(source)
                | watcher::Error::WatchFailed(source) => describe(source),
                other => other.to_string(),
            };
            tracing::warn!(
                resource,
                cause,
                "the watch was interrupted and is begun anew"
            );
        })
        .default_backoff()
        .modify(|object| object.meta_mut().managed_fields = None)
}

/// Drops what people and tools hang on an object, such as kubectl's copy of the manifest: it is never read, and a write of the
/// status leaves it as it is. Only our own annotations stay.
fn forget_what_is_not_read(meta: &mut ObjectMeta) {
    meta.labels = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.retain(|name, _| name.starts_with(OWN_PREFIX));
    }
    meta.annotations = meta
        .annotations
        .take()
        .filter(|annotations| !annotations.is_empty());
    meta.owner_references = None;
}

/// The objects of a namespace, or all.
pub(super) fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// The `ApiKeys` that a Secret says it belongs to, by its label and by its owners: one of them may have been changed. Only
/// hints where to look.
fn apikeys_of(secret: &PartialObjectMeta<Secret>) -> Vec<ObjectRef<DeserializeGuard<ApiKey>>> {
    let Some(namespace) = secret.namespace() else {
        return Vec::new();
    };
    let labelled = secret.labels().get(LABEL_APIKEY).map(String::as_str);
    let kind = ApiKey::kind(&());
    let owners = secret
        .owner_references()
        .iter()
        .filter(|owner| owner.kind == kind)
        .map(|owner| owner.name.as_str());
    let names: BTreeSet<&str> = labelled.into_iter().chain(owners).collect();
    names
        .into_iter()
        .map(|name| ObjectRef::new(name).within(&namespace))
        .collect()
}

/// Drops what is remembered of objects that are gone.
async fn tidy(context: Arc<Context>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TIDY) => {}
        }
        let living: HashSet<String> = context
            .apikeys
            .state()
            .iter()
            .filter_map(|object| object.uid())
            .collect();
        context.memory.keep_only(&living);
    }
}
