//! ApiKeys that are deleted and made anew around a saved copy of their Secret.

use claviger::api::{ConditionType, Phase};
use kube::ResourceExt as _;

use super::{portable, wait_owned};
use crate::drift::{create, eager, message, pass, wait_condition};
use crate::stories;
use crate::support::stage::Stage;
use crate::support::wait;

stories![
    around_a_saved_copy_an_apikey_made_anew_is_a_conflict_and_no_key_returns,
    of_a_key_that_has_ended_only_a_copy_from_before_can_be_adopted,
];

/// Incidents 1, 8: a key that was active, rotated, expired, revoked or shown once, whose ApiKey was deleted. A copy of its Secret
/// around which an ApiKey of the same name is made anew gives a conflict, and no key: neither the old one nor a second one.
fn around_a_saved_copy_an_apikey_made_anew_is_a_conflict_and_no_key_returns() {
    let stage = Stage::new("anew");
    let operator = eager(&stage);
    let specs = [
        ("active", "{}"),
        ("rotated", "{revision: 1}"),
        ("expired", "{expiry: {after: 10s}}"),
        ("revoked", "{}"),
        ("shown", "{secret: {retention: UntilCollected}}"),
    ];
    for (name, spec) in specs {
        stage.declare(name, spec);
    }
    // Copies from while they were active: the Secret of the one that expires is read as soon as it is there.
    let copies = specs.map(|(name, _)| {
        wait::until_true("it is delivered", || stage.secret(name).is_some());
        portable(&stage.secret(name).unwrap())
    });
    let first = stage.wait_issued("rotated");
    stage.wait_issued("revoked");
    stage.wait_issued("shown");
    stage.patch("apikey/rotated", r#"{"spec": {"revision": 2}}"#);
    stage.wait("rotated", "is rotated", |status| {
        status.version == Some(2) && status.hash != first.hash
    });
    stage.patch("apikey/revoked", r#"{"spec": {"revoked": true}}"#);
    stage.wait_phase("revoked", Phase::Revoked);
    stage.kubectl(&["annotate", "secret", "shown", "claviger.dev/collected=true"]);
    wait::until_true("what was shown is gone", || stage.secret("shown").is_none());
    stage.wait_phase("expired", Phase::Expired);
    stage.kubectl(&["delete", "apikeys", "--all", "--timeout=60s"]);
    assert!(specs.iter().all(|(name, _)| stage.secret(name).is_none()));

    let history = stage.history();
    let restored: Vec<_> = copies
        .iter()
        .zip(specs)
        .map(|(copy, (name, _))| {
            create(&stage, copy);
            stage.declare(name, "{}");
            (name, stage.secret(name).unwrap())
        })
        .collect();
    for (name, _) in &restored {
        let conflict = wait_condition(
            &stage,
            name,
            ConditionType::Delivered,
            "False/SecretConflict",
        );
        assert!(message(&conflict, ConditionType::Ready).contains("claviger.dev/adopt"));
    }
    pass(&stage, "marker");
    assert!(operator.stop().success());
    let operator = eager(&stage);
    pass(&stage, "another-marker");
    for (name, before) in &restored {
        let status = stage.status(name);
        assert_eq!(
            (status.phase, status.hash, status.versions.len()),
            (Some(Phase::Pending), None, 0),
            "{name}: no key"
        );
        assert_eq!(
            stage.secret(name).unwrap().resource_version(),
            before.resource_version(),
            "{name}: left alone"
        );
    }
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 8: a copy that was saved after its key had ended says so and is refused, also with the annotation. One that was saved
/// before and never expires knows nothing of it: whoever has the verb `adopt` can bring that key back, as is documented.
fn of_a_key_that_has_ended_only_a_copy_from_before_can_be_adopted() {
    let stage = Stage::new("anew-ended");
    let operator = eager(&stage);
    stage.declare("revoked", "{}");
    stage.declare("expired", "{expiry: {after: 10s}}");
    let early = stage
        .wait_issued("revoked")
        .hash
        .map(|_| portable(&stage.secret("revoked").unwrap()))
        .unwrap();
    wait::until_true("it is delivered", || stage.secret("expired").is_some());
    let early_expired = portable(&stage.secret("expired").unwrap());
    let key = stage.status("revoked").hash;
    stage.patch("apikey/revoked", r#"{"spec": {"revoked": true}}"#);
    let late = ["revoked", "expired"].map(|name| {
        stage.wait_marked(name);
        portable(&stage.secret(name).unwrap())
    });
    let anew = |name: &str, copy: &str| {
        stage.kubectl(&[
            "delete",
            "apikey",
            name,
            "--timeout=60s",
            "--ignore-not-found",
        ]);
        stage.kubectl(&["delete", "secret", name, "--ignore-not-found"]);
        create(&stage, copy);
        stage.declare(name, "{}");
        stage.kubectl(&["annotate", "apikey", name, "claviger.dev/adopt=true"]);
    };
    for (name, copy) in ["revoked", "expired"].into_iter().zip(&late) {
        anew(name, copy);
        let refused = wait_condition(&stage, name, ConditionType::Ready, "False/AdoptionRefused");
        assert!(refused.versions.is_empty());
    }
    // Under another name, as something to import, they are refused as well, and an end is kept.
    for (name, copy) in [
        ("revoked", &late[0]),
        ("expired", &late[1]),
        ("expired", &early_expired),
    ] {
        let other = format!("{name}-copy");
        stage.kubectl(&["delete", "secret", &other, "--ignore-not-found"]);
        stage.kubectl(&[
            "delete",
            "apikey",
            "importing",
            "--ignore-not-found",
            "--timeout=60s",
        ]);
        create(
            &stage,
            &copy.replace(
                &format!("\"name\":\"{name}\""),
                &format!("\"name\":\"{other}\""),
            ),
        );
        stage.declare(
            "importing",
            &format!("{{source: {{secretRef: {{name: {other}, key: api-key}}}}}}"),
        );
        if copy == &early_expired {
            assert_eq!(
                stage.wait_phase("importing", Phase::Expired).issued_at,
                None,
                "never usable"
            );
        } else {
            let refused = wait_condition(
                &stage,
                "importing",
                ConditionType::Ready,
                "False/SourceRefused",
            );
            assert!(
                message(&refused, ConditionType::Ready).contains("says that the key ended"),
                "{refused:?}"
            );
        }
    }
    stage.kubectl(&["delete", "apikey", "importing", "--timeout=60s"]);
    // The Secret of a key with an end tells it, whenever it was saved.
    anew("expired", &early_expired);
    let expired = stage.wait_phase("expired", Phase::Expired);
    assert_eq!(expired.issued_at, None, "never usable");
    anew("revoked", &early);
    assert_eq!(
        stage.wait_phase("revoked", Phase::Active).hash,
        key,
        "what is documented as not protected"
    );
    wait_owned(&stage, "revoked");
    assert!(operator.stop().success());
}
