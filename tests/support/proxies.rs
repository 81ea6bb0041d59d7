//! The proxies that people put before an API, for real, each as its file in `examples/gate/` says.

use std::fmt;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::{Answer, Question};
use super::upstream::Upstream;
use super::wait;

/// Embedded, so that a compiled test finds it wherever the checkout stands.
const FETCH: &str = include_str!("../../dev/fetch-proxies.sh");
/// nginx's example is made to be included; what stands around it keeps nginx inside its folder.
const NGINX: &str = "
daemon off;
pid nginx.pid;
error_log stderr;
user root;
worker_processes 1;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include api.conf;
}
";

/// How often a start is tried when another process takes the port between its choice and its use.
const STARTS: usize = 3;

/// The Envoys that are tested, by their places among the lines of `fetch-proxies.sh`. Versions differ in what they make of
/// the headers of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Envoy {
    Newest = 0,
    /// The oldest that is supported.
    V1_36 = 5,
    V1_37 = 6,
}

/// A proxy, and the way it asks the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    EnvoyGrpc,
    EnvoyHttp,
    Nginx,
    HaProxy,
    Caddy,
    Traefik,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::EnvoyGrpc,
        Self::EnvoyHttp,
        Self::Nginx,
        Self::HaProxy,
        Self::Caddy,
        Self::Traefik,
    ];

    /// Its place among the lines of `fetch-proxies.sh`; an Envoy of any version serves both of its files.
    fn line(self) -> usize {
        match self {
            Self::EnvoyGrpc | Self::EnvoyHttp => Envoy::Newest as usize,
            Self::Nginx => 1,
            Self::HaProxy => 2,
            Self::Caddy => 3,
            Self::Traefik => 4,
        }
    }

    /// The example's name and text.
    fn example(self) -> (&'static str, &'static str) {
        match self {
            Self::EnvoyGrpc => (
                "envoy-grpc.yaml",
                include_str!("../../examples/gate/envoy-grpc.yaml"),
            ),
            Self::EnvoyHttp => (
                "envoy-http.yaml",
                include_str!("../../examples/gate/envoy-http.yaml"),
            ),
            Self::Nginx => ("nginx.conf", include_str!("../../examples/gate/nginx.conf")),
            Self::HaProxy => (
                "haproxy.cfg",
                include_str!("../../examples/gate/haproxy.cfg"),
            ),
            Self::Caddy => ("Caddyfile", include_str!("../../examples/gate/Caddyfile")),
            Self::Traefik => (
                "traefik.yaml",
                include_str!("../../examples/gate/traefik.yaml"),
            ),
        }
    }

    /// The file that belongs to the example, and lies beside it.
    fn companion(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Nginx => Some((
                "claviger-headers.conf",
                include_str!("../../examples/gate/claviger-headers.conf"),
            )),
            Self::HaProxy => Some((
                "claviger.lua",
                include_str!("../../examples/gate/claviger.lua"),
            )),
            _ => None,
        }
    }

    /// What a user changes in the example: the addresses, and where files lie.
    fn placeholders(
        self,
        own: SocketAddr,
        gate: SocketAddr,
        upstream: SocketAddr,
        dir: &Path,
    ) -> Vec<(String, String)> {
        let envoy = |host: &str, port: u16, address: SocketAddr| {
            let flow = |host: &str, port: u16| format!("address: {host}, port_value: {port}");
            (
                flow(host, port),
                flow(&address.ip().to_string(), address.port()),
            )
        };
        let gate_name = "claviger-gate.claviger-system.svc";
        match self {
            Self::EnvoyGrpc | Self::EnvoyHttp => {
                vec![
                    envoy("0.0.0.0", 8000, own),
                    envoy("claviger-gate-headless.claviger-system.svc", 8081, gate),
                    envoy("upstream.example", 8080, upstream),
                ]
            }
            Self::Nginx | Self::HaProxy | Self::Caddy | Self::Traefik => {
                let mut all = vec![
                    (format!("{gate_name}:8081"), gate.to_string()),
                    ("upstream.example:8080".to_owned(), upstream.to_string()),
                ];
                match self {
                    Self::Nginx => {
                        all.push(("listen 8000".to_owned(), format!("listen {own}")));
                        all.push((
                            "/etc/nginx/claviger-headers.conf".to_owned(),
                            dir.join("claviger-headers.conf").display().to_string(),
                        ));
                    }
                    Self::HaProxy => {
                        all.push(("bind :8000".to_owned(), format!("bind {own}")));
                        // A socket of its own for each.
                        all.push((
                            "abns@claviger-gate".to_owned(),
                            format!("abns@claviger-gate-{}", own.port()),
                        ));
                        all.push((
                            "/etc/haproxy/claviger.lua".to_owned(),
                            dir.join("claviger.lua").display().to_string(),
                        ));
                    }
                    Self::Caddy => {
                        all.push((
                            "\n:8000 {".to_owned(),
                            format!("\nhttp://:{} {{\n\tbind {}", own.port(), own.ip()),
                        ));
                    }
                    // Traefik's entry point is no matter of this file.
                    _ => {}
                }
                all
            }
        }
    }

    /// The command line of a binary, to listen at `own`; the configuration is `config`.
    fn command(self, line: usize, own: SocketAddr, dir: &Path, config: &Path) -> Command {
        let mut command = Command::new(&binaries()[line]);
        match self {
            Self::EnvoyGrpc | Self::EnvoyHttp => {
                command
                    .args([
                        "--disable-hot-restart",
                        "--concurrency",
                        "1",
                        "--log-level",
                        "warning",
                        "-c",
                    ])
                    .arg(config);
            }
            Self::Nginx => {
                fs::write(dir.join("main.conf"), NGINX).expect("a configuration");
                fs::rename(config, dir.join("api.conf")).expect("a configuration");
                command
                    .arg("-p")
                    .arg(dir)
                    .args(["-e", "stderr", "-c"])
                    .arg(dir.join("main.conf"));
            }
            Self::HaProxy => {
                command.args(["-db", "-f"]).arg(config);
            }
            Self::Caddy => {
                let admin = format!("unix/{}", dir.join("admin.sock").display());
                command
                    .env("CADDY_ADMIN", admin)
                    .env("XDG_DATA_HOME", dir)
                    .env("XDG_CONFIG_HOME", dir);
                command
                    .args(["run", "--adapter", "caddyfile", "--config"])
                    .arg(config);
            }
            Self::Traefik => {
                // Under its own name, Traefik would take it for its static configuration.
                let dynamic = dir.join("api.yaml");
                fs::rename(config, &dynamic).expect("a configuration");
                command.arg(format!("--entryPoints.web.address={own}"));
                command.arg(format!("--providers.file.filename={}", dynamic.display()));
                command.args([
                    "--global.checknewversion=false",
                    "--global.sendanonymoususage=false",
                ]);
            }
        }
        command
    }

    /// Whether this comes from the example's configuration. Traefik listens before it has read that.
    fn is_configured(self, answer: &Answer) -> bool {
        self != Self::Traefik || answer.status != 404
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.example().0)
    }
}

