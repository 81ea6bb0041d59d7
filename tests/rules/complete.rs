//! The tables of these stories are held against the definition as it is shipped.

use std::collections::BTreeSet;

use claviger::api::manifests;
use serde_json::Value;

use super::{bounds, changes, choices, names, protection, revocation, statuses, templates};
use crate::stories;

stories![no_rule_of_the_definition_goes_untold];

fn no_rule_of_the_definition_goes_untold() {
    let tables = [
        bounds::rules(),
        changes::rules(),
        choices::rules(),
        protection::rules(),
        revocation::rules(),
        statuses::rules(),
        templates::rules(),
    ];
    let mut told: BTreeSet<String> = tables.into_iter().flatten().map(|rule| rule.what).collect();
    told.extend(names::TOLD.map(str::to_owned));
    let mut shipped = BTreeSet::new();
    let definition = manifests::apikeys().expect("a definition");
    collect("", &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut shipped);
    let untold: Vec<_> = shipped.difference(&told).collect();
    let unknown: Vec<_> = told.difference(&shipped).collect();
    assert!(untold.is_empty() && unknown.is_empty(), "rules without a story: {untold:#?}; stories without a rule: {unknown:#?}");
}

/// Every rule at and below a place in the schema.
fn collect(path: &str, schema: &Value, rules: &mut BTreeSet<String>) {
    const BOUNDS: [&str; 9] =
        ["minLength", "maxLength", "pattern", "maxItems", "minItems", "maxProperties", "minimum", "maximum", "enum"];
    let bounds = BOUNDS.into_iter().filter(|keyword| !schema[*keyword].is_null());
    let format = schema["format"].as_str().filter(|format| *format == "date-time");
    let list = schema["x-kubernetes-list-type"].as_str().filter(|list| ["set", "map"].contains(list));
    rules.extend(bounds.chain(format).chain(list).map(|keyword| format!("{path} {keyword}")));
    for validation in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        rules.insert(validation["message"].as_str().expect("every rule says what it wants").to_owned());
    }
    let below = |field: &str| if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
    for required in schema["required"].as_array().into_iter().flatten() {
        rules.insert(format!("{} required", below(required.as_str().expect("a name"))));
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
