//! One `ApiKey` at a time: look, plan, do, until the plan says that nothing is left to do.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use tokio::time::Instant;
use tracing::Instrument;

use super::context::Context;
use super::error::Error;
use super::execute::execute;
use super::gates::hold;
use super::memory::Notes;
use super::observe::{is_older, observe};
use crate::api::ApiKey;
use crate::api::conditions::reason;
use crate::lifecycle::{News, Step, Tone, Wake, clip, needs_duplicates, plan};
use crate::telemetry::Outcome;

/// No sequence of steps is longer: finalizer, question, announcement, delivery, activation, and conditions between them.
const MAX_STEPS: usize = 16;
/// No step makes more than two requests, and a look makes three.
const MAX_CALLS: u32 = 35;
/// How long the watch may take to show our own write; after that, what it shows is taken for what there is.
const COMES_AROUND: Duration = Duration::from_secs(30);
/// After a key was taken over, whether another has it, too, is looked at once more after this time.
const ALSO_TAKEN: Duration = Duration::from_secs(2);
/// The longest nap. Times far away are looked at again from here, so that no timer has to run for years.
const LONGEST_NAP: Duration = Duration::from_secs(3_600);

/// Works on one object. Whatever happens is contained to it: errors, time-outs, panics.
pub(super) async fn reconcile(
    object: Arc<DeserializeGuard<ApiKey>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let started = Instant::now();
    // More than the longest sequence of steps takes with every answer late.
    let limit = context.limits.request_timeout.saturating_mul(MAX_CALLS);
    let uid = object.uid().unwrap_or_default();
    // Not `name`: in JSON that is the span's own.
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let span = tracing::info_span!("apikey", namespace, apikey = name, uid);
    context.started(&object);
    let _working = Working::begin(&context);
    let work = AssertUnwindSafe(guarded(object, &context, &uid)).catch_unwind();
    let outcome = match tokio::time::timeout(limit, work.instrument(span.clone())).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => Err(Error::Panicked(panic_text(&*panic))),
        Err(_) => Err(Error::TooSlow(limit)),
    };
    let label = outcome
        .as_ref()
        .map_or(Outcome::Failed, |(_, outcome)| *outcome);
    context.metrics.reconciled(label, started.elapsed());
    if let Err(error) = &outcome {
        context.metrics.failed(error.kind());
        let _entered = span.enter();
        if error.is_race() {
            tracing::debug!(%error, "somebody else was faster");
        } else {
            tracing::warn!(%error, "a step failed and will be tried again");
        }
    }
    outcome.map(|(action, _)| action)
}

/// What to do after an error: wait, longer each time.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that the loop asks for"
)]
pub(super) fn after_error(
    object: Arc<DeserializeGuard<ApiKey>>,
    error: &Error,
    context: Arc<Context>,
) -> Action {
    let uid = object.uid().unwrap_or_default();
    let delay = context.memory.failed(&uid, context.limits.max_backoff);
    Action::requeue(if error.is_race() {
        delay.min(Duration::from_secs(2))
    } else {
        delay
    })
}

async fn guarded(
    object: Arc<DeserializeGuard<ApiKey>>,
    context: &Context,
    uid: &str,
) -> Result<(Action, Outcome), Error> {
    let apikey = match &object.0 {
        Ok(apikey) => Arc::new(apikey.clone()),
        Err(invalid) => {
            let news = News {
                tone: Tone::Warning,
                reason: reason::UNDECODABLE.to_owned(),
                note: clip(invalid.error.clone()),
            };
            context.events.tell(&*object, news);
            return Err(Error::Undecodable(invalid.error.clone()));
        }
    };
    context.shown().await?;
    let mut notes = context.memory.borrow(uid);
    if notes.done {
        return Ok((Action::await_change(), Outcome::Unchanged));
    }
    if is_stale(&apikey, &notes) {
        // Our own write has not come around yet; it triggers another look when it does.
        return Ok((Action::requeue(Duration::from_secs(5)), Outcome::Waiting));
    }
    notes.written = None;
    to_the_end(apikey, context, &mut notes).await
}

