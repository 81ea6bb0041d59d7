//! What a rotation makes of the Secret that it finds, and what it does where it cannot deliver.

use claviger::api::{ConditionType, VersionPhase};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::drift::{create, eager, message, wait_secret};
use crate::stories;
use crate::support::history::values;
use crate::support::stage::{Stage, condition};
use crate::support::wait::{self};

stories![
    a_rotation_that_cannot_deliver_leaves_the_old_version_and_heals,
    whatever_became_of_the_secret_a_revision_delivers_into_it_or_says_why_not,
    a_rotation_changes_nothing_that_others_put_there,
];

/// Incidents 3, 31: the old version stays in use, the ApiKey says why, and nothing is left to do once the way is free.
fn a_rotation_that_cannot_deliver_leaves_the_old_version_and_heals() {
    let stage = Stage::new("undeliverable");
    let history = stage.history();
    let _operator = eager(&stage);
    stage.declare("k", "{}");
    let issued = stage.wait_issued("k");
    let before = stage.secret("k").unwrap();
    let forbidden = stage.forbid_secrets("UPDATE", "'no Secret is written here'");
    let write = || {
        stage.try_kubectl(&[
            "annotate",
            "secret",
            "k",
            "probe=1",
            "--overwrite",
            "--dry-run=server",
        ])
    };
    wait::until_true("no Secret can be written", || !write().status.success());
    stage.raise("k", 1);
    let status = stage.wait_reason("k", ConditionType::Ready, "DeliveryRefused");
    assert_eq!(
        status.versions, issued.versions,
        "the old version is the current one, and nothing else is listed"
    );
    assert_eq!(
        condition(&status, ConditionType::Stalled),
        "True/DeliveryRefused"
    );
    assert_eq!(
        condition(&status, ConditionType::Delivered),
        "True/Delivered",
        "the Secret holds the current version"
    );
    assert_eq!(condition(&status, ConditionType::Usable), "True/Active");
    assert!(
        message(&status, ConditionType::Ready).contains("no Secret is written here"),
        "{status:?}"
    );
    stage.wait_event("k", "DeliveryRefused");
    assert_eq!(
        stage.secret("k").unwrap().resource_version(),
        before.resource_version()
    );
    drop(forbidden);
    let status = stage.wait_rotated("k", 1);
    assert_eq!(super::first(&status).phase, VersionPhase::Retiring);
    assert_eq!(
        condition(&stage.wait_issued("k"), ConditionType::Ready),
        "True/Issued"
    );
    history.check();
    assert_eq!(values(&history.states())["k"].len(), 2);
}

/// Incidents 6, 7, 11, 31: a revision heals a Secret that is missing or edited; one that is immutable or somebody else's is left
/// alone until it goes.
fn whatever_became_of_the_secret_a_revision_delivers_into_it_or_says_why_not() {
    let stage = Stage::new("became");
    let history = stage.history();
    let _operator = eager(&stage);
    for name in ["missing", "edited", "immutable", "taken"] {
        stage.declare(name, "{}");
        stage.wait_issued(name);
    }
    stage.kubectl(&["delete", "secret", "missing", "taken"]);
    stage.patch(
        "secret/edited",
        r#"{"stringData": {"api-key": "something else"}}"#,
    );
    stage.patch("secret/immutable", r#"{"immutable": true}"#);
    create(
        &stage,
        r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "taken"}, "stringData": {"api-key": "theirs"}}"#,
    );
    stage.wait_reason("missing", ConditionType::Delivered, "SecretMissing");
    stage.wait_reason("edited", ConditionType::Delivered, "SecretChanged");
    stage.wait_reason("taken", ConditionType::Delivered, "SecretConflict");
    let before = ["immutable", "taken"].map(|name| stage.secret(name).unwrap().resource_version());
    for name in ["missing", "edited", "immutable", "taken"] {
        stage.raise(name, 1);
    }
    for name in ["missing", "edited"] {
        stage.wait_rotated(name, 1);
        let status = stage.wait_issued(name);
        assert_eq!(
            (
                condition(&status, ConditionType::Ready).as_str(),
                status.version
            ),
            ("True/Issued", Some(2))
        );
    }
    for (name, reason) in [
        ("immutable", "SecretImmutable"),
        ("taken", "SecretConflict"),
    ] {
        let status = stage.wait_reason(name, ConditionType::Ready, reason);
        assert_eq!(
            condition(&status, ConditionType::Stalled),
            format!("True/{reason}")
        );
        assert_eq!(
            (status.version, status.versions.len()),
            (Some(1), 1),
            "{status:?}"
        );
        assert_eq!(condition(&status, ConditionType::Usable), "True/Active");
    }
    assert_eq!(
        before,
        ["immutable", "taken"].map(|name| stage.secret(name).unwrap().resource_version()),
        "left alone"
    );
    stage.kubectl(&["delete", "secret", "immutable", "taken"]);
    for name in ["immutable", "taken"] {
        stage.wait_rotated(name, 1);
        assert_eq!(
            condition(&stage.wait_issued(name), ConditionType::Ready),
            "True/Issued"
        );
    }
    history.check();
}

