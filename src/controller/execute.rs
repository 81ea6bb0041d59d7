//! Doing: one step of a plan, one write at most. What a write returned goes into the world, so that the next look needs no read.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Resource, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use super::context::Context;
use super::deliver;
use super::error::{Error, is_conflict, is_not_found};
use super::gates::hold;
use super::memory::{Held, Notes};
use super::observe;
use crate::api::conditions::reason;
use crate::api::names::{FIELD_MANAGER, FINALIZER};
use crate::api::{ApiKey, ApiKeyStatus};
use crate::key::{Key, OsRandom, random_hex_128};
use crate::lifecycle::{
    Announcement, FoundIn, News, Outstanding, SecretView, Step, Tone, World, news,
};

/// Does `step`, which is not [`Step::Settled`].
pub(super) async fn execute(
    context: &Context,
    step: Step,
    world: &mut World,
    notes: &mut Notes,
) -> Result<(), Error> {
    match step {
        Step::Settled { .. } => Ok(()),
        Step::AddFinalizer => add_finalizer(context, world, notes).await,
        Step::RemoveFinalizer => remove_finalizer(context, world, notes).await,
        Step::AskDelivery => deliver::ask(context, world, notes).await,
        Step::Announce(announcement) => announce(context, &announcement, world, notes).await,
        Step::Deliver { version } => deliver::deliver(context, version, world, notes).await,
        Step::WriteStatus(status) => write_status(context, *status, world, notes).await,
        Step::MendSecret(mending) => deliver::mend(context, &mending, world, notes).await,
        Step::DeleteSecret { uid } => delete_secret(context, uid, world, notes).await,
    }
}

async fn announce(
    context: &Context,
    announcement: &Announcement,
    world: &mut World,
    notes: &mut Notes,
) -> Result<(), Error> {
    let version = announcement.version;
    let key = match &announcement.taken {
        None => Some(Key::mint(&world.apikey.prefix(), &mut OsRandom)?),
        Some(taken) => notes
            .source
            .take()
            .filter(|key| taken.place == FoundIn::Source && key.hash() == taken.hash),
    };
    let (hash, tail) = match (&key, &announcement.taken) {
        (Some(key), _) => (key.hash(), key.tail().to_string()),
        (None, Some(taken)) if taken.place != FoundIn::Source => (taken.hash, taken.tail.clone()),
        (None, _) => {
            return Err(Error::Overtaken(
                "the key that is to be imported has to be read again",
            ));
        }
    };
    let id = if announcement.needs_key_id() {
        Some(random_hex_128(&mut OsRandom)?)
    } else {
        None
    };
    let written = write_status(context, announcement.status(hash, &tail, id), world, notes).await;
    // Where the outcome is unknown, the next look asks whether this hash stands announced, and only then goes on with the key.
    let raced = written.as_ref().err().is_some_and(Error::is_race);
    if let Some(key) = key.filter(|_| !raced) {
        let (now, unsent_at) = (
            Instant::now(),
            world.apikey.resource_version().filter(|_| written.is_ok()),
        );
        notes.held = Some(Held {
            version,
            hash,
            key,
            ambiguous: false,
            confirmed: now,
            since: now,
            unsent_at,
        });
        world.outstanding = Outstanding::Held {
            version,
            ambiguous: false,
        };
        world.gates = hold::know(context, &world.apikey, notes);
    }
    written?;
    tracing::info!(version, "announced");
    Ok(())
}

/// Writes a status, guarded by the resourceVersion that the plan was made from.
async fn write_status(
    context: &Context,
    status: ApiKeyStatus,
    world: &mut World,
    notes: &mut Notes,
) -> Result<(), Error> {
    let before = world.apikey.status.clone();
    let mut wanted = ApiKey::clone(&world.apikey);
    wanted.metadata.managed_fields = None;
    wanted.status = Some(status);
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let api = context.apikeys_in(&wanted.namespace().unwrap_or_default());
    let written = context
        .ask(
            "update apikeys/status",
            api.replace_status(&wanted.name_any(), &params, &wanted),
        )
        .await?;
    let after = written.status.clone().unwrap_or_default();
    for item in news(&written, before.as_ref(), &after) {
        tracing::info!(reason = item.reason, note = item.note, "status");
        context.events.tell(&written, item);
    }
    take_over(written, world, notes);
    // Delivered, ended or withdrawn: the key is wiped here.
    observe::drop_lost_key(&world.apikey, notes);
    world.outstanding = observe::outstanding(&after, notes, context.limits.announce_grace);
    Ok(())
}

