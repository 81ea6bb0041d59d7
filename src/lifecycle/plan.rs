//! The next step for an `ApiKey`.

use jiff::Timestamp;

use super::assess::{self, Trouble};
use super::retention::{self, Due};
use super::secret::{self, Mending};
use super::status::{self, Announcement};
use super::{
    Clock, Delivery, FoundIn, GateView, Outstanding, SecretFacts, SecretView, SourceView, World,
    look, rotation,
};
use crate::api::conditions::reason;
use crate::api::names::FINALIZER;
use crate::api::{ApiKeyStatus, Version, VersionPhase};

/// The next step.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What to do now.
    pub step: Step,
}

/// One thing to do. Each is at most one write; after it, look again.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing to do for now.
    Settled {
        /// What to wait for.
        wake: Wake,
        /// The next moment at which something is due by itself, if any: look again then at the latest.
        at: Option<Timestamp>,
    },
    /// Put our finalizer on the `ApiKey`.
    AddFinalizer,
    /// Take our finalizer off the `ApiKey`: its Secret is gone, or not ours.
    RemoveFinalizer,
    /// Ask with a dry run whether the Secret can be created.
    AskDelivery,
    /// Mint a key, or take one over, and write its hash and tail into the status.
    Announce(Box<Announcement>),
    /// Create the Secret with the held key of this version, or replace what the Secret of ours holds.
    Deliver {
        /// The announced version.
        version: i64,
    },
    /// Write this status.
    WriteStatus(Box<ApiKeyStatus>),
    /// Mend what we put on the Secret besides the key.
    MendSecret(Box<Mending>),
    /// Delete the Secret with this UID, which is ours.
    DeleteSecret {
        /// Its UID, as precondition.
        uid: String,
    },
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// When something happens.
    OnEvent,
    /// After the object's back-off: the world is not as it should be, and what is in the way sends no event.
    BackOff,
    /// When the outstanding announcement has settled.
    WhenSettled,
    /// When the gates know what was announced, or were waited for long enough.
    WhenGatesKnow,
}

impl Step {
    /// Its name, for logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Settled { .. } => "settled",
            Self::AddFinalizer => "add finalizer",
            Self::RemoveFinalizer => "remove finalizer",
            Self::AskDelivery => "ask delivery",
            Self::Announce(_) => "announce",
            Self::Deliver { .. } => "deliver",
            Self::WriteStatus(_) => "write status",
            Self::MendSecret(_) => "mend secret",
            Self::DeleteSecret { .. } => "delete secret",
        }
    }
}

/// Says the next step. Total and deterministic. `now` is cut to whole seconds by the caller.
#[must_use]
pub fn plan(world: &World, now: Timestamp) -> Plan {
    Plan {
        step: step(world, now),
    }
}

fn step(world: &World, now: Timestamp) -> Step {
    let status = world.status();
    if world.apikey.is_deleting() {
        return delete(world, &status);
    }
    if world.rules.hold_minting && knows_no_secret(&status) && !status.is_final() {
        // Its status may be about to be put back, and what is written once here would stand in the way of it. Nothing of it passes.
        let trouble = assess::trouble(world, now);
        let wake = trouble.as_ref().map_or(Wake::OnEvent, Trouble::wake);
        return settle_with(world, now, trouble.as_ref(), wake);
    }
    // What ends a key comes before everything else.
    if world.apikey.is_revoked() && status.revoked_at.is_none() {
        return write(status::revoked(world, now));
    }
    if !status.is_final() && assess::end(world).is_some_and(|end| end <= now) {
        return match world.clock {
            Clock::Agrees => write(status::expired(world, now)),
            Clock::AheadBy(_) => {
                let trouble = assess::trouble(world, now).unwrap_or_else(assess::unconfirmed_end);
                settle_with(world, now, Some(&trouble), Wake::BackOff)
            }
        };
    }
    if status.is_final() {
        return ended(world, &status, now);
    }
    // And what ends a version before anything is begun.
    if let Some(aged) = status::aged(world, now) {
        return write(aged);
    }
    match status.newest_announced() {
        Some(announced) => issue(world, &status, announced, now),
        None if status.current().is_some() => keep(world, &status, now),
        None => begin(world, &status, now),
    }
}

