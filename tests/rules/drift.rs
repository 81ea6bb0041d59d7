//! What stands in Git is what stands in the cluster: a tool that compares the two finds nothing to do.

use serde_json::{Value, json};

use crate::stories;
use crate::support::stage::{Stage, manifest};

stories![what_is_applied_is_what_is_kept, a_second_apply_changes_nothing, a_field_is_taken_away_by_leaving_it_out];

/// A spec with every field that there is.
fn everything() -> Value {
    json!({
        "description": "Nightly export of invoices",
        "owner": "billing@example.com",
        "application": "billing",
        "audiences": ["invoices-api"],
        "roles": ["ic-viewer"],
        "permissions": ["invoices:read"],
        "expiry": { "at": "2097-03-01T00:00:00.500+01:00" },
        "prefix": "acme",
        "secret": {
            "name": "billing-export",
            "key": "token",
            "template": {
                "metadata": { "labels": { "team": "billing" }, "annotations": { "example.com/note": "" } },
                "data": { "AUTH_HEADER": "Bearer ${key}" }
            }
        },
        "metadata": { "tier": "gold" },
        "revoked": true,
        "revocationReason": "leaked in a build log"
    })
}

fn specs() -> [(&'static str, Value); 4] {
    let empty = json!({ "secret": { "template": { "metadata": { "labels": {} }, "data": {} } }, "roles": [], "metadata": {} });
    [("bare", json!({})), ("full", everything()), ("empty", empty), ("never", json!({ "expiry": { "never": true } }))]
}

fn manifests() -> String {
    let document = |(name, spec): (&str, Value)| {
        let kind = json!({ "apiVersion": "claviger.dev/v1alpha1", "kind": "ApiKey", "metadata": { "name": name }, "spec": spec });
        format!("{kind}\n")
    };
    specs().into_iter().map(document).collect()
}

fn live(stage: &Stage, field: &str) -> Vec<Value> {
    let get = |name: &str| stage.kubectl(&["get", "apikey", name, "-o", "json"]);
    specs()
        .into_iter()
        .map(|(name, _)| serde_json::from_str::<Value>(&get(name)).expect("JSON").pointer(field).cloned().unwrap_or_default())
        .collect()
}

fn what_is_applied_is_what_is_kept() {
    let ways: [(&[&str], &[&str]); 2] = [
        (&["apply", "-f", "-"], &["diff", "-f", "-"]),
        (&["apply", "--server-side", "-f", "-"], &["diff", "--server-side", "-f", "-"]),
    ];
    for (how, compare) in ways {
        let stage = Stage::new("kept");
        stage.cluster.kubectl_with(&[&["-n", &stage.namespace], how].concat(), &manifests());
        let written: Vec<_> = specs().into_iter().map(|(_, spec)| spec).collect();
        assert_eq!(live(&stage, "/spec"), written, "{how:?}");
        let diff = stage.cluster.try_kubectl(&[&["-n", &stage.namespace], compare].concat(), &manifests());
        assert_eq!(diff.status.code(), Some(0), "{how:?}: {}", String::from_utf8_lossy(&diff.stdout));
    }
}

fn a_second_apply_changes_nothing() {
    for how in [&["apply", "-f", "-"][..], &["apply", "--server-side", "-f", "-"]] {
        let stage = Stage::new("twice");
        let operator = stage.operator().start_ready();
        let apply = || stage.cluster.kubectl_with(&[&["-n", &stage.namespace], how].concat(), &manifests());
        apply();
        for name in ["bare", "empty", "never"] {
            stage.wait_issued(name);
        }
        stage.wait_phase("full", claviger::api::Phase::Revoked);
        assert!(operator.stop().success(), "nothing else writes from here on");
        let before = live(&stage, "/metadata/resourceVersion");
        apply();
        apply();
        assert_eq!(live(&stage, "/metadata/resourceVersion"), before, "{how:?}");
    }
}

/// However it is applied, and down to nothing.
fn a_field_is_taken_away_by_leaving_it_out() {
    let stage = Stage::new("left-out");
    let full = json!({ "metadata": { "labels": { "a": "b" }, "annotations": { "a": "b" } }, "data": { "a": "b" } });
    let steps = [
        json!({ "description": "Nightly export", "roles": ["viewer"], "metadata": { "tier": "gold" }, "secret": { "template": full } }),
        json!({ "description": "Nightly export", "roles": ["viewer"], "secret": { "template": { "data": { "a": "b" } } } }),
        json!({ "description": "Nightly export" }),
        json!({}),
        json!({ "roles": ["viewer"] }),
        json!({}),
    ];
    for (name, how) in [("client", &["apply", "-f", "-"][..]), ("server", &["apply", "--server-side", "-f", "-"])] {
        for spec in &steps {
            stage.cluster.kubectl_with(&[&["-n", &stage.namespace], how].concat(), &manifest(name, &spec.to_string()));
            let live: Value = serde_json::from_str(&stage.kubectl(&["get", "apikey", name, "-o", "json"])).expect("JSON");
            assert_eq!(live["spec"], *spec, "{how:?}");
        }
    }
}
