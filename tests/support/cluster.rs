//! A control plane with Claviger installed in it by its chart.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::runtime::Runtime;

use super::control_plane::{Auth, ControlPlane, Options};
use super::leaks::Evidence;
use super::proxy::Proxy;

/// The definitions as they are shipped.
pub(crate) const CRDS: &str = concat!(
    include_str!("../../crds/apikeypolicies.claviger.dev.yaml"),
    "---\n",
    include_str!("../../crds/apikeyroles.claviger.dev.yaml"),
    "---\n",
    include_str!("../../crds/apikeys.claviger.dev.yaml"),
    "---\n",
    include_str!("../../crds/gates.claviger.dev.yaml"),
);
/// Where the chart is installed.
pub(crate) const NAMESPACE: &str = "claviger-system";
/// Whom the controller is to the API server.
pub(crate) const ACCOUNT: &str = "system:serviceaccount:claviger-system:claviger-controller";
/// Whom a gate is to the API server.
pub(crate) const GATE_ACCOUNT: &str = "system:serviceaccount:claviger-system:claviger-gate";

/// A control plane with everything in it that Claviger needs: what its chart installs.
pub(crate) struct Cluster {
    pub(crate) control_plane: ControlPlane,
    /// The bearer token of the controller's ServiceAccount.
    pub(crate) token: String,
    /// What is looked through for keys at the end.
    pub(crate) evidence: Arc<Evidence>,
    admin: Mutex<Option<Client>>,
    deprived: AtomicBool,
}

static SHARED: OnceLock<Arc<Cluster>> = OnceLock::new();
static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// Runs asynchronous parts of a story.
pub(crate) fn runtime() -> &'static Runtime {
    RUNTIME.get_or_init(|| {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()
            .expect("a runtime")
    })
}

impl Cluster {
    /// The cluster that all stories share which do not stop or starve it.
    pub(crate) fn shared() -> Arc<Self> {
        SHARED
            .get_or_init(|| {
                Arc::new(Self::start(&Options {
                    audit: true,
                    ..Options::default()
                }))
            })
            .clone()
    }

    /// The shared cluster, if any story has used it.
    pub(crate) fn shared_if_started() -> Option<Arc<Self>> {
        SHARED.get().cloned()
    }

    /// A cluster for one story.
    pub(crate) fn own() -> Arc<Self> {
        Arc::new(Self::start(&Options {
            audit: true,
            ..Options::default()
        }))
    }

    /// A cluster for one story, whose API server gets more arguments.
    pub(crate) fn own_with(extra_apiserver_args: &[&str]) -> Arc<Self> {
        let extra_apiserver_args = extra_apiserver_args
            .iter()
            .map(|argument| (*argument).to_owned())
            .collect();
        Arc::new(Self::start(&Options {
            audit: true,
            extra_apiserver_args,
        }))
    }

    /// A cluster with rights for the controller but without the definitions.
    pub(crate) fn without_definitions() -> Arc<Self> {
        let mut cluster = Self::empty(&Options {
            audit: true,
            ..Options::default()
        });
        cluster.install(&["--set=crds.enabled=false"]);
        cluster.token = cluster.new_token();
        Arc::new(cluster)
    }

    /// A cluster with nothing in it.
    pub(crate) fn without_claviger() -> Arc<Self> {
        Arc::new(Self::empty(&Options {
            audit: true,
            ..Options::default()
        }))
    }

    fn start(options: &Options) -> Self {
        let mut cluster = Self::empty(options);
        cluster.install_definitions();
        cluster.token = cluster.new_token();
        cluster
    }

    fn empty(options: &Options) -> Self {
        let control_plane = ControlPlane::start(options).unwrap_or_else(|error| panic!("{error}"));
        Self {
            control_plane,
            token: String::new(),
            evidence: Arc::default(),
            admin: Mutex::default(),
            deprived: AtomicBool::default(),
        }
    }

    /// A token for the controller's ServiceAccount, which is another one after each installation.
    pub(crate) fn new_token(&self) -> String {
        self.kubectl(&[
            "create",
            "token",
            "claviger-controller",
            "-n",
            NAMESPACE,
            "--duration=24h",
        ])
        .trim()
        .to_owned()
    }

    /// A token for the gate's ServiceAccount.
    pub(crate) fn gate_token(&self) -> String {
        self.kubectl(&[
            "create",
            "token",
            "claviger-gate",
            "-n",
            NAMESPACE,
            "--duration=24h",
        ])
        .trim()
        .to_owned()
    }

