//! The `ApiKey`: what a person asks for.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::values_at_most_256;
use super::{ApiKeyStatus, Lifetime, Rotation, SecretTemplate, Source, names};
use crate::key::Prefix;

/// The entry of the Secret that holds the key, unless `secret.key` says otherwise.
pub const DEFAULT_DATA_KEY: &str = "api-key";

/// What is asked for. `spec: {}` is valid: a key that never expires, in a Secret of the ApiKey's name.
// Rules that compare with the past stand on the whole spec or on the root, and compare presence as well as value: a rule on
// an optional field itself does not run when the field is removed and added again.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "claviger.dev", version = "v1alpha1", kind = "ApiKey", plural = "apikeys", singular = "apikey", shortname = "ak",
    category = "claviger", namespaced, status = "ApiKeyStatus", derive = "PartialEq", derive = "Default",
    doc = "ApiKey declares an API key. The key is minted once and delivered into a Secret; the cluster keeps its hash and its last six characters. Expiry and revocation are final.",
    selectable = ".spec.application", selectable = ".status.phase", selectable = ".status.tail", selectable = ".status.keyId",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Tail", type_ = "string", json_path = ".status.tail"),
    printcolumn(name = "Roles", type_ = "string", json_path = ".spec.roles", priority = 1),
    printcolumn(name = "Application", type_ = "string", json_path = ".spec.application", priority = 1),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expiresAt"),
    printcolumn(name = "Last used", type_ = "date", json_path = ".status.lastUsedAt", priority = 1),
    printcolumn(name = "Description", type_ = "string", json_path = ".spec.description", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 63").message("an ApiKey's name has at most 63 characters"),
    // The names in effect are compared, so that writing a default down is no change.
    validation = Rule::new("(has(self.spec.secret) && has(self.spec.secret.name) ? self.spec.secret.name : self.metadata.name) == (has(oldSelf.spec.secret) && has(oldSelf.spec.secret.name) ? oldSelf.spec.secret.name : oldSelf.metadata.name)")
        .message("secret.name cannot be changed after creation").field_path(".spec.secret"),
    validation = Rule::new("!has(self.spec.source) || !has(self.spec.source.secretRef) || self.spec.source.secretRef.name != (has(self.spec.secret) && has(self.spec.secret.name) ? self.spec.secret.name : self.metadata.name)")
        .message("source.secretRef must name another Secret than the one that the key is delivered into: set secret.name").field_path(".spec.source"),
    // At the root: a rule on the status itself would not run when a writer drops the status whole.
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.keyId) || (has(self.status) && has(self.status.keyId) && self.status.keyId == oldSelf.status.keyId)")
        .message("status.keyId is set once and stays"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.phase) || !(oldSelf.status.phase in ['Expired', 'Revoked']) || (has(self.status) && has(self.status.phase) && self.status.phase == oldSelf.status.phase)")
        .message("Expired and Revoked are final"),
    // A key that is taken over from a Secret with an end of its own gets that, as long as nothing was issued.
    validation = Rule::new("!has(oldSelf.status) || !(has(oldSelf.status.keyId) || has(oldSelf.status.expiresAt)) || (has(self.status) && ((has(self.status.expiresAt) == has(oldSelf.status.expiresAt) && (!has(self.status.expiresAt) || self.status.expiresAt == oldSelf.status.expiresAt)) || (!has(oldSelf.status.issuedAt) && has(self.status.expiresAt) && (!has(oldSelf.status.expiresAt) || self.status.expiresAt < oldSelf.status.expiresAt))))")
        .message("status.expiresAt is fixed at the first announcement, and can only come nearer until the key is issued"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.expiredAt) || (has(self.status) && has(self.status.expiredAt) && self.status.expiredAt == oldSelf.status.expiredAt)")
        .message("status.expiredAt is set once and stays"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.revokedAt) || (has(self.status) && has(self.status.revokedAt) && self.status.revokedAt == oldSelf.status.revokedAt)")
        .message("status.revokedAt is set once and stays"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.organization) || (has(self.status) && has(self.status.organization) && self.status.organization == oldSelf.status.organization)")
        .message("status.organization is set once and stays"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.revision) || (has(self.status) && has(self.status.revision) && self.status.revision >= oldSelf.status.revision)")
        .message("status.revision can only grow"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.lastUsedAt) || (has(self.status) && has(self.status.lastUsedAt) && self.status.lastUsedAt >= oldSelf.status.lastUsedAt)")
        .message("status.lastUsedAt can only grow"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.versions) || oldSelf.status.versions.all(o, o.phase in ['Announced', 'Retired'] || (has(self.status) && has(self.status.versions) && self.status.versions.exists(n, n.version == o.version && n.hash == o.hash && n.phase != 'Announced')))")
        .message("a delivered version stays listed until it is retired, and its hash stays as it is"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.versions) || !has(self.status) || !has(self.status.versions) || oldSelf.status.versions.all(o, !(o.phase in ['Retiring', 'Retired']) || self.status.versions.all(n, n.version != o.version || (n.hash == o.hash && (n.phase == 'Retired' || (n.phase == o.phase && (!has(o.retiresAt) || (has(n.retiresAt) && n.retiresAt <= o.retiresAt)))))))")
        .message("a version that was replaced never becomes current again, and its end can only come nearer"),
    validation = Rule::new("!has(self.status) || !has(self.status.versions) || self.status.versions.filter(v, v.phase == 'Current').size() <= 1")
        .message("at most one version is Current"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.versions) || !has(self.status) || !has(self.status.versions) || self.status.versions.all(n, oldSelf.status.versions.exists(o, o.version == n.version) || oldSelf.status.versions.all(o, o.version < n.version))")
        .message("a new version has a higher number than all that are listed"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.expiry) == has(oldSelf.expiry) && (!has(self.expiry) || self.expiry == oldSelf.expiry)")
        .message("expiry cannot be changed, added or removed after creation").field_path(".expiry"),
    validation = Rule::new("(has(self.prefix) ? self.prefix : 'clv') == (has(oldSelf.prefix) ? oldSelf.prefix : 'clv')")
        .message("prefix cannot be changed after creation").field_path(".prefix"),
    validation = Rule::new("(has(self.secret) && has(self.secret.key) ? self.secret.key : 'api-key') == (has(oldSelf.secret) && has(oldSelf.secret.key) ? oldSelf.secret.key : 'api-key')")
        .message("secret.key cannot be changed after creation").field_path(".secret"),
    validation = Rule::new("!has(oldSelf.revoked) || has(self.revoked)")
        .message("revocation is one-way: a revoked key stays revoked; create another ApiKey").field_path(".revoked"),
    validation = Rule::new("!has(self.revocationReason) || has(self.revoked)")
        .message("revocationReason goes with revoked: true").field_path(".revocationReason"),
    validation = Rule::new("!has(self.revokedBy) || has(self.revoked)")
        .message("revokedBy goes with revoked: true").field_path(".revokedBy"),
    validation = Rule::new("!has(oldSelf.revoked) || (has(self.revokedBy) == has(oldSelf.revokedBy) && (!has(self.revokedBy) || self.revokedBy == oldSelf.revokedBy))")
        .message("revokedBy cannot be changed after the revocation").field_path(".revokedBy"),
    validation = Rule::new("!has(oldSelf.revocationReason) || (has(self.revocationReason) && self.revocationReason == oldSelf.revocationReason)")
        .message("revocationReason stays as it was first given").field_path(".revocationReason"),
    validation = Rule::new("!has(self.source) || !has(self.source.secretRef) || !(has(self.secret) && has(self.secret.retention) && self.secret.retention == 'UntilCollected')")
        .message("a key of another Secret cannot be shown once: it stays there").field_path(".source"),
    validation = Rule::new("has(self.organization) == has(oldSelf.organization) && (!has(self.organization) || self.organization == oldSelf.organization)")
        .message("organization cannot be changed, added or removed after creation").field_path(".organization"),
    validation = Rule::new("(has(self.revision) ? self.revision : 0) >= (has(oldSelf.revision) ? oldSelf.revision : 0)")
        .message("revision can only grow").field_path(".revision"),
    validation = Rule::new("has(self.source) == has(oldSelf.source) && (!has(self.source) || self.source == oldSelf.source)")
        .message("source cannot be changed, added or removed after creation").field_path(".source"),
    validation = Rule::new("(has(self.secret) && has(self.secret.retention) && self.secret.retention == 'UntilCollected') == (has(oldSelf.secret) && has(oldSelf.secret.retention) && oldSelf.secret.retention == 'UntilCollected')")
        .message("secret.retention cannot be changed to or from UntilCollected after creation").field_path(".secret"),
)]
pub struct ApiKeySpec {
    /// What the key is for: more than 10 and fewer than 100 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 11, max = 99))]
    pub description: Option<String>,
    /// Whom to ask about the key, such as an e-mail address or a team.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub owner: Option<String>,
    /// The application that uses the key. Can be selected on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub application: Option<String>,
    /// The organization that the key belongs to: its namespace's (label `claviger.dev/organization`, which is also the default) or
    /// one below it; dots separate levels. Cannot be changed after creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub organization: Option<String>,
    /// Whether the key also counts for the organizations below its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_sub_organizations: Option<bool>,
    /// The protected APIs that the key is for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub audiences: Vec<String>,
    /// Names of roles. May be edited without a new key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(
            length(min = 1, max = 253),
            regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub roles: Vec<String>,
    /// Permissions on top of the roles, such as `invoices:read`. May be edited without a new key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(
            length(min = 1, max = 128),
            regex(pattern = "^[A-Za-z0-9][-A-Za-z0-9:._/]*$")
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub permissions: Vec<String>,
    /// When the key ends. Absent: never. Cannot be changed, added or removed after creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub expiry: Option<Expiry>,
    /// When versions are replaced by new ones. May be edited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
    /// Raise it to have the next version minted and delivered now. Can only grow; each value is acted on once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub revision: Option<i64>,
    /// What the key begins with (default `clv`), so that secret scanners recognise it. Cannot be changed after creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 2, max = 16),
        regex(pattern = "^[a-z][a-z0-9_]{0,14}[a-z0-9]$")
    )]
    pub prefix: Option<String>,
    /// The Secret that the key is delivered into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretSpec>,
    /// Takes over a key that exists elsewhere as version 1, instead of minting one. Cannot be changed after creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub source: Option<Source>,
    /// Handed to whoever asks about the key: at most 16 entries.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16), transform = values_at_most_256)]
    #[x_kube(validation = Rule::new("self.all(k, k.size() >= 1 && k.size() <= 63)").message("a key of metadata has 1 to 63 characters"))]
    pub metadata: BTreeMap<String, String>,
    /// Ends the key at once and for ever. Absent or true: there is no false, so that no manifest can fight a revocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self").message("revoked can only be true: leave the field out instead of writing false"))]
    pub revoked: Option<bool>,
    /// Why the key was revoked; stands in the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub revocation_reason: Option<String>,
    /// Who revoked the key: the user who set `revoked`. Set or checked by the admission policies, where they are installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub revoked_by: Option<String>,
}

