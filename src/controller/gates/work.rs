//! Watches gates, tells of them, and writes last uses.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Api, PartialObjectMeta, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::folding::{Outcome, Write};
use crate::api::names::FIELD_MANAGER;
use crate::api::{ApiKey, Gate};
use crate::controller::context::Context;
use crate::controller::error::Error;
use crate::controller::watch;
use crate::lifecycle::Tone;

/// How many seconds a watch lasts. One that died without a word is noticed five seconds later, before gates are taken to be silent.
const WATCH: u32 = 15;
/// How often is looked how gates stand.
const LOOK: Duration = Duration::from_secs(1);

/// Looks at the gates of a namespace, or at all, until `stop` is cancelled.
pub(in crate::controller) async fn work(
    context: &Context,
    namespace: Option<&str>,
    stop: &CancellationToken,
) {
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
    let mut events = pin!(watch::watched_with_errors(
        api,
        watcher::Config::default().timeout(WATCH),
        "gates",
        &context.metrics
    ));
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
                tracing::debug!(
                    gate = gate.name_any(),
                    "too many gates: this one is not looked at"
                );
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
    object
        .0
        .inspect_err(|error| {
            tracing::debug!(gate = name, error = error.error, "a Gate cannot be read");
        })
        .ok()
}

/// Takes in the uses that a gate tells.
fn uses(context: &Context, gate: &Gate) {
    let clock = context.clock.now().as_second();
    let name = format!(
        "{}/{}",
        gate.namespace().unwrap_or_default(),
        gate.name_any()
    );
    let mut news = false;
    for used in &gate.spec.uses {
        let apikey = context
            .apikeys
            .get(&ObjectRef::new(&used.name).within(&used.namespace));
        let apikey = apikey.as_ref().and_then(|object| object.0.as_ref().ok());
        news |= context
            .reports
            .folding()
            .told(&name, used, apikey, clock, Instant::now());
    }
    if news {
        context.reports.waits.notify_one();
    }
}

/// Tells what has changed about gates.
fn tell(context: &Context) {
    let changes = context.reports.gates().judge(Instant::now());
    for change in changes {
        let (gate, namespace) = (
            change.gate.name_any(),
            change.gate.namespace().unwrap_or_default(),
        );
        match change.news.tone {
            Tone::Warning => tracing::warn!(
                gate,
                namespace,
                reason = change.news.reason,
                note = change.news.note,
                "gate"
            ),
            Tone::Normal => tracing::info!(
                gate,
                namespace,
                reason = change.news.reason,
                note = change.news.note,
                "gate"
            ),
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
                context
                    .reports
                    .folding()
                    .ended(&write, outcome, Instant::now());
            }
        }
    }
}

/// One write: that field and no other. That it only grows is a rule of the resource.
async fn put(context: &Context, write: &Write) -> Outcome {
    let Some(patch) = patch(write) else {
        return Outcome::Moot;
    };
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let api: Api<PartialObjectMeta<ApiKey>> =
        Api::namespaced(context.client.clone(), &write.namespace);
    let written = context
        .ask(
            "patch apikeys/status",
            api.patch_status(&write.name, &params, &patch),
        )
        .await;
    let (namespace, apikey) = (&write.namespace, &write.name);
    match written {
        Ok(_) => {
            context.metrics.last_use_written();
            tracing::debug!(namespace, apikey, "the last use is written");
            Outcome::Done
        }
        Err(Error::Api { source, .. }) if is_moot(&source) => {
            tracing::debug!(
                namespace,
                apikey,
                "the last use is not to be written any more"
            );
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
