//! How soon a gate knows: from the API server's acknowledgement of a change to the first answer that has it, at each of three gates,
//! beside a bare watch of the same objects in the same run.
//!
//! Figures are printed, not asserted: they are of a busy machine, on which the API server, the gates and the one who asks share two
//! cores. What is asserted is that every change reaches every gate.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use claviger::api::{ApiKey, ApiKeyRole, Phase};
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{
    Api, DeleteParams, ListParams, PartialObjectMeta, Patch, PatchParams, PostParams, WatchEvent,
    WatchParams,
};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::stories;
use crate::support::asker::Asker;
use crate::support::cluster::runtime;
use crate::support::gate::Gate;
use crate::support::stage::Stage;
use crate::support::wait::{self, LIMIT};

stories![
    a_revocation_is_known_as_soon_as_a_watch_tells,
    a_deletion_is_known_as_soon_as_a_watch_tells,
    a_role_counts_as_soon_as_a_watch_tells,
    a_new_key_passes_by_the_time_its_secret_is_there,
    an_expiry_needs_no_controller,
];

const ROUNDS: usize = 200;
const SETTINGS: &str = "audience=invoices-api";

/// Three gates, asked over one connection each.
struct Gates {
    askers: Vec<Asker>,
    _gates: Vec<Gate>,
}

impl Gates {
    fn start(stage: &Stage) -> Self {
        let gates: Vec<Gate> = (0..3)
            .map(|_| {
                Gate::builder(&stage.cluster)
                    .args(&["--access-log=off", "--log-level=info"])
                    .start()
            })
            .collect();
        gates.iter().for_each(Gate::wait_ready);
        let addresses: Vec<_> = gates.iter().map(Gate::plain_address).collect();
        let askers = runtime().block_on(async {
            futures::future::try_join_all(addresses.into_iter().map(Asker::connect))
                .await
                .expect("they listen")
        });
        Self {
            askers,
            _gates: gates,
        }
    }

    /// Asks every gate about a key in turn, as fast as they answer, until each has given the code; returns when each did.
    async fn until(&mut self, settings: &str, key: &str, code: &str) -> Vec<Instant> {
        let mut since: Vec<Option<Instant>> = vec![None; self.askers.len()];
        let begun = Instant::now();
        while since.iter().any(Option::is_none) {
            for (asker, known) in self
                .askers
                .iter_mut()
                .zip(&mut since)
                .filter(|(_, known)| known.is_none())
            {
                let told = asker.code(settings, key).await;
                *known = (told == code).then(Instant::now);
                assert!(begun.elapsed() < LIMIT, "{code} never came, but {told}");
            }
        }
        since.into_iter().flatten().collect()
    }
}

/// Sees changes of one collection as the smallest client does.
struct BareWatch(UnboundedReceiver<(Instant, String, String)>);

impl BareWatch {
    async fn start<K>(api: Api<K>) -> Self
    where
        K: Resource + Clone + fmt::Debug + DeserializeOwned + Send + 'static,
    {
        let (sender, receiver) = unbounded_channel();
        let since = api
            .list_metadata(&ListParams::default())
            .await
            .expect("a list")
            .metadata
            .resource_version
            .expect("a version");
        tokio::spawn(async move {
            let mut events = api
                .watch(&WatchParams::default(), &since)
                .await
                .expect("a watch")
                .boxed();
            while let Ok(Some(event)) = events.try_next().await {
                if let WatchEvent::Added(object)
                | WatchEvent::Modified(object)
                | WatchEvent::Deleted(object) = event
                {
                    let seen = (
                        Instant::now(),
                        object.name_any(),
                        object.resource_version().unwrap_or_default(),
                    );
                    if sender.send(seen).is_err() {
                        return;
                    }
                }
            }
        });
        Self(receiver)
    }

