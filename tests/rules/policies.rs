//! What an `ApiKeyPolicy` may say. A limit that is misspelt would be no limit, so all of it is checked.

use serde_json::{Value, json};

use super::{Part, Rule, Swept, document, entry, letters, list, map, tell};
use crate::stories;

stories![
    a_policy_selects_namespaces_by_labels,
    a_policy_limits_times_in_whole_units,
    a_policy_lists_what_is_allowed,
    a_policy_knows_what_it_can_require,
    a_limit_that_is_misspelt_is_found,
];

const LABEL: &str = "the name of a label has at most 317 characters";
const DEFAULT: &str = "default must not be longer than max";

pub(super) fn rules() -> Vec<Rule> {
    [selectors(), times(), lists(), choices()]
        .into_iter()
        .flatten()
        .collect()
}

fn a_policy_selects_namespaces_by_labels() {
    let stage = super::stage("policy-selectors");
    tell(&stage, Part::Policy, &selectors());
}

fn a_policy_limits_times_in_whole_units() {
    let stage = super::stage("policy-times");
    tell(&stage, Part::Policy, &times());
}

fn a_policy_lists_what_is_allowed() {
    let stage = super::stage("policy-lists");
    tell(&stage, Part::Policy, &lists());
}

fn a_policy_knows_what_it_can_require() {
    let stage = super::stage("policy-choices");
    tell(&stage, Part::Policy, &choices());
}

fn a_limit_that_is_misspelt_is_found() {
    let stage = super::stage("policy-slips");
    let _swept = Swept(&stage, Part::Policy.kind());
    let name = format!("{}-slip", stage.namespace);
    for (spec, says) in [
        (
            json!({ "lifetimes": { "max": "90d" } }),
            "unknown field \"spec.lifetimes\"",
        ),
        (
            json!({ "lifetime": { "maximum": "90d" } }),
            "unknown field \"spec.lifetime.maximum\"",
        ),
        (json!({ "lifetime": "90d" }), "spec.lifetime"),
        (
            json!({ "rotation": { "maxinterval": "90d" } }),
            "unknown field \"spec.rotation.maxinterval\"",
        ),
        (
            json!({ "rotation": { "required": "yes" } }),
            "spec.rotation.required",
        ),
        (json!({ "roles": ["viewer"] }), "spec.roles"),
        (
            json!({ "roles": { "allowed": "viewer" } }),
            "spec.roles.allowed",
        ),
        (
            json!({ "roles": { "allowed": [], "forbidden": ["admin"] } }),
            "unknown field \"spec.roles.forbidden\"",
        ),
        (
            json!({ "namespaces": { "matchlabels": { "a": "b" } } }),
            "unknown field \"spec.namespaces.matchlabels\"",
        ),
        (
            json!({ "namespaces": { "matchExpressions": [] } }),
            "unknown field \"spec.namespaces.matchExpressions\"",
        ),
    ] {
        let answer = stage.refused(&document(&stage, Part::Policy, &name, &spec));
        assert!(answer.contains(says), "{spec}: {answer}");
    }
}

fn selectors() -> Vec<Rule> {
    let of = |labels: Value| json!({ "namespaces": { "matchLabels": labels } });
    let rule = |what: &str, broken: Value, says: &str, nearest: Value| {
        Rule::new(
            what,
            of(broken),
            &format!("spec.namespaces.matchLabels{says}"),
            of(nearest),
        )
    };
    vec![
        rule(
            "spec.namespaces.matchLabels maxProperties",
            map(9),
            ": … at most 8 items",
            map(8),
        ),
        rule(
            "spec.namespaces.matchLabels{} maxLength",
            entry("x", &letters(64)),
            ".x: … more than 63",
            entry("x", &letters(63)),
        ),
        rule(
            LABEL,
            entry(&letters(318), "y"),
            &format!(": … {LABEL}"),
            entry(&letters(317), "y"),
        ),
        rule(
            LABEL,
            entry(&letters(318), ""),
            &format!(": … {LABEL}"),
            entry("example.com/team", "billing"),
        ),
    ]
}

