//! What stands in Git is what stands in the cluster: a tool that compares the two finds nothing to do.

use serde_json::{Value, json};

use super::statuses::hash;
use super::{Kind, Part, Swept, document};
use crate::stories;
use crate::support::stage::{Stage, manifest};

stories![
    what_is_applied_is_what_is_kept,
    a_second_apply_changes_nothing,
    roles_and_policies_stay_as_they_are_applied,
    a_field_is_taken_away_by_leaving_it_out,
];

/// A spec with every field that there is.
fn everything() -> Value {
    json!({
        "description": "Nightly export of invoices",
        "owner": "billing@example.com",
        "application": "billing",
        "organization": "acme.eu",
        "includeSubOrganizations": false,
        "audiences": ["invoices-api"],
        "roles": ["ic-viewer"],
        "permissions": ["invoices:read"],
        "expiry": { "at": "2097-03-01T00:00:00.500+01:00" },
        "rotation": { "every": "30d", "overlap": "48h" },
        "revision": 3,
        "prefix": "acme",
        "secret": {
            "name": "billing-export",
            "key": "token",
            "retention": "WhileActive",
            "template": {
                "metadata": { "labels": { "team": "billing" }, "annotations": { "example.com/note": "" } },
                "data": { "AUTH_HEADER": "Bearer ${key}" }
            }
        },
        "source": { "secretRef": { "name": "legacy", "key": "token" } },
        "metadata": { "tier": "gold" },
        "revoked": true,
        "revocationReason": "leaked in a build log",
        "revokedBy": "ann@example.com"
    })
}

/// What cannot stand beside the rest: a key of which only the hash is known, and one that is shown once.
fn imported() -> Value {
    json!({
        "source": { "hash": hash("0"), "tail": "2Xk9Qd" },
        "rotation": { "overlap": "0s" },
        "secret": { "retention": "UntilCollected" },
        "revoked": true
    })
}

