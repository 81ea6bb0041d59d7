//! The gate's front door: HTTP/1.1 and HTTP/2, plain and over TLS, with an end to everything a peer can make it wait for.
//!
//! - [`Listener`] and [`serve`]: addresses, and what is served at them
//! - [`Certificates`]: TLS files that are read again while the server runs
//! - [`Limits`]: what one peer may cost, and how many there may be
//! - [`Peer`]: who asks, an extension of every request
//! - [`Bodies`]: reads bodies of bounded size and time, and bounded over all connections; an extension of every request, too
//! - [`Portions`]: what one peer may take of what all share
//! - [`Counters`]: what the metrics tell about connections

mod body;
mod connection;
mod counters;
mod framing;
mod gathered;
mod limits;
mod listener;
mod portions;
mod room;
mod shares;
mod streams;
#[cfg(test)]
mod tests;
mod tls;
mod vigil;
mod watched;

use std::net::SocketAddr;

pub use self::body::{Bodies, BodyError, Held};
pub use self::connection::Peer;
pub use self::counters::Counters;
pub use self::limits::{Limits, OpenFiles, RESERVED_FILES, connections_within, raise_open_files};
pub use self::listener::{Listener, serve};
pub use self::portions::Portions;
pub use self::tls::{Certificates, RELOAD, TlsError, TlsFiles};

/// The server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address cannot be had.
    #[error(
        "cannot listen on {flag} {address}: {source}: choose another address, or port 0 for any free one"
    )]
    Bind {
        /// The flag that names the address.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}