/// A running proxy between a client, the gate, and an API of its own. It ends when dropped.
pub(crate) struct Proxy {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    pub(crate) upstream: Upstream,
    child: Child,
    dir: TempDir,
}

impl Proxy {
    /// Starts one that asks this gate, and waits until it answers.
    pub(crate) fn start(kind: Kind, gate: SocketAddr) -> Self {
        Self::start_edited(kind, gate, |text| text)
    }

    /// The same for an Envoy that asks several gates, as it finds them behind a headless Service.
    pub(crate) fn start_before(kind: Kind, gates: &[SocketAddr]) -> Self {
        Self::start_edited(kind, gates[0], |text| {
            // Where many stories share two processors, two seconds are not much.
            assert!(
                text.contains("timeout: 2s"),
                "{kind} waits for another time"
            );
            with_gates(&text, gates)
                .replace("timeout: 2s", "timeout: 20s")
                .replace("max_interval: 0.5s", "max_interval: 5s")
                .replace(
                    "{interval: 2s, timeout: 1s}",
                    "{interval: 2s, timeout: 10s}",
                )
        })
    }

    /// The same for one whose file is edited first; its placeholders are filled in already.
    pub(crate) fn start_edited(
        kind: Kind,
        gate: SocketAddr,
        edit: impl Fn(String) -> String,
    ) -> Self {
        Self::launch(kind, kind.line(), gate, |name, text| {
            if name == kind.example().0 {
                edit(text)
            } else {
                text
            }
        })
    }

