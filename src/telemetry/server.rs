//! The admin server: `/healthz`, `/readyz` and `/metrics` over plain HTTP/1, apart from anything public.
//!
//! Those who ask here ask seldom: each connection is for one request. There are few at once and each ends soon, so that nobody takes
//! the files of the process through this port.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Connections at once. One more takes the place of the oldest: a crowd that waits for nothing does not keep a probe from its answer.
const CONNECTIONS: usize = 64;
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(5);
/// How long a connection may last.
const LONGEST: Duration = Duration::from_secs(30);
/// Bytes of a head.
const HEAD_BYTES: usize = 16 * 1024;
/// The pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// How long peers are waited for at the end. Who says nothing, or does not come to an end, must not keep the process.
const FAREWELL: Duration = Duration::from_secs(1);

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
        source: std::io::Error,
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
        .route(
            "/metrics",
            get(async |State(health): State<Arc<dyn Health>>| metrics(&health)),
        )
        .with_state(health);
    let (mut connections, mut open) = (JoinSet::new(), VecDeque::<AbortHandle>::new());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = token.cancelled() => break,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(connections.spawn(answer(stream, router.clone())));
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(FAREWELL, all).await;
    Ok(())
}

/// Answers one request.
async fn answer(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // Whoever sends nonsense, or nothing, hears nothing of it.
    let _ = tokio::time::timeout(LONGEST, connection).await;
}

fn tell(state: Result<(), String>) -> impl IntoResponse {
    match state {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

fn metrics(health: &Arc<dyn Health>) -> impl IntoResponse + use<> {
    (
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        health.metrics(),
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    struct Fine;

    impl Health for Fine {
        fn live(&self) -> Result<(), String> {
            Ok(())
        }

        fn ready(&self) -> Result<(), String> {
            Ok(())
        }

        fn metrics(&self) -> String {
            String::new()
        }
    }

    #[tokio::test]
    async fn who_says_nothing_does_not_keep_the_process() {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let (address, token) = (listener.local_addr().unwrap(), CancellationToken::new());
        let served = tokio::spawn(serve(listener, Arc::new(Fine), token.clone()));
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /met").await.unwrap();
        // Those before are accepted when this one is answered.
        let mut quick = TcpStream::connect(address).await.unwrap();
        quick
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        quick.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("ok\n"), "{answer}");
        token.cancel();
        tokio::time::timeout(Duration::from_secs(60), served)
            .await
            .expect("it ends")
            .unwrap()
            .unwrap();
    }

    #[tokio::test]
    async fn a_crowd_neither_takes_all_files_nor_keeps_a_probe_from_its_answer() {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(serve(listener, Arc::new(Fine), CancellationToken::new()));
        let mut crowd = Vec::new();
        for _ in 0..3 * CONNECTIONS {
            let mut one = TcpStream::connect(address).await.unwrap();
            one.write_all(b"GET /met").await.unwrap();
            crowd.push(one);
        }
        let mut probe = TcpStream::connect(address).await.unwrap();
        probe
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        let read = probe.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(60), read)
            .await
            .expect("an end")
            .unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"),
            "{answer}"
        );
        for mut gone in crowd.into_iter().take(2 * CONNECTIONS) {
            // A reset is an end, too.
            let _ = tokio::time::timeout(HEAD / 2, gone.read_to_end(&mut Vec::new()))
                .await
                .expect("it made way");
        }
        served.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_half_a_word_is_not_waited_for() {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(serve(listener, Arc::new(Fine), CancellationToken::new()));
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /met").await.unwrap();
        let _ = tokio::time::timeout(2 * HEAD, slow.read_to_end(&mut Vec::new()))
            .await
            .expect("it is cut off");
        served.abort();
    }
}
