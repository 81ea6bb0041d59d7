//! What the API server sends, taken apart as late as possible: an object that cannot be read must not hide the others.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::gate::shown::Meta;

/// A page of a list.
#[derive(Clone, Deserialize)]
pub(super) struct Page {
    /// Where the list stands, and how it goes on.
    pub(super) metadata: PageMeta,
    /// The objects, unread.
    #[serde(default)]
    pub(super) items: Vec<Box<RawValue>>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageMeta {
    pub(super) resource_version: String,
    #[serde(rename = "continue")]
    pub(super) next: Option<String>,
}

/// An object.
pub(super) enum Read<T> {
    /// As it should be.
    Whole(T),
    /// Only its metadata can be read. The reason quotes no value of the object.
    Broken(Meta, String),
}

/// By what an object is known. No more is read of one that is gone or broken.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Known {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
}

/// Reads an object; nothing where it cannot even be told which it is.
pub(super) fn read<T: DeserializeOwned>(raw: &RawValue) -> Option<Read<T>> {
    match serde_json::from_str(raw.get()) {
        Ok(object) => Some(Read::Whole(object)),
        Err(error) => {
            let reason = format!(
                "{:?} error at line {} column {}",
                error.classify(),
                error.line(),
                error.column()
            );
            Some(Read::Broken(known(raw)?, reason))
        }
    }
}

/// Which object it is; nothing where that cannot be told.
pub(super) fn known(raw: &RawValue) -> Option<Meta> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Known,
    }
    let Object {
        metadata:
            Known {
                name,
                namespace,
                uid,
                resource_version,
            },
    } = serde_json::from_str(raw.get()).ok()?;
    (!uid.is_empty()).then(|| Meta {
        name,
        namespace,
        uid,
        resource_version,
        ..Meta::default()
    })
}
