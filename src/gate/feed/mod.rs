//! Follows the API server: a consistent list of everything, then a watch from there, for ever. One [`Feed`] for ApiKeys, one for roles.
//!
//! Our own loop, because what a library hides is what a gate must know: bookmarks (which resourceVersion the index has reached, that
//! the watch lives), where a list stands, and a back-off of milliseconds instead of half a minute. A watch lasts
//! [`Timing::watch`] and is then begun anew from where it was, so that one which died silently is found out. What went while
//! no watch ran shows in a list by its absence, and is taken out of the index there.

mod backoff;
mod ledger;
mod wire;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
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

/// Objects in a page of a list.
const PAGE: u32 = 500;
/// Events that are taken in at once when they are there: the index is published once for all of them.
const BATCH: usize = 256;
/// How much later than it should a watch may end before it counts as dead.
pub(super) const GRACE: Duration = Duration::from_secs(5);

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

/// Why a list or a watch ended.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The API server has forgotten what was between: everything has to be listed anew.
    #[error("the API server has forgotten the changes since resourceVersion {0}")]
    Expired(String),
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
    pub fn new(client: Client, watched: Watched, namespace: Option<&str>, ledger: Arc<Ledger>, timing: Timing) -> Self {
        let group = "/apis/claviger.dev/v1alpha1";
        let path = match (watched, namespace) {
            (Watched::ApiKeys, None) => format!("{group}/apikeys"),
            (Watched::ApiKeys, Some(namespace)) => format!("{group}/namespaces/{namespace}/apikeys"),
            (Watched::Roles, _) => format!("{group}/apikeyroles"),
        };
        Self { client, watched, path, ledger, timing }
    }

    /// Follows until `token` is cancelled.
    pub async fn run(self, token: CancellationToken) {
        let _ = token.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&self) {
        let mut since: Option<String> = None;
        let mut backoff = Backoff::default();
        loop {
            let begun = Instant::now();
            let done = match &mut since {
                None => self.list().await.map(|reached| since = Some(reached)),
                Some(since) => self.watch(since).await,
            };
            let Err(error) = done else { continue };
            self.ledger.restarted(self.watched, &error.to_string());
            if matches!(error, Error::Expired(_)) {
                since = None;
            }
            let (pause, tell) = backoff.failed(begun.elapsed());
            if tell {
                tracing::warn!(path = self.path, %error, "the watch is begun anew");
            } else {
                tracing::debug!(path = self.path, %error, "the watch is begun anew");
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Takes in everything there is, as it is now: a list without a resourceVersion is a consistent read. Returns where it stands.
    async fn list(&self) -> Result<String, Error> {
        let mut listed: HashSet<Uid> = HashSet::new();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let request = Request::new(self.path.clone()).list(&params).map_err(Error::Request)?;
            let page: Page = self.ask(self.client.request(request)).await?;
            self.ledger.listed(self.watched, &page.items, &mut listed);
            match page.metadata.next {
                Some(next) if !next.is_empty() => params.continue_token = Some(next),
                _ => {
                    self.ledger.list_ends(self.watched, &listed, &page.metadata.resource_version);
                    tracing::debug!(path = self.path, objects = listed.len(), "listed");
                    return Ok(page.metadata.resource_version);
                }
            }
        }
    }

    /// Takes in what changes, until the watch ends. `since` is always where the index stands.
    async fn watch(&self, since: &mut String) -> Result<(), Error> {
        let seconds = u32::try_from(self.timing.watch.as_secs()).unwrap_or(u32::MAX).max(1);
        let params = WatchParams { timeout: Some(seconds), bookmarks: true, ..WatchParams::default() };
        let request = Request::new(self.path.clone()).watch(&params, since).map_err(Error::Request)?;
        let events = self.ask(self.client.request_events::<Box<RawValue>>(request)).await.map_err(|error| gone(error, since))?;
        // It answers, and would have said if it had forgotten what was between.
        self.ledger.heard(self.watched);
        let silence = self.timing.watch + GRACE;
        let mut events = std::pin::pin!(events.ready_chunks(BATCH));
        loop {
            let batch = match timeout(silence, events.next()).await {
                Ok(Some(batch)) => batch,
                Ok(None) => return Ok(()),
                Err(_) => return Err(Error::Silent(silence)),
            };
            let (mut shown, mut failed) = (Vec::with_capacity(batch.len()), None);
            for event in batch {
                match event {
                    Ok(WatchEvent::Error(status)) => failed = Some(Error::Api(Box::new(kube::Error::Api(status)))),
                    Ok(event) => shown.push(event),
                    Err(error) => failed = Some(Error::Api(Box::new(error))),
                }
                if failed.is_some() {
                    // What follows an error is not taken in: it would be shown again, and nothing may be passed over.
                    break;
                }
            }
            if let Some(reached) = self.ledger.happened(self.watched, &shown) {
                *since = reached;
            }
            if let Some(error) = failed {
                return Err(gone(error, since));
            }
        }
    }

    async fn ask<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
        match timeout(self.timing.request, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Error::Api(Box::new(error))),
            Err(_) => Err(Error::NoAnswer(self.timing.request)),
        }
    }
}

/// 410 says that what was between has been forgotten.
fn gone(error: Error, since: &str) -> Error {
    match &error {
        Error::Api(api) if matches!(&**api, kube::Error::Api(status) if status.code == 410) => Error::Expired(since.to_owned()),
        _ => error,
    }
}
