//! Listeners: accepting connections, as many as there may be.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ServerError;
use super::connection::{Peer, Server};
use super::counters::Counters;
use super::limits::Limits;
use super::timeouts::ConnectionTimeouts;
use super::tls::Certificates;

/// The longest pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// An address that connections are accepted at.
pub struct Listener {
    socket: TcpListener,
    certificates: Option<Arc<Certificates>>,
}

impl Listener {
    /// Binds the address of `--listen`.
    ///
    /// # Errors
    /// [`ServerError::Bind`] when it cannot be had.
    pub async fn plain(address: SocketAddr) -> Result<Self, ServerError> {
        Self::bind("--listen", address, None).await
    }

    /// Binds the address of `--listen-tls`.
    ///
    /// # Errors
    /// [`ServerError::Bind`] when it cannot be had.
    pub async fn tls(
        address: SocketAddr,
        certificates: Arc<Certificates>,
    ) -> Result<Self, ServerError> {
        Self::bind("--listen-tls", address, Some(certificates)).await
    }

    async fn bind(
        flag: &'static str,
        address: SocketAddr,
        certificates: Option<Arc<Certificates>>,
    ) -> Result<Self, ServerError> {
        match TcpListener::bind(address).await {
            Ok(socket) => Ok(Self {
                socket,
                certificates,
            }),
            Err(source) => Err(ServerError::Bind {
                flag,
                address,
                source,
            }),
        }
    }

    /// The address, with the port that was taken where any was asked for.
    ///
    /// # Errors
    /// The system's, when it does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// Serves `router` at all listeners until `token` is cancelled, then finishes the requests in
/// flight.
///
/// From the cancellation on nothing is accepted. Connections close after the requests that they
/// have begun (HTTP/2 peers get a GOAWAY); after [`Limits::drain`] what is left is cut off.
pub async fn serve(
    listeners: Vec<Listener>,
    router: Router,
    limits: Limits,
    counters: Arc<Counters>,
    token: CancellationToken,
) {
    let server = Server::new(router, limits, counters, token);
    let accepting = TaskTracker::new();
    for listener in listeners {
        let server = server.clone();
        accepting.spawn(async move {
            // The socket is closed at once, not when the last request has ended: peers then try
            // elsewhere.
            let drain = server.drain.clone();
            drain.run_until_cancelled(server.accept(&listener)).await;
        });
    }
    accepting.close();
    accepting.wait().await;
    let connections = &server.connections;
    connections.close();
    if tokio::time::timeout(limits.drain, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = connections.len(),
            seconds = limits.drain.as_secs(),
            "connections did not end in time and are cut off"
        );
        server.capacity.close_all();
        connections.wait().await;
    }
}

impl Server {
    async fn accept(self: &Arc<Self>, listener: &Listener) {
        let mut pause = Duration::ZERO;
        loop {
            let (stream, address) = match listener.socket.accept().await {
                Ok(accepted) => accepted,
                // That connection is gone already.
                Err(error) if is_of_the_peer(&error) => continue,
                Err(error) => {
                    self.counters.accept_errors.inc();
                    if pause.is_zero() {
                        tracing::warn!(%error, "connections cannot be accepted; trying again");
                    }
                    pause = (pause * 2).clamp(Duration::from_millis(10), ACCEPT_PAUSE);
                    tokio::time::sleep(pause).await;
                    continue;
                }
            };
            pause = Duration::ZERO;
            // After the connection is there: a listener that nobody talks to takes no permit. One
            // connection of each listener waits here, the others in the system's queue.
            let Some(permit) = self.capacity.connection().await else {
                return;
            };
            let timeouts = ConnectionTimeouts::new(self.limits);
            let (server, open) = (self.clone(), self.counters.opened());
            let (of_task, certificates) = (timeouts.clone(), listener.certificates.clone());
            let task = self.connections.spawn(async move {
                server
                    .connection(stream, address, certificates, of_task)
                    .await;
                drop((open, permit));
            });
            self.capacity.opened(timeouts, task.abort_handle());
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        certificates: Option<Arc<Certificates>>,
        timeouts: ConnectionTimeouts,
    ) {
        // Responses are small and waited for.
        let _ = stream.set_nodelay(true);
        let Some(certificates) = certificates else {
            let (certified, retire) = (false, CancellationToken::new());
            let peer = Peer { address, certified };
            return self.serve(stream, peer, timeouts, retire).await;
        };
        let current = certificates.current();
        let handshake = TlsAcceptor::from(current.config.clone()).accept(stream);
        let handshake = tokio::time::timeout(self.limits.handshake, handshake);
        // A peer that has not finished its handshake has asked nothing.
        let Some(handshake) = self.drain.run_until_cancelled(handshake).await else {
            return;
        };
        let error = match handshake {
            Ok(Ok(stream)) => {
                let certificates = stream.get_ref().1.peer_certificates();
                let certified = certificates.is_some_and(|chain| !chain.is_empty());
                let authorities = certified.then(|| current.authorities.clone());
                let retire = authorities.unwrap_or_default();
                // While it stays open it keeps nothing of a configuration that is replaced.
                drop(current);
                let peer = Peer { address, certified };
                return self.serve(stream, peer, timeouts, retire).await;
            }
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        self.counters.refused_handshakes.inc();
        tracing::debug!(%address, %error, "a TLS handshake failed");
    }
}

fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    [ConnectionAborted, ConnectionRefused, ConnectionReset].contains(&error.kind())
}