/// Ended for good: its Secret goes, where it was to stay no longer than the key, and is marked otherwise.
fn ended(world: &World, status: &ApiKeyStatus, now: Timestamp) -> Step {
    let trouble = assess::trouble(world, now);
    if retention::ends_with_the_key(&world.apikey) {
        if let Some(step) = remove(world, status, now) {
            return step;
        }
    } else if let Some(secret) = world.own_secret().filter(|secret| !secret.deleting) {
        // Put back by a restore, it is ours as before, and goes with the ApiKey.
        if lacks_finalizer(world) {
            return Step::AddFinalizer;
        }
        if status
            .secret_ref
            .as_ref()
            .is_some_and(|recorded| recorded.uid != secret.uid)
        {
            return write(status::recorded(world, secret, now));
        }
        if let Some(mending) = secret::end_mark(&world.apikey, status, secret) {
            if world.may_mend {
                return Step::MendSecret(Box::new(mending));
            }
            return settle_with(world, now, trouble.as_ref(), Wake::BackOff);
        }
    }
    // What was under way when it ended may have landed by then.
    let wake = if world.outstanding == Outstanding::Unsettled {
        Wake::WhenSettled
    } else {
        Wake::OnEvent
    };
    settle_with(world, now, trouble.as_ref(), wake)
}

/// In use: keep the world as it is, say where it is not.
fn keep(world: &World, status: &ApiKeyStatus, now: Timestamp) -> Step {
    if lacks_finalizer(world) {
        return Step::AddFinalizer;
    }
    match retention::due(world, status, now) {
        Due::Collected => return write(status::collected(world, now)),
        Due::Discarded if world.clock == Clock::Agrees => {
            return write(status::discarded(world, now));
        }
        Due::Removal => {
            if let Some(step) = remove(world, status, now) {
                return step;
            }
        }
        Due::Discarded | Due::Nothing => {}
    }
    if assess::rotation_is_due(world, status, now)
        && let Some(step) = rotate(world, status, now)
    {
        return step;
    }
    let amiss = assess::delivered(world, status);
    if let SecretView::Present(secret) = &world.secret
        && amiss
            .as_ref()
            .is_none_or(|trouble| trouble.reason == reason::SECRET_IMMUTABLE)
        && secret.key.is_some_and(|hash| {
            status
                .current()
                .is_some_and(|current| current.hash == hash.to_string())
        })
        && !secret.deleting
    {
        if status
            .secret_ref
            .as_ref()
            .is_none_or(|recorded| recorded.uid != secret.uid)
        {
            // Put there by somebody, such as from a copy: it holds our key, so it is ours.
            return write(status::recorded(world, secret, now));
        }
        if let Some(mending) = secret::mending(world, secret) {
            if world.may_mend {
                return Step::MendSecret(Box::new(mending));
            }
            let undone = amiss.unwrap_or_else(assess::undone);
            return settle_with(world, now, Some(&undone), Wake::BackOff);
        }
    }
    let trouble = assess::trouble(world, now);
    // What is due by a clock that is not to be trusted sends no event.
    let due = [
        rotation::next_retirement(status),
        retention::deadline(&world.apikey, status),
    ];
    let wake =
        if world.clock != Clock::Agrees && due.into_iter().flatten().any(|moment| moment <= now) {
            Wake::BackOff
        } else {
            trouble.as_ref().map_or(Wake::OnEvent, Trouble::wake)
        };
    settle_with(world, now, trouble.as_ref(), wake)
}

