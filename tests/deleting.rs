//! An ApiKey goes: its Secret first, then the finalizer, and nothing comes back.

use claviger::api::ConditionType;
use claviger::api::names::{FINALIZER, LABEL_APIKEY};
use kube::ResourceExt as _;
use serde_json::json;

use crate::drift::{eager, pass, wait_condition, wait_secret};
use crate::stories;
use crate::support::stage::Stage;
use crate::support::wait;

stories![
    every_way_of_deleting_takes_the_secret_and_recreates_nothing,
    an_edited_or_stripped_secret_of_ours_goes_too,
    a_secret_that_somebody_holds_is_waited_for,
    an_apikey_that_was_never_issued_goes,
    an_apikey_created_again_while_the_controller_was_away_gets_a_new_key,
    a_namespace_goes_with_its_keys,
    a_secret_that_went_first_keeps_nothing,
];

/// Incidents 24: in the background, in the foreground and with orphans, the Secret goes before the ApiKey does, and is not
/// created again.
fn every_way_of_deleting_takes_the_secret_and_recreates_nothing() {
    let stage = Stage::new("deleting");
    let history = stage.history();
    let operator = eager(&stage);
    for cascade in ["background", "foreground", "orphan"] {
        stage.declare(cascade, "{}");
        stage.wait_issued(cascade);
        let uid = stage.secret(cascade).unwrap().uid();
        stage.kubectl(&[
            "delete",
            "apikey",
            cascade,
            &format!("--cascade={cascade}"),
            "--timeout=80s",
        ]);
        assert!(
            stage.secret(cascade).is_none(),
            "{cascade}: the Secret {uid:?} went first"
        );
        pass(&stage, &format!("after-{cascade}"));
        assert!(
            stage.secret(cascade).is_none(),
            "{cascade}: nothing is created again"
        );
    }
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 24, 7: a Secret that we delivered is ours to remove, whatever was done to it since.
fn an_edited_or_stripped_secret_of_ours_goes_too() {
    let stage = Stage::new("edited-goes");
    let history = stage.history();
    let operator = eager(&stage);
    stage.declare("edited", "{}");
    stage.declare("stripped", "{}");
    for name in ["edited", "stripped"] {
        stage.wait_issued(name);
        // While it is edited, nothing on it is mended: what is stripped then stays so.
        stage.patch(
            &format!("secret/{name}"),
            r#"{"stringData": {"api-key": "something else"}}"#,
        );
        wait_condition(
            &stage,
            name,
            ConditionType::Delivered,
            "False/SecretChanged",
        );
    }
    stage.patch(
        "secret/stripped",
        &json!({ "metadata": { "labels": { LABEL_APIKEY: null }, "ownerReferences": null } })
            .to_string(),
    );
    pass(&stage, "marker");
    assert!(
        !stage
            .secret("stripped")
            .unwrap()
            .labels()
            .contains_key(LABEL_APIKEY)
    );
    for name in ["edited", "stripped"] {
        stage.kubectl(&["delete", "apikey", name, "--timeout=80s"]);
        assert!(stage.secret(name).is_none(), "{name}");
    }
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 25: a Secret that somebody's finalizer holds is waited for, and so is the ApiKey.
fn a_secret_that_somebody_holds_is_waited_for() {
    let stage = Stage::new("held");
    let history = stage.history();
    let operator = eager(&stage);
    stage.declare("k", "{}");
    stage.wait_issued("k");
    stage.patch(
        "secret/k",
        r#"{"metadata": {"finalizers": ["example.com/hold"]}}"#,
    );
    stage.kubectl(&["delete", "apikey", "k", "--wait=false"]);
    wait_secret(&stage, "k", "is being deleted", |secret| {
        secret.metadata.deletion_timestamp.is_some()
    });
    pass(&stage, "marker");
    assert_eq!(
        stage.apikey("k").finalizers(),
        [FINALIZER],
        "it waits for its Secret"
    );
    stage.patch("secret/k", r#"{"metadata": {"finalizers": null}}"#);
    stage.wait_gone("k");
    assert!(stage.secret("k").is_none());
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 11, 24: what waits for a conflict to end, and what nobody has looked at yet, can be deleted.
fn an_apikey_that_was_never_issued_goes() {
    let stage = Stage::new("never-issued");
    let history = stage.history();
    stage.kubectl(&[
        "create",
        "secret",
        "generic",
        "blocked",
        "--from-literal=api-key=theirs",
    ]);
    // As from a manifest that carries the finalizer, deleted before any controller came.
    let unseen = crate::support::stage::manifest("unseen", "{}").replace(
        "{name: unseen}",
        &format!("{{name: unseen, finalizers: [{FINALIZER}]}}"),
    );
    stage.apply(&unseen);
    stage.kubectl(&["delete", "apikey", "unseen", "--wait=false"]);
    let operator = eager(&stage);
    stage.wait_gone("unseen");
    stage.declare("blocked", "{}");
    wait_condition(
        &stage,
        "blocked",
        ConditionType::Delivered,
        "False/SecretConflict",
    );
    stage.kubectl(&["delete", "apikey", "blocked", "--timeout=80s"]);
    assert_eq!(
        stage.mounted("blocked")["api-key"],
        "theirs",
        "the Secret in the way stays"
    );
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 10: deleted and created again with the same name while the controller was away: the new ApiKey gets a key of its
/// own, and the old key never comes back.
fn an_apikey_created_again_while_the_controller_was_away_gets_a_new_key() {
    let stage = Stage::new("again");
    let history = stage.history();
    let operator = eager(&stage);
    stage.declare("k", "{}");
    let old = stage.wait_issued("k");
    let old_key = stage.mounted("k")["api-key"].clone();
    let old_uid = stage.apikey("k").uid();
    operator.kill();
    // Somebody was in a hurry and took the finalizer off.
    stage.patch("apikey/k", r#"{"metadata": {"finalizers": null}}"#);
    stage.kubectl(&["delete", "apikey", "k", "--timeout=80s"]);
    stage.declare("k", "{}");
    assert_ne!(stage.apikey("k").uid(), old_uid);
    let operator = eager(&stage);
    let new = stage.wait_issued("k");
    let uid = stage.apikey("k").uid();
    assert_ne!((&new.hash, &new.key_id), (&old.hash, &old.key_id));
    pass(&stage, "marker");
    assert_ne!(
        stage.mounted("k")["api-key"],
        old_key,
        "the old key never revives"
    );
    assert_eq!(
        stage
            .secret("k")
            .unwrap()
            .owner_references()
            .iter()
            .map(|owner| Some(owner.uid.clone()))
            .collect::<Vec<_>>(),
        [uid]
    );
    assert_eq!(stage.status("k").versions.len(), 1);
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 25: a namespace with keys in every state ends while the controller runs.
fn a_namespace_goes_with_its_keys() {
    let stage = Stage::new("namespace-goes");
    let history = stage.history();
    let operator = eager(&stage);
    stage.kubectl(&[
        "create",
        "secret",
        "generic",
        "blocked",
        "--from-literal=api-key=theirs",
    ]);
    stage.declare("active", "{}");
    stage.declare("revoked", "{revoked: true}");
    stage.declare("blocked", "{}");
    stage.declare("missing", "{}");
    stage.wait_issued("active");
    stage.wait_issued("missing");
    stage.kubectl(&["delete", "secret", "missing"]);
    wait_condition(
        &stage,
        "missing",
        ConditionType::Delivered,
        "False/SecretMissing",
    );
    wait_condition(
        &stage,
        "blocked",
        ConditionType::Delivered,
        "False/SecretConflict",
    );
    stage
        .cluster
        .kubectl(&["delete", "namespace", &stage.namespace, "--timeout=85s"]);
    assert!(stage.find("active").is_none() && stage.secret("active").is_none());
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 25: a Secret that was deleted before its ApiKey holds nothing up; nor does a namespace whose Secrets went first.
fn a_secret_that_went_first_keeps_nothing() {
    let stage = Stage::new("went-first");
    let history = stage.history();
    let operator = eager(&stage);
    stage.declare("one", "{}");
    stage.declare("two", "{}");
    stage.wait_issued("one");
    stage.wait_issued("two");
    stage.kubectl(&["delete", "secret", "one"]);
    stage.kubectl(&["delete", "apikey", "one", "--timeout=80s"]);
    // Everything in one go, in the order in which a namespace may be emptied.
    assert!(operator.stop().success());
    stage
        .cluster
        .kubectl(&["delete", "namespace", &stage.namespace, "--wait=false"]);
    wait::until_true("its Secrets are gone", || stage.secret("two").is_none());
    wait::until_true("the ApiKey waits", || stage.apikey("two").is_deleting());
    let operator = stage.operator().start_ready();
    wait::until_true("the namespace is gone", || {
        !stage
            .cluster
            .try_kubectl(&["get", "namespace", &stage.namespace], "")
            .status
            .success()
    });
    assert!(operator.stop().success());
    history.check();
}
