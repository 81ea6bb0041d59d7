//! What a `Gate` may say: it is written by a ServiceAccount that faces the network, so everything has a bound.

use claviger::api::MAX_USES;
use serde_json::{Value, json};

use super::statuses::with;
use super::{Part, Rule, letters, tell};
use crate::stories;

stories![a_gate_is_bounded, kubectl_get_shows_how_gates_stand];

fn a_gate_is_bounded() {
    let stage = super::stage("gates");
    tell(&stage, Part::Gate, &rules());
}

pub(super) fn rules() -> Vec<Rule> {
    let one = |keyword: &str, field: &str, broken: Value, says: &str, nearest: Value| {
        let what = format!("spec.{field} {keyword}");
        Rule::new(
            &what,
            json!({ field: broken }),
            &format!("spec.{field}: … {says}"),
            json!({ field: nearest }),
        )
    };
    let whole =
        json!({ "namespace": "team", "name": "k", "uid": "u", "usedAt": "2026-03-01T00:00:00Z" });
    let uses = |value: Value| json!({ "uses": [value] });
    let of_use = |keyword: &str, field: &str, broken: Value, says: &str, nearest: Value| {
        Rule::new(
            &format!("spec.uses[].{field} {keyword}"),
            uses(with(&whole, field, broken)),
            &format!("spec.uses[0].{field}: … {says}"),
            uses(with(&whole, field, nearest)),
        )
    };
    let (short, digits) = ("at least 1 chars", |count: usize| json!("1".repeat(count)));
    let mut all = vec![
        Rule::new(
            "spec required",
            Value::Null,
            "spec: Required value",
            json!({}),
        ),
        one(
            "date-time",
            "heartbeatTime",
            json!("2026-03-01"),
            "date-time",
            json!("2026-03-01T00:00:00Z"),
        ),
        one("minLength", "version", json!(""), short, json!("1")),
        one(
            "maxLength",
            "version",
            json!(letters(64)),
            "more than 63",
            json!(letters(63)),
        ),
        one(
            "enum",
            "state",
            json!("Ready"),
            "supported values: \"Loading\", \"Current\", \"Stale\"",
            json!("Current"),
        ),
        one("minLength", "namespace", json!(""), short, json!("n")),
        one(
            "maxLength",
            "namespace",
            json!(letters(64)),
            "more than 63",
            json!(letters(63)),
        ),
        one(
            "minimum",
            "keys",
            json!(-1),
            "greater than or equal to 0",
            json!(0),
        ),
        Rule::new(
            "spec.uses maxItems",
            json!({ "uses": vec![whole.clone(); MAX_USES + 1] }),
            &format!("spec.uses: … at most {MAX_USES} items"),
            json!({ "uses": vec![whole.clone(); MAX_USES] }),
        ),
    ];
    for field in ["reachedResourceVersion", "rolesResourceVersion"] {
        all.push(one(
            "maxLength",
            field,
            digits(39),
            "more than 38",
            digits(38),
        ));
        for broken in ["", "-1", "01", "1a", "1.5"] {
            all.push(one(
                "pattern",
                field,
                json!(broken),
                "should match",
                json!("0"),
            ));
        }
    }
    for (field, most) in [("namespace", 63), ("name", 63), ("uid", 64)] {
        all.push(of_use("minLength", field, json!(""), short, json!("x")));
        all.push(of_use(
            "maxLength",
            field,
            json!(letters(most + 1)),
            &format!("more than {most}"),
            json!(letters(most)),
        ));
    }
    for field in ["namespace", "name", "uid", "usedAt"] {
        all.push(of_use(
            "required",
            field,
            Value::Null,
            "Required value",
            whole[field].clone(),
        ));
    }
    all.push(of_use(
        "date-time",
        "usedAt",
        json!("yesterday"),
        "date-time",
        json!("2026-03-01T00:00:00Z"),
    ));
    all
}

fn kubectl_get_shows_how_gates_stand() {
    let stage = super::stage("gate-views");
    let spec = json!({
        "heartbeatTime": "2026-03-01T00:00:00Z", "version": "0.1.0", "state": "Current", "keys": 12,
        "reachedResourceVersion": "4711",
    });
    stage.apply(&super::document(&stage, Part::Gate, "gate-a", &spec));
    for word in ["gate", "gates", "gates.claviger.dev"] {
        let shown = stage.kubectl(&["get", word]);
        let lines: Vec<Vec<_>> = shown
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[0],
            ["NAME", "STATE", "KEYS", "REACHED", "HEARTBEAT", "AGE"],
            "{word}"
        );
        assert_eq!(lines[1][..4], ["gate-a", "Current", "12", "4711"], "{word}");
        assert_eq!(lines[1].len(), 6, "{word}: {shown}");
    }
    assert!(
        stage
            .kubectl(&["get", "claviger", "-o", "name"])
            .contains("gate.claviger.dev/gate-a")
    );
}
