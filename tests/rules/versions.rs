//! What rotations leave in the status: a replaced version goes one way, and so does what goes with it.

use serde_json::{Value, json};

use super::statuses::{hash, version, with};
use super::{Part, Rule, tell};
use crate::stories;

stories![
    a_replaced_version_goes_one_way,
    a_version_is_listed_until_it_is_retired,
    what_was_acted_on_stays_acted_on
];

const ORGANIZATION: &str = "status.organization is set once and stays";
const REVISION: &str = "status.revision can only grow";
const DELIVERED: &str =
    "a delivered version stays listed until it is retired, and its hash stays as it is";
const ONE_CURRENT: &str = "at most one version is Current";
const HIGHER: &str = "a new version has a higher number than all that are listed";
const REPLACED: &str =
    "a version that was replaced never becomes current again, and its end can only come nearer";

pub(super) fn rules() -> Vec<Rule> {
    [replaced(), listed(), settled()]
        .into_iter()
        .flatten()
        .collect()
}

fn a_replaced_version_goes_one_way() {
    let stage = super::stage("replaced");
    tell(&stage, Part::Status, &replaced());
}

fn a_version_is_listed_until_it_is_retired() {
    let stage = super::stage("listed");
    tell(&stage, Part::Status, &listed());
}

fn what_was_acted_on_stays_acted_on() {
    let stage = super::stage("settled");
    tell(&stage, Part::Status, &settled());
}

fn change(message: &str, before: &Value, broken: Value, nearest: Value) -> Rule {
    Rule::change(message, before.clone(), broken, message, nearest)
}

fn status(versions: &[&Value]) -> Value {
    json!({ "versions": versions })
}

fn in_phase(number: i64, phase: &str) -> Value {
    with(&version(number), "phase", json!(phase))
}

/// A version that was replaced at noon, and passes until the end of the day.
fn retiring() -> Value {
    let replaced = with(
        &in_phase(1, "Retiring"),
        "replacedAt",
        json!("2026-03-01T12:00:00Z"),
    );
    with(&replaced, "retiresAt", json!("2026-03-02T00:00:00Z"))
}

fn replaced() -> Vec<Rule> {
    let (retiring, current) = (retiring(), in_phase(2, "Current"));
    let (retired, endless) = (
        with(&retiring, "phase", json!("Retired")),
        with(&retiring, "retiresAt", Value::Null),
    );
    let phase = |one: &Value, phase: &str| status(&[&with(one, "phase", json!(phase)), &current]);
    let ends = |at: &str| status(&[&with(&retiring, "retiresAt", json!(at)), &current]);
    let (passing, over) = (
        status(&[&retiring, &current]),
        status(&[&retired, &current]),
    );
    let mut all = vec![
        change(
            REPLACED,
            &passing,
            phase(&retiring, "Current"),
            over.clone(),
        ),
        change(
            REPLACED,
            &passing,
            phase(&retiring, "Announced"),
            passing.clone(),
        ),
        // Its end comes nearer, and never the other way.
        change(
            REPLACED,
            &passing,
            ends("2026-03-02T00:00:01Z"),
            ends("2026-03-01T23:59:59Z"),
        ),
        change(
            REPLACED,
            &passing,
            ends("2097-03-01T00:00:00Z"),
            ends("2026-03-01T12:00:00Z"),
        ),
        change(
            REPLACED,
            &passing,
            ends("2026-03-02T00:00:00-01:00"),
            ends("2026-03-02T01:00:00+01:00"),
        ),
        change(
            REPLACED,
            &passing,
            status(&[&endless, &current]),
            status(&[&with(&endless, "phase", json!("Retired")), &current]),
        ),
        // With whatever number the next one has.
        change(
            REPLACED,
            &status(&[&retiring]),
            status(&[&in_phase(1, "Current")]),
            status(&[&retiring, &in_phase(7, "Current")]),
        ),
        // What is over stays over, until nobody needs to know of it.
        change(
            REPLACED,
            &over,
            phase(&retired, "Retiring"),
            status(&[&current]),
        ),
        change(REPLACED, &over, phase(&retired, "Current"), over.clone()),
        change(
            REPLACED,
            &over,
            phase(&retired, "Announced"),
            status(&[&current, &version(3)]),
        ),
        change(
            REPLACED,
            &over,
            status(&[&with(&retired, "hash", json!(hash("b"))), &current]),
            over.clone(),
        ),
    ];
    // Whichever of several is meant.
    let many = status(&[
        &in_phase(1, "Retired"),
        &with(&retiring, "version", json!(2)),
        &in_phase(3, "Current"),
        &version(4),
    ]);
    let at = |index: usize, phase: &str| {
        let mut changed = many.clone();
        changed["versions"][index]["phase"] = json!(phase);
        changed
    };
    all.extend([
        change(REPLACED, &many, at(0, "Current"), at(1, "Retired")),
        change(REPLACED, &many, at(1, "Current"), at(1, "Retired")),
        change(REPLACED, &many, at(0, "Retiring"), at(2, "Retiring")),
        change(REPLACED, &many, at(1, "Announced"), at(2, "Retired")),
    ]);
    all
}

