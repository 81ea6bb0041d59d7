//! The definition itself: what an administrator sees who installs it.

use claviger::api::manifests;
use serde_json::Value;

use crate::stories;
use crate::support::cluster::{CRDS, Cluster};

stories![the_definition_is_taken_without_a_warning, every_text_list_and_map_has_a_bound, nothing_but_the_empty_spec_is_a_default];

fn the_definition_is_taken_without_a_warning() {
    let cluster = Cluster::shared();
    for arguments in [
        &["apply", "--server-side", "--warnings-as-errors", "-f", "-"][..],
        &["apply", "--server-side", "--dry-run=server", "-f", "-"],
    ] {
        // The cost of each rule is part of what is checked here.
        let output = cluster.try_kubectl(arguments, CRDS);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}");
    }
    let live: Value =
        serde_json::from_str(&cluster.kubectl(&["get", "crd", "apikeys.claviger.dev", "-o", "json"])).expect("JSON");
    let mut conditions: Vec<_> = live["status"]["conditions"]
        .as_array()
        .expect("conditions")
        .iter()
        .map(|condition| format!("{}={}", condition["type"].as_str().unwrap(), condition["status"].as_str().unwrap()))
        .collect();
    conditions.sort();
    assert_eq!(conditions, ["Established=True", "NamesAccepted=True"], "and nothing that is wrong with it");
    assert_eq!(live["status"]["storedVersions"], serde_json::json!(["v1alpha1"]));
}

fn every_text_list_and_map_has_a_bound() {
    let mut unbounded = Vec::new();
    walk("", &schema(), &mut |path, schema| {
        let bound = match schema["type"].as_str() {
            // A moment is bounded by its format; the fields of a condition are those of Kubernetes.
            Some("string") if schema["format"] == "date-time" || path.starts_with(".status.conditions[]") => return,
            Some("string") if schema["enum"].is_array() => return,
            Some("string") => "maxLength",
            Some("array") => "maxItems",
            Some("object") if schema["additionalProperties"].is_object() => "maxProperties",
            _ => return,
        };
        // What stands at the top is checked by the API server before any schema.
        if schema[bound].is_null() && ![".apiVersion", ".kind"].contains(&path) {
            unbounded.push(format!("{path} {bound}"));
        }
    });
    assert!(unbounded.is_empty(), "{unbounded:?}");
}

fn nothing_but_the_empty_spec_is_a_default() {
    let mut found = Vec::new();
    let mut places = 0;
    walk("", &schema(), &mut |path, schema| {
        places += 1;
        found
            .extend(["default", "nullable"].iter().filter(|word| !schema[**word].is_null()).map(|word| format!("{path} {word}")));
    });
    assert!(places > 50, "{places} places were looked at");
    assert_eq!(found, [".spec default"]);
    assert_eq!(schema()["properties"]["spec"]["default"], serde_json::json!({}));
}

fn schema() -> Value {
    manifests::apikeys().expect("a definition")["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn walk(path: &str, schema: &Value, look: &mut impl FnMut(&str, &Value)) {
    look(path, schema);
    for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{field}"), schema, look);
    }
    for (keyword, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[keyword].is_object() {
            walk(&format!("{path}{mark}"), &schema[keyword], look);
        }
    }
}
