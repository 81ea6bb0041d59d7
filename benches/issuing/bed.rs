//! The test bed: a control plane, keys to issue, controllers, and meters.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use claviger::api::{ApiKey, ApiKeyRole, ApiKeyRoleSpec, ApiKeySpec, Expiry, Phase};
use futures::{StreamExt, TryStreamExt};
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use tokio::task::JoinHandle;

use crate::control_plane::{Auth, ControlPlane, Options};
use crate::machine::{self, Cost};

/// A control plane with Claviger's definitions and rights in it.
pub(crate) struct Bed {
    control_plane: Arc<ControlPlane>,
    admin: Client,
    /// A client with the rights of the controller.
    pub(crate) service_account: Client,
    kubeconfig: String,
    started: AtomicU32,
}

/// A running controller.
pub(crate) struct Controller {
    control_plane: Arc<ControlPlane>,
    name: String,
}

/// The role of every key. It exists: a key whose role is missing costs an event and a write more.
const ROLE: &str = "ic-viewer";

/// What the API server was asked to do, Leases apart.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Writes {
    /// To ApiKeys and Secrets, creations of ApiKeys apart: those are the bench's own.
    pub(crate) ours: u64,
    /// Events.
    pub(crate) events: u64,
}

impl Bed {
    /// Starts everything.
    pub(crate) async fn make() -> Self {
        let control_plane = ControlPlane::start(&Options::default()).expect("a control plane");
        let kubectl = |arguments: &[&str]| {
            let mut command = Command::new(control_plane.kubectl());
            command
                .arg("--kubeconfig")
                .arg(control_plane.kubeconfig())
                .args(arguments)
                .stdin(Stdio::null());
            let output = command.output().expect("kubectl runs");
            assert!(
                output.status.success(),
                "kubectl {arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8(output.stdout)
                .expect("text")
                .trim()
                .to_owned()
        };
        let installed = Command::new(control_plane.helm())
            .args([
                "install",
                "claviger",
                concat!(env!("CARGO_MANIFEST_DIR"), "/charts/claviger"),
            ])
            .args(["--namespace=claviger-system", "--create-namespace"])
            // The controller adds the finalizer, as before Kubernetes 1.36: the plain loop does so, too.
            .arg("--set=admission.finalizer=false")
            .env("KUBECONFIG", control_plane.kubeconfig())
            .stdin(Stdio::null())
            .output()
            .expect("helm runs");
        assert!(
            installed.status.success(),
            "helm install: {}",
            String::from_utf8_lossy(&installed.stderr)
        );
        kubectl(&[
            "wait",
            "--for=condition=Established",
            "crd/apikeys.claviger.dev",
            "--timeout=60s",
        ]);
        let token = kubectl(&[
            "create",
            "token",
            "claviger-controller",
            "-n",
            "claviger-system",
            "--duration=24h",
        ]);
        let kubeconfig = control_plane
            .write_kubeconfig("service-account", control_plane.url(), Auth::Token(token))
            .expect("a kubeconfig");
        let bed = Self {
            admin: client(control_plane.kubeconfig()).await,
            service_account: client(&kubeconfig).await,
            kubeconfig: kubeconfig.display().to_string(),
            control_plane: Arc::new(control_plane),
            started: AtomicU32::new(0),
        };
        bed.await_admission().await;
        let roles: Api<ApiKeyRole> = Api::all(bed.admin.clone());
        let spec = ApiKeyRoleSpec {
            permissions: vec!["invoices:read".to_owned()],
            ..ApiKeyRoleSpec::default()
        };
        roles
            .create(&PostParams::default(), &ApiKeyRole::new(ROLE, spec))
            .await
            .expect("a role");
        bed
    }

    /// Waits until the API server's mutating policies know what an ApiKey is: until then it answers 503, for some seconds.
    async fn await_admission(&self) {
        let api: Api<ApiKey> = Api::namespaced(self.admin.clone(), "default");
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let begun = Instant::now();
        while let Err(error) = api
            .create(&params, &ApiKey::new("taken", ApiKeySpec::default()))
            .await
        {
            assert!(begun.elapsed() < Duration::from_secs(60), "{error}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The API server's version.
    pub(crate) async fn version(&self) -> String {
        self.admin
            .apiserver_version()
            .await
            .expect("a version")
            .git_version
    }

    /// The file by which a client has the rights of the controller.
    #[allow(dead_code, reason = "the other benchmark uses it")]
    pub(crate) fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }

    /// Makes a namespace.
    pub(crate) async fn namespace(&self, name: &str) {
        let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.admin.clone());
        let mut namespace = k8s_openapi::api::core::v1::Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        api.create(&PostParams::default(), &namespace)
            .await
            .expect("a namespace");
    }

    /// Makes a namespace with that many ApiKeys: `key-0`, `key-1`, ….
    pub(crate) async fn declare(&self, namespace: &str, keys: usize) {
        self.namespace(namespace).await;
        let api: Api<ApiKey> = Api::namespaced(self.admin.clone(), namespace);
        futures::stream::iter(0..keys)
            .for_each_concurrent(16, |number| {
                let api = api.clone();
                async move {
                    let spec = ApiKeySpec {
                        description: Some("Nightly export of invoices".to_owned()),
                        application: Some("billing".to_owned()),
                        roles: vec![ROLE.to_owned()],
                        expiry: Some(Expiry {
                            after: Some("90d".to_owned()),
                            ..Expiry::default()
                        }),
                        ..ApiKeySpec::default()
                    };
                    let apikey = ApiKey::new(&format!("key-{number}"), spec);
                    api.create(&PostParams::default(), &apikey)
                        .await
                        .expect("an ApiKey");
                }
            })
            .await;
    }

    /// Starts to watch a namespace's ApiKeys: ends with the time from the first change to the last key's activation.
    pub(crate) async fn meter(&self, namespace: &str, keys: usize) -> JoinHandle<Duration> {
        let api: Api<ApiKey> = Api::namespaced(self.admin.clone(), namespace);
        let list = api.list(&ListParams::default()).await.expect("a list");
        assert_eq!(list.items.len(), keys, "all are declared");
        let version = list.metadata.resource_version.expect("a resourceVersion");
        let events = api
            .watch(&WatchParams::default(), &version)
            .await
            .expect("a watch");
        tokio::spawn(async move {
            let mut events = events.boxed();
            let (mut begun, mut active) = (None, std::collections::HashSet::new());
            while let Some(event) = events.try_next().await.expect("the watch goes on") {
                let WatchEvent::Modified(apikey) = event else {
                    continue;
                };
                let begun = *begun.get_or_insert_with(Instant::now);
                if apikey.status.as_ref().and_then(|status| status.phase) == Some(Phase::Active) {
                    active.insert(apikey.name_any());
                }
                if active.len() == keys {
                    return begun.elapsed();
                }
            }
            panic!("the watch ended after {} keys", active.len())
        })
    }

    /// Starts a controller, alone.
    pub(crate) fn controller(&self, arguments: &[&str]) -> Controller {
        let name = format!(
            "controller-{}",
            self.started.fetch_add(1, Ordering::Relaxed)
        );
        let mut command: Vec<String> = [
            env!("CARGO_BIN_EXE_claviger"),
            "controller",
            &format!("--kubeconfig={}", self.kubeconfig),
            "--leader-election=false",
            "--admin-address=127.0.0.1:0",
        ]
        .map(str::to_owned)
        .to_vec();
        command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self.control_plane
            .run_guest(&name, &command)
            .expect("a controller");
        Controller {
            control_plane: self.control_plane.clone(),
            name,
        }
    }

    /// What the API server was asked to do so far, by its own count.
    pub(crate) async fn writes(&self) -> Writes {
        let request = http::Request::get("/metrics")
            .body(Vec::new())
            .expect("a request");
        let page = self
            .admin
            .request_text(request)
            .await
            .expect("the API server's metrics");
        let mut writes = Writes::default();
        for line in page
            .lines()
            .filter_map(|line| line.strip_prefix("apiserver_request_total{"))
        {
            let is = |label: &str, values: &[&str]| {
                values
                    .iter()
                    .any(|value| line.contains(&format!("{label}=\"{value}\"")))
            };
            let count: u64 = line
                .rsplit(' ')
                .next()
                .and_then(|count| count.parse().ok())
                .unwrap_or_default();
            let writing =
                is(",verb", &["POST", "PUT", "PATCH", "APPLY", "DELETE"]) && is("dry_run", &[""]);
            let declared = is(",resource", &["apikeys"]) && is(",verb", &["POST"]);
            if is(",resource", &["apikeys", "secrets"]) && writing && !declared {
                writes.ours += count;
            } else if is(",resource", &["events"]) && writing {
                writes.events += count;
            }
        }
        writes
    }
}

impl Writes {
    /// What was added since.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            ours: self.ours - before.ours,
            events: self.events - before.events,
        }
    }
}

