//! What is wrong with a world, and when it will change by itself.

use jiff::{SignedDuration, Timestamp};

use super::rotation::{self, MAX_OVERLAPPING};
use super::{
    Clock, Delivery, FoundIn, Refusal, SecretFacts, SecretView, SourceView, Wake, World, policy,
    retention, secret,
};
use crate::api::conditions::{self, ConditionType, reason};
use crate::api::names::ANNOTATION_ADOPT;
use crate::api::{ApiKey, ApiKeyStatus, VersionPhase};

/// Something that keeps the world from being as the spec asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// One of [`reason`].
    pub(super) reason: &'static str,
    /// For people: what is wrong and what to do.
    pub(super) message: String,
    /// Only a person can help.
    pub(super) stalled: bool,
    /// The Secret does not hold the current version.
    pub(super) undelivered: bool,
}

/// Moments before the end of a key at which its owner is told, and in which words. A notice that is as long as the whole
/// life of a key is left out.
const NOTICES: [(SignedDuration, &str); 2] = [
    (SignedDuration::from_hours(24), "within a day"),
    (SignedDuration::from_hours(7 * 24), "within 7 days"),
];

/// Reasons for which a delivery is refused.
const REFUSALS: [&str; 4] = [
    reason::SECRET_CONFLICT,
    reason::DELIVERY_REFUSED,
    reason::QUOTA_EXCEEDED,
    reason::NAMESPACE_TERMINATING,
];

/// What stands in the way, if anything.
pub(super) fn trouble(world: &World, now: Timestamp) -> Option<Trouble> {
    let status = world.status();
    if status.current().is_some() {
        let waits = || {
            if rotation_is_due(world, &status, now) {
                rotation_obstacle(world, &status)
            } else {
                None
            }
        };
        return delivered(world, &status)
            .or_else(|| duplicate(world))
            .or_else(waits)
            .or_else(|| roles(world));
    }
    refused(world)
        .or_else(|| before_issuing(world))
        .or_else(|| taken(world))
        .or_else(|| clock(world))
}

/// What is wrong with the Secret of a key that ends now. What was refused meanwhile does not matter any more.
pub(super) fn at_the_end(world: &World) -> Option<Trouble> {
    amiss(world, &world.status(), &|| None)
}

/// What is wrong with the Secret of a key that is in use, or was.
pub(super) fn delivered(world: &World, status: &ApiKeyStatus) -> Option<Trouble> {
    amiss(world, status, &|| {
        if status.is_final() {
            None
        } else {
            refused(world)
        }
    })
}

fn amiss(
    world: &World,
    status: &ApiKeyStatus,
    refused: &dyn Fn() -> Option<Trouble>,
) -> Option<Trouble> {
    let current = status.current()?;
    if status.secret_ref.is_none() || retention::is_over(current) {
        // None was delivered, or it is to be gone.
        return refused().map(|trouble| Trouble {
            undelivered: false,
            ..trouble
        });
    }
    let place = place(&world.apikey);
    match &world.secret {
        SecretView::Unknown => None,
        SecretView::Absent => refused().or_else(|| {
            Some(Trouble {
                reason: reason::SECRET_MISSING,
                message: format!(
                    "{place} was deleted. The key is not replaced, because it may be in use: put the Secret back from a copy, or \
                     raise spec.revision for a new key"
                ),
                stalled: true,
                undelivered: true,
            })
        }),
        SecretView::Present(secret) if secret.key.is_some_and(|hash| hash.to_string() == current.hash) => {
            if secret.edited_entries.is_empty() || secret::template_changed(world, secret) {
                return immutable(world, secret).or_else(|| refused().map(|trouble| Trouble { undelivered: false, ..trouble }));
            }
            let what = format!("of its entries {} no longer hold what the template says", secret.edited_entries.join(", "));
            refused().or_else(|| Some(changed(&place, &what)))
        }
        SecretView::Present(secret) if world.owns(secret) => {
            let entry = world.apikey.data_key();
            let older = secret.key.and_then(|hash| status.version_of(hash));
            let what = match older.filter(|version| version.phase != VersionPhase::Announced) {
                Some(older) => format!("holds version {}, which was replaced", older.version),
                None if secret.key.is_none() => "is missing or empty".to_owned(),
                None => "holds something else".to_owned(),
            };
            refused().or_else(|| Some(changed(&place, &format!("its entry {entry} {what}"))))
        }
        SecretView::Present(secret) => Some(conflict(&place, &secret.owner())),
    }
}

