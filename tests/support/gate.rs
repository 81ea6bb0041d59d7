//! A gate as a process, with its public address, its logs and metrics.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::cluster::{Cluster, NAMESPACE};
use super::memory_group::MemoryGroup;
use super::operator::http_get;
use super::proxy::Proxy;
use super::stage::Stage;
use super::wait;

static NUMBER: AtomicU32 = AtomicU32::new(1);

/// All of a gate's metrics by name: what they are, and their labels. What documentation lists is measured by it.
pub(crate) const METRICS: &[(&str, &str, &[&str])] = &[
    ("claviger_gate_accept_errors_total", "counter", &[]),
    ("claviger_gate_changes_total", "counter", &["resource"]),
    ("claviger_gate_clock_skew_seconds", "gauge", &[]),
    ("claviger_gate_connections", "gauge", &[]),
    ("claviger_gate_connections_accepted_total", "counter", &[]),
    ("claviger_gate_connections_evicted_total", "counter", &[]),
    (
        "claviger_gate_decision_duration_seconds",
        "histogram",
        &["protocol"],
    ),
    ("claviger_gate_index_lag_seconds", "histogram", &[]),
    ("claviger_gate_keys", "gauge", &[]),
    (
        "claviger_gate_last_event_age_seconds",
        "gauge",
        &["resource"],
    ),
    ("claviger_gate_log_lines_dropped_total", "counter", &[]),
    ("claviger_gate_ready", "gauge", &[]),
    ("claviger_gate_refused_handshakes_total", "counter", &[]),
    ("claviger_gate_refused_requests_total", "counter", &[]),
    ("claviger_gate_roles", "gauge", &[]),
    ("claviger_gate_slow_heads_total", "counter", &[]),
    ("claviger_gate_stalled_connections_total", "counter", &[]),
    ("claviger_gate_undecodable_objects_total", "counter", &[]),
    ("claviger_gate_uses_dropped_total", "counter", &[]),
    ("claviger_gate_uses_pending", "gauge", &[]),
    (
        "claviger_gate_verdicts_total",
        "counter",
        &["protocol", "code"],
    ),
    ("claviger_gate_waited_connections_total", "counter", &[]),
    (
        "claviger_gate_watch_restarts_total",
        "counter",
        &["resource"],
    ),
];

/// How to start a gate.
pub(crate) struct Builder<'a> {
    cluster: Arc<Cluster>,
    proxy: Option<&'a Proxy>,
    kubeconfig: Option<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// The file that takes the process into its control group.
    group: Option<PathBuf>,
    log_pipe: bool,
}

/// A running gate. Its logs and metrics become evidence when it ends; it is killed when dropped.
pub(crate) struct Gate {
    child: Mutex<Child>,
    log: PathBuf,
    log_pipe: Mutex<Option<ChildStderr>>,
    cluster: Arc<Cluster>,
}

impl Gate {
    /// A gate for the whole cluster that listens on plain HTTP, is ready, and reports nothing.
    pub(crate) fn start(stage: &Stage) -> Self {
        Self::builder(&stage.cluster).start_ready()
    }

    /// A gate with nothing said but what tests need.
    pub(crate) fn builder(cluster: &Arc<Cluster>) -> Builder<'static> {
        Builder {
            cluster: cluster.clone(),
            proxy: None,
            kubeconfig: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            group: None,
            log_pipe: false,
        }
        .args(&[
            "--listen=127.0.0.1:0",
            "--admin-address=127.0.0.1:0",
            "--log-level=debug,hyper_util=info,tower=info,h2=info",
            "--access-log=all",
            "--watch-timeout=5s",
        ])
    }

    /// Where its admin server is.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.address("address").expect("it said where it listens")
    }

    /// Where it serves plain HTTP.
    pub(crate) fn plain_address(&self) -> SocketAddr {
        self.address("plain_address")
            .expect("it said where it listens")
    }

    /// Where it serves HTTPS.
    pub(crate) fn tls_address(&self) -> SocketAddr {
        self.address("tls_address")
            .expect("it said where it listens")
    }

    /// Its logs so far.
    pub(crate) fn logs(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Reads its log pipe until a text has come, and no further.
    pub(crate) fn read_log_until(&self, text: &str) {
        let mut pipe = self.log_pipe.lock().expect("no story panicked here");
        let pipe = pipe.as_mut().expect("a gate with a log pipe");
        let mut log = File::create(&self.log).expect("a log file");
        let mut piece = [0; 4_096];
        while !self.logs().contains(text) {
            let length = pipe.read(&mut piece).expect("a pipe");
            assert!(length > 0, "it ended: {}", self.logs());
            log.write_all(&piece[..length]).expect("a log file");
        }
    }

    /// Its process ID.
    pub(crate) fn pid(&self) -> u32 {
        self.child.lock().expect("no story panicked here").id()
    }

    /// What its admin server answers.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        http_get(self.address("address")?, path)
    }

    /// Its metrics.
    pub(crate) fn metrics(&self) -> String {
        self.get("/metrics").expect("the admin server answers").1
    }

    /// One metric's value, such as `claviger_gate_keys`.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        self.metrics().lines().find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(' ')?
                .trim()
                .parse()
                .ok()
        })
    }

    /// The status and the code with which it answers a proxy that asks about a key: on the public port, as Envoy does.
    pub(crate) fn ask(&self, settings: &str, key: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.plain_address()).expect("it listens");
        stream
            .set_read_timeout(Some(wait::LIMIT))
            .expect("a socket");
        let head = format!(
            "GET /v1/auth/envoy/{settings}/- HTTP/1.1\r\nhost: gate\r\nx-api-key: {key}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status");
        let code = answer
            .lines()
            .find_map(|line| line.strip_prefix("x-claviger-code: "));
        (
            status,
            code.unwrap_or_else(|| panic!("no code: {answer}"))
                .to_owned(),
        )
    }

    /// Waits until it says that it is ready.
    pub(crate) fn wait_ready(&self) {
        wait::until("the gate is ready", || match self.get("/readyz") {
            Some((200, _)) => Ok(()),
            other => Err(format!("{other:?}\n{}", self.logs())),
        });
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().expect("no story panicked here");
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        self.gather();
        let done = Command::new("kill")
            .arg("-TERM")
            .arg(self.pid().to_string())
            .status()
            .expect("kill runs");
        assert!(done.success(), "kill -TERM");
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(&self) -> ExitStatus {
        self.terminate();
        self.ended()
    }

    /// Waits until it ends by itself.
    pub(crate) fn ended(&self) -> ExitStatus {
        wait::until("the gate ends", || {
            let ended = self
                .child
                .lock()
                .expect("no story panicked here")
                .try_wait()
                .expect("a status");
            ended.ok_or_else(|| self.logs())
        })
    }

    /// Whether it still runs.
    pub(crate) fn runs(&self) -> bool {
        self.child
            .lock()
            .expect("no story panicked here")
            .try_wait()
            .expect("a status")
            .is_none()
    }

    /// Its resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        super::operator::resident_kib(self.pid())
    }

    /// The most resident memory that it ever had, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        super::operator::memory_kib(self.pid(), "VmHWM:")
    }

    fn address(&self, name: &str) -> Option<SocketAddr> {
        let logs = self.logs();
        // As text it is `address=…`, as JSON `"address":"…"`.
        let text = || logs.split(&format!(" {name}=")).nth(1);
        let after = text().or_else(|| logs.split(&format!("\"{name}\":\"")).nth(1))?;
        after
            .split(|c: char| c.is_whitespace() || c == '"')
            .next()?
            .parse()
            .ok()
    }

    fn gather(&self) {
        if let Some((_, metrics)) = self.runs().then(|| self.get("/metrics")).flatten() {
            self.cluster.evidence.keep("metrics", metrics);
        }
        self.cluster.evidence.keep_file(&self.log);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.gather();
        self.kill();
    }
}

