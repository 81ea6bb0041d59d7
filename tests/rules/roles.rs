//! What an `ApiKeyRole` may say.

use serde_json::{Value, json};

use super::{Part, Rule, letters, list, tell};
use crate::stories;

stories![a_role_is_bounded, a_role_may_be_edited];

fn a_role_is_bounded() {
    let stage = super::stage("roles");
    tell(&stage, Part::Role, &rules());
}

pub(super) fn rules() -> Vec<Rule> {
    let text = |field: &str, keyword: &str, broken: &str, says: &str, nearest: &str| {
        let what = format!("spec.{field} {keyword}");
        Rule::new(
            &what,
            json!({ field: broken }),
            &format!("spec.{field}: … {says}"),
            json!({ field: nearest }),
        )
    };
    let permission = |keyword: &str, broken: &str, says: &str, nearest: &str| {
        let what = format!("spec.permissions[] {keyword}");
        let of = |text: &str| json!({ "permissions": [text] });
        Rule::new(
            &what,
            of(broken),
            &format!("spec.permissions[0]: … {says}"),
            of(nearest),
        )
    };
    let short = "at least 1 chars";
    vec![
        Rule::new(
            "spec required",
            Value::Null,
            "spec: Required value",
            json!({}),
        ),
        text("title", "minLength", "", short, "V"),
        text(
            "title",
            "maxLength",
            &letters(64),
            "more than 63",
            &letters(63),
        ),
        text("description", "minLength", "", short, "d"),
        text(
            "description",
            "maxLength",
            &letters(257),
            "more than 256",
            &letters(256),
        ),
        text(
            "description",
            "maxLength",
            &"鍵".repeat(257),
            "more than 256",
            &"鍵".repeat(256),
        ),
        Rule::new(
            "spec.permissions maxItems",
            json!({ "permissions": list(257) }),
            "spec.permissions: … at most 256 items",
            json!({ "permissions": list(256) }),
        ),
        Rule::new(
            "spec.permissions set",
            json!({ "permissions": ["invoices:read", "invoices:read"] }),
            "spec.permissions[1]: Duplicate value",
            json!({ "permissions": ["invoices:read", "Invoices:read"] }),
        ),
        permission("minLength", "", short, "p"),
        permission("maxLength", &letters(129), "more than 128", &letters(128)),
        // As in an ApiKey: what it may list itself, a role may give it.
        permission("pattern", "invoices read", "should match", "invoices:read"),
        permission(
            "pattern",
            ":read",
            "should match",
            "invoices:read/eu.v1_x-y",
        ),
        permission("pattern", "invoices:*", "should match", "invoices:all"),
    ]
}

/// Everything, at any time: editing a role is the point of having one.
fn a_role_may_be_edited() {
    let stage = super::stage("role-edits");
    let steps = [
        json!({}),
        json!({ "title": "Viewer", "description": "Reads", "permissions": ["invoices:read"] }),
        json!({ "title": "Reader", "description": "Looks", "permissions": ["invoices:list"] }),
        json!({}),
    ];
    let changes: Vec<_> = steps
        .windows(2)
        .map(|step| (step[0].clone(), step[1].clone()))
        .collect();
    let edits: Vec<_> = changes
        .into_iter()
        .map(|(before, after)| {
            Rule::change(
                "spec.title maxLength",
                before,
                json!({ "title": letters(64) }),
                "more than 63",
                after,
            )
        })
        .collect();
    tell(&stage, Part::Role, &edits);
}
