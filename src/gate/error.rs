//! Why a gate ends.

use super::callers::CallersError;
use super::server::{self, TlsError};
use crate::telemetry;

/// Why the gate ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The client could not be built from the configuration.
    #[error("the connection to the API server cannot be set up: {0}")]
    Client(#[source] Box<kube::Error>),
    /// Nobody could ask.
    #[error("nothing is listened on: set --listen, --listen-tls, or both")]
    NoListener,
    /// A client certificate is asked of somebody, and none is verified.
    #[error("client certificates (mtls) need --listen-tls with --tls-client-ca")]
    NoClientCa,
    /// A watch would count as dead before it ends.
    #[error(
        "--max-staleness must be more than --watch-timeout and five seconds: in a quiet cluster a watch shows that it lives when it ends"
    )]
    Staleness,
    /// An address cannot be had.
    #[error(transparent)]
    Listen(#[from] server::ServerError),
    /// A socket failed.
    #[error("a socket failed")]
    Socket(#[from] std::io::Error),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The guard of the verify API cannot be set up.
    #[error(transparent)]
    Callers(#[from] CallersError),
    /// The admin server failed.
    #[error(transparent)]
    Admin(#[from] telemetry::ServerError),
    /// A part of the process ended that should not.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}
