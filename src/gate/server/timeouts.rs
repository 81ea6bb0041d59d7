//! The timeouts of one connection.
//!
//! What is read from the connection, requests that begin and responses that end are noted in one
//! [`ConnectionTimeouts`]; the task of the connection asks its [`Timer`] what has run out.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use super::head_tracker::{Head, HeadTracker};
use super::limits::Limits;

/// What a connection did not do in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    /// To send the head of a request. The connection is cut off.
    Head,
    /// To end a request, to read a response, or to close. The connection is cut off.
    Progress,
    /// To send another request, or it is old. It closes after the requests that it has begun.
    Use,
}

/// The state of one connection, shared by its reader, its requests, its task, and those who look
/// for a connection that can make way.
#[derive(Clone)]
pub(super) struct ConnectionTimeouts(Arc<Shared>);

struct Shared {
    limits: Limits,
    /// When the connection is old.
    old: Instant,
    state: Mutex<State>,
}

struct State {
    head_tracker: HeadTracker,
    /// When the head that is under way began.
    head: Option<Instant>,
    /// When each request in flight began, the first one first.
    requests: Vec<Instant>,
    /// Since when no request is in flight, where none is.
    idle: Instant,
    /// Whether a request has ever come.
    used: bool,
    /// Since when the peer reads nothing.
    stalled: Option<Instant>,
    /// Until when the connection has to close, where it was asked to.
    close: Option<Instant>,
}

impl ConnectionTimeouts {
    /// For a connection that begins now.
    pub(super) fn new(limits: Limits) -> Self {
        let now = Instant::now();
        let old = now + limits.age + limits.age.mul_f64(rand::random());
        let state = State {
            head_tracker: HeadTracker::Unknown(0),
            head: None,
            requests: Vec::new(),
            idle: now,
            used: false,
            stalled: None,
            close: None,
        };
        Self(Arc::new(Shared {
            limits,
            old,
            state: Mutex::new(state),
        }))
    }

    /// Nothing that holds the lock can panic halfway through a change.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These bytes came from the peer.
    pub(super) fn read(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut state = self.state();
        let idle = state.requests.is_empty();
        match state.head_tracker.read(bytes, idle) {
            Head::Same => {}
            Head::None => state.head = None,
            Head::New => state.head = Some(Instant::now()),
        }
    }

    /// The peer has read something, or is `pending` and reads nothing.
    pub(super) fn wrote(&self, something: bool, pending: bool) {
        let mut state = self.state();
        if something || !pending {
            state.stalled = None;
        }
        if pending && state.stalled.is_none() {
            state.stalled = Some(Instant::now());
        }
    }

    /// The head of a request is whole. The request ends when the returned value is dropped.
    pub(super) fn begin(&self, permit: OwnedSemaphorePermit) -> RequestInFlight {
        let mut state = self.state();
        let now = Instant::now();
        if state.head_tracker.end_http1_head() {
            state.head = None;
        }
        state.used = true;
        state.requests.push(now);
        drop(state);
        RequestInFlight {
            timeouts: self.clone(),
            begun: now,
            _permit: permit,
        }
    }

    /// The connection was asked to close.
    pub(super) fn close(&self) {
        let end = Instant::now() + self.0.limits.drain;
        self.state().close.get_or_insert(end);
    }

    /// Since when the server waits: for the end of the oldest request, or for another one.
    pub(super) fn waits_since(&self) -> Instant {
        let state = self.state();
        state.requests.first().copied().unwrap_or(state.idle)
    }

    /// Since when its oldest request is in flight; `None` where none is.
    pub(super) fn busy_since(&self) -> Option<Instant> {
        self.state().requests.first().copied()
    }

    /// What runs out next, and when.
    fn next(&self) -> (Instant, Expired) {
        let (state, limits) = (self.state(), &self.0.limits);
        let waits = match (state.requests.first(), state.close) {
            (Some(begun), _) => (*begun + limits.request, Expired::Progress),
            (None, Some(end)) => (end, Expired::Progress),
            (None, None) if state.used => (state.idle + limits.idle, Expired::Use),
            (None, None) => (state.idle + limits.first_request, Expired::Head),
        };
        // An idle HTTP/1 peer cannot be told to close before it sends its next request, and so that
        // response says it: see `RequestInFlight::is_last`.
        let old = (state.close.is_none() && state.head_tracker.is_http2())
            .then_some((self.0.old, Expired::Use));
        let head = state.head.map(|begun| (begun + limits.head, Expired::Head));
        let stalled = state
            .stalled
            .map(|since| (since + limits.write, Expired::Progress));
        let close = state.close.map(|end| (end, Expired::Progress));
        let others = [old, head, stalled, close].into_iter().flatten();
        others.fold(
            waits,
            |first, other| if other.0 < first.0 { other } else { first },
        )
    }
}

/// A request in flight.
pub(super) struct RequestInFlight {
    timeouts: ConnectionTimeouts,
    begun: Instant,
    /// Of [`Limits::requests`].
    _permit: OwnedSemaphorePermit,
}

impl RequestInFlight {
    /// Whether the connection is old: over HTTP/1 it ends with this request.
    pub(super) fn is_last(&self) -> bool {
        self.timeouts.0.old <= self.begun
    }
}

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        let mut state = self.timeouts.state();
        // Of those that began at the same moment, any will do.
        if let Ok(place) = state.requests.binary_search(&self.begun) {
            state.requests.remove(place);
        }
        if state.requests.is_empty() {
            state.idle = Instant::now();
        }
    }
}

/// The clock of a connection.
pub(super) struct Timer {
    timeouts: ConnectionTimeouts,
    sleep: Pin<Box<Sleep>>,
}

impl Timer {
    pub(super) fn new(timeouts: ConnectionTimeouts) -> Self {
        let (at, _) = timeouts.next();
        Self {
            timeouts,
            sleep: Box::pin(tokio::time::sleep_until(at)),
        }
    }

    /// Ready when something has run out. To be polled after the connection, in whose turn its
    /// requests begin and end.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Expired> {
        loop {
            let (at, what) = self.timeouts.next();
            // A sleep that ends too early is left alone: to look again then costs less than to reset
            // it at every request.
            if at < self.sleep.deadline() || self.sleep.is_elapsed() {
                self.sleep.as_mut().reset(at);
            }
            if self.sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if at <= Instant::now() {
                return Poll::Ready(what);
            }
        }
    }
}

#[cfg(test)]
mod tests;
