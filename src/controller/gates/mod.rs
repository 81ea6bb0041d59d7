//! What gates say of themselves: last uses are written into the ApiKeys' status, and gates that are silent or behind are told of.
//!
//! A `Gate` is written by a ServiceAccount that faces the network. All that can come of a forged one is a wrong `lastUsedAt`, a wrong
//! event about that gate, and a rotation that takes some seconds longer, or does not wait for gates. Decisions are in [`folding`] and [`standing`]; here they meet the API server.

mod folding;
mod standing;
mod waiting;

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, PartialObjectMeta, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::folding::{Folding, Outcome, Write};
use self::standing::Gates;
use self::waiting::{Key, Waiting};
use super::context::Context;
use super::error::Error;
use super::memory::{Held, Notes};
use super::watch;
use crate::api::names::FIELD_MANAGER;
use crate::api::{ApiKey, Gate, resource_version_number};
use crate::lifecycle::{self, Tone};

/// How often is looked how gates stand.
const LOOK: Duration = Duration::from_secs(1);

/// What is known about gates and what they told.
#[derive(Debug)]
pub(super) struct Reports {
    gates: Mutex<Gates>,
    folding: Mutex<Folding>,
    waiting: Mutex<Waiting>,
    /// This process ends, and hands out what it holds.
    leaving: AtomicBool,
    /// Takes the ApiKeys whose turn has come.
    released: UnboundedSender<Key>,
    /// A use waits for its write.
    waits: Notify,
    /// Cancelled once the watch has shown all ApiKeys: uses of what is not known are passed over.
    apikeys_shown: CancellationToken,
}

impl Reports {
    /// Nothing was told yet. The ApiKeys that come out are to be looked at again: gates were waited for with them.
    pub(super) fn new() -> (Self, UnboundedReceiver<Key>) {
        let (released, looked_at) = unbounded();
        let reports = Self {
            gates: Mutex::new(Gates::new(Instant::now())),
            folding: Mutex::default(),
            waiting: Mutex::default(),
            leaving: AtomicBool::new(false),
            released,
            waits: Notify::new(),
            apikeys_shown: CancellationToken::new(),
        };
        (reports, looked_at)
    }

    /// The watch has shown something of ApiKeys, and the store has it.
    pub(super) fn apikeys(&self, event: &watcher::Event<DeserializeGuard<ApiKey>>) {
        let now = Instant::now();
        match event {
            watcher::Event::Init => self.gates().apikeys_listed_anew(),
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                self.reached(object, now);
                if let Ok(apikey) = &object.0 {
                    self.folding().seen(apikey);
                }
            }
            watcher::Event::Delete(object) => {
                self.reached(object, now);
                if let Some(uid) = &object.meta().uid {
                    self.folding().gone(uid);
                }
            }
            watcher::Event::InitDone => self.apikeys_shown.cancel(),
        }
    }

    /// From now on nothing waits for gates: this process ends, and a key that it holds would be lost with it.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// How many gates are current, behind and silent.
    pub(super) fn counts(&self) -> [i64; 3] {
        self.gates().counts()
    }

    /// Whether all gates that report have reached `version` of an ApiKey; where not, it is released when they have, before `until`.
    fn know(&self, apikey: &ApiKey, version: u128, until: Instant) -> bool {
        let (key, namespace) = (waiting::key(apikey), apikey.namespace().unwrap_or_default());
        // Both locks, in this order here and below: nothing is missed between the question and the wait.
        let gates = self.gates();
        let mut waiting = self.waiting();
        if self.leaving.load(Ordering::Relaxed) || gates.have_reached(&namespace, version, Instant::now()) {
            waiting.end(&key);
            return true;
        }
        waiting.begin(key, version, until);
        false
    }

    /// Something was heard of gates, or was not for long enough.
    fn release(&self) {
        let gates = self.gates();
        let now = Instant::now();
        let released = self.waiting().released(now, |namespace, version| gates.have_reached(namespace, version, now));
        for key in released {
            // Nobody takes it where the watches have ended.
            let _ = self.released.unbounded_send(key);
        }
    }

    fn reached(&self, object: &DeserializeGuard<ApiKey>, now: Instant) {
        let meta = object.meta();
        if let Some(version) = &meta.resource_version {
            self.gates().apikey(meta.namespace.as_deref().unwrap_or_default(), version, now);
        }
    }

    fn gates(&self) -> MutexGuard<'_, Gates> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folding(&self) -> MutexGuard<'_, Folding> {
        self.folding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the gates know the announcement of a held key, as far as they are waited for: only before a key that replaces another is
/// sent for the first time.
pub(super) fn know(context: &Context, apikey: &ApiKey, notes: &Notes) -> lifecycle::Gates {
    let replaces = apikey.status.as_ref().is_some_and(|status| status.current().is_some());
    let announced = notes.held.as_ref().filter(|_| replaces).and_then(|held| {
        let version = held.unsent_at.as_deref().and_then(resource_version_number)?;
        Some((version, held))
    });
    let Some((version, held)) = announced else { return lifecycle::Gates::Ready };
    let left = left(context, held);
    if context.reports.know(apikey, version, Instant::now() + left) {
        return lifecycle::Gates::Ready;
    }
    if !left.is_zero() {
        return lifecycle::Gates::Behind;
    }
    tracing::info!("a gate does not say that it knows the new version, and is not waited for any longer");
    lifecycle::Gates::Ready
}

/// How long gates are still waited for with the delivery of a key.
pub(super) fn left(context: &Context, held: &Held) -> Duration {
    context.limits.gate_wait.saturating_sub(held.since.elapsed())
}

/// Looks at the gates of a namespace, or at all, until `stop` is cancelled.
pub(super) async fn work(context: &Context, namespace: Option<&str>, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = context.reports.apikeys_shown.cancelled() => {}
    }
    tokio::select! {
        // A write that is under way may be carried out or not: the gate tells until the status shows it.
        () = stop.cancelled() => {}
        () = look(context, namespace) => {}
        () = fold(context) => {}
    }
}

