//! Every state that the ApiKeys and Secrets of a namespace went through, and what must hold in all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use claviger::api::names::{FIELD_MANAGER, FINALIZER};
use claviger::api::{ApiKey, ApiKeyStatus, DEFAULT_DATA_KEY, Version, VersionPhase};
use claviger::key::Hash;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, ObjectMeta};
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::task::JoinHandle;

use super::cluster::{Cluster, runtime};
use super::wait;

/// One recorded state.
#[derive(Clone, Debug)]
pub(crate) enum State {
    Apikey(Box<ApiKey>),
    ApikeyGone(Box<ApiKey>),
    Secret(Box<Secret>),
    SecretGone(Box<Secret>),
}

type States = Arc<Mutex<Vec<(u64, State)>>>;

/// A recording. What both kinds went through is in one order, that of their resourceVersions: one etcd counts them all.
pub(crate) struct History {
    states: States,
    cluster: Arc<Cluster>,
    namespace: String,
    tasks: Vec<JoinHandle<()>>,
}

impl History {
    /// Records from now on.
    pub(crate) fn record(cluster: &Arc<Cluster>, namespace: &str) -> Self {
        let states = States::default();
        let client = cluster.client();
        // What cannot be decoded is nobody's ApiKey yet.
        let apikey = |object: DeserializeGuard<ApiKey>, gone| {
            let apikey = Box::new(object.0.ok()?);
            Some(if gone {
                State::ApikeyGone(apikey)
            } else {
                State::Apikey(apikey)
            })
        };
        let secret = |object, gone| {
            Some(if gone {
                State::SecretGone(Box::new(object))
            } else {
                State::Secret(Box::new(object))
            })
        };
        let tasks = vec![
            runtime().spawn(record(
                Api::namespaced(client.clone(), namespace),
                apikey,
                states.clone(),
            )),
            runtime().spawn(record(
                Api::namespaced(client, namespace),
                secret,
                states.clone(),
            )),
        ];
        Self {
            states,
            cluster: cluster.clone(),
            namespace: namespace.to_owned(),
            tasks,
        }
    }

    /// Waits until everything that has happened is recorded, and returns it in order.
    pub(crate) fn states(&self) -> Vec<State> {
        wait::until("everything is recorded", || {
            let now = self.live();
            let recorded = self.recorded();
            if now == recorded {
                Ok(())
            } else {
                Err(format!("live {now:?}, recorded {recorded:?}"))
            }
        });
        let mut states = self.states.lock().expect("no story panicked here").clone();
        states.sort_by_key(|(version, _)| *version);
        states.into_iter().map(|(_, state)| state).collect()
    }

    /// Checks that what must hold at every instant has held at every recorded state.
    pub(crate) fn check(&self) -> usize {
        let states = self.states();
        check(&states);
        states.len()
    }

    /// UID and resourceVersion of everything that is there.
    fn live(&self) -> BTreeSet<(String, String)> {
        let apikeys: Api<DeserializeGuard<ApiKey>> =
            Api::namespaced(self.cluster.client(), &self.namespace);
        let secrets: Api<Secret> = Api::namespaced(self.cluster.client(), &self.namespace);
        runtime().block_on(async {
            let all = ListParams::default();
            let apikeys = match apikeys.list(&all).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
                apikeys => apikeys
                    .expect("a list")
                    .items
                    .into_iter()
                    .filter_map(|object| object.0.ok())
                    .collect(),
            };
            let secrets = secrets.list(&all).await.expect("a list");
            let stamp = |metadata: &ObjectMeta| {
                (
                    metadata.uid.clone().unwrap_or_default(),
                    metadata.resource_version.clone().unwrap_or_default(),
                )
            };
            let apikeys = apikeys
                .iter()
                .map(|object: &ApiKey| stamp(&object.metadata));
            apikeys
                .chain(secrets.items.iter().map(|object| stamp(&object.metadata)))
                .collect()
        })
    }

    fn recorded(&self) -> BTreeSet<(String, String)> {
        let mut last = BTreeMap::new();
        let mut states = self.states.lock().expect("no story panicked here").clone();
        states.sort_by_key(|(version, _)| *version);
        for (version, state) in states {
            match state {
                State::Apikey(object) => {
                    drop(last.insert(object.uid().unwrap_or_default(), version.to_string()));
                }
                State::Secret(object) => {
                    drop(last.insert(object.uid().unwrap_or_default(), version.to_string()));
                }
                State::ApikeyGone(object) => drop(last.remove(&object.uid().unwrap_or_default())),
                State::SecretGone(object) => drop(last.remove(&object.uid().unwrap_or_default())),
            }
        }
        last.into_iter().collect()
    }
}

