//! The admin server: `/healthz`, `/readyz` and `/metrics` over plain HTTP/1, apart from anything public.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Version, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::exposition::{OPENMETRICS, PROMETHEUS, accepts_openmetrics, prometheus};

/// Connections at once. One more takes the place of the oldest: clients that send nothing neither
/// use up the open files of the process nor keep a probe from its answer.
const CONNECTIONS: usize = 64;

/// How long requests under way are waited for at the end. No peer keeps the process for longer.
const DRAIN: Duration = Duration::from_secs(1);

/// What the server asks the rest of the process.
pub trait Health: Send + Sync + 'static {
    /// Whether the process works; otherwise why it should be restarted.
    ///
    /// # Errors
    /// The reason, for people.
    fn live(&self) -> Result<(), String>;
    /// Whether the process is ready; otherwise what it waits for.
    ///
    /// # Errors
    /// The reason, for people.
    fn ready(&self) -> Result<(), String>;
    /// The metrics in the OpenMetrics text format.
    fn metrics(&self) -> String;
}

/// The admin server could not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Its address cannot be had.
    #[error(
        "cannot listen on --admin-address {address}: {source}: choose another address, or 127.0.0.1:0 for any free port"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Takes the address, before anything else is started.
///
/// # Errors
/// [`ServerError::Bind`] when it cannot be had.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServerError::Bind { address, source })
}

/// Serves until `token` is cancelled, then answers what is under way, for a second at most.
///
/// # Errors
/// None at present: a socket that accepts nothing is tried again.
pub async fn serve(
    listener: TcpListener,
    health: Arc<dyn Health>,
    token: CancellationToken,
) -> Result<(), ServerError> {
    let router = Router::new()
        .route(
            "/healthz",
            get(async |State(health): State<Arc<dyn Health>>| tell(health.live())),
        )
        .route(
            "/readyz",
            get(async |State(health): State<Arc<dyn Health>>| tell(health.ready())),
        )
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn(only_http1))
        .with_state(health);
    let listener = Bounded {
        listener,
        open: VecDeque::new(),
    };
    let stop = token.clone().cancelled_owned();
    let served = axum::serve(listener, router).with_graceful_shutdown(stop);
    let overdue = async {
        token.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        _ = served => {}
        () = overdue => {}
    }
    Ok(())
}

/// A listener with [`CONNECTIONS`] at most: axum's own has no bound.
struct Bounded {
    listener: TcpListener,
    open: VecDeque<oneshot::Sender<()>>,
}

