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

use futures::task::AtomicWaker;
use tokio::time::{Instant, Sleep};

use super::limits::Limits;

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
    driver: AtomicWaker,
    limits: Limits,
    crowded: Arc<AtomicUsize>,
}

#[derive(Clone, Copy)]
struct State {
    speech: Speech,
    /// When a request last began or ended, or the connection began.
    moved: Instant,
    /// Whether a request has ever come.
    asked: bool,
    requests: usize,
    /// When the first byte of a head came that is not whole yet. HTTP/1 only.
    head: Option<Instant>,
    /// The next bytes belong to a body that nobody wanted to read.
    unread: bool,
    /// Since when the peer takes nothing.
    stalled: Option<Instant>,
    /// When the connection was asked to close.
    farewell: Option<Instant>,
    /// When it ends, whatever it does.
    end: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Speech {
    /// So many bytes were as HTTP/2 begins.
    Unknown(usize),
    Http1,
    Http2,
}

impl Vigil {
    /// A connection that begins now. `crowded` tells how many others wait for its place.
    pub(super) fn new(limits: Limits, crowded: Arc<AtomicUsize>) -> Self {
        let state = State {
            speech: Speech::Unknown(0),
            moved: Instant::now(),
            asked: false,
            requests: 0,
            head: None,
            unread: false,
            stalled: None,
            farewell: None,
            end: None,
        };
        Self(Arc::new(Shared { state: Mutex::new(state), driver: AtomicWaker::new(), limits, crowded }))
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
        if state.speech == Speech::Http2 || state.requests > 0 {
            state.head = None;
        } else if !std::mem::take(&mut state.unread) && state.head.is_none() {
            state.head = Some(Instant::now());
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

    /// The head of a request is whole. The request ends when the answer is dropped.
    pub(super) fn begin(&self) -> UnderWay {
        let mut state = self.state();
        state.head = None;
        state.unread = false;
        state.asked = true;
        state.requests += 1;
        state.moved = Instant::now();
        drop(state);
        UnderWay(self.clone())
    }

    /// A request is answered without its body having been read.
    pub(super) fn leave_unread(&self) {
        self.state().unread = true;
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
        let (state, limits) = (*self.state(), &self.0.limits);
        let waiting = if state.requests > 0 {
            (state.moved + limits.request, Overdue::Progress)
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
            (state.moved + idle, Overdue::Idle)
        } else {
            (state.moved + limits.first_request, Overdue::Head)
        };
        let head = state.head.map(|since| (since + limits.head, Overdue::Head));
        let stalled = state.stalled.map(|since| (since + limits.write, Overdue::Progress));
        let end = state.end.map(|end| (end, Overdue::Progress));
        [head, stalled, end].into_iter().flatten().fold(waiting, |first, other| if other.0 < first.0 { other } else { first })
    }
}

impl State {
    fn recognize(&mut self, bytes: &[u8]) {
        let Speech::Unknown(matched) = self.speech else { return };
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
pub(super) struct UnderWay(Vigil);

impl UnderWay {
    /// The vigil over its connection.
    pub(super) fn vigil(&self) -> &Vigil {
        &self.0
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.requests = state.requests.saturating_sub(1);
        state.moved = Instant::now();
        let idle = state.requests == 0;
        drop(state);
        if idle {
            // HTTP/2 requests end in tasks of their own.
            self.0.0.driver.wake();
        }
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
        Self { vigil, timer: Box::pin(tokio::time::sleep_until(look)) }
    }

    /// Ready when something is overdue. To be polled after the connection, whose state it looks at.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Overdue> {
        self.vigil.0.driver.register(context.waker());
        loop {
            let (at, what) = self.vigil.next();
            // A timer that is too early is left alone and finds the right time when it fires: setting it costs more than a look.
            if at < self.timer.deadline() || self.timer.is_elapsed() {
                // Nobody tells the idle that it has become crowded: they look from time to time.
                self.timer.as_mut().reset(at.min(Instant::now() + self.vigil.0.limits.crowded_idle));
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
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            first_request: Duration::from_secs(3),
            head: Duration::from_secs(1),
            idle: Duration::from_secs(1000),
            request: Duration::from_secs(100),
            write: Duration::from_secs(10),
            ..Limits::default()
        }
    }

    fn new() -> Vigil {
        Vigil::new(limits(), Arc::default())
    }

    /// After how many seconds what is overdue, if nothing happens any more.
    async fn overdue(vigil: &Vigil) -> (u64, Overdue) {
        let begun = Instant::now();
        let mut watch = Watch::new(vigil.clone());
        let what = std::future::poll_fn(|context| watch.poll(context)).await;
        (begun.elapsed().as_secs(), what)
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_is_not_waited_for() {
        assert_eq!(overdue(&new()).await, (3, Overdue::Head));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_from_its_first_byte_on() {
        let vigil = new();
        pass(1).await;
        vigil.read(b"G");
        vigil.read(b"E");
        assert_eq!(overdue(&vigil).await, (1, Overdue::Head));
        let late = new();
        pass(2).await;
        late.read(b"P");
        pass(1).await;
        late.read(b"O");
        assert_eq!(overdue(&late).await, (0, Overdue::Head), "the second byte does not begin it anew");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_stays_and_its_next_head_has_its_time_again() {
        let vigil = new();
        vigil.read(b"GET / HTTP/1.1\r\n\r\n");
        drop(vigil.begin());
        assert_eq!(overdue(&vigil).await, (1000, Overdue::Idle));
        vigil.read(b"G");
        assert_eq!(overdue(&vigil).await, (1, Overdue::Head), "at the last moment it is idle no more");
        drop(vigil.begin());
        pass(500).await;
        vigil.read(b"G");
        assert_eq!(overdue(&vigil).await, (1, Overdue::Head));
    }

    #[tokio::test(start_paused = true)]
    async fn the_body_of_a_request_is_no_head() {
        let vigil = new();
        vigil.read(b"POST / HTTP/1.1\r\n\r\n");
        let request = vigil.begin();
        vigil.read(b"body");
        assert_eq!(overdue(&vigil).await, (100, Overdue::Progress));
        request.vigil().leave_unread();
        drop(request);
        vigil.read(b"the rest of the body");
        assert_eq!(overdue(&vigil).await, (1000, Overdue::Idle));
        vigil.read(b"G");
        assert_eq!(overdue(&vigil).await, (1, Overdue::Head));
    }

    #[tokio::test(start_paused = true)]
    async fn http2_may_say_what_it_likes_between_requests() {
        let vigil = new();
        vigil.read(&PREFACE[..10]);
        assert_eq!(vigil.next().1, Overdue::Head, "the preface has its time, too");
        vigil.read(&PREFACE[10..]);
        vigil.read(b"ping");
        assert_eq!(overdue(&vigil).await, (3, Overdue::Idle));
        let requests = (vigil.begin(), vigil.begin());
        pass(50).await;
        drop(requests.0);
        assert_eq!(overdue(&vigil).await, (100, Overdue::Progress), "the time of the other begins anew");
        drop(requests.1);
        vigil.read(b"ping");
        assert_eq!(overdue(&vigil).await, (1000, Overdue::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_cut_off() {
        let vigil = new();
        let _request = vigil.begin();
        vigil.wrote(true);
        pass(5).await;
        vigil.wrote(true);
        assert_eq!(overdue(&vigil).await, (5, Overdue::Progress));
        vigil.wrote(false);
        assert_eq!(vigil.next().0, Instant::now() + Duration::from_secs(90));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_ends_elsewhere_wakes_the_driver() {
        let short = Limits { idle: Duration::from_secs(2), ..limits() };
        let vigil = Vigil::new(short, Arc::default());
        let request = vigil.begin();
        let begun = Instant::now();
        let mut watch = Watch::new(vigil.clone());
        let elsewhere = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(request);
        });
        assert_eq!(std::future::poll_fn(|context| watch.poll(context)).await, Overdue::Idle);
        assert_eq!(begun.elapsed().as_secs(), 7);
        elsewhere.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_close_after_a_farewell_is_cut_off() {
        let vigil = new();
        drop(vigil.begin());
        vigil.say_farewell();
        assert_eq!(overdue(&vigil).await, (5, Overdue::Progress));
    }

    #[tokio::test(start_paused = true)]
    async fn the_idle_make_way_when_it_is_crowded() {
        let crowded = Arc::new(AtomicUsize::new(0));
        let limits = Limits { crowded_idle: Duration::from_secs(30), ..limits() };
        let vigil = Vigil::new(limits, crowded.clone());
        drop(vigil.begin());
        let others = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(100)).await;
            crowded.store(1, Ordering::Relaxed);
        });
        assert_eq!(overdue(&vigil).await, (120, Overdue::Idle), "at the next look");
        others.await.unwrap();
        let _request = vigil.begin();
        assert_eq!(overdue(&vigil).await, (100, Overdue::Progress), "a request under way is not cut short");
    }

    #[tokio::test(start_paused = true)]
    async fn a_retired_connection_ends_whatever_it_does() {
        let vigil = new();
        vigil.retire();
        pass(19).await;
        let _request = vigil.begin();
        assert_eq!(overdue(&vigil).await, (1, Overdue::Progress));
    }
}
