//! The loop: a consistent list of everything, then a watch from there, for ever.
//!
//! A watch lasts [`Timing::watch`] and is then restarted from where it was: so a connection that died
//! silently is noticed. An object that went while no watch ran is missing in the next list, and is
//! removed there.
//!
//! After an answer that cannot be decoded, and wherever an event may have been lost, the watcher
//! relists. The API server accepts a watch from a resourceVersion that it has not reached, as after a
//! restore of etcd, and sends nothing. An answered watch without events is therefore no proof. After
//! one, and after a watch that did not end at its time, a list of one object confirms that the API
//! server has reached the resourceVersion. The next watch waits for that answer: once the API server
//! has counted up again, its events would look as if nothing were missing.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, Stream, StreamExt as _};
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::collection::Collection;
use super::error::Error;
use super::handler::Handler;
use super::object::{Change, Metadata, Object, Uid};
use super::page::{Page, PageSize};
use crate::api::resource_version_number;

/// Events that are handled at once when they are there.
const BATCH: usize = 256;
/// Their bytes.
const BATCH_BYTES: usize = 4 << 20;
/// How much later than it should a watch may end before it counts as dead.
pub const GRACE: Duration = Duration::from_secs(5);
/// How long the answer is waited for that confirms a resourceVersion.
const CONFIRM: Duration = Duration::from_secs(5);
/// How much sooner than it should a watch may end and still be in order; half of the time for very
/// short ones. kube shows a connection that was cut as an end in order, and an API server ends no watch
/// before its time unless it shuts down.
const EARLY: Duration = Duration::from_secs(1);
/// How long before [`Handler::time_left`] runs out the watcher relists.
const LEAD: Duration = Duration::from_secs(2);

/// Timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long one watch lasts. A watch that died silently is noticed after this time and [`GRACE`].
    pub watch: Duration,
    /// How long an answer of the API server is waited for.
    pub request: Duration,
}

/// Follows one collection.
pub struct Watcher<H> {
    client: Client,
    collection: Collection,
    handler: Arc<H>,
    timing: Timing,
}

/// The state between two requests.
#[derive(Debug, Default)]
struct WatchState {
    /// The handler knows all changes up to this resourceVersion. `None`: a list is needed.
    resume_from: Option<String>,
    /// The last watch was answered and has sent nothing. That the next one is answered is no proof that
    /// the API server sends what changes.
    last_watch_silent: bool,
    /// The answer to a watch was taken for a proof though the watch before had broken and sent nothing.
    /// Not twice: a broken server may answer each watch, send nothing, and cut it.
    grace_used: bool,
    /// How the last watch ended, where no answer since then has confirmed `resume_from`.
    needs_confirmation: Option<Ended>,
    /// How long the last watch ran; zero where it was not answered.
    last_duration: Duration,
}

/// The end of a watch that leaves doubts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Other than in order, or so long ago that it does not count.
    Broken,
    /// In order, at its time, without an event or a bookmark.
    Mute,
}

/// Events that are read together.
struct Batch<T> {
    changes: Vec<Change<T>>,
    /// Events and bookmarks.
    events: usize,
    bytes: usize,
    /// All changes up to this resourceVersion are read.
    reached: String,
}

impl<H: Handler> Watcher<H> {
    /// Follows `collection` for `handler`.
    #[must_use]
    pub fn new(client: Client, collection: Collection, handler: Arc<H>, timing: Timing) -> Self {
        Self {
            client,
            collection,
            handler,
            timing,
        }
    }

