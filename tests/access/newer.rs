//! What is newer than a key never keeps it from being revoked, edited where nothing is guarded, or deleted.

use claviger::api::Phase;
use claviger::api::names::FINALIZER;
use kube::ResourceExt as _;
use serde_json::json;

use super::limits::impose;
use super::{ADMIN, DEVELOPER, Person};
use crate::stories;
use crate::support::stage::Stage;
use crate::support::wait;

stories![a_policy_that_is_newer_than_a_key_stands_in_nobodys_way];

fn a_policy_that_is_newer_than_a_key_stands_in_nobodys_way() {
    let stage = Stage::new("newer");
    let operator = stage.operator().start_ready();
    let (dev, ada) = (
        Person::new(&stage, "dev", &[DEVELOPER]),
        Person::new(&stage, "ada", &[ADMIN]),
    );
    // Written by who may do everything, it has what nobody else here could give it.
    stage.cluster.kubectl(&[
        "label",
        "namespace",
        &stage.namespace,
        "claviger.dev/organization=acme",
    ]);
    let spec = json!({
        "organization": "acme", "roles": ["ic-admin"], "permissions": ["a:b"], "audiences": ["c"], "rotation": { "every": "365d" },
        "secret": { "template": { "metadata": { "annotations": { "reflector.example.org/to": "all" } } } },
    });
    wait::until("the label is known", || {
        let manifest = crate::support::stage::manifest("k", &spec.to_string());
        let output = stage
            .cluster
            .try_kubectl(&["-n", &stage.namespace, "apply", "-f", "-"], &manifest);
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    });
    stage.declare("j", &spec.to_string());
    for name in ["k", "j"] {
        stage.wait_issued(name);
    }
    stage.cluster.kubectl(&[
        "label",
        "namespace",
        &stage.namespace,
        "claviger.dev/organization=globex",
        "--overwrite",
    ]);
    impose(
        &stage,
        "strict",
        &json!({
            "lifetime": { "max": "1d" }, "rotation": { "maxInterval": "1d", "required": true }, "roles": { "allowed": [] },
            "permissions": { "allowed": [] }, "audiences": { "allowed": [] }, "prefixes": { "allowed": ["acme"] },
            "imports": "Forbidden", "template": { "annotationPrefixes": [] },
            "require": ["description", "owner", "application", "expiry"],
        }),
    );
    dev.may_not_declare("new", "{}", &["ApiKeyPolicy"]);

    // What is not guarded is edited.
    dev.patches("k", &json!({ "metadata": { "labels": { "team": "a" } }, "spec": { "metadata": { "tier": "gold" } } }));
    dev.declares("k", &with(&spec, "owner").to_string());
    // The finalizer comes back.
    dev.patches("k", &json!({ "metadata": { "finalizers": null } }));
    wait::until("the finalizer is back", || {
        let finalizers = stage.apikey("k").finalizers().to_vec();
        if finalizers == [FINALIZER] {
            Ok(())
        } else {
            Err(format!("{finalizers:?}"))
        }
    });
    // The key is revoked, and deleted.
    ada.patches("k", &json!({ "spec": { "revoked": true } }));
    stage.wait_phase("k", Phase::Revoked);
    dev.kubectl(&["delete", "ak", "k", "--timeout=80s"], "");
    // Under deletion, nothing is guarded that keeps it from ending.
    stage.patch(
        "apikey/j",
        r#"{"metadata": {"finalizers": ["claviger.dev/finalizer", "example.com/hold"]}}"#,
    );
    dev.kubectl(&["delete", "ak", "j", "--wait=false"], "");
    wait::until("only the other finalizer is left", || {
        let finalizers = stage.apikey("j").finalizers().to_vec();
        if finalizers == ["example.com/hold"] {
            Ok(())
        } else {
            Err(format!("{finalizers:?}"))
        }
    });
    dev.patches(
        "j",
        &json!({ "spec": { "revoked": true, "owner": "ops" }, "metadata": { "finalizers": null } }),
    );
    stage.wait_gone("j");
    assert!(stage.secret("k").is_none() && stage.secret("j").is_none());
    assert!(operator.stop().success());
}

fn with(spec: &serde_json::Value, field: &str) -> serde_json::Value {
    let mut spec = spec.clone();
    spec[field] = json!("ops");
    spec
}
