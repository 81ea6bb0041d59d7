//! The name of the Secret is taken, or the API server will not have the Secret: said in a condition, tried again with bounded
//! requests, and never at the cost of somebody else's Secret.

use std::time::Duration;

use claviger::api::conditions::reason;
use claviger::api::names::{LABEL_APIKEY, LABEL_MANAGED_BY, MANAGED_BY};
use claviger::api::{ConditionType, Phase};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::drift::{create, eager, message, minted, pass, wait_condition};
use crate::stories;
use crate::support::cluster::{ACCOUNT, Cluster};
use crate::support::control_plane::Component;
use crate::support::proxy::{Call, Verb};
use crate::support::stage::{Stage, condition};
use crate::support::wait;

stories![
    a_foreign_secret_is_left_alone_and_the_key_is_issued_when_it_goes,
    a_planted_secret_is_no_more_ours_for_looking_so,
    of_two_apikeys_with_one_secret_the_first_delivered_wins,
    a_foreign_secret_in_the_place_of_ours_is_never_touched,
    missing_rights_are_named_and_their_return_is_noticed,
    an_exceeded_quota_is_named_and_its_raise_is_noticed,
    a_terminating_namespace_gets_no_secret,
];

const NEVER_ISSUED: &str = "False/SecretConflict";

/// A Secret as others make it.
fn foreign(name: &str, type_: &str, metadata: &Value, data: &Value) -> String {
    let mut metadata = metadata.clone();
    metadata["name"] = json!(name);
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": type_, "stringData": data }).to_string()
}

/// What nobody may have changed.
fn print(secret: Option<Secret>) -> (Option<String>, Option<String>) {
    let secret = secret.expect("the Secret is there");
    (secret.uid(), secret.resource_version())
}

