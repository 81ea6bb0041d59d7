//! What a real gate tells of itself and of the keys that it sees: its Gate object, `status.lastUsedAt`, its log and its metrics.

mod telling;
mod written;

use claviger::api::Gate as GateObject;
use kube::Api;

use crate::support::Story;
use crate::support::client::Question;
use crate::support::cluster::{NAMESPACE, runtime};
use crate::support::gate::Gate;
use crate::support::operator::Operator;
use crate::support::stage::Stage;
use crate::support::wait;

pub(crate) fn stories() -> Vec<Story> {
    [telling::stories(), written::stories()].concat()
}

const AUDIENCE: &str = "invoices-api";

/// A controller that looks at gates where the chart installs them.
fn operator(stage: &Stage) -> Operator {
    stage
        .operator()
        .args(&["--lease-namespace", NAMESPACE])
        .start_ready()
}

/// A gate that reports, and the name of its object. Stories share the namespace of gates: each has names of its own.
fn reporting(stage: &Stage, name: &str) -> (Gate, String) {
    let name = format!("{}-{name}", stage.namespace);
    (
        Gate::builder(&stage.cluster)
            .reporting_as(&name)
            .start_ready(),
        name,
    )
}

fn find(stage: &Stage, name: &str) -> Option<GateObject> {
    let api: Api<GateObject> = Api::namespaced(stage.cluster.client(), NAMESPACE);
    runtime()
        .block_on(api.get_opt(name))
        .expect("the API server answers")
}

fn wait_object<T>(
    stage: &Stage,
    name: &str,
    what: &str,
    mut found: impl FnMut(&GateObject) -> Option<T>,
) -> T {
    wait::until(&format!("{name} {what}"), || {
        let object = find(stage, name);
        object
            .as_ref()
            .and_then(&mut found)
            .ok_or_else(|| format!("{object:?}"))
    })
}

fn wait_gone(stage: &Stage, name: &str) {
    wait::until(&format!("{name} is gone"), || {
        find(stage, name).map_or(Ok(()), |left| Err(format!("{left:?}")))
    });
}

/// An issued key.
fn issued(stage: &Stage, name: &str) -> String {
    stage.declare(name, &format!("{{audiences: [{AUDIENCE}]}}"));
    stage.wait_issued(name);
    stage.mounted(name)["api-key"].clone()
}

/// The status and code that a proxy of this dialect gets for a key.
fn ask(gate: &Gate, dialect: &str, key: &str) -> (u16, String) {
    let asked = Question::get(&format!("/v1/auth/{dialect}/audience={AUDIENCE}/-/"))
        .bearer(key)
        .ask(gate.plain_address());
    let answer = asked.expect("an answer");
    (
        answer.status,
        answer
            .header("x-claviger-code")
            .unwrap_or_default()
            .to_owned(),
    )
}

/// Asks until the gate gives this code.
fn wait_code(gate: &Gate, key: &str, code: &str) {
    wait::until(&format!("the gate says {code}"), || {
        match ask(gate, "envoy", key) {
            (_, told) if told == code => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}