async fn add_finalizer(
    context: &Context,
    world: &mut World,
    notes: &mut Notes,
) -> Result<(), Error> {
    let mut finalizers = world.apikey.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    write_finalizers(context, finalizers, world, notes).await
}

async fn remove_finalizer(
    context: &Context,
    world: &mut World,
    notes: &mut Notes,
) -> Result<(), Error> {
    let finalizers = world
        .apikey
        .finalizers()
        .iter()
        .filter(|name| *name != FINALIZER)
        .cloned()
        .collect();
    match write_finalizers(context, finalizers, world, notes).await {
        Err(Error::Api { source, .. }) if is_not_found(&source) => {}
        other => other?,
    }
    notes.done = true;
    // Nothing of the object is left to look at: the loop ends with the next plan.
    world.apikey = Arc::new({
        let mut gone = ApiKey::clone(&world.apikey);
        gone.finalizers_mut().retain(|name| name != FINALIZER);
        gone
    });
    tracing::info!("deleted");
    Ok(())
}

/// A merge patch replaces the list whole; the resourceVersion in it makes the API server refuse it when somebody was faster.
async fn write_finalizers(
    context: &Context,
    finalizers: Vec<String>,
    world: &mut World,
    notes: &mut Notes,
) -> Result<(), Error> {
    let patch = json!({ "metadata": {
        "resourceVersion": world.apikey.resource_version(),
        "uid": world.apikey.uid(),
        "finalizers": finalizers,
    } });
    let api = context.apikeys_in(&world.apikey.namespace().unwrap_or_default());
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let written = context
        .ask(
            "patch apikeys",
            api.patch(&world.apikey.name_any(), &params, &Patch::Merge(&patch)),
        )
        .await?;
    take_over(written, world, notes);
    Ok(())
}

async fn delete_secret(
    context: &Context,
    uid: String,
    world: &mut World,
    notes: &mut Notes,
) -> Result<(), Error> {
    let name = world.apikey.secret_name();
    let api: kube::Api<Secret> = context.secrets_in(&world.apikey.namespace().unwrap_or_default());
    let params = DeleteParams::background().preconditions(Preconditions {
        uid: Some(uid.clone()),
        resource_version: None,
    });
    let answer = context
        .ask("delete secrets", api.delete(&name, &params))
        .await;
    notes.read = None;
    match answer {
        Ok(done)
            if done
                .as_ref()
                .left()
                .is_some_and(|secret| held_by_others(secret, &uid)) =>
        {
            // Held by somebody's finalizer: gone when that is.
            if let SecretView::Present(facts) = &mut world.secret {
                facts.deleting = true;
            }
            return Ok(());
        }
        Ok(_) => {
            if world.apikey.is_deleting() {
                let note = format!("Secret {name} was deleted with its ApiKey");
                context.events.tell(
                    &*world.apikey,
                    News {
                        tone: Tone::Normal,
                        reason: reason::DELETED.to_owned(),
                        note,
                    },
                );
            }
            tracing::info!("the Secret was deleted");
        }
        Err(Error::Api { source, .. }) if is_not_found(&source) => {}
        // Another Secret has taken the name: look at it.
        Err(Error::Api { source, .. }) if is_conflict(&source) => {
            let status = world.status();
            world.secret = observe::read_secret(context, &world.apikey, &status, notes).await?;
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    world.secret = SecretView::Absent;
    Ok(())
}

/// Whether a Secret that was deleted is still there for somebody's finalizer.
fn held_by_others(secret: &Secret, uid: &str) -> bool {
    secret.uid().as_deref() == Some(uid) && !secret.finalizers().is_empty()
}

/// Goes on with what a write returned instead of what the watch shows later.
fn take_over(mut written: ApiKey, world: &mut World, notes: &mut Notes) {
    written.meta_mut().managed_fields = None;
    notes.written = written
        .resource_version()
        .map(|version| (version, Instant::now()));
    world.apikey = Arc::new(written);
}