fn specs() -> [(&'static str, Value); 5] {
    let template = json!({ "metadata": { "labels": {} }, "data": {} });
    let empty =
        json!({ "secret": { "template": template }, "roles": [], "metadata": {}, "rotation": {} });
    let never = json!({ "expiry": { "never": true } });
    [
        ("bare", json!({})),
        ("full", everything()),
        ("imported", imported()),
        ("empty", empty),
        ("never", never),
    ]
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
        .map(|(name, _)| {
            serde_json::from_str::<Value>(&get(name))
                .expect("JSON")
                .pointer(field)
                .cloned()
                .unwrap_or_default()
        })
        .collect()
}

fn what_is_applied_is_what_is_kept() {
    let ways: [(&[&str], &[&str]); 2] = [
        (&["apply", "-f", "-"], &["diff", "-f", "-"]),
        (
            &["apply", "--server-side", "-f", "-"],
            &["diff", "--server-side", "-f", "-"],
        ),
    ];
    for (how, compare) in ways {
        let stage = super::stage("kept");
        stage
            .cluster
            .kubectl_with(&[&["-n", &stage.namespace], how].concat(), &manifests());
        let written: Vec<_> = specs().into_iter().map(|(_, spec)| spec).collect();
        assert_eq!(live(&stage, "/spec"), written, "{how:?}");
        let diff = stage
            .cluster
            .try_kubectl(&[&["-n", &stage.namespace], compare].concat(), &manifests());
        assert_eq!(
            diff.status.code(),
            Some(0),
            "{how:?}: {}",
            String::from_utf8_lossy(&diff.stdout)
        );
    }
}

fn a_second_apply_changes_nothing() {
    for how in [
        &["apply", "-f", "-"][..],
        &["apply", "--server-side", "-f", "-"],
    ] {
        let stage = super::stage("twice");
        let operator = stage.operator().start_ready();
        let apply = || {
            stage
                .cluster
                .kubectl_with(&[&["-n", &stage.namespace], how].concat(), &manifests())
        };
        apply();
        for name in ["bare", "empty", "never"] {
            stage.wait_issued(name);
        }
        for name in ["full", "imported"] {
            stage.wait_phase(name, claviger::api::Phase::Revoked);
        }
        assert!(
            operator.stop().success(),
            "nothing else writes from here on"
        );
        let before = live(&stage, "/metadata/resourceVersion");
        apply();
        apply();
        assert_eq!(live(&stage, "/metadata/resourceVersion"), before, "{how:?}");
    }
}

/// Every field that there is, and every field that may stand empty.
fn roles_and_policies() -> Vec<(Part, Value)> {
    let full = json!({ "title": "Viewer", "description": "Reads invoices", "permissions": ["invoices:read", "invoices:list"] });
    let limits = json!({
        "lifetime": { "max": "90d", "default": "2160h" },
        "rotation": { "maxInterval": "30d", "required": true },
        "roles": { "allowed": ["ic-*", "viewer"] },
        "permissions": { "allowed": ["*"] },
        "audiences": { "allowed": ["invoices-api"] },
        "prefixes": { "allowed": ["acme"] },
        "imports": "Forbidden",
        "template": { "annotationPrefixes": ["example.com/"] },
        "require": ["owner", "description"]
    });
    let nothing = json!({
        "lifetime": {},
        "rotation": { "required": false },
        "roles": { "allowed": [] },
        "permissions": { "allowed": [] },
        "audiences": { "allowed": [] },
        "prefixes": { "allowed": [] },
        "imports": "Allowed",
        "template": { "annotationPrefixes": [] },
        "require": []
    });
    let (role, policy) = (|spec| (Part::Role, spec), |spec| (Part::Policy, spec));
    vec![
        role(json!({})),
        role(full),
        role(json!({ "permissions": [] })),
        policy(json!({})),
        policy(limits),
        policy(nothing),
    ]
}

fn roles_and_policies_stay_as_they_are_applied() {
    for how in [&["apply"][..], &["apply", "--server-side"]] {
        let stage = super::stage("definers");
        let _swept = [Swept(&stage, Kind::Role), Swept(&stage, Kind::Policy)];
        let all = roles_and_policies();
        let name = |number: usize| format!("{}-{number}", stage.namespace);
        let documents = all
            .iter()
            .enumerate()
            .map(|(number, (part, spec))| document(&stage, *part, &name(number), spec));
        let manifests: String = documents.collect();
        let apply = || {
            stage
                .cluster
                .kubectl_with(&[how, &["-f", "-"]].concat(), &manifests)
        };
        let live = |field: &str| -> Vec<Value> {
            let one = |(number, (part, _)): (usize, &(Part, Value))| {
                let found =
                    stage.kubectl(&["get", part.kind().plural(), &name(number), "-o", "json"]);
                serde_json::from_str::<Value>(&found)
                    .expect("JSON")
                    .pointer(field)
                    .cloned()
                    .unwrap_or_default()
            };
            all.iter().enumerate().map(one).collect()
        };
        apply();
        let written: Vec<_> = all
            .iter()
            .map(|(part, spec)| part.written(&stage, spec))
            .collect();
        assert_eq!(live("/spec"), written, "{how:?}");
        let compare = [&["diff"], &how[1..], &["-f", "-"]].concat();
        let diff = stage.cluster.try_kubectl(&compare, &manifests);
        assert_eq!(
            diff.status.code(),
            Some(0),
            "{how:?}: {}",
            String::from_utf8_lossy(&diff.stdout)
        );
        let before = live("/metadata/resourceVersion");
        apply();
        apply();
        assert_eq!(live("/metadata/resourceVersion"), before, "{how:?}");
    }
}

/// However it is applied, and down to nothing.
fn a_field_is_taken_away_by_leaving_it_out() {
    let stage = super::stage("left-out");
    let full = json!({ "metadata": { "labels": { "a": "b" }, "annotations": { "a": "b" } }, "data": { "a": "b" } });
    let steps = [
        json!({
            "description": "Nightly export",
            "roles": ["viewer"],
            "metadata": { "tier": "gold" },
            "rotation": { "every": "30d", "overlap": "7d" },
            "includeSubOrganizations": true,
            "secret": { "retention": "WhileActive", "template": full }
        }),
        json!({ "description": "Nightly export", "roles": ["viewer"], "rotation": { "every": "30d" }, "secret": { "template": { "data": { "a": "b" } } } }),
        json!({ "description": "Nightly export" }),
        json!({}),
        json!({ "roles": ["viewer"] }),
        json!({}),
    ];
    for (name, how) in [
        ("client", &["apply", "-f", "-"][..]),
        ("server", &["apply", "--server-side", "-f", "-"]),
    ] {
        for spec in &steps {
            stage.cluster.kubectl_with(
                &[&["-n", &stage.namespace], how].concat(),
                &manifest(name, &spec.to_string()),
            );
            let live: Value =
                serde_json::from_str(&stage.kubectl(&["get", "apikey", name, "-o", "json"]))
                    .expect("JSON");
            assert_eq!(live["spec"], *spec, "{how:?}");
        }
    }
}