async fn look(context: &Context, namespace: Option<&str>) {
    let api: Api<DeserializeGuard<Gate>> = watch::api(&context.client, namespace);
    let mut events = pin!(watch::watched_with_errors(api, watcher::Config::default(), "gates", &context.metrics));
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // What is already there to be seen is seen before gates are judged.
            biased;
            event = events.next() => match event {
                Some(Ok(event)) => take(context, event),
                Some(Err(_)) => context.reports.gates().blinded(Instant::now()),
                None => return,
            },
            _ = ticks.tick() => tell(context),
        }
        context.reports.release();
    }
}

fn take(context: &Context, event: watcher::Event<DeserializeGuard<Gate>>) {
    let (reports, now) = (&context.reports, Instant::now());
    match event {
        watcher::Event::Init => reports.gates().list_begins(now),
        watcher::Event::InitDone => reports.gates().list_ends(now),
        watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
            let Some(gate) = readable(object) else { return };
            if reports.gates().shown(&gate, now) {
                uses(context, &gate);
            } else {
                tracing::debug!(gate = gate.name_any(), "too many gates: this one is not looked at");
            }
        }
        watcher::Event::Delete(object) => {
            let Some(gate) = readable(object) else { return };
            reports.gates().gone(&gate, now);
            // What it said last, and had no time to see done.
            uses(context, &gate);
        }
    }
}

fn readable(object: DeserializeGuard<Gate>) -> Option<Gate> {
    let name = object.name_any();
    object.0.inspect_err(|error| tracing::debug!(gate = name, error = error.error, "a Gate cannot be read")).ok()
}

/// Takes in the uses that a gate tells.
fn uses(context: &Context, gate: &Gate) {
    let clock = context.clock.now().as_second();
    let name = format!("{}/{}", gate.namespace().unwrap_or_default(), gate.name_any());
    let mut news = false;
    for used in &gate.spec.uses {
        let apikey = context.apikeys.get(&ObjectRef::new(&used.name).within(&used.namespace));
        let apikey = apikey.as_ref().and_then(|object| object.0.as_ref().ok());
        news |= context.reports.folding().told(&name, used, apikey, clock, Instant::now());
    }
    if news {
        context.reports.waits.notify_one();
    }
}

/// Tells what has changed about gates.
fn tell(context: &Context) {
    let changes = context.reports.gates().judge(Instant::now());
    for change in changes {
        let (gate, namespace) = (change.gate.name_any(), change.gate.namespace().unwrap_or_default());
        match change.news.tone {
            Tone::Warning => tracing::warn!(gate, namespace, reason = change.news.reason, note = change.news.note, "gate"),
            Tone::Normal => tracing::info!(gate, namespace, reason = change.news.reason, note = change.news.note, "gate"),
        }
        context.events.tell(&change.gate, change.news);
    }
}

/// Writes uses into the status, one at a time.
async fn fold(context: &Context) {
    loop {
        let next = context.reports.folding().next(Instant::now());
        match next {
            None => context.reports.waits.notified().await,
            Some(Err(until)) => tokio::time::sleep_until(until).await,
            Some(Ok(write)) => {
                let outcome = put(context, &write).await;
                context.reports.folding().ended(&write, outcome, Instant::now());
            }
        }
    }
}

/// One write: that field and no other. That it only grows is a rule of the resource.
async fn put(context: &Context, write: &Write) -> Outcome {
    let Some(patch) = patch(write) else { return Outcome::Moot };
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let api: Api<PartialObjectMeta<ApiKey>> = Api::namespaced(context.client.clone(), &write.namespace);
    let written = context.ask("patch apikeys/status", api.patch_status(&write.name, &params, &patch)).await;
    let (namespace, apikey) = (&write.namespace, &write.name);
    match written {
        Ok(_) => {
            context.metrics.last_use_written();
            tracing::debug!(namespace, apikey, "the last use is written");
            Outcome::Done
        }
        Err(Error::Api { source, .. }) if is_moot(&source) => {
            tracing::debug!(namespace, apikey, "the last use is not to be written any more");
            Outcome::Moot
        }
        Err(error) => {
            tracing::warn!(namespace, apikey, %error, "a last use could not be written and will be tried again");
            Outcome::Failed
        }
    }
}

/// The UID is tested: in a merge patch of a status, the API server passes over what it says of metadata, so it would guard nothing.
fn patch(write: &Write) -> Option<Patch<()>> {
    let used_at = Time(Timestamp::from_second(write.used_at).ok()?);
    let steps = json!([
        { "op": "test", "path": "/metadata/uid", "value": write.uid },
        { "op": "add", "path": "/status/lastUsedAt", "value": used_at },
    ]);
    serde_json::from_value(steps).ok().map(Patch::Json)
}

/// Gone, created anew, or later already.
fn is_moot(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409 | 422))
}
