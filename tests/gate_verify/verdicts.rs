//! Every code, and what is told of the key with it.

use claviger::api::Phase;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{AUDIENCE, May, ask, caller, issued, stranger, told, verdict, wait_admitted};
use crate::stories;
use crate::support::gate::Gate;
use crate::support::stage::Stage;
use crate::support::wait;

stories![
    every_code_comes_with_what_the_status_says,
    a_version_that_retires_says_when
];

/// The facts of an ApiKey, from its own object; the permissions are told by the story.
fn facts(stage: &Stage, name: &str, permissions: &[&str]) -> Value {
    let apikey = stage.apikey(name);
    let (spec, status) = (&apikey.spec, apikey.status.as_ref().expect("a status"));
    let mut facts = json!({
        "keyId": status.key_id, "name": name, "namespace": stage.namespace, "principal": status.principal,
        "version": status.version, "audiences": spec.audiences, "roles": spec.roles, "permissions": permissions,
        "metadata": spec.metadata,
    });
    assert!(
        status.key_id.is_some() && status.principal.is_some() && status.version.is_some(),
        "{status:?}"
    );
    if let Some(organization) = &status.organization {
        facts["organization"] = json!(organization);
    }
    if let Some(expires) = &status.expires_at {
        facts["expiresAt"] = json!(expires.0.to_string());
    }
    facts
}

fn with(facts: &Value, code: &str, message: &str) -> Value {
    let mut all = facts.clone();
    all["valid"] = json!(code == "VALID");
    all["code"] = json!(code);
    all["message"] = json!(message);
    all
}

