//! One connection from its first byte to its last.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn, ready};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use http::{Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::body::Bodies;
use super::counters::Counters;
use super::gathered::Gathered;
use super::limits::Limits;
use super::room::Room;
use super::streams::{Begun, Streams};
use super::vigil::{Overdue, Vigil, Watch};
use super::watched::{ResponseBody, Watched};

/// Why a connection ended.
type Failure = Box<dyn Error + Send + Sync>;

/// Bytes of one body that an HTTP/2 peer may send ahead (RFC 9113, 6.9.2: what it may send unless told otherwise).
const STREAM_WINDOW: u32 = 65_535;

/// Who is at the other end of a connection: an extension of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address, as the connection has it: a load balancer's where there is one.
    pub address: SocketAddr,
    /// Whether it showed a client certificate of the authorities in `--tls-client-ca` when the connection began. When these change,
    /// such connections are asked to close, and cut off if they do not: who comes back is looked at anew.
    pub certified: bool,
}

/// The protocols with their bounds.
fn protocols(limits: &Limits, streams: &Streams) -> auto::Builder<Begun> {
    let mut builder = auto::Builder::new(streams.begun());
    let head_bytes = usize::try_from(limits.head_bytes).unwrap_or(usize::MAX);
    builder
        .http1()
        .timer(TokioTimer::new())
        // The vigil sees to it: this one would count idle time.
        .header_read_timeout(None)
        .keep_alive(true)
        .max_headers(limits.headers.into())
        // hyper panics below 8 KiB.
        .max_buf_size(head_bytes.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.head_bytes)
        // What comes of bodies before anybody reads them.
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(4 * STREAM_WINDOW)
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.ping_answer)
        // Streams that are opened only to be reset (CVE-2023-44487, RUSTSEC-2024-0003).
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(256);
    builder
}

/// What a connection is served with.
pub(super) struct Serving<'a> {
    pub(super) router: Router,
    pub(super) peer: Peer,
    pub(super) bodies: Bodies,
    /// Room for heads.
    pub(super) heads: Room,
    pub(super) limits: Limits,
    pub(super) counters: &'a Counters,
    /// Requests under way are finished, then it closes.
    pub(super) drain: &'a CancellationToken,
    /// The same for this connection alone, which is cut off when it takes too long.
    pub(super) retire: CancellationToken,
    /// The same because others need its place.
    pub(super) leave: CancellationToken,
    /// How many others wait for its place.
    pub(super) crowded: Arc<AtomicUsize>,
}

impl Serving<'_> {
    /// Serves a connection until it ends, by whichever side.
    pub(super) async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let heads = self.heads.of(self.peer.address.ip());
        let vigil = Vigil::new(self.limits, heads, self.crowded);
        let bodies = self.bodies.of(self.peer.address.ip());
        let headers = self.limits.headers.into();
        let requests = Requests {
            router: self.router,
            peer: self.peer,
            bodies,
            headers,
            vigil: vigil.clone(),
        };
        let mut streams = Streams::default();
        let protocols = protocols(&self.limits, &streams);
        let gathered = Gathered::new(Watched::new(stream, vigil.clone()));
        let mut connection =
            pin!(protocols.serve_connection(TokioIo::new(gathered.clone()), requests));
        let mut watch = Watch::new(vigil.clone());
        let (mut draining, mut retiring) = (false, false);
        loop {
            tokio::select! {
                // The watch looks at what the connection has done.
                biased;
                ended = poll_fn(|context| turn(connection.as_mut(), &mut streams, &gathered, context)) => {
                    if let Err(error) = ended {
                        tracing::debug!(address = %self.peer.address, error, "a connection ended with an error");
                    }
                    return;
                }
                overdue = poll_fn(|context| watch.poll(context)) => match overdue {
                    Overdue::Idle => {
                        vigil.say_farewell();
                        connection.as_mut().graceful_shutdown();
                    }
                    Overdue::Head => {
                        tracing::debug!(address = %self.peer.address, "a request head did not come in time, or found no room");
                        self.counters.head_was_slow();
                        return;
                    }
                    Overdue::Progress => {
                        tracing::debug!(address = %self.peer.address, "a connection made no progress");
                        self.counters.peer_stalled();
                        return;
                    }
                },
                () = self.drain.cancelled(), if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = either(&self.retire, &self.leave), if !retiring => {
                    retiring = true;
                    vigil.retire();
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// One turn of a connection: what it has read is answered, and what it has to say is sent in one piece.
fn turn<S: AsyncWrite + Unpin>(
    mut connection: Pin<&mut impl Future<Output = Result<(), Failure>>>,
    streams: &mut Streams,
    gathered: &Gathered<S>,
    context: &mut Context<'_>,
) -> Poll<Result<(), Failure>> {
    let ended = loop {
        let ended = connection.as_mut().poll(context);
        // It takes the answers over, and may have begun more requests meanwhile.
        if ended.is_ready() || !streams.poll(context) {
            break ended;
        }
    };
    match gathered.poll_send(context) {
        Poll::Ready(Err(error)) if ended.is_pending() => Poll::Ready(Err(error.into())),
        _ => ended,
    }
}

async fn either(one: &CancellationToken, other: &CancellationToken) {
    tokio::select! {
        () = one.cancelled() => {}
        () = other.cancelled() => {}
    }
}

/// The router as hyper calls it.
struct Requests {
    router: Router,
    peer: Peer,
    bodies: Bodies,
    /// The most headers of a request. HTTP/1 sees to it itself; over HTTP/2 one byte can stand for one.
    headers: usize,
    vigil: Vigil,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let under_way = self.vigil.begin(request.body().size_hint().exact());
        if request.headers().len() > self.headers {
            let mut refusal = Response::new(ResponseBody::new(Body::empty(), under_way));
            *refusal.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return Box::pin(ready(Ok(refusal)));
        }
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(self.bodies.clone());
        let answer = self.router.clone().call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| ResponseBody::new(body, under_way))) })
    }
}
