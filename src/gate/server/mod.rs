//! The gate's server: HTTP/1.1 and HTTP/2, plain and over TLS, with a bound on everything that a
//! peer can make it hold or wait for.
//!
//! - [`Listener`] and [`serve`]: addresses, and what is served at them
//! - [`Certificates`]: TLS files that are read again while the server runs
//! - [`Peer`]: the peer's address and whether it has a certificate, an extension of every request
//! - [`Bodies`]: reads request bodies, an extension of every request
//! - [`Counters`]: what the metrics say about connections
//!
//! # Bounds
//!
//! All of them stand in [`Limits`]. What is held, and what happens to more of it:
//!
//! | held | bound | beyond it |
//! |---|---|---|
//! | connections | half of the memory limit, 320 KiB each; at most 20,000 and the open files | the one is closed that was idle longest, or busy with one request; the new one waits, for a second at most |
//! | requests in flight, until their response is sent | 16,384; 100 on an HTTP/2 connection | 503 without a body, and the connection with the longest one is closed |
//! | requests that wait for their body or for the API server | 8,192 | the same; others are answered |
//! | a request head | 32 KiB, 100 headers | 431 |
//! | a request body | its route's bound: 256 KiB for JSON, 128 KiB for gRPC | 413 |
//! | bodies of requests that are not whole yet, and of responses that are not sent yet | 32 MiB | the same as for requests |
//! | bodies of an HTTP/2 peer that nothing reads yet | 64 KiB a connection | the peer waits (its window is used up) |
//! | responses on their way to a peer that does not read | 128 KiB a connection | its requests wait |
//! | token reviews that wait for the API server | 16 at once and 1,024 in the queue, of which one address gets an eighth | 503 |
//!
//! And how long a peer may take:
//!
//! | from, to | time | then |
//! |---|---|---|
//! | a connection, its TLS session | 10 s | cut off |
//! | a connection, its first request | 30 s | cut off |
//! | the first byte of a head, its last (HTTP/2: of a header block; HTTP/1: from the first byte that comes after the request before) | 10 s | cut off |
//! | the end of a head, that of the body | 10 s | 408 |
//! | the end of a head, that of the response | 120 s | cut off |
//! | while the peer reads nothing of a response | 30 s | cut off |
//! | between two requests | 65 min | closed |
//! | the age of a connection | 5 to 10 min, at random | closed after its requests: GOAWAY, or `Connection: close` on the next response |
//! | an HTTP/2 ping, its acknowledgement | 10 s; a ping every 20 s | cut off |
//! | a connection that is to close, its end | 20 s (`--drain`) | cut off |
//!
//! So a gate needs at most half of its memory limit for connections, 32 MiB for bodies and about
//! 6 KiB for each request in flight (96 MiB), beside 250 bytes a key. `tests/gate_memory.rs` attacks
//! one with 512 MiB.

mod body;
mod capacity;
mod connection;
mod counters;
mod executor;
mod head_tracker;
mod io;
mod limits;
mod listener;
#[cfg(test)]
mod tests;
mod timeouts;
mod tls;

use std::net::SocketAddr;

pub use self::body::{Bodies, BodyError, WholeBody};
pub use self::connection::Peer;
pub use self::counters::Counters;
pub use self::limits::Limits;
pub use self::listener::{Listener, serve};
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
