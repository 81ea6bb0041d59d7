//! Objects as the watches show them: what the gate reads of them and no more. `managedFields`, most of an object, are skipped without
//! being taken apart.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

use crate::api::{ApiKeyRoleSpec, ApiKeySpec};
use crate::watch::{Metadata, Object};

/// An `ApiKey`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ShownApiKey {
    /// Its metadata.
    pub metadata: Metadata,
    /// What is asked for.
    #[serde(default)]
    pub spec: ApiKeySpec,
    /// What became of it.
    #[serde(default)]
    pub status: ShownStatus,
}

/// What the gate reads of an ApiKey's status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ShownStatus {
    /// How the key ended, if it did.
    pub phase: Option<ShownPhase>,
    /// The public identifier.
    pub key_id: Option<String>,
    /// The name in audit logs.
    pub principal: Option<String>,
    /// The organization.
    pub organization: Option<String>,
    /// When the key ends.
    pub expires_at: Option<Time>,
    /// When its end was recorded.
    pub expired_at: Option<Time>,
    /// When its revocation was recorded.
    pub revoked_at: Option<Time>,
    /// When the key was last used.
    pub last_used_at: Option<Time>,
    /// The versions of the key.
    pub versions: Vec<ShownVersion>,
}

/// The phases that end a key. A phase of a newer definition ends none: the other fields decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum ShownPhase {
    /// Ended by time.
    Expired,
    /// Ended by decision.
    Revoked,
    /// Any other.
    #[serde(other)]
    Other,
}

/// What the gate reads of a version.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownVersion {
    /// Its number, from 1.
    pub version: i64,
    /// SHA-256 of its key.
    pub hash: String,
    /// Whether it counts.
    pub phase: ShownVersionPhase,
    /// When it stops passing, if it was replaced.
    pub retires_at: Option<Time>,
}

/// Where in its life a version stands. One in a phase of a newer definition does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum ShownVersionPhase {
    /// Known to the cluster, not known to be delivered.
    Announced,
    /// Delivered, and the one in use.
    Current,
    /// Replaced, and passing until its `retiresAt`.
    Retiring,
    /// Retired, or any other.
    #[serde(other)]
    Retired,
}

/// An `ApiKeyRole`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ShownRole {
    /// Its metadata.
    pub metadata: Metadata,
    /// What it allows.
    #[serde(default)]
    pub spec: ApiKeyRoleSpec,
}

impl Object for ShownApiKey {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl Object for ShownRole {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

/// Seconds since 1970.
pub(super) fn seconds(time: &Time) -> i64 {
    Timestamp::as_second(time.0)
}