    /// When a state of an object was seen.
    async fn seen(&mut self, name: &str, version: &str) -> Instant {
        loop {
            let next = tokio::time::timeout(LIMIT, self.0.recv())
                .await
                .expect("the change is shown")
                .expect("the watch goes on");
            if next.1 == name && next.2 == version {
                return next.0;
            }
        }
    }
}

/// What one change was: when it was sent and acknowledged, and when it was known where.
struct Change {
    sent: Instant,
    acknowledged: Instant,
    gates: Vec<Instant>,
    bare: Instant,
}

/// Makes a change, which returns the resourceVersion that it got, and takes down when it was known where.
async fn measured(
    change: impl Future<Output = String>,
    object: &str,
    (three, bare): (&mut Gates, &mut BareWatch),
    (settings, key, code): (&str, &str, &str),
) -> Change {
    let sent = Instant::now();
    let change = async { (change.await, Instant::now()) };
    let ((version, acknowledged), gates) = tokio::join!(change, three.until(settings, key, code));
    Change {
        sent,
        acknowledged,
        gates,
        bare: bare.seen(object, &version).await,
    }
}

/// A watch often shows a change before its writer has the acknowledgement: the ratio is of the times since it was sent.
fn tell(what: &str, changes: &[Change]) {
    let of_gates = |since: fn(&Change) -> Instant| -> (Duration, Duration) {
        let each = |change: &Change| -> Vec<Duration> {
            change
                .gates
                .iter()
                .map(|known| known.saturating_duration_since(since(change)))
                .collect()
        };
        percentiles(&mut changes.iter().flat_map(each).collect::<Vec<_>>())
    };
    let of_bare = |since: fn(&Change) -> Instant| {
        percentiles(
            &mut changes
                .iter()
                .map(|change| change.bare.saturating_duration_since(since(change)))
                .collect::<Vec<_>>(),
        )
    };
    let (p50, p99) = of_gates(|change| change.acknowledged);
    let (bare50, bare99) = of_bare(|change| change.acknowledged);
    let (since50, since99) = of_gates(|change| change.sent);
    let (bare_since50, bare_since99) = of_bare(|change| change.sent);
    println!(
        "{what}: {} times at 3 gates, after the acknowledgement: p50 {p50:.2?}, p99 {p99:.2?} (a bare watch: {bare50:.2?}, {bare99:.2?}); \
         after the request was sent: {since50:.2?}, {since99:.2?} ({bare_since50:.2?}, {bare_since99:.2?}): ratio {:.2}, {:.2}",
        changes.len(),
        since50.as_secs_f64() / bare_since50.as_secs_f64(),
        since99.as_secs_f64() / bare_since99.as_secs_f64(),
    );
}

fn percentiles(all: &mut [Duration]) -> (Duration, Duration) {
    all.sort_unstable();
    (all[all.len() / 2], all[all.len() * 99 / 100])
}

fn metadata_of<K>(stage: &Stage) -> Api<PartialObjectMeta<K>>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    Api::namespaced(stage.cluster.client(), &stage.namespace)
}

/// The keys of all Secrets, by name.
fn keys(stage: &Stage) -> BTreeMap<String, String> {
    let key = |secret: &Secret| {
        Some(String::from_utf8(secret.data.as_ref()?.get("api-key")?.0.clone()).expect("text"))
    };
    stage
        .secrets()
        .iter()
        .filter_map(|secret| Some((secret.name_any(), key(secret)?)))
        .collect()
}

fn issued(stage: &Stage, spec: &str) -> BTreeMap<String, String> {
    stage.declare_many("key", ROUNDS, spec);
    stage.wait_many(ROUNDS, Phase::Active);
    keys(stage)
}

fn a_revocation_is_known_as_soon_as_a_watch_tells() {
    each_key("revocation", "REVOKED", &async |api, name| {
        let patch = Patch::Merge(json!({ "spec": { "revoked": true } }));
        api.patch(name, &PatchParams::default(), &patch)
            .await
            .expect("it is revoked")
    });
}

