//! One connection from its first byte to its last.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn, ready};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use bytes::Bytes;
use http::header::{CONNECTION, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use super::body::Bodies;
use super::capacity::Capacity;
use super::counters::Counters;
use super::executor::{LocalExecutor, Spawner};
use super::io::CorkedIo;
use super::limits::Limits;
use super::timeouts::{ConnectionTimeouts, Expired, RequestInFlight, Timer};

/// Why a connection ended.
type Failure = Box<dyn Error + Send + Sync>;

/// Bytes of all bodies of a connection that an HTTP/2 peer may send before they are read (RFC 9113,
/// section 6.9.2: the initial value, which is also the smallest).
const WINDOW: u32 = 65_535;

/// For so many bytes counts a response whose length is not known before it is sent: a verdict over
/// gRPC, with all that is said about a key.
const UNKNOWN_LENGTH: usize = 16 * 1024;

/// The answer to what there is no room for now.
const BUSY: (StatusCode, [(HeaderName, &str); 1]) =
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")]);

/// Who is at the other end of a connection: an extension of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address, as the connection has it: a load balancer's where there is one.
    pub address: SocketAddr,
    /// Whether it showed a client certificate of the authorities in `--tls-client-ca` when the
    /// connection began. When these change, such connections are asked to close, and cut off if they
    /// do not: the peer then has to show its certificate again.
    pub certified: bool,
}

/// The protocols with their bounds.
fn protocols(limits: &Limits, executor: &LocalExecutor) -> auto::Builder<Spawner> {
    let mut builder = auto::Builder::new(executor.spawner());
    let head_bytes = usize::try_from(limits.head_bytes).unwrap_or(usize::MAX);
    builder
        .http1()
        .timer(TokioTimer::new())
        // It would count idle time: see `head_tracker`.
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
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.ping_ack)
        // Streams that are opened only to be reset (CVE-2023-44487, RUSTSEC-2024-0003).
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(256);
    builder
}

/// What all connections are served with.
pub(super) struct Server {
    pub(super) router: Router,
    pub(super) bodies: Bodies,
    pub(super) capacity: Arc<Capacity>,
    pub(super) limits: Limits,
    pub(super) counters: Arc<Counters>,
    pub(super) connections: TaskTracker,
    /// Requests in flight are finished, then all connections close.
    pub(super) drain: CancellationToken,
}

impl Server {
    pub(super) fn new(
        router: Router,
        limits: Limits,
        counters: Arc<Counters>,
        drain: CancellationToken,
    ) -> Arc<Self> {
        let capacity = Capacity::new(&limits, counters.clone());
        let bodies = Bodies::within(capacity.clone(), limits.body);
        let connections = TaskTracker::new();
        Arc::new(Self {
            router,
            bodies,
            capacity,
            limits,
            counters,
            connections,
            drain,
        })
    }

