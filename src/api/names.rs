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
/// Annotation on a delivered Secret: when its key was revoked or expired (RFC 3339). A copy that carries it is never adopted.
pub const ANNOTATION_ENDED_AT: &str = "claviger.dev/ended-at";
/// Annotation on the Secret of a key that is shown once, set to `true` by whoever collected it, guarded by the resourceVersion.
pub const ANNOTATION_COLLECTED: &str = "claviger.dev/collected";
/// Annotation on an `ApiKey`, set to `true` by who has the verb `adopt`: the key of a Secret that has the name already is taken over.
pub const ANNOTATION_ADOPT: &str = "claviger.dev/adopt";
/// Label on a namespace: its organization. Dots separate levels.
pub const LABEL_ORGANIZATION: &str = "claviger.dev/organization";
/// What the names of our own annotations begin with.
pub const OWN_PREFIX: &str = "claviger.dev/";
