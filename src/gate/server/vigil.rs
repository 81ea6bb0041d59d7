//! The deadlines of one connection.
//!
//! hyper's own limit on the head of a request counts the time between two requests as well. Here the head's time begins with its
//! first byte, so that an idle connection may stay long and a head that comes byte by byte may not. What is read from the
//! connection, requests that begin and responses that end are noted in one [`Vigil`]; whoever drives the connection asks it what is
//! overdue.
//!
//! Over HTTP/2 bytes say nothing (pings and window updates come at any time). There hyper's pings find a peer that stops in the
//! middle of a frame: it cannot answer them.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::framing::Framing;
use super::limits::Limits;
use super::room::{Room, Taken};

/// What every HTTP/2 connection begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long an idle connection that was asked to close may take to do so.
const FAREWELL: Duration = Duration::from_secs(5);

/// What a connection has not done in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// To send the head of a request. It is cut off.
    Head,
    /// To send a request at all; it is idle and may close in peace.
    Idle,
    /// To take what is sent to it, or to end a request. It is cut off.
    Progress,
}

/// The state of one connection, shared between its reader, its requests and its driver.
#[derive(Clone)]
pub(super) struct Vigil(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    limits: Limits,
    /// For heads that are not whole yet.
    room: Room,
    crowded: Arc<AtomicUsize>,
}

struct State {
    speech: Speech,
    /// When a request last began or ended, or the connection began.
    moved: Instant,
    /// Whether a request has ever come.
    asked: bool,
    /// When each request under way began, the first one first.
    requests: Vec<Instant>,
    /// When the first byte of a head came that is not whole yet. HTTP/1 only.
    head: Option<Instant>,
    /// What has come of it.
    pieces: Pieces,
    /// Where in the stream the connection is. HTTP/1 only.
    framing: Framing,
    /// Since when the peer takes nothing.
    stalled: Option<Instant>,
    /// When the connection was asked to close.
    farewell: Option<Instant>,
    /// When it ends, whatever it does.
    end: Option<Instant>,
}

/// A head that is not whole yet. Most come in one piece, which takes no room.
#[derive(Default)]
struct Pieces {
    bytes: usize,
    room: Option<Taken>,
    /// There was no room for more.
    refused: bool,
}