/// Takes down what a watch shows. It goes on when the definition is changed, or taken away and installed again.
async fn record<K>(api: Api<K>, state: fn(K, bool) -> Option<State>, states: States)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    let (mut known, mut listed) = (BTreeMap::new(), BTreeSet::new());
    let push = |version, object, gone| {
        if let Some(state) = state(object, gone) {
            states
                .lock()
                .expect("no story panicked here")
                .push((version, state));
        }
    };
    let version = |object: &K| {
        object
            .resource_version()
            .and_then(|text| text.parse().ok())
            .expect("a resourceVersion")
    };
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                listed.insert(object.uid());
                known.insert(object.uid(), object.clone());
                push(version(&object), object, false);
            }
            Ok(watcher::Event::Delete(object)) => {
                known.remove(&object.uid());
                push(version(&object), object, true);
            }
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitDone) => {
                // Went unseen, nobody knows when.
                let lost: Vec<_> = known
                    .keys()
                    .filter(|uid| !listed.contains(*uid))
                    .cloned()
                    .collect();
                lost.iter()
                    .filter_map(|uid| known.remove(uid))
                    .for_each(|object| push(u64::MAX, object, true));
            }
            Err(error) if code(&error) == Some(410) => {}
            Err(error) if code(&error) == Some(404) => {
                for object in std::mem::take(&mut known).into_values() {
                    push(u64::MAX, object, true);
                }
            }
            Err(error) => panic!("the recording goes on: {error}"),
        }
    }
}

/// The API server's answer: 404 where the definition is not there, 410 where counting has begun anew with it.
fn code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status.code),
        _ => None,
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Goes through states in their order and checks each.
pub(crate) fn check(states: &[State]) {
    let mut checker = Checker::default();
    for state in states {
        match state {
            State::Apikey(new) => checker.apikey(new),
            State::ApikeyGone(gone) => checker.apikey_gone(gone),
            State::Secret(secret) => checker.secret(secret),
            State::SecretGone(gone) => drop(checker.secrets.remove(&gone.name_any())),
        }
    }
}

/// The hashes of all values that each Secret held in its entry `api-key`, by the Secret's name.
pub(crate) fn values(states: &[State]) -> BTreeMap<String, BTreeSet<String>> {
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for state in states {
        if let State::Secret(secret) = state
            && let Some(key) = secret
                .data
                .as_ref()
                .and_then(|data| data.get(DEFAULT_DATA_KEY))
        {
            values
                .entry(secret.name_any())
                .or_default()
                .insert(Hash::of(&key.0).to_string());
        }
    }
    values
}

/// What there was when a state came to be, and what had happened until then.
#[derive(Default)]
struct Checker {
    apikeys: BTreeMap<String, ApiKey>,
    secrets: BTreeMap<String, Secret>,
    pasts: BTreeMap<String, Past>,
}

/// What had happened to an ApiKey.
#[derive(Default)]
struct Past {
    /// The hashes that were delivered, in their order.
    delivered: Vec<String>,
    /// The hashes of versions that were retired, be they forgotten by now.
    retired: BTreeSet<String>,
}

impl Checker {
    fn apikey(&mut self, new: &ApiKey) {
        let uid = new.uid().expect("a UID");
        check_status(
            self.apikeys.get(&uid),
            new,
            self.pasts.entry(uid.clone()).or_default(),
        );
        self.apikeys.insert(uid, new.clone());
        if let Some(secret) = self.secrets.get(&new.secret_name()) {
            check_held(new, secret);
        }
    }

    fn apikey_gone(&mut self, gone: &ApiKey) {
        let before = self.apikeys.remove(&gone.uid().expect("a UID"));
        let left = self
            .secrets
            .get(&gone.secret_name())
            .filter(|secret| holds_key_of(secret, gone));
        // Somebody may have taken the finalizer off: then the garbage collector comes later.
        let kept =
            before.is_some_and(|before| before.finalizers().iter().any(|name| name == FINALIZER));
        assert!(
            left.is_none() || !kept,
            "the Secret of {} is gone before the ApiKey is",
            gone.name_any()
        );
    }

