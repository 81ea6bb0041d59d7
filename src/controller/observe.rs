//! Looking: everything a plan needs, with no read where the watches already tell.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use tokio::time::Instant;

use super::body::Wiped;
use super::context::Context;
use super::error::Error;
use super::facts::{facts, look};
use super::gates::hold;
use super::memory::{Held, Notes, Reading};
use super::source;
use crate::api::conditions;
use crate::api::names::ANNOTATION_ENDED_AT;
use crate::api::{ApiKey, ApiKeyStatus, ConditionType, VersionPhase, resource_version_number};
use crate::lifecycle::{
    self, Clock, Delivery, FoundIn, Outstanding, SecretFacts, SecretView, SourceView, World,
};

/// How long our own write is trusted while the watch has not shown it.
const UNSEEN: Duration = Duration::from_secs(30);

/// Looks at the world around an `ApiKey`.
pub(super) async fn observe(
    context: &Context,
    mut apikey: Arc<ApiKey>,
    notes: &mut Notes,
) -> Result<World, Error> {
    let begun = apikey
        .status
        .as_ref()
        .is_some_and(|status| status.key_id.is_some());
    if !begun
        && !apikey.is_deleting()
        && context
            .cluster
            .as_ref()
            .is_some_and(|cluster| !cluster.knows_namespace_of(&apikey))
    {
        return Err(Error::Overtaken("the namespace was not shown yet"));
    }
    if let Some(held) = notes
        .held
        .as_mut()
        .filter(|held| !waits(held, &apikey, context.limits.announce_grace))
    {
        // A retry of a delivery: whether its version still stands announced is for the API server to say.
        apikey = Arc::new(context.read_apikey(&apikey).await?);
        held.confirmed = Instant::now();
    }
    let mut clock = Clock::Agrees;
    if lifecycle::clock_matters(&apikey, context.now()) {
        // An API server that tells no time confirms none.
        let judge = || {
            context
                .server_clock
                .skew(context.clock.now())
                .map_or(Clock::AheadBy(SignedDuration::ZERO), Clock::judge)
        };
        clock = judge();
        if clock != Clock::Agrees {
            // Perhaps the machine slept since the last answer: ask anew before giving up on the clock.
            apikey = Arc::new(context.read_apikey(&apikey).await?);
            clock = judge();
        }
    }
    let status = apikey.status.clone().unwrap_or_default();
    drop_lost_key(&apikey, notes);
    let source::Seen { source, own } = source::look(context, &apikey, notes).await?;
    if matches!(&source, SourceView::Found(found) if found.place == FoundIn::OwnSecret) {
        // What was in the way is what is asked for now.
        notes.refused = None;
    }
    let outstanding = outstanding(&status, notes, context.limits.announce_grace);
    let secret = match own {
        Some(facts) => SecretView::Present(facts),
        None => observe_secret(context, &apikey, &status, outstanding, notes).await?,
    };
    let delivery = match &notes.refused {
        Some((refusal, until)) if *until > Instant::now() => Delivery::Refused(refusal.clone()),
        _ => Delivery::Untried,
    };
    let gates = hold::know(context, &apikey, notes);
    let duplicate = source::duplicate(context, &apikey, &source);
    Ok(World {
        surroundings: context.surroundings_of(&apikey),
        secret,
        outstanding,
        delivery,
        gates,
        clock,
        may_mend: notes.may_mend(context.limits.max_backoff),
        source,
        duplicate,
        since: context.since,
        rules: context.rules.clone(),
        apikey,
    })
}

/// Whether a key was not sent yet, and what the watch shows and what we know of its announcement are enough to send it.
fn waits(held: &Held, apikey: &ApiKey, grace: Duration) -> bool {
    let shown = apikey
        .metadata
        .resource_version
        .as_deref()
        .and_then(resource_version_number);
    let announced = held.unsent_at.as_deref().and_then(resource_version_number);
    held.is_fresh(grace)
        && shown
            .zip(announced)
            .is_some_and(|(shown, announced)| shown >= announced)
}

/// Wipes a held key that can no longer be delivered: it is not the newest announced one, or the ApiKey has ended or is going.
/// Of one that was never sent, a deletion wants to know until the end: nothing of it can land.
pub(super) fn drop_lost_key(apikey: &ApiKey, notes: &mut Notes) {
    let status = apikey.status.clone().unwrap_or_default();
    let announced = status.newest_announced();
    let stands = |held: &Held| {
        announced.is_some_and(|listed| {
            listed.version == held.version && listed.hash == held.hash.to_string()
        })
    };
    let lost = |held: &Held| {
        status.is_final() || !stands(held) || (apikey.is_deleting() && held.ambiguous)
    };
    if notes.held.as_ref().is_some_and(lost) {
        let ambiguous = notes.held.take().is_some_and(|held| held.ambiguous);
        if ambiguous {
            // The grace period counts from the last try.
            notes.announced = None;
        }
    }
}

