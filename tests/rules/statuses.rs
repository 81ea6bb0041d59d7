//! The shape of a status: nothing that gates could misread can be written, not even by an administrator.

use serde_json::{Value, json};

use super::{Part, Rule, letters, tell};
use crate::stories;

stories![a_status_of_the_wrong_shape_is_refused];

fn a_status_of_the_wrong_shape_is_refused() {
    let stage = super::stage("statuses");
    tell(&stage, Part::Status, &rules());
}

pub(super) fn rules() -> Vec<Rule> {
    [fields(), secret_ref(), versions(), conditions(), moments()]
        .into_iter()
        .flatten()
        .collect()
}

/// A hash of the right shape.
pub(super) fn hash(digit: &str) -> String {
    format!("sha256:{}", digit.repeat(64))
}

/// A version that is well-formed.
pub(super) fn version(number: i64) -> Value {
    json!({ "version": number, "hash": hash("a"), "tail": "2Xk9Qd", "phase": "Announced", "announcedAt": "2026-03-01T00:00:00Z" })
}

/// Something with one field set or, with null, left out.
pub(super) fn with(whole: &Value, field: &str, value: Value) -> Value {
    let mut changed = whole.clone();
    let fields = changed.as_object_mut().expect("an object");
    if value.is_null() {
        fields.remove(field);
    } else {
        fields.insert(field.to_owned(), value);
    }
    changed
}

fn fields() -> Vec<Rule> {
    let one = |keyword: &str, field: &str, broken: Value, says: &str, nearest: Value| {
        let what = format!("status.{field} {keyword}");
        Rule::new(
            &what,
            json!({ field: broken }),
            &format!("status.{field}: … {says}"),
            json!({ field: nearest }),
        )
    };
    let hex = |count: usize| {
        json!(
            "0a".repeat(16)
                .chars()
                .cycle()
                .take(count)
                .collect::<String>()
        )
    };
    vec![
        one(
            "enum",
            "phase",
            json!("Suspended"),
            "supported values: \"Pending\", \"Active\", \"Expired\", \"Revoked\"",
            json!("Pending"),
        ),
        one("minLength", "keyId", hex(31), "at least 32", hex(32)),
        one("maxLength", "keyId", hex(33), "more than 32", hex(32)),
        one(
            "pattern",
            "keyId",
            json!("0A".repeat(16)),
            "should match",
            hex(32),
        ),
        one(
            "maxLength",
            "organization",
            json!(letters(64)),
            "more than 63",
            json!(letters(63)),
        ),
        one(
            "minimum",
            "revision",
            json!(-1),
            "greater than or equal to 0",
            json!(0),
        ),
        one(
            "maxLength",
            "principal",
            json!(letters(321)),
            "more than 320",
            json!(letters(320)),
        ),
        one(
            "minimum",
            "version",
            json!(0),
            "greater than or equal to 1",
            json!(1),
        ),
        one(
            "maxLength",
            "hash",
            json!(hash("a") + "a"),
            "more than 71",
            json!(hash("a")),
        ),
        one(
            "pattern",
            "hash",
            json!(hash("A")),
            "should match",
            json!(hash("a")),
        ),
        one(
            "pattern",
            "hash",
            json!(hash("a").replace("256", "512")),
            "should match",
            json!(hash("a")),
        ),
        one(
            "maxLength",
            "tail",
            json!(letters(7)),
            "more than 6",
            json!(letters(6)),
        ),
    ]
}

fn secret_ref() -> Vec<Rule> {
    let whole = json!({ "name": "n", "key": "k", "uid": "u", "resourceVersion": "1" });
    let status = |value: Value| json!({ "secretRef": value });
    let mut all = Vec::new();
    for (field, most) in [
        ("name", 253),
        ("key", 253),
        ("uid", 128),
        ("resourceVersion", 128),
    ] {
        let (missing, long) = (
            with(&whole, field, Value::Null),
            with(&whole, field, json!(letters(most + 1))),
        );
        let says = format!("status.secretRef.{field}: … ");
        all.push(Rule::new(
            &format!("status.secretRef.{field} required"),
            status(missing),
            &format!("{says}Required value"),
            status(whole.clone()),
        ));
        all.push(Rule::new(
            &format!("status.secretRef.{field} maxLength"),
            status(long),
            &format!("{says}more than {most}"),
            status(with(&whole, field, json!(letters(most)))),
        ));
    }
    all
}

