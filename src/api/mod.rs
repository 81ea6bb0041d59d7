//! What people write and read: the resources of the group `claviger.dev`, their rules, and the names that go with them.
//!
//! Everything a schema or CEL can check is checked by the API server, so that `kubectl apply --dry-run=server` finds
//! the mistake; nothing here runs a webhook. Bounds stand on every string, list and map.

mod apikey;
pub mod conditions;
mod lifetime;
pub mod manifests;
pub mod names;
mod schema;
mod status;
mod template;

pub use apikey::{ApiKey, ApiKeySpec, DEFAULT_DATA_KEY, Expiry, SecretSpec};
pub use conditions::ConditionType;
pub use lifetime::{Lifetime, LifetimeError};
pub use status::{ApiKeyStatus, DeliveredSecret, Phase, Version, VersionPhase, whole_second};
pub use template::{Facts, SecretTemplate, TemplateMetadata};

#[cfg(test)]
mod tests;