impl Controller {
    /// What it has used so far.
    pub(crate) fn cost(&self) -> Cost {
        machine::cost(
            self.control_plane
                .guest_pid(&self.name)
                .expect("a running controller"),
        )
    }

    /// How many single objects it has read so far, by its own count: the garbage collector reads, too.
    pub(crate) fn reads(&self) -> usize {
        let page = self.page().unwrap_or_default();
        let read = |line: &&str| {
            line.starts_with("claviger_api_requests_total{verb=\"get\"")
                && !line.contains("\"other\"")
        };
        page.lines()
            .filter(read)
            .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
            .sum()
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(self) {
        self.control_plane
            .stop_guest(&self.name)
            .expect("a running controller");
    }

    /// Waits until it has looked at that many ApiKeys and found nothing to do.
    pub(crate) async fn wait_unchanged(&self, keys: usize) {
        self.wait(|page| metric(page, "claviger_reconciles_total{outcome=\"Unchanged\"}") >= keys)
            .await;
    }

    /// Waits until it works.
    pub(crate) async fn wait_ready(&self) {
        self.wait(|page| metric(page, "claviger_leading") == 1)
            .await;
    }

    async fn wait(&self, is: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        loop {
            let page = self.page();
            if page.as_deref().is_some_and(&is) {
                return;
            }
            let patient = begun.elapsed() < Duration::from_secs(120);
            assert!(
                patient,
                "{page:?}\n{}",
                self.control_plane.guest_log(&self.name)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn page(&self) -> Option<String> {
        let log = self.control_plane.guest_log(&self.name);
        let address: SocketAddr = log
            .split_once("address=")?
            .1
            .split_whitespace()
            .next()?
            .parse()
            .ok()?;
        let mut stream = TcpStream::connect(address).ok()?;
        write!(
            stream,
            "GET /metrics HTTP/1.1\r\nhost: claviger\r\nconnection: close\r\n\r\n"
        )
        .ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        Some(page)
    }
}

fn metric(page: &str, name: &str) -> usize {
    page.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        .unwrap_or_default()
}

async fn client(kubeconfig: &std::path::Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("a configuration");
    config.default_retry = false;
    Client::try_from(config).expect("a client")
}
