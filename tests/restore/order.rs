//! Whatever comes back first, and whatever garbage collection takes away again.

use claviger::api::{ApiKeyStatus, ConditionType};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::{data, portable, put_status_back, wait_owned};
use crate::drift::{create, eager, minted, pass, wait_condition};
use crate::stories;
use crate::support::stage::{Stage, condition};
use crate::support::wait;

stories![
    secrets_with_stale_owners_are_collected_and_nothing_is_minted_for_them,
    apikeys_with_their_status_may_come_before_their_secrets,
    a_status_may_come_last_while_minting_is_held,
    what_an_older_backup_brings_back_of_what_was_to_be_gone_goes_again,
    a_status_from_before_is_refused_where_the_apikey_has_gone_on,
];

/// An ApiKey and its Secret, as they were saved before both went.
struct Saved {
    apikey: String,
    status: ApiKeyStatus,
    secret: String,
    stale: String,
}

/// Issues keys, saves them, deletes them, and stops the controller.
fn saved(stage: &Stage, names: &[&str]) -> Vec<Saved> {
    let operator = stage.operator().start_ready();
    let all: Vec<Saved> = names
        .iter()
        .map(|name| {
            stage.declare(name, r#"{revision: 1, expiry: {after: 90d}, secret: {template: {data: {H: "Bearer ${key}"}}}}"#);
            stage.wait_issued(name);
            stage.patch(&format!("apikey/{name}"), r#"{"spec": {"revision": 2}}"#);
            stage.wait(name, "is rotated", |status| status.version == Some(2) && status.revision == Some(2));
            let status = stage.wait_issued(name);
            let (apikey, secret) = (stage.apikey(name), stage.secret(name).unwrap());
            let mut owned: Value = serde_json::from_str(&portable(&secret)).unwrap();
            owned["metadata"]["ownerReferences"] = json!(secret.owner_references());
            Saved { apikey: portable(&apikey), status, secret: portable(&secret), stale: owned.to_string() }
        })
        .collect();
    stage.kubectl(&["delete", "apikeys", "--all", "--timeout=60s"]);
    assert!(operator.stop().success());
    all
}

/// Incidents 40: the garbage collector takes Secrets that name an owner who is gone, within seconds. Their ApiKeys say that they are
/// missing and mint nothing; put back once more without owners, all is well.
fn secrets_with_stale_owners_are_collected_and_nothing_is_minted_for_them() {
    let stage = Stage::new("stale-owners");
    let all = saved(&stage, &["k"]);
    let k = &all[0];
    let history = stage.history();
    create(&stage, &k.stale);
    create(&stage, &k.apikey);
    put_status_back(&stage, &k.apikey);
    wait::until_true("the garbage collector has taken the Secret", || {
        stage.secret("k").is_none()
    });
    let operator = eager(&stage);
    let lost = wait_condition(&stage, "k", ConditionType::Delivered, "False/SecretMissing");
    assert_eq!(
        condition(&lost, ConditionType::Usable),
        "True/Active",
        "whoever holds the key may go on"
    );
    pass(&stage, "marker");
    assert_eq!(minted(&stage.status("k")), minted(&k.status));
    assert!(stage.secret("k").is_none(), "nothing was minted");
    create(&stage, &k.secret);
    wait_condition(&stage, "k", ConditionType::Ready, "True/Issued");
    wait_owned(&stage, "k");
    assert_eq!(minted(&stage.wait_issued("k")), minted(&k.status));
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 42: where ApiKeys come back with their status, the Secrets can come later; a controller that works meanwhile mints
/// nothing. Even one that still names its old owner is recognised, if only the garbage collector is slower.
fn apikeys_with_their_status_may_come_before_their_secrets() {
    let stage = Stage::new("apikeys-first");
    let all = saved(&stage, &["k", "l"]);
    let history = stage.history();
    for one in &all {
        create(&stage, &one.apikey);
        put_status_back(&stage, &one.apikey);
    }
    let operator = eager(&stage);
    for (one, name) in all.iter().zip(["k", "l"]) {
        let lost = wait_condition(
            &stage,
            name,
            ConditionType::Delivered,
            "False/SecretMissing",
        );
        assert_eq!(minted(&lost), minted(&one.status));
    }
    create(&stage, &all[0].secret);
    create(&stage, &all[1].secret);
    for (one, name) in all.iter().zip(["k", "l"]) {
        wait_condition(&stage, name, ConditionType::Ready, "True/Issued");
        wait_owned(&stage, name);
        assert_eq!(minted(&stage.wait_issued(name)), minted(&one.status));
        let held: Value = serde_json::from_str(&one.secret).unwrap();
        assert_eq!(json!(data(&stage, name)), held["data"], "byte for byte");
    }
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 42: ApiKeys come first, then Secrets, the status last. As long as minting is held, nothing goes wrong, nor when the
/// controller is restarted in between.
fn a_status_may_come_last_while_minting_is_held() {
    let stage = Stage::new("status-last");
    let all = saved(&stage, &["k"]);
    let k = &all[0];
    let history = stage.history();
    let held = || {
        stage
            .operator()
            .args(&["--hold-minting", "--max-backoff=1s"])
            .start_ready()
    };
    let operator = held();
    create(&stage, &k.apikey);
    let waits = stage.wait_reason("k", ConditionType::Ready, "MintingHeld");
    assert!(waits.versions.is_empty() && waits.key_id.is_none());
    assert_eq!(
        condition(&waits, ConditionType::Stalled),
        "False/NotStalled"
    );
    create(&stage, &k.secret);
    let put_back = stage.secret("k").unwrap();
    assert!(operator.stop().success());
    let operator = held();
    stage.declare("another", "{}");
    stage.wait_reason("another", ConditionType::Ready, "MintingHeld");
    assert_eq!(
        stage.secret("k").unwrap().resource_version(),
        put_back.resource_version(),
        "left alone"
    );
    put_status_back(&stage, &k.apikey);
    wait_condition(&stage, "k", ConditionType::Ready, "True/Issued");
    wait_owned(&stage, "k");
    assert!(stage.secret("another").is_none());
    assert!(operator.stop().success());
    let operator = eager(&stage);
    stage.wait_issued("another");
    assert_eq!(minted(&stage.wait_issued("k")), minted(&k.status));
    assert_eq!(data(&stage, "k"), put_back.data);
    assert!(operator.stop().success());
    history.check();
}

/// A Secret of an older backup, from before its key was collected or had ended, comes back next to a newer status: what was to be
/// gone goes again.
fn what_an_older_backup_brings_back_of_what_was_to_be_gone_goes_again() {
    let stage = Stage::new("older");
    let history = stage.history();
    let operator = eager(&stage);
    stage.declare("shown", "{secret: {retention: UntilCollected}}");
    stage.declare("ended", "{secret: {retention: WhileActive}}");
    let copies = ["shown", "ended"].map(|name| {
        stage.wait_issued(name);
        portable(&stage.secret(name).unwrap())
    });
    stage.kubectl(&["annotate", "secret", "shown", "claviger.dev/collected=true"]);
    stage.patch("apikey/ended", r#"{"spec": {"revoked": true}}"#);
    for (name, copy) in ["shown", "ended"].into_iter().zip(&copies) {
        wait::until_true("the Secret goes", || stage.secret(name).is_none());
        let done = stage.wait(name, "has noted it", |status| status.secret_ref.is_none());
        create(&stage, copy);
        wait::until_true("it goes again", || stage.secret(name).is_none());
        pass(&stage, &format!("marker-{name}"));
        assert_eq!(minted(&stage.status(name)), minted(&done));
    }
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 8, 23: the status of a backup is written over an ApiKey that still exists, and that was revoked or rotated since: it is
/// refused, and what has ended stays so.
fn a_status_from_before_is_refused_where_the_apikey_has_gone_on() {
    let stage = Stage::new("gone-on");
    let operator = stage.operator().start_ready();
    let saved = ["revoked", "rotated"].map(|name| {
        stage.declare(name, "{revision: 1}");
        stage.wait_issued(name);
        portable(&stage.apikey(name))
    });
    stage.patch("apikey/revoked", r#"{"spec": {"revoked": true}}"#);
    stage.wait("revoked", "is revoked", ApiKeyStatus::is_final);
    stage.patch("apikey/rotated", r#"{"spec": {"revision": 2}}"#);
    stage.wait("rotated", "is rotated", |status| status.version == Some(2));
    assert!(operator.stop().success());
    for (name, copy) in ["revoked", "rotated"].into_iter().zip(&saved) {
        let before = stage.apikey(name);
        for (arguments, told) in [
            (&["create", "-f", "-"][..], "AlreadyExists"),
            (
                &["replace", "--subresource=status", "-f", "-"][..],
                "is invalid",
            ),
        ] {
            let done = stage
                .cluster
                .try_kubectl(&[&["-n", &stage.namespace], arguments].concat(), copy);
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(
                !done.status.success() && said.contains(told),
                "{name}: {said}"
            );
        }
        assert_eq!(stage.apikey(name), before);
    }
}
