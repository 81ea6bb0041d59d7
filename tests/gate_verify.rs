//! Services that ask a real gate about keys: who may, what they are told, and what they are not.

mod away;
mod bodies;
mod callers;
mod verdicts;

use serde_json::{Value, json};

use crate::support::Story;
use crate::support::client::{Answer, Question};
use crate::support::gate::Gate;
use crate::support::stage::Stage;
use crate::support::wait;

pub(crate) fn stories() -> Vec<Story> {
    [
        away::stories(),
        bodies::stories(),
        callers::stories(),
        verdicts::stories(),
    ]
    .concat()
}

const AUDIENCE: &str = "invoices-api";

/// Where a caller may verify keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum May {
    Everywhere,
    Here,
    Nowhere,
}

/// A ServiceAccount of the stage with this right, and its token.
fn caller(stage: &Stage, name: &str, may: May) -> String {
    stage.kubectl(&["create", "serviceaccount", name]);
    let account = format!("--serviceaccount={}:{name}", stage.namespace);
    let (verb, resource) = ("--verb=verify", "--resource=apikeys.claviger.dev");
    match may {
        May::Everywhere => {
            let own = format!("{}-{name}", stage.namespace);
            stage
                .cluster
                .kubectl(&["create", "clusterrole", &own, verb, resource]);
            stage.cluster.kubectl(&[
                "create",
                "clusterrolebinding",
                &own,
                &format!("--clusterrole={own}"),
                &account,
            ]);
        }
        May::Here => {
            stage.kubectl(&["create", "role", name, verb, resource]);
            stage.kubectl(&[
                "create",
                "rolebinding",
                name,
                &format!("--role={name}"),
                &account,
            ]);
        }
        May::Nowhere => {}
    }
    stage
        .kubectl(&["create", "token", name, "--audience=claviger-gate"])
        .trim()
        .to_owned()
}

/// What a caller is answered.
fn ask(gate: &Gate, path: &str, token: Option<&str>, body: &(impl ToString + ?Sized)) -> Answer {
    let question = Question::post(path, body);
    let question = match token {
        Some(token) => question.bearer(token),
        None => question,
    };
    question
        .ask(gate.plain_address())
        .expect("the gate answers")
}

/// The verdict on a key at the usual audience.
fn verdict(gate: &Gate, token: &str, key: &str) -> Value {
    told(&ask(
        gate,
        "/v1/verify",
        Some(token),
        &json!({ "key": key, "audience": AUDIENCE }),
    ))
}

/// A verdict, which is one.
fn told(answer: &Answer) -> Value {
    assert_eq!(
        (answer.status, answer.header("cache-control")),
        (200, Some("no-store")),
        "{answer:?}"
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.json()
}

/// Waits until a caller's right is known to the API server, and what it said before is forgotten.
fn wait_admitted(gate: &Gate, token: &str, namespace: Option<&str>) {
    wait::until("the caller is let in", || {
        let answer = ask(
            gate,
            "/v1/verify",
            Some(token),
            &json!({ "key": "", "audience": AUDIENCE, "namespace": namespace }),
        );
        if answer.status == 200 {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    });
}

/// An issued key.
fn issued(stage: &Stage, name: &str, spec: &str) -> String {
    stage.declare(name, spec);
    stage.wait_issued(name);
    stage.mounted(name)["api-key"].clone()
}

/// A well-formed key that was never issued.
fn stranger() -> String {
    let prefix = claviger::key::DEFAULT_PREFIX.parse().expect("a prefix");
    claviger::key::Key::mint(&prefix, &mut claviger::key::OsRandom)
        .expect("a key")
        .expose()
        .to_owned()
}
