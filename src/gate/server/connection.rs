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
use bytes::Bytes;
use futures::FutureExt as _;
use http::header::{CONNECTION, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
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

/// Bytes of one body that an HTTP/2 peer may send before they are read (RFC 9113, section 6.9.2: the
/// initial value), and twice as many of all bodies of a connection.
const STREAM_WINDOW: u32 = 65_535;

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
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(2 * STREAM_WINDOW)
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.ping_ack)
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
    pub(super) capacity: Arc<Capacity>,
    pub(super) limits: Limits,
    pub(super) timeouts: ConnectionTimeouts,
    pub(super) counters: &'a Counters,
    /// Requests in flight are finished, then the connection closes.
    pub(super) drain: &'a CancellationToken,
    /// The same for connections with a client certificate alone.
    pub(super) retire: CancellationToken,
}

impl Serving<'_> {
    /// Serves a connection until it ends, by whichever side.
    pub(super) async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let requests = Requests {
            router: self.router,
            peer: self.peer,
            bodies: self.bodies,
            capacity: self.capacity,
            headers: self.limits.headers.into(),
            timeouts: self.timeouts.clone(),
        };
        let mut executor = LocalExecutor::default();
        let protocols = protocols(&self.limits, &executor);
        let io = CorkedIo::new(stream, self.timeouts.clone());
        let connection = protocols.serve_connection(TokioIo::new(io.clone()), requests);
        let mut connection = pin!(connection);
        let mut timer = Timer::new(self.timeouts.clone());
        let mut close = pin!(either(self.drain, &self.retire));
        let (mut closing, address) = (false, self.peer.address);
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
                expired = poll_fn(|context| timer.poll(context)) => match expired {
                    Expired::Use => {
                        self.timeouts.close();
                        connection.as_mut().graceful_shutdown();
                    }
                    Expired::Head => {
                        tracing::debug!(%address, "a request head did not come in time");
                        self.counters.slow_heads.increment();
                        return;
                    }
                    Expired::Progress => {
                        tracing::debug!(%address, "a connection made no progress");
                        self.counters.stalled.increment();
                        return;
                    }
                },
                () = &mut close, if !closing => {
                    closing = true;
                    self.timeouts.close();
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
    capacity: Arc<Capacity>,
    /// The most headers of a request. HTTP/1 sees to it itself; over HTTP/2 one byte can stand for
    /// one.
    headers: usize,
    timeouts: ConnectionTimeouts,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    /// Where too many requests are in flight, one that can be answered without waiting for anything
    /// still is: those who hold the others keep no proxy from its answer.
    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let permit = self.capacity.request();
        let refused = permit.is_none();
        let in_flight = self.timeouts.begin(permit);
        if request.headers().len() > self.headers {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return Box::pin(ready(Ok(refusal(status, in_flight))));
        }
        let close = request.version() < Version::HTTP_2 && in_flight.is_last();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(self.bodies.clone());
        let response = self.router.clone().call(request);
        let capacity = self.capacity.clone();
        Box::pin(async move {
            let response = if refused {
                response.now_or_never()
            } else {
                Some(response.await)
            };
            let Some(response) = response else {
                capacity.count_refusal();
                let mut refusal = refusal(StatusCode::SERVICE_UNAVAILABLE, in_flight);
                refusal
                    .headers_mut()
                    .insert(RETRY_AFTER, HeaderValue::from_static("1"));
                return Ok(refusal);
            };
            let mut response = response?;
            if close {
                response
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| ResponseBody {
                body,
                _in_flight: in_flight,
            }))
        })
    }
}

fn refusal(status: StatusCode, in_flight: RequestInFlight) -> Response<ResponseBody> {
    let body = ResponseBody {
        body: Body::empty(),
        _in_flight: in_flight,
    };
    let mut refusal = Response::new(body);
    *refusal.status_mut() = status;
    refusal
}

/// The body of a response, with which its request ends.
struct ResponseBody {
    body: Body,
    _in_flight: RequestInFlight,
}

impl hyper::body::Body for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
