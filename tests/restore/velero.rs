//! What Velero asks of the API server in a restore. Velero itself does not run here: these are its calls, in its order.

use claviger::api::{ApiKey, ConditionType, Phase};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{Api, ObjectMeta, PostParams};

use super::{data, wait_owned};
use crate::drift::{eager, minted, wait_condition};
use crate::stories;
use crate::support::cluster::runtime;
use crate::support::stage::{Stage, condition};

stories![
    the_calls_of_a_velero_restore_bring_every_key_back,
    a_status_that_velero_could_not_write_costs_no_key
];

/// What Velero keeps of an object's metadata, and what it adds.
fn metadata(old: &ObjectMeta) -> ObjectMeta {
    let mut labels = old.labels.clone().unwrap_or_default();
    labels.insert("velero.io/backup-name".to_owned(), "nightly".to_owned());
    labels.insert("velero.io/restore-name".to_owned(), "nightly-1".to_owned());
    ObjectMeta {
        name: old.name.clone(),
        labels: Some(labels),
        annotations: old.annotations.clone(),
        ..ObjectMeta::default()
    }
}

/// Creates an ApiKey; then, once, writes its status at the resourceVersion that it got. Velero reports a refusal as a warning and
/// goes on.
fn restore(stage: &Stage, saved: &ApiKey, between: impl FnOnce()) -> kube::Result<ApiKey> {
    let api: Api<ApiKey> = Api::namespaced(stage.cluster.client(), &stage.namespace);
    let bare = ApiKey {
        metadata: metadata(&saved.metadata),
        spec: saved.spec.clone(),
        status: None,
    };
    let created = runtime()
        .block_on(api.create(&PostParams::default(), &bare))
        .expect("it is created");
    between();
    let full = ApiKey {
        status: saved.status.clone(),
        ..created
    };
    runtime().block_on(api.replace_status(&saved.name_any(), &PostParams::default(), &full))
}

fn restore_secret(stage: &Stage, saved: &Secret) {
    let api: Api<Secret> = Api::namespaced(stage.cluster.client(), &stage.namespace);
    let bare = Secret {
        metadata: metadata(&saved.metadata),
        ..saved.clone()
    };
    runtime()
        .block_on(api.create(&PostParams::default(), &bare))
        .expect("it is created");
}

/// An active, a revoked and an expired key, and their Secrets.
fn saved(stage: &Stage) -> (Vec<ApiKey>, Vec<Secret>) {
    let operator = stage.operator().start_ready();
    stage.declare(
        "active",
        r#"{expiry: {after: 90d}, secret: {template: {data: {H: "Bearer ${key}"}}}}"#,
    );
    stage.declare("revoked", "{}");
    stage.declare("expired", "{expiry: {after: 10s}}");
    stage.wait_issued("active");
    stage.wait_issued("revoked");
    stage.patch("apikey/revoked", r#"{"spec": {"revoked": true}}"#);
    for name in ["revoked", "expired"] {
        stage.wait_marked(name);
    }
    let all = (stage.apikeys(), stage.secrets());
    stage.kubectl(&["delete", "apikeys", "--all", "--timeout=60s"]);
    assert!(operator.stop().success());
    all
}

/// Incidents 40: with no controller at work, Velero's calls bring back everything: Secrets first, then each ApiKey and its status.
fn the_calls_of_a_velero_restore_bring_every_key_back() {
    let stage = Stage::new("velero");
    let (apikeys, secrets) = saved(&stage);
    let history = stage.history();
    for secret in &secrets {
        restore_secret(&stage, secret);
    }
    for apikey in &apikeys {
        restore(&stage, apikey, || {}).expect("the status is taken");
    }
    let operator = eager(&stage);
    for apikey in &apikeys {
        let (name, before) = (apikey.name_any(), apikey.status.clone().unwrap());
        wait_owned(&stage, &name);
        let status = stage.status(&name);
        assert_eq!(
            (minted(&status), status.phase),
            (minted(&before), before.phase),
            "{name}"
        );
        assert_eq!(
            condition(&status, ConditionType::Ready),
            condition(&before, ConditionType::Ready),
            "{name}"
        );
        let secret = secrets
            .iter()
            .find(|secret| secret.name_any() == name)
            .unwrap();
        assert_eq!(data(&stage, &name), secret.data, "{name}");
    }
    assert!(operator.stop().success());
    history.check();
}

/// A controller that is at work writes the status before Velero does, and then Velero's is refused. Nothing is minted all the same,
/// because the Secret has the name; the status can still be put in its place by hand.
fn a_status_that_velero_could_not_write_costs_no_key() {
    let stage = Stage::new("velero-late");
    let (apikeys, secrets) = saved(&stage);
    let history = stage.history();
    let operator = eager(&stage);
    for secret in &secrets {
        restore_secret(&stage, secret);
    }
    let active = apikeys
        .iter()
        .find(|apikey| apikey.name_any() == "active")
        .unwrap();
    let refused = restore(&stage, active, || {
        wait_condition(
            &stage,
            "active",
            ConditionType::Ready,
            "False/SecretConflict",
        );
    });
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 409));
    let conflict = wait_condition(
        &stage,
        "active",
        ConditionType::Ready,
        "False/SecretConflict",
    );
    assert_eq!(
        (
            conflict.phase,
            conflict.hash.clone(),
            conflict.versions.len()
        ),
        (Some(Phase::Pending), None, 0)
    );
    let secret = secrets
        .iter()
        .find(|secret| secret.name_any() == "active")
        .unwrap();
    assert_eq!(data(&stage, "active"), secret.data, "left alone");
    assert!(operator.stop().success());
    history.check();
}
