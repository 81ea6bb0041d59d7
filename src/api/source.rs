//! A key that exists elsewhere, to be taken over.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Where a key that exists already comes from: exactly one of `secretRef` and `hash`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.secretRef) != has(self.hash)").message("source takes exactly one of secretRef and hash"),
    validation = Rule::new("!has(self.tail) || has(self.hash)").message("tail goes with hash: of a Secret it is read"),
)]
pub struct Source {
    /// The entry of another Secret of the namespace, which is read once and left as it is. Its key is copied into the Secret that
    /// `secret.name` names. Refused below 112 bits of estimated entropy, not counting its last six characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SourceSecret>,
    /// SHA-256 of the key, `sha256:<64 lower-case hex digits>`. Taken at its word; nothing is delivered until the first rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub hash: Option<String>,
    /// The last characters of the key that goes with `hash`, at most six, so that people recognise it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 6), regex(pattern = "^[!-~]*$"))]
    pub tail: Option<String>,
}

/// An entry of a Secret.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceSecret {
    /// The name of the Secret.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
    /// The entry that holds the key.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = "^([-_a-zA-Z0-9]|[.][-_a-zA-Z0-9])[-._a-zA-Z0-9]*$")
    )]
    pub key: String,
}
