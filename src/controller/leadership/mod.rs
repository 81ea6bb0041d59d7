//! Leader election over a `coordination.k8s.io/v1` Lease, as client-go does it, with a fence.
//!
//! - [`evaluate`] decides, without I/O or clock, whether a candidate may take the lease.
//! - [`Elector`] carries the decision to the API server and announces [`Leadership`].
//! - [`Fence`] stands before the client of the reconcilers: a write passes only while the lease is surely ours.
//!
//! The lease is advisory. A write sent within the term may be applied after it, so every write stays idempotent and
//! names the uid or resourceVersion it means.

mod election;
mod elector;
mod fence;
mod timing;

pub use election::{Decision, Record, evaluate};
pub use elector::Elector;
pub use fence::{Fence, FenceLayer, FenceService, Fenced, is_fenced};
pub use timing::{Timing, TimingError};

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// What this process is in the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// Another leads, or nobody yet; also after an orderly release.
    Standby,
    /// The lease names us: work may begin, and passes the [`Fence`].
    Leading,
    /// We led and could not renew in time, or were replaced: all work must stop and the process exit.
    Lost,
}

/// How an orderly end is told to an [`Elector`]: `requested`, then stop the work, then `drained`.
///
/// ```text
/// shutdown.requested.cancel();   // a standby leaves at once; a leader goes on renewing
/// work.stop().await;             // nothing writes any more
/// shutdown.drained.cancel();     // a leader gives the lease back and leaves
/// election.await
/// ```
/// The order is the same whether the process leads or not.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Do not become leader any more.
    pub requested: CancellationToken,
    /// The work has stopped; implies `requested`.
    pub drained: CancellationToken,
}

/// Why an election went wrong.
#[derive(Debug, thiserror::Error)]
pub enum LeadershipError {
    /// We led and must stop; the process should exit.
    #[error("leadership of lease {lease} is lost: {reason}")]
    LeadershipLost {
        /// `namespace/name`.
        lease: String,
        /// What happened, with the last error met.
        reason: String,
    },
    /// The service account may not do what an election needs.
    #[error(
        "not allowed to {verb} leases.coordination.k8s.io {name} in namespace {namespace}: \
         the role needs the verbs get, create and update on leases: {message}"
    )]
    Forbidden {
        /// The verb, as in a Role.
        verb: &'static str,
        /// The namespace of the Lease.
        namespace: String,
        /// The name of the Lease.
        name: String,
        /// What the API server said.
        message: String,
    },
    /// The API server did not answer in time: a write may have been applied.
    #[error("{verb} lease {lease}: no answer within {after:?}")]
    TimedOut {
        /// What was asked.
        verb: &'static str,
        /// `namespace/name`.
        lease: String,
        /// How long we waited.
        after: Duration,
    },
    /// The request failed in another way; a 409 means that somebody was faster.
    #[error("{verb} lease {lease}: {}", crate::telemetry::describe(source))]
    Request {
        /// What was asked.
        verb: &'static str,
        /// `namespace/name`.
        lease: String,
        /// What went wrong.
        source: kube::Error,
    },
}

impl LeadershipError {
    /// Whether another write came first: the Lease exists already, or is no longer the version seen.
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Request { source: kube::Error::Api(status), .. } if status.code == 409)
    }
}
