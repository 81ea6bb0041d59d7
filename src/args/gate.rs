//! What `claviger gate` is told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};
use claviger::gate::callers::{self, Method};
use claviger::gate::report::Identity;
use claviger::gate::server::{Limits, TlsFiles};
use claviger::gate::{AccessLog, ProxyCallers, Settings};
use claviger::watch::Timing;

use super::{Failure, ProcessArgs, address, duration};

/// How long an answer of the API server is waited for.
const REQUEST: Duration = Duration::from_secs(30);

/// A longer watch that dies silently would hide revocations for too long.
const LONGEST_WATCH: Duration = Duration::from_secs(300);
/// A caller who may no more is let in for so long.
const LONGEST_CACHE: Duration = Duration::from_secs(300);

#[derive(Args)]
pub(crate) struct GateArgs {
    /// Know the ApiKeys of this namespace only. Default: of the whole cluster.
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Look at ApiKeyRoles. They are the cluster's own: false where an installation in one namespace has no right to; roles
    /// then grant nothing.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    cluster_objects: bool,
    /// Where plain HTTP is served, such as 127.0.0.1:8081 for a sidecar. Port 0 takes any free one and logs it.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    listen: Option<SocketAddr>,
    /// Where HTTPS is served, with --tls-cert and --tls-key.
    #[arg(long, value_name = "ADDRESS", value_parser = address, requires = "tls_cert", requires = "tls_key")]
    listen_tls: Option<SocketAddr>,
    /// The certificate and those that lead to its authority, as PEM. Read again when it changes.
    #[arg(long, value_name = "FILE", requires = "listen_tls")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate, as PEM.
    #[arg(long, value_name = "FILE", requires = "listen_tls")]
    tls_key: Option<PathBuf>,
    /// The authorities of client certificates, as PEM. Certificates are asked for, and needed where mtls is.
    #[arg(long, value_name = "FILE", requires = "listen_tls")]
    tls_client_ca: Option<PathBuf>,
    /// How callers of /v1/verify prove who they are: by a ServiceAccount token whose user has the verb verify on apikeys, by a client
    /// certificate, or not at all.
    #[arg(
        long,
        value_name = "HOW",
        value_enum,
        value_delimiter = ',',
        default_value = "token"
    )]
    verify_callers: Vec<Method>,
    /// An audience that tokens of callers may be for. May be repeated. By default one of the gate's own: a token for the API server's
    /// (such as `https://kubernetes.default.svc`) lets whoever sees it on its way do all that the caller may do.
    #[arg(long, value_name = "NAME", default_value = "claviger-gate")]
    token_audience: Vec<String>,
    /// How long a caller's token is trusted without asking the API server again: at most 5m.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    token_cache: Duration,
    /// How proxies prove who they are.
    #[arg(long, value_name = "HOW", value_enum, default_value = "none")]
    proxy_callers: ProxyCallers,
    /// Let routes name no audience: a key for any API then passes them.
    #[arg(long)]
    routes_without_audience: bool,
    /// Refuse to decide when the API server was not heard of for this long. Default: never, for an API server that is away must not
    /// stop everybody. More than --watch-timeout and five seconds.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    max_staleness: Option<Duration>,
    /// How long a watch lasts before it is begun anew: from 1s to 5m. One that dies silently is noticed five seconds later.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    watch_timeout: Duration,
    /// How many connections are served at once. Default: as many as half of the memory limit can
    /// hold, at most 20000.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: Option<u32>,
    /// How long requests that are under way are waited for when the process is told to stop.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = duration)]
    drain: Duration,
    /// Which verdicts are logged. A line names the key's ID, never the key.
    #[arg(long, value_name = "WHICH", value_enum, default_value = "off")]
    access_log: AccessLog,
    /// Keep a Gate object named as this pod, where POD_NAME and POD_NAMESPACE say which: for people, and for status.lastUsedAt.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    report: bool,
    /// Where /healthz, /readyz and /metrics are served. Port 0 takes any free one and logs it.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8082", value_parser = address)]
    pub(crate) admin_address: SocketAddr,
    #[command(flatten)]
    pub(crate) process: ProcessArgs,
}

impl GateArgs {
    /// What the gate is run with.
    pub(crate) fn settings(&self) -> Result<Settings, Failure> {
        let files = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(TlsFiles {
                certificate: certificate.clone(),
                key: key.clone(),
                client_ca: self.tls_client_ca.clone(),
            }),
            _ => None,
        };
        if self.watch_timeout < Duration::from_secs(1) || self.watch_timeout > LONGEST_WATCH {
            return Err("--watch-timeout must be from 1s to 5m: a watch that dies silently is noticed only after it".into());
        }
        if self.token_cache > LONGEST_CACHE {
            return Err("--token-cache must be at most 5m: a caller whose right was taken away passes for so long".into());
        }
        Ok(Settings {
            namespace: self.namespace.clone(),
            cluster_objects: self.cluster_objects,
            listen: self.listen,
            listen_tls: self.listen_tls.zip(files),
            limits: Limits {
                drain: self.drain,
                ..Limits::default()
            },
            max_connections: self.max_connections,
            callers: callers::Settings {
                methods: self.verify_callers.clone(),
                audiences: self.token_audience.clone(),
                cache: self.token_cache,
                ..callers::Settings::default()
            },
            proxy_callers: self.proxy_callers,
            routes_without_audience: self.routes_without_audience,
            max_staleness: self.max_staleness,
            timing: Timing {
                watch: self.watch_timeout,
                request: REQUEST,
            },
            access_log: self.access_log,
            report: if self.report {
                Identity::from_env()
            } else {
                None
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        gate: GateArgs,
    }

    #[test]
    fn what_hides_revocations_for_long_is_refused_with_a_sentence() {
        for (argument, refused) in [
            ("--watch-timeout=1s", None),
            ("--watch-timeout=5m", None),
            (
                "--watch-timeout=999ms",
                Some("--watch-timeout must be from 1s to 5m"),
            ),
            (
                "--watch-timeout=301s",
                Some("--watch-timeout must be from 1s to 5m"),
            ),
            ("--token-cache=1s", None),
            ("--token-cache=5m", None),
            (
                "--token-cache=301s",
                Some("--token-cache must be at most 5m"),
            ),
        ] {
            let settings = Command::try_parse_from(["gate", argument])
                .unwrap()
                .gate
                .settings();
            let said = settings.err().map(|error| error.to_string());
            let right = match (&said, refused) {
                (Some(said), Some(refused)) => said.starts_with(refused),
                (None, None) => true,
                _ => false,
            };
            assert!(right, "{argument}: {said:?}");
        }
    }
}
