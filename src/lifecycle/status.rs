//! The statuses that steps write.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::assess::{self, Trouble};
use super::{Clock, FoundIn, FoundKey, SecretFacts, SourceView, World, policy, rotation, words};
use crate::api::conditions;
use crate::api::{ApiKeyStatus, DeliveredSecret, Phase, Version, VersionPhase};
use crate::key::Hash;

/// At most so many versions whose outcome is unknown stay listed. The oldest were given up long before any request of
/// theirs could still be under way.
const MAX_ANNOUNCED: usize = 8;

/// A version to be announced, all but the key.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    /// Its number.
    pub version: i64,
    /// The key that is taken over; `None` where one is to be minted.
    pub taken: Option<FoundKey>,
    now: Timestamp,
    world: World,
    status: ApiKeyStatus,
}

impl Announcement {
    /// The version after all that are listed.
    pub(super) fn next(world: &World, now: Timestamp) -> Self {
        let mut status = world.status();
        let taken = match &world.source {
            SourceView::Found(found) if status.current().is_none() => Some(found.clone()),
            _ => None,
        };
        if status.key_id.is_none() {
            let asked = world.apikey.spec.expiry.as_ref();
            let default = || policy::default_lifetime(world).map(|lifetime| lifetime.after(now));
            status.expires_at = asked
                .map_or_else(default, |expiry| expiry.ends(now))
                .map(Time);
            status.organization = world
                .apikey
                .spec
                .organization
                .clone()
                .or_else(|| world.surroundings.organization().map(ToOwned::to_owned));
        }
        if let Some(ends) = taken.as_ref().and_then(|taken| taken.ends) {
            // The Secret says when its key ends, which can only shorten its life.
            status.expires_at = Some(Time(status.expires_at.map_or(ends, |end| end.0.min(ends))));
        }
        let announced = status
            .versions
            .iter()
            .filter(|version| version.phase == VersionPhase::Announced)
            .count();
        for _ in MAX_ANNOUNCED..=announced {
            if let Some(oldest) = status
                .versions
                .iter()
                .position(|version| version.phase == VersionPhase::Announced)
            {
                status.versions.remove(oldest);
            }
        }
        let last = world
            .status()
            .versions
            .iter()
            .map(|version| version.version)
            .max()
            .unwrap_or(0);
        Self {
            version: last.max(status.version.unwrap_or(0)) + 1,
            taken,
            now,
            world: world.clone(),
            status,
        }
    }

    /// Whether the `ApiKey` has no key ID yet.
    #[must_use]
    pub fn needs_key_id(&self) -> bool {
        self.status.key_id.is_none()
    }

    /// The status that announces a key with this hash and tail. `key_id` is taken where there was none. A key of which only the hash
    /// is known is in use from here on: there is nothing to deliver.
    #[must_use]
    pub fn status(&self, hash: Hash, tail: &str, key_id: Option<String>) -> ApiKeyStatus {
        let mut status = self.status.clone();
        status.key_id = status.key_id.or(key_id);
        if status.principal.is_none() {
            let (namespace, domain) = (
                self.world.apikey.namespace().unwrap_or_default(),
                &self.world.rules.principal_domain,
            );
            status.principal = status
                .key_id
                .as_ref()
                .map(|id| format!("{id}@{namespace}.{domain}"));
        }
        status.versions.push(Version {
            version: self.version,
            hash: hash.to_string(),
            tail: tail.to_owned(),
            phase: VersionPhase::Announced,
            announced_at: Time(self.now),
            activated_at: None,
            revision: self.world.apikey.spec.revision,
            replaced_at: None,
            retires_at: None,
            collected_at: None,
            discarded_at: None,
        });
        if self
            .taken
            .as_ref()
            .is_some_and(|taken| taken.place == FoundIn::Elsewhere)
        {
            activate(&mut status, self.version, &self.world, self.now);
        }
        finish(status, &self.world, None, self.now)
    }
}

/// The delivered version becomes the current one and the one before it retiring; announced ones that lost are dropped.
pub(super) fn activated(
    world: &World,
    version: i64,
    secret: &SecretFacts,
    now: Timestamp,
) -> ApiKeyStatus {
    let mut status = world.status();
    activate(&mut status, version, world, now);
    status.secret_ref = Some(reference(world, secret));
    finish(status, world, None, now)
}

fn activate(status: &mut ApiKeyStatus, version: i64, world: &World, now: Timestamp) {
    // What is fixed here is held against other clocks later.
    let now = world.clock.corrected(now);
    status
        .versions
        .retain(|listed| listed.version == version || listed.phase != VersionPhase::Announced);
    for listed in &mut status.versions {
        if listed.version == version {
            listed.phase = VersionPhase::Current;
            listed.activated_at = Some(Time(now));
            status.revision = listed.revision.max(status.revision);
        } else if listed.phase == VersionPhase::Current {
            rotation::replace(listed, now);
        }
    }
    if status.issued_at.is_none() {
        status.issued_at = Some(Time(now));
    }
    rotation::age(status, &world.apikey, Some(now));
}

