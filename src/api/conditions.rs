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
    /// The stored object cannot be read.
    pub const UNDECODABLE: &str = "Undecodable";
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
        }
    }
}

/// Finds a condition by its type.
#[must_use]
pub fn find(all: &[Condition], type_: ConditionType) -> Option<&Condition> {
    all.iter().find(|condition| condition.type_ == type_.as_str())
}

/// Puts a statement into the list. The time of transition moves only when the condition turns.
pub fn set(all: &mut Vec<Condition>, statement: Statement, generation: Option<i64>, now: Timestamp) {
    let status = if statement.holds { "True" } else { "False" };
    let since =
        find(all, statement.type_).filter(|old| old.status == status).map_or(Time(now), |old| old.last_transition_time.clone());
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
