//! The API server itself finds nothing wrong with the policies.

use serde_json::Value;

use crate::stories;
use crate::support::cluster::Cluster;
use crate::support::wait;

stories![every_policy_passes_the_type_checker];

/// A policy is checked once, and quietly not at all while the definitions are not known yet. So copies are looked at, which nothing
/// is bound to, and beside each one with a mistake in what is checked of it: its validations, not its variables.
fn every_policy_passes_the_type_checker() {
    let cluster = Cluster::shared();
    let list = cluster.kubectl(&[
        "get",
        "validatingadmissionpolicies",
        "-l",
        "app.kubernetes.io/part-of=claviger",
        "-o",
        "json",
    ]);
    let list: Value = serde_json::from_str(&list).unwrap();
    let policies = list["items"].as_array().unwrap();
    assert_eq!(policies.len(), 10, "{policies:?}");
    let mut tried = 0;
    for policy in policies {
        let name = policy["metadata"]["name"].as_str().unwrap();
        let sound = policy["spec"].to_string();
        assert_eq!(
            warnings(&cluster, &format!("{name}-copy"), &sound),
            "",
            "{name}"
        );
        if policy["spec"]["validations"]
            .to_string()
            .contains("object.")
        {
            let mistaken = sound
                .replace("object.spec.", "object.spek.")
                .replace("object.metadata.", "object.metadatum.");
            let found = warnings(&cluster, &format!("{name}-mistaken"), &mistaken);
            assert!(found.contains("undefined field"), "{name}: {found}");
            tried += 1;
        }
    }
    assert_eq!(tried, 7, "the grants look at nothing but their variables");
}

/// What the type checker says of a policy with this spec.
fn warnings(cluster: &Cluster, name: &str, spec: &str) -> String {
    cluster.apply(&format!(
        r#"{{"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {{"name": "{name}"}}, "spec": {spec}}}"#
    ));
    let path = "jsonpath={.metadata.generation} {.status.observedGeneration} {.status.typeChecking.expressionWarnings}";
    let found = wait::until(&format!("{name} is checked"), || {
        let seen = cluster.kubectl(&["get", "validatingadmissionpolicy", name, "-o", path]);
        let mut parts = seen.splitn(3, ' ');
        if parts.next() == parts.next() {
            Ok(parts.next().unwrap_or_default().to_owned())
        } else {
            Err(seen)
        }
    });
    cluster.kubectl(&["delete", "validatingadmissionpolicy", name]);
    found
}
