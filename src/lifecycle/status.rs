//! The statuses that steps write.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::assess::{self, Trouble};
use super::{SecretFacts, World};
use crate::api::conditions::{self, ConditionType, Statement, reason};
use crate::api::{ApiKeyStatus, DeliveredSecret, Phase, Version, VersionPhase};
use crate::key::{Hash, Tail};

/// At most so many versions whose outcome is unknown stay listed. The oldest were given up long before any request of
/// theirs could still be under way.
const MAX_ANNOUNCED: usize = 8;

/// A version to be announced, all but the key.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    /// Its number.
    pub version: i64,
    now: Timestamp,
    generation: Option<i64>,
    domain: String,
    namespace: String,
    status: ApiKeyStatus,
}

impl Announcement {
    /// The version after all that are listed.
    pub(super) fn next(world: &World, now: Timestamp) -> Self {
        let mut status = world.status();
        let last = status.versions.iter().map(|version| version.version).max().unwrap_or(0);
        if status.key_id.is_none() {
            status.expires_at = world.apikey.spec.expiry.as_ref().and_then(|expiry| expiry.ends(now)).map(Time);
        }
        let announced = status.versions.iter().filter(|version| version.phase == VersionPhase::Announced).count();
        for _ in MAX_ANNOUNCED..=announced {
            if let Some(oldest) = status.versions.iter().position(|version| version.phase == VersionPhase::Announced) {
                status.versions.remove(oldest);
            }
        }
        Self {
            version: last + 1,
            now,
            generation: world.apikey.metadata.generation,
            domain: world.rules.principal_domain.clone(),
            namespace: world.apikey.namespace().unwrap_or_default(),
            status,
        }
    }

    /// Whether the `ApiKey` has no key ID yet.
    #[must_use]
    pub fn needs_key_id(&self) -> bool {
        self.status.key_id.is_none()
    }

    /// The status that announces a key with this hash and tail. `key_id` is taken where there was none.
    #[must_use]
    pub fn status(&self, hash: Hash, tail: &Tail, key_id: Option<String>) -> ApiKeyStatus {
        let mut status = self.status.clone();
        status.key_id = status.key_id.or(key_id);
        if status.principal.is_none() {
            status.principal = status.key_id.as_ref().map(|id| format!("{id}@{}.{}", self.namespace, self.domain));
        }
        status.versions.push(Version {
            version: self.version,
            hash: hash.to_string(),
            tail: tail.to_string(),
            phase: VersionPhase::Announced,
            announced_at: Time(self.now),
            activated_at: None,
            revision: None,
            replaced_at: None,
            retires_at: None,
            collected_at: None,
            discarded_at: None,
        });
        finish(status, self.generation, None, self.now)
    }
}

/// The delivered version becomes the current one; announced ones that lost are dropped.
pub(super) fn activated(world: &World, version: i64, secret: &SecretFacts, now: Timestamp) -> ApiKeyStatus {
    let mut status = world.status();
    status.versions.retain(|listed| listed.version == version || listed.phase != VersionPhase::Announced);
    if let Some(current) = status.versions.iter_mut().find(|listed| listed.version == version) {
        current.phase = VersionPhase::Current;
        current.activated_at = Some(Time(now));
    }
    if status.issued_at.is_none() {
        status.issued_at = Some(Time(now));
    }
    status.secret_ref = Some(reference(world, secret));
    finish(status, world.apikey.metadata.generation, None, now)
}

/// A Secret that holds our key and was put there by somebody else is recorded as ours.
pub(super) fn recorded(world: &World, secret: &SecretFacts, now: Timestamp) -> ApiKeyStatus {
    let mut status = world.status();
    status.secret_ref = Some(reference(world, secret));
    finish(status, world.apikey.metadata.generation, None, now)
}

/// An announcement that came to nothing is taken back, in the write that says why.
pub(super) fn withdrawn(world: &World, version: i64, trouble: Option<&Trouble>, now: Timestamp) -> ApiKeyStatus {
    let mut status = world.status();
    status.versions.retain(|listed| listed.version != version || listed.phase != VersionPhase::Announced);
    finish(status, world.apikey.metadata.generation, trouble, now)
}

