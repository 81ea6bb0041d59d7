//! A reverse proxy that stands between the operator and a real kube-apiserver and misbehaves on
//! request: it answers in the API server's place, loses requests or replies, stops the operator at
//! an exact request, freezes watches, ages resource versions, shifts the clock.
//!
//! ```ignore
//! let proxy = Proxy::start(&control_plane.url(), Some(control_plane.ca_pem()));
//! // ... the operator runs against proxy.url() with its own bearer token ...
//! proxy.reset();
//! let fault = proxy.on(
//!     Matcher::call(Verb::Update, "apikeys/status").ordinal(1),
//!     When::After, // or When::Before: the API server never sees the request
//!     Fault::call(move || operator.kill()),
//! );
//! create_apikey();
//! assert!(fault.fired(Duration::from_secs(10)));
//! ```
//!
//! The proxy runs on a small runtime of its own and every call here is synchronous, so that it
//! works from any test, inside or outside an async context. Dropping it closes every connection.
//!
//! A request that has reached the proxy goes on to the API server even if its sender is gone by
//! then, as a packet in flight would: this is what makes "the late write of a dead leader" testable.
#![allow(
    dead_code,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support: not every story uses every fault, and a broken test may stop at once"
)]

mod call;
mod exchange;
mod fault;
mod journal;
mod matcher;
mod signal;
mod status;
pub(crate) mod tests;
mod upstream;
mod watches;

pub(crate) use call::{Call, Verb};
pub(crate) use fault::{Fault, Rule, When};
pub(crate) use journal::Record;
pub(crate) use matcher::Matcher;
pub(crate) use signal::Hold;
pub(crate) use watches::Gone;

use exchange::Shared;
use std::{net::SocketAddr, sync::Arc, sync::atomic::Ordering, time::Duration};
use tokio::runtime::Runtime;

/// A running proxy; see the [module](self).
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// `None` only while dropping.
    runtime: Option<Runtime>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and forwards to `upstream`, an `https://` or `http://`
    /// URL of scheme and authority. `ca_pem` is what signs an `https` upstream.
    pub(crate) fn start(upstream: &str, ca_pem: Option<&str>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("fault-proxy")
            .enable_all()
            .build()
            .expect("the proxy's runtime");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port for the proxy");
        let address = listener.local_addr().expect("the proxy's address");
        listener
            .set_nonblocking(true)
            .expect("a non-blocking listener");
        let shared = Arc::new(Shared::new(upstream, ca_pem));
        let serving = shared.clone();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("the listener");
            exchange::serve(serving, listener).await;
        });
        Self {
            address,
            shared,
            runtime: Some(runtime),
        }
    }

    /// Where the operator's kubeconfig points: `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig (YAML) for this proxy with a bearer token.
    pub(crate) fn kubeconfig(&self, token: &str) -> String {
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": self.url()}}],
            "users": [{"name": "proxy", "user": {"token": token}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        });
        config.to_string() // JSON is YAML
    }
}

/// What was asked, in order of arrival.
impl Proxy {
    /// Forgets all records and starts every ordinal at 1 again. Faults stay.
    pub(crate) fn reset(&self) {
        self.shared.journal.reset();
    }

    /// Every request since the last [`reset`](Self::reset), with its outcome so far.
    pub(crate) fn calls(&self) -> Vec<Record> {
        self.shared.journal.records()
    }

    /// The requests that change state: no reads, no dry runs; delivered or not
    /// ([`Record::upstream`] tells).
    pub(crate) fn mutations(&self) -> Vec<Record> {
        let mut records = self.calls();
        records.retain(|record| record.call.is_mutation());
        records
    }

    /// How many requests since the last reset satisfy `wanted`.
    pub(crate) fn count(&self, wanted: impl Fn(&Call) -> bool) -> usize {
        let records = self.calls();
        records.iter().filter(|record| wanted(&record.call)).count()
    }

