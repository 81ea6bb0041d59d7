//! Follows the API server: a consistent list of everything, then a watch from there, for ever. One [`Feed`] for ApiKeys, one for roles.
//!
//! Our own loop, because what a library hides is what a gate must know: bookmarks (which resourceVersion the index has reached, that
//! the watch lives), where a list stands, and a back-off of milliseconds instead of half a minute. A watch lasts
//! [`Timing::watch`] and is then begun anew from where it was, so that one which died silently is found out. What went while
//! no watch ran shows in a list by its absence, and is taken out of the index there.
//!
//! Where anything cannot be understood, or may have been passed over, everything is listed anew. The API server takes a watch from a
//! resourceVersion that it has not reached, as after etcd was restored from a backup, and shows nothing. So a watch that has shown
//! nothing is no sign, and after one, as after one that did not end at its time, the place is confirmed by a list of one object.
//! Nothing is watched before that is answered: once the API server has counted up again, events would look as if all were well.

mod backoff;
mod ledger;
mod wire;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use backoff::Backoff;
pub use ledger::{Ledger, Reached};
use wire::Page;

use super::freshness::Watched;
use super::index::Uid;
use crate::api::resource_version_number;

/// Objects in a page of a list.
const PAGE: u32 = 500;
/// Events that are taken in at once when they are there: the index is published once for all of them.
const BATCH: usize = 256;
/// How much later than it should a watch may end before it counts as dead.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// How long it is waited for whether a place is still one.
const CONFIRM: Duration = Duration::from_secs(5);
/// How much sooner than it should a watch may end and still be in order; half of the time for very short ones. kube shows a
/// connection that was cut as an end in order, and an API server ends none before its time unless it shuts down.
const EARLY: Duration = Duration::from_secs(1);
/// How long before no verdict may be given any more everything is listed, where no watch gives a sign.
const LEAD: Duration = Duration::from_secs(2);

/// How long things are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long one watch lasts: a watch that died silently is noticed after this time and five seconds more.
    pub watch: Duration,
    /// How long an answer of the API server is waited for.
    pub request: Duration,
}

/// Follows one kind of object.
pub struct Feed {
    client: Client,
    watched: Watched,
    /// The path of the collection.
    path: String,
    ledger: Arc<Ledger>,
    timing: Timing,
}

/// Where following stands.
#[derive(Debug, Default)]
struct Standing {
    /// Up to which resourceVersion the index knows everything; `None` where everything has to be listed.
    since: Option<String>,
    /// The last watch was answered, and has shown nothing: that the next one is answered is no sign that the API server shows what
    /// changes.
    doubted: bool,
    /// The answer to a watch was taken for a sign though the one before had broken and shown nothing. Not twice: somebody may
    /// answer each watch, show nothing, and cut it.
    lent: bool,
    /// How the last watch ended, where since then nobody has confirmed that the API server has reached `since`.
    unconfirmed: Option<Ended>,
    /// How long the last watch ran: none did where it was not answered.
    ran: Duration,
}

/// How a watch ended that leaves doubts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Other than in order, or so long ago that it does not count.
    Broken,
    /// In order, at its time, without an event or a bookmark.
    Mute,
}

