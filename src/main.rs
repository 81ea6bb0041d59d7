//! `claviger`: parse arguments, start, nothing else.

mod args;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use args::{ControllerArgs, Failure, GateArgs, config};
use clap::{Parser, Subcommand};
use claviger::api::manifests;
use claviger::controller::{self, WallClock};
use claviger::{gate, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

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
    /// Run a gate: say whether keys pass, to proxies and services.
    Gate(Box<GateArgs>),
    /// Print the CustomResourceDefinitions, to be piped into `kubectl apply --server-side -f -`.
    Manifests,
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Controller(args) => controller(*args).await,
        Command::Gate(args) => gate(*args).await,
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
    let _logs = telemetry::start_logs(&args.process.log_level, args.process.log_format)?;
    choose_tls_provider();
    let settings = args.settings()?;
    let config = config(args.process.kubeconfig).await?;
    let admin = telemetry::bind(args.admin_address).await?;
    tracing::info!(address = %admin.local_addr()?, version = env!("CARGO_PKG_VERSION"), "claviger controller");
    controller::run(settings, config, Arc::new(WallClock), admin, until_told()?).await?;
    tracing::info!("stopped");
    Ok(())
}

async fn gate(args: GateArgs) -> Result<(), Failure> {
    let _logs = telemetry::start_logs(&args.process.log_level, args.process.log_format)?;
    choose_tls_provider();
    let settings = args.settings()?;
    let config = config(args.process.kubeconfig).await?;
    let admin = telemetry::bind(args.admin_address).await?;
    tracing::info!(address = %admin.local_addr()?, version = env!("CARGO_PKG_VERSION"), "claviger gate");
    gate::run(settings, config, admin, until_told()?).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Two TLS providers may be compiled in by dependencies; the choice is made here. It fails only when made before.
fn choose_tls_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Cancelled when the process is asked to stop.
fn until_told() -> Result<CancellationToken, Failure> {
    let token = CancellationToken::new();
    tokio::spawn(stop_on_signal(
        token.clone(),
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    ));
    Ok(token)
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
