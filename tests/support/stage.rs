//! A namespace for one story, and what a person does and sees in it.

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use claviger::api::conditions::find;
use claviger::api::names::ANNOTATION_ENDED_AT;
use claviger::api::{ApiKey, ApiKeyStatus, ConditionType, Phase};
use claviger::key::{self, Hash};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::ResourceExt as _;
use kube::api::{Api, ObjectMeta, PostParams};
use serde_json::json;

use super::cluster::{Cluster, runtime};
use super::history::History;
use super::operator::Builder;
use super::proxy::Proxy;
use super::wait;

/// What leader election needs, in a stage's namespace.
const LEASES: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: claviger-leader-election}
rules:
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, create, update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: claviger-leader-election}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: claviger-leader-election}
subjects:
- {kind: ServiceAccount, name: claviger-controller, namespace: claviger-system}
";

static NUMBER: AtomicU32 = AtomicU32::new(1);

/// A namespace of its own.
pub(crate) struct Stage {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) namespace: String,
}

impl Stage {
    /// A new namespace in the shared cluster.
    pub(crate) fn new(name: &str) -> Self {
        Self::on(&Cluster::shared(), name)
    }

    /// A new namespace in some cluster.
    pub(crate) fn on(cluster: &Arc<Cluster>, name: &str) -> Self {
        let namespace = format!("{name}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let metadata = ObjectMeta {
            name: Some(namespace.clone()),
            ..ObjectMeta::default()
        };
        let new = Namespace {
            metadata,
            ..Namespace::default()
        };
        let api: Api<Namespace> = Api::all(cluster.client());
        runtime()
            .block_on(api.create(&PostParams::default(), &new))
            .expect("a namespace");
        Self {
            cluster: cluster.clone(),
            namespace,
        }
    }