fn versions() -> Vec<Rule> {
    let status = |versions: Vec<Value>| json!({ "versions": versions });
    let one = |keyword: &str, field: &str, broken: Value, says: &str, nearest: Value| {
        Rule::new(
            &format!("status.versions[].{field} {keyword}"),
            status(vec![with(&version(1), field, broken)]),
            &format!("status.versions[0].{field}: … {says}"),
            status(vec![with(&version(1), field, nearest)]),
        )
    };
    let required = |field: &str| {
        one(
            "required",
            field,
            Value::Null,
            "Required value",
            version(1)[field].clone(),
        )
    };
    let mut all: Vec<_> = ["version", "hash", "tail", "phase", "announcedAt"]
        .map(required)
        .into();
    all.extend([
        one(
            "minimum",
            "version",
            json!(0),
            "greater than or equal to 1",
            json!(1),
        ),
        one(
            "maxLength",
            "hash",
            json!(hash("a") + "a"),
            "more than 71",
            json!(hash("a")),
        ),
        one(
            "pattern",
            "hash",
            json!("a".repeat(64)),
            "should match",
            json!(hash("a")),
        ),
        one(
            "maxLength",
            "tail",
            json!(letters(7)),
            "more than 6",
            json!(letters(6)),
        ),
        one(
            "enum",
            "phase",
            json!("Lost"),
            "supported values: \"Announced\", \"Current\", \"Retiring\", \"Retired\"",
            json!("Retiring"),
        ),
        one(
            "enum",
            "phase",
            json!("retired"),
            "supported values: \"Announced\", \"Current\", \"Retiring\", \"Retired\"",
            json!("Retired"),
        ),
        one(
            "minimum",
            "revision",
            json!(-1),
            "greater than or equal to 0",
            json!(0),
        ),
        Rule::new(
            "status.versions map",
            status(vec![version(1), version(1)]),
            "status.versions[1]: Duplicate value",
            status(vec![version(1), version(2)]),
        ),
        Rule::new(
            "status.versions maxItems",
            status((1..=25).map(version).collect()),
            "status.versions: … at most 24 items",
            status((1..=24).map(version).collect()),
        ),
    ]);
    all
}

fn conditions() -> Vec<Rule> {
    let whole = |type_: &str| {
        let since = "2026-03-01T00:00:00Z";
        json!({ "type": type_, "status": "True", "reason": "Issued", "message": "", "lastTransitionTime": since })
    };
    let status = |conditions: Vec<Value>| json!({ "conditions": conditions });
    let required = |field: &str| {
        Rule::new(
            &format!("status.conditions[].{field} required"),
            status(vec![with(&whole("Ready"), field, Value::Null)]),
            &format!("status.conditions[0].{field}: Required value"),
            status(vec![whole("Ready")]),
        )
    };
    let mut all: Vec<_> = ["type", "status", "reason", "message", "lastTransitionTime"]
        .map(required)
        .into();
    let many = |count: usize| {
        (0..count)
            .map(|number| whole(&format!("Type{number}")))
            .collect()
    };
    all.extend([
        Rule::new(
            "status.conditions map",
            status(vec![whole("Ready"), whole("Ready")]),
            "status.conditions[1]: Duplicate value",
            status(vec![whole("Ready"), whole("Usable")]),
        ),
        Rule::new(
            "status.conditions maxItems",
            status(many(9)),
            "status.conditions: … at most 8 items",
            status(many(8)),
        ),
    ]);
    all
}

fn moments() -> Vec<Rule> {
    let (broken, nearest) = (json!("2026-03-01"), json!("2026-03-01T00:00:00Z"));
    let mut all: Vec<_> = [
        "issuedAt",
        "expiresAt",
        "expiredAt",
        "revokedAt",
        "rotatesAt",
        "lastUsedAt",
    ]
    .map(|field| {
        let says = format!("status.{field}: … date-time");
        Rule::new(
            &format!("status.{field} date-time"),
            json!({ field: broken }),
            &says,
            json!({ field: nearest }),
        )
    })
    .into();
    for field in [
        "announcedAt",
        "activatedAt",
        "replacedAt",
        "retiresAt",
        "collectedAt",
        "discardedAt",
    ] {
        all.push(Rule::new(
            &format!("status.versions[].{field} date-time"),
            json!({ "versions": [with(&version(1), field, broken.clone())] }),
            &format!("status.versions[0].{field}: … date-time"),
            json!({ "versions": [with(&version(1), field, nearest.clone())] }),
        ));
    }
    let condition = |since: &Value| json!({ "type": "Ready", "status": "True", "reason": "Issued", "message": "", "lastTransitionTime": since });
    all.push(Rule::new(
        "status.conditions[].lastTransitionTime date-time",
        json!({ "conditions": [condition(&broken)] }),
        "status.conditions[0].lastTransitionTime: … date-time",
        json!({ "conditions": [condition(&nearest)] }),
    ));
    all
}