fn a_deletion_is_known_as_soon_as_a_watch_tells() {
    each_key("deletion", "NOT_FOUND", &async |api, name| {
        api.delete(name, &DeleteParams::default())
            .await
            .expect("it is deleted")
            .left()
            .expect("it has a finalizer")
    });
}

/// Does the same to every key, one after the other, after which gates give this code.
fn each_key(what: &str, code: &str, change: &impl AsyncFn(&Api<ApiKey>, &str) -> ApiKey) {
    let stage = Stage::new(&format!("lag-{what}"));
    let _operator = stage.operator().start_ready();
    let keys = issued(&stage, r#"{"audiences": ["invoices-api"]}"#);
    let mut three = Gates::start(&stage);
    let api: Api<ApiKey> = Api::namespaced(stage.cluster.client(), &stage.namespace);
    let mut changes = Vec::new();
    runtime().block_on(async {
        let mut bare = BareWatch::start(metadata_of::<ApiKey>(&stage)).await;
        for (name, key) in &keys {
            three.until(SETTINGS, key, "VALID").await;
            let done = async {
                change(&api, name)
                    .await
                    .resource_version()
                    .expect("a version")
            };
            changes
                .push(measured(done, name, (&mut three, &mut bare), (SETTINGS, key, code)).await);
        }
    });
    tell(what, &changes);
}

fn a_role_counts_as_soon_as_a_watch_tells() {
    let stage = Stage::new("lag-role");
    let _operator = stage.operator().start_ready();
    let role = format!("{}-role", stage.namespace);
    stage.role(&role, &["invoices:read"]);
    stage.declare(
        "k",
        &format!("{{audiences: [invoices-api], roles: [{role}]}}"),
    );
    stage.wait_issued("k");
    let key = stage.mounted("k")["api-key"].clone();
    let mut three = Gates::start(&stage);
    let api: Api<ApiKeyRole> = Api::all(stage.cluster.client());
    let settings = format!("{SETTINGS}&permissions=invoices:read");
    let mut changes = Vec::new();
    runtime().block_on(async {
        let mut bare = BareWatch::start(Api::<PartialObjectMeta<ApiKeyRole>>::all(
            stage.cluster.client(),
        ))
        .await;
        three.until(&settings, &key, "VALID").await;
        for round in 0..ROUNDS {
            let (permissions, code) = if round.is_multiple_of(2) {
                (vec!["invoices:list"], "INSUFFICIENT_PERMISSIONS")
            } else {
                (vec!["invoices:read"], "VALID")
            };
            let edit = async {
                let patch = Patch::Merge(json!({ "spec": { "permissions": permissions } }));
                let edited = api
                    .patch(&role, &PatchParams::default(), &patch)
                    .await
                    .expect("it is edited");
                edited.resource_version().expect("a version")
            };
            changes.push(
                measured(
                    edit,
                    &role,
                    (&mut three, &mut bare),
                    (&settings, &key, code),
                )
                .await,
            );
        }
    });
    tell("role edit", &changes);
}

/// From the moment at which a bare watch shows the Secret. The hash was announced before that.
fn a_new_key_passes_by_the_time_its_secret_is_there() {
    let stage = Stage::new("lag-new");
    let _operator = stage.operator().start_ready();
    let mut three = Gates::start(&stage);
    let api: Api<ApiKey> = Api::namespaced(stage.cluster.client(), &stage.namespace);
    let secrets: Api<Secret> = Api::namespaced(stage.cluster.client(), &stage.namespace);
    let mut lags = Vec::new();
    let mut at_once = 0;
    runtime().block_on(async {
        let since = secrets
            .list(&ListParams::default())
            .await
            .expect("a list")
            .metadata
            .resource_version
            .expect("a version");
        let mut shown = secrets
            .watch(&WatchParams::default(), &since)
            .await
            .expect("a watch")
            .boxed();
        for round in 0..ROUNDS {
            let spec =
                serde_json::from_value(json!({ "audiences": ["invoices-api"] })).expect("a spec");
            api.create(
                &PostParams::default(),
                &ApiKey::new(&format!("key-{round}"), spec),
            )
            .await
            .expect("it is declared");
            let key = loop {
                let event = tokio::time::timeout(LIMIT, shown.try_next())
                    .await
                    .expect("a Secret")
                    .expect("a watch");
                if let Some(WatchEvent::Added(secret)) = event {
                    break String::from_utf8(secret.data.expect("data")["api-key"].0.clone())
                        .expect("text");
                }
            };
            let there = Instant::now();
            for asker in &mut three.askers {
                at_once += usize::from(asker.code(SETTINGS, &key).await == "VALID");
            }
            lags.extend(
                three
                    .until(SETTINGS, &key, "VALID")
                    .await
                    .iter()
                    .map(|known| known.duration_since(there)),
            );
        }
    });
    println!(
        "a new key: {at_once} of {} first questions of who read its Secret were answered VALID",
        3 * ROUNDS
    );
    let (p50, p99) = percentiles(&mut lags);
    println!(
        "a new key passes, with two questions to each of 3 gates after its Secret was shown: p50 {p50:.2?}, p99 {p99:.2?}"
    );
}

/// Incidents 61, 71: no controller runs when the keys end.
fn an_expiry_needs_no_controller() {
    let stage = Stage::new("lag-expired");
    let operator = stage.operator().start_ready();
    stage.declare_many(
        "key",
        ROUNDS,
        r#"{"audiences": ["invoices-api"], "expiry": {"after": "45s"}}"#,
    );
    stage.wait("key-0", "is issued", |status| status.issued_at.is_some());
    wait::until("all are issued", || {
        let left = stage
            .apikeys()
            .iter()
            .filter(|apikey| {
                apikey
                    .status
                    .as_ref()
                    .is_none_or(|status| status.issued_at.is_none())
            })
            .count();
        if left == 0 {
            Ok(())
        } else {
            Err(left.to_string())
        }
    });
    operator.kill();
    let keys = keys(&stage);
    let mut by_second: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for apikey in stage.apikeys() {
        let ends = apikey
            .status
            .as_ref()
            .and_then(|status| status.expires_at.clone())
            .expect("an end")
            .0
            .as_second();
        by_second
            .entry(ends)
            .or_default()
            .push(keys[&apikey.name_any()].clone());
    }
    let mut three = Gates::start(&stage);
    let mut lags = Vec::new();
    runtime().block_on(async {
        for (second, keys) in &by_second {
            let end = Timestamp::from_second(*second).expect("a moment");
            // On a machine that was slow to issue them, some have ended before anybody looks.
            let measured = Timestamp::now() < end;
            let mut open: Vec<(usize, &String)> = keys
                .iter()
                .flat_map(|key| (0..3).map(move |gate| (gate, key)))
                .collect();
            while !open.is_empty() {
                let mut still = Vec::new();
                for (gate, key) in open {
                    match three.askers[gate].code(SETTINGS, key).await.as_str() {
                        "EXPIRED" if measured => lags.push(Timestamp::now().duration_since(end)),
                        "EXPIRED" => {}
                        "VALID" => still.push((gate, key)),
                        other => panic!("{other}"),
                    }
                    assert!(
                        Timestamp::now().duration_since(end) < LIMIT.try_into().expect("short"),
                        "it never ended"
                    );
                }
                open = still;
            }
        }
    });
    assert!(
        lags.iter().all(|lag| !lag.is_negative()),
        "none ended early"
    );
    let mut lags: Vec<Duration> = lags.into_iter().map(SignedDuration::unsigned_abs).collect();
    let (p50, p99) = percentiles(&mut lags);
    println!(
        "expiry, with no controller: {} times at 3 gates: p50 {p50:.2?}, p99 {p99:.2?} after the second in which the key ends",
        lags.len() / 3
    );
}