    /// A controller for this namespace.
    pub(crate) fn operator(&self) -> Builder<'static> {
        Builder::for_namespace(&self.cluster, &self.namespace)
    }

    /// A controller for this namespace that talks through a proxy.
    pub(crate) fn operator_via<'a>(&self, proxy: &'a Proxy) -> Builder<'a> {
        Builder::for_namespace(&self.cluster, &self.namespace).via(proxy)
    }

    /// Lets controllers elect their leader with a Lease of any name in this namespace.
    pub(crate) fn allow_leases(&self) {
        self.apply(LEASES);
    }

    /// Records every state of this namespace's ApiKeys and Secrets from now on.
    pub(crate) fn history(&self) -> History {
        History::record(&self.cluster, &self.namespace)
    }

    /// Runs kubectl in this namespace; it must succeed.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        self.cluster
            .kubectl(&[&["-n", &self.namespace], arguments].concat())
    }

    /// Runs kubectl in this namespace, whatever comes of it.
    pub(crate) fn try_kubectl(&self, arguments: &[&str]) -> Output {
        self.cluster
            .try_kubectl(&[&["-n", &self.namespace], arguments].concat(), "")
    }

    /// Applies manifests; they must be accepted.
    pub(crate) fn apply(&self, manifests: &str) -> String {
        self.cluster
            .kubectl_with(&["-n", &self.namespace, "apply", "-f", "-"], manifests)
    }

    /// Applies manifests that must be refused, and returns what kubectl says.
    pub(crate) fn refused(&self, manifests: &str) -> String {
        let output = self
            .cluster
            .try_kubectl(&["-n", &self.namespace, "apply", "-f", "-"], manifests);
        assert!(
            !output.status.success(),
            "accepted: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Declares an ApiKey with this spec, as YAML in one line: `declare("k", "{expiry: {after: 90d}}")`.
    pub(crate) fn declare(&self, name: &str, spec: &str) {
        self.apply(&manifest(name, spec));
    }

    /// Makes a role, or makes it allow this. Roles are the cluster's own: one that a story takes away needs a name of its own.
    pub(crate) fn role(&self, name: &str, permissions: &[&str]) {
        let role = json!({
            "apiVersion": "claviger.dev/v1alpha1",
            "kind": "ApiKeyRole",
            "metadata": { "name": name },
            "spec": { "permissions": permissions },
        });
        self.apply(&role.to_string());
    }

    /// Merges something into an object: `patch("apikey/k", "{\"spec\": …}")`.
    pub(crate) fn patch(&self, object: &str, patch: &str) -> String {
        self.kubectl(&["patch", object, "--type=merge", "-p", patch])
    }

    /// The ApiKey, if there is one.
    pub(crate) fn find(&self, name: &str) -> Option<ApiKey> {
        let api: Api<ApiKey> = Api::namespaced(self.cluster.client(), &self.namespace);
        runtime()
            .block_on(api.get_opt(name))
            .expect("the API server answers")
    }

    /// The ApiKey, which is there.
    pub(crate) fn apikey(&self, name: &str) -> ApiKey {
        self.find(name)
            .unwrap_or_else(|| panic!("no ApiKey {name}"))
    }

    /// The status of an ApiKey, which is there.
    pub(crate) fn status(&self, name: &str) -> ApiKeyStatus {
        self.apikey(name).status.unwrap_or_default()
    }

    /// The Secret, if there is one.
    pub(crate) fn secret(&self, name: &str) -> Option<Secret> {
        let api: Api<Secret> = Api::namespaced(self.cluster.client(), &self.namespace);
        runtime()
            .block_on(api.get_opt(name))
            .expect("the API server answers")
    }

    /// The entries of a Secret, which is there, as a mounted volume would show them.
    pub(crate) fn mounted(&self, secret: &str) -> BTreeMap<String, String> {
        let data = self
            .secret(secret)
            .unwrap_or_else(|| panic!("no Secret {secret}"))
            .data
            .unwrap_or_default();
        data.into_iter()
            .map(|(name, value)| (name, String::from_utf8(value.0).expect("text")))
            .collect()
    }

    /// Waits until the status of an ApiKey is as wanted.
    pub(crate) fn wait(
        &self,
        name: &str,
        what: &str,
        mut is: impl FnMut(&ApiKeyStatus) -> bool,
    ) -> ApiKeyStatus {
        wait::until(&format!("ApiKey {name} {what}"), || {
            match self
                .find(name)
                .map(|apikey| apikey.status.unwrap_or_default())
            {
                Some(status) if is(&status) => Ok(status),
                other => Err(serde_json::to_string(&other).unwrap_or_default()),
            }
        })
    }

    /// Waits until an ApiKey is in a phase.
    pub(crate) fn wait_phase(&self, name: &str, phase: Phase) -> ApiKeyStatus {
        self.wait(name, phase.as_str(), |status| status.phase == Some(phase))
    }

    /// Waits until a condition of an ApiKey gives a reason.
    pub(crate) fn wait_reason(
        &self,
        name: &str,
        type_: ConditionType,
        reason: &str,
    ) -> ApiKeyStatus {
        self.wait(name, reason, |status| {
            find(&status.conditions, type_).is_some_and(|condition| condition.reason == reason)
        })
    }

    /// Waits until the Secret of an ApiKey that has ended says so.
    pub(crate) fn wait_marked(&self, name: &str) {
        wait::until_true(&format!("the end of {name} is marked"), || {
            self.secret(name)
                .is_some_and(|secret| secret.annotations().contains_key(ANNOTATION_ENDED_AT))
        });
    }

    /// Waits until nothing is left to do for an ApiKey that has ended: the Secret says so, where there is one. A key that ends
    /// before it was delivered has none.
    pub(crate) fn wait_over(&self, name: &str) {
        let apikey = self.apikey(name);
        let delivered = apikey
            .status
            .is_some_and(|status| status.secret_ref.is_some());
        wait::until(&format!("{name} is over"), || match self.secret(name) {
            Some(secret) if secret.annotations().contains_key(ANNOTATION_ENDED_AT) => Ok(()),
            None if !delivered => Ok(()),
            other => Err(format!(
                "delivered: {delivered}, Secret: {:?}",
                other.map(|secret| secret.metadata)
            )),
        });
    }

    /// Waits until an ApiKey is issued, and checks what every issued key must show.
    pub(crate) fn wait_issued(&self, name: &str) -> ApiKeyStatus {
        let status = self.wait_phase(name, Phase::Active);
        let apikey = self.apikey(name);
        let entries = self.mounted(&apikey.secret_name());
        let text = &entries[apikey.data_key()];
        assert_eq!(key::check(text), Ok(()), "a well-formed key");
        assert_eq!(
            Some(Hash::of(text.as_bytes()).to_string()),
            status.hash,
            "the Secret and the status agree"
        );
        assert_eq!(
            Some(&text[text.len() - 6..]),
            status.tail.as_deref(),
            "the tail is the key's last six characters"
        );
        status
    }

    /// Waits until there is no such ApiKey.
    pub(crate) fn wait_gone(&self, name: &str) {
        wait::until(&format!("ApiKey {name} is gone"), || {
            self.find(name)
                .map_or(Ok(()), |left| Err(format!("{left:?}")))
        });
    }

    /// The reasons of the events about an ApiKey, oldest first.
    pub(crate) fn events(&self, name: &str) -> Vec<String> {
        let selector = format!("--field-selector=regarding.kind=ApiKey,regarding.name={name}");
        let selector = selector.replace("regarding", "involvedObject");
        let out = self.kubectl(&[
            "get",
            "events",
            &selector,
            "--sort-by=.metadata.creationTimestamp",
            "-o",
            "jsonpath={range .items[*]}{.reason}{\"\\n\"}{end}",
        ]);
        out.lines().map(str::to_owned).collect()
    }

    /// Waits until an event with this reason was published about an ApiKey.
    pub(crate) fn wait_event(&self, name: &str, reason: &str) {
        wait::until(&format!("an event {reason} about {name}"), || {
            let events = self.events(name);
            if events.iter().any(|event| event == reason) {
                Ok(())
            } else {
                Err(format!("{events:?}"))
            }
        });
    }
}

/// An ApiKey manifest.
pub(crate) fn manifest(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: claviger.dev/v1alpha1\nkind: ApiKey\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n"
    )
}

/// A condition as `True/Reason`.
pub(crate) fn condition(status: &ApiKeyStatus, type_: ConditionType) -> String {
    find(&status.conditions, type_).map_or_else(
        || "absent".to_owned(),
        |condition| format!("{}/{}", condition.status, condition.reason),
    )
}
