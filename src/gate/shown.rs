//! Objects as the watches show them: what the gate reads of them and no more. `managedFields`, most of an object, are skipped without
//! being taken apart.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

use crate::api::{ApiKeyRoleSpec, ApiKeySpec, ApiKeyStatus};

/// What the gate reads of an object's metadata.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// The name.
    pub name: String,
    /// The namespace; empty for what belongs to the cluster.
    pub namespace: String,
    /// The UID, by which an object is known here: a name may come back as another object.
    pub uid: String,
    /// The resourceVersion.
    pub resource_version: String,
    /// When it was created. Of two with one hash the older counts.
    pub creation_timestamp: Option<Time>,
    /// When its deletion was asked for. From then on it counts as gone.
    pub deletion_timestamp: Option<Time>,
}

/// An `ApiKey`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ShownApiKey {
    /// Its metadata.
    pub metadata: Meta,
    /// What is asked for.
    #[serde(default)]
    pub spec: ApiKeySpec,
    /// What became of it.
    #[serde(default)]
    pub status: ApiKeyStatus,
}

/// An `ApiKeyRole`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ShownRole {
    /// Its metadata.
    pub metadata: Meta,
    /// What it allows.
    #[serde(default)]
    pub spec: ApiKeyRoleSpec,
}

/// Seconds since 1970.
pub(super) fn seconds(time: &Time) -> i64 {
    Timestamp::as_second(time.0)
}
