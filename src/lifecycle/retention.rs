//! How long a delivered Secret stays.

use jiff::{SignedDuration, Timestamp};

use super::World;
use crate::api::names::ANNOTATION_COLLECTED;
use crate::api::{ApiKey, ApiKeyStatus, Retention, Version};

/// How long a Secret that is shown once waits to be collected.
const SHOWN_FOR: SignedDuration = SignedDuration::from_hours(24);

/// What a retention asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// To record that the Secret was collected.
    Collected,
    /// To record that nobody collected it in time.
    Discarded,
    /// To remove it.
    Removal,
}

/// When a Secret that is shown once has waited long enough.
pub(super) fn deadline(apikey: &ApiKey, status: &ApiKeyStatus) -> Option<Timestamp> {
    let current = status.current().filter(|current| !is_over(current))?;
    if apikey.retention() != Retention::UntilCollected || status.secret_ref.is_none() {
        return None;
    }
    current.activated_at.as_ref()?.0.checked_add(SHOWN_FOR).ok()
}

/// Whether a version was shown as long as it is to be.
pub(super) fn is_over(version: &Version) -> bool {
    version.collected_at.is_some() || version.discarded_at.is_some()
}

/// What is due for the Secret of a key that is in use.
pub(super) fn due(world: &World, status: &ApiKeyStatus, now: Timestamp) -> Due {
    let Some(current) = status.current() else {
        return Due::Nothing;
    };
    if world.apikey.retention() != Retention::UntilCollected {
        return Due::Nothing;
    }
    if is_over(current) {
        return if status.secret_ref.is_some() || world.own_secret().is_some() {
            Due::Removal
        } else {
            Due::Nothing
        };
    }
    if world.own_secret().is_some_and(|secret| {
        secret
            .annotations
            .get(ANNOTATION_COLLECTED)
            .is_some_and(|mark| mark == "true")
    }) {
        return Due::Collected;
    }
    if deadline(&world.apikey, status).is_some_and(|deadline| deadline <= now) {
        Due::Discarded
    } else {
        Due::Nothing
    }
}

/// Whether the Secret of a key that has ended is to go.
pub(super) fn ends_with_the_key(apikey: &ApiKey) -> bool {
    apikey.retention() != Retention::Always
}