    fn secret(&mut self, secret: &Secret) {
        let before = self
            .secrets
            .insert(secret.name_any(), secret.clone())
            .filter(|before| before.uid() == secret.uid());
        self.delivery(before.as_ref(), secret);
        for apikey in self
            .apikeys
            .values()
            .filter(|apikey| apikey.secret_name() == secret.name_any())
        {
            check_held(apikey, secret);
        }
    }

    /// Whatever the controller writes into a Secret was announced before, and nothing is delivered that was not asked for. What
    /// people write is theirs.
    fn delivery(&mut self, before: Option<&Secret>, secret: &Secret) {
        let name = secret.name_any();
        if before.is_none()
            && secret
                .managed_fields()
                .iter()
                .any(|fields| fields.manager.as_deref() == Some(FIELD_MANAGER))
        {
            let owned = self
                .apikeys
                .values()
                .any(|apikey| apikey.secret_name() == name);
            assert!(owned, "Secret {name} belongs to an ApiKey that is gone");
        }
        let asking = self.apikeys.iter().filter(|(_, apikey)| {
            apikey.secret_name() == name && is_ours(secret, apikey.data_key())
        });
        let (mut fresh, mut listed) = (false, false);
        for (uid, apikey) in asking {
            let Some(hash) = held(secret, apikey)
                .filter(|hash| before.and_then(|before| held(before, apikey)) != Some(*hash))
            else {
                continue;
            };
            fresh = true;
            let status = apikey.status.clone().unwrap_or_default();
            if let Some(version) = status.version_of(hash) {
                listed = true;
                let delivered = &mut self.pasts.entry(uid.clone()).or_default().delivered;
                if !delivered.contains(&version.hash) {
                    check_asked(&name, delivered.last(), version, &status);
                    delivered.push(version.hash.clone());
                }
            }
        }
        assert!(
            listed || !fresh,
            "Secret {name} holds a key that no ApiKey's status lists"
        );
    }
}

/// A value beyond those that were delivered was asked for, by a revision that nobody had acted on or because its time had come,
/// and what was delivered before it had become the current one: each asking delivers one.
fn check_asked(name: &str, last: Option<&String>, version: &Version, status: &ApiKeyStatus) {
    let Some(last) = last else { return };
    let by_revision = version
        .revision
        .is_some_and(|revision| revision > status.revision.unwrap_or(0));
    let by_time = status
        .rotates_at
        .as_ref()
        .is_some_and(|due| due.0 <= version.announced_at.0);
    assert!(
        by_revision || by_time,
        "Secret {name}: nobody asked for version {}: {status:?}",
        version.version
    );
    let activated = status
        .versions
        .iter()
        .all(|old| old.hash != *last || old.phase != VersionPhase::Announced);
    assert!(
        activated,
        "Secret {name}: another value is delivered in place of one that was: {status:?}"
    );
}

/// What the controller wrote into a Secret that the status names is, at every instant, a key that the status lists and that passes
/// for as long as nothing else takes its place.
fn check_held(apikey: &ApiKey, secret: &Secret) {
    let Some(status) = &apikey.status else { return };
    let is_named =
        status.secret_ref.as_ref().map(|recorded| &recorded.uid) == secret.metadata.uid.as_ref();
    if !is_named || status.is_final() || !is_ours(secret, apikey.data_key()) {
        return;
    }
    let phase = held(secret, apikey)
        .and_then(|hash| status.version_of(hash))
        .map(|version| version.phase);
    let passes = matches!(phase, Some(VersionPhase::Announced | VersionPhase::Current));
    assert!(
        passes,
        "Secret {} holds a key that passes, not one that is {phase:?}: {status:?}",
        secret.name_any()
    );
}

/// Whether the ApiKey's status says that this is its Secret, or lists the key that it holds.
fn holds_key_of(secret: &Secret, apikey: &ApiKey) -> bool {
    let Some(status) = &apikey.status else {
        return false;
    };
    status.secret_ref.as_ref().map(|recorded| &recorded.uid) == secret.metadata.uid.as_ref()
        || held(secret, apikey).is_some_and(|hash| status.version_of(hash).is_some())
}