fn times() -> Vec<Rule> {
    let mut all = Vec::new();
    for (part, field) in [
        ("lifetime", "max"),
        ("lifetime", "default"),
        ("rotation", "maxInterval"),
    ] {
        let one = |keyword: &str, broken: &str, says: &str, nearest: &str| {
            let of = |text: &str| json!({ part: { field: text } });
            let what = format!("spec.{part}.{field} {keyword}");
            Rule::new(
                &what,
                of(broken),
                &format!("spec.{part}.{field}: … {says}"),
                of(nearest),
            )
        };
        let shape = |broken: &str, nearest: &str| one("pattern", broken, "should match", nearest);
        all.extend([
            one("maxLength", "100000d", "more than 6", "99999d"),
            // A limit of nothing would be a ban, and is not a length of time.
            shape("0s", "1s"),
            shape("0d", "1d"),
            shape("090d", "90d"),
            shape("90", "90m"),
            shape("90D", "90h"),
            shape("1y", "52w"),
            shape("never", "99999w"),
            shape("", "1d"),
        ]);
    }
    let of = |max: &str, default: &str| json!({ "lifetime": { "max": max, "default": default } });
    let longer = |max: &str, broken: &str, nearest: &str| {
        Rule::new(
            DEFAULT,
            of(max, broken),
            &format!("spec.lifetime.default: … {DEFAULT}"),
            of(max, nearest),
        )
    };
    all.extend([
        longer("90d", "91d", "90d"),
        // Lengths count, and not how they are written.
        longer("1m", "61s", "60s"),
        longer("1h", "61m", "60m"),
        longer("90d", "2161h", "2160h"),
        longer("1w", "8d", "7d"),
        longer("20d", "3w", "2w"),
        longer("99999s", "1667m", "1666m"),
        longer("99998w", "99999w", "99998w"),
        Rule::change(
            DEFAULT,
            of("90d", "30d"),
            of("29d", "30d"),
            DEFAULT,
            of("30d", "30d"),
        ),
        Rule::change(
            DEFAULT,
            json!({ "lifetime": { "default": "30d" } }),
            of("29d", "30d"),
            DEFAULT,
            of("31d", "30d"),
        ),
    ]);
    all
}

/// A list under `spec.<place>.<field>`: its bounds, and those of what it lists.
fn bounded(place: &str, field: &str, most: usize) -> Vec<Rule> {
    let path = format!("spec.{place}.{field}");
    let of = |value: Value| json!({ place: { field: value } });
    let rule = |what: &str, broken: Value, says: &str, nearest: Value| {
        Rule::new(
            &format!("{path}{what}"),
            of(broken),
            &format!("{path}{says}"),
            of(nearest),
        )
    };
    vec![
        Rule::new(
            &format!("{path} required"),
            json!({ place: {} }),
            &format!("{path}: Required value"),
            of(json!([])),
        ),
        rule(
            " maxItems",
            list(most + 1),
            &format!(": … at most {most} items"),
            list(most),
        ),
        rule(
            " set",
            json!(["x", "x"]),
            "[1]: Duplicate value",
            json!(["x", "X"]),
        ),
        rule(
            "[] minLength",
            json!([""]),
            "[0]: … at least 1 chars",
            json!(["x"]),
        ),
        rule(
            "[] maxLength",
            json!([letters(254)]),
            "[0]: … more than 253",
            json!([letters(253)]),
        ),
    ]
}

fn lists() -> Vec<Rule> {
    let mut all = bounded("template", "annotationPrefixes", 16);
    for place in ["roles", "permissions", "audiences", "prefixes"] {
        all.extend(bounded(place, "allowed", 64));
        let shape = |broken: &str, nearest: &str| {
            let of = |text: &str| json!({ place: { "allowed": [text] } });
            let says = format!("spec.{place}.allowed[0]: … should match");
            Rule::new(
                &format!("spec.{place}.allowed[] pattern"),
                of(broken),
                &says,
                of(nearest),
            )
        };
        // One star, at the end, stands for anything.
        all.extend([
            shape("**", "*"),
            shape("*:read", "invoices:*"),
            shape("invoices:*:eu", "invoices:read:eu"),
        ]);
    }
    all
}

fn choices() -> Vec<Rule> {
    let imports = |broken: &str, nearest: &str| {
        let says = "spec.imports: … supported values: \"Allowed\", \"Forbidden\"";
        Rule::new(
            "spec.imports enum",
            json!({ "imports": broken }),
            says,
            json!({ "imports": nearest }),
        )
    };
    let require = |what: &str, broken: Value, says: &str, nearest: Value| {
        Rule::new(
            &format!("spec.require{what}"),
            json!({ "require": broken }),
            says,
            json!({ "require": nearest }),
        )
    };
    let all = json!(["description", "owner", "application", "expiry"]);
    let names = "supported values: \"description\", \"owner\", \"application\", \"expiry\"";
    vec![
        Rule::new(
            "spec required",
            Value::Null,
            "spec: Required value",
            json!({}),
        ),
        imports("Denied", "Forbidden"),
        imports("allowed", "Allowed"),
        require(
            "[] enum",
            json!(["roles"]),
            &format!("spec.require[0]: … {names}"),
            json!(["owner"]),
        ),
        require(
            "[] enum",
            json!(["owner", "Expiry"]),
            &format!("spec.require[1]: … {names}"),
            json!(["owner", "expiry"]),
        ),
        require(
            " set",
            json!(["owner", "owner"]),
            "spec.require[1]: Duplicate value",
            json!(["owner", "description"]),
        ),
        require(
            " maxItems",
            json!(["description", "owner", "application", "expiry", "owner"]),
            "spec.require: … at most 4 items",
            all,
        ),
    ]
}