/// Replaced versions as they stand by now, where the status does not say so yet.
pub(super) fn aged(world: &World, now: Timestamp) -> Option<ApiKeyStatus> {
    let before = world.apikey.status.as_ref()?;
    let mut status = before.clone();
    rotation::age(
        &mut status,
        &world.apikey,
        (world.clock == Clock::Agrees).then_some(now),
    );
    (status.versions != before.versions)
        .then(|| finish(status, world, assess::trouble(world, now).as_ref(), now))
}

/// Somebody has marked the Secret collected.
pub(super) fn collected(world: &World, now: Timestamp) -> ApiKeyStatus {
    shown(world, now, |current| current.collected_at = Some(Time(now)))
}

/// Nobody has marked the Secret collected in time.
pub(super) fn discarded(world: &World, now: Timestamp) -> ApiKeyStatus {
    shown(world, now, |current| current.discarded_at = Some(Time(now)))
}

fn shown(world: &World, now: Timestamp, mark: impl FnOnce(&mut Version)) -> ApiKeyStatus {
    let mut status = world.status();
    if let Some(current) = status
        .versions
        .iter_mut()
        .find(|version| version.phase == VersionPhase::Current)
    {
        mark(current);
    }
    finish(status, world, None, now)
}

/// The Secret was removed, as its retention asks.
pub(super) fn removed(world: &World, now: Timestamp) -> ApiKeyStatus {
    let mut status = world.status();
    status.secret_ref = None;
    finish(status, world, None, now)
}

/// A Secret that holds our key and was put there by somebody else is recorded as ours.
pub(super) fn recorded(world: &World, secret: &SecretFacts, now: Timestamp) -> ApiKeyStatus {
    let mut status = world.status();
    status.secret_ref = Some(reference(world, secret));
    finish(status, world, None, now)
}

/// An announcement that came to nothing is taken back, in the write that says why.
pub(super) fn withdrawn(
    world: &World,
    version: i64,
    trouble: Option<&Trouble>,
    now: Timestamp,
) -> ApiKeyStatus {
    let mut status = world.status();
    status
        .versions
        .retain(|listed| listed.version != version || listed.phase != VersionPhase::Announced);
    finish(status, world, trouble, now)
}

/// The key has ended by time.
pub(super) fn expired(world: &World, now: Timestamp) -> ApiKeyStatus {
    let mut status = world.status();
    status.expired_at = Some(Time(now));
    status.phase = Some(Phase::Expired);
    if status.expires_at.is_none() {
        status.expires_at = assess::end(world).map(Time);
    }
    finish(status, world, assess::at_the_end(world).as_ref(), now)
}

/// The key was ended by decision. One that had expired before stays Expired.
pub(super) fn revoked(world: &World, now: Timestamp) -> ApiKeyStatus {
    let mut status = world.status();
    status.revoked_at = Some(Time(now));
    if !status.phase.is_some_and(Phase::is_final) {
        status.phase = Some(Phase::Revoked);
    }
    finish(status, world, assess::at_the_end(world).as_ref(), now)
}

/// The status as it stands, with conditions that say how things are.
pub(super) fn reported(world: &World, trouble: Option<&Trouble>, now: Timestamp) -> ApiKeyStatus {
    finish(world.status(), world, trouble, now)
}

fn reference(world: &World, secret: &SecretFacts) -> DeliveredSecret {
    DeliveredSecret {
        name: world.apikey.secret_name(),
        key: world.apikey.data_key().to_owned(),
        uid: secret.uid.clone(),
        resource_version: secret.resource_version.clone(),
    }
}

/// Phase, what is said of the current version, conditions and observed generation from the rest, in the same write.
fn finish(
    mut status: ApiKeyStatus,
    world: &World,
    trouble: Option<&Trouble>,
    now: Timestamp,
) -> ApiKeyStatus {
    let phase = match status.phase {
        Some(phase) if phase.is_final() => phase,
        // The phase was corrupted; the dates decide.
        _ if status.revoked_at.is_some() && status.expired_at.is_none() => Phase::Revoked,
        _ if status.expired_at.is_some() => Phase::Expired,
        _ if status.current().is_some() => Phase::Active,
        _ => Phase::Pending,
    };
    status.phase = Some(phase);
    if let Some(current) = status.current().cloned() {
        (status.version, status.hash, status.tail) = (
            Some(current.version),
            Some(current.hash),
            Some(current.tail),
        );
    }
    let generation = world.apikey.metadata.generation;
    status.observed_generation = generation;
    status.rotates_at = if phase.is_final() {
        None
    } else {
        rotation::scheduled(&world.apikey, &status).map(Time)
    };
    let statements = words::statements(&status, phase, world, trouble, now);
    let types: Vec<_> = statements
        .iter()
        .map(|statement| statement.type_.as_str())
        .collect();
    status
        .conditions
        .retain(|condition| types.contains(&condition.type_.as_str()));
    for statement in statements {
        conditions::set(&mut status.conditions, statement, generation, now);
    }
    status
}
