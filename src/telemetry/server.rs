//! The admin server: `/healthz`, `/readyz` and `/metrics` over plain HTTP, apart from anything public.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

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
    #[error("cannot listen on --admin-address {address}: {source}: choose another address, or 127.0.0.1:0 for any free port")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// It stopped by itself.
    #[error("the admin server stopped")]
    Stopped(#[source] std::io::Error),
}

/// Takes the address, before anything else is started.
///
/// # Errors
/// [`ServerError::Bind`] when it cannot be had.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|source| ServerError::Bind { address, source })
}

/// Serves until `token` is cancelled, then answers what is under way, for a second at most.
///
/// # Errors
/// [`ServerError::Stopped`] when the socket fails.
pub async fn serve(listener: TcpListener, health: Arc<dyn Health>, token: CancellationToken) -> Result<(), ServerError> {
    let router = Router::new()
        .route("/healthz", get(async |State(health): State<Arc<dyn Health>>| tell(health.live())))
        .route("/readyz", get(async |State(health): State<Arc<dyn Health>>| tell(health.ready())))
        .route("/metrics", get(async |State(health): State<Arc<dyn Health>>| metrics(&health)))
        .with_state(health);
    let served = axum::serve(listener, router).with_graceful_shutdown(token.clone().cancelled_owned());
    let late = async {
        token.cancelled().await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        served = served.into_future() => served.map_err(ServerError::Stopped),
        () = late => Ok(()),
    }
}

fn tell(state: Result<(), String>) -> impl IntoResponse {
    match state {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

fn metrics(health: &Arc<dyn Health>) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], health.metrics())
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
        quick.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        quick.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("ok\n"), "{answer}");
        token.cancel();
        tokio::time::timeout(Duration::from_secs(60), served).await.expect("it ends").unwrap().unwrap();
    }
}
