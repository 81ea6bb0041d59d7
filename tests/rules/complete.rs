//! The tables of these stories are held against the definitions as they are shipped.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Kind, Rule, bounds, changes, choices, gates, names, organizations, policies, protection,
    revocation, roles, rotation, sources, statuses, templates, versions,
};
use crate::stories;

stories![no_rule_of_the_definitions_goes_untold];

fn no_rule_of_the_definitions_goes_untold() {
    for kind in Kind::ALL {
        let mut told: BTreeSet<String> = rules(kind).into_iter().map(|rule| rule.what).collect();
        if kind == Kind::Key {
            told.extend(names::TOLD.map(str::to_owned));
        }
        let mut shipped = BTreeSet::new();
        collect("", &kind.schema(), &mut shipped);
        let untold: Vec<_> = shipped.difference(&told).collect();
        let unknown: Vec<_> = told.difference(&shipped).collect();
        assert!(
            untold.is_empty() && unknown.is_empty(),
            "{}: rules without a story: {untold:#?}; stories without a rule: {unknown:#?}",
            kind.name()
        );
    }
}

fn rules(kind: Kind) -> Vec<Rule> {
    match kind {
        Kind::Key => [
            bounds::rules(),
            changes::rules(),
            choices::rules(),
            organizations::rules(),
            protection::rules(),
            revocation::rules(),
            rotation::rules(),
            sources::rules(),
            statuses::rules(),
            templates::rules(),
            versions::rules(),
        ]
        .into_iter()
        .flatten()
        .collect(),
        Kind::Role => roles::rules(),
        Kind::Policy => policies::rules(),
        Kind::Gate => gates::rules(),
    }
}

/// Every rule at and below a place in the schema.
fn collect(path: &str, schema: &Value, rules: &mut BTreeSet<String>) {
    const BOUNDS: [&str; 9] = [
        "minLength",
        "maxLength",
        "pattern",
        "maxItems",
        "minItems",
        "maxProperties",
        "minimum",
        "maximum",
        "enum",
    ];
    let bounds = BOUNDS
        .into_iter()
        .filter(|keyword| !schema[*keyword].is_null());
    let format = schema["format"]
        .as_str()
        .filter(|format| *format == "date-time");
    let list = schema["x-kubernetes-list-type"]
        .as_str()
        .filter(|list| ["set", "map"].contains(list));
    rules.extend(
        bounds
            .chain(format)
            .chain(list)
            .map(|keyword| format!("{path} {keyword}")),
    );
    for validation in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        rules.insert(
            validation["message"]
                .as_str()
                .expect("every rule says what it wants")
                .to_owned(),
        );
    }
    let below = |field: &str| {
        if path.is_empty() {
            field.to_owned()
        } else {
            format!("{path}.{field}")
        }
    };
    for required in schema["required"].as_array().into_iter().flatten() {
        rules.insert(format!(
            "{} required",
            below(required.as_str().expect("a name"))
        ));
    }
    for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
        collect(&below(field), schema, rules);
    }
    for (keyword, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[keyword].is_object() {
            collect(&format!("{path}{mark}"), &schema[keyword], rules);
        }
    }
}
