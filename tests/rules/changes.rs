//! What cannot be changed once an ApiKey is there, and what can.

use serde_json::{Value, json};

use super::{Part, Rule, tell};
use crate::stories;
use crate::support::stage::manifest;

stories![
    what_a_key_was_minted_for_cannot_be_changed,
    a_field_cannot_be_changed_by_removing_and_adding_it_again,
    what_people_may_change_is_taken,
];

const EXPIRY: &str = "expiry cannot be changed, added or removed after creation";
const PREFIX: &str = "prefix cannot be changed after creation";
const NAME: &str = "secret.name cannot be changed after creation";
const KEY: &str = "secret.key cannot be changed after creation";

pub(super) fn rules() -> Vec<Rule> {
    let expiry = |before: Value, broken: Value, nearest: Value| {
        let spec = |expiry: Value| {
            if expiry.is_null() {
                json!({})
            } else {
                json!({ "expiry": expiry })
            }
        };
        Rule::change(
            EXPIRY,
            spec(before),
            spec(broken),
            &format!("spec.expiry: … {EXPIRY}"),
            spec(nearest),
        )
    };
    let prefix = |before: Value, broken: Value, nearest: Value| {
        Rule::change(
            PREFIX,
            before,
            broken,
            &format!("spec.prefix: … {PREFIX}"),
            nearest,
        )
    };
    let secret = |message: &str, before: Value, broken: Value, nearest: Value| {
        Rule::change(
            message,
            before,
            broken,
            &format!("spec.secret: … {message}"),
            nearest,
        )
    };
    let moment = |text: &str| json!({ "at": text });
    vec![
        expiry(
            json!({ "after": "90d" }),
            json!({ "after": "91d" }),
            json!({ "after": "90d" }),
        ),
        // The same length in other words is a change: what is written is what counts.
        expiry(
            json!({ "after": "48h" }),
            json!({ "after": "2d" }),
            json!({ "after": "48h" }),
        ),
        expiry(
            json!({ "after": "90d" }),
            json!({ "never": true }),
            json!({ "after": "90d" }),
        ),
        expiry(
            json!({ "after": "90d" }),
            moment("2097-03-01T00:00:00Z"),
            json!({ "after": "90d" }),
        ),
        expiry(
            json!({ "after": "90d" }),
            Value::Null,
            json!({ "after": "90d" }),
        ),
        expiry(
            json!({ "never": true }),
            Value::Null,
            json!({ "never": true }),
        ),
        expiry(Value::Null, json!({ "after": "90d" }), Value::Null),
        expiry(Value::Null, json!({ "never": true }), Value::Null),
        expiry(
            moment("2097-03-01T00:00:00Z"),
            moment("2097-03-01T00:00:01Z"),
            moment("2097-03-01T00:00:00Z"),
        ),
        // The same moment in another zone is no change.
        expiry(
            moment("2097-03-01T00:00:00Z"),
            moment("2097-03-01T00:00:00+01:00"),
            moment("2097-03-01T01:00:00+01:00"),
        ),
        prefix(
            json!({ "prefix": "acme" }),
            json!({ "prefix": "acme2" }),
            json!({ "prefix": "acme" }),
        ),
        prefix(
            json!({ "prefix": "acme" }),
            json!({}),
            json!({ "prefix": "acme" }),
        ),
        // Writing the default down, or leaving it out again, is no change.
        prefix(
            json!({}),
            json!({ "prefix": "acme" }),
            json!({ "prefix": "clv" }),
        ),
        prefix(
            json!({ "prefix": "clv" }),
            json!({ "prefix": "clw" }),
            json!({}),
        ),
        secret(
            NAME,
            json!({ "secret": { "name": "a" } }),
            json!({ "secret": { "name": "b" } }),
            json!({ "secret": { "name": "a" } }),
        ),
        secret(
            NAME,
            json!({ "secret": { "name": "a" } }),
            json!({ "secret": {} }),
            json!({ "secret": { "name": "a" } }),
        ),
        secret(
            NAME,
            json!({ "secret": { "name": "a" } }),
            json!({}),
            json!({ "secret": { "name": "a", "key": "api-key" } }),
        ),
        secret(
            NAME,
            json!({}),
            json!({ "secret": { "name": "b" } }),
            json!({ "secret": {} }),
        ),
        secret(
            KEY,
            json!({ "secret": { "key": "a" } }),
            json!({ "secret": { "key": "b" } }),
            json!({ "secret": { "key": "a" } }),
        ),
        secret(
            KEY,
            json!({ "secret": { "key": "a" } }),
            json!({ "secret": {} }),
            json!({ "secret": { "key": "a" } }),
        ),
        secret(
            KEY,
            json!({ "secret": { "key": "a" } }),
            json!({}),
            json!({ "secret": { "key": "a" } }),
        ),
        secret(
            KEY,
            json!({}),
            json!({ "secret": { "key": "b" } }),
            json!({ "secret": { "key": "api-key" } }),
        ),
        secret(
            KEY,
            json!({ "secret": { "key": "api-key" } }),
            json!({ "secret": { "key": "b" } }),
            json!({}),
        ),
    ]
}

