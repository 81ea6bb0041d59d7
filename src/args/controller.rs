//! What `claviger controller` is told.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{ArgAction, Args};
use claviger::controller::leadership::Timing;
use claviger::controller::{LeaseSettings, Limits, Settings};
use claviger::lifecycle::Rules;

use super::{Failure, ProcessArgs, address, duration};

/// Nobody waits longer than that for gates.
const LONGEST_GATE_WAIT: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(crate) struct ControllerArgs {
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
    /// Elect a leader with a Lease, so that of several replicas one works. False only for a process that is alone.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    leader_election: bool,
    /// The namespace of the Lease. Default: POD_NAMESPACE, else --namespace.
    #[arg(
        long,
        value_name = "NAME",
        env = "POD_NAMESPACE",
        hide_env_values = true
    )]
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
    /// How long the delivery of a rotated key waits until all gates that report say that they know it, at most 1m. A gate that is dead
    /// is waited for until it has been silent for half a minute. 1ms waits for nobody.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration)]
    gate_wait: Duration,
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
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080", value_parser = address)]
    pub(crate) admin_address: SocketAddr,
    #[command(flatten)]
    pub(crate) process: ProcessArgs,
}

impl ControllerArgs {
    /// What the controller is run with.
    pub(crate) fn settings(&self) -> Result<Settings, Failure> {
        let lease = if self.leader_election {
            let namespace = self
                .lease_namespace
                .clone()
                .or_else(|| self.namespace.clone());
            let namespace = namespace.ok_or(
                "leader election needs a namespace for its Lease: set --lease-namespace or POD_NAMESPACE, or --leader-election=false \
                 for a process that is alone",
            )?;
            let timing = Timing::new(self.lease_duration, self.renew_deadline, self.retry_period)?;
            Some(LeaseSettings {
                namespace,
                name: self.lease_name.clone(),
                timing,
            })
        } else {
            None
        };
        if self.announce_grace <= self.request_timeout {
            return Err("--announce-grace must be longer than --request-timeout: a request may be under way that long".into());
        }
        if self.gate_wait > LONGEST_GATE_WAIT {
            return Err(
                "--gate-wait must be 1m or less: a key that leaked may be waiting to be replaced"
                    .into(),
            );
        }
        // Who may look at one namespace only has its gates beside itself.
        let beside = || {
            self.lease_namespace
                .clone()
                .or_else(|| self.namespace.clone())
        };
        Ok(Settings {
            namespace: self.namespace.clone(),
            gate_namespace: self.namespace.as_ref().and_then(|_| beside()),
            rules: Rules {
                finalizer: self.finalizer.unwrap_or(self.namespace.is_none()),
                principal_domain: self.principal_domain.clone(),
                hold_minting: self.hold_minting,
            },
            cluster_objects: self.cluster_objects,
            limits: Limits {
                announce_grace: self.announce_grace,
                gate_wait: self.gate_wait,
                max_backoff: self.max_backoff,
                request_timeout: self.request_timeout,
                concurrency: self.concurrency,
            },
            lease,
            instance: std::env::var("POD_NAME")
                .or_else(|_| std::env::var("HOSTNAME"))
                .unwrap_or_else(|_| "claviger".to_owned()),
        })
    }
}

fn domain(text: &str) -> Result<String, String> {
    let label = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if text.len() <= 200 && text.split('.').all(label) {
        Ok(text.to_owned())
    } else {
        Err("a domain is lower-case labels with dots between, such as keys.example.com".to_owned())
    }
}