/// Incidents 11: a Secret of others that has the name is left alone, whatever its type, and its actual owner is named. When it
/// goes away, the key is issued.
fn a_foreign_secret_is_left_alone_and_the_key_is_issued_when_it_goes() {
    let stage = Stage::new("foreign");
    let history = stage.history();
    stage.kubectl(&["create", "configmap", "landlord"]);
    let landlord = stage.kubectl(&[
        "get",
        "configmap",
        "landlord",
        "-o",
        "jsonpath={.metadata.uid}",
    ]);
    let owners =
        json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "landlord", "uid": landlord }]);
    create(
        &stage,
        &foreign(
            "owned",
            "Opaque",
            &json!({ "ownerReferences": owners }),
            &json!({ "api-key": "theirs" }),
        ),
    );
    let basic = json!({ "username": "u", "password": "p" });
    create(
        &stage,
        &foreign("typed", "kubernetes.io/basic-auth", &json!({}), &basic),
    );
    let before = [print(stage.secret("owned")), print(stage.secret("typed"))];

    let operator = eager(&stage);
    stage.declare("owned", "{}");
    stage.declare("typed", "{secret: {key: password}}");
    for (name, owner) in [
        (
            "owned",
            format!("it belongs to ConfigMap landlord (uid {landlord})"),
        ),
        ("typed", "it has no owner".to_owned()),
    ] {
        let status = wait_condition(&stage, name, ConditionType::Delivered, NEVER_ISSUED);
        let text = message(&status, ConditionType::Ready);
        assert!(
            text.contains(&format!("Secret {}/{name} exists", stage.namespace))
                && text.contains(&owner),
            "{text}"
        );
        assert_eq!(
            condition(&status, ConditionType::Stalled),
            "True/SecretConflict"
        );
        assert_eq!(condition(&status, ConditionType::Usable), "False/Pending");
        assert_eq!(
            (status.phase, status.versions.len()),
            (Some(Phase::Pending), 0),
            "the announcement was taken back"
        );
        stage.wait_event(name, "SecretConflict");
    }
    pass(&stage, "marker");
    assert_eq!(
        before,
        [print(stage.secret("owned")), print(stage.secret("typed"))],
        "left alone"
    );
    stage.kubectl(&["delete", "secret", "owned", "typed"]);
    stage.wait_issued("owned");
    stage.wait_issued("typed");
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 8, 11: labels, annotations and owner references prove nothing, whether the Secret was planted before the ApiKey or
/// while it waits; what it holds is never taken for a key.
fn a_planted_secret_is_no_more_ours_for_looking_so() {
    let stage = Stage::new("planted");
    let history = stage.history();
    let labels = json!({ LABEL_APIKEY: "k", LABEL_MANAGED_BY: MANAGED_BY });
    let known = claviger::key::Key::mint(
        &claviger::key::Prefix::default(),
        &mut claviger::key::OsRandom,
    )
    .unwrap();
    let data = json!({ "api-key": known.expose() });
    create(
        &stage,
        &foreign("k", "Opaque", &json!({ "labels": labels }), &data),
    );
    let planted = print(stage.secret("k"));
    let operator = eager(&stage);
    stage.declare("k", "{}");
    wait_condition(&stage, "k", ConditionType::Delivered, NEVER_ISSUED);
    pass(&stage, "marker");
    assert_eq!(print(stage.secret("k")), planted);

    let uid = stage.apikey("k").uid().unwrap();
    let owner = json!([{
        "apiVersion": "claviger.dev/v1alpha1", "kind": "ApiKey", "name": "k", "uid": uid, "controller": true, "blockOwnerDeletion": true,
    }]);
    stage.patch(
        "secret/k",
        &json!({ "metadata": { "ownerReferences": owner } }).to_string(),
    );
    let planted = print(stage.secret("k"));
    let status = stage.wait("k", "names the owner as it claims", |status| {
        message(status, ConditionType::Ready)
            .contains(&format!("it belongs to ApiKey k (uid {uid})"))
    });
    assert_eq!(condition(&status, ConditionType::Ready), NEVER_ISSUED);
    pass(&stage, "another-marker");
    assert_eq!(print(stage.secret("k")), planted, "left alone");
    let hash = known.hash();
    assert!(
        stage.status("k").version_of(hash).is_none() && stage.status("k").hash.is_none(),
        "a planted key never passes"
    );
    stage.kubectl(&["delete", "secret", "k"]);
    assert_ne!(stage.wait_issued("k").hash, Some(hash.to_string()));
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 12: of two ApiKeys that name one Secret the first that delivered wins. The other says who has it, asks again ever
/// more seldom, and writes nothing; it is issued when the name becomes free.
fn of_two_apikeys_with_one_secret_the_first_delivered_wins() {
    let stage = Stage::new("two-for-one");
    let history = stage.history();
    let proxy = stage.cluster.proxy();
    let operator = stage.operator_via(&proxy).start_ready();
    stage.declare("first", "{secret: {name: shared}}");
    let issued = stage.wait_issued("first");
    let uid = stage.apikey("first").uid().unwrap();
    let delivered = print(stage.secret("shared"));

    proxy.reset();
    stage.declare("second", "{secret: {name: shared}}");
    let blocked = wait_condition(&stage, "second", ConditionType::Delivered, NEVER_ISSUED);
    let text = message(&blocked, ConditionType::Delivered);
    assert!(
        text.contains(&format!("it belongs to ApiKey first (uid {uid})")),
        "{text}"
    );

    // After the refusal it asks with dry runs: each pause is twice the one before.
    let asks =
        |call: &Call| call.dry_run && call.verb == Verb::Create && call.resource == "secrets";
    wait::until("it has asked five times", || {
        if proxy.count(asks) >= 5 {
            Ok(())
        } else {
            Err(format!("{}", proxy.count(asks)))
        }
    });
    let times: Vec<_> = proxy
        .calls()
        .iter()
        .filter(|record| asks(&record.call))
        .map(|record| record.call.at)
        .collect();
    for (number, pair) in times.windows(2).enumerate() {
        let least = Duration::from_millis(900 << number);
        assert!(
            pair[1] - pair[0] >= least,
            "pause {number} is {:?}, not at least {least:?}",
            pair[1] - pair[0]
        );
    }
    let settled = stage.apikey("second").resource_version();
    let writes = |call: &Call| call.is_mutation() && call.resource != "events";
    let of_the_blocked: Vec<_> = proxy
        .mutations()
        .into_iter()
        .filter(|record| writes(&record.call))
        .collect();
    assert!(
        of_the_blocked.len() <= 4,
        "finalizer, announcement, refused delivery, withdrawal: {of_the_blocked:#?}"
    );
    let reads = proxy.count(|call| call.verb == Verb::Get && call.resource == "secrets");
    assert!(
        reads <= proxy.count(asks) + 1,
        "one look at who has it for every time it asks: {reads}"
    );
    pass(&stage, "marker");
    assert_eq!(
        stage.apikey("second").resource_version(),
        settled,
        "its status is not written again"
    );
    assert_eq!(
        print(stage.secret("shared")),
        delivered,
        "nor is the Secret"
    );
    assert_eq!(minted(&stage.status("first")), minted(&issued));
    assert!(operator.stop().success());

    let operator = eager(&stage);
    stage.kubectl(&["delete", "apikey", "first", "--timeout=60s"]);
    let second = stage.wait_issued("second");
    assert_ne!(second.hash, issued.hash);
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 11, 28, 36: somebody deletes our Secret and puts another in its place, with our labels: it is never written, nor
/// deleted, not even when the ApiKey goes.
fn a_foreign_secret_in_the_place_of_ours_is_never_touched() {
    let stage = Stage::new("replaced-secret");
    let history = stage.history();
    let operator = eager(&stage);
    stage.declare(
        "k",
        r#"{secret: {template: {data: {HEADER: "Bearer ${key}"}}}}"#,
    );
    let issued = stage.wait_issued("k");
    stage.kubectl(&["delete", "secret", "k"]);
    wait_condition(&stage, "k", ConditionType::Delivered, "False/SecretMissing");
    let looks = json!({ "labels": { LABEL_APIKEY: "k", LABEL_MANAGED_BY: MANAGED_BY } });
    create(
        &stage,
        &foreign(
            "k",
            "Opaque",
            &looks,
            &json!({ "api-key": "theirs", "HEADER": "theirs" }),
        ),
    );
    let theirs = print(stage.secret("k"));
    let status = wait_condition(&stage, "k", ConditionType::Delivered, NEVER_ISSUED);
    assert_eq!(
        condition(&status, ConditionType::Usable),
        "True/Active",
        "the key as delivered goes on"
    );
    assert_eq!(minted(&status), minted(&issued));
    stage.declare(
        "k",
        r#"{secret: {template: {data: {HEADER: "Token ${key}"}}}}"#,
    );
    stage.wait("k", "is observed", |status| {
        status.observed_generation == Some(2)
    });
    pass(&stage, "marker");
    assert_eq!(print(stage.secret("k")), theirs, "never written");
    stage.kubectl(&["delete", "apikey", "k", "--timeout=60s"]);
    pass(&stage, "another-marker");
    assert_eq!(print(stage.secret("k")), theirs, "never deleted");
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 31: without the right to create or to delete Secrets the ApiKey says which verb is missing, or waits; when the
/// right comes back, all goes on by itself.
fn missing_rights_are_named_and_their_return_is_noticed() {
    let stage = Stage::on(&Cluster::own(), "rights");
    let history = stage.history();
    let operator = eager(&stage);
    stage.declare("early", "{}");
    stage.wait_issued("early");
    stage
        .cluster
        .deprive("the rights to create and to delete Secrets go and come back");
    let role = stage.kubectl(&["get", "clusterrole", "claviger-controller", "-o", "json"]);
    let role: Value = serde_json::from_str(&role).unwrap();
    let at = role["rules"]
        .as_array()
        .unwrap()
        .iter()
        .position(|rule| rule["resources"] == json!(["secrets"]))
        .unwrap();
    let all = &role["rules"][at]["verbs"];
    assert!(
        ["create", "delete"]
            .iter()
            .all(|verb| all.as_array().unwrap().contains(&json!(verb))),
        "{all}"
    );
    let grant = |verbs: &Value, create: &str, delete: &str| {
        let patch =
            json!([{ "op": "replace", "path": format!("/rules/{at}/verbs"), "value": verbs }])
                .to_string();
        stage.kubectl(&[
            "patch",
            "clusterrole",
            "claviger-controller",
            "--type=json",
            "-p",
            &patch,
        ]);
        for (verb, wanted) in [("create", create), ("delete", delete)] {
            wait::until("the API server knows", || {
                let ask = ["auth", "can-i", verb, "secrets", &format!("--as={ACCOUNT}")];
                let answer = stage.try_kubectl(&ask).stdout;
                let answer = String::from_utf8_lossy(&answer).trim().to_owned();
                if answer == wanted {
                    Ok(())
                } else {
                    Err(answer)
                }
            });
        }
    };
    grant(&json!(["get", "list", "watch", "patch"]), "no", "no");
    stage.declare("late", "{}");
    let refused = wait_condition(
        &stage,
        "late",
        ConditionType::Delivered,
        "False/DeliveryRefused",
    );
    let text = message(&refused, ConditionType::Ready);
    assert!(
        text.contains("cannot create resource \"secrets\"") && text.contains("RBAC"),
        "{text}"
    );
    assert_eq!(
        condition(&refused, ConditionType::Stalled),
        "True/DeliveryRefused"
    );
    stage.kubectl(&["delete", "apikey", "early", "--wait=false"]);
    wait::until_true("the log names the verb", || {
        operator
            .logs()
            .contains("cannot delete resource \\\"secrets\\\"")
            || operator
                .logs()
                .contains("cannot delete resource \"secrets\"")
    });
    assert!(
        stage.find("early").is_some() && stage.secret("early").is_some(),
        "neither goes without the other"
    );
    assert!(stage.secret("late").is_none());
    grant(all, "yes", "yes");
    stage.wait_issued("late");
    stage.wait_gone("early");
    assert!(stage.secret("early").is_none());
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 31: a quota that leaves no room is named; when it is raised, the key is issued.
fn an_exceeded_quota_is_named_and_its_raise_is_noticed() {
    let stage = Stage::new("quota");
    let history = stage.history();
    stage.kubectl(&["create", "quota", "few", "--hard=secrets=1"]);
    // The controller that counts is not part of this control plane: the count is written by hand.
    let count = |hard: &str, used: &str| {
        let status =
            json!({ "status": { "hard": { "secrets": hard }, "used": { "secrets": used } } })
                .to_string();
        stage.kubectl(&[
            "patch",
            "quota",
            "few",
            "--subresource=status",
            "--type=merge",
            "-p",
            &status,
        ]);
    };
    count("1", "1");
    let operator = eager(&stage);
    stage.declare("k", "{}");
    let refused = wait_condition(&stage, "k", ConditionType::Delivered, "False/QuotaExceeded");
    let text = message(&refused, ConditionType::Ready);
    assert!(
        text.contains("exceeded quota: few") && text.contains("raise the quota"),
        "{text}"
    );
    assert_eq!(
        condition(&refused, ConditionType::Stalled),
        "True/QuotaExceeded"
    );
    assert!(refused.versions.is_empty() && stage.secret("k").is_none());
    count("2", "1");
    stage.wait_issued("k");
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 25, 31: in a namespace that is going away no Secret can be made: the ApiKey says so, waits under back-off, and then
/// goes with the namespace.
fn a_terminating_namespace_gets_no_secret() {
    let cluster = Cluster::own();
    let stage = Stage::on(&cluster, "terminating");
    let history = stage.history();
    stage.declare("k", "{}");
    // Whoever empties namespaces is late.
    cluster
        .control_plane
        .pause(Component::ControllerManager)
        .unwrap();
    stage
        .cluster
        .kubectl(&["delete", "namespace", &stage.namespace, "--wait=false"]);
    let proxy = cluster.proxy();
    let operator = stage.operator_via(&proxy).start_ready();
    let status = stage.wait_reason("k", ConditionType::Ready, reason::NAMESPACE_TERMINATING);
    assert_eq!(
        condition(&status, ConditionType::Stalled),
        "False/NotStalled",
        "nobody needs to do anything"
    );
    assert!(status.versions.is_empty() && stage.secret("k").is_none());
    let asks =
        |call: &Call| call.dry_run && call.verb == Verb::Create && call.resource == "secrets";
    wait::until_true("it asks again", || proxy.count(asks) >= 2);
    let writes = proxy
        .mutations()
        .into_iter()
        .filter(|record| record.call.resource != "events")
        .collect::<Vec<_>>();
    assert!(
        writes.len() <= 4,
        "finalizer, announcement, refused delivery, withdrawal: {writes:#?}"
    );
    cluster
        .control_plane
        .resume(Component::ControllerManager)
        .unwrap();
    wait::until("the namespace is gone", || {
        let left = cluster.try_kubectl(&["get", "namespace", &stage.namespace, "-o", "yaml"], "");
        if left.status.success() {
            Err(String::from_utf8_lossy(&left.stdout).into_owned())
        } else {
            Ok(())
        }
    });
    assert!(operator.stop().success());
    history.check();
}
