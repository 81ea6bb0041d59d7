//! The server with real sockets.

mod bounds;
mod support;
mod tls;
mod ways;