/// A version is announced: deliver and activate it, be it the first or one that replaces another.
fn issue(world: &World, status: &ApiKeyStatus, announced: &Version, now: Timestamp) -> Step {
    if let SecretView::Present(secret) = &world.secret
        && let Some(version) = secret.key.and_then(|hash| status.announced_of(hash))
    {
        // A delivery has landed, whoever made it. Also where the Secret is about to go: somebody may hold its key by now.
        return write(status::activated(world, version.version, secret, now));
    }
    let trouble = || assess::trouble(world, now);
    match world.outstanding {
        Outstanding::Held { version, ambiguous } if version == announced.version => {
            let obstacle = if status.current().is_some() {
                assess::irreplaceable(world)
            } else {
                None
            };
            match (&world.delivery, obstacle) {
                (Delivery::Refused(_), _) if !ambiguous => {
                    write(status::withdrawn(world, version, trouble().as_ref(), now))
                }
                (Delivery::Refused(_), _) => {
                    settle_with(world, now, trouble().as_ref(), Wake::BackOff)
                }
                (_, Some(obstacle)) if !ambiguous => {
                    write(status::withdrawn(world, version, Some(&obstacle), now))
                }
                (_, Some(obstacle)) => settle_with(world, now, Some(&obstacle), Wake::BackOff),
                (Delivery::Untried | Delivery::Possible, None) if lacks_finalizer(world) => {
                    Step::AddFinalizer
                }
                // Until then the key before this one passes. With the first one nobody is kept waiting, and there is none before it.
                (Delivery::Untried | Delivery::Possible, None)
                    if world.gates == GateView::Behind
                        && !ambiguous
                        && status.current().is_some() =>
                {
                    Step::Settled {
                        wake: Wake::WhenGatesKnow,
                        at: look::next_moment(world, status, now),
                    }
                }
                (Delivery::Untried | Delivery::Possible, None) => Step::Deliver { version },
            }
        }
        // A key of an older number than the newest announced one is lost: somebody gave it up.
        Outstanding::Held { .. } | Outstanding::Unsettled => settle_with(
            world,
            now,
            assess::last_refusal(status).as_ref(),
            Wake::WhenSettled,
        ),
        Outstanding::Settled => match &world.secret {
            SecretView::Absent | SecretView::Present(_) if status.current().is_some() => {
                rotate(world, status, now).unwrap_or_else(|| {
                    let obstacle = assess::rotation_obstacle(world, status).or_else(trouble);
                    settle_with(world, now, obstacle.as_ref(), Wake::BackOff)
                })
            }
            SecretView::Absent => begin(world, status, now),
            // Somebody else's by now, and asked for: what was begun before came to nothing.
            SecretView::Present(_) if is_adopted(world) => begin(world, status, now),
            SecretView::Present(_) | SecretView::Unknown => {
                settle_with(world, now, trouble().as_ref(), Wake::BackOff)
            }
        },
    }
}

/// Nothing outstanding: make sure that a delivery can succeed, then announce.
fn begin(world: &World, status: &ApiKeyStatus, now: Timestamp) -> Step {
    if lacks_finalizer(world) {
        return Step::AddFinalizer;
    }
    if let Some(trouble) = assess::trouble(world, now) {
        return settle_with(world, now, Some(&trouble), trouble.wake());
    }
    let is_there =
        matches!(&world.source, SourceView::Found(found) if found.place != FoundIn::Source);
    if world.delivery == Delivery::Untried && assess::last_refusal(status).is_some() && !is_there {
        return Step::AskDelivery;
    }
    Step::Announce(Box::new(Announcement::next(world, now)))
}

/// Whether the Secret that has the name is to become ours.
fn is_adopted(world: &World) -> bool {
    matches!(&world.source, SourceView::Found(found) if found.place == FoundIn::OwnSecret)
}

