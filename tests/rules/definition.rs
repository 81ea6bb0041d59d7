//! The definitions themselves: what an administrator sees who installs them.

use serde_json::Value;

use super::Kind;
use crate::stories;
use crate::support::cluster::{CRDS, Cluster};

stories![
    the_definitions_are_taken_without_a_warning,
    every_text_list_and_map_has_a_bound,
    nothing_but_the_empty_spec_is_a_default
];

fn the_definitions_are_taken_without_a_warning() {
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
    for kind in Kind::ALL {
        let name = format!("{}.claviger.dev", kind.plural());
        let live: Value =
            serde_json::from_str(&cluster.kubectl(&["get", "crd", &name, "-o", "json"]))
                .expect("JSON");
        let mut conditions: Vec<_> = live["status"]["conditions"]
            .as_array()
            .expect("conditions")
            .iter()
            .map(|condition| {
                format!(
                    "{}={}",
                    condition["type"].as_str().unwrap(),
                    condition["status"].as_str().unwrap()
                )
            })
            .collect();
        conditions.sort();
        assert_eq!(
            conditions,
            ["Established=True", "NamesAccepted=True"],
            "{name}: and nothing that is wrong with it"
        );
        assert_eq!(
            live["status"]["storedVersions"],
            serde_json::json!(["v1alpha1"]),
            "{name}"
        );
    }
}

fn every_text_list_and_map_has_a_bound() {
    let mut unbounded = Vec::new();
    everywhere(&mut |path, schema| {
        let bound = match schema["type"].as_str() {
            // A moment is bounded by its format; the fields of a condition are those of Kubernetes.
            Some("string")
                if schema["format"] == "date-time"
                    || path.starts_with("ApiKey.status.conditions[]") =>
            {
                return;
            }
            Some("string") if schema["enum"].is_array() => return,
            Some("string") => "maxLength",
            Some("array") => "maxItems",
            Some("object") if schema["additionalProperties"].is_object() => "maxProperties",
            _ => return,
        };
        if schema[bound].is_null() {
            unbounded.push(format!("{path} {bound}"));
        }
    });
    assert!(unbounded.is_empty(), "{unbounded:?}");
}

fn nothing_but_the_empty_spec_is_a_default() {
    let mut found = Vec::new();
    let mut places = 0;
    everywhere(&mut |path, schema| {
        places += 1;
        found.extend(
            ["default", "nullable"]
                .iter()
                .filter(|word| !schema[**word].is_null())
                .map(|word| format!("{path} {word}")),
        );
    });
    assert!(places > 120, "{places} places were looked at");
    assert_eq!(found, ["ApiKey.spec default"]);
    assert_eq!(
        Kind::Key.schema()["properties"]["spec"]["default"],
        serde_json::json!({})
    );
}

/// Every place in every definition, by its kind and path.
fn everywhere(look: &mut impl FnMut(&str, &Value)) {
    for kind in Kind::ALL {
        walk(kind.name(), &kind.schema(), look);
    }
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
