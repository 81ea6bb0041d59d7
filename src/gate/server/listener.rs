//! Listeners: accepting connections, as many as there may be.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ServerError;
use super::body::Bodies;
use super::connection::{Peer, Serving};
use super::counters::Counters;
use super::limits::Limits;
use super::room::Room;
use super::shares::{Place, Shares};
use super::tls::Certificates;

/// The longest pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Connections that wait although their address has its share, aside, so that others can be seen. One more is closed.
const ASIDE: usize = 64;

/// An address that connections are accepted at.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    certificates: Option<Arc<Certificates>>,
}

impl Listener {
    /// Takes the address of `--listen`.
    ///
    /// # Errors
    /// [`ServerError::Bind`] when it cannot be had.
    pub async fn plain(address: SocketAddr) -> Result<Self, ServerError> {
        Ok(Self {
            socket: bind("--listen", address).await?,
            certificates: None,
        })
    }

    /// Takes the address of `--listen-tls`.
    ///
    /// # Errors
    /// [`ServerError::Bind`] when it cannot be had.
    pub async fn tls(
        address: SocketAddr,
        certificates: Arc<Certificates>,
    ) -> Result<Self, ServerError> {
        Ok(Self {
            socket: bind("--listen-tls", address).await?,
            certificates: Some(certificates),
        })
    }

    /// The address, with the port that was taken where any was asked for.
    ///
    /// # Errors
    /// The system's, when it does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServerError::Bind {
            flag,
            address,
            source,
        })
}

/// Serves `router` at all listeners until `token` is cancelled, then finishes the requests under way.
///
/// From the cancellation on nothing is accepted. Connections close after the requests that they have begun (HTTP/2 peers get a
/// GOAWAY); after [`Limits::drain`] what is left is cut off.
pub async fn serve(
    listeners: Vec<Listener>,
    router: Router,
    limits: Limits,
    counters: Arc<Counters>,
    token: CancellationToken,
) {
    let shared = Arc::new(Shared {
        router,
        bodies: Bodies::new(&limits),
        heads: Room::new(limits.slow_head_bytes),
        limits,
        counters,
        room: Arc::new(Semaphore::new(
            usize::try_from(limits.connections.max(1)).unwrap_or(Semaphore::MAX_PERMITS),
        )),
        aside: Arc::new(Semaphore::new(ASIDE)),
        shares: Shares::new(limits.connections),
        pressed: AtomicUsize::new(0),
        crowded: Arc::default(),
        connections: TaskTracker::new(),
        drain: token,
        cut: CancellationToken::new(),
    });
    let accepting = TaskTracker::new();
    for listener in listeners {
        accepting.spawn(shared.clone().accept(listener));
    }
    accepting.close();
    accepting.wait().await;
    shared.connections.close();
    if tokio::time::timeout(limits.drain, shared.connections.wait())
        .await
        .is_err()
    {
        let left = shared.connections.len();
        tracing::warn!(
            connections = left,
            seconds = limits.drain.as_secs(),
            "connections did not end in time and are cut off"
        );
        shared.cut.cancel();
        shared.connections.wait().await;
    }
}

struct Shared {
    router: Router,
    bodies: Bodies,
    heads: Room,
    limits: Limits,
    counters: Arc<Counters>,
    room: Arc<Semaphore>,
    aside: Arc<Semaphore>,
    shares: Arc<Shares>,
    /// How many connections wait whose addresses have less than their share.
    pressed: AtomicUsize,
    /// How many connections wait for room.
    crowded: Arc<AtomicUsize>,
    connections: TaskTracker,
    drain: CancellationToken,
    cut: CancellationToken,
}

impl Shared {
    async fn accept(self: Arc<Self>, listener: Listener) {
        // The socket is closed at once, not when the last request has ended: peers then try elsewhere.
        let drain = self.drain.clone();
        drain.run_until_cancelled(self.accept_all(&listener)).await;
    }