fn listed() -> Vec<Rule> {
    let (retiring, current, next) = (retiring(), in_phase(2, "Current"), version(3));
    let other = |one: &Value| with(one, "hash", json!(hash("b")));
    let before = status(&[&retiring, &current, &next]);
    let retired = |one: &Value| with(one, "phase", json!("Retired"));
    vec![
        change(
            DELIVERED,
            &before,
            status(&[&current, &next]),
            status(&[&retired(&retiring), &current, &next]),
        ),
        change(
            DELIVERED,
            &before,
            status(&[&retiring, &next]),
            status(&[&retiring, &retired(&current), &next]),
        ),
        change(
            DELIVERED,
            &before,
            status(&[&other(&retiring), &current]),
            status(&[&retiring, &current]),
        ),
        change(
            DELIVERED,
            &before,
            status(&[&retiring, &other(&current)]),
            status(&[&retiring, &current, &other(&next)]),
        ),
        change(
            DELIVERED,
            &before,
            status(&[&retiring, &with(&current, "version", json!(4))]),
            status(&[
                &retiring,
                &with(&current, "phase", json!("Retiring")),
                &with(&next, "phase", json!("Current")),
            ]),
        ),
        change(DELIVERED, &before, status(&[]), before.clone()),
        change(DELIVERED, &before, json!({}), before.clone()),
        change(DELIVERED, &before, Value::Null, before.clone()),
        change(
            ONE_CURRENT,
            &before,
            status(&[&retiring, &current, &with(&next, "phase", json!("Current"))]),
            before.clone(),
        ),
        // What was forgotten does not come back under its number, nor under another that is not new.
        change(
            HIGHER,
            &status(&[&current]),
            status(&[&retired(&version(1)), &current]),
            status(&[&current, &next]),
        ),
        change(
            HIGHER,
            &status(&[&version(2)]),
            status(&[&version(1), &version(2)]),
            status(&[&version(2), &version(5)]),
        ),
        // One more step: what is retired or was only announced may go.
        change(
            DELIVERED,
            &status(&[&retired(&version(1)), &current, &next]),
            status(&[&next]),
            status(&[&current]),
        ),
    ]
}

fn settled() -> Vec<Rule> {
    let organization = json!({ "organization": "acme" });
    let revision = |number: i64| json!({ "revision": number });
    vec![
        change(
            ORGANIZATION,
            &organization,
            json!({ "organization": "acme.eu" }),
            with(&organization, "phase", json!("Pending")),
        ),
        change(
            ORGANIZATION,
            &organization,
            json!({ "phase": "Pending" }),
            organization.clone(),
        ),
        change(
            ORGANIZATION,
            &organization,
            Value::Null,
            organization.clone(),
        ),
        change(REVISION, &revision(2), revision(1), revision(3)),
        change(REVISION, &revision(2), revision(0), revision(2)),
        change(
            REVISION,
            &revision(2),
            json!({ "phase": "Pending" }),
            revision(4),
        ),
        change(
            REVISION,
            &revision(2),
            Value::Null,
            with(&revision(2), "phase", json!("Pending")),
        ),
        // No revision at all is the first thing that is acted on.
        change(REVISION, &revision(0), json!({}), revision(1)),
    ]
}
