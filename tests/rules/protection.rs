//! The status is the only authority, so it protects itself: what was recorded once stays, even against an administrator.

use claviger::api::Phase;
use serde_json::{Value, json};

use super::statuses::{hash, version, with};
use super::{Part, Rule, tell};
use crate::stories;

stories![
    what_a_status_has_recorded_stays,
    the_status_of_an_issued_key_withstands_an_administrator
];

const KEY_ID: &str = "status.keyId is set once and stays";
const FINAL: &str = "Expired and Revoked are final";
const EXPIRES: &str = "status.expiresAt is fixed at the first announcement, and can only come nearer until the key is issued";
const EXPIRED: &str = "status.expiredAt is set once and stays";
const REVOKED: &str = "status.revokedAt is set once and stays";
const USED: &str = "status.lastUsedAt can only grow";
const DELIVERED: &str =
    "a delivered version stays listed until it is retired, and its hash stays as it is";

fn what_a_status_has_recorded_stays() {
    let stage = super::stage("protection");
    tell(&stage, Part::Status, &rules());
}

pub(super) fn rules() -> Vec<Rule> {
    let id = json!("0a".repeat(16));
    let other = json!("0b".repeat(16));
    let rule = |message: &str, before: &Value, broken: Value, nearest: Value| {
        Rule::change(message, before.clone(), broken, message, nearest)
    };
    let announced = json!({ "keyId": id, "phase": "Pending" });
    let mut all = vec![
        rule(
            KEY_ID,
            &announced,
            with(&announced, "keyId", other),
            with(&announced, "phase", json!("Active")),
        ),
        rule(
            KEY_ID,
            &announced,
            with(&announced, "keyId", Value::Null),
            announced.clone(),
        ),
        rule(KEY_ID, &announced, Value::Null, announced.clone()),
        rule(
            KEY_ID,
            &json!({ "phase": "Pending", "keyId": id }),
            json!({}),
            json!({ "keyId": id }),
        ),
    ];
    for (phase, others) in [
        ("Expired", ["Active", "Pending", "Revoked"]),
        ("Revoked", ["Active", "Pending", "Expired"]),
    ] {
        let ended = json!({ "phase": phase });
        all.extend(others.map(|other| {
            rule(
                FINAL,
                &ended,
                json!({ "phase": other }),
                with(&ended, "tail", json!("2Xk9Qd")),
            )
        }));
        all.push(rule(
            FINAL,
            &ended,
            json!({ "tail": "2Xk9Qd" }),
            ended.clone(),
        ));
        all.push(rule(FINAL, &ended, Value::Null, ended.clone()));
    }
    for (message, field) in [
        (EXPIRES, "expiresAt"),
        (EXPIRED, "expiredAt"),
        (REVOKED, "revokedAt"),
    ] {
        let set = json!({ field: "2026-03-01T00:00:00Z" });
        all.push(rule(
            message,
            &set,
            json!({ field: "2026-03-01T00:00:01Z" }),
            json!({ field: "2026-03-01T01:00:00+01:00" }),
        ));
        all.push(rule(
            message,
            &set,
            json!({ "phase": "Pending" }),
            with(&set, "phase", json!("Pending")),
        ));
        all.push(rule(message, &set, Value::Null, set.clone()));
    }
    let used = json!({ "lastUsedAt": "2026-03-01T00:00:00Z" });
    all.push(rule(
        USED,
        &used,
        json!({ "lastUsedAt": "2026-02-28T23:59:59Z" }),
        json!({ "lastUsedAt": "2026-03-01T00:00:01Z" }),
    ));
    all.push(rule(
        USED,
        &used,
        json!({ "phase": "Pending" }),
        with(&used, "phase", json!("Pending")),
    ));
    all.push(rule(USED, &used, Value::Null, used.clone()));
    // A key that was announced without an end does not get one later, and one that has an end keeps it.
    let issued = with(&announced, "issuedAt", json!("2026-03-01T00:00:00Z"));
    all.push(rule(
        EXPIRES,
        &issued,
        with(&issued, "expiresAt", json!("2097-03-01T00:00:00Z")),
        issued.clone(),
    ));
    // Until then it can come nearer: a Secret that is adopted may say when its key ends.
    let expires = |text: &str| with(&announced, "expiresAt", json!(text));
    all.push(rule(
        EXPIRES,
        &expires("2026-03-02T00:00:00Z"),
        expires("2026-03-02T00:00:01Z"),
        expires("2026-03-01T00:00:00Z"),
    ));
    let late = with(&issued, "expiresAt", json!("2026-03-02T00:00:00Z"));
    all.push(rule(
        EXPIRES,
        &late,
        with(&late, "expiresAt", json!("2026-03-01T00:00:00Z")),
        late.clone(),
    ));
    let current = with(&version(1), "phase", json!("Current"));
    let status = |versions: &[&Value]| json!({ "versions": versions });
    let before = status(&[&current, &version(2)]);
    all.extend([
        rule(
            DELIVERED,
            &before,
            status(&[&with(&current, "hash", json!(hash("b")))]),
            status(&[&current]),
        ),
        rule(
            DELIVERED,
            &before,
            status(&[&with(&current, "version", json!(3)), &version(2)]),
            status(&[&current, &version(3)]),
        ),
        rule(
            DELIVERED,
            &before,
            status(&[&version(1), &version(2)]),
            status(&[&current, &with(&version(2), "hash", json!(hash("b")))]),
        ),
        rule(
            DELIVERED,
            &before,
            status(&[&version(2)]),
            status(&[
                &with(&current, "phase", json!("Retiring")),
                &with(&version(2), "phase", json!("Current")),
            ]),
        ),
        rule(
            DELIVERED,
            &before,
            json!({ "phase": "Active" }),
            with(&before, "phase", json!("Active")),
        ),
        rule(DELIVERED, &before, Value::Null, before.clone()),
    ]);
    all
}

