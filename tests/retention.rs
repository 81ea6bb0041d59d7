//! Secrets that do not stay: shown once, or only as long as the key is in use.

use std::time::Duration;

use claviger::api::names::ANNOTATION_COLLECTED;
use claviger::api::{ConditionType, Phase};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::ObjectMeta;
use serde_json::json;

use crate::clock::{self, look_again, set};
use crate::drift::create;
use crate::stories;
use crate::support::inprocess::InProcess;
use crate::support::leaks;
use crate::support::proxy::Call;
use crate::support::stage::{Stage, condition};
use crate::support::wait::{self, LIMIT};

stories![
    a_key_that_is_shown_once_is_nowhere_once_it_was_collected,
    a_key_that_nobody_collects_in_a_day_is_removed,
    a_secret_that_ends_with_its_key_does_not_come_back,
];

/// Whoever marks the Secret has it; after that the key's text is nowhere in the cluster, and passes on. A rotation shows the next.
fn a_key_that_is_shown_once_is_nowhere_once_it_was_collected() {
    let stage = Stage::new("once");
    let history = stage.history();
    let proxy = stage.cluster.proxy();
    let operator = stage.operator_via(&proxy).start_ready();
    stage.declare(
        "k",
        "{secret: {retention: UntilCollected, template: {data: {HEADER: 'Bearer ${key}'}}}}",
    );
    let issued = stage.wait_issued("k");
    let mut key = stage.mounted("k")["api-key"].clone();
    let place = format!("/registry/secrets/{}/k", stage.namespace);
    assert_eq!(
        leaks::stands_in(&stage.cluster, &key),
        [place.as_str()],
        "that it would be found"
    );
    // A mark on what has changed meanwhile does not land: only one collector may print.
    let seen = stage.secret("k").unwrap().resource_version().unwrap();
    let mark = |version: &str| {
        let mark = format!("{ANNOTATION_COLLECTED}=true");
        stage.try_kubectl(&[
            "annotate",
            "secret",
            "k",
            "--overwrite",
            &mark,
            &format!("--resource-version={version}"),
        ])
    };
    stage.kubectl(&["annotate", "secret", "k", "somebody=else"]);
    assert!(!mark(&seen).status.success(), "somebody was faster");
    for (revision, shown) in [issued.hash, None].into_iter().enumerate() {
        let version = stage.secret("k").unwrap().resource_version().unwrap();
        assert!(mark(&version).status.success());
        let status = stage.wait("k", "was collected", |status| status.secret_ref.is_none());
        assert!(stage.secret("k").is_none(), "its Secret is gone");
        assert_eq!(
            leaks::stands_in(&stage.cluster, &key),
            [""; 0],
            "and so is its text"
        );
        let said = [
            ConditionType::Delivered,
            ConditionType::Ready,
            ConditionType::Stalled,
            ConditionType::Usable,
        ];
        let expected = [
            "False/Collected",
            "True/Issued",
            "False/NotStalled",
            "True/Active",
        ];
        assert_eq!(said.map(|type_| condition(&status, type_)), expected);
        assert!(shown.is_none() || status.hash == shown, "the key passes on");
        assert!(status.versions.last().unwrap().collected_at.is_some());
        stage.wait_event("k", "Collected");
        assert!(
            proxy.wait_quiet(Duration::from_millis(700), LIMIT, Call::is_mutation),
            "it comes to rest"
        );
        stage.raise("k", revision + 1);
        stage.wait_rotated("k", revision + 1);
        let status = stage.wait_issued("k");
        assert_eq!(
            condition(&status, ConditionType::Delivered),
            "True/Delivered",
            "the next version is shown"
        );
        assert!(
            !stage
                .secret("k")
                .unwrap()
                .annotations()
                .contains_key(ANNOTATION_COLLECTED)
        );
        assert_ne!(stage.mounted("k")["api-key"], key);
        key.clone_from(&stage.mounted("k")["api-key"]);
    }
    // One that was not collected yet is replaced where it stands.
    stage.raise("k", 3);
    stage.wait_rotated("k", 3);
    stage.wait_issued("k");
    assert!(operator.stop().success());
    history.check();
}

