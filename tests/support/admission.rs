//! The admission policies that the chart installs.

use std::sync::{Arc, OnceLock};

use serde_json::json;

use super::cluster::Cluster;
use super::stage::{Stage, manifest};
use super::wait;

/// A policy of the chart, and what shows that it is in force.
const SIGNS: [(&str, &str); 3] = [
    ("validatingadmissionpolicy/claviger-expiry", "which is past"),
    (
        "mutatingadmissionpolicy/claviger-finalizer",
        "- claviger.dev/finalizer",
    ),
    (
        "mutatingadmissionpolicy/claviger-revoked-by",
        "revokedBy: admin",
    ),
];

static WITHOUT_ADMISSION: OnceLock<Arc<Cluster>> = OnceLock::new();

impl Cluster {
    /// A cluster for one story, in which the controller puts the finalizer on ApiKeys: as before Kubernetes 1.36.
    pub(crate) fn own_without_finalizer_policy() -> Arc<Self> {
        let cluster = Self::own();
        cluster.install(&["--set=admission.finalizer=false"]);
        cluster.await_policies();
        cluster
    }

    /// The cluster without any of the admission policies that some stories share: those about the schema's rules, which are to speak
    /// for themselves, and those in which something is put back that would be refused.
    pub(crate) fn shared_without_admission() -> Arc<Self> {
        let start = || {
            let cluster = Self::own();
            cluster.install(&["--set=admission.enabled=false"]);
            cluster.await_policies();
            cluster
        };
        WITHOUT_ADMISSION.get_or_init(start).clone()
    }

    /// The clusters that stories share, as far as any story has used them.
    pub(crate) fn all_shared() -> Vec<Arc<Self>> {
        Self::shared_if_started()
            .into_iter()
            .chain(WITHOUT_ADMISSION.get().cloned())
            .collect()
    }

    /// Waits until the API server enforces the admission policies that are installed, and no others: it takes up what is new
    /// about once a second.
    pub(crate) fn await_policies(&self) {
        let installed =
            SIGNS.map(|(policy, _)| self.try_kubectl(&["get", policy], "").status.success());
        wait::until("the admission policies are in force", || {
            let probe = |spec: &str| {
                let dry_run = ["create", "--dry-run=server", "-o", "yaml", "-f", "-"];
                let output = self.try_kubectl(&dry_run, &manifest("probe", spec));
                format!(
                    "{}{}",
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                )
            };
            let said = format!(
                "{}{}",
                probe("{expiry: {at: 2001-01-01T00:00:00Z}}"),
                probe("{revoked: true}")
            );
            if SIGNS.map(|(_, sign)| said.contains(sign)) == installed {
                Ok(())
            } else {
                Err(said)
            }
        });
    }
}

/// A policy of somebody else's that refuses writes of Secrets in one namespace. It goes when this is dropped.
pub(crate) struct Forbidden<'a> {
    stage: &'a Stage,
    policy: String,
}

impl Stage {
    /// Has the API server refuse these writes of Secrets here, such as `CREATE`, in the words of a CEL expression.
    pub(crate) fn forbid_secrets(&self, operation: &str, words: &str) -> Forbidden<'_> {
        let name = &self.namespace;
        let kind = |kind: &str, spec: serde_json::Value| json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": { "name": name }, "spec": spec });
        let rule = json!({ "apiGroups": [""], "apiVersions": ["v1"], "operations": [operation], "resources": ["secrets"] });
        let policy = kind(
            "ValidatingAdmissionPolicy",
            json!({
                "matchConstraints": { "resourceRules": [rule] },
                "validations": [{ "expression": "false", "messageExpression": words }],
            }),
        );
        let here = json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": name } } });
        let binding = kind(
            "ValidatingAdmissionPolicyBinding",
            json!({ "policyName": name, "validationActions": ["Deny"], "matchResources": here }),
        );
        let policy =
            json!({ "apiVersion": "v1", "kind": "List", "items": [policy, binding] }).to_string();
        self.cluster.apply(&policy);
        Forbidden {
            stage: self,
            policy,
        }
    }
}

impl Drop for Forbidden<'_> {
    fn drop(&mut self) {
        self.stage.cluster.kubectl_with(
            &["delete", "--wait=false", "--ignore-not-found", "-f", "-"],
            &self.policy,
        );
    }
}