impl<'a> Builder<'a> {
    /// Lets it talk to the API server through a proxy.
    pub(crate) fn via(mut self, proxy: &'a Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// Lets it talk to something else than the cluster's API server.
    pub(crate) fn to(mut self, kubeconfig: String) -> Self {
        self.kubeconfig = Some(kubeconfig);
        self
    }

    /// More arguments; the last of a kind wins.
    pub(crate) fn args(mut self, arguments: &[&str]) -> Self {
        for argument in arguments {
            // clap takes an option once: a later one replaces an earlier one here.
            let name = argument.split('=').next().unwrap_or_default();
            self.arguments
                .retain(|earlier| earlier.split('=').next() != Some(name));
            self.arguments.push((*argument).to_owned());
        }
        self
    }

    /// Bounds its memory.
    pub(crate) fn in_group(mut self, group: &MemoryGroup) -> Self {
        self.group = Some(group.processes());
        self
    }

    /// Without this argument, which it has otherwise.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.arguments
            .retain(|earlier| earlier.split('=').next() != Some(name));
        self
    }

    /// Lets it keep a Gate object of this name in the namespace where the chart is installed.
    pub(crate) fn reporting_as(mut self, name: &str) -> Self {
        self.environment
            .push(("POD_NAME".to_owned(), name.to_owned()));
        self.environment
            .push(("POD_NAMESPACE".to_owned(), NAMESPACE.to_owned()));
        self
    }

    /// Lets it log into a pipe, which [`Gate::read_log_until`] reads and otherwise nobody.
    pub(crate) fn with_log_pipe(mut self) -> Self {
        self.log_pipe = true;
        self
    }

    /// Starts it, without waiting for anything.
    pub(crate) fn start(self) -> Gate {
        let name = format!("gate-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let kubeconfig = match self.kubeconfig {
            None => self
                .cluster
                .kubeconfig_of(&name, &self.cluster.gate_token(), self.proxy),
            Some(text) => {
                let file = self
                    .cluster
                    .control_plane
                    .dir()
                    .join(format!("{name}.kubeconfig"));
                std::fs::write(&file, text).expect("a kubeconfig");
                file
            }
        };
        let log = self
            .cluster
            .control_plane
            .dir()
            .join(format!("{name}.stderr"));
        let program = env!("CARGO_BIN_EXE_claviger");
        let mut command = match &self.group {
            None => Command::new(program),
            Some(processes) => {
                let mut shell = Command::new("sh");
                shell
                    .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
                    .arg(processes)
                    .arg(program);
                shell
            }
        };
        let stderr = if self.log_pipe {
            Stdio::piped()
        } else {
            File::create(&log).expect("a log file").into()
        };
        let mut child = command
            .arg("gate")
            .args(&self.arguments)
            .env_clear()
            .env("KUBECONFIG", &kubeconfig)
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the gate starts");
        Gate {
            log_pipe: Mutex::new(child.stderr.take()),
            child: Mutex::new(child),
            log,
            cluster: self.cluster,
        }
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start_ready(self) -> Gate {
        let gate = self.start();
        gate.wait_ready();
        gate
    }
}