/// A day by the clock, and not a second less.
fn a_key_that_nobody_collects_in_a_day_is_removed() {
    let (stage, proxy, clock) = clock::stage("uncollected");
    let _controller = InProcess::start(&stage, &proxy, clock.clone());
    stage.declare("k", "{secret: {retention: UntilCollected}}");
    let issued = stage.wait_issued("k");
    let end = issued.versions[0].activated_at.clone().unwrap().0 + SignedDuration::from_hours(24);
    set(&proxy, &clock, end - SignedDuration::from_secs(1));
    look_again(&stage, "k");
    assert_eq!(
        condition(&stage.wait_issued("k"), ConditionType::Delivered),
        "True/Delivered",
        "a second is left"
    );
    set(&proxy, &clock, end);
    // Nobody calls: the nap towards the end is over in a second.
    let status = stage.wait("k", "was removed", |status| status.secret_ref.is_none());
    assert!(stage.secret("k").is_none(), "its Secret is gone");
    assert_eq!(
        status.versions[0].discarded_at.clone().unwrap().0,
        end,
        "at the second"
    );
    let said =
        [ConditionType::Delivered, ConditionType::Usable].map(|type_| condition(&status, type_));
    assert_eq!(said, ["False/Uncollected", "True/Active"]);
    stage.wait_event("k", "Uncollected");
    stage.raise("k", 1);
    stage.wait_rotated("k", 1);
    let status = stage.wait_issued("k");
    assert_eq!(
        condition(&status, ConditionType::Delivered),
        "True/Delivered",
        "a new one is shown"
    );
    assert_ne!(status.hash, issued.hash);
}

/// `WhileActive`: gone when the key expires or is revoked, and a copy that somebody puts back goes, too.
fn a_secret_that_ends_with_its_key_does_not_come_back() {
    let stage = Stage::new("while-active");
    let history = stage.history();
    let _operator = stage.operator().start_ready();
    stage.declare(
        "expires",
        "{expiry: {after: 10s}, secret: {retention: WhileActive}}",
    );
    stage.declare("revoked", "{secret: {retention: WhileActive}}");
    stage.declare("stays", "{}");
    let copies = ["expires", "revoked"].map(|name| {
        stage.wait_issued(name);
        labelled_copy(&stage.secret(name).unwrap())
    });
    stage.wait_issued("stays");
    for name in ["revoked", "stays"] {
        stage.merge(name, json!({ "spec": { "revoked": true } }));
    }
    for ((name, phase), copy) in [("expires", Phase::Expired), ("revoked", Phase::Revoked)]
        .into_iter()
        .zip(copies)
    {
        stage.wait_phase(name, phase);
        let status = stage.wait(name, "has no Secret", |status| status.secret_ref.is_none());
        assert!(stage.secret(name).is_none(), "it went with the key");
        assert_eq!(
            condition(&status, ConditionType::Delivered),
            "False/Removed"
        );
        assert_eq!(
            condition(&status, ConditionType::Ready),
            format!("True/{}", phase.as_str())
        );
        stage.wait_event(name, "Removed");
        create(&stage, &copy);
        wait::until_true("the copy is gone", || stage.secret(name).is_none());
    }
    stage.wait_phase("stays", Phase::Revoked);
    assert!(stage.secret("stays").is_some(), "unless it is to stay");
    history.check();
}

/// A copy as a backup keeps it.
fn labelled_copy(secret: &Secret) -> String {
    let metadata = ObjectMeta {
        name: Some(secret.name_any()),
        labels: secret.metadata.labels.clone(),
        annotations: secret.metadata.annotations.clone(),
        ..ObjectMeta::default()
    };
    json!(Secret {
        metadata,
        ..secret.clone()
    })
    .to_string()
}
