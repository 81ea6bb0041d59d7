//! The fence: a process that may no longer lead cannot write, whatever its tasks believe.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request};
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

const CLOSED: u64 = 0;
const ALWAYS: u64 = u64::MAX;

/// The instant until which this process may change anything; cheap to clone, every clone is the same fence.
#[derive(Clone)]
pub struct Fence(Arc<Inner>);

struct Inner {
    origin: Instant,
    /// Nanoseconds after `origin`, [`CLOSED`] or [`ALWAYS`].
    until: AtomicU64,
}

/// A write was stopped because this process does not, or no longer, hold the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fenced {
    /// The write never left.
    #[error("write refused: this process does not hold the leader lease")]
    Refused,
    /// The lease ran out while the write was under way: it may or may not have been applied.
    #[error(
        "write abandoned: the leader lease ran out before the answer came; it may have been applied"
    )]
    Abandoned,
}

/// Whether a request failed at the [`Fence`] rather than at the API server.
#[must_use]
pub fn is_fenced(error: &kube::Error) -> bool {
    let kube::Error::Service(service) = error else {
        return false;
    };
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(service.as_ref());
    while let Some(error) = cause {
        if error.is::<Fenced>() {
            return true;
        }
        cause = error.source();
    }
    false
}

impl Fence {
    /// A fence nothing passes until an election extends it.
    #[must_use]
    pub fn closed() -> Self {
        Self::with(CLOSED)
    }

    /// A fence everything passes for ever: `--leader-election=false`.
    #[must_use]
    pub fn open() -> Self {
        Self::with(ALWAYS)
    }

    fn with(until: u64) -> Self {
        Self(Arc::new(Inner {
            origin: Instant::now(),
            until: AtomicU64::new(until),
        }))
    }

    /// Whether this process may change something now.
    ///
    /// # Errors
    /// [`Fenced::Refused`] once the deadline has passed, or before the lease was ever held.
    pub fn check(&self) -> Result<(), Fenced> {
        match self.0.until.load(Ordering::Acquire) {
            ALWAYS => Ok(()),
            until if nanos(self.0.origin.elapsed()) < until => Ok(()),
            _ => Err(Fenced::Refused),
        }
    }

    /// The layer which holds every write of a client to this fence; see [`FenceLayer`].
    #[must_use]
    pub fn layer(&self) -> FenceLayer {
        FenceLayer(self.clone())
    }

    /// Lets writes pass until `deadline`; never takes anything back.
    pub(super) fn extend(&self, deadline: Instant) {
        let until = nanos(deadline.saturating_duration_since(self.0.origin)).min(ALWAYS - 1);
        self.0.until.fetch_max(until, Ordering::AcqRel);
    }

    /// Lets nothing pass from now on.
    pub(super) fn close(&self) {
        self.0.until.store(CLOSED, Ordering::Release);
    }

    /// Returns once the fence does not pass any more, however often it is extended before.
    async fn shut(&self) {
        while self.check().is_ok() {
            match self.0.until.load(Ordering::Acquire) {
                CLOSED => return,
                ALWAYS => std::future::pending().await,
                until => {
                    tokio::time::sleep_until(self.0.origin + Duration::from_nanos(until)).await;
                }
            }
        }
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passes = self.check().is_ok();
        f.debug_struct("Fence")
            .field("passes", &passes)
            .finish_non_exhaustive()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Puts a [`Fence`] before a client: `ClientBuilder::try_from(config)?.with_layer(&fence.layer()).build()`.
///
/// Requests other than GET, HEAD and OPTIONS are checked as they are handed on, and abandoned when the lease runs out
/// before the answer: that also ends retries by layers further in. Lists and watches pass always.
#[derive(Clone, Debug)]
pub struct FenceLayer(Fence);

impl<S> Layer<S> for FenceLayer {
    type Service = FenceService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        FenceService {
            fence: self.0.clone(),
            inner,
        }
    }
}

/// See [`FenceLayer`].
#[derive(Clone, Debug)]
pub struct FenceService<S> {
    fence: Fence,
    inner: S,
}

impl<S, B> Service<Request<B>> for FenceService<S>
where
    S: Service<Request<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    S::Response: 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::OPTIONS
        ) {
            let answer = self.inner.call(request);
            return Box::pin(async move { answer.await.map_err(Into::into) });
        }
        if let Err(fenced) = self.fence.check() {
            return Box::pin(async move { Err(fenced.into()) });
        }
        let answer = self.inner.call(request);
        let fence = self.fence.clone();
        Box::pin(async move {
            // The fence is asked first: after a freeze both are ready, and the request must not go on.
            tokio::select! {
                biased;
                () = fence.shut() => Err(Fenced::Abandoned.into()),
                answer = answer => answer.map_err(Into::into),
            }
        })
    }
}

#[cfg(test)]
mod tests;
