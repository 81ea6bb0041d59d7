//! Keys that are taken over: looking at where they are, and at who else has them.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::body::Wiped;
use super::context::Context;
use super::error::Error;
use super::facts;
use super::memory::{Held, Notes};
use crate::api::conditions::reason;
use crate::api::names::{ANNOTATION_ADOPT, ANNOTATION_ENDED_AT, ANNOTATION_EXPIRES_AT};
use crate::api::{ApiKey, SourceSecret, whole_second};
use crate::key::{Hash, ImportError, Key};
use crate::lifecycle::{self, FoundIn, FoundKey, SecretFacts, SourceView, Unfit};

/// What was seen.
#[derive(Default)]
pub(super) struct Seen {
    /// The key that is to be taken over.
    pub(super) source: SourceView,
    /// The Secret of our name, where it had to be read for that.
    pub(super) own: Option<SecretFacts>,
}

/// Looks at the key that an `ApiKey` is to take over, if it is.
pub(super) async fn look(
    context: &Context,
    apikey: &ApiKey,
    notes: &mut Notes,
) -> Result<Seen, Error> {
    if !lifecycle::needs_source(apikey) {
        notes.source = None;
        return Ok(Seen::default());
    }
    let Some(source) = &apikey.spec.source else {
        return adopt(context, apikey, notes).await;
    };
    let view = match (&source.secret_ref, &source.hash) {
        (Some(secret), _) => in_secret(context, apikey, secret, notes).await?,
        (None, Some(hash)) => match hash.parse() {
            Ok(hash) => found(
                hash,
                source.tail.clone().unwrap_or_default(),
                FoundIn::Elsewhere,
            ),
            Err(error) => unfit(reason::SOURCE_REFUSED, format!("spec.source.hash: {error}")),
        },
        (None, None) => unfit(
            reason::SOURCE_REFUSED,
            "spec.source names neither a Secret nor a hash".to_owned(),
        ),
    };
    Ok(Seen {
        source: view,
        own: None,
    })
}

/// The entry of another Secret. Its key is kept for the delivery; where it stands announced, it is held again, be it after a restart:
/// it can be read as often as is needed, and delivering it twice delivers nothing else.
async fn in_secret(
    context: &Context,
    apikey: &ApiKey,
    from: &SourceSecret,
    notes: &mut Notes,
) -> Result<SourceView, Error> {
    if let Some(held) = &notes.held {
        return Ok(found(
            held.hash,
            held.key.tail().to_string(),
            FoundIn::Source,
        ));
    }
    let namespace = apikey.namespace().unwrap_or_default();
    let (name, entry) = (&from.name, &from.key);
    let api = context.secrets_in(&namespace);
    let Some(secret) = context.ask("get secrets", api.get_opt(name)).await? else {
        return Ok(unfit(
            reason::SOURCE_MISSING,
            format!(
                "Secret {namespace}/{name}, which spec.source names, does not exist: create it"
            ),
        ));
    };
    let secret = Wiped(secret);
    let ends = match end_of(&secret.0) {
        Ok(ends) => ends,
        Err(flaw) => {
            return Ok(unfit(
                reason::SOURCE_REFUSED,
                format!("entry {entry} of Secret {namespace}/{name} cannot be imported: {flaw}"),
            ));
        }
    };
    let key = match key_of(&secret.0, entry) {
        Ok(key) => key,
        Err(Flaw::Missing) => {
            let message = format!(
                "Secret {namespace}/{name}, which spec.source names, has no entry {entry}, or an empty one: fill it in"
            );
            return Ok(unfit(reason::SOURCE_MISSING, message));
        }
        Err(Flaw::Unfit(error)) => {
            return Ok(unfit(
                reason::SOURCE_REFUSED,
                format!("entry {entry} of Secret {namespace}/{name} cannot be imported: {error}"),
            ));
        }
    };
    let (hash, tail) = (key.hash(), key.tail().to_string());
    let announced = apikey
        .status
        .as_ref()
        .and_then(|status| status.newest_announced());
    match announced.filter(|announced| announced.hash == hash.to_string()) {
        Some(announced) => {
            // Whether the version still stands announced is for the API server to say: the watch may be behind.
            let live = context.read_apikey(apikey).await?;
            if live
                .status
                .as_ref()
                .and_then(|status| status.newest_announced())
                != Some(announced)
            {
                return Err(Error::Overtaken("the import has gone on meanwhile"));
            }
            notes.held = Some(Held {
                version: announced.version,
                hash,
                key,
                ambiguous: true,
                confirmed: Instant::now(),
                since: Instant::now(),
                unsent_at: None,
            });
        }
        None => notes.source = Some(key),
    }
    Ok(SourceView::Found(FoundKey {
        hash,
        tail,
        place: FoundIn::Source,
        ends,
    }))
}