impl Listener for Bounded {
    type Io = Evictable;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Evictable, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        self.open.retain(|connection| !connection.is_closed());
        if self.open.len() >= CONNECTIONS
            && let Some(oldest) = self.open.pop_front()
        {
            let _ = oldest.send(());
        }
        let (connection, evicted) = oneshot::channel();
        self.open.push_back(connection);
        let evicted = Some(evicted);
        (Evictable { stream, evicted }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails when it is evicted, whether it reads or writes.
struct Evictable {
    stream: TcpStream,
    evicted: Option<oneshot::Receiver<()>>,
}

impl Evictable {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let evicted = self
            .evicted
            .as_mut()
            .map(|evicted| Pin::new(evicted).poll(context));
        match evicted {
            None | Some(Poll::Pending) => return Ok(()),
            // At shutdown the listener goes first, and requests under way are still answered.
            Some(Poll::Ready(Err(_))) => self.evicted = None,
            Some(Poll::Ready(Ok(()))) => {
                self.evicted = None;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        Ok(())
    }
}

impl AsyncRead for Evictable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Evictable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// One HTTP/2 connection could ask for hundreds of pages at once and read none of them.
async fn only_http1(request: Request, next: Next) -> Response {
    if request.version() > Version::HTTP_11 {
        return StatusCode::HTTP_VERSION_NOT_SUPPORTED.into_response();
    }
    next.run(request).await
}

fn tell(state: Result<(), String>) -> impl IntoResponse {
    match state {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn metrics(State(health): State<Arc<dyn Health>>, headers: HeaderMap) -> impl IntoResponse {
    let openmetrics = health.metrics();
    let (format, text) = if accepts_openmetrics(&headers) {
        (OPENMETRICS, openmetrics)
    } else {
        (PROMETHEUS, prometheus(&openmetrics))
    };
    ([(header::CONTENT_TYPE, format)], text)
}

#[cfg(test)]
mod tests {
    use hyper::client::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::JoinHandle;

    use super::*;

    /// All is well, and this is measured.
    struct Fine(String);

    impl Health for Fine {
        fn live(&self) -> Result<(), String> {
            Ok(())
        }

        fn ready(&self) -> Result<(), String> {
            Ok(())
        }

        fn metrics(&self) -> String {
            self.0.clone()
        }
    }

    async fn served(metrics: &str, token: &CancellationToken) -> (SocketAddr, JoinHandle<()>) {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = serve(listener, Arc::new(Fine(metrics.to_owned())), token.clone());
        let serving = tokio::spawn(async move { serving.await.unwrap() });
        (address, serving)
    }

    async fn ask(address: SocketAddr, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(60), read)
            .await
            .expect("an end")
            .unwrap();
        answer
    }

    #[tokio::test]
    async fn silent_clients_do_not_keep_the_process() {
        let token = CancellationToken::new();
        // More than a socket takes while its peer does not read.
        let (address, serving) = served(&"#".repeat(64 << 20), &token).await;
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /met").await.unwrap();
        let mut deaf = TcpStream::connect(address).await.unwrap();
        deaf.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        deaf.read_u8().await.unwrap();
        // Those before are accepted when this one is answered.
        let answer = ask(address, "/healthz", "").await;
        assert!(answer.ends_with("ok\n"), "{answer}");
        token.cancel();
        tokio::time::timeout(Duration::from_secs(60), serving)
            .await
            .expect("it ends")
            .unwrap();
    }

    #[tokio::test]
    async fn the_oldest_connections_make_way_for_new_ones() {
        let (address, serving) = served("# EOF\n", &CancellationToken::new()).await;
        let mut crowd = Vec::new();
        for _ in 0..3 * CONNECTIONS {
            let mut one = TcpStream::connect(address).await.unwrap();
            one.write_all(b"GET /met").await.unwrap();
            crowd.push(one);
        }
        let answer = ask(address, "/healthz", "").await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"),
            "{answer}"
        );
        for mut evicted in crowd.into_iter().take(2 * CONNECTIONS) {
            let mut rest = Vec::new();
            // A reset is an end, too.
            let _ = tokio::time::timeout(Duration::from_secs(60), evicted.read_to_end(&mut rest))
                .await
                .expect("it is evicted");
        }
        serving.abort();
    }

    #[tokio::test]
    async fn peer_that_does_not_read_is_evicted_too() {
        const PAGE: usize = 1 << 20;
        let (address, serving) = served(&"m".repeat(PAGE), &CancellationToken::new()).await;
        let mut deaf = TcpStream::connect(address).await.unwrap();
        let page = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
        deaf.write_all(page.repeat(50).as_bytes()).await.unwrap();
        // It is served, and does not read.
        deaf.read_exact(&mut [0; 12]).await.unwrap();
        let mut crowd = Vec::new();
        for _ in 0..CONNECTIONS {
            crowd.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(ask(address, "/healthz", "").await.ends_with("ok\n"));
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(60), deaf.read_to_end(&mut rest));
        let _ = read.await.expect("it is evicted");
        assert!(rest.len() < 50 * PAGE, "{}", rest.len());
        serving.abort();
    }

    #[tokio::test]
    async fn metrics_come_in_the_format_that_is_accepted() {
        let (address, serving) = served("# EOF\n", &CancellationToken::new()).await;
        let openmetrics = "accept: application/openmetrics-text; version=1.0.0\r\n";
        for (accept, format) in [(openmetrics, OPENMETRICS), ("", PROMETHEUS)] {
            let answer = ask(address, "/metrics", accept).await;
            assert!(
                answer.contains(&format!("content-type: {format}\r\n")),
                "{answer}"
            );
            let text = answer.split("\r\n\r\n").nth(1).unwrap();
            assert_eq!(text.contains("# EOF"), format == OPENMETRICS, "{text}");
        }
        serving.abort();
    }

    #[tokio::test]
    async fn http2_is_refused() {
        let (address, serving) = served("# EOF\n", &CancellationToken::new()).await;
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (mut client, connection) = http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = Request::get(format!("http://{address}/metrics"));
        let request = request.body(String::new()).unwrap();
        let status = client.send_request(request).await.unwrap().status();
        assert_eq!(status, StatusCode::HTTP_VERSION_NOT_SUPPORTED);
        serving.abort();
    }
}