/// What keeps a key from being issued at all.
pub(super) fn before_issuing(world: &World) -> Option<Trouble> {
    if let Some(message) = policy::foreign_organization(world) {
        return Some(stalled(reason::WRONG_ORGANIZATION, message));
    }
    let violations = policy::violations(world);
    if !violations.is_empty() {
        return Some(stalled(
            reason::POLICY_VIOLATED,
            format!("nothing is issued: {}", violations.join("; ")),
        ));
    }
    if let SourceView::Unfit(unfit) = &world.source {
        return Some(stalled(unfit.reason, unfit.message.clone()));
    }
    duplicate(world)
        .map(|trouble| Trouble {
            undelivered: true,
            ..trouble
        })
        .or_else(|| held(world))
}

fn stalled(reason: &'static str, message: String) -> Trouble {
    Trouble {
        reason,
        message,
        stalled: true,
        undelivered: true,
    }
}

/// The controller was told not to mint.
fn held(world: &World) -> Option<Trouble> {
    world.rules.hold_minting.then(|| Trouble {
        reason: reason::MINTING_HELD,
        message: "the controller runs with --hold-minting: nothing is minted, imported or adopted until it runs without"
            .to_owned(),
        stalled: false,
        undelivered: true,
    })
}

/// Another ApiKey has the same key. It is named by its key ID only: who may see this ApiKey may not see that one.
fn duplicate(world: &World) -> Option<Trouble> {
    world.duplicate.as_ref().map(|key_id| Trouble {
        reason: reason::DUPLICATE_KEY,
        message: format!(
            "another ApiKey has this key already, the one with the key ID {key_id}, and counts: delete one of the two"
        ),
        stalled: true,
        undelivered: false,
    })
}

/// What keeps a rotation that is due from beginning.
pub(super) fn rotation_obstacle(world: &World, status: &ApiKeyStatus) -> Option<Trouble> {
    let waits = |reason, message: String, stalled| {
        Some(Trouble {
            reason,
            message,
            stalled,
            undelivered: false,
        })
    };
    if let Some(held) = held(world) {
        return Some(Trouble {
            undelivered: false,
            ..held
        });
    }
    if rotation::overlapping(status) >= MAX_OVERLAPPING {
        let next = rotation::next_retirement(status)
            .map_or_else(|| "one is retired".to_owned(), |moment| moment.to_string());
        let message = format!(
            "a rotation is due, and {MAX_OVERLAPPING} versions overlap: it waits until {next}; lowering spec.rotation.overlap ends them sooner"
        );
        return waits(reason::ROTATION_WAITS, message, false);
    }
    if world.clock != Clock::Agrees {
        let message = "the controller's clock and the API server's differ by more than a minute: nothing is rotated until they agree";
        return waits(reason::CLOCK_DISAGREES, message.to_owned(), false);
    }
    irreplaceable(world)
}

