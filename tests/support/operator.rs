//! The controller as a process.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::cluster::Cluster;
use super::proxy::Proxy;
use super::wait;

static NUMBER: AtomicU32 = AtomicU32::new(1);

/// How to start a controller.
pub(crate) struct Builder<'a> {
    cluster: Arc<Cluster>,
    proxy: Option<&'a Proxy>,
    arguments: Vec<String>,
    token: Option<String>,
}

/// A running controller. Its logs and metrics become evidence when it ends; it is killed when dropped.
pub(crate) struct Operator {
    child: Arc<Mutex<Child>>,
    log: PathBuf,
    cluster: Arc<Cluster>,
}

impl<'a> Builder<'a> {
    /// A controller for one namespace that keeps its finalizer, alone, with a short grace period.
    pub(crate) fn for_namespace(cluster: &Arc<Cluster>, namespace: &str) -> Self {
        Self::bare(cluster).args(&[
            "--namespace",
            namespace,
            "--finalizer=true",
            "--leader-election=false",
        ])
    }

    /// A controller for the whole cluster, alone.
    pub(crate) fn for_cluster(cluster: &Arc<Cluster>) -> Self {
        Self::bare(cluster).args(&["--leader-election=false"])
    }

    /// A controller with nothing said but what tests need: debug logs, a free port, and times that suit proxies which bound
    /// every request.
    pub(crate) fn bare(cluster: &Arc<Cluster>) -> Self {
        Self {
            cluster: cluster.clone(),
            proxy: None,
            arguments: Vec::new(),
            token: None,
        }
        .args(&[
            "--admin-address=127.0.0.1:0",
            "--log-level=debug,hyper_util=info,tower=info",
            "--request-timeout=2s",
            "--announce-grace=3s",
        ])
    }

    /// Lets it talk through a proxy.
    pub(crate) fn via(mut self, proxy: &'a Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// Lets it prove itself by another token than the cluster's first.
    pub(crate) fn token(mut self, token: String) -> Self {
        self.token = Some(token);
        self
    }

    /// More arguments; the last of a kind wins.
    pub(crate) fn args(mut self, arguments: &[&str]) -> Self {
        for argument in arguments {
            // clap takes an option once: a later one replaces an earlier one here.
            let name = argument.split('=').next().unwrap_or_default();
            if argument.contains('=') && name.starts_with("--") {
                self.arguments
                    .retain(|earlier| earlier.split('=').next() != Some(name));
            }
            self.arguments.push((*argument).to_owned());
        }
        self
    }

    /// Starts it, without waiting for anything.
    pub(crate) fn start(self) -> Operator {
        let name = format!("operator-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let token = self.token.unwrap_or_else(|| self.cluster.token.clone());
        let kubeconfig = self.cluster.kubeconfig_of(&name, &token, self.proxy);
        let log = self
            .cluster
            .control_plane
            .dir()
            .join(format!("{name}.stderr"));
        let child = Command::new(env!("CARGO_BIN_EXE_claviger"))
            .arg("controller")
            .args(&self.arguments)
            .env_clear()
            .env("KUBECONFIG", &kubeconfig)
            .env("POD_NAME", &name)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a log file"))
            .spawn()
            .expect("the controller starts");
        Operator {
            child: Arc::new(Mutex::new(child)),
            log,
            cluster: self.cluster,
        }
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start_ready(self) -> Operator {
        let operator = self.start();
        wait::until("the controller is ready", || {
            match operator.get("/readyz") {
                Some((200, _)) => Ok(()),
                other => Err(format!("{other:?}\n{}", operator.logs())),
            }
        });
        operator
    }
}

impl Operator {
    /// Its logs so far.
    pub(crate) fn logs(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process ID.
    pub(crate) fn pid(&self) -> u32 {
        self.child.lock().expect("no story panicked here").id()
    }

    /// A hook that kills it as a crash would, and waits until it is gone.
    pub(crate) fn killer(&self) -> impl Fn() + Send + Sync + use<> {
        let child = self.child.clone();
        move || {
            let mut child = child.lock().expect("no story panicked here");
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(&self) {
        self.killer()();
    }

    /// Stops it from running, without ending it, at a moment that a proxy chooses.
    pub(crate) fn freezer(&self) -> impl Fn() + Send + Sync + use<> {
        let pid = self.pid().to_string();
        move || {
            let _ = Command::new("kill").args(["-STOP", &pid]).status();
        }
    }

    /// Stops it from running, without ending it.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets it run on.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(&self) -> ExitStatus {
        self.gather();
        self.signal("TERM");
        self.ended()
    }

    /// Waits until it ends by itself.
    pub(crate) fn ended(&self) -> ExitStatus {
        wait::until("the controller ends", || {
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
        resident_kib(self.pid())
    }

    /// Its metrics.
    pub(crate) fn metrics(&self) -> String {
        self.get("/metrics").expect("the admin server answers").1
    }

    /// One metric's value, such as `claviger_keys{phase="Active"}`.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        self.metrics()
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// What its admin server answers.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        http_get(self.address()?, path)
    }

    /// Where its admin server is.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        let logs = self.logs();
        // As text it is `address=…`, as JSON `"address":"…"`.
        let after = logs
            .split("address=")
            .nth(1)
            .or_else(|| logs.split("\"address\":\"").nth(1))?;
        after
            .split(|c: char| c.is_whitespace() || c == '"')
            .next()?
            .parse()
            .ok()
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status()
            .expect("kill runs");
        assert!(done.success(), "kill -{name}");
    }

    fn gather(&self) {
        if let Some((_, metrics)) = self.runs().then(|| self.get("/metrics")).flatten() {
            self.cluster.evidence.keep("metrics", metrics);
        }
        self.cluster.evidence.keep_file(&self.log);
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // A frozen process answers nobody: let it run before it is asked.
        if self.runs() {
            self.signal("CONT");
        }
        self.gather();
        self.kill();
    }
}

/// The status and the body of a plain request.
pub(crate) fn http_get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: claviger\r\nconnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// The resident memory of a process in KiB.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    memory_kib(pid, "VmRSS:")
}

/// A line of a process's memory in KiB (proc(5), `/proc/pid/status`).
pub(crate) fn memory_kib(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status
        .lines()
        .find(|line| line.starts_with(name))
        .expect("its memory");
    line.split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .expect("a number")
}
