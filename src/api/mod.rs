//! What people write and read: the resources of the group `claviger.dev`, their rules, and the names that go with them.
//!
//! Everything a schema or CEL can check is checked by the API server, so that `kubectl apply --dry-run=server` finds
//! the mistake; nothing here runs a webhook. Bounds stand on every string, list and map.

mod apikey;
pub mod conditions;
mod gate;
mod lifetime;
pub mod manifests;
pub mod names;
mod policy;
mod role;
mod rotation;
mod schema;
mod source;
mod status;
mod template;

pub use apikey::{ApiKey, ApiKeySpec, DEFAULT_DATA_KEY, Expiry, Retention, SecretSpec};
pub use conditions::ConditionType;
pub use gate::{GRANULARITY, Gate, GateSpec, GateState, KeyUse, MAX_USES, resource_version_number};
pub use lifetime::{Lifetime, LifetimeError};
pub use policy::{
    AllowList, ApiKeyPolicy, ApiKeyPolicySpec, Imports, LifetimeLimits, NamespaceSelector,
    RequiredField, RotationLimits, TemplateLimits,
};
pub use role::{ApiKeyRole, ApiKeyRoleSpec};
pub use rotation::Rotation;
pub use source::{Source, SourceSecret};
pub use status::{ApiKeyStatus, DeliveredSecret, Phase, Version, VersionPhase, whole_second};
pub use template::{Facts, SecretTemplate, TemplateMetadata};

#[cfg(test)]
mod tests;
