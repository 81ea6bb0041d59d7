//! ApiKeys that came back without their status, around Secrets that came back: a conflict, until somebody says `adopt`.

use claviger::api::names::{
    ANNOTATION_ADOPT, ANNOTATION_ENDED_AT, ANNOTATION_EXPIRES_AT, LABEL_APIKEY,
};
use claviger::api::{ConditionType, Phase};
use claviger::key::{Hash, Key, OsRandom, Prefix};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::{data, portable, wait_owned};
use crate::drift::{create, eager, message, pass, wait_condition};
use crate::stories;
use crate::support::stage::{Stage, condition};
use crate::support::wait;

stories![
    without_a_status_a_restored_secret_is_a_conflict_until_it_is_adopted,
    the_end_that_a_secret_tells_can_only_shorten_the_life_of_its_key,
    what_may_not_be_adopted_is_refused_and_left_alone,
    while_minting_is_held_nothing_is_adopted,
];

fn adopt(stage: &Stage, name: &str) {
    stage.kubectl(&[
        "annotate",
        "apikey",
        name,
        &format!("{ANNOTATION_ADOPT}=true"),
    ]);
}

/// A Secret that holds a key as somebody kept it.
fn kept(name: &str, key: &str, annotations: &Value) -> String {
    let metadata =
        json!({ "name": name, "labels": { LABEL_APIKEY: name }, "annotations": annotations });
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": { "api-key": key } }).to_string()
}

fn mint() -> Key {
    Key::mint(&Prefix::default(), &mut OsRandom).unwrap()
}

