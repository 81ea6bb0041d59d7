//! Objects as the API server sends them, decoded one by one: an object that cannot be decoded hides
//! no other.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::key::Hash;

/// Characters of a field's path in a message.
const MAX_PATH: usize = 200;

/// An object of a collection, as much of it as a handler needs.
pub trait Object: DeserializeOwned {
    /// Its metadata.
    fn metadata(&self) -> &Metadata;
}

/// What identifies an object. `managedFields`, most of an object, are skipped without being decoded:
/// clients may write into them what no type of ours can hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// The name.
    pub name: String,
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// The UID. An object that takes the name of a deleted one has another UID.
    pub uid: String,
    /// The resourceVersion.
    pub resource_version: String,
    /// When it was created. Of two with one hash the older counts.
    pub creation_timestamp: Option<Time>,
    /// When its deletion was asked for. From then on it counts as gone.
    pub deletion_timestamp: Option<Time>,
}

/// A change of an object.
#[derive(Debug)]
pub enum Change<T> {
    /// It is there, as it is now.
    Applied(T),
    /// It is there, and cannot be decoded.
    Broken {
        /// What identifies it; empty where not even that can be decoded.
        metadata: Metadata,
        /// The field and the kind of error. Quotes no value.
        reason: String,
    },
    /// It is gone.
    Deleted(Metadata),
}

impl<T: Object> Change<T> {
    /// What identifies the object.
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::Applied(object) => object.metadata(),
            Self::Broken { metadata, .. } | Self::Deleted(metadata) => metadata,
        }
    }

    /// Decodes an object that is there.
    pub(super) fn applied(object: &RawValue) -> Self {
        match serde_json::from_str::<T>(object.get()) {
            Ok(object) if !object.metadata().uid.is_empty() => Self::Applied(object),
            _ => Self::Broken {
                metadata: identity(object),
                reason: reason::<T>(object),
            },
        }
    }

    /// Decodes an object that is gone.
    pub(super) fn deleted(object: &RawValue) -> Self {
        Self::Deleted(identity(object))
    }
}

/// Decodes what identifies an object, and nothing that a person can write into it. Empty where that
/// cannot be decoded, either.
fn identity(object: &RawValue) -> Metadata {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Identity {
        name: String,
        namespace: String,
        uid: String,
        resource_version: String,
    }
    #[derive(Default, Deserialize)]
    struct Identified {
        metadata: Identity,
    }
    let Identified { metadata } = serde_json::from_str(object.get()).unwrap_or_default();
    Metadata {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        resource_version: metadata.resource_version,
        ..Metadata::default()
    }
}

/// The field that cannot be decoded, and what kind of error it is.
fn reason<T: DeserializeOwned>(object: &RawValue) -> String {
    let mut json = serde_json::Deserializer::from_str(object.get());
    let Err(error) = serde_path_to_error::deserialize::<_, T>(&mut json) else {
        return "metadata.uid: it is empty".to_owned();
    };
    let category = format!("{:?}", error.inner().classify()).to_lowercase();
    // A path holds names that people choose, such as that of an annotation.
    let path: String = error.path().to_string().chars().take(MAX_PATH).collect();
    format!("{path}: {category} error")
}

/// A UID in 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(u128);

impl Uid {
    /// Of the text that the API server gives. One that is no UUID is hashed.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let (mut value, mut digits) = (0_u128, 0);
        for c in text.chars().filter(|c| *c != '-') {
            match c.to_digit(16) {
                Some(digit) if digits < 32 => {
                    (value, digits) = (value << 4 | u128::from(digit), digits + 1);
                }
                _ => digits = 33,
            }
        }
        if digits == 32 {
            Self(value)
        } else {
            Self::hashed(text)
        }
    }

    fn hashed(text: &str) -> Self {
        let digest = Hash::of(text.as_bytes()).to_string();
        let hex = digest.get(digest.len() - 32..).unwrap_or_default();
        Self(u128::from_str_radix(hex, 16).unwrap_or_default())
    }

    /// As bytes, for a struct without padding.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The reverse of [`Uid::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

/// As the API server writes it.
impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        let (first, rest) = hex.split_at(8);
        let (second, rest) = rest.split_at(4);
        let (third, rest) = rest.split_at(4);
        let (fourth, fifth) = rest.split_at(4);
        write!(f, "{first}-{second}-{third}-{fourth}-{fifth}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serde_json::value::to_raw_value;

    use super::*;
    use crate::gate::shown::ShownApiKey;

    fn applied(object: &serde_json::Value) -> Change<ShownApiKey> {
        Change::applied(&to_raw_value(object).unwrap())
    }

    #[test]
    fn broken_object_names_its_field_and_quotes_no_value() {
        let metadata = json!({ "name": "k", "namespace": "a", "uid": "u", "resourceVersion": "7",
            "annotations": { "note": "s3cret" } });
        let object =
            json!({ "metadata": metadata, "spec": { "permissions": ["a", { "s3cret": 1 }] } });
        let Change::Broken { metadata, reason } = applied(&object) else {
            panic!("it can be decoded")
        };
        assert_eq!(metadata.name + "/" + &metadata.resource_version, "k/7");
        assert_eq!(reason, "spec.permissions[1]: data error");
    }

    #[test]
    fn managed_fields_never_break_an_object() {
        let mut nested = json!({});
        for _ in 0..1_000 {
            nested = json!({ "f:x": nested });
        }
        let far = json!([{ "time": "9999-12-31T23:59:59Z", "fieldsV1": nested }]);
        for managed_fields in [far, json!(7), json!("x")] {
            let metadata = json!({ "name": "k", "uid": "u", "managedFields": managed_fields });
            let change = applied(&json!({ "metadata": metadata }));
            assert!(matches!(change, Change::Applied(_)));
        }
    }

    #[test]
    fn object_without_uid_is_broken() {
        for metadata in [json!({ "name": "k" }), json!({ "uid": 7 }), json!(null)] {
            let change = applied(&json!({ "metadata": metadata }));
            assert!(matches!(change, Change::Broken { .. }) && change.metadata().uid.is_empty());
        }
    }
}