/// When a key ends: exactly one of the three.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.after), has(self.at), has(self.never)].filter(x, x).size() == 1")
    .message("expiry takes exactly one of after, at, never"))]
pub struct Expiry {
    /// This long after the key was first announced: a number of at most five digits and s, m, h, d or w, such as `90d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 6), regex(pattern = "^[1-9][0-9]{0,4}[smhdw]$"))]
    pub after: Option<String>,
    /// At this moment (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// Never, said in so many words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self").message("never can only be true"))]
    pub never: Option<bool>,
}

/// The Secret that a key is delivered into.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.template) || !has(self.template.data) || !((has(self.key) ? self.key : 'api-key') in self.template.data)")
    .message("template.data cannot set the entry that holds the key"))]
pub struct SecretSpec {
    /// Its name (default: the ApiKey's). Cannot be changed after creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: Option<String>,
    /// The entry that holds the key (default `api-key`). Cannot be changed after creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = "^([-_a-zA-Z0-9]|[.][-_a-zA-Z0-9])[-._a-zA-Z0-9]*$")
    )]
    pub key: Option<String>,
    /// How long the Secret stays (default Always). `UntilCollected` cannot be chosen or given up after creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// What to put on the Secret besides the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<SecretTemplate>,
}

/// How long a delivered Secret stays.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Retention {
    /// As long as the ApiKey.
    #[default]
    Always,
    /// Until the key expires or is revoked.
    WhileActive,
    /// Shown once: until somebody has marked it collected, at most 24 hours. After that the key's text is nowhere in the cluster.
    UntilCollected,
}

