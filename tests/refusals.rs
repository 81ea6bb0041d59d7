//! Deliveries that come to nothing, or to more than their answers say.

use std::time::Duration;

use claviger::api::ConditionType;

use crate::stories;
use crate::support::proxy::{Call, Fault, Hold, Matcher, Verb, When};
use crate::support::stage::{Stage, condition};
use crate::support::wait::{self, LIMIT};

stories![
    an_apikey_deleted_while_it_is_activated_goes,
    an_apikey_deleted_after_a_delivery_without_an_answer_goes,
    a_delivery_in_doubt_is_found_though_the_quota_is_used_up,
    a_policy_that_quotes_the_key_is_not_quoted,
    a_policy_that_quotes_the_key_in_use_is_not_quoted,
    a_template_with_the_tail_is_delivered_as_asked,
    an_edited_entry_of_the_template_is_mended_by_asking_for_it_anew,
];

/// Incidents 1, 25: the deletion arrives between the delivery and its activation.
fn an_apikey_deleted_while_it_is_activated_goes() {
    let stage = Stage::new("activating");
    let history = stage.history();
    let proxy = stage.cluster.proxy();
    let _operator = stage.operator_via(&proxy).start_ready();
    let hold = Hold::new();
    let activation = Matcher::call(Verb::Update, "apikeys/status").ordinal(2);
    proxy.on(activation, When::Before, Fault::Delay(hold.clone()));
    stage.declare("k", "{}");
    assert!(hold.reached(LIMIT), "it activates");
    stage.kubectl(&["delete", "apikey", "k", "--wait=false"]);
    hold.release();
    stage.wait_gone("k");
    assert!(stage.secret("k").is_none(), "the Secret went first");
    history.check();
}

/// Incidents 2, 25: the create was carried out, its answer said 500, and the ApiKey is deleted.
fn an_apikey_deleted_after_a_delivery_without_an_answer_goes() {
    let stage = Stage::new("unanswered");
    let history = stage.history();
    let proxy = stage.cluster.proxy();
    let _operator = stage.operator_via(&proxy).start_ready();
    let create = Matcher::call(Verb::Create, "secrets");
    let fault = proxy.on(create, When::After, Fault::Respond(500)).always();
    let reads = proxy
        .on(
            Matcher::call(Verb::Get, "secrets"),
            When::Before,
            Fault::Respond(500),
        )
        .always();
    stage.declare("k", "{}");
    assert!(fault.fired(LIMIT), "it delivers");
    stage.kubectl(&["delete", "apikey", "k", "--wait=false"]);
    reads.remove();
    stage.wait_gone("k");
    assert!(stage.secret("k").is_none(), "the Secret went first");
    history.check();
}

/// Incidents 2, 31: the quota has room for one Secret. It is created, the activation fails, and the next try is refused for the
/// quota before anybody looks at names.
fn a_delivery_in_doubt_is_found_though_the_quota_is_used_up() {
    let stage = Stage::new("doubt");
    let history = stage.history();
    stage.kubectl(&["create", "quota", "one", "--hard=secrets=1"]);
    // The controller that counts is not part of this control plane: the count is begun by hand, and admission goes on with it.
    let status = "{\"status\": {\"hard\": {\"secrets\": \"1\"}, \"used\": {\"secrets\": \"0\"}}}";
    stage.kubectl(&[
        "patch",
        "quota",
        "one",
        "--subresource=status",
        "--type=merge",
        "-p",
        status,
    ]);
    let proxy = stage.cluster.proxy();
    let _operator = stage.operator_via(&proxy).start_ready();
    let fault = proxy.on(
        Matcher::call(Verb::Create, "secrets").ordinal(1),
        When::After,
        Fault::Respond(500),
    );
    stage.declare("k", "{}");
    assert!(fault.fired(LIMIT), "it delivers");
    let status = stage.wait_issued("k");
    assert_eq!(status.version, Some(1), "what was delivered is what counts");
    history.check();
}