/// What keeps the next version from being delivered into the Secret that is there.
pub(super) fn irreplaceable(world: &World) -> Option<Trouble> {
    match &world.secret {
        SecretView::Present(secret) if !world.owns(secret) => {
            Some(conflict(&place(&world.apikey), &secret.owner()))
        }
        SecretView::Present(secret) if secret.deleting => Some(Trouble {
            reason: reason::SECRET_MISSING,
            message: format!(
                "{} is being deleted, and somebody's finalizer still holds it: the next version waits until it is gone",
                place(&world.apikey)
            ),
            stalled: false,
            undelivered: false,
        }),
        SecretView::Present(secret) if secret.immutable => Some(Trouble {
            reason: reason::SECRET_IMMUTABLE,
            message: format!(
                "a rotation is due, and {} was made immutable: delete it, and the next version is delivered into a new one",
                place(&world.apikey)
            ),
            stalled: true,
            undelivered: false,
        }),
        _ => None,
    }
}

/// Whether the next version is to be minted now.
pub(super) fn rotation_is_due(world: &World, status: &ApiKeyStatus, now: Timestamp) -> bool {
    status.newest_announced().is_none()
        && rotation::due(world, status).is_some_and(|due| due <= now)
}

/// Listed roles that do not exist: they grant nothing, and the rest is as asked.
fn roles(world: &World) -> Option<Trouble> {
    let missing = &world.surroundings.missing_roles;
    (!missing.is_empty()).then(|| Trouble {
        reason: reason::ROLE_MISSING,
        message: format!(
            "no ApiKeyRole of this name, so it grants nothing: {}",
            missing.join(", ")
        ),
        stalled: false,
        undelivered: false,
    })
}

fn changed(place: &str, what: &str) -> Trouble {
    Trouble {
        reason: reason::SECRET_CHANGED,
        message: format!(
            "{place} was edited: {what}. It is left as it is, and the key as delivered stays valid: undo the edit, or raise \
             spec.revision for a new key"
        ),
        stalled: true,
        undelivered: true,
    }
}

fn conflict(place: &str, owner: &str) -> Trouble {
    Trouble {
        reason: reason::SECRET_CONFLICT,
        message: format!(
            "{place} exists and does not hold this ApiKey's key: {owner}. It is left alone: remove it, create the ApiKey with another \
             spec.secret.name, or take its key over with the annotation {ANNOTATION_ADOPT}: \"true\""
        ),
        stalled: true,
        undelivered: true,
    }
}

fn refused(world: &World) -> Option<Trouble> {
    let Delivery::Refused(refused) = &world.delivery else {
        return None;
    };
    Some(refusal(refused.reason, refused.message.clone()))
}

fn refusal(reason: &'static str, message: String) -> Trouble {
    Trouble {
        reason,
        message,
        stalled: reason != reason::NAMESPACE_TERMINATING,
        undelivered: true,
    }
}

/// The key is past its end by our clock alone.
pub(super) fn unconfirmed_end() -> Trouble {
    Trouble {
        reason: reason::CLOCK_DISAGREES,
        message:
            "by the controller's clock the key has expired, and the API server's clock differs by more than a minute: it is \
                  not ended until they agree"
                .to_owned(),
        stalled: false,
        undelivered: false,
    }
}

/// Somebody takes away what we put on the Secret, again and again.
pub(super) fn undone() -> Trouble {
    Trouble {
        reason: reason::TEMPLATE_UNDONE,
        message: "what Claviger puts on the Secret is undone again and again by somebody else: it is tried again at ever longer \
                  pauses; managedFields of the Secret name who writes to it"
            .to_owned(),
        stalled: true,
        undelivered: false,
    }
}

/// Not issued, and the name is taken by a Secret that holds none of our keys.
fn taken(world: &World) -> Option<Trouble> {
    match &world.secret {
        SecretView::Present(_) if matches!(&world.source, SourceView::Found(found) if found.place == FoundIn::OwnSecret) => {
            None
        }
        SecretView::Present(secret) if !world.owns(secret) => {
            Some(conflict(&place(&world.apikey), &secret.owner()))
        }
        _ => None,
    }
}

