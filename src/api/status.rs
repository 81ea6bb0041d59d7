//! The status of an `ApiKey`: the only authority on what was minted.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::key::Hash;

/// What became of an ApiKey. Times are whole seconds.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pending, Active, Expired or Revoked. The last two are final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The public identifier of the ApiKey: 32 lower-case hex digits, set at the first announcement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 32, max = 32), regex(pattern = "^[0-9a-f]{32}$"))]
    pub key_id: Option<String>,
    /// The organization that the key belongs to, as it was when it was first announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub organization: Option<String>,
    /// The last `spec.revision` that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub revision: Option<i64>,
    /// A name for audit logs in the shape of an e-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 320))]
    pub principal: Option<String>,
    /// The number of the current version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub version: Option<i64>,
    /// SHA-256 of the current version's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub hash: Option<String>,
    /// The last six characters of the current version's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 6))]
    pub tail: Option<String>,
    /// When the first version was activated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<Time>,
    /// When the key ends. Fixed at the first announcement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// When its end was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired_at: Option<Time>,
    /// When its revocation was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Time>,
    /// When the next version is due, as `spec.rotation.every` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotates_at: Option<Time>,
    /// When the key was last used, as far as gates have said: to the hour. It can only grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Time>,
    /// The Secret as it was delivered. Absent where none was, and once it was removed as `spec.secret.retention` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<DeliveredSecret>,
    /// The versions of this ApiKey's key that count, and the last five retired ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["version".into()]))]
    pub versions: Vec<Version>,
    /// Ready, Stalled, Usable, Delivered and Compliant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Where in its life an ApiKey stands.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub enum Phase {
    /// Not issued yet.
    Pending,
    /// Its key passes.
    Active,
    /// Ended by time.
    Expired,
    /// Ended by decision.
    Revoked,
}

/// One minted key of an ApiKey.
#[derive(KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// Its number, from 1.
    #[schemars(range(min = 1))]
    pub version: i64,
    /// SHA-256 of its key.
    #[schemars(length(max = 71), regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub hash: String,
    /// The last six characters of its key.
    #[schemars(length(max = 6))]
    pub tail: String,
    /// Announced, Current, Retiring or Retired.
    pub phase: VersionPhase,
    /// When its hash was written here.
    pub announced_at: Time,
    /// When its delivery was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activated_at: Option<Time>,
    /// The `spec.revision` that it was minted for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub revision: Option<i64>,
    /// When another version took its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_at: Option<Time>,
    /// When a replaced version stops passing. It can only come nearer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retires_at: Option<Time>,
    /// When somebody marked its Secret collected (`UntilCollected`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collected_at: Option<Time>,
    /// When nobody had marked its Secret collected in time (`UntilCollected`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discarded_at: Option<Time>,
}

/// Where in its life a version stands.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum VersionPhase {
    /// Known to the cluster, not known to be delivered.
    Announced,
    /// Delivered, and the one in use.
    Current,
    /// Replaced, and passing until its `retiresAt`.
    Retiring,
    /// Replaced, and not passing any more.
    Retired,
}

/// The Secret as it was delivered.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveredSecret {
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// The entry that holds the key.
    #[schemars(length(max = 253))]
    pub key: String,
    /// Its UID. Says that it is ours.
    #[schemars(length(max = 128))]
    pub uid: String,
    /// Its resourceVersion at delivery. While it is the same, the Secret needs no reading.
    #[schemars(length(max = 128))]
    pub resource_version: String,
}

impl Phase {
    /// Every phase, in the order of a key's life.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Active, Self::Expired, Self::Revoked];

    /// Whether no other phase can follow.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Expired | Self::Revoked)
    }

    /// As it is written in the status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Active => "Active",
            Self::Expired => "Expired",
            Self::Revoked => "Revoked",
        }
    }
}

impl ApiKeyStatus {
    /// The version that is in use.
    #[must_use]
    pub fn current(&self) -> Option<&Version> {
        self.versions
            .iter()
            .find(|version| version.phase == VersionPhase::Current)
    }

    /// The announced version with the highest number.
    #[must_use]
    pub fn newest_announced(&self) -> Option<&Version> {
        self.versions
            .iter()
            .filter(|version| version.phase == VersionPhase::Announced)
            .max_by_key(|version| version.version)
    }

    /// The listed version whose key has this hash.
    #[must_use]
    pub fn version_of(&self, hash: Hash) -> Option<&Version> {
        let hash = hash.to_string();
        self.versions.iter().find(|version| version.hash == hash)
    }

    /// The announced version whose key has this hash.
    #[must_use]
    pub fn announced_of(&self, hash: Hash) -> Option<&Version> {
        let hash = hash.to_string();
        self.versions
            .iter()
            .find(|version| version.phase == VersionPhase::Announced && version.hash == hash)
    }

    /// Whether the key has ended. `expiredAt` and `revokedAt` decide along with the phase.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.phase.is_some_and(Phase::is_final)
            || self.expired_at.is_some()
            || self.revoked_at.is_some()
    }
}

/// Cuts a moment to its second, the unit in which the API server stores times.
#[must_use]
pub fn whole_second(moment: Timestamp) -> Timestamp {
    Timestamp::from_second(moment.as_second()).unwrap_or(moment)
}