impl ApiKey {
    /// The name of its Secret.
    #[must_use]
    pub fn secret_name(&self) -> String {
        self.secret_spec()
            .and_then(|secret| secret.name.clone())
            .unwrap_or_else(|| self.name_any())
    }

    /// The entry of its Secret that holds the key.
    #[must_use]
    pub fn data_key(&self) -> &str {
        self.secret_spec()
            .and_then(|secret| secret.key.as_deref())
            .unwrap_or(DEFAULT_DATA_KEY)
    }

    /// What it asks for on its Secret besides the key.
    #[must_use]
    pub fn template(&self) -> SecretTemplate {
        self.secret_spec()
            .and_then(|secret| secret.template.clone())
            .unwrap_or_default()
    }

    /// How long its Secret stays.
    #[must_use]
    pub fn retention(&self) -> Retention {
        self.secret_spec()
            .and_then(|secret| secret.retention)
            .unwrap_or_default()
    }

    /// Whether somebody asks for the key of a Secret that has the name already to be taken over.
    #[must_use]
    pub fn is_adopting(&self) -> bool {
        self.annotations()
            .get(names::ANNOTATION_ADOPT)
            .is_some_and(|value| value == "true")
    }

    /// What its keys begin with. A prefix that the schema would have refused counts as the default.
    #[must_use]
    pub fn prefix(&self) -> Prefix {
        self.spec
            .prefix
            .as_deref()
            .and_then(|text| text.parse().ok())
            .unwrap_or_default()
    }

    /// Whether it was asked to be revoked.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.spec.revoked == Some(true)
    }

    /// Whether it is being deleted.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    fn secret_spec(&self) -> Option<&SecretSpec> {
        self.spec.secret.as_ref()
    }
}

impl Expiry {
    /// When a key that is first announced at `announced` ends, in whole seconds; `None` is never. A length of time that the
    /// schema would have refused counts as no time at all, so that nothing lives longer than was meant.
    #[must_use]
    pub fn ends(&self, announced: Timestamp) -> Option<Timestamp> {
        match (&self.after, &self.at) {
            (Some(after), _) => Some(
                after
                    .parse::<Lifetime>()
                    .map_or(announced, |lifetime| lifetime.after(announced)),
            ),
            (None, Some(at)) => Some(super::status::whole_second(at.0)),
            (None, None) => None,
        }
    }
}
