//! Every state that the ApiKeys and Secrets of a namespace went through, and what must hold in all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use claviger::api::{ApiKey, ApiKeyStatus, VersionPhase};
use claviger::key::Hash;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use kube::runtime::watcher;
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
        let tasks = vec![
            runtime().spawn(record(Api::namespaced(client.clone(), namespace), State::Apikey, State::ApikeyGone, states.clone())),
            runtime().spawn(record(Api::namespaced(client, namespace), State::Secret, State::SecretGone, states.clone())),
        ];
        Self { states, cluster: cluster.clone(), namespace: namespace.to_owned(), tasks }
    }

    /// Waits until everything that has happened is recorded, and returns it in order.
    pub(crate) fn states(&self) -> Vec<State> {
        wait::until("everything is recorded", || {
            let now = self.live();
            let recorded = self.recorded();
            if now == recorded { Ok(()) } else { Err(format!("live {now:?}, recorded {recorded:?}")) }
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

    /// Kind/name and resourceVersion of everything that is there.
    fn live(&self) -> BTreeSet<(String, String)> {
        let apikeys: Api<ApiKey> = Api::namespaced(self.cluster.client(), &self.namespace);
        let secrets: Api<Secret> = Api::namespaced(self.cluster.client(), &self.namespace);
        runtime().block_on(async {
            let all = ListParams::default();
            let (apikeys, secrets) = (apikeys.list(&all).await.expect("a list"), secrets.list(&all).await.expect("a list"));
            let named =
                |kind: &str, name: String, version: Option<String>| (format!("{kind}/{name}"), version.unwrap_or_default());
            apikeys
                .items
                .iter()
                .map(|o| named("apikey", o.name_any(), o.resource_version()))
                .chain(secrets.items.iter().map(|o| named("secret", o.name_any(), o.resource_version())))
                .collect()
        })
    }

    fn recorded(&self) -> BTreeSet<(String, String)> {
        let mut last = BTreeMap::new();
        let mut states = self.states.lock().expect("no story panicked here").clone();
        states.sort_by_key(|(version, _)| *version);
        for (version, state) in states {
            match state {
                State::Apikey(o) => drop(last.insert(format!("apikey/{}", o.name_any()), version.to_string())),
                State::Secret(o) => drop(last.insert(format!("secret/{}", o.name_any()), version.to_string())),
                State::ApikeyGone(o) => drop(last.remove(&format!("apikey/{}", o.name_any()))),
                State::SecretGone(o) => drop(last.remove(&format!("secret/{}", o.name_any()))),
            }
        }
        last.into_iter().collect()
    }
}

/// Takes down what a watch shows.
async fn record<K>(api: Api<K>, there: fn(Box<K>) -> State, gone: fn(Box<K>) -> State, states: States)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
    while let Some(event) = events.try_next().await.expect("the recording goes on") {
        let (object, state) = match event {
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => (object, there),
            watcher::Event::Delete(object) => (object, gone),
            watcher::Event::Init | watcher::Event::InitDone => continue,
        };
        let version = object.resource_version().and_then(|text| text.parse().ok()).expect("a resourceVersion");
        states.lock().expect("no story panicked here").push((version, state(Box::new(object))));
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Goes through states in their order and checks each.
pub(crate) fn check(states: &[State]) {
    let mut apikeys: BTreeMap<String, ApiKey> = BTreeMap::new();
    let mut secrets: BTreeMap<String, Secret> = BTreeMap::new();
    let mut delivered: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for state in states {
        match state {
            State::Apikey(new) => {
                let uid = new.uid().expect("a UID");
                check_status(apikeys.get(&uid), new);
                apikeys.insert(uid, ApiKey::clone(new));
            }
            State::ApikeyGone(gone) => {
                apikeys.remove(&gone.uid().expect("a UID"));
                let left = secrets.get(&gone.secret_name()).filter(|secret| owner(secret) == gone.uid());
                assert!(left.is_none(), "the Secret of {} is gone before the ApiKey is", gone.name_any());
            }
            State::Secret(secret) => {
                if let Some(uid) = owner(secret) {
                    check_delivery(apikeys.get(&uid), secret, delivered.entry(uid.clone()).or_default());
                }
                secrets.insert(secret.name_any(), Secret::clone(secret));
            }
            State::SecretGone(gone) => drop(secrets.remove(&gone.name_any())),
        }
    }
}

/// The UID of the ApiKey that a Secret was made for.
fn owner(secret: &Secret) -> Option<String> {
    secret.owner_references().iter().find(|owner| owner.kind == "ApiKey").map(|owner| owner.uid.clone())
}

fn check_status(before: Option<&ApiKey>, after: &ApiKey) {
    let name = after.name_any();
    let status = |apikey: &ApiKey| apikey.status.clone().unwrap_or_default();
    let after = status(after);
    let current = after.versions.iter().filter(|version| version.phase == VersionPhase::Current).count();
    assert!(current <= 1, "{name}: at most one version is Current");
    let Some(before) = before.map(status) else { return };
    assert!(before.key_id.is_none() || before.key_id == after.key_id, "{name}: the key ID stays");
    assert!(before.expires_at.is_none() || before.expires_at == after.expires_at, "{name}: the end stays");
    if before.is_final() {
        assert_eq!(before.phase, after.phase, "{name}: what has ended stays so");
    }
    for old in &before.versions {
        let new = after.versions.iter().find(|version| version.version == old.version);
        if old.phase == VersionPhase::Current {
            assert!(new.is_some_and(|new| new.hash == old.hash), "{name}: a delivered version stays, and so does its hash");
        }
        if let Some(new) = new {
            assert_eq!(old.hash, new.hash, "{name}: no two values are announced for version {}", old.version);
        }
    }
    unique(&after, &name);
}

fn unique(status: &ApiKeyStatus, name: &str) {
    let hashes: BTreeSet<_> = status.versions.iter().map(|version| &version.hash).collect();
    assert_eq!(hashes.len(), status.versions.len(), "{name}: every version has a key of its own");
}

/// Whatever a Secret of ours holds was announced before, and is the only value ever delivered.
fn check_delivery(apikey: Option<&ApiKey>, secret: &Secret, delivered: &mut BTreeSet<String>) {
    let name = secret.name_any();
    let Some(apikey) = apikey else { panic!("Secret {name} belongs to an ApiKey that is gone") };
    let Some(key) = secret.data.as_ref().and_then(|data| data.get(apikey.data_key())) else { return };
    let hash = Hash::of(&key.0);
    let listed = apikey.status.as_ref().is_some_and(|status| status.version_of(hash).is_some());
    assert!(listed, "Secret {name} holds a key that its ApiKey's status does not list");
    delivered.insert(hash.to_string());
    assert_eq!(delivered.len(), 1, "Secret {name}: nothing else is ever delivered in place of a delivered key");
}
