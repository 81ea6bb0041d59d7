//! Conditions of an `ApiKey`, as kstatus reads them, and the reasons they give.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The types of condition that an `ApiKey` has, one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionType {
    /// The world is as the spec asks. Also true for a key that was revoked on request or has expired as asked.
    Ready,
    /// Only a person can help.
    Stalled,
    /// A request with the key passes.
    Usable,
    /// The Secret holds the current version.
    Delivered,
    /// No policy is violated.
    Compliant,
}

/// Reasons that conditions and events give. A reason is one CamelCase word, stable for scripts.
pub mod reason {
    /// Minted, delivered and in use.
    pub const ISSUED: &str = "Issued";
    /// Not issued yet.
    pub const PENDING: &str = "Pending";
    /// Announced, on its way into the Secret.
    pub const ISSUING: &str = "Issuing";
    /// In use.
    pub const ACTIVE: &str = "Active";
    /// In use, and about to expire.
    pub const EXPIRING_SOON: &str = "ExpiringSoon";
    /// Ended by time.
    pub const EXPIRED: &str = "Expired";
    /// Ended by decision.
    pub const REVOKED: &str = "Revoked";
    /// The Secret holds the current version.
    pub const DELIVERED: &str = "Delivered";
    /// The name of the Secret is taken by a Secret that is not ours.
    pub const SECRET_CONFLICT: &str = "SecretConflict";
    /// The delivered Secret is gone.
    pub const SECRET_MISSING: &str = "SecretMissing";
    /// The delivered Secret no longer holds the key as delivered.
    pub const SECRET_CHANGED: &str = "SecretChanged";
    /// The delivered Secret was made immutable, and the template asks for other data.
    pub const SECRET_IMMUTABLE: &str = "SecretImmutable";
    /// Somebody undoes again and again what is put on the Secret besides the key.
    pub const TEMPLATE_UNDONE: &str = "TemplateUndone";
    /// The API server refused the Secret.
    pub const DELIVERY_REFUSED: &str = "DeliveryRefused";
    /// A quota does not leave room for the Secret.
    pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
    /// The namespace is going away.
    pub const NAMESPACE_TERMINATING: &str = "NamespaceTerminating";
    /// The controller's clock and the API server's differ by more than a minute.
    pub const CLOCK_DISAGREES: &str = "ClockDisagrees";
    /// Nothing stands in the way.
    pub const NOT_STALLED: &str = "NotStalled";
    /// The Secret of a deleted ApiKey was removed.
    pub const DELETED: &str = "Deleted";
    /// The next version was delivered.
    pub const ROTATED: &str = "Rotated";
    /// The next version is on its way into the Secret.
    pub const ROTATING: &str = "Rotating";
    /// A rotation is due, and too many versions overlap.
    pub const ROTATION_WAITS: &str = "RotationWaits";
    /// A replaced version stopped passing.
    pub const RETIRED: &str = "Retired";
    /// The Secret of a key that is shown once was collected.
    pub const COLLECTED: &str = "Collected";
    /// Nobody collected the Secret of a key that is shown once.
    pub const UNCOLLECTED: &str = "Uncollected";
    /// The Secret was removed because the key has ended.
    pub const REMOVED: &str = "Removed";
    /// A key that exists elsewhere was taken over.
    pub const IMPORTED: &str = "Imported";
    /// The Secret of the import does not hold a key.
    pub const SOURCE_MISSING: &str = "SourceMissing";
    /// The key of the import is too weak, or cannot be a key.
    pub const SOURCE_REFUSED: &str = "SourceRefused";
    /// Another ApiKey has the same key.
    pub const DUPLICATE_KEY: &str = "DuplicateKey";
    /// The Secret that is to be adopted cannot be.
    pub const ADOPTION_REFUSED: &str = "AdoptionRefused";
    /// The controller was told not to mint.
    pub const MINTING_HELD: &str = "MintingHeld";
    /// A listed role does not exist.
    pub const ROLE_MISSING: &str = "RoleMissing";
    /// An ApiKeyPolicy forbids what is asked for.
    pub const POLICY_VIOLATED: &str = "PolicyViolated";
    /// The key does not belong to its namespace's organization.
    pub const WRONG_ORGANIZATION: &str = "WrongOrganization";
    /// No policy is violated.
    pub const COMPLIANT: &str = "Compliant";
    /// The stored object cannot be read.
    pub const UNDECODABLE: &str = "Undecodable";
    /// A gate does not report.
    pub const GATE_SILENT: &str = "GateSilent";
    /// A gate does not know what was written a while ago.
    pub const GATE_BEHIND: &str = "GateBehind";
    /// A gate that was silent or behind is so no more.
    pub const GATE_CURRENT: &str = "GateCurrent";
}

/// What a condition should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Which condition.
    pub type_: ConditionType,
    /// Whether it holds.
    pub holds: bool,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, for people. Never holds a key.
    pub message: String,
}

impl ConditionType {
    /// As it is written in the status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Stalled => "Stalled",
            Self::Usable => "Usable",
            Self::Delivered => "Delivered",
            Self::Compliant => "Compliant",
        }
    }
}

/// Finds a condition by its type.
#[must_use]
pub fn find(all: &[Condition], type_: ConditionType) -> Option<&Condition> {
    all.iter()
        .find(|condition| condition.type_ == type_.as_str())
}

/// Puts a statement into the list. The time of transition moves only when the condition turns.
pub fn set(
    all: &mut Vec<Condition>,
    statement: Statement,
    generation: Option<i64>,
    now: Timestamp,
) {
    let status = if statement.holds { "True" } else { "False" };
    let since = find(all, statement.type_)
        .filter(|old| old.status == status)
        .map_or(Time(now), |old| old.last_transition_time.clone());
    let new = Condition {
        type_: statement.type_.as_str().to_owned(),
        status: status.to_owned(),
        reason: statement.reason.to_owned(),
        message: statement.message,
        observed_generation: generation,
        last_transition_time: since,
    };
    match all.iter_mut().find(|old| old.type_ == new.type_) {
        Some(old) => *old = new,
        None => all.push(new),
    }
}