fn what_a_key_was_minted_for_cannot_be_changed() {
    let stage = super::stage("changes");
    tell(&stage, Part::Spec, &rules());
    // The default of the Secret's name is the ApiKey's own name.
    stage.declare("billing", "{}");
    stage.declare("billing", "{secret: {name: billing}}");
    assert!(
        stage
            .refused(&manifest("billing", "{secret: {name: billing-2}}"))
            .contains(NAME)
    );
    stage.declare("billing", "{}");
}

/// Two steps that are each refused cannot add up to a change.
fn a_field_cannot_be_changed_by_removing_and_adding_it_again() {
    let stage = super::stage("two-steps");
    let fields = [
        (EXPIRY, "{expiry: {after: 90d}}", "{expiry: {after: 900d}}"),
        (PREFIX, "{prefix: acme}", "{prefix: evil}"),
        (NAME, "{secret: {name: a}}", "{secret: {name: b}}"),
        (KEY, "{secret: {key: a}}", "{secret: {key: b}}"),
        (
            "organization cannot be changed",
            "{organization: acme}",
            "{organization: evil}",
        ),
        ("revision can only grow", "{revision: 2}", "{revision: 1}"),
        (
            "source cannot be changed",
            "{source: {secretRef: {name: a, key: k}}}",
            "{source: {secretRef: {name: b, key: k}}}",
        ),
        (
            "secret.retention cannot be changed",
            "{secret: {retention: UntilCollected}}",
            "{secret: {retention: Always}}",
        ),
    ];
    for (number, (message, before, after)) in fields.into_iter().enumerate() {
        let name = format!("key-{number}");
        stage.declare(&name, before);
        assert!(
            stage.refused(&manifest(&name, "{}")).contains(message),
            "removed"
        );
        assert!(
            stage.refused(&manifest(&name, after)).contains(message),
            "added again"
        );
        let patch = "[{\"op\": \"remove\", \"path\": \"/spec\"}, {\"op\": \"add\", \"path\": \"/spec\", \"value\": {}}]";
        let output = stage.try_kubectl(&["patch", "apikey", &name, "--type=json", "-p", patch]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(message),
            "removed with the whole spec: {said}"
        );
    }
}

fn what_people_may_change_is_taken() {
    let stage = super::stage("editable");
    stage.declare("plain", "{expiry: {after: 90d}}");
    let uid = stage.apikey("plain").metadata.uid;
    for spec in [
        "{expiry: {after: 90d}, description: Nightly export of invoices, owner: o, application: a, audiences: [x], roles: [r], \
          permissions: [p], metadata: {tier: gold}, secret: {template: {metadata: {labels: {a: b}}, data: {H: \"${key}\"}}}}",
        "{expiry: {after: 90d}, description: Hourly export of invoices, owner: p, application: b, audiences: [z], roles: [s], \
          permissions: [q], metadata: {tier: iron}, secret: {template: {metadata: {labels: {a: c}}, data: {G: \"${key}\"}}}}",
        "{expiry: {after: 90d}, rotation: {every: 30d, overlap: 7d}, includeSubOrganizations: true}",
        "{expiry: {after: 90d}, rotation: {every: 7d}, includeSubOrganizations: false, secret: {retention: WhileActive}}",
        "{expiry: {after: 90d}, rotation: {overlap: 0s}, secret: {retention: Always}, revision: 1}",
        "{expiry: {after: 90d}, revision: 20261121}",
        "{expiry: {after: 90d}, revision: 20261122}",
        "{expiry: {after: 90d}, revision: 20261123, revoked: true}",
        "{expiry: {after: 90d}, revision: 20261123, revoked: true, revocationReason: leaked in a build log}",
        "{expiry: {after: 90d}, revision: 20261123, revoked: true, revocationReason: leaked in a build log, owner: o}",
    ] {
        let said = stage.apply(&manifest("plain", spec));
        assert!(said.contains("configured"), "{said}");
    }
    assert_eq!(stage.apikey("plain").metadata.uid, uid);
}
