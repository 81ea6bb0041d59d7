//! Names that other people see on their objects.

/// Keeps an `ApiKey` until its Secret is gone.
pub const FINALIZER: &str = "claviger.dev/finalizer";
/// Who wrote, in `managedFields` and in events.
pub const FIELD_MANAGER: &str = "claviger";
/// Label on a delivered Secret: the name of its `ApiKey`. Selects what is watched; proves nothing, since whoever may
/// create Secrets can set it.
pub const LABEL_APIKEY: &str = "claviger.dev/apikey";
/// Label on a delivered Secret, by the convention of Kubernetes.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`LABEL_MANAGED_BY`].
pub const MANAGED_BY: &str = "claviger";
/// Annotation on a delivered Secret: the key ID of its `ApiKey`, for people.
pub const ANNOTATION_KEY_ID: &str = "claviger.dev/key-id";
/// Annotation on a delivered Secret: when the key ends (RFC 3339), for people and for restores.
pub const ANNOTATION_EXPIRES_AT: &str = "claviger.dev/expires-at";
/// Annotation on a delivered Secret: the template as it was last applied, so that what it no longer asks for can be
/// told from what others added.
pub const ANNOTATION_TEMPLATE: &str = "claviger.dev/applied-template";
