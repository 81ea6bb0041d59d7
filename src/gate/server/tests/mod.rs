//! The server with real sockets.

mod bounds;
mod crowded;
mod support;
mod tls;
mod ways;