/// Why a list or a watch ended.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The API server has forgotten what was between: everything has to be listed anew.
    #[error("the API server has forgotten the changes since resourceVersion {0}")]
    Expired(String),
    /// Something may have been passed over: everything has to be listed anew.
    #[error("an answer of the API server cannot be read: everything is listed anew")]
    Unreadable,
    /// The API server counts from lower again, or in a way that does not compare.
    #[error(
        "the API server stands at resourceVersion {now}, before {since}, as after a restore: everything is listed anew"
    )]
    Restored { now: String, since: String },
    /// The stream of a watch has ended before its time, and whether it had shown anything.
    #[error("the watch has ended before its time")]
    Early { shown: bool },
    /// Watches are taken and show nothing, and soon that has gone on for too long.
    #[error("no watch has given a sign for almost --max-staleness: everything is listed anew")]
    Due,
    /// A sign that came when no verdict was given any more does not say what happened meanwhile.
    #[error("the API server was silent for longer than --max-staleness: everything is listed anew")]
    Overdue,
    #[error(
        "{0}.claviger.dev is not known to the API server: install the CustomResourceDefinitions with \
         `claviger manifests | kubectl apply --server-side -f -`"
    )]
    NotServed(&'static str),
    #[error("{}; the gate needs list and watch on {}.claviger.dev{}", crate::telemetry::describe(.0), .1.as_str(), instead(*.1))]
    Forbidden(#[source] Box<kube::Error>, Watched),
    #[error("{}", crate::telemetry::describe(.0))]
    Api(#[source] Box<kube::Error>),
    #[error("no answer within {} s", .0.as_secs())]
    NoAnswer(Duration),
    #[error("nothing was heard for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the request cannot be written: {0}")]
    Request(#[source] kube::core::request::Error),
}

impl Feed {
    /// Follows `watched` in a namespace, or everywhere, and takes it down in the ledger.
    #[must_use]
    pub fn new(
        client: Client,
        watched: Watched,
        namespace: Option<&str>,
        ledger: Arc<Ledger>,
        timing: Timing,
    ) -> Self {
        let group = "/apis/claviger.dev/v1alpha1";
        let path = match (watched, namespace) {
            (Watched::ApiKeys, None) => format!("{group}/apikeys"),
            (Watched::ApiKeys, Some(namespace)) => {
                format!("{group}/namespaces/{namespace}/apikeys")
            }
            (Watched::Roles, _) => format!("{group}/apikeyroles"),
        };
        Self {
            client,
            watched,
            path,
            ledger,
            timing,
        }
    }

    /// Follows until `token` is cancelled.
    pub async fn run(self, token: CancellationToken) {
        let _ = token.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&self) {
        let mut standing = Standing::default();
        let mut backoff = Backoff::default();
        loop {
            if self.ledger.is_overdue(self.watched) {
                // Nothing may pass again before everything that happened is known: a watch does not say when it has shown that.
                standing.since = None;
            }
            standing.ran = Duration::ZERO;
            let watching = standing.since.is_some() && standing.unconfirmed.is_none();
            let done = match &standing.since {
                None => self.list(&mut standing).await,
                Some(_) if watching => self.watch(&mut standing).await,
                Some(since) => self.confirm(&since.clone(), &mut standing).await,
            };
            let pause = match done {
                Ok(()) => {
                    // That a list works does not mean that a watch does.
                    if watching {
                        backoff.worked();
                    }
                    continue;
                }
                Err(error) => {
                    self.ledger.restarted(self.watched, &error.to_string());
                    if error.needs_a_list() {
                        standing.since = None;
                    }
                    // One that has shown something is worth going on with, and there is no time to lose before the bound.
                    if matches!(error, Error::Early { shown: true } | Error::Due) {
                        backoff.worked();
                    }
                    if backoff.tells(&error) {
                        tracing::warn!(path = self.path, %error, "the watch is begun anew");
                    } else {
                        tracing::debug!(path = self.path, %error, "the watch is begun anew");
                    }
                    match error.throttles() {
                        Some(after) => backoff.throttled(after),
                        None => backoff.failed(standing.ran),
                    }
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Takes in everything there is, as it is now: a list without a resourceVersion is a consistent read.
    async fn list(&self, standing: &mut Standing) -> Result<(), Error> {
        let mut listed: HashSet<Uid> = HashSet::new();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let request = Request::new(self.path.clone())
                .list(&params)
                .map_err(Error::Request)?;
            let page: Page = self.ask(self.client.request(request)).await?;
            self.ledger.listed(self.watched, &page.items, &mut listed);
            match page.metadata.next {
                Some(next) if !next.is_empty() => params.continue_token = Some(next),
                // A watch from nowhere would pass over what is between.
                _ if page.metadata.resource_version.is_empty() => return Err(Error::Unreadable),
                _ => {
                    self.ledger
                        .list_ends(self.watched, &listed, &page.metadata.resource_version);
                    tracing::debug!(path = self.path, objects = listed.len(), "listed");
                    *standing = Standing {
                        since: Some(page.metadata.resource_version),
                        ..Standing::default()
                    };
                    return Ok(());
                }
            }
        }
    }

    /// Asks whether the API server has reached where the next watch is to begin: it would not say so itself.
    async fn confirm(&self, since: &str, standing: &mut Standing) -> Result<(), Error> {
        // Where it has to be asked again, the end of the watch is too long ago to be a sign of anything.
        let ended = standing.unconfirmed.replace(Ended::Broken);
        let request = Request::new(self.path.clone())
            .list(&ListParams::default().limit(1))
            .map_err(Error::Request)?;
        let page: Page = self
            .ask_within(
                CONFIRM.min(self.timing.request),
                self.client.request(request),
            )
            .await?;
        let now = page.metadata.resource_version;
        match (
            resource_version_number(&now),
            resource_version_number(since),
        ) {
            (Some(now), Some(since)) if now >= since => {}
            _ => {
                return Err(Error::Restored {
                    now,
                    since: since.to_owned(),
                });
            }
        }
        standing.unconfirmed = None;
        if ended == Some(Ended::Mute) {
            // It had nothing to show.
            (standing.doubted, standing.lent) = (false, false);
            return self.heard();
        }
        if standing.doubted && !standing.lent {
            (standing.doubted, standing.lent) = (false, true);
        }
        Ok(())
    }

    /// Takes in what changes, until the watch ends.
    async fn watch(&self, standing: &mut Standing) -> Result<(), Error> {
        standing.unconfirmed = Some(Ended::Broken);
        let seconds = u32::try_from(self.timing.watch.as_secs())
            .unwrap_or(u32::MAX)
            .max(1);
        let params = WatchParams {
            timeout: Some(seconds),
            bookmarks: true,
            ..WatchParams::default()
        };
        let since = standing.since.clone().unwrap_or_default();
        let request = Request::new(self.path.clone())
            .watch(&params, &since)
            .map_err(Error::Request)?;
        let events = self
            .ask(self.client.request_events::<Box<RawValue>>(request))
            .await
            .map_err(|error| gone(error, &since))?;
        let begun = Instant::now();
        if !standing.doubted {
            // It answers, and would have said if it had forgotten what was between.
            self.heard()?;
        }
        let mut shown = false;
        let done = self.take_in(events, standing, &mut shown).await;
        standing.ran = begun.elapsed();
        standing.doubted = !shown;
        // Nothing at all came of it, not even its end.
        standing.lent |= !shown && matches!(done, Err(Error::Silent(_)));
        done?;
        let asked = Duration::from_secs(seconds.into());
        if standing.ran + EARLY.min(asked / 2) < asked {
            return Err(Error::Early { shown });
        }
        if !shown {
            standing.unconfirmed = Some(Ended::Mute);
            return Ok(());
        }
        standing.unconfirmed = None;
        self.heard()
    }

    /// The API server has given a sign.
    fn heard(&self) -> Result<(), Error> {
        if self.ledger.heard(self.watched) {
            Ok(())
        } else {
            Err(Error::Overdue)
        }
    }

    async fn take_in(
        &self,
        events: impl Stream<Item = kube::Result<WatchEvent<Box<RawValue>>>>,
        standing: &mut Standing,
        moved: &mut bool,
    ) -> Result<(), Error> {
        let silence = self.timing.watch + GRACE;
        let arriving = events.map(|event| (std::time::Instant::now(), event));
        let mut events = std::pin::pin!(arriving.ready_chunks(BATCH));
        loop {
            let due = self
                .ledger
                .left(self.watched)
                .map_or(Duration::MAX, |left| left.saturating_sub(LEAD));
            let batch = match timeout(silence.min(due), events.next()).await {
                Ok(Some(batch)) => batch,
                Ok(None) => return Ok(()),
                Err(_) if due < silence => return Err(Error::Due),
                Err(_) => return Err(Error::Silent(silence)),
            };
            let (mut shown, mut failed) = (Vec::with_capacity(batch.len()), None);
            let arrived = batch
                .first()
                .map_or_else(std::time::Instant::now, |(arrived, _)| *arrived);
            for (_, event) in batch {
                match event {
                    Ok(WatchEvent::Error(status)) => {
                        failed = Some(self.explained(kube::Error::Api(status)));
                    }
                    Ok(event) => shown.push(event),
                    Err(kube::Error::SerdeError(_)) => failed = Some(Error::Unreadable),
                    // kube takes a line that is no event for a status, and one that is no status has no code.
                    Err(kube::Error::Api(status)) if status.code == 0 => {
                        failed = Some(Error::Unreadable);
                    }
                    Err(error) => failed = Some(self.explained(error)),
                }
                if failed.is_some() {
                    // What follows an error is not taken in: it would be shown again, and nothing may be passed over.
                    break;
                }
            }
            let taken = self.ledger.happened(self.watched, &shown, arrived);
            if taken.reached.is_some() {
                standing.since = taken.reached;
            }
            if !shown.is_empty() {
                *moved = true;
                (standing.doubted, standing.lent) = (false, false);
            }
            if let Some(now) = taken.lower {
                return Err(Error::Restored {
                    now,
                    since: standing.since.clone().unwrap_or_default(),
                });
            }
            if taken.unreadable {
                return Err(Error::Unreadable);
            }
            if taken.overdue {
                return Err(Error::Overdue);
            }
            if let Some(error) = failed {
                return Err(gone(error, standing.since.as_deref().unwrap_or_default()));
            }
        }
    }

    async fn ask<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
        self.ask_within(self.timing.request, request).await
    }

    async fn ask_within<T>(
        &self,
        limit: Duration,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        match timeout(limit, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.explained(error)),
            Err(_) => Err(Error::NoAnswer(limit)),
        }
    }

    /// With what to do about it, where that can be said.
    fn explained(&self, error: kube::Error) -> Error {
        match &error {
            kube::Error::Api(status) if status.code == 403 => {
                Error::Forbidden(Box::new(error), self.watched)
            }
            kube::Error::Api(status) if status.code == 404 => {
                Error::NotServed(self.watched.as_str())
            }
            _ => Error::Api(Box::new(error)),
        }
    }
}

impl Error {
    fn needs_a_list(&self) -> bool {
        matches!(
            self,
            Self::Expired(_) | Self::Unreadable | Self::Restored { .. } | Self::Due | Self::Overdue
        )
    }

    /// How long the API server, which has too much to do, wants to be left in peace; no time where it does not say.
    fn throttles(&self) -> Option<Duration> {
        let Self::Api(api) = self else { return None };
        let kube::Error::Api(status) = &**api else {
            return None;
        };
        let told = status
            .details
            .as_ref()
            .map_or(0, |details| details.retry_after_seconds);
        (status.code == 429).then(|| Duration::from_secs(told.into()))
    }
}

/// What can be done without a right.
fn instead(watched: Watched) -> &'static str {
    match watched {
        Watched::ApiKeys => ", or the name of the one namespace it may watch (--namespace)",
        Watched::Roles => ", or --cluster-objects=false where no roles are used",
    }
}

/// 410 says that what was between has been forgotten.
fn gone(error: Error, since: &str) -> Error {
    match &error {
        Error::Api(api) if matches!(&**api, kube::Error::Api(status) if status.code == 410) => {
            Error::Expired(since.to_owned())
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests;