/// A lifetime cannot be counted from a clock that is wrong.
fn clock(world: &World) -> Option<Trouble> {
    let lifetime = match &world.apikey.spec.expiry {
        Some(expiry) => expiry.after.is_some() || expiry.at.is_some(),
        None => policy::default_lifetime(world).is_some(),
    };
    match world.clock {
        // By how much is not said: it is measured anew at every look, and every change would be written and told.
        Clock::AheadBy(_) if lifetime && world.status().key_id.is_none() => Some(Trouble {
            reason: reason::CLOCK_DISAGREES,
            message: "the controller's clock and the API server's differ by more than a minute: nothing is issued that expires \
                      until they agree"
                .to_owned(),
            stalled: false,
            undelivered: true,
        }),
        _ => None,
    }
}

fn immutable(world: &World, secret: &SecretFacts) -> Option<Trouble> {
    (secret.immutable && secret::data_changed(world, secret)).then(|| Trouble {
        reason: reason::SECRET_IMMUTABLE,
        message: format!(
            "{} was made immutable, so the change of spec.secret.template.data cannot be made: take the change back, or delete the \
             Secret and put it back from a copy without immutable",
            place(&world.apikey)
        ),
        stalled: true,
        undelivered: false,
    })
}

impl Trouble {
    /// What to wait for: some troubles end with an event, others have to be looked for.
    pub(super) fn wake(&self) -> Wake {
        match self.reason {
            reason::ROLE_MISSING
            | reason::ROTATION_WAITS
            | reason::MINTING_HELD
            | reason::POLICY_VIOLATED => Wake::OnEvent,
            _ => Wake::BackOff,
        }
    }
}

impl Refusal {
    /// The name of the Secret is taken by `secret`, which is not ours.
    #[must_use]
    pub fn conflict(apikey: &ApiKey, secret: &SecretFacts) -> Self {
        Self {
            reason: reason::SECRET_CONFLICT,
            message: conflict(&place(apikey), &secret.owner()).message,
        }
    }
}

/// Why the last try to deliver was refused, as the status says. The next one asks first.
pub(super) fn last_refusal(status: &ApiKeyStatus) -> Option<Trouble> {
    let said = conditions::find(&status.conditions, ConditionType::Ready)?;
    let reason = REFUSALS.into_iter().find(|reason| *reason == said.reason)?;
    Some(refusal(reason, said.message.clone()))
}

/// When the key ends: as fixed at the first announcement, or as a spec says that was never acted on.
pub(super) fn end(world: &World) -> Option<Timestamp> {
    let status = world.status();
    match status.key_id {
        Some(_) => status.expires_at.map(|time| time.0),
        None => world
            .apikey
            .spec
            .expiry
            .as_ref()
            .filter(|expiry| expiry.after.is_none())
            .and_then(|expiry| expiry.ends(Timestamp::MAX)),
    }
}

/// In which words the owner of a key that is about to end is told so.
pub(super) fn notice(status: &ApiKeyStatus, now: Timestamp) -> Option<&'static str> {
    let (end, lifetime) = lifetime(status)?;
    NOTICES
        .iter()
        .find(|(before, _)| lifetime > *before && end.duration_since(now) <= *before)
        .map(|(_, words)| *words)
}

/// The moments at which its owner is told that a key is about to end.
pub(super) fn notice_moments(status: &ApiKeyStatus) -> impl Iterator<Item = Timestamp> {
    lifetime(status).into_iter().flat_map(|(end, lifetime)| {
        NOTICES
            .iter()
            .filter(move |(before, _)| lifetime > *before)
            .filter_map(move |(before, _)| end.checked_sub(*before).ok())
    })
}

fn lifetime(status: &ApiKeyStatus) -> Option<(Timestamp, SignedDuration)> {
    let (end, start) = (status.expires_at.as_ref()?.0, status.issued_at.as_ref()?.0);
    Some((end, end.duration_since(start)))
}

fn place(apikey: &ApiKey) -> String {
    let namespace = apikey.metadata.namespace.as_deref().unwrap_or_default();
    format!("Secret {namespace}/{}", apikey.secret_name())
}
