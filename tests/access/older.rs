//! An API server that has no `MutatingAdmissionPolicy`, as before 1.36: nothing is added, everything is checked.

use claviger::api::Phase;
use claviger::api::names::FINALIZER;
use kube::ResourceExt as _;
use serde_json::json;

use super::{ADMIN, DEVELOPER, Person};
use crate::stories;
use crate::support::cluster::Cluster;
use crate::support::stage::Stage;
use crate::support::wait;

stories![without_mutating_policies_nothing_is_added_and_everything_is_checked];

fn without_mutating_policies_nothing_is_added_and_everything_is_checked() {
    let cluster = Cluster::own_with(&[
        "--runtime-config=admissionregistration.k8s.io/v1/mutatingadmissionpolicies=false",
        "--disable-admission-plugins=ServiceAccount,MutatingAdmissionPolicy",
    ]);
    let said = cluster.try_kubectl(&["get", "mutatingadmissionpolicies"], "");
    assert!(
        String::from_utf8_lossy(&said.stderr)
            .contains("the server doesn't have a resource type \"mutatingadmissionpolicies\"")
    );
    let stage = Stage::on(&cluster, "older");
    let (dev, ada) = (
        Person::new(&stage, "dev", &[DEVELOPER]),
        Person::new(&stage, "ada", &[ADMIN]),
    );
    dev.declares("k", "{}");
    dev.declares("j", "{}");
    assert!(stage.apikey("k").finalizers().is_empty());
    let operator = stage.operator().start_ready();
    stage.wait_issued("k");
    assert_eq!(
        stage.apikey("k").finalizers(),
        [FINALIZER],
        "the controller does it"
    );
    let revoked = json!({ "spec": { "revoked": true } });
    dev.may_not_patch("k", &revoked, &["dev may not revoke this key"]);
    dev.may_not_declare(
        "new",
        "{roles: [ic-admin]}",
        &["dev may not grant the role ic-admin"],
    );
    ada.may_not_patch(
        "k",
        &json!({ "spec": { "revoked": true, "revokedBy": "dev" } }),
        &["it is ada who revokes"],
    );
    ada.patches("k", &revoked);
    ada.patches(
        "j",
        &json!({ "spec": { "revoked": true, "revokedBy": "ada" } }),
    );
    stage.wait_phase("k", Phase::Revoked);
    assert_eq!(stage.apikey("k").spec.revoked_by, None);
    dev.kubectl(&["delete", "ak", "k", "j", "--timeout=80s"], "");
    wait::until_true("their Secrets are gone", || {
        stage.secret("k").is_none() && stage.secret("j").is_none()
    });
    assert!(operator.stop().success());
}
