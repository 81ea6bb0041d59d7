//! When a key was last used: gates tell it in objects of their own, and the controller writes it into the status.

mod reporting;
mod standing;
mod writing;

use claviger::api::ApiKeyStatus;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::Story;
use crate::support::stage::Stage;

pub(crate) fn stories() -> Vec<Story> {
    [
        reporting::stories(),
        standing::stories(),
        writing::stories(),
    ]
    .concat()
}

/// Whose rights are those of a gate, as far as its reports go.
const ACCOUNT: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: gate}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: gate}
rules:
- {apiGroups: [claviger.dev], resources: [gates], verbs: [create, patch, delete]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: gate}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: gate}
subjects:
- {kind: ServiceAccount, name: gate}
";

/// A namespace with an account for gates.
fn stage(name: &str) -> Stage {
    let stage = Stage::new(name);
    let subject = format!("name: gate, namespace: {}", stage.namespace);
    stage.apply(&ACCOUNT.replace(
        "ServiceAccount, name: gate",
        &format!("ServiceAccount, {subject}"),
    ));
    stage
}

/// What the account of gates does with kubectl.
fn as_gate(stage: &Stage, arguments: &[&str], input: &str) -> (bool, String) {
    let account = format!("--as=system:serviceaccount:{}:gate", stage.namespace);
    let output = stage.cluster.try_kubectl(
        &[&["-n", &stage.namespace, &account], arguments].concat(),
        input,
    );
    (
        output.status.success(),
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
    )
}

/// A gate writes its object.
fn report(stage: &Stage, name: &str, spec: &Value) {
    let object = json!({ "apiVersion": "claviger.dev/v1alpha1", "kind": "Gate", "metadata": { "name": name }, "spec": spec });
    let (done, said) = as_gate(
        stage,
        &["apply", "--server-side", "--force-conflicts", "-f", "-"],
        &object.to_string(),
    );
    assert!(done, "{said}");
}

/// A use of an ApiKey that is there.
fn used(stage: &Stage, name: &str, at: Timestamp) -> Value {
    let uid = stage.apikey(name).metadata.uid.unwrap();
    json!({ "namespace": stage.namespace, "name": name, "uid": uid, "usedAt": at.to_string() })
}

fn ago(seconds: i64) -> Timestamp {
    claviger::api::whole_second(Timestamp::now()) - SignedDuration::from_secs(seconds)
}

fn shown(status: &ApiKeyStatus) -> Option<Timestamp> {
    status.last_used_at.as_ref().map(|time| time.0)
}

fn wait_shown(stage: &Stage, name: &str, at: Timestamp) {
    stage.wait(name, &format!("was used at {at}"), |status| {
        shown(status) == Some(at)
    });
}

fn issue(stage: &Stage, names: &[&str]) {
    for name in names {
        stage.declare(name, "{}");
    }
    for name in names {
        stage.wait_issued(name);
    }
}
