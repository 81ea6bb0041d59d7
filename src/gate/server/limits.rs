//! The bounds of the server, and what the machine allows: open files and memory.

use std::path::Path;
use std::time::Duration;

/// Open files that are kept for everything but accepted connections: the API server, the admin
/// port, certificates, logs.
const RESERVED_FILES: u64 = 256;

/// The most connections that are served where neither `--max-connections` nor memory says less.
const MAX_CONNECTIONS: u32 = 20_000;

/// Memory that one connection can take at worst, in bytes, without its requests: what an idle one
/// takes (40 KiB), a head that is not whole (70 KiB), a part of bodies that nothing reads yet
/// (64 KiB), and responses that its peer does not read (128 KiB).
const CONNECTION_BYTES: u64 = 320 * 1024;

/// Bounds of a server. The table in [`super`] says what each of them guards.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once, over all listeners.
    pub connections: u32,
    /// Requests in flight at once, over all connections.
    pub requests: u32,
    /// Those of them that wait for their body, or for the API server.
    pub waiting: u32,
    /// Requests in flight at once on one HTTP/2 connection.
    pub streams: u32,
    /// Bytes of a request head.
    pub head_bytes: u32,
    /// Headers of a request.
    pub headers: u16,
    /// Bytes of bodies that are held at once, over all connections: of requests that are not whole
    /// yet, and of responses that are not sent yet.
    pub body_bytes: u32,
    /// From a new connection to its TLS session.
    pub handshake: Duration,
    /// From a new connection to the first byte of its first request.
    pub first_request: Duration,
    /// From the first byte of a request head to its last one.
    pub head: Duration,
    /// From the end of a request head to the end of the body.
    pub body: Duration,
    /// From the end of a request head to the end of the response.
    pub request: Duration,
    /// While the peer reads nothing of a response.
    pub write: Duration,
    /// Between two requests of a connection. Longer than proxies keep idle connections (Envoy:
    /// one hour), so that the proxy closes first: a request that meets a close is lost.
    pub idle: Duration,
    /// How old a connection grows before it is closed after its requests. As much again is added at
    /// random, so that not all connections of a proxy close at once.
    pub age: Duration,
    /// Between two HTTP/2 pings.
    pub ping: Duration,
    /// From an HTTP/2 ping to its acknowledgement.
    pub ping_ack: Duration,
    /// How long a connection that is to close may take for the requests that it has begun.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: MAX_CONNECTIONS,
            requests: 16_384,
            waiting: 8_192,
            streams: 100,
            head_bytes: 32 * 1024,
            headers: 100,
            body_bytes: 32 << 20,
            handshake: Duration::from_secs(10),
            first_request: Duration::from_secs(30),
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            request: Duration::from_secs(120),
            write: Duration::from_secs(30),
            idle: Duration::from_secs(3_900),
            age: Duration::from_secs(300),
            ping: Duration::from_secs(20),
            ping_ack: Duration::from_secs(10),
            drain: Duration::from_secs(20),
        }
    }
}

impl Limits {
    /// Fits the number of connections to the machine: `wanted` of them, as far as the limit of open
    /// files allows, or by default as many as half of the memory limit can hold at their worst.
    #[must_use]
    pub fn with_connections(self, wanted: Option<u32>) -> Self {
        let (files, memory) = (raise_open_files(), memory_limit());
        let connections = connections_within(wanted, files, memory);
        tracing::info!(
            connections,
            open_files = files,
            memory,
            "bounds of the server"
        );
        Self {
            connections,
            ..self
        }
    }
}

fn connections_within(wanted: Option<u32>, files: Option<u64>, memory: Option<u64>) -> u32 {
    let of_memory = memory.map_or(u64::MAX, |bytes| bytes / 2 / CONNECTION_BYTES);
    let by_default = u32::try_from(of_memory)
        .unwrap_or(MAX_CONNECTIONS)
        .min(MAX_CONNECTIONS);
    // A process with very few files serves with half of them: better a few connections than none.
    let of_files = files.map_or(u64::MAX, |files| {
        files.saturating_sub(RESERVED_FILES).max(files / 2)
    });
    let of_files = u32::try_from(of_files).unwrap_or(u32::MAX);
    if let Some(wanted) = wanted.filter(|wanted| of_files < *wanted) {
        tracing::warn!(
            wanted,
            connections = of_files,
            open_files = files,
            "--max-connections is lowered to what the limit of open files allows: raise that limit \
             (ulimit -n, LimitNOFILE)"
        );
    }
    wanted.unwrap_or(by_default).min(of_files).max(1)
}

