//! The command lines of the three components.

use std::path::Path;

/// One of the processes of a control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Component {
    /// The store.
    Etcd,
    /// The API server.
    ApiServer,
    /// What collects garbage, ends namespaces, makes service accounts and aggregates cluster roles.
    ControllerManager,
}

impl Component {
    /// The name of its executable.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
        }
    }
}

/// The ports of a control plane, all on 127.0.0.1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) etcd: u16,
    pub(super) etcd_peer: u16,
    pub(super) api_server: u16,
}

impl Ports {
    pub(super) fn etcd_url(self) -> String {
        format!("http://127.0.0.1:{}", self.etcd)
    }

    pub(super) fn api_server_url(self) -> String {
        format!("https://127.0.0.1:{}", self.api_server)
    }
}

/// The names of the files that the command lines refer to, inside the control plane's directory.
pub(super) mod files {
    pub(in super::super) const AUTHORITY: &str = "ca.pem";
    pub(in super::super) const SERVER_CERTIFICATE: &str = "kube-apiserver.pem";
    pub(in super::super) const SERVER_KEY: &str = "kube-apiserver.key";
    pub(in super::super) const TOKEN_KEY: &str = "service-accounts.key";
    pub(in super::super) const TOKEN_PUBLIC_KEY: &str = "service-accounts.pub";
    pub(in super::super) const CONTROLLER_MANAGER_KUBECONFIG: &str =
        "kube-controller-manager.kubeconfig";
    pub(in super::super) const AUDIT_POLICY: &str = "audit-policy.yaml";
    pub(in super::super) const AUDIT_LOG: &str = "audit.log";
}

/// Who did what to which object and when, never what the object holds: a Secret must not reach a log.
pub(super) const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
";

/// etcd's arguments. What it holds goes with the directory, so it need not reach the disk.
pub(super) fn etcd(directory: &Path, ports: Ports) -> Vec<String> {
    let url = ports.etcd_url();
    let peer = format!("http://127.0.0.1:{}", ports.etcd_peer);
    vec![
        flag("data-dir", directory.join("etcd").display()),
        flag("listen-client-urls", &url),
        flag("advertise-client-urls", &url),
        flag("listen-peer-urls", &peer),
        flag("initial-advertise-peer-urls", &peer),
        flag("initial-cluster", format!("default={peer}")),
        "--unsafe-no-fsync=true".to_owned(),
    ]
}

/// kube-apiserver's arguments; `extra` comes last and therefore wins.
pub(super) fn api_server(
    directory: &Path,
    ports: Ports,
    audit: bool,
    extra: &[String],
) -> Vec<String> {
    let file = |name: &str| directory.join(name).display().to_string();
    let mut arguments = vec![
        "--bind-address=127.0.0.1".to_owned(),
        flag("secure-port", ports.api_server),
        flag("cert-dir", file("kube-apiserver")),
        flag("tls-cert-file", file(files::SERVER_CERTIFICATE)),
        flag("tls-private-key-file", file(files::SERVER_KEY)),
        flag("client-ca-file", file(files::AUTHORITY)),
        flag("etcd-servers", ports.etcd_url()),
        // Every revision stays, for tests that search the whole history for what must never have been written.
        "--etcd-compaction-interval=0".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        "--anonymous-auth=false".to_owned(),
        "--allow-privileged=true".to_owned(),
        // No pod ever runs here, and objects need not wait for their service account.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        flag(
            "service-account-issuer",
            format!("{}/", ports.api_server_url()),
        ),
        flag("service-account-key-file", file(files::TOKEN_PUBLIC_KEY)),
        flag("service-account-signing-key-file", file(files::TOKEN_KEY)),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        // A stop ends the watches early instead of waiting for them.
        "--shutdown-watch-termination-grace-period=1s".to_owned(),
    ];
    if audit {
        arguments.extend([
            flag("audit-policy-file", file(files::AUDIT_POLICY)),
            flag("audit-log-path", file(files::AUDIT_LOG)),
            // Megabytes; large enough never to rotate, so that one file has it all.
            "--audit-log-maxsize=10000".to_owned(),
        ]);
    }
    arguments.extend_from_slice(extra);
    arguments
}

/// kube-controller-manager's arguments.
pub(super) fn controller_manager(directory: &Path) -> Vec<String> {
    const CONTROLLERS: [&str; 6] = [
        "clusterrole-aggregation-controller",
        "garbage-collector-controller",
        "namespace-controller",
        "serviceaccount-controller",
        "serviceaccount-token-controller",
        "validatingadmissionpolicy-status-controller",
    ];
    let file = |name: &str| directory.join(name).display().to_string();
    let kubeconfig = file(files::CONTROLLER_MANAGER_KUBECONFIG);
    vec![
        flag("kubeconfig", &kubeconfig),
        flag("authentication-kubeconfig", &kubeconfig),
        flag("authorization-kubeconfig", &kubeconfig),
        flag("controllers", CONTROLLERS.join(",")),
        flag("root-ca-file", file(files::AUTHORITY)),
        flag("service-account-private-key-file", file(files::TOKEN_KEY)),
        "--leader-elect=false".to_owned(),
        // It serves nothing: nobody looks at its health, and one port less can be taken.
        "--secure-port=0".to_owned(),
        "--kube-api-qps=1000".to_owned(),
        "--kube-api-burst=2000".to_owned(),
        "--concurrent-gc-syncs=20".to_owned(),
    ]
}

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}
