//! Objects as a watch would show them, and a gate that knows them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::freshness::{Freshness, Watched};
use super::index::{Index, Writer};
use super::metrics::Metrics;
use super::route::Routes;
use super::shown::{ShownApiKey, ShownRole};
use super::{AccessLog, Desk};
use crate::key::Hash;

/// Noon of some day, the moment at which tests ask.
pub(super) const NOW: i64 = 1_800_000_000;

/// A key that anybody can make out to be one of a test.
pub(super) fn key(number: usize) -> String {
    format!("tst_{number:032}000000")
}

/// An ApiKey as declared and issued: `parts` is merged into what every one has.
pub(super) fn apikey(number: usize, parts: Value) -> Value {
    let mut object = json!({
        "metadata": {
            "name": format!("key-{number}"), "namespace": "team-a", "uid": uid(number), "resourceVersion": number.to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": { "audiences": ["invoices-api"] },
        "status": {
            "phase": "Active", "keyId": format!("{number:032x}"), "principal": format!("{number:032x}@team-a.claviger.local"),
            "versions": [version(1, number, "Current", Value::Null)],
        },
    });
    merge(&mut object, parts);
    object
}

/// A version of a key.
pub(super) fn version(version: i64, number: usize, phase: &str, parts: Value) -> Value {
    let hash = Hash::of(key(number).as_bytes()).to_string();
    let mut object = json!({ "version": version, "hash": hash, "tail": "000000", "phase": phase, "announcedAt": "2026-01-01T00:00:00Z" });
    merge(&mut object, parts);
    object
}

/// A role.
pub(super) fn role(name: &str, permissions: &[&str]) -> ShownRole {
    let object = json!({ "metadata": { "name": name, "uid": name }, "spec": { "permissions": permissions } });
    serde_json::from_value(object).unwrap()
}

/// As it is read from the wire.
pub(super) fn shown(object: &Value) -> ShownApiKey {
    serde_json::from_str(&object.to_string()).unwrap()
}

/// The UID of an object.
pub(super) fn uid(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

/// An index of these.
pub(super) fn index(objects: impl IntoIterator<Item = Value>, roles: &[ShownRole]) -> Index {
    let mut writer = Writer::default();
    for object in objects {
        writer.apply(&shown(&object));
    }
    for role in roles {
        writer.apply_role(role);
    }
    writer.publish();
    Index::clone(&writer.published().load())
}

/// A desk with such an index, at [`NOW`].
pub(super) fn desk(objects: impl IntoIterator<Item = Value>, roles: &[ShownRole]) -> Arc<Desk> {
    let index = index(objects, roles);
    let freshness = Freshness::new(true, None);
    freshness.listed(Watched::ApiKeys);
    freshness.listed(Watched::Roles);
    Arc::new(Desk {
        index: Arc::new(arc_swap::ArcSwap::from_pointee(index)),
        freshness: Arc::new(freshness),
        routes: Routes::new(false),
        metrics: Arc::new(Metrics::default()),
        clock: || NOW,
        used: Box::new(|_, _| {}),
        access_log: AccessLog::Off,
    })
}

/// A JSON merge patch (RFC 7386).
fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (name, value) in patch {
                if value.is_null() {
                    target.remove(&name);
                } else {
                    merge(target.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        (target, patch) => {
            if !patch.is_null() {
                *target = patch;
            }
        }
    }
}
