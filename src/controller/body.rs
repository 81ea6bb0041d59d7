//! What is sent to the API server about a Secret. The one place where a key is exposed.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use serde_json::{Map, Value, json};
use zeroize::{Zeroize, Zeroizing};

use crate::api::{ApiKey, ApiKeyStatus, Facts, SecretTemplate};
use crate::key::Hash;
use crate::lifecycle::{Mending, SecretFacts, World, replacement, shape};

/// A Secret whose data is wiped when it is dropped. The buffers of the HTTP client are out of reach.
pub(super) struct Wiped(pub(super) Secret);

impl Drop for Wiped {
    fn drop(&mut self) {
        for entry in self.0.data.iter_mut().flat_map(BTreeMap::values_mut) {
            entry.0.zeroize();
        }
    }
}

/// The template's entries for a merge patch, with the key that the Secret holds; `None` where that is not ours.
pub(super) fn entries_anew(
    live: &Secret,
    gone: &[String],
    world: &World,
) -> Option<(Value, Option<String>)> {
    let status = world.status();
    let key = live.data.as_ref()?.get(world.apikey.data_key())?;
    let current = status
        .current()
        .filter(|current| Hash::of(&key.0).to_string() == current.hash)?;
    let expanded = entries(
        &world.apikey,
        &status,
        std::str::from_utf8(&key.0).ok()?,
        &current.tail,
    );
    Some((data_of(expanded, gone), live.resource_version()))
}

/// The Secret as it is delivered.
pub(super) fn secret(apikey: &ApiKey, status: &ApiKeyStatus, key: &str, tail: &str) -> Secret {
    let shape = shape(apikey, status);
    let mut data = entries(apikey, status, key, tail);
    data.insert(
        apikey.data_key().to_owned(),
        ByteString(key.as_bytes().to_vec()),
    );
    Secret {
        metadata: ObjectMeta {
            name: Some(apikey.secret_name()),
            namespace: apikey.namespace(),
            labels: Some(shape.labels),
            annotations: Some(shape.annotations),
            owner_references: shape.owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(data),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

fn entries(
    apikey: &ApiKey,
    status: &ApiKeyStatus,
    key: &str,
    tail: &str,
) -> BTreeMap<String, ByteString> {
    let (name, namespace, prefix) = (
        apikey.name_any(),
        apikey.namespace().unwrap_or_default(),
        apikey.prefix(),
    );
    let key_id = status.key_id.as_deref().unwrap_or_default();
    let facts = Facts {
        key_id,
        tail,
        name: &name,
        namespace: &namespace,
        prefix: prefix.as_str(),
    };
    let expand = |text: &str| ByteString(SecretTemplate::expand(text, key, &facts).into_bytes());
    apikey
        .template()
        .data
        .iter()
        .map(|(name, text)| (name.clone(), expand(text)))
        .collect()
}

/// The merge patch that puts another key into a Secret of ours.
pub(super) fn replacing(
    world: &World,
    secret: &SecretFacts,
    key: &str,
    tail: &str,
) -> Map<String, Value> {
    let mending = replacement(world, secret);
    let mut metadata = metadata_of(&mending);
    merge(
        &mut metadata,
        json!({ "resourceVersion": secret.resource_version }),
    );
    let mut data = entries(&world.apikey, &world.status(), key, tail);
    data.insert(
        world.apikey.data_key().to_owned(),
        ByteString(key.as_bytes().to_vec()),
    );
    let mut patch = Map::new();
    patch.insert("metadata".to_owned(), metadata);
    patch.insert(
        "data".to_owned(),
        data_of(data, mending.data.as_deref().unwrap_or_default()),
    );
    patch
}

/// Labels, annotations and owners for a merge patch, guarded by the UID.
pub(super) fn metadata_of(mending: &Mending) -> Value {
    let mut metadata =
        json!({ "uid": mending.uid, "labels": mending.labels, "annotations": mending.annotations });
    if let Some(owners) = &mending.owner_references {
        merge(&mut metadata, json!({ "ownerReferences": owners }));
    }
    metadata
}

/// Entries for a merge patch: those that are set, and those that go.
fn data_of(set: BTreeMap<String, ByteString>, gone: &[String]) -> Value {
    let removed = gone.iter().map(|name| (name.clone(), Value::Null));
    let set = set
        .into_iter()
        .filter_map(|(name, value)| Some((name, serde_json::to_value(value).ok()?)));
    Value::Object(removed.chain(set).collect())
}

/// The entries that a patch sends.
pub(super) fn entries_of(patch: &Map<String, Value>) -> Vec<Zeroizing<Vec<u8>>> {
    let entries = patch
        .get("data")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::values);
    entries
        .filter_map(|entry| serde_json::from_value::<ByteString>(entry.clone()).ok())
        .map(|entry| Zeroizing::new(entry.0))
        .collect()
}

/// Adds fields to an object.
pub(super) fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}