/// Raises the soft limit of open files to the hard one. `None` where the limit cannot be read.
fn raise_open_files() -> Option<u64> {
    let raised = rlimit::increase_nofile_limit(u64::MAX).or_else(|error| {
        tracing::warn!(%error, "the limit of open files cannot be raised");
        rlimit::getrlimit(rlimit::Resource::NOFILE).map(|(soft, _)| soft)
    });
    raised.ok()
}

/// The memory that the control group of this process may use, in bytes (cgroup v2 and v1). `None`
/// where there is no limit, or none that can be read.
fn memory_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    memory_limit_of(&groups, Path::new("/sys/fs/cgroup"))
}

/// `groups` is what `/proc/self/cgroup` holds, a line `id:controllers:path` for each hierarchy.
fn memory_limit_of(groups: &str, mount: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (_, hierarchy) = line.split_once(':')?;
        let (controllers, path) = hierarchy.split_once(':')?;
        let (mount, file) = if controllers.is_empty() {
            (mount.to_owned(), "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (mount.join("memory"), "memory.limit_in_bytes")
        } else {
            return None;
        };
        // Every group above counts, too. In a container the path may be the host's, and the mount
        // itself the container's group.
        let groups = Path::new(path.trim_start_matches('/')).ancestors();
        groups
            .filter_map(|group| {
                let limit = std::fs::read_to_string(mount.join(group).join(file)).ok()?;
                // cgroup v1 writes no limit as a number near 2^63.
                limit.trim().parse().ok().filter(|limit| *limit < 1 << 60)
            })
            .min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_into_open_files_and_memory() {
        let files = |limit| connections_within(None, Some(limit), None);
        assert_eq!(files(1_048_576), 20_000);
        assert_eq!(files(4096), 4096 - 256);
        assert_eq!(files(300), 150, "a few connections are better than none");
        assert_eq!((files(1), files(0)), (1, 1));
        let memory = |mebibytes: u64| connections_within(None, None, Some(mebibytes << 20));
        assert_eq!(
            (memory(512), memory(64), memory(1 << 40)),
            (819, 102, 20_000)
        );
        assert_eq!(connections_within(None, None, Some(0)), 1);
        // What a person asks for is bounded by files only.
        assert_eq!(
            connections_within(Some(50_000), None, Some(512 << 20)),
            50_000
        );
        assert_eq!(connections_within(Some(50_000), Some(10_256), None), 10_000);
        assert_eq!(connections_within(Some(0), None, None), 1);
    }

    #[test]
    fn memory_limit_is_the_smallest_of_all_groups_above() {
        let mount = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let file = mount.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        let limit = |groups: &str| memory_limit_of(groups, mount.path());
        assert_eq!(limit("0::/\n"), None);
        write("pods/gate/memory.max", "max\n");
        assert_eq!(limit("0::/pods/gate\n"), None, "no limit");
        write("pods/memory.max", "536870912\n");
        assert_eq!(limit("0::/pods/gate\n"), Some(512 << 20));
        write("memory/docker/1/memory.limit_in_bytes", "1048576\n");
        let both = "5:cpu,memory:/docker/1\n4:pids:/docker/1\n0::/pods/gate\n";
        assert_eq!(limit(both), Some(1 << 20));
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit("4:memory:/\n"), None, "no limit");
        write("memory.max", "4096\n");
        assert_eq!(
            limit("0::/of/the/host\n"),
            Some(4096),
            "the container's own"
        );
    }

    #[test]
    fn soft_limit_of_open_files_is_raised() {
        let hard = rlimit::getrlimit(rlimit::Resource::NOFILE).unwrap().1;
        assert_eq!(raise_open_files(), Some(hard));
    }
}
