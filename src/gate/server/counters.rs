//! What the server counts.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// Counts of a server's connections and requests. All of them only grow, except `open`.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that are open now, those in a TLS handshake among them.
    pub open: Gauge,
    /// Connections that were accepted.
    pub accepted: Counter,
    /// Failures to accept a connection, such as too many open files.
    pub accept_errors: Counter,
    /// TLS handshakes that failed or were not done in time.
    pub refused_handshakes: Counter,
    /// Connections cut off because a request head did not come, or not to its end, in time.
    pub slow_heads: Counter,
    /// Connections cut off because the peer did not read its response, or a request did not end.
    pub stalled: Counter,
    /// Connections that had to wait because as many as allowed were open.
    pub waited: Counter,
    /// Connections cut off because others needed their place, or that of their requests.
    pub evicted: Counter,
    /// Requests refused because too many were in flight, or too many bytes of their bodies.
    pub refused_requests: Counter,
}

impl Counters {
    /// Counts a connection as open until the returned value is dropped.
    pub(super) fn opened(self: &Arc<Self>) -> Open {
        self.accepted.inc();
        self.open.inc();
        Open(self.clone())
    }
}

/// An open connection.
pub(super) struct Open(Arc<Counters>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.dec();
    }
}
