//! Fields that only make sense in some combinations.

use serde_json::{Value, json};

use super::{Part, Rule, tell};
use crate::stories;

stories![
    fields_that_contradict_each_other_are_refused,
    a_list_names_nothing_twice
];

pub(super) fn rules() -> Vec<Rule> {
    [choices(), sets()].into_iter().flatten().collect()
}

fn fields_that_contradict_each_other_are_refused() {
    let stage = super::stage("choices");
    tell(&stage, Part::Spec, &choices());
}

fn a_list_names_nothing_twice() {
    let stage = super::stage("sets");
    tell(&stage, Part::Spec, &sets());
}

fn choices() -> Vec<Rule> {
    let one_of_three = "expiry takes exactly one of after, at, never";
    let expiry = |broken: Value, nearest: Value| {
        let says = format!("spec.expiry: … {one_of_three}");
        Rule::new(
            one_of_three,
            json!({ "expiry": broken }),
            &says,
            json!({ "expiry": nearest }),
        )
    };
    let no_false = "revoked can only be true: leave the field out instead of writing false";
    let reason = "revocationReason goes with revoked: true";
    let by = "revokedBy goes with revoked: true";
    vec![
        expiry(json!({}), json!({ "never": true })),
        expiry(
            json!({ "after": "90d", "never": true }),
            json!({ "after": "90d" }),
        ),
        expiry(
            json!({ "after": "90d", "at": "2097-03-01T00:00:00Z" }),
            json!({ "at": "2097-03-01T00:00:00Z" }),
        ),
        expiry(
            json!({ "at": "2097-03-01T00:00:00Z", "never": true }),
            json!({ "never": true }),
        ),
        expiry(
            json!({ "after": "90d", "at": "2097-03-01T00:00:00Z", "never": true }),
            json!({ "after": "90d" }),
        ),
        Rule::new(
            "never can only be true",
            json!({ "expiry": { "never": false } }),
            "spec.expiry.never: … never can only be true",
            json!({ "expiry": { "never": true } }),
        ),
        // No manifest in Git can ever fight a revocation (incidents 23).
        Rule::new(
            no_false,
            json!({ "revoked": false }),
            &format!("spec.revoked: … {no_false}"),
            json!({}),
        ),
        Rule::new(
            no_false,
            json!({ "revoked": false }),
            &format!("spec.revoked: … {no_false}"),
            json!({ "revoked": true }),
        ),
        Rule::new(
            reason,
            json!({ "revocationReason": "leaked" }),
            &format!("spec.revocationReason: … {reason}"),
            json!({ "revoked": true, "revocationReason": "leaked" }),
        ),
        Rule::new(
            by,
            json!({ "revokedBy": "ann@example.com" }),
            &format!("spec.revokedBy: … {by}"),
            json!({ "revoked": true, "revokedBy": "system:serviceaccount:flux-system:flux" }),
        ),
    ]
}

fn sets() -> Vec<Rule> {
    let set = |field: &str, twice: &str, other: &str| {
        let says = format!("spec.{field}[1]: Duplicate value");
        Rule::new(
            &format!("spec.{field} set"),
            json!({ field: [twice, twice] }),
            &says,
            json!({ field: [twice, other] }),
        )
    };
    vec![
        set("audiences", "invoices-api", "invoices-api-2"),
        set("roles", "ic-viewer", "ic-editor"),
        set("permissions", "invoices:read", "Invoices:read"),
    ]
}
