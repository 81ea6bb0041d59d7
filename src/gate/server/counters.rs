//! What the listeners count. Plain numbers: the gate's metrics read them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of a server's connections. All of them only grow, except [`Counters::open`].
#[derive(Debug, Default)]
pub struct Counters {
    open: AtomicU64,
    accepted: AtomicU64,
    accept_errors: AtomicU64,
    refused_handshakes: AtomicU64,
    slow_heads: AtomicU64,
    stalled: AtomicU64,
    waited: AtomicU64,
}

impl Counters {
    /// Connections that are open now, those in a TLS handshake among them.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections that were ever accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Failures to accept a connection, such as too many open files.
    #[must_use]
    pub fn accept_errors(&self) -> u64 {
        self.accept_errors.load(Ordering::Relaxed)
    }

    /// TLS handshakes that failed or were not done in time.
    #[must_use]
    pub fn refused_handshakes(&self) -> u64 {
        self.refused_handshakes.load(Ordering::Relaxed)
    }

    /// Connections cut off because the head of a request did not come, or not to its end, in time.
    #[must_use]
    pub fn slow_heads(&self) -> u64 {
        self.slow_heads.load(Ordering::Relaxed)
    }

    /// Connections cut off because the peer did not read its answer, or a request did not end.
    #[must_use]
    pub fn stalled(&self) -> u64 {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Connections that had to wait because as many as allowed were open.
    #[must_use]
    pub fn waited(&self) -> u64 {
        self.waited.load(Ordering::Relaxed)
    }

    /// Counts a connection as open until the answer is dropped.
    pub(super) fn opened(self: &Arc<Self>) -> Open {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }

    pub(super) fn accept_failed(&self) {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn handshake_refused(&self) {
        self.refused_handshakes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn head_was_slow(&self) {
        self.slow_heads.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn peer_stalled(&self) {
        self.stalled.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connection_waits(&self) {
        self.waited.fetch_add(1, Ordering::Relaxed);
    }
}

/// An open connection.
pub(super) struct Open(Arc<Counters>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
