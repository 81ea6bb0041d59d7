//! The `Gate`: what a gate says of itself, for people, for last use, and for the moment at which a rotated key is
//! given out. No verdict ever depends on it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many uses a `Gate` lists at most: what the controller writes in ten seconds, at five a second. All gates together have 18,000
/// last uses an hour written; where more keys than that are used each hour, the others' `status.lastUsedAt` lags behind.
pub const MAX_USES: usize = 50;
/// Uses of one ApiKey that are nearer to each other than this many seconds count as one: `status.lastUsedAt` is exact to the hour.
pub const GRANULARITY: i64 = 3_600;

/// What a gate last said of itself. Times are whole seconds, by the gate's clock.
// All of it stands in `spec`, as in a Lease: one write says everything.
#[expect(clippy::duplicated_attributes, reason = "every column has its own")]
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "claviger.dev",
    version = "v1alpha1",
    kind = "Gate",
    plural = "gates",
    singular = "gate",
    category = "claviger",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    doc = "Gate is what a gate says of itself: that it lives, which ApiKeys it knows, and which keys it has seen lately. It is written by gates, for people and for status.lastUsedAt; no verdict depends on it.",
    printcolumn(name = "State", type_ = "string", json_path = ".spec.state"),
    printcolumn(name = "Keys", type_ = "integer", json_path = ".spec.keys"),
    printcolumn(
        name = "Reached",
        type_ = "string",
        json_path = ".spec.reachedResourceVersion"
    ),
    printcolumn(name = "Heartbeat", type_ = "date", json_path = ".spec.heartbeatTime"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct GateSpec {
    /// When this was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_time: Option<Time>,
    /// Claviger's version there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub version: Option<String>,
    /// What it makes of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<GateState>,
    /// The namespace whose ApiKeys it knows. Absent: those of the whole cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// How many keys it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub keys: Option<i64>,
    /// The resourceVersion of ApiKeys that it has reached: what was written up to there, it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 38), regex(pattern = "^(0|[1-9][0-9]*)$"))]
    pub reached_resource_version: Option<String>,
    /// The same of ApiKeyRoles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 38), regex(pattern = "^(0|[1-9][0-9]*)$"))]
    pub roles_resource_version: Option<String>,
    /// Last uses that the ApiKeys' status does not show yet, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub uses: Vec<KeyUse>,
}

/// Loading: it answers nobody yet. Current: it knows what the API server tells. Stale: it does not hear the API server.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub enum GateState {
    /// It does not know all ApiKeys yet, and answers nobody.
    Loading,
    /// It knows what the API server tells.
    Current,
    /// It does not hear the API server.
    Stale,
}

/// When the key of an ApiKey was last seen valid.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyUse {
    /// The namespace of the ApiKey.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// The name of the ApiKey.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The UID of the ApiKey: one that was created anew was not used.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
    /// When.
    pub used_at: Time,
}

/// A resourceVersion as a number, by which those of one resource compare; `None` where it is none.
#[must_use]
pub fn resource_version_number(text: &str) -> Option<u128> {
    text.parse()
        .ok()
        .filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}