/// The Secret that has our name already.
async fn adopt(context: &Context, apikey: &ApiKey, notes: &mut Notes) -> Result<Seen, Error> {
    let (namespace, name) = (apikey.namespace().unwrap_or_default(), apikey.secret_name());
    let api = context.secrets_in(&namespace);
    let Some(secret) = context.ask("get secrets", api.get_opt(&name)).await? else {
        let message = format!(
            "the annotation {ANNOTATION_ADOPT} asks for the key of Secret {namespace}/{name}, which does not exist: put the Secret back, \
             or take the annotation off for a new key"
        );
        return Ok(Seen {
            source: unfit(reason::ADOPTION_REFUSED, message),
            own: None,
        });
    };
    let secret = Wiped(secret);
    let status = apikey.status.clone().unwrap_or_default();
    let facts = facts::look(&secret.0, apikey, &status);
    let source = adoptable(&secret.0, apikey, &facts).unwrap_or_else(|flaw| {
        unfit(
            reason::ADOPTION_REFUSED,
            format!("the key of Secret {namespace}/{name} cannot be adopted: {flaw}"),
        )
    });
    notes.read = None;
    Ok(Seen {
        source,
        own: Some(facts),
    })
}

fn adoptable(secret: &Secret, apikey: &ApiKey, facts: &SecretFacts) -> Result<SourceView, String> {
    let ends = end_of(secret)?;
    let is_ours = |kind: &str, name: &str| kind == "ApiKey" && name == apikey.name_any();
    let foreign = facts
        .owner_references
        .iter()
        .find(|owner| owner.controller == Some(true) && !is_ours(&owner.kind, &owner.name));
    if foreign.is_some() {
        return Err(facts.owner());
    }
    let entry = apikey.data_key();
    let key = key_of(secret, entry).map_err(|flaw| match flaw {
        Flaw::Missing => format!("its entry {entry} is missing or empty"),
        Flaw::Unfit(error) => error.to_string(),
    })?;
    Ok(SourceView::Found(FoundKey {
        hash: key.hash(),
        tail: key.tail().to_string(),
        place: FoundIn::OwnSecret,
        ends,
    }))
}

/// When the key of a Secret ends, as its annotations say that we delivered it. One that has ended is not taken over.
fn end_of(secret: &Secret) -> Result<Option<jiff::Timestamp>, String> {
    if let Some(ended) = secret.annotations().get(ANNOTATION_ENDED_AT) {
        return Err(format!(
            "its annotation {ANNOTATION_ENDED_AT} says that the key ended at {ended}, which is final"
        ));
    }
    match secret
        .annotations()
        .get(ANNOTATION_EXPIRES_AT)
        .map(|text| text.parse::<jiff::Timestamp>())
    {
        None => Ok(None),
        Some(Ok(moment)) => Ok(Some(whole_second(moment))),
        Some(Err(_)) => Err(format!(
            "its annotation {ANNOTATION_EXPIRES_AT} is not a moment: correct it"
        )),
    }
}

enum Flaw {
    Missing,
    Unfit(ImportError),
}

fn key_of(secret: &Secret, entry: &str) -> Result<Key, Flaw> {
    let held = secret
        .data
        .as_ref()
        .and_then(|data| data.get(entry))
        .filter(|held| !held.0.is_empty())
        .ok_or(Flaw::Missing)?;
    let text = Zeroizing::new(held.0.clone());
    Key::import(&text).map_err(Flaw::Unfit)
}

fn found(hash: Hash, tail: String, place: FoundIn) -> SourceView {
    SourceView::Found(FoundKey {
        hash,
        tail,
        place,
        ends: None,
    })
}

fn unfit(reason: &'static str, message: String) -> SourceView {
    SourceView::Unfit(Unfit { reason, message })
}

/// The key ID of another `ApiKey` that has the same key. Before this one is issued any other counts; afterwards only an older one, by
/// (creationTimestamp, UID), as gates decide.
pub(super) fn duplicate(context: &Context, apikey: &ApiKey, source: &SourceView) -> Option<String> {
    if !lifecycle::needs_duplicates(apikey) {
        return None;
    }
    let status = apikey.status.clone().unwrap_or_default();
    let mut hashes: Vec<String> = status
        .versions
        .iter()
        .map(|version| version.hash.clone())
        .collect();
    if let SourceView::Found(found) = source {
        hashes.push(found.hash.to_string());
    }
    let others = context.apikeys.state();
    let others = others.iter().filter_map(|other| other.0.as_ref().ok());
    let others =
        others.filter(|other| other.metadata.uid != apikey.metadata.uid && !other.is_deleting());
    let counts = |other: &&ApiKey| status.current().is_none() || age(other) < age(apikey);
    others.filter(counts).find_map(|other| {
        let theirs = other.status.as_ref()?;
        theirs
            .versions
            .iter()
            .any(|version| hashes.contains(&version.hash))
            .then(|| theirs.key_id.clone().unwrap_or_default())
    })
}

fn age(apikey: &ApiKey) -> (Option<jiff::Timestamp>, Option<&str>) {
    (
        apikey
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0),
        apikey.metadata.uid.as_deref(),
    )
}