    /// Says that the story takes rights away from the controller on purpose, and why. All others have it work with its rights.
    pub(crate) fn deprive(&self, why: &str) {
        assert!(!why.is_empty());
        self.deprived.store(true, Ordering::Relaxed);
    }

    /// Whether rights were taken away on purpose.
    pub(crate) fn is_deprived(&self) -> bool {
        self.deprived.load(Ordering::Relaxed)
    }

    /// Installs the chart with the definitions, and waits until they are served and their objects are collected.
    pub(crate) fn install_definitions(&self) {
        // Said aloud: an upgrade without any value keeps those of the release.
        self.install(&["--set=crds.enabled=true"]);
        self.await_definitions();
    }

    /// Waits until the definitions are served and their objects are collected.
    pub(crate) fn await_definitions(&self) {
        for plural in ["apikeys", "apikeyroles", "apikeypolicies", "gates"] {
            self.kubectl(&[
                "wait",
                "--for=condition=Established",
                &format!("crd/{plural}.claviger.dev"),
                "--timeout=60s",
            ]);
        }
        self.control_plane
            .restart_controller_manager()
            .unwrap_or_else(|error| panic!("{error}"));
        self.await_policies();
    }

    /// Runs kubectl as administrator; it must succeed.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        self.kubectl_with(arguments, "")
    }

    /// Runs kubectl as administrator with something to read; it must succeed.
    pub(crate) fn kubectl_with(&self, arguments: &[&str], input: &str) -> String {
        let output = self.try_kubectl(arguments, input);
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(
            output.status.success(),
            "kubectl {}: {out}{err}",
            arguments.join(" ")
        );
        out.into_owned()
    }

    /// Runs kubectl as administrator, whatever comes of it.
    pub(crate) fn try_kubectl(&self, arguments: &[&str], input: &str) -> Output {
        use std::io::Write as _;
        let mut child = Command::new(self.control_plane.kubectl())
            .arg("--kubeconfig")
            .arg(self.control_plane.kubeconfig())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        child
            .stdin
            .take()
            .expect("its input")
            .write_all(input.as_bytes())
            .expect("kubectl reads");
        child.wait_with_output().expect("kubectl ends")
    }

    /// Applies manifests.
    pub(crate) fn apply(&self, manifests: &str) -> String {
        self.kubectl_with(&["apply", "-f", "-"], manifests)
    }

    /// A client that may do everything.
    pub(crate) fn client(&self) -> Client {
        let mut admin = self.admin.lock().expect("no story panicked here");
        admin
            .get_or_insert_with(|| {
                runtime()
                    .block_on(async {
                        Client::try_from(config(self.control_plane.kubeconfig()).await)
                    })
                    .expect("a client")
            })
            .clone()
    }

    /// A proxy before the API server, for a controller that authenticates as its ServiceAccount.
    pub(crate) fn proxy(&self) -> Proxy {
        Proxy::start(self.control_plane.url(), Some(self.control_plane.ca_pem()))
    }

    /// The configuration of a controller that works in process through `proxy`.
    pub(crate) fn config_through(&self, proxy: &Proxy) -> Config {
        let kubeconfig =
            Kubeconfig::from_yaml(&proxy.kubeconfig(&self.token)).expect("a kubeconfig");
        let mut config = runtime()
            .block_on(Config::from_custom_kubeconfig(
                kubeconfig,
                &KubeConfigOptions::default(),
            ))
            .expect("a configuration");
        config.default_retry = false;
        config
    }

    /// The kubeconfig file of somebody with this token, straight or through a proxy.
    pub(crate) fn kubeconfig_of(&self, name: &str, token: &str, proxy: Option<&Proxy>) -> PathBuf {
        let Some(proxy) = proxy else {
            let auth = Auth::Token(token.to_owned());
            let written = self
                .control_plane
                .write_kubeconfig(name, self.control_plane.url(), auth);
            return written.unwrap_or_else(|error| panic!("{error}"));
        };
        let file = self.control_plane.dir().join(format!("{name}.kubeconfig"));
        std::fs::write(&file, proxy.kubeconfig(token)).expect("a kubeconfig");
        file
    }
}

impl Drop for Cluster {
    /// A story's own cluster is looked through when the story has ended well: for keys, and for what the controller asked.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            super::leaks::audit(self);
            super::rights::gather(self);
        }
    }
}

/// Reads a kubeconfig file.
pub(crate) async fn config(file: &Path) -> Config {
    let kubeconfig = Kubeconfig::read_from(file).expect("a kubeconfig");
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("a configuration")
}