    async fn accept_all(self: &Arc<Self>, listener: &Listener) {
        let mut pause = Duration::ZERO;
        loop {
            let (stream, address) = match listener.socket.accept().await {
                Ok(accepted) => accepted,
                // That connection is gone already.
                Err(error) if is_of_the_peer(&error) => continue,
                Err(error) => {
                    self.counters.accept_failed();
                    if pause.is_zero() {
                        tracing::warn!(%error, "connections cannot be accepted; trying again");
                    }
                    pause = (pause * 2).clamp(Duration::from_millis(10), ACCEPT_PAUSE);
                    tokio::time::sleep(pause).await;
                    continue;
                }
            };
            pause = Duration::ZERO;
            // The room is taken after the connection is there: a listener that nobody talks to does not keep another from using it.
            if let Ok(room) = self.room.clone().try_acquire_owned() {
                self.open(stream, address, listener.certificates.clone(), room);
                continue;
            }
            self.counters.connection_waits();
            if self.shares.is_full(address.ip()) {
                let Ok(aside) = self.aside.clone().try_acquire_owned() else {
                    continue;
                };
                let (shared, certificates) = (self.clone(), listener.certificates.clone());
                self.connections.spawn(async move {
                    let room = shared
                        .drain
                        .run_until_cancelled(shared.wait_aside(address))
                        .await
                        .flatten();
                    drop(aside);
                    if let Some(room) = room {
                        shared.open(stream, address, certificates, room);
                    }
                });
                continue;
            }
            // One connection of each listener waits here, the others in the system's queue.
            self.shares.thin_out();
            let pressing = Waiting::new(&self.pressed);
            let Some(room) = self.wait().await else {
                return;
            };
            drop(pressing);
            self.open(stream, address, listener.certificates.clone(), room);
        }
    }

    /// Waits for room.
    async fn wait(&self) -> Option<OwnedSemaphorePermit> {
        let _waiting = Waiting::new(&self.crowded);
        self.room.clone().acquire_owned().await.ok()
    }

    /// Waits for room that nobody else needs more.
    async fn wait_aside(&self, address: SocketAddr) -> Option<OwnedSemaphorePermit> {
        loop {
            let room = self.wait().await?;
            if self.pressed.load(Ordering::Relaxed) == 0 || !self.shares.is_full(address.ip()) {
                return Some(room);
            }
            // It goes to the next in the queue, and this one waits at its end.
        }
    }

    fn open(
        self: &Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        certificates: Option<Arc<Certificates>>,
        room: OwnedSemaphorePermit,
    ) {
        let (shared, open) = (self.clone(), self.counters.opened());
        let place = self.shares.enter(address.ip());
        self.connections.spawn(async move {
            shared
                .cut
                .run_until_cancelled(shared.connection(stream, address, certificates, &place))
                .await;
            drop((open, place, room));
        });
    }

    async fn connection(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        certificates: Option<Arc<Certificates>>,
        place: &Place,
    ) {
        // Answers are small and waited for.
        let _ = stream.set_nodelay(true);
        let Some(certificates) = certificates else {
            return self
                .serving(
                    Peer {
                        address,
                        certified: false,
                    },
                    CancellationToken::new(),
                    place,
                )
                .serve(stream)
                .await;
        };
        let current = certificates.current();
        let handshake = TlsAcceptor::from(current.config.clone()).accept(stream);
        let handshake = tokio::time::timeout(self.limits.handshake, handshake);
        // What has not shaken hands has asked nothing.
        let handshake = place
            .leave()
            .run_until_cancelled(self.drain.run_until_cancelled(handshake))
            .await;
        let Some(handshake) = handshake.flatten() else {
            return;
        };
        let error = match handshake {
            Ok(Ok(stream)) => {
                let certified = stream
                    .get_ref()
                    .1
                    .peer_certificates()
                    .is_some_and(|shown| !shown.is_empty());
                let retire = if certified {
                    current.authorities.clone()
                } else {
                    CancellationToken::new()
                };
                // While it stays open it keeps nothing of a configuration that is replaced.
                drop(current);
                return self
                    .serving(Peer { address, certified }, retire, place)
                    .serve(stream)
                    .await;
            }
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        self.counters.handshake_refused();
        tracing::debug!(%address, %error, "a TLS handshake failed");
    }

    fn serving(&self, peer: Peer, retire: CancellationToken, place: &Place) -> Serving<'_> {
        Serving {
            router: self.router.clone(),
            peer,
            bodies: self.bodies.clone(),
            heads: self.heads.clone(),
            limits: self.limits,
            counters: &self.counters,
            drain: &self.drain,
            retire,
            leave: place.leave().clone(),
            crowded: self.crowded.clone(),
        }
    }
}

/// One more that waits for room.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(crowded: &'a AtomicUsize) -> Self {
        crowded.fetch_add(1, Ordering::Relaxed);
        Self(crowded)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}