    /// Blocks until a record satisfies `wanted`; `false` when `limit` passes first.
    pub(crate) fn wait_for(&self, limit: Duration, wanted: impl Fn(&Record) -> bool) -> bool {
        self.shared.journal.wait(limit, wanted)
    }

    /// Blocks until no request satisfying `counted` has arrived for `silence`; `false` when `limit`
    /// passes first. With `Call::is_mutation` this is "the operator has come to rest".
    pub(crate) fn wait_quiet(
        &self,
        silence: Duration,
        limit: Duration,
        counted: impl Fn(&Call) -> bool,
    ) -> bool {
        self.shared.journal.wait_quiet(silence, limit, counted)
    }

    /// Keeps the bodies of requests and answers in the records from now on (not those of watches).
    pub(crate) fn record_bodies(&self, yes: bool) {
        self.shared.record_bodies.store(yes, Ordering::SeqCst);
    }
}

/// What goes wrong.
impl Proxy {
    /// Arranges for `fault` to happen once to a request that `matcher` accepts; the [`Rule`] makes
    /// it more often, removes it, or waits for it. Of several rules that accept one request the
    /// oldest acts.
    pub(crate) fn on(&self, matcher: Matcher, when: When, fault: Fault) -> Rule {
        self.shared.faults.add(matcher, when, fault)
    }

    /// Removes every rule. Requests that hang are dropped, those delayed by a [`Hold`] stay with it.
    pub(crate) fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    /// While down, open connections are cut and new ones closed at once.
    pub(crate) fn set_upstream_down(&self, down: bool) {
        self.shared.down.send_replace(down);
    }

    /// Moves the `Date` header of every answer by `seconds`: an API server whose clock differs.
    pub(crate) fn shift_date(&self, seconds: i64) {
        self.shared.date_shift.store(seconds, Ordering::SeqCst);
    }
}

/// What watches see. A `resource` is the plural without its group. Lists are never touched.
impl Proxy {
    /// Keeps back the events of present and future watches until [`release_watches`](Self::release_watches).
    pub(crate) fn hold_watches(&self, resource: &str) {
        self.shared.watches.hold(resource, true);
    }

    /// Delivers what was kept back, in order.
    pub(crate) fn release_watches(&self, resource: &str) {
        self.shared.watches.hold(resource, false);
    }

    /// Lets nothing out of the watches that are open, not even their end, for ever. Those begun later are as usual.
    pub(crate) fn deaden_watches(&self, resource: &str) {
        self.shared.watches.deaden(resource);
    }

    /// Loses all events, bookmarks too, until [`expire_watches`](Self::expire_watches).
    pub(crate) fn swallow_watch_events(&self, resource: &str) {
        self.shared.watches.swallow(resource);
    }

    /// Ends the open watches in an orderly manner, as the server's own time limit does. Events
    /// held at that moment are lost with them; a client that resumes gets them again.
    pub(crate) fn cut_watches(&self, resource: &str) {
        self.shared.watches.cut(resource);
    }

    /// Ends the open watches and answers the next attempt to resume each of them as if its
    /// resource version had been compacted away, in the way the API server does it (200 and an
    /// `ERROR` event with code 410). Stops swallowing. The client has to list again.
    pub(crate) fn expire_watches(&self, resource: &str) {
        self.shared.watches.expire(resource, Gone::Event);
    }

    /// As [`expire_watches`](Self::expire_watches), choosing how the refusal is told.
    pub(crate) fn expire_watches_as(&self, resource: &str, gone: Gone) {
        self.shared.watches.expire(resource, gone);
    }

    /// How many watches are open.
    pub(crate) fn open_watches(&self, resource: &str) -> usize {
        self.shared.watches.open(resource)
    }

    /// Blocks until `events` events (no bookmarks) were kept back or swallowed since the last
    /// `hold_watches` or `swallow_watch_events`, summed over all watches of the resource.
    pub(crate) fn wait_stopped_events(&self, resource: &str, events: u64, limit: Duration) -> bool {
        self.shared.watches.wait_stopped(resource, events, limit)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.down.send_replace(true);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background(); // the only way that is allowed in an async context
        }
    }
}