    /// Serves a connection until it ends, by whichever side. Once `retire` is cancelled, its requests
    /// in flight are finished, then it closes.
    pub(super) async fn serve(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
        timeouts: ConnectionTimeouts,
        retire: CancellationToken,
    ) {
        let requests = Requests {
            server: self.clone(),
            peer,
            timeouts: timeouts.clone(),
        };
        let mut executor = LocalExecutor::default();
        let protocols = protocols(&self.limits, &executor);
        let io = CorkedIo::new(stream, timeouts.clone());
        let connection = protocols.serve_connection(TokioIo::new(io.clone()), requests);
        let mut connection = pin!(connection);
        let mut timer = Timer::new(timeouts.clone());
        let mut close = pin!(self.drain.run_until_cancelled(retire.cancelled()));
        let (mut closing, address) = (false, peer.address);
        loop {
            tokio::select! {
                // The timer looks at what the connection has done.
                biased;
                ended = poll_fn(|context| turn(connection.as_mut(), &mut executor, &io, context)) => {
                    if let Err(error) = ended {
                        tracing::debug!(%address, error, "a connection ended with an error");
                    }
                    return;
                }
                expired = poll_fn(|context| timer.poll(context)) => {
                    let (count, why) = match expired {
                        Expired::Use => {
                            timeouts.close();
                            connection.as_mut().graceful_shutdown();
                            continue;
                        }
                        Expired::Head => (&self.counters.slow_heads, "a head did not come in time"),
                        Expired::Progress => (&self.counters.stalled, "it made no progress"),
                    };
                    tracing::debug!(%address, why, "a connection is cut off");
                    count.inc();
                    return;
                }
                _ = &mut close, if !closing => {
                    closing = true;
                    timeouts.close();
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// One turn of a connection: what it has read is answered, and what it has to say is sent in one
/// piece.
fn turn<S: AsyncWrite + Unpin>(
    mut connection: Pin<&mut impl Future<Output = Result<(), Failure>>>,
    executor: &mut LocalExecutor,
    io: &CorkedIo<S>,
    context: &mut Context<'_>,
) -> Poll<Result<(), Failure>> {
    let ended = loop {
        let ended = connection.as_mut().poll(context);
        // It takes the responses over, and may have begun more requests meanwhile.
        if ended.is_ready() || !executor.poll(context) {
            break ended;
        }
    };
    match io.poll_send(context) {
        Poll::Ready(Err(error)) if ended.is_pending() => Poll::Ready(Err(error.into())),
        _ => ended,
    }
}

/// The router as hyper calls it.
struct Requests {
    server: Arc<Server>,
    peer: Peer,
    timeouts: ConnectionTimeouts,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    /// A request that is answered without waiting for anything takes no permit to wait: peers that
    /// hold all of these keep no proxy from its answer.
    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let server = self.server.clone();
        let Some(permit) = server.capacity.request() else {
            return Box::pin(ready(Ok(refusal(BUSY))));
        };
        let in_flight = self.timeouts.begin(permit);
        // HTTP/1 sees to it itself; over HTTP/2 one byte can stand for a header.
        if request.headers().len() > server.limits.headers.into() {
            return Box::pin(ready(Ok(refusal(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            ))));
        }
        let close = request.version() < Version::HTTP_2 && in_flight.is_last();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(server.bodies.clone());
        let mut response = server.router.clone().call(request);
        Box::pin(async move {
            let response = match futures::poll!(&mut response) {
                Poll::Ready(response) => response?,
                Poll::Pending => {
                    let Some(_waiting) = server.capacity.waiting() else {
                        return Ok(refusal(BUSY));
                    };
                    response.await?
                }
            };
            let length = match response.body().size_hint().exact() {
                Some(length) => usize::try_from(length).unwrap_or(usize::MAX),
                None => UNKNOWN_LENGTH,
            };
            let Some(permit) = server.capacity.body_bytes(length) else {
                return Ok(refusal(BUSY));
            };
            let held = Some(Arc::new((in_flight, permit)));
            let mut response = response.map(|body| ResponseBody { body, held });
            if close {
                response
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        })
    }
}

/// Answers without a body: a peer that takes none cannot make the server hold it.
fn refusal(response: impl IntoResponse) -> Response<ResponseBody> {
    let held = None;
    response
        .into_response()
        .map(|body| ResponseBody { body, held })
}

/// What a request takes of [`Capacity`] until its response has been sent.
type Held = Option<Arc<(RequestInFlight, OwnedSemaphorePermit)>>;

/// The body of a response.
struct ResponseBody {
    body: Body,
    held: Held,
}

/// A piece of a body, which hyper and h2 may keep for as long as the peer does not take it.
struct Piece {
    data: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl hyper::body::Body for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let held = self.held.clone();
        let piece = |data| Bytes::from_owner(Piece { data, _held: held });
        frame.map_ok(|frame| frame.map_data(piece))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