async fn to_the_end(
    apikey: Arc<ApiKey>,
    context: &Context,
    notes: &mut Notes,
) -> Result<(Action, Outcome), Error> {
    let mut world = observe(context, apikey, notes).await?;
    for done in 0..MAX_STEPS {
        let plan = plan(&world, context.now());
        tracing::debug!(step = plan.step.name(), "plan");
        if let Step::Settled { wake, at } = plan.step {
            let (action, outcome) = rest(context, notes, wake, at, done > 0);
            // Another ApiKey may have taken the same key over at the same time, and the watch shows it a moment later.
            let again = done > 0 && needs_duplicates(&world.apikey);
            return Ok((
                if again {
                    Action::requeue(ALSO_TAKEN)
                } else {
                    action
                },
                outcome,
            ));
        }
        execute(context, plan.step, &mut world, notes).await?;
    }
    Err(Error::Endless(MAX_STEPS))
}

/// How long to rest, and what to call it.
fn rest(
    context: &Context,
    notes: &mut Notes,
    wake: Wake,
    at: Option<Timestamp>,
    changed: bool,
) -> (Action, Outcome) {
    let pause = match wake {
        Wake::OnEvent => {
            notes.failures = 0;
            notes.refused = None;
            None
        }
        Wake::BackOff => Some(match &notes.refused {
            Some((_, until)) if *until > Instant::now() => {
                let left = until.duration_since(Instant::now());
                if changed {
                    notes.failures = notes.failures.saturating_add(1);
                }
                left
            }
            _ => notes.back_off(context.limits.max_backoff),
        }),
        Wake::WhenGatesKnow => Some(
            notes
                .held
                .as_ref()
                .map_or(Duration::ZERO, |held| hold::left(context, held)),
        ),
        Wake::WhenSettled => {
            let since = notes.announced.as_ref().map(|(_, since)| *since);
            Some(since.map_or(context.limits.announce_grace, |since| {
                context
                    .limits
                    .announce_grace
                    .saturating_sub(since.elapsed())
            }))
        }
    };
    let due = at.map(|moment| until(context.clock.now(), moment));
    let unseen = notes
        .read
        .as_ref()
        .and_then(|read| read.unseen_until)
        .filter(|until| *until > Instant::now());
    // A Secret that came and went before the watch could show it sends no event that tells: look again then.
    let unseen = unseen.map(|until| until.duration_since(Instant::now()));
    let nap = pause
        .into_iter()
        .chain(due)
        .chain(unseen)
        .min()
        .map(|nap| nap.clamp(Duration::from_millis(1), LONGEST_NAP));
    let outcome = match (pause, changed) {
        (Some(_), _) => Outcome::Waiting,
        (None, true) => Outcome::Changed,
        (None, false) => Outcome::Unchanged,
    };
    (
        nap.map_or_else(Action::await_change, Action::requeue),
        outcome,
    )
}

/// From `now`, to the fraction of a second, until `moment` has surely come.
fn until(now: Timestamp, moment: Timestamp) -> Duration {
    Duration::try_from(moment.duration_since(now))
        .unwrap_or(Duration::ZERO)
        .saturating_add(Duration::from_millis(1))
}

/// Whether the watch still shows what was before our own last write. Not for ever: a restored etcd counts from lower again.
fn is_stale(apikey: &ApiKey, notes: &Notes) -> bool {
    let seen = apikey.metadata.resource_version.as_deref();
    let written = notes
        .written
        .as_ref()
        .filter(|(_, when)| when.elapsed() < COMES_AROUND);
    seen.zip(written)
        .is_some_and(|(seen, (written, _))| is_older(seen, written))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned())
}

/// Counts an object as worked on for as long as it lives, also when the work is cut off.
struct Working<'a>(&'a Context);

impl<'a> Working<'a> {
    fn begin(context: &'a Context) -> Self {
        context.metrics.working(1);
        Self(context)
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.metrics.working(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nap_ends_when_the_whole_second_has_come_and_not_before() {
        let now: Timestamp = "2026-11-21T12:00:00.4Z".parse().unwrap();
        assert_eq!(
            until(now, "2026-11-21T12:00:01Z".parse().unwrap()),
            Duration::from_millis(601)
        );
        assert_eq!(
            until(now, "2026-11-21T12:00:00Z".parse().unwrap()),
            Duration::from_millis(1),
            "the past is now"
        );
        let far = until(now, "9999-01-01T00:00:00Z".parse().unwrap());
        assert!(far > LONGEST_NAP, "and is napped towards in steps");
    }

    #[test]
    fn a_panic_tells_its_message() {
        let caught = std::panic::catch_unwind(|| panic!("poison {}", 1)).unwrap_err();
        assert_eq!(panic_text(&*caught), "poison 1");
        let caught = std::panic::catch_unwind(|| panic!("plain")).unwrap_err();
        assert_eq!(panic_text(&*caught), "plain");
    }
}