fn every_code_comes_with_what_the_status_says() {
    let stage = Stage::new("verdicts");
    stage.cluster.kubectl(&[
        "label",
        "namespace",
        &stage.namespace,
        "claviger.dev/organization=acme",
    ]);
    let operator = stage.operator().start_ready();
    let role = format!("{}-reader", stage.namespace);
    stage.role(&role, &["invoices:read", "invoices:list"]);
    let full = format!(
        "{{audiences: [{AUDIENCE}, orders-api], roles: [{role}], permissions: ['orders:read'], metadata: {{plan: gold}}, expiry: {{after: 90d}}}}"
    );
    let usual = format!("audiences: [{AUDIENCE}]");
    let expired = issued(
        &stage,
        "expired",
        &format!("{{{usual}, expiry: {{after: 10s}}}}"),
    );
    let good = issued(&stage, "good", &full);
    let plain = issued(&stage, "plain", &format!("{{{usual}}}"));
    let revoked = issued(&stage, "revoked", &format!("{{{usual}}}"));
    let rotated = issued(
        &stage,
        "rotated",
        &format!("{{{usual}, rotation: {{overlap: 0s}}}}"),
    );
    let gone = issued(&stage, "gone", &format!("{{{usual}}}"));
    stage.patch("apikey/revoked", r#"{"spec": {"revoked": true}}"#);
    stage.raise("rotated", 1);
    stage.kubectl(&["delete", "apikey", "gone", "--timeout=60s"]);
    stage.wait_rotated("rotated", 1);
    stage.wait_phase("revoked", Phase::Revoked);
    stage.wait_phase("expired", Phase::Expired);

    let gate = Gate::start(&stage);
    let token = caller(&stage, "proxy", May::Everywhere);
    wait_admitted(&gate, &token, None);
    let facts_of = |name| facts(&stage, name, &[]);
    let of_good = facts(
        &stage,
        "good",
        &["invoices:list", "invoices:read", "orders:read"],
    );
    assert_eq!(
        (&of_good["organization"], of_good["expiresAt"].is_string()),
        (&json!("acme"), true),
        "{of_good}"
    );
    let wants = |more: Value| {
        let mut question = json!({ "key": good, "audience": AUDIENCE });
        question
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        told(&ask(&gate, "/v1/verify", Some(&token), &question))
    };

    // What passes, by need.
    for need in [
        json!({}),
        json!({ "audience": "orders-api" }),
        json!({ "organization": "acme" }),
        json!({ "namespace": stage.namespace }),
        json!({ "permissions": "invoices:read AND (admin OR orders:read)" }),
    ] {
        assert_eq!(
            wants(need.clone()),
            with(&of_good, "VALID", "the key passes"),
            "{need}"
        );
    }
    let mut of_plain = facts_of("plain");
    assert!(
        of_plain.get("expiresAt").is_none() && of_plain["metadata"] == json!({}),
        "{of_plain}"
    );
    of_plain = with(&of_plain, "VALID", "the key passes");
    assert_eq!(verdict(&gate, &token, &plain), of_plain);

    // What does not, and why: the key's own facts come with it.
    for (need, code) in [
        (json!({ "audience": "payments-api" }), "WRONG_AUDIENCE"),
        (json!({ "organization": "globex" }), "WRONG_ORGANIZATION"),
        (
            json!({ "permissions": "invoices:read AND invoices:write" }),
            "INSUFFICIENT_PERMISSIONS",
        ),
    ] {
        let answer = wants(need);
        assert_eq!(
            answer,
            with(&of_good, code, answer["message"].as_str().expect("text")),
            "{code}"
        );
    }
    for (key, name, code, says) in [
        (&expired, "expired", "EXPIRED", "expired at"),
        (&revoked, "revoked", "REVOKED", "was revoked"),
        (
            &rotated,
            "rotated",
            "ROTATED",
            "replaced by a newer version",
        ),
    ] {
        let mut facts = facts_of(name);
        if name == "rotated" {
            facts["version"] = json!(1);
        }
        let answer = verdict(&gate, &token, key);
        assert!(
            answer["message"]
                .as_str()
                .is_some_and(|message| message.contains(says)),
            "{answer}"
        );
        assert_eq!(
            answer,
            with(&facts, code, answer["message"].as_str().expect("text")),
            "{code}"
        );
    }

    // Of a key that is none, nothing is told.
    let strange = stranger();
    for (key, code) in [
        ("", "MISSING"),
        ("not a key", "MALFORMED"),
        (&good[..good.len() - 1], "MALFORMED"),
        (&good.to_uppercase(), "MALFORMED"),
        (&gone, "NOT_FOUND"),
        (&strange, "NOT_FOUND"),
    ] {
        let answer = verdict(&gate, &token, key);
        let told: Vec<_> = answer
            .as_object()
            .expect("an object")
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(
            (told.as_slice(), &answer["code"]),
            (&["code", "message", "valid"][..], &json!(code)),
            "{key:?}: {answer}"
        );
    }
    assert!(gate.stop().success());
    let logs = gate.logs();
    for secret in [
        &good, &plain, &expired, &revoked, &rotated, &gone, &strange, &token,
    ] {
        assert!(
            !logs.contains(secret.as_str()),
            "the log holds a key or a token"
        );
    }
    assert!(
        logs.contains(stage.status("good").key_id.expect("an ID").as_str()),
        "it names keys by their ID"
    );
    assert!(operator.stop().success());
}

fn a_version_that_retires_says_when() {
    let stage = Stage::new("retiring");
    let _operator = stage.operator().start_ready();
    let old = issued(
        &stage,
        "k",
        &format!("{{audiences: [{AUDIENCE}], rotation: {{overlap: 1h}}}}"),
    );
    stage.raise("k", 1);
    let status = stage.wait_rotated("k", 1);
    let new = stage.mounted("k")["api-key"].clone();
    let gate = Gate::start(&stage);
    let token = caller(&stage, "proxy", May::Everywhere);
    wait_admitted(&gate, &token, None);
    let (of_old, of_new) = (verdict(&gate, &token, &old), verdict(&gate, &token, &new));
    let end = status.versions[0].retires_at.as_ref().expect("its end").0;
    let told: Timestamp = of_old["retiresAt"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("a time");
    assert_eq!(
        (&of_old["code"], &of_old["version"], told),
        (&json!("VALID"), &json!(1), end)
    );
    assert_eq!(
        (&of_new["code"], &of_new["version"], of_new.get("retiresAt")),
        (&json!("VALID"), &json!(2), None)
    );
    // Lowered, the overlap has ended: no controller has to say so first.
    stage.patch("apikey/k", r#"{"spec": {"rotation": {"overlap": "0s"}}}"#);
    wait::until("the old version ends", || {
        match verdict(&gate, &token, &old) {
            answer if answer["code"] == "ROTATED" => Ok(()),
            answer => Err(answer.to_string()),
        }
    });
    assert_eq!(verdict(&gate, &token, &new)["code"], "VALID");
}