impl Pieces {
    fn add(&mut self, bytes: usize, room: &Room) {
        let first = self.bytes == 0;
        self.bytes += bytes;
        if first {
            return;
        }
        // With the second piece, the first is counted, too.
        let more = if self.room.is_some() {
            bytes
        } else {
            self.bytes
        };
        match (
            u32::try_from(more).ok().and_then(|more| room.now(more)),
            &mut self.room,
        ) {
            (Some(more), Some(taken)) => taken.merge(more),
            (Some(taken), none) => *none = Some(taken),
            (None, _) => self.refused = true,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Speech {
    /// So many bytes were as HTTP/2 begins.
    Unknown(usize),
    Http1,
    Http2,
}

impl Vigil {
    /// A connection that begins now, with its peer's room for heads. `crowded` tells how many others wait for its place.
    pub(super) fn new(limits: Limits, room: Room, crowded: Arc<AtomicUsize>) -> Self {
        let state = State {
            speech: Speech::Unknown(0),
            moved: Instant::now(),
            asked: false,
            requests: Vec::new(),
            head: None,
            pieces: Pieces::default(),
            framing: Framing::default(),
            stalled: None,
            farewell: None,
            end: None,
        };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            limits,
            room,
            crowded,
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
        state.recognize(bytes);
        if state.speech == Speech::Http2 {
            (state.head, state.pieces) = (None, Pieces::default());
            return;
        }
        let of_head = state.framing.read(bytes);
        if of_head && state.requests.is_empty() && state.head.is_none() {
            state.head = Some(Instant::now());
        }
        if state.head.is_some() {
            state.pieces.add(bytes.len(), &self.0.room);
        }
    }

    /// Writing could go on, or could not.
    pub(super) fn wrote(&self, pending: bool) {
        let mut state = self.state();
        if !pending {
            state.stalled = None;
        } else if state.stalled.is_none() {
            state.stalled = Some(Instant::now());
        }
    }

    /// The head of a request is whole; its body has this length, or chunks. The request ends when the answer is dropped.
    pub(super) fn begin(&self, body: Option<u64>) -> UnderWay {
        let mut state = self.state();
        let now = Instant::now();
        (state.head, state.pieces) = (None, Pieces::default());
        state.framing.begin(body);
        state.asked = true;
        state.requests.push(now);
        state.moved = now;
        drop(state);
        UnderWay {
            vigil: self.clone(),
            begun: now,
        }
    }

    /// The connection was asked to close.
    pub(super) fn say_farewell(&self) {
        self.state().farewell = Some(Instant::now());
    }

    /// The connection was asked to close, and has as long for its requests as a server that stops.
    pub(super) fn retire(&self) {
        self.state().end = Some(Instant::now() + self.0.limits.drain);
    }

    /// What is next to be overdue, and when.
    fn next(&self) -> (Instant, Overdue) {
        let (state, limits) = (self.state(), &self.0.limits);
        let waiting = if let Some(begun) = state.requests.first() {
            (*begun + limits.request, Overdue::Progress)
        } else if let (true, Some(head)) = (state.asked, state.head) {
            // It is idle no more: closing it in peace would take its request with it.
            (head + limits.head, Overdue::Head)
        } else if let Some(farewell) = state.farewell {
            (farewell + FAREWELL, Overdue::Progress)
        } else if state.asked || state.speech == Speech::Http2 {
            let crowded = self.0.crowded.load(Ordering::Relaxed) > 0;
            let idle = match state.asked {
                true if crowded => limits.crowded_idle.min(limits.idle),
                true => limits.idle,
                false => limits.first_request,
            };
            // It may hold a part of a head that came with the last request.
            let idle = if state.framing.unsure() && state.speech != Speech::Http2 {
                idle.min(limits.head)
            } else {
                idle
            };
            (state.moved + idle, Overdue::Idle)
        } else {
            (state.moved + limits.first_request, Overdue::Head)
        };
        let head = state.head.map(|since| {
            if state.pieces.refused {
                since
            } else {
                since + limits.head
            }
        });
        let head = head.map(|end| (end, Overdue::Head));
        let stalled = state
            .stalled
            .map(|since| (since + limits.write, Overdue::Progress));
        let end = state.end.map(|end| (end, Overdue::Progress));
        [head, stalled, end]
            .into_iter()
            .flatten()
            .fold(
                waiting,
                |first, other| if other.0 < first.0 { other } else { first },
            )
    }
}

impl State {
    fn recognize(&mut self, bytes: &[u8]) {
        let Speech::Unknown(matched) = self.speech else {
            return;
        };
        let wanted = PREFACE.get(matched..).unwrap_or_default();
        self.speech = if bytes.starts_with(wanted) {
            Speech::Http2
        } else if wanted.starts_with(bytes) {
            Speech::Unknown(matched + bytes.len())
        } else {
            Speech::Http1
        };
    }
}

/// A request under way.
pub(super) struct UnderWay {
    vigil: Vigil,
    begun: Instant,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.vigil.state();
        // Of those that began at the same moment, any will do.
        if let Ok(place) = state.requests.binary_search(&self.begun) {
            state.requests.remove(place);
        }
        state.framing.end();
        state.moved = Instant::now();
    }
}

/// The clock of a vigil.
pub(super) struct Watch {
    vigil: Vigil,
    timer: Pin<Box<Sleep>>,
}

impl Watch {
    pub(super) fn new(vigil: Vigil) -> Self {
        let (at, _) = vigil.next();
        let look = at.min(Instant::now() + vigil.0.limits.crowded_idle);
        Self {
            vigil,
            timer: Box::pin(tokio::time::sleep_until(look)),
        }
    }

    /// Ready when something is overdue. To be polled after the connection, in whose turn its requests begin and end.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Overdue> {
        loop {
            let (at, what) = self.vigil.next();
            // A timer that is too early is left alone and finds the right time when it fires: setting it costs more than a look.
            if at < self.timer.deadline() || self.timer.is_elapsed() {
                // Nobody tells the idle that it has become crowded: they look from time to time.
                self.timer
                    .as_mut()
                    .reset(at.min(Instant::now() + self.vigil.0.limits.crowded_idle));
            }
            if self.timer.as_mut().poll(context).is_pending() {
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
