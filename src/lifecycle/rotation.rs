//! When the next version is due, and when replaced ones end.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::World;
use crate::api::{ApiKey, ApiKeyStatus, Rotation, Version, VersionPhase};

/// At most so many versions pass at one time.
pub(super) const MAX_OVERLAPPING: usize = 8;
/// So many retired versions stay listed.
const KEPT_RETIRED: usize = 5;
/// Rotations that are overdue when a controller begins to work are spread over at most this time.
const SPREAD: SignedDuration = SignedDuration::from_mins(10);

/// Whether a person asked for the next version, by a revision that was not acted on.
pub(super) fn is_asked_for(apikey: &ApiKey, status: &ApiKeyStatus) -> bool {
    apikey
        .spec
        .revision
        .is_some_and(|wanted| wanted > status.revision.unwrap_or(0))
}

/// When the next version is due by the declared interval: a stable part of it, up to a tenth, earlier than it says, so that keys made
/// together are not replaced together. `None` where none is declared, or the key ends before.
pub(super) fn scheduled(apikey: &ApiKey, status: &ApiKeyStatus) -> Option<Timestamp> {
    let every = apikey.spec.rotation.as_ref()?.interval()?;
    let since = status.current()?.activated_at.as_ref()?.0;
    let early = part(every / 10, apikey);
    let due = since.checked_add(every).ok()?.checked_sub(early).ok()?;
    status
        .expires_at
        .as_ref()
        .is_none_or(|end| due < end.0)
        .then_some(due)
}

/// When the next version is to be minted. Those that became due while no controller worked are spread.
pub(super) fn due(world: &World, status: &ApiKeyStatus) -> Option<Timestamp> {
    if is_asked_for(&world.apikey, status) {
        return Some(Timestamp::MIN);
    }
    let due = scheduled(&world.apikey, status)?;
    if due >= world.since {
        return Some(due);
    }
    let every = world.apikey.spec.rotation.as_ref()?.interval()?;
    world
        .since
        .checked_add(part((every / 10).min(SPREAD), &world.apikey))
        .ok()
}

/// A stable share of `whole`, in whole seconds, by the UID of the `ApiKey`.
fn part(whole: SignedDuration, apikey: &ApiKey) -> SignedDuration {
    let share = i64::from(crc32fast::hash(apikey.uid().unwrap_or_default().as_bytes()));
    SignedDuration::from_secs(
        i64::try_from(i128::from(whole.as_secs()) * i128::from(share) / (1_i128 << 32))
            .unwrap_or(0),
    )
}

/// How many versions pass, the current one among them.
pub(super) fn overlapping(status: &ApiKeyStatus) -> usize {
    status
        .versions
        .iter()
        .filter(|version| {
            matches!(
                version.phase,
                VersionPhase::Current | VersionPhase::Retiring
            )
        })
        .count()
}

/// The version that is in use is replaced at `now`.
pub(super) fn replace(version: &mut Version, now: Timestamp) {
    version.phase = VersionPhase::Retiring;
    version.replaced_at = Some(Time(now));
    version.retires_at = None;
}

/// Says of every replaced version when it ends, as the overlap is declared now: it can only end earlier than was said before. Those
/// whose end has come, by `confirmed`, are retired; all but the last five of those that were retired before are forgotten.
pub(super) fn age(status: &mut ApiKeyStatus, apikey: &ApiKey, confirmed: Option<Timestamp>) {
    let overlap = Rotation::overlap_of(apikey.spec.rotation.as_ref());
    let end = status.expires_at.as_ref().map(|time| time.0);
    // One that is retired now stays for this write: nobody was told yet.
    let retired_before = |version: &&Version| version.phase == VersionPhase::Retired;
    let retired_before: Vec<_> = status
        .versions
        .iter()
        .filter(retired_before)
        .map(|version| version.version)
        .collect();
    for version in status
        .versions
        .iter_mut()
        .filter(|version| version.phase == VersionPhase::Retiring)
    {
        let replaced = version
            .replaced_at
            .as_ref()
            .or(version.activated_at.as_ref())
            .unwrap_or(&version.announced_at)
            .0;
        let declared = replaced.checked_add(overlap).unwrap_or(Timestamp::MAX);
        let said = version.retires_at.as_ref().map(|time| time.0);
        let retires = [Some(declared), said, end]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(declared);
        version.retires_at = Some(Time(retires));
        if confirmed.is_some_and(|now| retires <= now) {
            version.phase = VersionPhase::Retired;
        }
    }
    let retired = status
        .versions
        .iter()
        .filter(|version| version.phase == VersionPhase::Retired)
        .count();
    let mut forgotten = retired_before;
    forgotten.sort_unstable();
    forgotten.truncate(retired.saturating_sub(KEPT_RETIRED));
    status
        .versions
        .retain(|version| !forgotten.contains(&version.version));
}

/// When the next replaced version ends.
pub(super) fn next_retirement(status: &ApiKeyStatus) -> Option<Timestamp> {
    let retiring = status
        .versions
        .iter()
        .filter(|version| version.phase == VersionPhase::Retiring);
    retiring
        .filter_map(|version| version.retires_at.as_ref())
        .map(|time| time.0)
        .min()
}
