//! What the listeners count. Plain numbers: the gate's metrics read them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number of connections or requests.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// The number now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts of a server's connections and requests. All of them only grow, except `open`.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that are open now, those in a TLS handshake among them.
    pub open: Count,
    /// Connections that were accepted.
    pub accepted: Count,
    /// Failures to accept a connection, such as too many open files.
    pub accept_errors: Count,
    /// TLS handshakes that failed or were not done in time.
    pub refused_handshakes: Count,
    /// Connections cut off because a request head did not come, or not to its end, in time.
    pub slow_heads: Count,
    /// Connections cut off because the peer did not read its response, or a request did not end.
    pub stalled: Count,
    /// Connections that had to wait because as many as allowed were open.
    pub waited: Count,
    /// Connections cut off because others needed their place, or that of their requests.
    pub evicted: Count,
    /// Requests refused because too many were in flight, or too many bytes of their bodies.
    pub refused_requests: Count,
}

impl Counters {
    /// Counts a connection as open until the returned value is dropped.
    pub(super) fn opened(self: &Arc<Self>) -> Open {
        self.accepted.increment();
        self.open.increment();
        Open(self.clone())
    }
}

/// An open connection.
pub(super) struct Open(Arc<Counters>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.0.fetch_sub(1, Ordering::Relaxed);
    }
}
