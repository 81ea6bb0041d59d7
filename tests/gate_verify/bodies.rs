//! What is asked, and what is no question.

use serde_json::{Value, json};

use super::{AUDIENCE, May, ask, caller, issued, told, wait_admitted};
use crate::stories;
use crate::support::client::Question;
use crate::support::gate::Gate;
use crate::support::stage::Stage;

stories![
    a_batch_answers_in_order_up_to_a_hundred,
    what_is_no_question_is_told_so
];

fn a_batch_answers_in_order_up_to_a_hundred() {
    let stage = Stage::new("verify-batch");
    let _operator = stage.operator().start_ready();
    let key = issued(&stage, "k", &format!("{{audiences: [{AUDIENCE}]}}"));
    let gate = Gate::start(&stage);
    let token = caller(&stage, "proxy", May::Everywhere);
    wait_admitted(&gate, &token, None);
    let question = |number: usize| match number % 3 {
        0 => json!({ "key": key, "audience": AUDIENCE }),
        1 => json!({ "key": key, "audience": "orders-api" }),
        _ => json!({ "key": "nonsense", "audience": AUDIENCE }),
    };
    let batch = |count: usize| -> Value {
        json!({ "requests": (0..count).map(question).collect::<Vec<_>>() })
    };
    let asked = |token: Option<&str>, body: Value| ask(&gate, "/v1/verify/batch", token, &body);

    let hundred = told(&asked(Some(&token), batch(100)));
    let results = hundred["results"].as_array().expect("results");
    assert_eq!(results.len(), 100);
    for (number, result) in results.iter().enumerate() {
        let alone = told(&ask(&gate, "/v1/verify", Some(&token), &question(number)));
        assert_eq!(*result, alone, "the same as if it had been asked alone");
        assert_eq!(
            result["code"],
            ["VALID", "WRONG_AUDIENCE", "MALFORMED"][number % 3]
        );
    }
    let more = asked(Some(&token), batch(101));
    assert_eq!(
        (more.status, &more.json()["message"]),
        (400, &json!("a batch has at most 100 requests"))
    );
    assert_eq!(
        told(&asked(Some(&token), batch(0))),
        json!({ "results": [] })
    );
    assert_eq!(
        asked(None, batch(0)).status,
        401,
        "who is not known learns nothing"
    );
    // One that is no question spoils the batch.
    let spoilt = asked(
        Some(&token),
        json!({ "requests": [question(0), { "key": key }] }),
    );
    assert_eq!(spoilt.status, 400, "{spoilt:?}");
}

fn what_is_no_question_is_told_so() {
    let stage = Stage::new("verify-bodies");
    let _operator = stage.operator().start_ready();
    let key = issued(&stage, "k", &format!("{{audiences: [{AUDIENCE}]}}"));
    let gate = Gate::start(&stage);
    let token = caller(&stage, "proxy", May::Everywhere);
    wait_admitted(&gate, &token, None);
    let with = |more: Value| {
        let mut question = json!({ "key": key, "audience": AUDIENCE });
        question
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        question.to_string()
    };
    for (body, says) in [
        (String::new(), "EOF while parsing"),
        ("key".to_owned(), "at line 1 column 1"),
        (format!("{{\"key\": \"{key}\", "), "EOF while parsing"),
        (
            format!("{{\"key\": \"{key}\", \"key\": \"{key}\"}}"),
            "duplicate field `key`",
        ),
        (
            json!({ "audience": AUDIENCE }).to_string(),
            "missing field `key`",
        ),
        (
            json!({ "key": 7, "audience": AUDIENCE }).to_string(),
            "a value of another type",
        ),
        (
            with(json!({ "permission": "invoices:read" })),
            "unknown field `permission`",
        ),
        (
            with(json!({ "permissions": "a AND" })),
            "permissions end where a name or a closing parenthesis is missing",
        ),
        (
            with(json!({ "permissions": "a AND OR b" })),
            "at character 7",
        ),
        (with(json!({ "permissions": "" })), "permissions are empty"),
        (
            with(json!({ "organization": "" })),
            "\"organization\" needs 1 to 253 characters",
        ),
        (
            json!({ "key": key }).to_string(),
            "no audience is named: add audience",
        ),
        (
            with(json!({ "audience": "" })),
            "\"audience\" needs 1 to 253 characters",
        ),
    ] {
        let answer = ask(&gate, "/v1/verify", Some(&token), &body);
        let message = answer.json()["message"].as_str().expect("text").to_owned();
        assert!(
            answer.status == 400 && message.contains(says),
            "{body}: {answer:?}"
        );
        assert!(!message.contains(&key), "it is not told back");
    }
    let large = with(json!({ "organization": "x".repeat(256 * 1024) }));
    for path in ["/v1/verify", "/v1/verify/batch"] {
        let answer = ask(&gate, path, Some(&token), &large);
        assert!(
            answer.status == 413 && answer.body.contains("longer than the 262144 bytes"),
            "{path}: {answer:?}"
        );
    }
    let wrong_method = Question::get("/v1/verify")
        .bearer(&token)
        .ask(gate.plain_address())
        .expect("an answer");
    assert_eq!(wrong_method.status, 405);
    let nowhere = ask(&gate, "/v1/verifies", Some(&token), &with(json!({})));
    assert_eq!(nowhere.status, 404);
    assert!(!gate.logs().contains(&key), "the log holds a key");
    assert_eq!(
        told(&ask(&gate, "/v1/verify", Some(&token), &with(json!({}))))["code"],
        "VALID"
    );
}
