//! What people do to a delivered Secret, and what becomes of it: reported or mended, never replaced.

use std::collections::BTreeMap;

use claviger::api::conditions::find;
use claviger::api::names::{ANNOTATION_TEMPLATE, FINALIZER, LABEL_APIKEY};
use claviger::api::{ApiKeyStatus, ConditionType, Version};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::ObjectMeta;
use serde_json::{Value, json};

use crate::stories;
use crate::support::operator::Operator;
use crate::support::stage::{Stage, condition};
use crate::support::wait;

stories![
    a_deleted_secret_is_reported_and_recognised_when_it_is_put_back,
    an_edited_secret_is_reported_and_heals_when_the_edit_is_undone,
    what_third_parties_add_stays_and_the_template_is_followed,
    an_immutable_secret_keeps_its_entries_and_gets_its_labels,
    a_stripped_label_and_a_stripped_owner_are_put_back,
    a_finalizer_dropped_by_replace_is_put_back,
];

/// A controller that looks again soon at what is not as it should be.
pub(crate) fn eager(stage: &Stage) -> Operator {
    stage.operator().args(&["--max-backoff=1s"]).start_ready()
}

/// All that says which key was minted.
pub(crate) fn minted(
    status: &ApiKeyStatus,
) -> (Option<String>, Option<i64>, Option<String>, Vec<Version>) {
    (
        status.key_id.clone(),
        status.version,
        status.hash.clone(),
        status.versions.clone(),
    )
}

/// Waits until the controller has taken notice of all that was there before: it issues another key.
pub(crate) fn pass(stage: &Stage, marker: &str) {
    stage.declare(marker, "{}");
    stage.wait_issued(marker);
}

/// Waits until a condition stands at `True/Reason`.
pub(crate) fn wait_condition(
    stage: &Stage,
    name: &str,
    type_: ConditionType,
    wanted: &str,
) -> ApiKeyStatus {
    stage.wait(name, wanted, |status| condition(status, type_) == wanted)
}

/// What a condition says to people.
pub(crate) fn message(status: &ApiKeyStatus, type_: ConditionType) -> String {
    find(&status.conditions, type_)
        .map(|condition| condition.message.clone())
        .unwrap_or_default()
}

/// Waits until a Secret is as wanted.
pub(crate) fn wait_secret(
    stage: &Stage,
    name: &str,
    what: &str,
    is: impl Fn(&Secret) -> bool,
) -> Secret {
    wait::until(&format!("Secret {name} {what}"), || {
        match stage.secret(name) {
            Some(secret) if is(&secret) => Ok(secret),
            Some(other) => Err(format!("{:?}", other.metadata)),
            None => Err("none".to_owned()),
        }
    })
}

/// A copy of a Secret as a careful person keeps it: what it holds, and nothing of where it came from.
pub(crate) fn copy_of(secret: &Secret) -> String {
    let metadata = ObjectMeta {
        name: Some(secret.name_any()),
        ..ObjectMeta::default()
    };
    json!(Secret {
        metadata,
        ..secret.clone()
    })
    .to_string()
}

/// Creates an object that must not be there yet.
pub(crate) fn create(stage: &Stage, manifest: &str) {
    stage
        .cluster
        .kubectl_with(&["-n", &stage.namespace, "create", "-f", "-"], manifest);
}