/// Incidents 8, 9, 42: the name is taken, and the message says what helps. Adopted, the Secret's key goes on as it is, whatever is left
/// of its metadata.
fn without_a_status_a_restored_secret_is_a_conflict_until_it_is_adopted() {
    let stage = Stage::new("adopted");
    let operator = stage.operator().start_ready();
    let spec =
        r#"{secret: {template: {metadata: {labels: {team: a}}, data: {H: "Bearer ${key}"}}}}"#;
    let copies: Vec<_> = ["whole", "bare"]
        .into_iter()
        .map(|name| {
            stage.declare(name, spec);
            let status = stage.wait_issued(name);
            let (apikey, secret) = (stage.apikey(name), stage.secret(name).unwrap());
            // Of one, nothing but its data was saved.
            let secret = if name == "bare" {
                crate::drift::copy_of(&secret)
            } else {
                portable(&secret)
            };
            (name, status, portable(&apikey), secret)
        })
        .collect();
    stage.kubectl(&["delete", "apikeys", "--all", "--timeout=60s"]);
    assert!(operator.stop().success());
    let history = stage.history();
    let operator = eager(&stage);
    for (name, before, apikey, secret) in &copies {
        create(&stage, secret);
        let put_back = stage.secret(name).unwrap();
        create(&stage, apikey);
        let conflict = wait_condition(
            &stage,
            name,
            ConditionType::Delivered,
            "False/SecretConflict",
        );
        assert_eq!(
            condition(&conflict, ConditionType::Stalled),
            "True/SecretConflict"
        );
        let text = message(&conflict, ConditionType::Ready);
        assert!(
            text.contains("annotation claviger.dev/adopt: \"true\""),
            "{text}"
        );
        pass(&stage, &format!("marker-{name}"));
        let waits = stage.status(name);
        assert!(
            waits.versions.is_empty() && waits.hash.is_none(),
            "nothing is announced for long: {waits:?}"
        );
        assert_eq!(
            stage.secret(name).unwrap().resource_version(),
            put_back.resource_version(),
            "left alone"
        );

        adopt(&stage, name);
        let adopted = stage.wait_phase(name, Phase::Active);
        assert_eq!(adopted.hash, before.hash, "the same key");
        assert_eq!(adopted.versions.len(), 1);
        wait_owned(&stage, name);
        wait_condition(&stage, name, ConditionType::Ready, "True/Issued");
        let now = stage.secret(name).unwrap();
        assert_eq!(
            (now.uid(), now.data.clone()),
            (put_back.uid(), put_back.data.clone()),
            "byte for byte"
        );
        assert_eq!(now.labels().get("team").map(String::as_str), Some("a"));
    }
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 8: the annotation `expires-at` of a Secret shortens the life of its key and never lengthens it; one in the past ends it
/// before it is ever usable.
fn the_end_that_a_secret_tells_can_only_shorten_the_life_of_its_key() {
    let stage = Stage::new("adopted-ends");
    let history = stage.history();
    let operator = eager(&stage);
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let hours = SignedDuration::from_hours;
    let cases = [
        (
            "sooner",
            now + hours(24),
            "{expiry: {after: 90d}}",
            Some(now + hours(24)),
        ),
        (
            "later",
            now + hours(24 * 3650),
            "{expiry: {after: 90d}}",
            None,
        ),
        ("only", now + hours(24), "{}", Some(now + hours(24))),
        (
            "past",
            now - hours(24),
            "{expiry: {after: 90d}}",
            Some(now - hours(24)),
        ),
        ("past-only", now - hours(24), "{}", Some(now - hours(24))),
    ];
    for (name, told, spec, wanted) in cases {
        let key = mint();
        create(
            &stage,
            &kept(
                name,
                key.expose(),
                &json!({ ANNOTATION_EXPIRES_AT: told.to_string() }),
            ),
        );
        stage.declare(name, spec);
        wait_condition(
            &stage,
            name,
            ConditionType::Delivered,
            "False/SecretConflict",
        );
        adopt(&stage, name);
        let phase = if told < now {
            Phase::Expired
        } else {
            Phase::Active
        };
        let status = stage.wait_phase(name, phase);
        let ends = status.expires_at.as_ref().unwrap().0;
        match wanted {
            Some(wanted) => assert_eq!(ends, wanted, "{name}"),
            None => assert!(ends <= Timestamp::now() + hours(24 * 90), "{name}: {ends}"),
        }
        let held: Vec<_> = status
            .versions
            .iter()
            .map(|version| version.hash.clone())
            .collect();
        if phase == Phase::Active {
            assert_eq!(held, [key.hash().to_string()]);
        }
        assert_eq!(
            data(&stage, name).unwrap()["api-key"].0,
            key.expose().as_bytes(),
            "{name}: no other key"
        );
    }
    for state in history.states() {
        if let crate::support::history::State::Apikey(apikey) = state {
            let status = apikey.status.clone().unwrap_or_default();
            let usable = condition(&status, ConditionType::Usable);
            assert!(
                !apikey.name_any().starts_with("past") || !usable.starts_with("True"),
                "never usable: {usable}"
            );
        }
    }
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 8, 25, 29: a key that has ended, that another ApiKey has, that is weak or missing, or that belongs to somebody else, is
/// not taken over, and its Secret is left alone. When what stands in the way is gone, it is.
fn what_may_not_be_adopted_is_refused_and_left_alone() {
    let stage = Stage::new("not-adopted");
    let history = stage.history();
    let operator = eager(&stage);
    stage.declare("living", "{}");
    let living = stage.wait_issued("living");
    let theirs = stage.mounted("living")["api-key"].clone();
    stage.kubectl(&["create", "configmap", "landlord"]);
    let landlord = stage.kubectl(&[
        "get",
        "configmap",
        "landlord",
        "-o",
        "jsonpath={.metadata.uid}",
    ]);
    let none = json!({});
    let mut owned: Value = serde_json::from_str(&kept("owned", mint().expose(), &none)).unwrap();
    owned["metadata"]["ownerReferences"] = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "landlord", "uid": landlord, "controller": true }]);
    let mut missing: Value = serde_json::from_str(&kept("missing", "x", &none)).unwrap();
    missing["stringData"] = json!({ "other": mint().expose() });
    let cases = [
        (
            "ended",
            kept(
                "ended",
                mint().expose(),
                &json!({ ANNOTATION_ENDED_AT: "2026-01-01T00:00:00Z" }),
            ),
            "AdoptionRefused",
            "which is final",
        ),
        (
            "moment",
            kept(
                "moment",
                mint().expose(),
                &json!({ ANNOTATION_EXPIRES_AT: "soon" }),
            ),
            "AdoptionRefused",
            "is not a moment",
        ),
        (
            "weak",
            kept("weak", "hunter2-hunter2", &none),
            "AdoptionRefused",
            "too easy to guess",
        ),
        (
            "empty",
            kept("empty", "", &none),
            "AdoptionRefused",
            "missing or empty",
        ),
        (
            "missing",
            missing.to_string(),
            "AdoptionRefused",
            "missing or empty",
        ),
        (
            "owned",
            owned.to_string(),
            "AdoptionRefused",
            "it belongs to ConfigMap landlord",
        ),
        (
            "second",
            kept("second", &theirs, &none),
            "DuplicateKey",
            living.key_id.as_deref().unwrap(),
        ),
    ];
    let before: Vec<_> = cases
        .iter()
        .map(|(name, secret, ..)| {
            create(&stage, secret);
            let before = stage.secret(name).unwrap();
            stage.apply(&format!(
                "apiVersion: claviger.dev/v1alpha1\nkind: ApiKey\nmetadata: {{name: {name}, annotations: {{{ANNOTATION_ADOPT}: \"true\"}}}}\nspec: {{}}\n"
            ));
            before
        })
        .collect();
    let all_left_alone = || {
        for ((name, ..), before) in cases.iter().zip(&before) {
            assert_eq!(
                stage.secret(name).unwrap().resource_version(),
                before.resource_version(),
                "{name}: left alone"
            );
            let status = stage.status(name);
            assert!(
                status.versions.is_empty() && status.hash.is_none(),
                "{name}: {status:?}"
            );
        }
    };
    for (name, _, reason, told) in &cases {
        let status = wait_condition(
            &stage,
            name,
            ConditionType::Ready,
            &format!("False/{reason}"),
        );
        assert_eq!(
            condition(&status, ConditionType::Stalled),
            format!("True/{reason}"),
            "{name}"
        );
        let text = message(&status, ConditionType::Ready);
        assert!(text.contains(told), "{name}: {text}");
        assert!(
            *name != "second" || !text.contains("living"),
            "only the key ID: {text}"
        );
    }
    pass(&stage, "marker");
    all_left_alone();

    // What stood in the way goes.
    stage.patch("secret/owned", r#"{"metadata": {"ownerReferences": null}}"#);
    stage.patch(
        "secret/moment",
        &json!({ "metadata": { "annotations": { ANNOTATION_EXPIRES_AT: null } } }).to_string(),
    );
    stage.kubectl(&["delete", "apikey", "living", "--timeout=60s"]);
    for name in ["owned", "moment", "second"] {
        stage.wait_phase(name, Phase::Active);
        wait_owned(&stage, name);
    }
    assert_eq!(
        stage.status("second").hash,
        Some(Hash::of(theirs.as_bytes()).to_string())
    );
    stage.kubectl(&["delete", "secret", "ended"]);
    wait::until("it says that there is none", || {
        let text = message(&stage.status("ended"), ConditionType::Ready);
        if text.contains("which does not exist") {
            Ok(())
        } else {
            Err(text)
        }
    });
    assert!(
        stage.secret("ended").is_none(),
        "nothing is minted in its place"
    );
    assert!(operator.stop().success());
    history.check();
}

/// While minting is held nothing is taken over, so that the status can still come.
fn while_minting_is_held_nothing_is_adopted() {
    let stage = Stage::new("adopting-held");
    let history = stage.history();
    let key = mint();
    create(&stage, &kept("k", key.expose(), &json!({})));
    let operator = stage
        .operator()
        .args(&["--hold-minting", "--max-backoff=1s"])
        .start_ready();
    stage.declare("k", "{}");
    adopt(&stage, "k");
    let held = stage.wait_reason("k", ConditionType::Ready, "MintingHeld");
    assert!(held.versions.is_empty() && held.key_id.is_none());
    assert!(operator.stop().success());
    let operator = eager(&stage);
    assert_eq!(
        stage.wait_phase("k", Phase::Active).hash,
        Some(key.hash().to_string())
    );
    wait_owned(&stage, "k");
    assert!(operator.stop().success());
    history.check();
}