/// The key has ended by time.
pub(super) fn expired(world: &World, now: Timestamp) -> ApiKeyStatus {
    let mut status = world.status();
    status.expired_at = Some(Time(now));
    status.phase = Some(Phase::Expired);
    if status.expires_at.is_none() {
        status.expires_at = assess::end(world).map(Time);
    }
    finish(status, world.apikey.metadata.generation, assess::trouble(world).as_ref(), now)
}

/// The key was ended by decision. One that had expired before stays Expired.
pub(super) fn revoked(world: &World, now: Timestamp) -> ApiKeyStatus {
    let mut status = world.status();
    status.revoked_at = Some(Time(now));
    if !status.phase.is_some_and(Phase::is_final) {
        status.phase = Some(Phase::Revoked);
    }
    finish(status, world.apikey.metadata.generation, assess::trouble(world).as_ref(), now)
}

/// The status as it stands, with conditions that say how things are.
pub(super) fn reported(world: &World, trouble: Option<&Trouble>, now: Timestamp) -> ApiKeyStatus {
    finish(world.status(), world.apikey.metadata.generation, trouble, now)
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
fn finish(mut status: ApiKeyStatus, generation: Option<i64>, trouble: Option<&Trouble>, now: Timestamp) -> ApiKeyStatus {
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
        (status.version, status.hash, status.tail) = (Some(current.version), Some(current.hash), Some(current.tail));
    }
    status.observed_generation = generation;
    for statement in statements(&status, phase, trouble, now) {
        conditions::set(&mut status.conditions, statement, generation, now);
    }
    status
}

fn statements(status: &ApiKeyStatus, phase: Phase, trouble: Option<&Trouble>, now: Timestamp) -> [Statement; 4] {
    let say = |type_, holds, reason, message: &str| Statement { type_, holds, reason, message: message.to_owned() };
    let expires = status.expires_at.as_ref().map_or_else(|| "never".to_owned(), |time| time.0.to_string());
    let ended = match phase {
        Phase::Expired => Some((reason::EXPIRED, format!("the key expired at {expires}"))),
        Phase::Revoked => Some((reason::REVOKED, "the key was revoked".to_owned())),
        Phase::Pending | Phase::Active => None,
    };
    let announced = status.newest_announced().is_some();
    let waiting =
        if announced { (reason::ISSUING, "the key is on its way into the Secret") } else { (reason::PENDING, "not issued yet") };

    let ready = match (&ended, trouble) {
        (Some((reason, message)), _) => say(ConditionType::Ready, true, reason, message),
        (None, Some(trouble)) => say(ConditionType::Ready, false, trouble.reason, &trouble.message),
        (None, None) if phase == Phase::Active => {
            say(ConditionType::Ready, true, reason::ISSUED, "the key was issued and delivered")
        }
        (None, None) => say(ConditionType::Ready, false, waiting.0, waiting.1),
    };
    let stalled = match trouble {
        Some(trouble) if trouble.stalled && ended.is_none() => {
            say(ConditionType::Stalled, true, trouble.reason, &trouble.message)
        }
        _ => say(ConditionType::Stalled, false, reason::NOT_STALLED, "nothing waits for a person"),
    };
    let usable = match (&ended, phase) {
        (Some((reason, message)), _) => say(ConditionType::Usable, false, reason, message),
        (None, Phase::Active) => match assess::notice(status, now) {
            Some(words) => {
                say(ConditionType::Usable, true, reason::EXPIRING_SOON, &format!("the key expires {words}, at {expires}"))
            }
            None => say(ConditionType::Usable, true, reason::ACTIVE, "the key passes"),
        },
        (None, _) => say(ConditionType::Usable, false, reason::PENDING, "no key was delivered yet"),
    };
    let delivered = match (&ended, trouble) {
        // What stood in the way no longer matters, and would come and go with what this process happens to know.
        (Some((reason, _)), _) if status.current().is_none() => {
            say(ConditionType::Delivered, false, reason, "the key ended before it was delivered")
        }
        (_, Some(trouble)) if trouble.undelivered => say(ConditionType::Delivered, false, trouble.reason, &trouble.message),
        _ if status.current().is_some() => {
            say(ConditionType::Delivered, true, reason::DELIVERED, "the Secret holds the current version")
        }
        _ => say(ConditionType::Delivered, false, waiting.0, waiting.1),
    };
    [ready, stalled, usable, delivered]
}