/// Incidents 6: a Secret deleted by hand is reported, not replaced, also after a restart; put back from a copy, with another
/// UID and without labels and owner, it is ours again.
fn a_deleted_secret_is_reported_and_recognised_when_it_is_put_back() {
    let stage = Stage::new("deleted-secret");
    let history = stage.history();
    let operator = eager(&stage);
    stage.declare(
        "k",
        r#"{secret: {template: {metadata: {labels: {team: a}}, data: {HEADER: "Bearer ${key}"}}}}"#,
    );
    let issued = stage.wait_issued("k");
    let original = stage.secret("k").unwrap();
    let entries = stage.mounted("k");

    stage.kubectl(&["delete", "secret", "k"]);
    let lost = wait_condition(&stage, "k", ConditionType::Delivered, "False/SecretMissing");
    assert_eq!(
        condition(&lost, ConditionType::Ready),
        "False/SecretMissing"
    );
    assert_eq!(
        condition(&lost, ConditionType::Stalled),
        "True/SecretMissing"
    );
    assert_eq!(
        condition(&lost, ConditionType::Usable),
        "True/Active",
        "whoever holds the key may go on"
    );
    let text = message(&lost, ConditionType::Delivered);
    assert!(
        text.contains(&format!("Secret {}/k was deleted", stage.namespace)),
        "{text}"
    );
    assert!(text.contains("put the Secret back from a copy"), "{text}");
    stage.wait_event("k", "SecretMissing");
    pass(&stage, "marker");
    assert!(operator.stop().success());
    let operator = eager(&stage);
    pass(&stage, "another-marker");
    assert!(stage.secret("k").is_none(), "nothing was put in its place");
    assert_eq!(
        minted(&stage.status("k")),
        minted(&issued),
        "nothing was minted"
    );

    create(&stage, &copy_of(&original));
    let back = wait_condition(&stage, "k", ConditionType::Ready, "True/Issued");
    assert_eq!(minted(&back), minted(&issued));
    let uid = stage.apikey("k").uid().unwrap();
    let mended = wait_secret(&stage, "k", "is mended", |secret| {
        secret
            .labels()
            .get(LABEL_APIKEY)
            .is_some_and(|name| name == "k")
            && secret.labels().get("team").is_some_and(|team| team == "a")
            && secret
                .owner_references()
                .iter()
                .any(|owner| owner.uid == uid && owner.controller == Some(true))
    });
    assert_ne!(mended.uid(), original.uid());
    stage.wait("k", "records the new UID", |status| {
        status.secret_ref.as_ref().map(|it| &it.uid) == mended.metadata.uid.as_ref()
    });
    assert_eq!(
        stage.mounted("k"),
        entries,
        "the same key in all its entries"
    );
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 7: whatever is done to the entries by hand is reported and left as it is, the recorded hash stays, and undoing it
/// heals.
fn an_edited_secret_is_reported_and_heals_when_the_edit_is_undone() {
    let stage = Stage::new("edited-secret");
    let history = stage.history();
    let operator = eager(&stage);
    stage.declare(
        "k",
        r#"{secret: {template: {data: {HEADER: "Bearer ${key}"}}}}"#,
    );
    let issued = stage.wait_issued("k");
    let undo = json!({ "data": stage.secret("k").unwrap().data }).to_string();
    let edits = [
        (
            r#"{"stringData": {"api-key": "something else"}}"#,
            "its entry api-key holds something else",
        ),
        (
            r#"{"data": {"api-key": ""}}"#,
            "its entry api-key is missing or empty",
        ),
        (
            r#"{"data": {"api-key": null}}"#,
            "its entry api-key is missing or empty",
        ),
        (
            r#"{"stringData": {"HEADER": "Basic"}}"#,
            "of its entries HEADER no longer hold what the template says",
        ),
        (
            r#"{"data": {"HEADER": null}}"#,
            "of its entries HEADER no longer hold what the template says",
        ),
    ];
    for (number, (edit, told)) in edits.into_iter().enumerate() {
        stage.patch("secret/k", edit);
        let edited = stage.secret("k").unwrap();
        let status = wait_condition(&stage, "k", ConditionType::Delivered, "False/SecretChanged");
        let text = message(&status, ConditionType::Ready);
        assert!(text.contains(told), "{edit}: {text}");
        assert_eq!(condition(&status, ConditionType::Usable), "True/Active");
        assert_eq!(minted(&status), minted(&issued));
        pass(&stage, &format!("marker-{number}"));
        assert_eq!(
            stage.secret("k").unwrap().resource_version(),
            edited.resource_version(),
            "{edit}: left as it is"
        );
        stage.patch("secret/k", &undo);
        let healed = wait_condition(&stage, "k", ConditionType::Ready, "True/Issued");
        assert_eq!(
            condition(&healed, ConditionType::Delivered),
            "True/Delivered"
        );
        assert_eq!(minted(&stage.wait_issued("k")), minted(&issued));
    }
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 29: labels, annotations and entries of others are kept, while those of the template are added, changed and removed.
fn what_third_parties_add_stays_and_the_template_is_followed() {
    let stage = Stage::new("third-parties");
    let history = stage.history();
    let operator = eager(&stage);
    stage.declare(
        "k",
        r#"{secret: {template: {metadata: {labels: {a: "1", b: "1"}, annotations: {note: "1"}}, data: {X: "x-${tail}", W: w}}}}"#,
    );
    let issued = stage.wait_issued("k");
    let key = stage.mounted("k")["api-key"].clone();
    let theirs = r#"{"metadata": {"labels": {"theirs": "l"}, "annotations": {"theirs": "n"}}, "stringData": {"THEIRS": "d"}}"#;
    stage.patch("secret/k", theirs);

    let spec = r#"{secret: {template: {metadata: {labels: {b: "2", c: "1"}}, data: {X: "for ${name}", Z: "${keyId}"}}}}"#;
    stage.declare("k", spec);
    let entries = |more: &[(&str, &str)]| -> BTreeMap<String, String> {
        let all = [("api-key", key.as_str()), ("THEIRS", "d")]
            .into_iter()
            .chain(more.iter().copied());
        all.map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    let followed = wait_secret(&stage, "k", "follows the template", |secret| {
        secret.labels().contains_key("c")
    });
    let label = |secret: &Secret, name: &str| secret.labels().get(name).cloned();
    assert_eq!(
        [label(&followed, "a"), label(&followed, "b")],
        [None, Some("2".to_owned())]
    );
    assert!(!followed.annotations().contains_key("note"));
    assert_eq!(
        stage.mounted("k"),
        entries(&[("X", "for k"), ("Z", issued.key_id.as_deref().unwrap())])
    );

    stage.declare("k", "{}");
    let plain = wait_secret(&stage, "k", "has no template left", |secret| {
        !secret.annotations().contains_key(ANNOTATION_TEMPLATE)
    });
    assert_eq!([label(&plain, "b"), label(&plain, "c")], [None, None]);
    assert_eq!(stage.mounted("k"), entries(&[]));
    assert_eq!(label(&plain, "theirs").as_deref(), Some("l"));
    assert_eq!(
        plain.annotations().get("theirs").map(String::as_str),
        Some("n")
    );
    assert_eq!(minted(&stage.wait_issued("k")), minted(&issued));
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 31: the entries of an immutable Secret cannot follow the template. The ApiKey says so, and what is not immutable is
/// mended all the same; asking for the old entries again is enough.
fn an_immutable_secret_keeps_its_entries_and_gets_its_labels() {
    let stage = Stage::new("immutable");
    let history = stage.history();
    let operator = eager(&stage);
    let spec = |label: &str, data: &str| {
        format!(
            "{{secret: {{template: {{metadata: {{labels: {{a: {label}}}}}, data: {{X: {data}}}}}}}}}"
        )
    };
    stage.declare("k", &spec("one", "old"));
    let issued = stage.wait_issued("k");
    stage.patch("secret/k", r#"{"immutable": true}"#);
    stage.declare("k", &spec("two", "new"));
    wait_secret(&stage, "k", "has its new label", |secret| {
        secret.labels().get("a").is_some_and(|value| value == "two")
    });
    let told = wait_condition(&stage, "k", ConditionType::Ready, "False/SecretImmutable");
    assert_eq!(
        condition(&told, ConditionType::Stalled),
        "True/SecretImmutable"
    );
    assert_eq!(
        condition(&told, ConditionType::Delivered),
        "True/Delivered",
        "the key itself is there"
    );
    assert_eq!(stage.mounted("k")["X"], "old");
    assert!(operator.stop().success());
    let operator = eager(&stage);
    pass(&stage, "marker");
    assert_eq!(
        condition(&stage.status("k"), ConditionType::Ready),
        "False/SecretImmutable",
        "after a restart, too"
    );
    stage.declare("k", &spec("three", "old"));
    let healed = wait_condition(&stage, "k", ConditionType::Ready, "True/Issued");
    assert_eq!(minted(&healed), minted(&issued));
    wait_secret(&stage, "k", "has its label again", |secret| {
        secret
            .labels()
            .get("a")
            .is_some_and(|value| value == "three")
    });
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 33, 41: a Secret of ours stays ours without our label and our owner reference, and gets both back.
fn a_stripped_label_and_a_stripped_owner_are_put_back() {
    let stage = Stage::new("stripped");
    let history = stage.history();
    let operator = stage.operator().start_ready();
    stage.declare("k", "{}");
    let issued = stage.wait_issued("k");
    let uid = stage.apikey("k").uid().unwrap();
    let whole = |secret: &Secret| {
        secret.labels().contains_key(LABEL_APIKEY)
            && secret
                .owner_references()
                .iter()
                .any(|owner| owner.uid == uid)
    };
    for strip in [
        json!({ "metadata": { "labels": { LABEL_APIKEY: null } } }),
        json!({ "metadata": { "ownerReferences": null } }),
        json!({ "metadata": { "labels": null, "annotations": null, "ownerReferences": null } }),
    ] {
        let stripped: Value = serde_json::from_str(&stage.kubectl(&[
            "patch",
            "secret/k",
            "--type=merge",
            "-p",
            &strip.to_string(),
            "-o",
            "json",
        ]))
        .unwrap();
        assert!(
            stripped["metadata"]["labels"].is_null()
                || stripped["metadata"]["ownerReferences"].is_null()
                || stripped["metadata"]["labels"].get(LABEL_APIKEY).is_none()
        );
        wait_secret(&stage, "k", "is whole again", whole);
    }
    assert_eq!(minted(&stage.wait_issued("k")), minted(&issued));
    assert_eq!(
        condition(&stage.status("k"), ConditionType::Ready),
        "True/Issued"
    );
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 33: `kubectl replace` with a manifest from Git drops the finalizer; it is put back.
fn a_finalizer_dropped_by_replace_is_put_back() {
    let stage = Stage::new("replaced");
    let history = stage.history();
    let operator = stage.operator().start_ready();
    stage.declare("k", "{}");
    let issued = stage.wait_issued("k");
    let manifest = crate::support::stage::manifest("k", "{owner: somebody else}");
    let replaced = stage.cluster.kubectl_with(
        &["-n", &stage.namespace, "replace", "-f", "-", "-o", "json"],
        &manifest,
    );
    let replaced: Value = serde_json::from_str(&replaced).unwrap();
    assert!(
        replaced["metadata"]["finalizers"].is_null(),
        "it was dropped"
    );
    wait::until("the finalizer is back", || {
        let finalizers = stage.apikey("k").finalizers().to_vec();
        if finalizers == [FINALIZER] {
            Ok(())
        } else {
            Err(format!("{finalizers:?}"))
        }
    });
    stage.wait("k", "is observed", |status| {
        status.observed_generation == Some(2)
    });
    assert_eq!(minted(&stage.wait_issued("k")), minted(&issued));
    assert!(operator.stop().success());
    history.check();
}
