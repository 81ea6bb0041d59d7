//! One broken object is one object's trouble.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use claviger::api::names::{ANNOTATION_TEMPLATE, FINALIZER, LABEL_APIKEY};
use claviger::api::{ConditionType, DeliveredSecret};
use claviger::controller::{Clock, WallClock};
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::drift::{eager, minted, pass, wait_condition, wait_secret};
use crate::stories;
use crate::support::cluster::{CRDS, Cluster};
use crate::support::control_plane::Component;
use crate::support::inprocess::InProcess;
use crate::support::proxy::{Fault, Hold, Matcher, Verb, When};
use crate::support::stage::{Stage, condition, manifest};
use crate::support::wait;

stories![
    an_undecodable_apikey_holds_nobody_up,
    a_slow_first_list_of_secrets_loses_nobody,
    a_panic_while_one_key_is_issued_is_contained,
    corrupted_metadata_of_an_issued_key_is_mended,
    a_corrupted_status_is_mended_or_refused,
];

/// Incidents 27: an ApiKey that was stored under another schema and cannot be read: the others keep working, it gets an event and
/// is counted, and once it is corrected it is issued.
fn an_undecodable_apikey_holds_nobody_up() {
    let cluster = Cluster::own();
    let stage = Stage::on(&cluster, "undecodable");
    let loose = json!([{
        "op": "replace",
        "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/owner",
        "value": { "type": "integer" },
    }]);
    cluster.kubectl(&[
        "patch",
        "crd",
        "apikeys.claviger.dev",
        "--type=json",
        "-p",
        &loose.to_string(),
    ]);
    wait::until("the loose schema is in force", || {
        let stored = cluster.try_kubectl(
            &["-n", &stage.namespace, "create", "-f", "-"],
            &manifest("broken", "{owner: 5}"),
        );
        if stored.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&stored.stderr).into_owned())
        }
    });
    cluster.kubectl_with(
        &["apply", "--server-side", "--force-conflicts", "-f", "-"],
        CRDS,
    );
    wait::until("the strict schema is in force", || {
        let trial = [
            "-n",
            &stage.namespace,
            "create",
            "--dry-run=server",
            "-f",
            "-",
        ];
        if cluster
            .try_kubectl(&trial, &manifest("trial", "{owner: 5}"))
            .status
            .success()
        {
            Err("not so".to_owned())
        } else {
            Ok(())
        }
    });

    let history = stage.history();
    let operator = eager(&stage);
    pass(&stage, "fine");
    stage.wait_event("broken", "Undecodable");
    assert_eq!(operator.metric("claviger_undecodable_objects"), Some(1.0));
    assert!(operator.logs().contains("the stored object cannot be read"));
    pass(&stage, "later");
    stage.kubectl(&["delete", "apikey", "fine", "--timeout=80s"]);
    assert!(stage.secret("fine").is_none());
    assert!(stage.secret("broken").is_none());
    stage.patch("apikey/broken", r#"{"spec": {"owner": "somebody"}}"#);
    stage.wait_issued("broken");
    wait::until("nothing is broken any more", || {
        match operator.metric("claviger_undecodable_objects") {
            Some(count) if count < 0.5 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 5, 20: the first list of Secrets comes long after that of ApiKeys: nobody is worked on before, and everybody after.
fn a_slow_first_list_of_secrets_loses_nobody() {
    let stage = Stage::new("slow-list");
    let history = stage.history();
    let proxy = stage.cluster.proxy();
    let names = ["a", "b", "c", "d", "e", "f"];
    for name in names {
        stage.declare(name, "{}");
    }
    let hold = Hold::new();
    let first =
        Matcher::call(Verb::List, "secrets").filter(|call| call.parameter("limit") == Some("500"));
    let _late = proxy.on(first, When::After, Fault::Delay(hold.clone()));
    let operator = stage.operator_via(&proxy).start_ready();
    assert!(hold.reached(wait::LIMIT), "the Secrets are asked for");
    wait::until_true("all are in work", || {
        operator.metric("claviger_objects_working") == Some(6.0)
    });
    assert_eq!(
        proxy.mutations().len(),
        0,
        "nothing is done without knowing the Secrets"
    );
    hold.release();
    for name in names {
        stage.wait_issued(name);
    }
    assert!(operator.stop().success());
    history.check();
}

/// A clock that panics the next few times it is looked at.
#[derive(Clone, Default)]
struct Poison(Arc<AtomicU32>);

impl Clock for Poison {
    fn now(&self) -> Timestamp {
        let left = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        if left.is_ok() {
            // As a panic does, but for what a panic prints: who reads why another story failed is not led here.
            std::panic::resume_unwind(Box::new("the clock is poisoned"));
        }
        WallClock.now()
    }
}

/// Incidents 27: work on one ApiKey panics three times, between announcing and delivering: the process and the others go on, and
/// it is issued afterwards, with one key.
fn a_panic_while_one_key_is_issued_is_contained() {
    let stage = Stage::new("panicking");
    let history = stage.history();
    let proxy = stage.cluster.proxy();
    let clock = Poison::default();
    let armed = clock.clone();
    let announced = Matcher::call(Verb::Create, "secrets")
        .namespace(&stage.namespace)
        .name("poisoned");
    let fault = proxy.on(
        announced,
        When::Before,
        Fault::call(move || armed.0.store(3, Ordering::SeqCst)),
    );
    let process = InProcess::start(&stage, &proxy, clock.clone());
    pass(&stage, "before");
    stage.declare("poisoned", "{}");
    assert!(fault.fired(wait::LIMIT), "it was on its way");
    wait::until("it has panicked three times", || {
        match clock.0.load(Ordering::SeqCst) {
            0 => Ok(()),
            left => Err(format!("{left} left")),
        }
    });
    pass(&stage, "meanwhile");
    stage.kubectl(&["delete", "apikey", "before", "--timeout=80s"]);
    let status = stage.wait_issued("poisoned");
    assert_eq!(status.versions.len(), 1);
    assert!(process.stop().is_ok(), "the process went on");
    history.check();
}

/// Incidents 33: the owner's UID, the label, the finalizers or our notes on the Secret are corrupted: each is put right, and
/// nothing is deleted or minted.
fn corrupted_metadata_of_an_issued_key_is_mended() {
    let cluster = Cluster::own();
    let stage = Stage::on(&cluster, "corrupted");
    let history = stage.history();
    let operator = eager(&stage);
    let spec =
        r#"{secret: {template: {metadata: {labels: {team: a}}, data: {HEADER: "Bearer ${key}"}}}}"#;
    stage.declare("k", spec);
    let issued = stage.wait_issued("k");
    let (original, entries, uid) = (
        stage.secret("k").unwrap(),
        stage.mounted("k"),
        stage.apikey("k").uid().unwrap(),
    );
    // Whoever collects garbage would take a Secret with a wrong owner within a second.
    cluster
        .control_plane
        .pause(Component::ControllerManager)
        .unwrap();
    let owner = |uid: &str| json!([{ "apiVersion": "claviger.dev/v1alpha1", "kind": "ApiKey", "name": "k", "uid": uid, "controller": true }]);
    for patch in [
        json!({ "ownerReferences": owner("00000000-0000-0000-0000-000000000000") }),
        json!({ "labels": { LABEL_APIKEY: "another" } }),
        json!({ "labels": { "team": "b" } }),
        json!({ "annotations": { ANNOTATION_TEMPLATE: "{garbage" } }),
        json!({ "annotations": { ANNOTATION_TEMPLATE: r#"{"data": {"api-key": "${key}", "THEIRS": "x"}}"# } }),
        json!({ "annotations": { ANNOTATION_TEMPLATE: null } }),
    ] {
        let patched = stage.kubectl(&[
            "patch",
            "secret/k",
            "--type=merge",
            "-p",
            &json!({ "metadata": patch }).to_string(),
            "-o",
            "json",
        ]);
        let patched: Value = serde_json::from_str(&patched).unwrap();
        let broken = patched["metadata"]["resourceVersion"]
            .as_str()
            .map(str::to_owned);
        let mended = wait_secret(&stage, "k", "is mended", |secret| {
            secret.resource_version() != broken && secret.labels() == original.labels()
        });
        assert_eq!(mended.annotations(), original.annotations(), "{patch}");
        assert_eq!(
            mended
                .owner_references()
                .iter()
                .map(|owner| owner.uid.as_str())
                .collect::<Vec<_>>(),
            [uid.as_str()],
            "{patch}"
        );
        assert!(
            (mended.uid(), stage.mounted("k")) == (original.uid(), entries.clone()),
            "{patch}: the same entries"
        );
    }
    for finalizers in [json!(null), json!([]), json!(["example.com/other"])] {
        stage.patch(
            "apikey/k",
            &json!({ "metadata": { "finalizers": finalizers } }).to_string(),
        );
        wait::until_true("the finalizer is back", || {
            stage
                .apikey("k")
                .finalizers()
                .iter()
                .any(|name| name == FINALIZER)
        });
    }
    cluster
        .control_plane
        .resume(Component::ControllerManager)
        .unwrap();
    pass(&stage, "marker");
    assert_eq!(minted(&stage.wait_issued("k")), minted(&issued));
    assert_eq!(
        condition(&stage.status("k"), ConditionType::Ready),
        "True/Issued"
    );
    assert_eq!(
        stage.secret("k").unwrap().uid(),
        original.uid(),
        "never deleted"
    );
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 33: a field of the status is corrupted by somebody who may do everything: it is put right from what else is known, or
/// refused by the API server; also when the controller was away, nothing is deleted or minted.
fn a_corrupted_status_is_mended_or_refused() {
    let stage = Stage::new("corrupted-status");
    let history = stage.history();
    stage.declare("k", "{}");
    let mut operator = eager(&stage);
    let issued = stage.wait_issued("k");
    let original = stage.secret("k").unwrap();
    let patch = |patch: &Value| {
        let text = json!({ "status": patch }).to_string();
        stage.try_kubectl(&[
            "patch",
            "apikey",
            "k",
            "--subresource=status",
            "--type=merge",
            "-p",
            &text,
        ])
    };
    let wrong = format!("sha256:{}", "0".repeat(64));
    let mut versions = serde_json::to_value(&issued.versions).unwrap();
    versions[0]["hash"] = json!(wrong);
    for refused in [
        json!({ "keyId": "0".repeat(32) }),
        json!({ "keyId": null }),
        json!({ "versions": versions }),
        json!({ "versions": null }),
        json!({ "hash": "garbage" }),
        json!({ "phase": "Lost" }),
    ] {
        assert!(!patch(&refused).status.success(), "{refused} is refused");
    }
    let reference = |it: &DeliveredSecret| (it.name.clone(), it.uid.clone());
    for away in [false, true] {
        for corrupt in [
            json!({ "secretRef": { "uid": "00000000-0000-0000-0000-000000000000" } }),
            json!({ "secretRef": { "resourceVersion": "1" } }),
            json!({ "secretRef": { "resourceVersion": "garbage" } }),
            json!({ "secretRef": null }),
            json!({ "hash": wrong, "tail": "000000", "version": 7 }),
            json!({ "hash": null }),
            json!({ "phase": "Pending", "observedGeneration": 9 }),
            json!({ "conditions": null }),
        ] {
            if away {
                assert!(operator.stop().success());
            }
            let done = patch(&corrupt);
            assert!(
                done.status.success(),
                "{corrupt}: {}",
                String::from_utf8_lossy(&done.stderr)
            );
            if away {
                operator = eager(&stage);
            }
            stage.wait("k", &format!("is as before {corrupt}"), |status| {
                minted(status) == minted(&issued)
                    && status.tail == issued.tail
                    && status.phase == issued.phase
                    && status.secret_ref.as_ref().map(reference)
                        == issued.secret_ref.as_ref().map(reference)
                    && condition(status, ConditionType::Ready) == "True/Issued"
                    && status.observed_generation == issued.observed_generation
            });
            let secret = stage.secret("k").unwrap();
            assert!(
                (secret.uid(), secret.data) == (original.uid(), original.data.clone()),
                "{corrupt}: the same Secret"
            );
        }
    }
    // With the Secret edited, too, nothing says any more that it is ours: it is left alone, in the end as well.
    stage.patch(
        "secret/k",
        r#"{"stringData": {"api-key": "something else"}}"#,
    );
    wait_condition(&stage, "k", ConditionType::Delivered, "False/SecretChanged");
    assert!(
        patch(&json!({ "secretRef": { "uid": "00000000-0000-0000-0000-000000000000" } }))
            .status
            .success()
    );
    let lost = wait_condition(
        &stage,
        "k",
        ConditionType::Delivered,
        "False/SecretConflict",
    );
    assert_eq!(minted(&lost), minted(&issued));
    pass(&stage, "marker");
    assert_eq!(
        stage.secret("k").unwrap().uid(),
        original.uid(),
        "what may be another's is not deleted"
    );
    assert!(operator.stop().success());
    history.check();
}
