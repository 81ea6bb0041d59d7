//! Writes this gate's own `Gate` object.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pace::{Next, Pace};
use super::uses::Uses;
use crate::api::{Gate, GateSpec, GateState, KeyUse, whole_second};

/// Who wrote, in `managedFields`.
pub const FIELD_MANAGER: &str = "claviger-gate";
/// How long an answer is waited for.
const LIMIT: Duration = Duration::from_secs(5);
/// How long the last write and the deletion may take together.
const FAREWELL: Duration = Duration::from_secs(3);

/// Which object is this gate's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name: the pod's.
    pub name: String,
    /// Its namespace: the pod's.
    pub namespace: String,
    /// The UID of the pod, where it is known: the object is collected with the pod.
    pub pod_uid: Option<String>,
}

/// How the gate stands. Asked for once a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateFacts {
    /// What it makes of itself.
    pub state: GateState,
    /// How many keys it knows.
    pub keys: u64,
    /// The resourceVersion of ApiKeys that its index has reached, by list, event or bookmark.
    pub reached: Option<String>,
    /// The same of ApiKeyRoles.
    pub roles_reached: Option<String>,
}

/// Writes this gate's own `Gate` object until it is told to stop.
pub struct Reporter {
    client: Client,
    identity: Identity,
    scope: Option<String>,
    uses: Arc<Uses>,
    facts: Box<dyn Fn() -> GateFacts + Send + Sync>,
    changed: Arc<Notify>,
}

/// What makes a difference: the facts, and the uses that are told.
type Facts = (GateFacts, Vec<KeyUse>);

impl Identity {
    /// From `POD_NAME`, `POD_NAMESPACE` and `POD_UID`; `None` where one of the first two is missing: then nothing is reported.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        Self::from(|name| std::env::var(name).ok())
    }

    fn from(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        Some(Self {
            name: set("POD_NAME")?,
            namespace: set("POD_NAMESPACE")?,
            pod_uid: set("POD_UID"),
        })
    }
}

impl Reporter {
    /// `scope` is the namespace whose ApiKeys the gate knows, `None` for the whole cluster. `facts` is asked once a second, and when
    /// `changed` says so, and must not block.
    pub fn new(
        client: Client,
        identity: Identity,
        scope: Option<String>,
        uses: Arc<Uses>,
        facts: impl Fn() -> GateFacts + Send + Sync + 'static,
        changed: Arc<Notify>,
    ) -> Self {
        Self {
            client,
            identity,
            scope,
            uses,
            facts: Box::new(facts),
            changed,
        }
    }