    /// The same where the file beside it is edited, too; the edit is told the name of each.
    pub(crate) fn start_all_edited(
        kind: Kind,
        gate: SocketAddr,
        edit: impl Fn(&str, String) -> String,
    ) -> Self {
        Self::launch(kind, kind.line(), gate, edit)
    }

    /// The same for an Envoy of this version.
    pub(crate) fn start_envoy(
        envoy: Envoy,
        kind: Kind,
        gate: SocketAddr,
        edit: impl Fn(String) -> String,
    ) -> Self {
        Self::launch(kind, envoy as usize, gate, |_, text| edit(text))
    }

    fn launch(
        kind: Kind,
        line: usize,
        gate: SocketAddr,
        edit: impl Fn(&str, String) -> String,
    ) -> Self {
        let mut why = String::new();
        for _ in 0..STARTS {
            let upstream = Upstream::start();
            let dir = TempDir::with_prefix("claviger-proxy-").expect("a temporary folder");
            let address = free_address();
            let (name, text) = kind.example();
            let mut text = text.to_owned();
            for (from, to) in kind.placeholders(address, gate, upstream.address, dir.path()) {
                assert!(text.contains(&from), "{kind} has no {from:?} any more");
                text = text.replace(&from, &to);
            }
            let config = dir.path().join(name);
            fs::write(&config, edit(name, text)).expect("a configuration");
            if let Some((name, text)) = kind.companion() {
                fs::write(dir.path().join(name), edit(name, text.to_owned())).expect("a file");
            }
            let log = File::create(dir.path().join("log")).expect("a log file");
            let child = kind
                .command(line, address, dir.path(), &config)
                .current_dir(dir.path())
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a log file"))
                .stderr(log)
                .spawn()
                .expect("the proxy starts");
            let mut proxy = Self {
                kind,
                address,
                upstream,
                child,
                dir,
            };
            let up = wait::until(&format!("{kind} answers"), || {
                if let Some(status) = proxy.child.try_wait().expect("a status") {
                    return Ok(Err(format!("{kind} ended with {status}:\n{}", proxy.log())));
                }
                match Question::get("/orders").ask(address) {
                    Ok(answer) if kind.is_configured(&answer) => Ok(Ok(())),
                    other => Err(format!("{other:?}\n{}", proxy.log())),
                }
            });
            match up {
                Ok(()) => return proxy,
                Err(ended) => why = ended,
            }
        }
        panic!("{why}");
    }

    /// Asks through the proxy; somebody must answer.
    pub(crate) fn ask(&self, question: Question) -> Answer {
        question
            .ask(self.address)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}", self.kind, self.log()))
    }

    /// What it wrote so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Asked to, nginx ends its workers too; killed, it would leave them.
        let runs = |child: &mut Child| matches!(child.try_wait(), Ok(None));
        if runs(&mut self.child)
            && Command::new("kill")
                .arg(self.child.id().to_string())
                .status()
                .is_ok()
        {
            let asked = Instant::now();
            while runs(&mut self.child) && asked.elapsed() < wait::LIMIT {
                std::thread::park_timeout(Duration::from_millis(10));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lists all gates where the file lists the first.
fn with_gates(text: &str, gates: &[SocketAddr]) -> String {
    let endpoints = gates.iter().map(|gate| {
        format!(
            "        - endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}\n",
            gate.ip(),
            gate.port()
        )
    });
    let endpoints: Vec<String> = endpoints.collect();
    assert!(
        text.contains(&endpoints[0]),
        "the file lists its gate in another way"
    );
    text.replace(&endpoints[0], &endpoints.concat())
}

/// An address that is free now.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port")
}

/// The proxies' files, fetched first where nobody has yet.
fn binaries() -> &'static [PathBuf] {
    static BINARIES: OnceLock<Vec<PathBuf>> = OnceLock::new();
    BINARIES.get_or_init(|| {
        let output = Command::new("bash")
            .args(["-c", FETCH, "fetch-proxies.sh"])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .expect("bash runs");
        assert!(
            output.status.success(),
            "no proxies: fetch-proxies.sh ended with {}; see the lines above",
            output.status
        );
        let files: Vec<_> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(PathBuf::from)
            .collect();
        assert_eq!(
            files.len(),
            7,
            "fetch-proxies.sh names seven files: {files:?}"
        );
        files
    })
}