/// The next version is due: the same, unless something stands in the way.
fn rotate(world: &World, status: &ApiKeyStatus, now: Timestamp) -> Option<Step> {
    if assess::rotation_obstacle(world, status).is_some()
        || matches!(world.delivery, Delivery::Refused(_))
    {
        return None;
    }
    if world.delivery == Delivery::Untried && assess::last_refusal(status).is_some() {
        return Some(Step::AskDelivery);
    }
    Some(Step::Announce(Box::new(Announcement::next(world, now))))
}

/// Removes the Secret, and says so in the status once it is gone; `None` where that is done.
fn remove(world: &World, status: &ApiKeyStatus, now: Timestamp) -> Option<Step> {
    if let Some(secret) = world.own_secret() {
        // Somebody else's finalizer may hold it: then the rest is told, and waited for.
        let waits = || {
            settle_with(
                world,
                now,
                assess::trouble(world, now).as_ref(),
                Wake::BackOff,
            )
        };
        return Some(if secret.deleting {
            waits()
        } else {
            delete_secret(secret)
        });
    }
    let seen = !matches!(world.secret, SecretView::Unknown);
    (seen && status.secret_ref.is_some()).then(|| write(status::removed(world, now)))
}

/// Being deleted: the Secret goes first, then the finalizer.
fn delete(world: &World, status: &ApiKeyStatus) -> Step {
    if !has_finalizer(world) {
        return Step::Settled {
            wake: Wake::OnEvent,
            at: None,
        };
    }
    match &world.secret {
        SecretView::Present(secret) if world.owns(secret) => delete_secret(secret),
        SecretView::Present(_) | SecretView::Absent if may_still_land(world, status) => {
            Step::Settled {
                wake: Wake::WhenSettled,
                at: None,
            }
        }
        SecretView::Present(_) | SecretView::Absent => Step::RemoveFinalizer,
        // Nothing was looked for, because nothing can be ours.
        SecretView::Unknown if knows_no_secret(status) => Step::RemoveFinalizer,
        SecretView::Unknown => Step::Settled {
            wake: Wake::BackOff,
            at: None,
        },
    }
}

fn delete_secret(secret: &SecretFacts) -> Step {
    if secret.deleting {
        // Somebody else's finalizer holds it; its end sends an event, the back-off is for one that got lost.
        return Step::Settled {
            wake: Wake::BackOff,
            at: None,
        };
    }
    Step::DeleteSecret {
        uid: secret.uid.clone(),
    }
}

/// Whether no Secret can be ours: nothing was ever announced.
fn knows_no_secret(status: &ApiKeyStatus) -> bool {
    status.key_id.is_none() && status.versions.is_empty() && status.secret_ref.is_none()
}

/// Whether a Secret of ours may still come into being after it was seen not to exist.
fn may_still_land(world: &World, status: &ApiKeyStatus) -> bool {
    status
        .versions
        .iter()
        .any(|version| version.phase == VersionPhase::Announced)
        && match world.outstanding {
            Outstanding::Held { ambiguous, .. } => ambiguous,
            Outstanding::Unsettled => true,
            Outstanding::Settled => false,
        }
}

fn has_finalizer(world: &World) -> bool {
    world
        .apikey
        .metadata
        .finalizers
        .iter()
        .flatten()
        .any(|finalizer| finalizer == FINALIZER)
}

fn lacks_finalizer(world: &World) -> bool {
    world.rules.finalizer && !has_finalizer(world)
}

/// Says in the status how things stand, where it does not say so yet; otherwise waits.
fn settle_with(world: &World, now: Timestamp, trouble: Option<&Trouble>, wake: Wake) -> Step {
    let status = status::reported(world, trouble, now);
    if world.apikey.status.as_ref() != Some(&status) {
        return write(status);
    }
    Step::Settled {
        wake,
        at: look::next_moment(world, &status, now),
    }
}

fn write(status: ApiKeyStatus) -> Step {
    Step::WriteStatus(Box::new(status))
}
