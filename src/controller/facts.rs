//! What can be told from a Secret without keeping anything secret of it.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use crate::api::{ApiKey, ApiKeyStatus, Facts, SecretTemplate};
use crate::key::Hash;
use crate::lifecycle::{self, SecretFacts};

/// What can be told from a Secret without keeping anything of it.
pub(super) fn look(secret: &Secret, apikey: &ApiKey, status: &ApiKeyStatus) -> SecretFacts {
    let entry = secret
        .data
        .as_ref()
        .and_then(|data| data.get(apikey.data_key()))
        .filter(|entry| !entry.0.is_empty());
    let key = entry.map(|entry| Hash::of(&entry.0));
    let edited = entry
        .map(|entry| edited_entries(secret, entry, apikey, status))
        .unwrap_or_default();
    facts(secret, key, secret.immutable == Some(true), edited)
}

/// Entries of the template as applied that hold something else by now.
fn edited_entries(
    secret: &Secret,
    key: &ByteString,
    apikey: &ApiKey,
    status: &ApiKeyStatus,
) -> Vec<String> {
    let Ok(key) = std::str::from_utf8(&key.0) else {
        return Vec::new();
    };
    let applied = lifecycle::applied_template(secret.annotations());
    let (name, namespace, prefix) = (
        apikey.name_any(),
        apikey.namespace().unwrap_or_default(),
        apikey.prefix(),
    );
    // By the version that the Secret holds: the status names a current one only after the delivery.
    let held = status.version_of(Hash::of(key.as_bytes()));
    let facts = Facts {
        key_id: status.key_id.as_deref().unwrap_or_default(),
        tail: held
            .map(|version| version.tail.as_str())
            .unwrap_or_default(),
        name: &name,
        namespace: &namespace,
        prefix: prefix.as_str(),
    };
    let holds = |name: &str, text: &str| {
        let wanted = zeroize::Zeroizing::new(SecretTemplate::expand(text, key, &facts));
        secret
            .data
            .as_ref()
            .and_then(|data| data.get(name))
            .is_some_and(|entry| entry.0 == wanted.as_bytes())
    };
    applied
        .data
        .iter()
        .filter(|(name, text)| !holds(name, text))
        .map(|(name, _)| name.clone())
        .collect()
}

/// The same of its metadata, for what is known of its entries otherwise.
pub(super) fn facts(
    secret: &impl ResourceExt,
    key: Option<Hash>,
    immutable: bool,
    edited_entries: Vec<String>,
) -> SecretFacts {
    SecretFacts {
        uid: secret.uid().unwrap_or_default(),
        resource_version: secret.resource_version().unwrap_or_default(),
        deleting: secret.meta().deletion_timestamp.is_some(),
        immutable,
        key,
        edited_entries,
        labels: secret.labels().clone(),
        annotations: secret.annotations().clone(),
        owner_references: secret.owner_references().to_vec(),
    }
}
