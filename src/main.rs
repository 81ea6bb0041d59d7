//! `claviger`: parse arguments, start, nothing else.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};
use claviger::api::manifests;
use claviger::controller::leadership::Timing;
use claviger::controller::{self, LeaseSettings, Limits, Settings, WallClock};
use claviger::lifecycle::Rules;
use claviger::telemetry::{self, LogFormat};
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Claviger makes an API key a Kubernetes resource: minted once into a Secret, known to the cluster by its hash only.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the controller: issue, expire, revoke and delete the keys that ApiKeys declare.
    Controller(Box<ControllerArgs>),
    /// Print the CustomResourceDefinitions, to be piped into `kubectl apply --server-side -f -`.
    Manifests,
}

#[derive(Args)]
struct ControllerArgs {
    /// Work on this namespace only. Default: the whole cluster. Its gates are looked for in the namespace of the Lease, else here.
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Keep ApiKeys from disappearing before their Secret has. Default: true for the whole cluster, false with --namespace, where a
    /// RoleBinding may go before the ApiKeys do and nobody could take the finalizer off; there garbage collection removes the Secret.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    finalizer: Option<bool>,
    /// Look at ApiKeyRoles, ApiKeyPolicies and the labels of namespaces. They are the cluster's own: false where an installation in one
    /// namespace has no right to; policies then hold at admission only, and roles that do not exist are not reported.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    cluster_objects: bool,
    /// Mint, import and adopt nothing, as long as a restore is under way, and leave alone what was never announced. All else goes on.
    #[arg(long)]
    hold_minting: bool,
    /// The kubeconfig to use. Default: KUBECONFIG or ~/.kube/config, or the ServiceAccount of the pod.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Elect a leader with a Lease, so that of several replicas one works. False only for a process that is alone.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    leader_election: bool,
    /// The namespace of the Lease. Default: POD_NAMESPACE, else --namespace.
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", hide_env_values = true)]
    lease_namespace: Option<String>,
    /// The name of the Lease.
    #[arg(long, value_name = "NAME", default_value = "claviger-controller")]
    lease_name: String,
    /// How long a silent leader is waited for before another takes over.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = duration)]
    lease_duration: Duration,
    /// How long a leader works after its last renewal. Shorter than --lease-duration.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    renew_deadline: Duration,
    /// The pause between two looks at the Lease.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    retry_period: Duration,
    /// How long an announcement of unknown outcome must stand before a live read decides. Longer than any request can be under way:
    /// the API server's own limit (60s by default) and --request-timeout.
    #[arg(long, value_name = "TIME", default_value = "100s", value_parser = duration)]
    announce_grace: Duration,
    /// How long an answer of the API server is waited for.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    request_timeout: Duration,
    /// The longest pause of an ApiKey that is not as it should be.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    max_backoff: Duration,
    /// How many ApiKeys are worked on at once.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// The last part of every principal: <keyId>@<namespace>.<domain>.
    #[arg(long, value_name = "DOMAIN", default_value = "claviger.local", value_parser = domain)]
    principal_domain: String,
    /// Where /healthz, /readyz and /metrics are served. Port 0 takes any free one and logs it.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    admin_address: SocketAddr,
    /// trace, debug, info, warn or error, or a list such as info,kube=debug.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// How log lines are written.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Controller(args) => controller(*args).await,
        Command::Manifests => print_manifests(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("claviger: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn controller(args: ControllerArgs) -> Result<(), Failure> {
    telemetry::start_logs(&args.log_level, args.log_format)?;
    // Two TLS providers may be compiled in by dependencies; the choice is made here. It fails only when made before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let settings = settings(&args)?;
    let config = config(args.kubeconfig).await?;
    let admin = telemetry::bind(args.admin_address).await?;
    tracing::info!(address = %admin.local_addr()?, version = env!("CARGO_PKG_VERSION"), "claviger controller");
    let token = CancellationToken::new();
    tokio::spawn(stop_on_signal(token.clone(), signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?));
    controller::run(settings, config, Arc::new(WallClock), admin, token).await?;
    tracing::info!("stopped");
    Ok(())
}

fn settings(args: &ControllerArgs) -> Result<Settings, Failure> {
    let lease = if args.leader_election {
        let namespace = args.lease_namespace.clone().or_else(|| args.namespace.clone());
        let namespace = namespace.ok_or(
            "leader election needs a namespace for its Lease: set --lease-namespace or POD_NAMESPACE, or --leader-election=false \
             for a process that is alone",
        )?;
        let timing = Timing::new(args.lease_duration, args.renew_deadline, args.retry_period)?;
        Some(LeaseSettings { namespace, name: args.lease_name.clone(), timing })
    } else {
        None
    };
    if args.announce_grace <= args.request_timeout {
        return Err("--announce-grace must be longer than --request-timeout: a request may be under way that long".into());
    }
    // Who may look at one namespace only has its gates beside itself.
    let beside = || args.lease_namespace.clone().or_else(|| args.namespace.clone());
    Ok(Settings {
        namespace: args.namespace.clone(),
        gate_namespace: args.namespace.as_ref().and_then(|_| beside()),
        rules: Rules {
            finalizer: args.finalizer.unwrap_or(args.namespace.is_none()),
            principal_domain: args.principal_domain.clone(),
            hold_minting: args.hold_minting,
        },
        cluster_objects: args.cluster_objects,
        limits: Limits {
            announce_grace: args.announce_grace,
            max_backoff: args.max_backoff,
            request_timeout: args.request_timeout,
            concurrency: args.concurrency,
        },
        lease,
        instance: std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_else(|_| "claviger".to_owned()),
    })
}

async fn config(kubeconfig: Option<PathBuf>) -> Result<Config, Failure> {
    let mut config = match kubeconfig {
        Some(file) => {
            let wrong = |error| format!("--kubeconfig {}: {}", file.display(), first_line(&error));
            let kubeconfig = Kubeconfig::read_from(&file).map_err(wrong)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(wrong)?
        }
        None => Config::infer().await.map_err(|error| {
            let (error, file) = (first_line(&error), std::env::var("KUBECONFIG").unwrap_or_else(|_| "not set".to_owned()));
            format!("no cluster to talk to: {error} (KUBECONFIG is {file}): set --kubeconfig or KUBECONFIG, or run in a pod with a ServiceAccount")
        })?,
    };
    // A write is repeated only where we know that it was not carried out, or that repeating it is harmless.
    config.default_retry = false;
    Ok(config)
}

/// What an error says first. A parser goes on with an excerpt of the file, and a kubeconfig holds credentials.
fn first_line(error: &impl std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

async fn stop_on_signal(
    token: CancellationToken,
    mut terminate: tokio::signal::unix::Signal,
    mut interrupt: tokio::signal::unix::Signal,
) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("asked to stop: finishing what was begun");
    token.cancel();
}

fn print_manifests() -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for (_, yaml) in manifests::all()? {
        match write!(out, "---\n{yaml}") {
            // The reader has seen enough, as in `claviger manifests | head`.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    }
    Ok(())
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a length of time: write a number and ms, s, m or h, such as 30s");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let milliseconds = match text.strip_prefix(digits).unwrap_or_default() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(milliseconds).filter(|all| *all > 0).map(Duration::from_millis).ok_or_else(wrong)
}

fn domain(text: &str) -> Result<String, String> {
    let label = |part: &str| {
        !part.is_empty() && part.len() <= 63 && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if text.len() <= 200 && text.split('.').all(label) {
        Ok(text.to_owned())
    } else {
        Err("a domain is lower-case labels with dots between, such as keys.example.com".to_owned())
    }
}