/// Incidents 29: labels, annotations, owners and entries of others, and what the template asks for.
fn a_rotation_changes_nothing_that_others_put_there() {
    let stage = Stage::new("kept");
    let history = stage.history();
    let _operator = stage.operator().start_ready();
    let template = |label: &str, note: &str| {
        format!(
            r#"{{secret: {{template: {{metadata: {{labels: {{team: {label}}}, annotations: {{note: {note}}}}},
            data: {{HEADER: "Bearer ${{key}}", SHOWN: "${{tail}} of ${{name}}", FIXED: same}}}}}}}}"#
        )
    };
    stage.declare("k", &template("a", "one"));
    stage.wait_issued("k");
    let theirs = json!({
        "metadata": {
            "labels": { "theirs": "l" },
            "annotations": { "theirs": "n" },
            "finalizers": ["example.com/theirs"],
        },
        "stringData": { "THEIRS": "d" },
    });
    stage.patch("secret/k", &theirs.to_string());
    let before = stage.secret("k").unwrap();
    stage.raise("k", 1);
    stage.wait_rotated("k", 1);
    let status = stage.wait_issued("k");
    let after = stage.secret("k").unwrap();
    let mounted = stage.mounted("k");
    let (key, tail) = (mounted["api-key"].clone(), status.tail.clone().unwrap());
    assert_eq!(
        mounted["HEADER"],
        format!("Bearer {key}"),
        "the template's entries hold the new key"
    );
    assert_eq!(mounted["SHOWN"], format!("{tail} of k"));
    assert_eq!(
        others(&after),
        others(&before),
        "everything else is as it was"
    );
    assert_ne!(
        before.data.unwrap()["api-key"],
        after.data.unwrap()["api-key"]
    );

    stage.declare("k", &template("b", "two"));
    let edited = wait_secret(&stage, "k", "follows the template", |secret| {
        secret.labels().get("team").is_some_and(|team| team == "b")
            && secret
                .annotations()
                .get("note")
                .is_some_and(|note| note == "two")
    });
    assert_eq!(stage.mounted("k"), mounted, "and no entry is touched");
    let foreign = [
        edited.labels().get("theirs"),
        edited.annotations().get("theirs"),
    ];
    assert_eq!(
        foreign.map(|value| value.map(String::as_str)),
        [Some("l"), Some("n")]
    );
    assert_eq!(
        stage.wait_issued("k").version,
        Some(2),
        "nor another version minted"
    );
    stage.patch("secret/k", r#"{"metadata": {"finalizers": null}}"#);
    history.check();
}

/// A Secret without what a rotation is to change.
fn others(secret: &Secret) -> Value {
    let mut secret = secret.clone();
    for entry in ["api-key", "HEADER", "SHOWN"] {
        secret.data.as_mut().unwrap().remove(entry);
    }
    secret.metadata.managed_fields = None;
    secret.metadata.resource_version = None;
    json!(secret)
}
