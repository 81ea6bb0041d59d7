//! The Secret: asking for it, creating it, mending it. The one place where a key is exposed.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use zeroize::{Zeroize, Zeroizing};

use super::context::Context;
use super::error::{Error, is_conflict, is_not_found};
use super::memory::Notes;
use super::observe;
use crate::api::conditions::reason;
use crate::api::names::FIELD_MANAGER;
use crate::api::{ApiKey, ApiKeyStatus, Facts, SecretTemplate};
use crate::key::{Hash, Key};
use crate::lifecycle::{Delivery, Mending, Outstanding, Refusal, SecretFacts, SecretView, World, replacement, shape};

/// Characters of a refusal that are passed on.
const MAX_WORDS: usize = 512;
/// Stands where the key would stand, in a dry run.
const PLACEHOLDER: &str = "not-a-key-this-only-asks-whether-the-secret-could-be-created";

/// A Secret whose data is wiped when it is dropped. The buffers of the HTTP client are out of reach.
pub(super) struct Wiped(pub(super) Secret);

impl Drop for Wiped {
    fn drop(&mut self) {
        for entry in self.0.data.iter_mut().flat_map(BTreeMap::values_mut) {
            entry.0.zeroize();
        }
    }
}

/// Asks with a dry run whether the Secret can be created, or replaced, so that a try that would be refused announces nothing.
pub(super) async fn ask(context: &Context, world: &mut World, notes: &mut Notes) -> Result<(), Error> {
    let api = context.secrets_in(&world.apikey.namespace().unwrap_or_default());
    let asked = if let Some(secret) = ours(world) {
        let patch = Patch::Merge(Value::Object(replacing(world, secret, PLACEHOLDER, "")));
        let params = PatchParams { dry_run: true, ..patch_params() };
        let name = world.apikey.secret_name();
        context.ask("patch secrets (dry run)", api.patch(&name, &params, &patch)).await.map(Wiped)
    } else {
        let wanted = secret(&world.apikey, &world.status(), PLACEHOLDER, "");
        let params = PostParams { dry_run: true, ..params() };
        context.ask("create secrets (dry run)", api.create(&params, &wanted)).await.map(Wiped)
    };
    match asked {
        Ok(_) => world.delivery = Delivery::Possible,
        // Some webhook in the way cannot be asked: only a real try can tell.
        Err(Error::Api { source, .. }) if knows_no_dry_run(&source) => world.delivery = Delivery::Possible,
        Err(Error::Api { source, .. }) if is_typed_refusal(&source) => refused(context, &source, world, notes).await?,
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Delivers the held key: creates the Secret, or replaces the key in the one that is ours.
pub(super) async fn deliver(context: &Context, version: i64, world: &mut World, notes: &mut Notes) -> Result<(), Error> {
    // This process may have been frozen since the announcement was confirmed, and somebody else given it up meanwhile.
    let fresh = context.limits.announce_grace / 2;
    let Some(held) = notes.held.as_mut().filter(|held| held.version == version && held.confirmed.elapsed() < fresh) else {
        return Err(Error::Overtaken("the announcement is not fresh enough to deliver on"));
    };
    // Until an answer says otherwise, the Secret may hold the key.
    let earlier = std::mem::replace(&mut held.ambiguous, true);
    let sent = match ours(world) {
        Some(secret) => Sent::replaced(context, world, secret, &held.key).await,
        None => Sent::created(context, world, &held.key).await,
    };
    match sent.answer {
        Ok(delivered) => {
            let facts = observe::look(&Wiped(delivered).0, &world.apikey, &world.status());
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
        Err(Error::Api { mut source, .. }) if is_typed_refusal(&source) => {
            held.ambiguous = earlier;
            for entry in &sent.entries {
                withhold(&mut source, entry);
            }
            world.outstanding = Outstanding::Held { version, ambiguous: earlier };
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
        let wanted = Wiped(secret(&world.apikey, &world.status(), key.expose(), key.tail().as_str()));
        let api = context.secrets_in(&world.apikey.namespace().unwrap_or_default());
        let answer = context.ask("create secrets", api.create(&params(), &wanted.0)).await;
        let entries = wanted.0.data.iter().flat_map(BTreeMap::values).map(|entry| Zeroizing::new(entry.0.clone())).collect();
        Self { answer, replaces: false, entries }
    }

    /// Guarded by UID and resourceVersion: a write that lands late cannot take the place of a newer one.
    async fn replaced(context: &Context, world: &World, secret: &SecretFacts, key: &Key) -> Self {
        let patch = replacing(world, secret, key.expose(), key.tail().as_str());
        let entries = entries_of(&patch);
        let api = context.secrets_in(&world.apikey.namespace().unwrap_or_default());
        let patch = Patch::Merge(Value::Object(patch));
        let answer = context.ask("patch secrets", api.patch(&world.apikey.secret_name(), &patch_params(), &patch)).await;
        Self { answer, replaces: true, entries }
    }
}

/// The Secret, where it is there and ours.
fn ours(world: &World) -> Option<&SecretFacts> {
    match &world.secret {
        SecretView::Present(secret) if world.owns(secret) => Some(secret),
        _ => None,
    }
}

/// The merge patch that puts another key into a Secret of ours.
fn replacing(world: &World, secret: &SecretFacts, key: &str, tail: &str) -> Map<String, Value> {
    let mending = replacement(world, secret);
    let mut metadata = metadata_of(&mending);
    merge(&mut metadata, json!({ "resourceVersion": secret.resource_version }));
    let mut data = entries(&world.apikey, &world.status(), key, tail);
    data.insert(world.apikey.data_key().to_owned(), ByteString(key.as_bytes().to_vec()));
    let mut patch = Map::new();
    patch.insert("metadata".to_owned(), metadata);
    patch.insert("data".to_owned(), data_of(data, mending.data.as_deref().unwrap_or_default()));
    patch
}

/// Labels, annotations and owners for a merge patch, guarded by the UID.
fn metadata_of(mending: &Mending) -> Value {
    let mut metadata = json!({ "uid": mending.uid, "labels": mending.labels, "annotations": mending.annotations });
    if let Some(owners) = &mending.owner_references {
        merge(&mut metadata, json!({ "ownerReferences": owners }));
    }
    metadata
}

/// Entries for a merge patch: those that are set, and those that go.
fn data_of(set: BTreeMap<String, ByteString>, gone: &[String]) -> Value {
    let removed = gone.iter().map(|name| (name.clone(), Value::Null));
    let set = set.into_iter().filter_map(|(name, value)| Some((name, serde_json::to_value(value).ok()?)));
    Value::Object(removed.chain(set).collect())
}

/// Writes what differs on a Secret of ours, guarded by its UID.
pub(super) async fn mend(context: &Context, mending: &Mending, world: &mut World, notes: &mut Notes) -> Result<(), Error> {
    let api = context.secrets_in(&world.apikey.namespace().unwrap_or_default());
    let name = world.apikey.secret_name();
    let mut metadata = metadata_of(mending);
    let mut patch = Map::new();
    if mending.owner_references.is_some()
        && let SecretView::Present(facts) = &world.secret
    {
        // A list is replaced whole: what was added since must not get lost.
        merge(&mut metadata, json!({ "resourceVersion": facts.resource_version }));
    }
    if let Some(gone) = &mending.data {
        let live = Wiped(context.ask("get secrets", api.get(&name)).await?);
        let (entries, version) =
            entries_anew(&live.0, gone, world).ok_or(Error::Overtaken("the Secret was changed by somebody"))?;
        merge(&mut metadata, json!({ "resourceVersion": version }));
        patch.insert("data".to_owned(), entries);
    }
    patch.insert("metadata".to_owned(), metadata);
    notes.note_mending();
    let sent = entries_of(&patch);
    let mended = match context.ask("patch secrets", api.patch(&name, &patch_params(), &Patch::Merge(&Value::Object(patch)))).await
    {
        Ok(mended) => mended,
        Err(Error::Api { call, mut source }) => {
            for entry in &sent {
                withhold(&mut source, entry);
            }
            if is_typed_refusal(&source) {
                return refused(context, &source, world, notes).await;
            }
            return Err(Error::Api { call, source });
        }
        Err(error) => return Err(error),
    };
    let facts = observe::look(&Wiped(mended).0, &world.apikey, &world.status());
    notes.read = Some(observe::own_write(&facts));
    world.secret = SecretView::Present(facts);
    tracing::info!("mended what the template puts on the Secret");
    Ok(())
}

/// The template's entries for a merge patch, with the key that the Secret holds; `None` where that is not ours.
fn entries_anew(live: &Secret, gone: &[String], world: &World) -> Option<(Value, Option<String>)> {
    let status = world.status();
    let key = live.data.as_ref()?.get(world.apikey.data_key())?;
    let current = status.current().filter(|current| Hash::of(&key.0).to_string() == current.hash)?;
    let expanded = entries(&world.apikey, &status, std::str::from_utf8(&key.0).ok()?, &current.tail);
    Some((data_of(expanded, gone), live.resource_version()))
}

/// The Secret as it is delivered.
fn secret(apikey: &ApiKey, status: &ApiKeyStatus, key: &str, tail: &str) -> Secret {
    let shape = shape(apikey, status);
    let mut data = entries(apikey, status, key, tail);
    data.insert(apikey.data_key().to_owned(), ByteString(key.as_bytes().to_vec()));
    Secret {
        metadata: ObjectMeta {
            name: Some(apikey.secret_name()),
            namespace: apikey.namespace(),
            labels: Some(shape.labels),
            annotations: Some(shape.annotations),
            owner_references: shape.owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(data),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

fn entries(apikey: &ApiKey, status: &ApiKeyStatus, key: &str, tail: &str) -> BTreeMap<String, ByteString> {
    let (name, namespace, prefix) = (apikey.name_any(), apikey.namespace().unwrap_or_default(), apikey.prefix());
    let key_id = status.key_id.as_deref().unwrap_or_default();
    let facts = Facts { key_id, tail, name: &name, namespace: &namespace, prefix: prefix.as_str() };
    let expand = |text: &str| ByteString(SecretTemplate::expand(text, key, &facts).into_bytes());
    apikey.template().data.iter().map(|(name, text)| (name.clone(), expand(text))).collect()
}

/// The API server said no. Where the name is taken, a live read tells by whom; where an earlier try may have been carried out, it
/// tells whether it was, since quotas and rights are asked before names.
async fn refused(context: &Context, error: &kube::Error, world: &mut World, notes: &mut Notes) -> Result<(), Error> {
    let in_doubt = matches!(world.outstanding, Outstanding::Held { ambiguous: true, .. });
    let refusal = if is_conflict(error) || in_doubt {
        let status = world.status();
        match observe::read_secret(context, &world.apikey, &status, notes).await? {
            SecretView::Present(facts) if facts.key.is_some_and(|hash| status.version_of(hash).is_some()) => {
                // Our own delivery had landed, though its answer was lost.
                world.secret = SecretView::Present(facts);
                return Ok(());
            }
            SecretView::Present(facts) if is_conflict(error) => Refusal::conflict(&world.apikey, &facts),
            _ if !is_conflict(error) => explain(error),
            SecretView::Present(_) | SecretView::Absent | SecretView::Unknown => {
                return Err(Error::Overtaken("the Secret in the way is gone again"));
            }
        }
    } else {
        explain(error)
    };
    let pause =
        context.limits.max_backoff.min(Duration::from_millis(500).saturating_mul(2_u32.saturating_pow(notes.failures.min(20))));
    notes.refused = Some((refusal.clone(), Instant::now() + pause));
    world.delivery = Delivery::Refused(refusal);
    Ok(())
}

/// Takes the words out of an answer that quotes what was sent, as some admission policies do: a key must not get any further.
fn withhold(error: &mut kube::Error, sent: &[u8]) {
    let kube::Error::Api(status) = error else { return };
    let encoded = serde_json::to_string(&ByteString(sent.to_vec())).unwrap_or_default();
    // Without the quotes, and without the last digits, which depend on what follows.
    let encoded = encoded.trim_matches('"').trim_end_matches('=');
    let encoded = encoded.get(..encoded.len().saturating_sub(2)).unwrap_or_default();
    let words = format!("{} {:?}", status.message, status.details);
    let quotes = |text: &str| text.len() >= 8 && words.contains(text);
    if quotes(encoded) || std::str::from_utf8(sent).is_ok_and(quotes) {
        "the answer is withheld: it quotes the key".clone_into(&mut status.message);
        status.details = None;
    }
}

/// The entries that a patch sends.
fn entries_of(patch: &Map<String, Value>) -> Vec<Zeroizing<Vec<u8>>> {
    let entries = patch.get("data").and_then(Value::as_object).into_iter().flat_map(Map::values);
    entries
        .filter_map(|entry| serde_json::from_value::<ByteString>(entry.clone()).ok())
        .map(|entry| Zeroizing::new(entry.0))
        .collect()
}

fn explain(error: &kube::Error) -> Refusal {
    let kube::Error::Api(status) = error else {
        return Refusal { reason: reason::DELIVERY_REFUSED, message: super::error::describe(error) };
    };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let terminating = causes.clone().any(|cause| cause.reason == "NamespaceTerminating");
    let (reason, advice) = if terminating || status.is_not_found() {
        (reason::NAMESPACE_TERMINATING, "the namespace is going away")
    } else if status.message.contains("exceeded quota") {
        (reason::QUOTA_EXCEEDED, "raise the quota or remove other Secrets")
    } else if status.is_forbidden() {
        (reason::DELIVERY_REFUSED, "grant the controller this right with RBAC, or ask whoever runs the admission policy")
    } else {
        (reason::DELIVERY_REFUSED, "correct spec.secret")
    };
    // The words are the API server's, or some webhook's: as long as they like.
    let words: String = status.message.chars().take(MAX_WORDS).collect();
    Refusal { reason, message: format!("the API server refuses the Secret: {words} ({advice})") }
}

/// A refusal that is final for this request: nothing was written. Time-outs, throttling and faults of the server are not.
fn is_typed_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && !matches!(status.code, 401 | 408 | 429) && !is_plain_conflict(status))
}

/// A dry run that was refused because a webhook has side effects (KEP-576), which says nothing about the Secret.
fn knows_no_dry_run(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 400 && status.message.contains("does not support dry run"))
}

/// A 409 that is not "already exists" asks for another try.
fn is_plain_conflict(status: &kube::core::Status) -> bool {
    status.code == 409 && !status.is_already_exists()
}

/// Answers that come before anything is done.
fn was_not_carried_out(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 401 | 409 | 429))
}

fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}
