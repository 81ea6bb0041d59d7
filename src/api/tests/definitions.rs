//! The definitions, as they are shipped.

use serde_json::Value;

use super::super::*;

#[test]
fn the_shipped_definitions_are_the_generated_ones() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let generated = manifests::all().unwrap();
    for (file, yaml) in &generated {
        let shipped = std::fs::read_to_string(folder.join(file)).unwrap();
        assert!(
            shipped.trim_end() == yaml.trim_end(),
            "crds/{file} has drifted: write what `claviger manifests` prints"
        );
    }
    let shipped = std::fs::read_dir(folder).unwrap().count();
    assert_eq!(shipped, generated.len(), "and there are no others");
}

/// Every definition as it is shipped.
fn definitions() -> Vec<Value> {
    manifests::all()
        .unwrap()
        .into_iter()
        .map(|(_, yaml)| serde_saphyr::from_str(&yaml).unwrap())
        .collect()
}

fn root_schema(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

pub(super) fn spec_schema() -> Value {
    root_schema(&manifests::apikeys().unwrap())["properties"]["spec"].clone()
}

/// Every schema within every definition, with its kind and path.
pub(super) fn everywhere(visit: &mut impl FnMut(&str, &Value)) {
    for definition in definitions() {
        walk(
            root_schema(&definition),
            definition["spec"]["names"]["kind"].as_str().unwrap(),
            visit,
        );
    }
}

/// Every schema within `schema`, with its path.
fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), visit);
    }
    if schema["items"].is_object() {
        walk(&schema["items"], &format!("{path}[]"), visit);
    }
    if schema["additionalProperties"].is_object() {
        walk(
            &schema["additionalProperties"],
            &format!("{path}{{}}"),
            visit,
        );
    }
}

#[test]
fn every_string_list_and_map_is_bounded() {
    // The fields of Kubernetes' own Condition; only the controller writes them.
    let theirs = ["message", "reason", "status", "type"]
        .map(|field| format!("ApiKey.status.conditions[].{field}"));
    let (mut unbounded, mut count) = (Vec::new(), 0);
    everywhere(&mut |path, schema| {
        let bounded = match schema["type"]
            .as_str()
            .unwrap_or_else(|| panic!("{path} has no type"))
        {
            "string" => {
                schema["maxLength"].is_u64()
                    || schema["enum"].is_array()
                    || schema["format"] == "date-time"
            }
            "array" => schema["maxItems"].is_u64(),
            "object" if schema["additionalProperties"].is_object() => {
                schema["maxProperties"].is_u64()
            }
            "object" => {
                schema["properties"].is_object()
                    && schema["x-kubernetes-preserve-unknown-fields"].is_null()
            }
            _ => true,
        };
        count += 1;
        if !bounded && !theirs.contains(&path.to_owned()) {
            unbounded.push(path.to_owned());
        }
    });
    assert_eq!(unbounded, Vec::<String>::new());
    assert!(count > 120, "only {count} schemas were looked at");
}

#[test]
fn the_definitions_know_no_null_and_no_defaults() {
    let mut found = Vec::new();
    everywhere(&mut |path, schema| {
        if !schema["nullable"].is_null() {
            found.push(format!("{path}: nullable"));
        }
        // A spec that server-side apply has emptied is `{}`, and not null; nothing in it has a default.
        let emptied = path == "ApiKey.spec" && schema["default"] == serde_json::json!({});
        if !emptied
            && schema
                .as_object()
                .is_some_and(|fields| fields.contains_key("default"))
        {
            found.push(format!("{path}: default"));
        }
        if schema["enum"]
            .as_array()
            .is_some_and(|allowed| allowed.iter().any(Value::is_null))
        {
            found.push(format!("{path}: null in enum"));
        }
    });
    assert_eq!(found, Vec::<String>::new());
    for definition in definitions() {
        assert!(
            !definition.to_string().contains("null"),
            "nowhere else either"
        );
    }
}

#[test]
fn an_empty_spec_is_valid_and_stays_empty() {
    let apikey: ApiKey = serde_json::from_value(serde_json::json!({
        "apiVersion": "claviger.dev/v1alpha1", "kind": "ApiKey", "metadata": {"name": "billing"}, "spec": {}
    }))
    .unwrap();
    assert_eq!(apikey.spec, ApiKeySpec::default());
    assert_eq!(
        serde_json::to_value(&apikey.spec).unwrap(),
        serde_json::json!({}),
        "nothing is written that nobody asked for"
    );
    assert_eq!(
        (apikey.secret_name().as_str(), apikey.data_key()),
        ("billing", DEFAULT_DATA_KEY)
    );
    assert!(!apikey.is_revoked() && !apikey.is_deleting() && apikey.template().is_empty());
    assert_eq!(spec_schema()["required"], Value::Null);
}
