//! What can go wrong while working on one `ApiKey`. Messages name the call; the object is named by the span around them.

use std::time::Duration;

use super::leadership::is_fenced;

/// A step failed. It is tried again after the object's back-off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server could not be asked, or did not do what was asked.
    #[error("{call}: {}", crate::telemetry::describe(source))]
    Api {
        /// What was asked, such as `create secrets`.
        call: &'static str,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time. What was asked may have been done.
    #[error("{call}: no answer within {} s", limit.as_secs())]
    NoAnswer {
        /// What was asked.
        call: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// The whole reconciliation took too long.
    #[error("not done within {} s", .0.as_secs())]
    TooSlow(Duration),
    /// A bug of ours, contained to this object.
    #[error("panicked: {0}")]
    Panicked(String),
    /// The steps did not come to an end: a bug of ours.
    #[error("no end after {0} steps")]
    Endless(usize),
    /// The stored object does not fit the schema.
    #[error("the stored object cannot be read: {0}")]
    Undecodable(String),
    /// No key could be minted.
    #[error(transparent)]
    Mint(#[from] crate::key::MintError),
    /// The watches have ended: the process is shutting down.
    #[error("the watches have ended")]
    WatchesEnded,
    /// What was to be read or written is not there any more; the next look tells.
    #[error("{0}")]
    Overtaken(&'static str),
}

impl Error {
    /// One word for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(status) if status.is_conflict() => "conflict",
                kube::Error::Api(status) if status.is_forbidden() => "forbidden",
                kube::Error::Api(_) => "api",
                error if is_fenced(error) => "fenced",
                _ => "connection",
            },
            Self::NoAnswer { .. } => "no_answer",
            Self::TooSlow(_) => "too_slow",
            Self::Panicked(_) => "panic",
            Self::Endless(_) => "endless",
            Self::Undecodable(_) => "undecodable",
            Self::Mint(_) => "mint",
            Self::WatchesEnded => "shutdown",
            Self::Overtaken(_) => "overtaken",
        }
    }

    /// Whether another writer was faster: looking again soon is all that is needed.
    #[must_use]
    pub fn is_race(&self) -> bool {
        matches!(self.kind(), "conflict" | "overtaken")
    }
}

/// Whether there is no such object.
pub(super) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

/// Whether somebody else was faster, or has the name.
pub(super) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict() || status.is_already_exists())
}