/// What is known about announced versions. The grace period runs on our monotonic clock, from the first sight of the list.
pub(super) fn outstanding(
    status: &ApiKeyStatus,
    notes: &mut Notes,
    grace: Duration,
) -> Outstanding {
    if let Some(held) = &notes.held {
        return Outstanding::Held {
            version: held.version,
            ambiguous: held.ambiguous,
        };
    }
    let announced: Vec<_> = status
        .versions
        .iter()
        .filter(|version| version.phase == VersionPhase::Announced)
        .map(|version| version.hash.clone())
        .collect();
    if announced.is_empty() {
        notes.announced = None;
        return Outstanding::Settled;
    }
    let since = match notes.announced.take() {
        Some((seen, since)) if seen == announced => since,
        _ => Instant::now(),
    };
    notes.announced = Some((announced, since));
    if since.elapsed() >= grace {
        Outstanding::Settled
    } else {
        Outstanding::Unsettled
    }
}

async fn observe_secret(
    context: &Context,
    apikey: &ApiKey,
    status: &ApiKeyStatus,
    outstanding: Outstanding,
    notes: &mut Notes,
) -> Result<SecretView, Error> {
    let namespace = apikey.namespace().unwrap_or_default();
    let watched = context
        .secrets
        .get(&ObjectRef::new(&apikey.secret_name()).within(&namespace));
    if !lifecycle::needs_secret(apikey, outstanding, watched.is_some()) {
        return Ok(SecretView::Unknown);
    }
    // Whether a delivery of unknown outcome has landed is for the API server to say.
    let in_doubt = match outstanding {
        Outstanding::Held { ambiguous, .. } => ambiguous,
        Outstanding::Settled => status.newest_announced().is_some(),
        Outstanding::Unsettled => false,
    };
    match known(status, watched.as_deref(), notes) {
        Some(facts) if !in_doubt => Ok(SecretView::Present(facts)),
        _ => read_secret(context, apikey, status, notes).await,
    }
}

/// What the watch and earlier reads tell, if that is enough.
fn known(
    status: &ApiKeyStatus,
    watched: Option<&PartialObjectMeta<Secret>>,
    notes: &mut Notes,
) -> Option<SecretFacts> {
    let shown = watched.and_then(|secret| Some((secret.uid()?, secret.resource_version()?)));
    if let Some(read) = &mut notes.read {
        if shown.as_ref().is_some_and(|(uid, version)| {
            read.facts.uid == *uid && read.facts.resource_version == *version
        }) {
            read.unseen_until = None;
            return Some(read.facts.clone());
        }
        // Once the watch has gone past our own write, what was read is old.
        let passed =
            |(_, version): &(String, String)| is_older(&read.facts.resource_version, version);
        if read
            .unseen_until
            .is_some_and(|until| until > Instant::now())
            && !shown.as_ref().is_some_and(passed)
        {
            return Some(read.facts.clone());
        }
    }
    let recorded = status.secret_ref.as_ref()?;
    let as_delivered = shown.as_ref().is_some_and(|(uid, version)| {
        recorded.uid == *uid && recorded.resource_version == *version
    });
    // Once a key has ended and its Secret carries our mark, nothing in it matters any more.
    let says = conditions::find(&status.conditions, ConditionType::Delivered)
        .is_some_and(|said| said.status == "True");
    let marked =
        watched.is_some_and(|secret| secret.annotations().contains_key(ANNOTATION_ENDED_AT));
    let over =
        status.is_final() && says && marked && shown.is_some_and(|(uid, _)| recorded.uid == uid);
    let hash = status
        .current()
        .and_then(|current| current.hash.parse().ok());
    if as_delivered || over {
        watched.map(|secret| facts(secret, hash, false, Vec::new()))
    } else {
        None
    }
}

/// Whether one resourceVersion came before another of the same resource. They can be compared as numbers (KEP-5504); where
/// they are none, nothing is assumed.
pub(super) fn is_older(one: &str, other: &str) -> bool {
    matches!((one.parse::<u128>(), other.parse::<u128>()), (Ok(one), Ok(other)) if one < other)
}

/// Reads a Secret past the watch. Only a typed 404 means that there is none.
pub(super) async fn read_secret(
    context: &Context,
    apikey: &ApiKey,
    status: &ApiKeyStatus,
    notes: &mut Notes,
) -> Result<SecretView, Error> {
    let api = context.secrets_in(&apikey.namespace().unwrap_or_default());
    let Some(secret) = context
        .ask("get secrets", api.get_opt(&apikey.secret_name()))
        .await?
    else {
        notes.read = None;
        return Ok(SecretView::Absent);
    };
    let facts = look(&Wiped(secret).0, apikey, status);
    notes.read = Some(Reading {
        facts: facts.clone(),
        unseen_until: None,
    });
    Ok(SecretView::Present(facts))
}

/// Notes what our own write put there, so that the watch may lag behind.
pub(super) fn own_write(facts: &SecretFacts) -> Reading {
    Reading {
        facts: facts.clone(),
        unseen_until: Some(Instant::now() + UNSEEN),
    }
}