/// The hash of what stands where the ApiKey's key should stand.
fn held(secret: &Secret, apikey: &ApiKey) -> Option<Hash> {
    secret
        .data
        .as_ref()
        .and_then(|data| data.get(apikey.data_key()))
        .map(|key| Hash::of(&key.0))
}

/// Whether the controller, not a person, wrote what stands in an entry.
fn is_ours(secret: &Secret, entry: &str) -> bool {
    secret
        .managed_fields()
        .iter()
        .filter(|fields| fields.manager.as_deref() == Some(FIELD_MANAGER))
        .filter_map(|fields| fields.fields_v1.as_ref())
        .any(|fields| fields.0["f:data"].get(format!("f:{entry}")).is_some())
}

fn check_status(before: Option<&ApiKey>, after: &ApiKey, past: &mut Past) {
    let name = after.name_any();
    let status = |apikey: &ApiKey| apikey.status.clone().unwrap_or_default();
    let after = status(after);
    let current = |status: &ApiKeyStatus| {
        status
            .versions
            .iter()
            .filter(|version| version.phase == VersionPhase::Current)
            .count()
    };
    assert!(
        current(&after) <= 1,
        "{name}: at most one version is Current"
    );
    for version in &after.versions {
        if version.phase == VersionPhase::Retired {
            past.retired.insert(version.hash.clone());
        }
        let returned =
            version.phase != VersionPhase::Retired && past.retired.contains(&version.hash);
        assert!(
            !returned,
            "{name}: version {} was retired and does not return: {after:?}",
            version.version
        );
        let ends = version.phase != VersionPhase::Retiring || version.retires_at.is_some();
        assert!(ends, "{name}: a version that retires has an end: {after:?}");
    }
    unique(&after, &name);
    let Some(before) = before.map(status) else {
        return;
    };
    assert!(
        before.key_id.is_none() || before.key_id == after.key_id,
        "{name}: the key ID stays"
    );
    // Taken over from a Secret that tells of an earlier end, the key gets that, before it is issued.
    let nearer = before.issued_at.is_none()
        && after.expires_at < before.expires_at
        && after.expires_at.is_some();
    assert!(
        before.expires_at.is_none() || nearer || before.expires_at == after.expires_at,
        "{name}: the end stays"
    );
    if before.is_final() {
        assert_eq!(before.phase, after.phase, "{name}: what has ended stays so");
    }
    assert!(
        current(&before) <= current(&after),
        "{name}: once a version is Current, one is: {after:?}"
    );
    // By the list: what the status says of the current version apart from it may have been corrupted, and is mended.
    let number = |status: &ApiKeyStatus| status.current().map(|current| current.version);
    assert!(
        number(&before) <= number(&after) && before.revision <= after.revision,
        "{name}: numbers only grow: {after:?}"
    );
    let highest = before
        .versions
        .iter()
        .map(|version| version.version)
        .max()
        .unwrap_or(0);
    for new in &after.versions {
        let known = before.versions.iter().any(|old| old.version == new.version);
        assert!(
            known || new.version > highest,
            "{name}: a new version has a higher number: {after:?}"
        );
    }
    for old in &before.versions {
        let new = after
            .versions
            .iter()
            .find(|version| version.version == old.version);
        if matches!(old.phase, VersionPhase::Current | VersionPhase::Retiring) {
            assert!(
                new.is_some_and(|new| new.hash == old.hash),
                "{name}: a delivered version stays, and so does its hash"
            );
        }
        if let Some(new) = new {
            assert_eq!(
                old.hash, new.hash,
                "{name}: no two values are announced for version {}",
                old.version
            );
            let end = |version: &Version| version.retires_at.as_ref().map(|time| time.0);
            assert!(
                end(old).is_none() || end(new) <= end(old),
                "{name}: an end only comes nearer: {after:?}"
            );
        }
    }
}

fn unique(status: &ApiKeyStatus, name: &str) {
    let hashes: BTreeSet<_> = status
        .versions
        .iter()
        .map(|version| &version.hash)
        .collect();
    assert_eq!(
        hashes.len(),
        status.versions.len(),
        "{name}: every version has a key of its own"
    );
}