/// The same on a key that a controller has issued, through every verb that writes a status.
fn the_status_of_an_issued_key_withstands_an_administrator() {
    let stage = super::stage("issued-status");
    let operator = stage.operator().start_ready();
    stage.declare("billing", "{expiry: {after: 90d}}");
    stage.declare("brief", "{expiry: {after: 1s}}");
    stage.wait_issued("billing");
    stage.wait_phase("brief", Phase::Expired);
    assert!(operator.stop().success());
    let forged = json!([with(&version(1), "phase", json!("Current"))]);
    for (name, patch, says) in [
        ("billing", json!({ "keyId": "0a".repeat(16) }), KEY_ID),
        ("billing", json!({ "keyId": null }), KEY_ID),
        (
            "billing",
            json!({ "expiresAt": "2097-03-01T00:00:00Z" }),
            EXPIRES,
        ),
        ("billing", json!({ "expiresAt": null }), EXPIRES),
        ("billing", json!({ "versions": forged }), DELIVERED),
        ("billing", json!({ "versions": [] }), DELIVERED),
        ("billing", json!({ "versions": null }), DELIVERED),
        ("billing", Value::Null, KEY_ID),
        ("brief", json!({ "phase": "Active" }), FINAL),
        ("brief", json!({ "phase": "Revoked" }), FINAL),
        ("brief", json!({ "phase": null }), FINAL),
        ("brief", json!({ "expiredAt": null }), EXPIRED),
        (
            "brief",
            json!({ "expiredAt": "2097-03-01T00:00:00Z" }),
            EXPIRED,
        ),
        (
            "brief",
            json!({ "expiresAt": "2097-03-01T00:00:00Z" }),
            EXPIRES,
        ),
    ] {
        let before = stage.apikey(name);
        let merge = json!({ "status": patch }).to_string();
        let output = stage.try_kubectl(&[
            "patch",
            "apikey",
            name,
            "--subresource=status",
            "--type=merge",
            "-p",
            &merge,
        ]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(says),
            "{merge}: {said}"
        );
        assert_eq!(stage.apikey(name), before, "{merge}");
    }
    let whole = [json!({ "op": "remove", "path": "/status" })];
    let bare = json!({ "apiVersion": "claviger.dev/v1alpha1", "kind": "ApiKey", "metadata": { "name": "billing" }, "spec": {} });
    let apply = [
        "-n",
        &stage.namespace,
        "replace",
        "--subresource=status",
        "-f",
        "-",
    ];
    let replaced = stage.cluster.try_kubectl(&apply, &bare.to_string());
    let removed = stage.try_kubectl(&[
        "patch",
        "apikey",
        "billing",
        "--subresource=status",
        "--type=json",
        "-p",
        &json!(whole).to_string(),
    ]);
    for output in [replaced, removed] {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(KEY_ID),
            "wiped whole: {said}"
        );
    }
    // A write to the object itself does not touch the status at all.
    let before = stage.status("billing");
    stage.patch(
        "apikey/billing",
        &json!({ "status": { "phase": "Revoked", "keyId": "x" } }).to_string(),
    );
    assert_eq!(stage.status("billing"), before);
}
