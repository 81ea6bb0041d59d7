//! The Secret: asking for it, delivering into it, mending it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::body::{Wiped, entries_anew, entries_of, merge, metadata_of, replacing, secret};
use super::context::Context;
use super::error::{Error, is_conflict, is_not_found};
use super::facts::look;
use super::memory::Notes;
use super::observe;
use super::refusal::{
    explain, is_typed_refusal, knows_no_dry_run, was_not_carried_out, withhold, withhold_listed,
};
use crate::api::names::FIELD_MANAGER;
use crate::key::Key;
use crate::lifecycle::{Delivery, Mending, Outstanding, Refusal, SecretFacts, SecretView, World};

/// Stands where the key would stand, in a dry run.
const PLACEHOLDER: &str = "not-a-key-this-only-asks-whether-the-secret-could-be-created";

/// Asks with a dry run whether the Secret can be created, or replaced, so that a try that would be refused announces nothing.
pub(super) async fn ask(
    context: &Context,
    world: &mut World,
    notes: &mut Notes,
) -> Result<(), Error> {
    let api = context.secrets_in(&world.apikey.namespace().unwrap_or_default());
    let replaces = world.own_secret().is_some();
    let asked = if let Some(secret) = world.own_secret() {
        let patch = Patch::Merge(Value::Object(replacing(world, secret, PLACEHOLDER, "")));
        let params = PatchParams {
            dry_run: true,
            ..patch_params()
        };
        let name = world.apikey.secret_name();
        context
            .ask("patch secrets (dry run)", api.patch(&name, &params, &patch))
            .await
            .map(Wiped)
    } else {
        let wanted = secret(&world.apikey, &world.status(), PLACEHOLDER, "");
        let params = PostParams {
            dry_run: true,
            ..params()
        };
        context
            .ask("create secrets (dry run)", api.create(&params, &wanted))
            .await
            .map(Wiped)
    };
    match asked {
        Ok(_) => world.delivery = Delivery::Possible,
        // Some webhook in the way cannot be asked: only a real try can tell.
        Err(Error::Api { source, .. }) if knows_no_dry_run(&source) => {
            world.delivery = Delivery::Possible;
        }
        Err(Error::Api { source, .. }) if replaces && is_not_found(&source) => {
            notes.read = None;
            return Err(Error::Overtaken("the Secret was deleted by somebody"));
        }
        Err(Error::Api { mut source, .. }) if is_typed_refusal(&source) => {
            withhold_listed(&mut source, &world.status());
            refused(context, &source, world, notes).await?;
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Delivers the held key: creates the Secret, or replaces the key in the one that is ours.
pub(super) async fn deliver(
    context: &Context,
    version: i64,
    world: &mut World,
    notes: &mut Notes,
) -> Result<(), Error> {
    // This process may have been frozen since the announcement was confirmed, and somebody else given it up meanwhile.
    let grace = context.limits.announce_grace;
    let Some(held) = notes
        .held
        .as_mut()
        .filter(|held| held.version == version && held.is_fresh(grace))
    else {
        return Err(Error::Overtaken(
            "the announcement is not fresh enough to deliver on",
        ));
    };
    held.unsent_at = None;
    // Until an answer says otherwise, the Secret may hold the key.
    let earlier = std::mem::replace(&mut held.ambiguous, true);
    let mut sent = match world.own_secret() {
        Some(secret) => Sent::replaced(context, world, secret, &held.key).await,
        None => Sent::created(context, world, &held.key).await,
    };
    if let Err(Error::Api { source, .. }) = &mut sent.answer {
        for entry in &sent.entries {
            withhold(source, entry);
        }
        withhold_listed(source, &world.status());
    }
    match sent.answer {
        Ok(delivered) => {
            let facts = look(&Wiped(delivered).0, &world.apikey, &world.status());
            notes.read = Some(observe::own_write(&facts));
            world.secret = SecretView::Present(facts);
            tracing::info!(version, "delivered");
            Ok(())
        }
        Err(Error::Api { source, .. }) if sent.replaces && is_not_found(&source) => {
            held.ambiguous = earlier;
            notes.read = None;
            Err(Error::Overtaken("the Secret was deleted by somebody"))
        }
        Err(Error::Api { source, .. }) if is_typed_refusal(&source) => {
            held.ambiguous = earlier;
            world.outstanding = Outstanding::Held {
                version,
                ambiguous: earlier,
            };
            refused(context, &source, world, notes).await
        }
        Err(error) => {
            if matches!(&error, Error::Api { source, .. } if was_not_carried_out(source)) {
                held.ambiguous = earlier;
                notes.read = None;
            }
            Err(error)
        }
    }
}

/// A delivery that was sent, and what came of it.
struct Sent {
    answer: Result<Secret, Error>,
    replaces: bool,
    entries: Vec<Zeroizing<Vec<u8>>>,
}

impl Sent {
    /// The name is fixed, so that a create can never be carried out twice.
    async fn created(context: &Context, world: &World, key: &Key) -> Self {
        let wanted = Wiped(secret(
            &world.apikey,
            &world.status(),
            key.expose(),
            key.tail().as_str(),
        ));
        let api = context.secrets_in(&world.apikey.namespace().unwrap_or_default());
        let answer = context
            .ask("create secrets", api.create(&params(), &wanted.0))
            .await;
        let entries = wanted
            .0
            .data
            .iter()
            .flat_map(BTreeMap::values)
            .map(|entry| Zeroizing::new(entry.0.clone()))
            .collect();
        Self {
            answer,
            replaces: false,
            entries,
        }
    }

    /// Guarded by UID and resourceVersion: a write that lands late cannot take the place of a newer one.
    async fn replaced(context: &Context, world: &World, secret: &SecretFacts, key: &Key) -> Self {
        let patch = replacing(world, secret, key.expose(), key.tail().as_str());
        let entries = entries_of(&patch);
        let api = context.secrets_in(&world.apikey.namespace().unwrap_or_default());
        let patch = Patch::Merge(Value::Object(patch));
        let answer = context
            .ask(
                "patch secrets",
                api.patch(&world.apikey.secret_name(), &patch_params(), &patch),
            )
            .await;
        Self {
            answer,
            replaces: true,
            entries,
        }
    }
}

/// Writes what differs on a Secret of ours, guarded by its UID.
pub(super) async fn mend(
    context: &Context,
    mending: &Mending,
    world: &mut World,
    notes: &mut Notes,
) -> Result<(), Error> {
    let api = context.secrets_in(&world.apikey.namespace().unwrap_or_default());
    let name = world.apikey.secret_name();
    let mut metadata = metadata_of(mending);
    let mut patch = Map::new();
    if mending.owner_references.is_some()
        && let SecretView::Present(facts) = &world.secret
    {
        // A list is replaced whole: what was added since must not get lost.
        merge(
            &mut metadata,
            json!({ "resourceVersion": facts.resource_version }),
        );
    }
    if let Some(gone) = &mending.data {
        let live = Wiped(context.ask("get secrets", api.get(&name)).await?);
        let (entries, version) = entries_anew(&live.0, gone, world)
            .ok_or(Error::Overtaken("the Secret was changed by somebody"))?;
        merge(&mut metadata, json!({ "resourceVersion": version }));
        patch.insert("data".to_owned(), entries);
    }
    patch.insert("metadata".to_owned(), metadata);
    notes.note_mending();
    let sent = entries_of(&patch);
    let mended = match context
        .ask(
            "patch secrets",
            api.patch(&name, &patch_params(), &Patch::Merge(&Value::Object(patch))),
        )
        .await
    {
        Ok(mended) => mended,
        Err(Error::Api { call, mut source }) => {
            for entry in &sent {
                withhold(&mut source, entry);
            }
            withhold_listed(&mut source, &world.status());
            if is_typed_refusal(&source) {
                return refused(context, &source, world, notes).await;
            }
            return Err(Error::Api { call, source });
        }
        Err(error) => return Err(error),
    };
    let facts = look(&Wiped(mended).0, &world.apikey, &world.status());
    notes.read = Some(observe::own_write(&facts));
    world.secret = SecretView::Present(facts);
    tracing::info!("mended what the template puts on the Secret");
    Ok(())
}

/// The API server said no. Where the name is taken, a live read tells by whom; where an earlier try may have been carried out, it
/// tells whether it was, since quotas and rights are asked before names.
async fn refused(
    context: &Context,
    error: &kube::Error,
    world: &mut World,
    notes: &mut Notes,
) -> Result<(), Error> {
    let in_doubt = matches!(
        world.outstanding,
        Outstanding::Held {
            ambiguous: true,
            ..
        }
    );
    let refusal = if is_conflict(error) || in_doubt {
        let status = world.status();
        match observe::read_secret(context, &world.apikey, &status, notes).await? {
            SecretView::Present(facts) if is_conflict(error) && world.owns(&facts) => {
                // One that is ours has the name, such as put back from a copy: what it holds decides what to do with it.
                world.secret = SecretView::Present(facts);
                return Ok(());
            }
            SecretView::Present(facts)
                if facts
                    .key
                    .is_some_and(|hash| status.announced_of(hash).is_some()) =>
            {
                // Our own delivery had landed, though its answer was lost.
                world.secret = SecretView::Present(facts);
                return Ok(());
            }
            SecretView::Present(facts) if is_conflict(error) => {
                Refusal::conflict(&world.apikey, &facts)
            }
            _ if !is_conflict(error) => explain(error),
            SecretView::Present(_) | SecretView::Absent | SecretView::Unknown => {
                return Err(Error::Overtaken("the Secret in the way is gone again"));
            }
        }
    } else {
        explain(error)
    };
    let pause = context.limits.max_backoff.min(
        Duration::from_millis(500).saturating_mul(2_u32.saturating_pow(notes.failures.min(20))),
    );
    notes.refused = Some((refusal.clone(), Instant::now() + pause));
    world.delivery = Delivery::Refused(refusal);
    Ok(())
}

fn patch_params() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

fn params() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}
