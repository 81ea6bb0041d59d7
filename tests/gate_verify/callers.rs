//! Who may ask.

use serde_json::json;

use super::{AUDIENCE, May, ask, caller, issued, stranger, told, verdict, wait_admitted};
use crate::stories;
use crate::support::gate::Gate;
use crate::support::stage::Stage;

stories![
    who_asks_must_be_known_and_have_the_right,
    a_caller_of_one_namespace_cannot_tell_a_foreign_key_from_none,
    an_installation_may_let_everybody_ask_and_routes_without_audience,
];

fn who_asks_must_be_known_and_have_the_right() {
    let stage = Stage::new("verify-callers");
    let other = Stage::new("verify-callers-other");
    let _operator = stage.operator().start_ready();
    let key = issued(&stage, "k", &format!("{{audiences: [{AUDIENCE}]}}"));
    let gate = Gate::start(&stage);
    let (everywhere, here) = (
        caller(&stage, "proxy", May::Everywhere),
        caller(&stage, "frontend", May::Here),
    );
    let nowhere = caller(&stage, "backend", May::Nowhere);
    let here_namespace = Some(stage.namespace.as_str());
    wait_admitted(&gate, &everywhere, None);
    wait_admitted(&gate, &here, here_namespace);
    // Of the last character some bits do not count.
    let (signed, end) = everywhere.split_at(everywhere.len() - 20);
    let garbage = format!(
        "{signed}{}{}",
        if end.starts_with('x') { 'y' } else { 'x' },
        &end[1..]
    );
    let there = Some(other.namespace.as_str());
    for (who, token, namespace, status) in [
        ("everywhere", Some(&everywhere), None, 200),
        ("everywhere", Some(&everywhere), here_namespace, 200),
        ("everywhere", Some(&everywhere), there, 200),
        ("here", Some(&here), here_namespace, 200),
        ("here", Some(&here), None, 403),
        ("here", Some(&here), there, 403),
        ("nowhere", Some(&nowhere), here_namespace, 403),
        ("nowhere", Some(&nowhere), None, 403),
        ("garbage", Some(&garbage), None, 401),
        ("a key", Some(&key), None, 401),
        ("nobody", None, None, 401),
        ("nobody", None, here_namespace, 401),
        ("everywhere", Some(&everywhere), Some("No_Name"), 400),
    ] {
        let mut question = json!({ "key": key, "audience": AUDIENCE });
        if let Some(namespace) = namespace {
            question["namespace"] = json!(namespace);
        }
        let token = token.map(String::as_str);
        let answer = ask(&gate, "/v1/verify", token, &question);
        let batch = ask(
            &gate,
            "/v1/verify/batch",
            token,
            &json!({ "requests": [question] }),
        );
        let what = format!("{who} asks about {namespace:?}");
        assert_eq!(
            (answer.status, batch.status),
            (status, status),
            "{what}: {answer:?} {batch:?}"
        );
        for answer in [answer, batch] {
            let challenge = (status == 401).then_some(r#"Bearer realm="claviger""#);
            assert_eq!(answer.header("www-authenticate"), challenge, "{what}");
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
            if status != 200 {
                let members: Vec<_> = answer
                    .json()
                    .as_object()
                    .expect("an object")
                    .keys()
                    .cloned()
                    .collect();
                assert_eq!(members, ["message"], "{what}: nothing is told of the key");
            }
        }
    }
    let refused = ask(
        &gate,
        "/v1/verify",
        Some(&here),
        &json!({ "key": key, "audience": AUDIENCE }),
    )
    .json();
    let says = format!(
        "system:serviceaccount:{}:frontend may not verify keys in the whole cluster",
        stage.namespace
    );
    let message = refused["message"].as_str().expect("text");
    assert!(
        message.starts_with(&says) && message.contains("a namespace in the request asks for less"),
        "{message}"
    );
    // One foreign namespace among others spoils the batch: nobody is told halves.
    let mixed = json!({ "requests": [
        { "key": key, "audience": AUDIENCE, "namespace": stage.namespace },
        { "key": key, "audience": AUDIENCE, "namespace": other.namespace },
    ]});
    assert_eq!(
        ask(&gate, "/v1/verify/batch", Some(&here), &mixed).status,
        403
    );
    assert!(gate.stop().success());
    let logs = gate.logs();
    for secret in [&key, &everywhere, &here, &nowhere, &garbage] {
        assert!(
            !logs.contains(secret.as_str()),
            "the log holds a key or a token"
        );
    }
}

fn a_caller_of_one_namespace_cannot_tell_a_foreign_key_from_none() {
    let stage = Stage::new("verify-own");
    let other = Stage::new("verify-foreign");
    let _operators = (
        stage.operator().start_ready(),
        other.operator().start_ready(),
    );
    let usual = format!("{{audiences: [{AUDIENCE}]}}");
    let (own, foreign) = (issued(&stage, "k", &usual), issued(&other, "k", &usual));
    let revoked = issued(&other, "revoked", &usual);
    other.patch("apikey/revoked", r#"{"spec": {"revoked": true}}"#);
    other.wait_phase("revoked", claviger::api::Phase::Revoked);
    let gate = Gate::start(&stage);
    let (all, token) = (
        caller(&stage, "proxy", May::Everywhere),
        caller(&stage, "frontend", May::Here),
    );
    wait_admitted(&gate, &token, Some(&stage.namespace));
    wait_admitted(&gate, &all, None);
    // They are there.
    assert_eq!(verdict(&gate, &all, &foreign)["code"], "VALID");
    assert_eq!(verdict(&gate, &all, &revoked)["code"], "REVOKED");
    let about = |key: &str| {
        let question = json!({ "key": key, "audience": AUDIENCE, "namespace": stage.namespace });
        let mut answer = ask(&gate, "/v1/verify", Some(&token), &question);
        answer.headers.remove("date");
        answer
    };
    assert_eq!(told(&about(&own))["code"], "VALID");
    let none = about(&stranger());
    assert_eq!(told(&none)["code"], "NOT_FOUND");
    for key in [&foreign, &revoked] {
        let answer = about(key);
        assert_eq!(answer.body, none.body, "byte for byte");
        assert_eq!(answer.headers, none.headers);
    }
}

fn an_installation_may_let_everybody_ask_and_routes_without_audience() {
    let stage = Stage::new("verify-open");
    let _operator = stage.operator().start_ready();
    let key = issued(&stage, "k", &format!("{{audiences: [{AUDIENCE}]}}"));
    let open = Gate::builder(&stage.cluster)
        .args(&["--verify-callers=none"])
        .start_ready();
    let wide = Gate::builder(&stage.cluster)
        .args(&["--verify-callers=none", "--routes-without-audience"])
        .start_ready();
    for token in [None, Some("no.token.at-all")] {
        let answer = ask(
            &open,
            "/v1/verify",
            token,
            &json!({ "key": key, "audience": AUDIENCE }),
        );
        assert_eq!(told(&answer)["code"], "VALID", "{token:?}");
    }
    let audience_less = json!({ "key": key });
    let refused = ask(&open, "/v1/verify", None, &audience_less);
    assert_eq!(refused.status, 400, "{refused:?}");
    assert_eq!(
        told(&ask(&wide, "/v1/verify", None, &audience_less))["code"],
        "VALID"
    );
    let named = ask(
        &wide,
        "/v1/verify",
        None,
        &json!({ "key": key, "audience": "orders-api" }),
    );
    assert_eq!(
        told(&named)["code"],
        "WRONG_AUDIENCE",
        "who names one, means it"
    );
}