    /// Runs until `token` is cancelled.
    pub async fn run(self, token: CancellationToken) {
        let _ = token.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&self) {
        let mut state = WatchState::default();
        let mut backoff = Backoff::default();
        loop {
            if self.handler.needs_list() {
                // A watch does not say when it has sent everything that happened meanwhile.
                state.resume_from = None;
            }
            state.last_duration = Duration::ZERO;
            let watching = state.resume_from.is_some() && state.needs_confirmation.is_none();
            let done = match state.resume_from.clone() {
                None => self.list(&mut state).await,
                Some(since) if watching => self.watch(since, &mut state).await,
                Some(since) => self.confirm(&since, &mut state).await,
            };
            let error = match done {
                Ok(()) => {
                    // That a list works does not mean that a watch does.
                    if watching {
                        backoff.reset();
                    }
                    continue;
                }
                Err(error) => error,
            };
            self.handler.interrupted(&error.to_string());
            if error.needs_list() {
                state.resume_from = None;
            }
            // A watch that has sent something is progress, and there is no time to lose before the limit.
            if matches!(error, Error::Early { progress: true } | Error::Due) {
                backoff.reset();
            }
            let path = &self.collection.path;
            if backoff.should_log(&error) {
                tracing::warn!(path, %error, "the list or watch has failed and is retried");
            } else {
                tracing::debug!(path, %error, "the list or watch has failed and is retried");
            }
            let pause = match error.retry_after() {
                Some(after) => backoff.throttled(after),
                None => backoff.failed(state.last_duration),
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads everything there is: a list without a resourceVersion is a consistent read.
    async fn list(&self, state: &mut WatchState) -> Result<(), Error> {
        let mut listed: HashSet<Uid> = HashSet::new();
        let (mut size, mut next) = (PageSize::default(), None);
        loop {
            let Some(page) = self
                .page(size.objects(), next.clone(), self.timing.request)
                .await?
            else {
                size.shrink()?;
                continue;
            };
            size.grow();
            let content = page.content()?;
            let changes: Vec<_> = content
                .items
                .iter()
                .map(|item| Change::applied(item))
                .collect();
            listed.extend(changes.iter().map(|change| Uid::of(&change.metadata().uid)));
            self.handler.page(changes);
            let metadata = content.metadata;
            next = metadata.next.filter(|token| !token.is_empty());
            if next.is_some() {
                continue;
            }
            if metadata.resource_version.is_empty() {
                // A watch without a resourceVersion would lose what happened in between.
                return Err(Error::Unreadable);
            }
            self.handler.list_ends(&listed, &metadata.resource_version);
            tracing::debug!(
                path = self.collection.path,
                objects = listed.len(),
                "listed"
            );
            *state = WatchState {
                resume_from: Some(metadata.resource_version),
                ..WatchState::default()
            };
            return Ok(());
        }
    }

    async fn page(
        &self,
        objects: u32,
        next: Option<String>,
        limit: Duration,
    ) -> Result<Option<Page>, Error> {
        let params = ListParams {
            limit: Some(objects),
            continue_token: next,
            ..ListParams::default()
        };
        let request = Request::new(self.collection.path.clone()).list(&params);
        let request = request.map_err(Error::Request)?;
        let page = Page::request(&self.client, request, &self.collection);
        timeout(limit, page)
            .await
            .unwrap_or(Err(Error::Timeout(limit)))
    }

    /// Asks whether the API server has reached the resourceVersion from which the next watch begins.
    /// The answer to a watch would not say so.
    async fn confirm(&self, since: &str, state: &mut WatchState) -> Result<(), Error> {
        // Where it is asked again, the end of the watch is too long ago to prove anything.
        let ended = state.needs_confirmation.replace(Ended::Broken);
        let limit = CONFIRM.min(self.timing.request);
        let page = self.page(1, None, limit).await?.ok_or(Error::Unreadable)?;
        let now = page.content()?.metadata.resource_version;
        let numbers = (
            resource_version_number(&now),
            resource_version_number(since),
        );
        if !matches!(numbers, (Some(now), Some(since)) if now >= since) {
            let since = since.to_owned();
            return Err(Error::Restored { now, since });
        }
        state.needs_confirmation = None;
        if ended == Some(Ended::Mute) {
            // It had nothing to send.
            (state.last_watch_silent, state.grace_used) = (false, false);
            return self.alive();
        }
        if state.last_watch_silent && !state.grace_used {
            (state.last_watch_silent, state.grace_used) = (false, true);
        }
        Ok(())
    }

    /// Handles changes until the watch ends.
    async fn watch(&self, since: String, state: &mut WatchState) -> Result<(), Error> {
        state.needs_confirmation = Some(Ended::Broken);
        let seconds = u32::try_from(self.timing.watch.as_secs())
            .unwrap_or(u32::MAX)
            .max(1);
        let params = WatchParams {
            timeout: Some(seconds),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = Request::new(self.collection.path.clone()).watch(&params, &since);
        let request = self
            .client
            .request_events::<Box<RawValue>>(request.map_err(Error::Request)?);
        let limit = self.timing.request;
        let events = match timeout(limit, request).await {
            Ok(answer) => answer.map_err(|error| self.error(error).or_expired(&since))?,
            Err(_) => return Err(Error::Timeout(limit)),
        };
        let begun = Instant::now();
        if !state.last_watch_silent {
            // The answer says that the changes since then are not forgotten.
            self.alive()?;
        }
        let mut progress = false;
        let done = self.read(events, state, &mut progress).await;
        state.last_duration = begun.elapsed();
        state.last_watch_silent = !progress;
        // Nothing at all came of it, not even its end.
        state.grace_used |= !progress && matches!(done, Err(Error::Silent(_)));
        done?;
        let asked = Duration::from_secs(seconds.into());
        if state.last_duration + EARLY.min(asked / 2) < asked {
            return Err(Error::Early { progress });
        }
        if !progress {
            state.needs_confirmation = Some(Ended::Mute);
            return Ok(());
        }
        state.needs_confirmation = None;
        self.alive()
    }

    async fn read(
        &self,
        events: impl Stream<Item = kube::Result<WatchEvent<Box<RawValue>>>>,
        state: &mut WatchState,
        progress: &mut bool,
    ) -> Result<(), Error> {
        let silence = self.timing.watch + GRACE;
        let mut events = pin!(events.fuse());
        loop {
            let left = self.handler.time_left();
            let due = left.map_or(Duration::MAX, |left| left.saturating_sub(LEAD));
            let first = match timeout(silence.min(due), events.next()).await {
                Ok(Some(first)) => first,
                Ok(None) => return Ok(()),
                Err(_) if due < silence => return Err(Error::Due),
                Err(_) => return Err(Error::Silent(silence)),
            };
            let arrived = std::time::Instant::now();
            let before = state.resume_from.take().unwrap_or_default();
            let mut batch = Batch::after(before.clone());
            let (mut next, mut failed) = (Some(first), None);
            while let Some(event) = next.take() {
                match batch.add(event) {
                    Ok(()) if batch.is_full() => {}
                    Ok(()) => next = events.next().now_or_never().flatten(),
                    // The events behind it do not count: the next watch sends them again.
                    Err(error) => failed = Some(self.watch_error(error, &batch.reached)),
                }
            }
            let restored = matches!(failed, Some(Error::Restored { .. }));
            let mut alive = true;
            if batch.events > 0 {
                let reached = Some(&*batch.reached).filter(|reached| **reached != before);
                self.handler.events(batch.changes, reached, arrived);
                *progress = true;
                (state.last_watch_silent, state.grace_used) = (false, false);
                alive = restored || self.handler.alive();
            }
            state.resume_from = Some(batch.reached);
            match failed {
                Some(error @ (Error::Restored { .. } | Error::Unreadable)) => return Err(error),
                _ if !alive => return Err(Error::Overdue),
                Some(error) => return Err(error),
                None => {}
            }
        }
    }

    /// What an error among the events of a watch that has reached `since` means.
    fn watch_error(&self, error: EventError, since: &str) -> Error {
        match error {
            EventError::Api(error) => self.error(*error).or_expired(since),
            EventError::Unreadable => Error::Unreadable,
            EventError::Lower(now) => Error::Restored {
                now,
                since: since.to_owned(),
            },
        }
    }

    fn alive(&self) -> Result<(), Error> {
        self.handler.alive().then_some(()).ok_or(Error::Overdue)
    }

    fn error(&self, error: kube::Error) -> Error {
        Error::of(error, &self.collection)
    }
}

/// Why a watch cannot go on after an event.
enum EventError {
    Api(Box<kube::Error>),
    Unreadable,
    /// Its resourceVersion is lower than the one before.
    Lower(String),
}

impl<T: Object> Batch<T> {
    fn after(reached: String) -> Self {
        Self {
            changes: Vec::new(),
            events: 0,
            bytes: 0,
            reached,
        }
    }

    fn is_full(&self) -> bool {
        self.events >= BATCH || self.bytes >= BATCH_BYTES
    }

    fn add(&mut self, event: kube::Result<WatchEvent<Box<RawValue>>>) -> Result<(), EventError> {
        let (change, object) = match event {
            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                (Change::applied(&object), object)
            }
            Ok(WatchEvent::Deleted(object)) => (Change::deleted(&object), object),
            Ok(WatchEvent::Bookmark(bookmark)) => {
                self.events += 1;
                return self.reach(&bookmark.metadata.resource_version);
            }
            Ok(WatchEvent::Error(status)) => {
                return Err(EventError::Api(Box::new(kube::Error::Api(status))));
            }
            Err(kube::Error::SerdeError(_)) => return Err(EventError::Unreadable),
            // kube takes a line that is no event for a status, and one that is no status has no code.
            Err(kube::Error::Api(status)) if status.code == 0 => {
                return Err(EventError::Unreadable);
            }
            Err(error) => return Err(EventError::Api(Box::new(error))),
        };
        self.events += 1;
        self.bytes += object.get().len();
        let Metadata {
            uid,
            resource_version,
            ..
        } = change.metadata().clone();
        self.changes.push(change);
        if uid.is_empty() {
            // Which object has changed cannot be logged, and so not which one in the index is wrong.
            return Err(EventError::Unreadable);
        }
        self.reach(&resource_version)
    }

    fn reach(&mut self, resource_version: &str) -> Result<(), EventError> {
        if resource_version.is_empty() {
            // A watch without a resourceVersion would lose what happened in between.
            return Ok(());
        }
        if resource_version_number(resource_version) < resource_version_number(&self.reached) {
            return Err(EventError::Lower(resource_version.to_owned()));
        }
        resource_version.clone_into(&mut self.reached);
        Ok(())
    }
}