/// Incidents 34, 87: an admission policy answers with the very key that it refuses. It stands in no condition, event or log; the
/// audit after all stories looks for it there.
fn a_policy_that_quotes_the_key_is_not_quoted() {
    let stage = Stage::new("quoting");
    let operator = stage.operator().start_ready();
    let _forbidden = stage.forbid_secrets(
        "CREATE",
        "'no such secret here: ' + string(object.data['api-key'])",
    );
    wait::until("the policy quotes what it refuses", || {
        let create = [
            "create",
            "secret",
            "generic",
            "probe",
            "--from-literal=api-key=quoted-word-for-word",
            "--dry-run=server",
        ];
        let said = String::from_utf8_lossy(&stage.try_kubectl(&create).stderr).into_owned();
        // In base64, as the request has it.
        if said.contains("cXVvdGVkLXdvcmQtZm9yLXdvcmQ=") {
            Ok(())
        } else {
            Err(said)
        }
    });
    stage.declare("k", "{}");
    let status = stage.wait_reason("k", ConditionType::Delivered, "DeliveryRefused");
    let said = serde_json::to_string(&status).unwrap();
    assert!(
        said.contains("the answer is withheld: it quotes the key"),
        "{said}"
    );
    assert_eq!(
        condition(&status, ConditionType::Stalled),
        "True/DeliveryRefused"
    );
    stage.wait_event("k", "DeliveryRefused");
    assert!(operator.stop().success());
}

/// The same for the key in use, which is not sent: the policy looks at the object as it was.
fn a_policy_that_quotes_the_key_in_use_is_not_quoted() {
    let stage = Stage::new("quoting-old");
    let operator = stage.operator().start_ready();
    stage.declare("k", "{}");
    stage.wait_issued("k");
    let _forbidden =
        stage.forbid_secrets("UPDATE", "'it was ' + string(oldObject.data['api-key'])");
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
    wait::until_true("the policy is in force", || !write().status.success());
    stage.patch("apikey/k", r#"{"spec": {"revision": 1, "secret": {"template": {"metadata": {"labels": {"a": "b"}}}}}}"#);
    let status = stage.wait_reason("k", ConditionType::Ready, "DeliveryRefused");
    let said = serde_json::to_string(&status).unwrap();
    assert!(
        said.contains("the answer is withheld: it quotes a key"),
        "{said}"
    );
    stage.wait_event("k", "DeliveryRefused");
    assert!(operator.stop().success());
}

/// The tail is known before the version is current: the template's entries are as asked from the first look on.
fn a_template_with_the_tail_is_delivered_as_asked() {
    let stage = Stage::new("tailed");
    let proxy = stage.cluster.proxy();
    let _operator = stage.operator_via(&proxy).start_ready();
    stage.declare(
        "k",
        "{secret: {template: {data: {SHOWN: 'ends in ${tail}', ID: '${keyId}'}}}}",
    );
    let status = stage.wait_issued("k");
    let mounted = stage.mounted("k");
    assert_eq!(
        mounted["SHOWN"],
        format!("ends in {}", status.tail.clone().unwrap())
    );
    assert_eq!(Some(&mounted["ID"]), status.key_id.as_ref());
    assert!(
        proxy.wait_quiet(Duration::from_millis(500), LIMIT, Call::is_mutation),
        "it comes to rest"
    );
    stage.declare(
        "k",
        "{owner: someone, secret: {template: {data: {SHOWN: 'ends in ${tail}', ID: '${keyId}'}}}}",
    );
    let status = stage.wait("k", "was looked at again", |status| {
        status.observed_generation == Some(2)
    });
    assert_eq!(
        condition(&status, ConditionType::Delivered),
        "True/Delivered"
    );
    assert_eq!(condition(&status, ConditionType::Ready), "True/Issued");
}

/// Incidents 29: what was edited is left alone until the template is changed; then it is as asked.
fn an_edited_entry_of_the_template_is_mended_by_asking_for_it_anew() {
    let stage = Stage::new("anew");
    let _operator = stage.operator().start_ready();
    stage.declare("k", "{secret: {template: {data: {ID: '${keyId}'}}}}");
    let issued = stage.wait_issued("k");
    stage.patch("secret/k", "{\"data\": {\"ID\": null}}");
    stage.wait_reason("k", ConditionType::Delivered, "SecretChanged");
    stage.declare("k", "{}");
    stage.wait_reason("k", ConditionType::Delivered, "Delivered");
    stage.declare("k", "{secret: {template: {data: {ID: '${keyId}'}}}}");
    wait::until_true("the entry is there", || {
        stage.mounted("k").contains_key("ID")
    });
    let status = stage.wait_reason("k", ConditionType::Ready, "Issued");
    assert_eq!(Some(&stage.mounted("k")["ID"]), status.key_id.as_ref());
    assert_eq!(status.hash, issued.hash, "and the key is the same");
}
