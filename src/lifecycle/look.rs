//! What is worth looking at before a plan is made.

use jiff::Timestamp;

use super::{Outstanding, World, assess, retention, rotation};
use crate::api::{ApiKey, ApiKeyStatus, Retention, VersionPhase};

/// Whether the next plan may end something by time, or fix when something ends: then our clock must agree with the API server's.
#[must_use]
pub fn clock_matters(apikey: &ApiKey, now: Timestamp) -> bool {
    let Some(status) = apikey.status.as_ref() else {
        return ends_by_a_count(apikey);
    };
    if status.is_final() || apikey.is_deleting() {
        return false;
    }
    if status.key_id.is_none() {
        return ends_by_a_count(apikey);
    }
    // A replacement fixes when the replaced version ends.
    let replacing = status.current().is_some()
        && (status.newest_announced().is_some() || rotation::is_asked_for(apikey, status));
    let end = status.expires_at.as_ref().map(|time| time.0);
    let moments = [
        end,
        rotation::next_retirement(status),
        rotation::scheduled(apikey, status),
        retention::deadline(apikey, status),
    ];
    replacing || moments.into_iter().flatten().any(|moment| moment <= now)
}

/// Whether a key that was never announced may get an end from our clock: as it asks, or as some policy says.
fn ends_by_a_count(apikey: &ApiKey) -> bool {
    apikey
        .spec
        .expiry
        .as_ref()
        .is_none_or(|expiry| expiry.never.is_none())
}

/// Whether the Secret is to be known for the next plan, be it by a live read. `watched`: the watch shows one that says it is ours.
#[must_use]
pub fn needs_secret(apikey: &ApiKey, outstanding: Outstanding, watched: bool) -> bool {
    let status = apikey.status.clone().unwrap_or_default();
    if apikey.is_deleting() {
        return status.key_id.is_some() || watched;
    }
    if status.is_final() {
        return match apikey.retention() {
            // What is said of it does not change any more; only what was delivered is looked at, be it unknown to the status.
            Retention::Always => {
                let (delivered, announced) = (
                    status.current().is_some(),
                    status.newest_announced().is_some(),
                );
                delivered && status.secret_ref.is_some() || announced && watched
            }
            Retention::WhileActive | Retention::UntilCollected => {
                status.secret_ref.is_some() || watched
            }
        };
    }
    let announced = status
        .versions
        .iter()
        .any(|version| version.phase == VersionPhase::Announced);
    if status.current().is_some() && status.secret_ref.is_some() {
        return true;
    }
    match outstanding {
        // Nothing was announced: only one that is to be adopted, or has come back, matters.
        _ if !announced => watched && status.current().is_some(),
        Outstanding::Held { .. } => false,
        Outstanding::Unsettled => watched,
        Outstanding::Settled => true,
    }
}

/// Whether the key that is to be taken over is to be looked at for the next plan.
#[must_use]
pub fn needs_source(apikey: &ApiKey) -> bool {
    let status = apikey.status.as_ref();
    let issued = status.is_some_and(|status| status.current().is_some() || status.is_final());
    !issued
        && !apikey.is_deleting()
        && !apikey.is_revoked()
        && (apikey.spec.source.is_some() || apikey.is_adopting())
}

/// Whether another `ApiKey` may have the same key: only one that was taken over can be had twice.
#[must_use]
pub fn needs_duplicates(apikey: &ApiKey) -> bool {
    let is_final = apikey.status.as_ref().is_some_and(ApiKeyStatus::is_final);
    !is_final && !apikey.is_deleting() && (apikey.spec.source.is_some() || apikey.is_adopting())
}

/// The next moment at which something is due by itself, after `now`.
pub(super) fn next_moment(
    world: &World,
    status: &ApiKeyStatus,
    now: Timestamp,
) -> Option<Timestamp> {
    if status.is_final() {
        return None;
    }
    let rotation = rotation::due(world, status).filter(|_| status.newest_announced().is_none());
    let moments = [
        assess::end(world),
        rotation::next_retirement(status),
        rotation,
        retention::deadline(&world.apikey, status),
    ];
    assess::notice_moments(status)
        .chain(moments.into_iter().flatten())
        .filter(|moment| *moment > now)
        .min()
}
