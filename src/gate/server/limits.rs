//! What one peer may cost the server, and how many peers there may be.

use std::time::Duration;

/// Open files that are kept for everything but accepted connections: the API server, the admin port, certificates, logs.
pub const RESERVED_FILES: u64 = 256;

/// Bounds of a server. The defaults suit proxies, which keep connections for long and send short requests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections that are served at once over all listeners. More wait until one ends, or one that is idle makes way.
    pub connections: u32,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long the first request of a new connection is waited for.
    pub first_request: Duration,
    /// How long the head of a request may take from its first byte on.
    pub head: Duration,
    /// How long a connection may do nothing between two requests. Long: a proxy that sends a request just when the connection is
    /// closed under it sees a failure.
    pub idle: Duration,
    /// The same while connections wait for room: then those that do nothing make way.
    pub crowded_idle: Duration,
    /// How long a request may be under way. Then its connection is cut off.
    pub request: Duration,
    /// How long a peer may take no byte of what is sent to it.
    pub write: Duration,
    /// Bytes of a request head, over HTTP/1 together with what was read ahead. At least 8 KiB over HTTP/1.
    pub head_bytes: u32,
    /// Bytes of HTTP/1 request heads that do not come in one piece, over all connections.
    pub slow_head_bytes: u32,
    /// Headers of a request.
    pub headers: u16,
    /// How long the body of a request may take.
    pub body: Duration,
    /// Bytes of bodies that are held at once, over all connections.
    pub body_bytes: u32,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// The pause between two HTTP/2 pings. They find peers that are gone, and those that stop in the middle of a frame.
    pub ping: Duration,
    /// How long the answer to an HTTP/2 ping is waited for.
    pub ping_answer: Duration,
    /// How long requests under way are waited for when the server stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            handshake: Duration::from_secs(10),
            first_request: Duration::from_secs(30),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(3600),
            crowded_idle: Duration::from_secs(30),
            request: Duration::from_secs(120),
            write: Duration::from_secs(30),
            head_bytes: 64 * 1024,
            slow_head_bytes: 64 << 20,
            headers: 100,
            body: Duration::from_secs(10),
            body_bytes: 64 << 20,
            streams: 200,
            ping: Duration::from_secs(20),
            ping_answer: Duration::from_secs(10),
            drain: Duration::from_secs(20),
        }
    }
}

/// How many files the process may have open, after it asked for as many as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// The limit now.
    pub limit: u64,
    /// The limit at the start.
    pub before: u64,
}

/// Raises the soft limit of open files to the hard one and logs what came of it.
///
/// `None` when the limit cannot be read; the server then goes without.
#[must_use]
pub fn raise_open_files() -> Option<OpenFiles> {
    let (before, hard) = match rlimit::getrlimit(rlimit::Resource::NOFILE) {
        Ok(limits) => limits,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be read: --max-connections holds as it is");
            return None;
        }
    };
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
        tracing::warn!(%error, limit = before, hard, "the limit of open files cannot be raised");
        before
    });
    tracing::info!(limit, before, "limit of open files");
    Some(OpenFiles { limit, before })
}

/// The connections that fit into the limit of open files. Logs when they are fewer than `wanted`.
#[must_use]
pub fn connections_within(wanted: u32, files: Option<OpenFiles>) -> u32 {
    let Some(files) = files else {
        return wanted.max(1);
    };
    // A process with very few files serves with half of them: better a few connections than none.
    let room = files
        .limit
        .saturating_sub(RESERVED_FILES)
        .max(files.limit / 2)
        .max(1);
    let room = u32::try_from(room).unwrap_or(u32::MAX);
    if room < wanted {
        tracing::warn!(
            wanted,
            connections = room,
            open_files = files.limit,
            "--max-connections is lowered to what the limit of open files allows: raise that limit (ulimit -n, LimitNOFILE)"
        );
    }
    wanted.min(room).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(limit: u64) -> u32 {
        connections_within(
            20_000,
            Some(OpenFiles {
                limit,
                before: limit,
            }),
        )
    }

    #[test]
    fn connections_are_lowered_to_what_the_open_files_allow() {
        assert_eq!(within(1_048_576), 20_000);
        assert_eq!(within(4096), 4096 - 256);
        assert_eq!(within(300), 150, "a few connections are better than none");
        assert_eq!(within(1), 1);
        assert_eq!(within(u64::MAX), 20_000);
        assert_eq!(connections_within(20_000, None), 20_000);
        assert_eq!(connections_within(0, None), 1);
    }

    #[test]
    fn the_process_may_open_as_many_files_as_the_system_lets_it() {
        let files = raise_open_files().unwrap();
        assert!(files.limit >= files.before);
    }
}
