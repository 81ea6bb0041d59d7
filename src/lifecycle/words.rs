//! What the conditions of a status say.

use jiff::Timestamp;

use super::assess::{self, Trouble};
use super::{World, policy, retention};
use crate::api::conditions::{ConditionType, Statement, reason};
use crate::api::{ApiKeyStatus, Phase};

/// The conditions that go with a status. A type that is not among them is not to stand in the status.
pub(super) fn statements(
    status: &ApiKeyStatus,
    phase: Phase,
    world: &World,
    trouble: Option<&Trouble>,
    now: Timestamp,
) -> Vec<Statement> {
    let ended = ended(status, phase);
    let mut all = vec![
        ready(status, phase, ended.as_ref(), trouble),
        stalled(ended.is_some(), trouble),
        usable(status, phase, ended.as_ref(), now),
    ];
    all.extend(delivered(status, ended.as_ref(), world, trouble));
    if ended.is_none() && world.surroundings.known {
        all.push(compliant(world));
    }
    all
}

fn say(type_: ConditionType, holds: bool, reason: &'static str, message: &str) -> Statement {
    Statement {
        type_,
        holds,
        reason,
        message: message.to_owned(),
    }
}

fn ended(status: &ApiKeyStatus, phase: Phase) -> Option<(&'static str, String)> {
    match phase {
        Phase::Expired => Some((
            reason::EXPIRED,
            format!("the key expired at {}", end(status)),
        )),
        Phase::Revoked => Some((reason::REVOKED, "the key was revoked".to_owned())),
        Phase::Pending | Phase::Active => None,
    }
}

fn end(status: &ApiKeyStatus) -> String {
    status
        .expires_at
        .as_ref()
        .map_or_else(|| "never".to_owned(), |time| time.0.to_string())
}

/// What a key waits for that is not in use yet.
fn waiting(status: &ApiKeyStatus) -> (&'static str, &'static str) {
    if status.newest_announced().is_some() {
        (reason::ISSUING, "the key is on its way into the Secret")
    } else {
        (reason::PENDING, "not issued yet")
    }
}

fn ready(
    status: &ApiKeyStatus,
    phase: Phase,
    ended: Option<&(&'static str, String)>,
    trouble: Option<&Trouble>,
) -> Statement {
    match (ended, trouble) {
        (Some((reason, message)), _) => say(ConditionType::Ready, true, reason, message),
        (None, Some(trouble)) => say(
            ConditionType::Ready,
            false,
            trouble.reason,
            &trouble.message,
        ),
        (None, None) if phase == Phase::Active && status.newest_announced().is_some() => say(
            ConditionType::Ready,
            false,
            reason::ROTATING,
            "the next version is on its way into the Secret",
        ),
        (None, None)
            if phase == Phase::Active
                && status.secret_ref.is_none()
                && !status.current().is_some_and(retention::is_over) =>
        {
            say(
                ConditionType::Ready,
                true,
                reason::IMPORTED,
                "the key was taken over by its hash",
            )
        }
        (None, None) if phase == Phase::Active => say(
            ConditionType::Ready,
            true,
            reason::ISSUED,
            "the key was issued and delivered",
        ),
        (None, None) => {
            let (reason, message) = waiting(status);
            say(ConditionType::Ready, false, reason, message)
        }
    }
}

fn stalled(ended: bool, trouble: Option<&Trouble>) -> Statement {
    match trouble {
        Some(trouble) if trouble.stalled && !ended => say(
            ConditionType::Stalled,
            true,
            trouble.reason,
            &trouble.message,
        ),
        _ => say(
            ConditionType::Stalled,
            false,
            reason::NOT_STALLED,
            "nothing waits for a person",
        ),
    }
}

fn usable(
    status: &ApiKeyStatus,
    phase: Phase,
    ended: Option<&(&'static str, String)>,
    now: Timestamp,
) -> Statement {
    match (ended, phase) {
        (Some((reason, message)), _) => say(ConditionType::Usable, false, reason, message),
        (None, Phase::Active) => match assess::notice(status, now) {
            Some(words) => {
                let message = format!("the key expires {words}, at {}", end(status));
                say(ConditionType::Usable, true, reason::EXPIRING_SOON, &message)
            }
            None => say(
                ConditionType::Usable,
                true,
                reason::ACTIVE,
                "the key passes",
            ),
        },
        (None, _) => say(
            ConditionType::Usable,
            false,
            reason::PENDING,
            "no key was delivered yet",
        ),
    }
}

fn delivered(
    status: &ApiKeyStatus,
    ended: Option<&(&'static str, String)>,
    world: &World,
    trouble: Option<&Trouble>,
) -> Option<Statement> {
    let say =
        |holds, reason, message: &str| Some(say(ConditionType::Delivered, holds, reason, message));
    let Some(current) = status.current() else {
        return match (ended, trouble) {
            // What stood in the way no longer matters, and would come and go with what this process happens to know.
            (Some((reason, _)), _) => say(false, reason, "the key ended before it was delivered"),
            (None, Some(trouble)) if trouble.undelivered => {
                say(false, trouble.reason, &trouble.message)
            }
            (None, _) => {
                let (reason, message) = waiting(status);
                say(false, reason, message)
            }
        };
    };
    if current.collected_at.is_some() {
        return say(
            false,
            reason::COLLECTED,
            "the Secret was collected and removed: the key is shown once",
        );
    }
    if current.discarded_at.is_some() {
        return say(
            false,
            reason::UNCOLLECTED,
            "nobody collected the Secret within 24 hours, so it was removed: raise spec.revision for a new key",
        );
    }
    if status.secret_ref.is_none() {
        // A key of which only the hash is known has no Secret.
        return match ended {
            Some(_) if retention::ends_with_the_key(&world.apikey) => say(
                false,
                reason::REMOVED,
                "the Secret was removed because the key has ended",
            ),
            _ => None,
        };
    }
    match trouble {
        Some(trouble) if trouble.undelivered => say(false, trouble.reason, &trouble.message),
        _ => say(
            true,
            reason::DELIVERED,
            "the Secret holds the current version",
        ),
    }
}

fn compliant(world: &World) -> Statement {
    let foreign = policy::foreign_organization(world);
    let reason = if foreign.is_some() {
        reason::WRONG_ORGANIZATION
    } else {
        reason::POLICY_VIOLATED
    };
    let violations: Vec<String> = foreign
        .into_iter()
        .chain(policy::violations(world))
        .collect();
    if violations.is_empty() {
        say(
            ConditionType::Compliant,
            true,
            reason::COMPLIANT,
            "no ApiKeyPolicy is violated",
        )
    } else {
        say(
            ConditionType::Compliant,
            false,
            reason,
            &violations.join("; "),
        )
    }
}