    /// Writes until `stop` is cancelled, then takes the object away. Failures are logged and tried again; they harm nobody. `begun` is
    /// cancelled once the first write was tried.
    pub async fn run(self, stop: CancellationToken, begun: CancellationToken) {
        // However this ends, nobody waits for it.
        let mut begun = Some(begun.drop_guard());
        let mut writing = Writing {
            pace: Pace::default(),
            uses: Vec::new(),
            uid: None,
            told: HashSet::new(),
        };
        loop {
            let now = Instant::now();
            if writing.pace.beats(now) || self.uses.is_spent(&writing.uses) {
                writing.uses = self.uses.oldest();
            }
            let facts = ((self.facts)(), writing.uses.clone());
            match writing.pace.next(now, &facts) {
                Next::Write => {
                    let written = tokio::select! {
                        () = stop.cancelled() => break,
                        written = self.write(&facts) => written,
                    };
                    self.note(written, now, facts, &mut writing);
                    begun.take();
                }
                Next::Wait(pause) => tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(pause) => {}
                },
                Next::Rest(pause) => tokio::select! {
                    () = stop.cancelled() => break,
                    () = self.changed.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                },
            }
        }
        if tokio::time::timeout(FAREWELL, self.leave(&writing))
            .await
            .is_err()
        {
            tracing::debug!(
                gate = self.identity.name,
                "the Gate object could not be taken away in time"
            );
        }
    }

    fn note(
        &self,
        written: Result<Option<String>, Failure>,
        now: Instant,
        facts: Facts,
        writing: &mut Writing,
    ) {
        match written {
            Ok(uid) => {
                if writing.pace.failures() > 0 {
                    tracing::info!(
                        gate = self.identity.name,
                        "the Gate object is written again"
                    );
                }
                writing.told.clear();
                writing.uid = uid;
                writing.pace.written(now, facts);
            }
            Err(failure) => {
                // Once for each kind, until it goes well again: a gate without the right would fill the log.
                if writing.told.insert(failure.kind) {
                    tracing::warn!(
                        gate = self.identity.name,
                        namespace = self.identity.namespace,
                        kind = failure.kind,
                        cause = failure.cause,
                        "the Gate object cannot be written: last uses are not told; verdicts do not depend on it"
                    );
                } else {
                    tracing::debug!(
                        kind = failure.kind,
                        cause = failure.cause,
                        "the Gate object cannot be written"
                    );
                }
                writing.pace.failed(Instant::now(), rand::random());
            }
        }
    }

    /// Writes everything, and returns the UID of the object.
    async fn write(&self, facts: &Facts) -> Result<Option<String>, Failure> {
        let gate = self.object(facts, Timestamp::now());
        // Nobody else has a say in it: what another has written there is taken over.
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match tokio::time::timeout(
            LIMIT,
            self.api()
                .patch(&self.identity.name, &params, &Patch::Apply(&gate)),
        )
        .await
        {
            Ok(Ok(written)) => Ok(written.uid()),
            Ok(Err(error)) => Err(Failure::of(&error)),
            Err(_) => Err(Failure {
                kind: "no answer",
                cause: format!("no answer within {} s", LIMIT.as_secs()),
            }),
        }
    }

    fn object(&self, (facts, uses): &Facts, now: Timestamp) -> Gate {
        let owner = self.identity.pod_uid.as_ref().map(|uid| OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: self.identity.name.clone(),
            uid: uid.clone(),
            controller: None,
            // It holds nothing up.
            block_owner_deletion: None,
        });
        Gate {
            metadata: ObjectMeta {
                name: Some(self.identity.name.clone()),
                namespace: Some(self.identity.namespace.clone()),
                owner_references: owner.map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            spec: GateSpec {
                heartbeat_time: Some(Time(whole_second(now))),
                version: Some(env!("CARGO_PKG_VERSION").to_owned()),
                state: Some(facts.state),
                namespace: self.scope.clone(),
                keys: Some(i64::try_from(facts.keys).unwrap_or(i64::MAX)),
                reached_resource_version: facts.reached.clone(),
                roles_resource_version: facts.roles_reached.clone(),
                uses: uses.clone(),
            },
        }
    }

    /// Tells what was not told yet, and takes the object away: who watches sees what it said last.
    async fn leave(&self, writing: &Writing) {
        let facts = ((self.facts)(), self.uses.oldest());
        let mut uid = writing.uid.clone();
        if self.uses.pending() > 0
            && !writing.pace.is_told(&facts)
            && let Ok(written) = self.write(&facts).await
        {
            uid = written;
        }
        // A pod of the same name may have come since, with an object of its own.
        let params = DeleteParams {
            preconditions: uid.map(|uid| Preconditions {
                uid: Some(uid),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        if params.preconditions.is_none() {
            return;
        }
        if let Err(error) = self.api().delete(&self.identity.name, &params).await {
            tracing::debug!(
                gate = self.identity.name,
                cause = Failure::of(&error).cause,
                "the Gate object is left behind"
            );
        }
    }

    fn api(&self) -> Api<Gate> {
        Api::namespaced(self.client.clone(), &self.identity.namespace)
    }
}

/// How writing goes.
struct Writing {
    pace: Pace<Facts>,
    /// The uses that are told, until half of them were written or the heartbeat is due.
    uses: Vec<KeyUse>,
    /// The UID of the object that was written last.
    uid: Option<String>,
    /// The kinds of failure that were logged since it last went well.
    told: HashSet<&'static str>,
}

/// A write that failed.
struct Failure {
    kind: &'static str,
    cause: String,
}

impl Failure {
    fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.is_forbidden() => {
                let cause = format!(
                    "{} (grant the gate create, patch and delete on gates.claviger.dev with RBAC)",
                    status.message
                );
                Self {
                    kind: "forbidden",
                    cause,
                }
            }
            kube::Error::Api(status) => {
                let kind = if (400..500).contains(&status.code) && status.code != 429 {
                    "refused"
                } else {
                    "unavailable"
                };
                Self {
                    kind,
                    cause: format!("{} ({})", status.message, status.code),
                }
            }
            kube::Error::SerdeError(_) => Self {
                kind: "unreadable",
                cause: "the answer cannot be read".to_owned(),
            },
            other => Self {
                kind: "connection",
                cause: other.to_string(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::report::{Noted, Subject};

    #[test]
    fn without_a_pod_name_nothing_is_reported() {
        let from = |set: &[(&str, &str)]| {
            let set: Vec<_> = set
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            Identity::from(|name| {
                set.iter()
                    .find(|(one, _)| one == name)
                    .map(|(_, value)| value.clone())
            })
        };
        assert_eq!(from(&[]), None);
        assert_eq!(from(&[("POD_NAMESPACE", "ns"), ("POD_UID", "u")]), None);
        assert_eq!(from(&[("POD_NAME", "gate-a"), ("POD_NAMESPACE", "")]), None);
        let whole = from(&[
            ("POD_NAME", "gate-a"),
            ("POD_NAMESPACE", "ns"),
            ("POD_UID", "u"),
        ])
        .unwrap();
        assert_eq!(
            (
                whole.name.as_str(),
                whole.namespace.as_str(),
                whole.pod_uid.as_deref()
            ),
            ("gate-a", "ns", Some("u"))
        );
        assert_eq!(
            from(&[("POD_NAME", "gate-a"), ("POD_NAMESPACE", "ns")])
                .unwrap()
                .pod_uid,
            None
        );
    }

    #[tokio::test]
    async fn the_object_says_everything_and_goes_with_its_pod() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client =
            Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let uses = Arc::new(Uses::default());
        uses.record(&Noted::new(None), 1_795_262_400, || Subject {
            namespace: "team".to_owned(),
            name: "k".to_owned(),
            uid: "u".to_owned(),
        });
        let identity = Identity {
            name: "gate-a".to_owned(),
            namespace: "ns".to_owned(),
            pod_uid: Some("pod".to_owned()),
        };
        let facts = || GateFacts {
            state: GateState::Current,
            keys: 3,
            reached: Some("7".to_owned()),
            roles_reached: Some("5".to_owned()),
        };
        let reporter = Reporter::new(
            client,
            identity,
            Some("team".to_owned()),
            uses,
            facts,
            Arc::default(),
        );
        let told = reporter.uses.oldest();
        let object = reporter.object(&(facts(), told), "2026-11-21T12:00:00.5Z".parse().unwrap());
        assert_eq!(
            serde_json::to_value(object).unwrap(),
            serde_json::json!({
                "apiVersion": "claviger.dev/v1alpha1",
                "kind": "Gate",
                "metadata": { "name": "gate-a", "namespace": "ns", "ownerReferences": [
                    { "apiVersion": "v1", "kind": "Pod", "name": "gate-a", "uid": "pod" },
                ] },
                "spec": {
                    "heartbeatTime": "2026-11-21T12:00:00Z", "version": env!("CARGO_PKG_VERSION"), "state": "Current",
                    "namespace": "team", "keys": 3, "reachedResourceVersion": "7", "rolesResourceVersion": "5",
                    "uses": [{ "namespace": "team", "name": "k", "uid": "u", "usedAt": "2026-11-21T12:00:00Z" }],
                },
            })
        );
    }
}
