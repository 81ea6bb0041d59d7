//! What the API server sends, taken apart as late as possible: an object that cannot be read must not hide the others.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::gate::shown::{Meta, ShownMeta};

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

/// Reads an object; nothing where not even its metadata can be read.
pub(super) fn read<T: DeserializeOwned>(raw: &RawValue) -> Option<Read<T>> {
    match serde_json::from_str(raw.get()) {
        Ok(object) => Some(Read::Whole(object)),
        Err(error) => {
            let ShownMeta { metadata } = serde_json::from_str(raw.get()).ok()?;
            Some(Read::Broken(
                metadata,
                format!("{:?} error at line {} column {}", error.classify(), error.line(), error.column()),
            ))
        }
    }
}
