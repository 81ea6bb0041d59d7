//! The `ApiKeyPolicy`: what platform engineers impose on keys.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::values_at_most_63;

/// What keys must comply with. Several policies apply together; the strictest wins. Checked by the API server when a key is created
/// or a guarded field changed, where the admission policies are installed, and by the controller before anything is minted.
#[expect(clippy::duplicated_attributes, reason = "every column has its own")]
#[derive(
    CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize,
)]
#[kube(
    group = "claviger.dev",
    version = "v1alpha1",
    kind = "ApiKeyPolicy",
    plural = "apikeypolicies",
    singular = "apikeypolicy",
    shortname = "akp",
    category = "claviger",
    derive = "PartialEq",
    derive = "Default",
    doc = "ApiKeyPolicy limits what ApiKeys may ask for. Several apply together; the strictest wins.",
    printcolumn(
        name = "Max Lifetime",
        type_ = "string",
        json_path = ".spec.lifetime.max"
    ),
    printcolumn(
        name = "Max Interval",
        type_ = "string",
        json_path = ".spec.rotation.maxInterval"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyPolicySpec {
    /// The namespaces that it holds for. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<NamespaceSelector>,
    /// How long keys may live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<LifetimeLimits>,
    /// How keys must rotate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationLimits>,
    /// The roles that keys may list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<AllowList>,
    /// The permissions that keys may list themselves, besides those of their roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<AllowList>,
    /// The audiences that keys may list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audiences: Option<AllowList>,
    /// The prefixes that keys may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefixes: Option<AllowList>,
    /// Whether keys that exist elsewhere may be taken over, be it by import or by adoption (default Allowed).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imports: Option<Imports>,
    /// What the template of a Secret may ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateLimits>,
    /// The fields of the spec that must be filled in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub require: Vec<RequiredField>,
}

/// Which namespaces a policy holds for.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceSelector {
    /// Labels that a namespace must all have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8), transform = values_at_most_63)]
    #[x_kube(validation = Rule::new("self.all(k, k.size() <= 317)").message("the name of a label has at most 317 characters"))]
    pub match_labels: BTreeMap<String, String>,
}

/// How long keys may live.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.max) || !has(self.default) || int(self.default.substring(0, self.default.size() - 1)) * {'s': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 604800}[self.default.substring(self.default.size() - 1)] <= int(self.max.substring(0, self.max.size() - 1)) * {'s': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 604800}[self.max.substring(self.max.size() - 1)]")
    .message("default must not be longer than max").field_path(".default"))]
pub struct LifetimeLimits {
    /// The longest lifetime, such as `90d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 6), regex(pattern = "^[1-9][0-9]{0,4}[smhdw]$"))]
    pub max: Option<String>,
    /// The lifetime of keys that ask for none. The shortest of all policies counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 6), regex(pattern = "^[1-9][0-9]{0,4}[smhdw]$"))]
    pub default: Option<String>,
}

/// How keys must rotate.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationLimits {
    /// The longest `rotation.every`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 6), regex(pattern = "^[1-9][0-9]{0,4}[smhdw]$"))]
    pub max_interval: Option<String>,
    /// Whether keys must have a `rotation.every`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
}

/// What may be listed: exact, or with one `*` at the end that stands for anything.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AllowList {
    /// What may be listed. Empty: nothing.
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 253), regex(pattern = "^[^*]*[*]?$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed: Vec<String>,
}

/// What the template of a Secret may ask for.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateLimits {
    /// What the names of annotations may begin with. Empty: no annotations.
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub annotation_prefixes: Vec<String>,
}

/// Whether keys that exist elsewhere may be taken over.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Imports {
    /// They may, by who has the verb `import`.
    Allowed,
    /// Nobody may.
    Forbidden,
}

/// A field of the spec that can be required.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RequiredField {
    /// `spec.description`
    Description,
    /// `spec.owner`
    Owner,
    /// `spec.application`
    Application,
    /// `spec.expiry`
    Expiry,
}

impl RequiredField {
    /// As it is written in a policy.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Description => "description",
            Self::Owner => "owner",
            Self::Application => "application",
            Self::Expiry => "expiry",
        }
    }
}

impl AllowList {
    /// Whether `name` may be listed.
    #[must_use]
    pub fn allows(&self, name: &str) -> bool {
        self.allowed
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(beginning) => name.starts_with(beginning),
                None => name == pattern,
            })
    }
}
