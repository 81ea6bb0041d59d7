//! What the programs are told on their command lines.

mod controller;
mod gate;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use claviger::telemetry::LogFormat;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

pub(crate) use controller::ControllerArgs;
pub(crate) use gate::GateArgs;

/// What every program is told.
#[derive(Args)]
pub(crate) struct ProcessArgs {
    /// The kubeconfig to use. Default: KUBECONFIG or ~/.kube/config, or the ServiceAccount of the pod.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// trace, debug, info, warn or error, or a list such as info,kube=debug.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: String,
    /// How log lines are written.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

/// Why a program does not start, or ended.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The cluster to talk to.
pub(crate) async fn config(kubeconfig: Option<PathBuf>) -> Result<Config, Failure> {
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
    error
        .to_string()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Where to listen, such as `0.0.0.0:8080`. Names are not looked up: what they mean may change, and an address is listened on once.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let example = match text.trim_start_matches(':').parse::<u16>() {
            Ok(port) => format!("127.0.0.1:{port} or, for everybody, 0.0.0.0:{port}"),
            Err(_) => "127.0.0.1:8080 or [::1]:8080".to_owned(),
        };
        format!("{text:?} is not an IP address and a port: write it as {example}")
    })
}

/// A length of time, such as `30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!("{text:?} is not a length of time: write a number and ms, s, m or h, such as 30s")
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let milliseconds = match text.strip_prefix(digits).unwrap_or_default() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    if number == 0 {
        return Err(format!("{text} is no time at all: write at least 1ms"));
    }
    number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Alone<A: Args> {
        #[command(flatten)]
        args: A,
    }

    #[test]
    fn controller_and_gate_listen_on_different_ports() {
        let controller = Alone::<ControllerArgs>::parse_from(["controller"]).args;
        let gate = Alone::<GateArgs>::parse_from(["gate"]).args;
        let ports = [controller.admin_address, gate.admin_address].map(|one| one.port());
        // 8081 is what the documentation lets a gate listen on.
        assert_eq!(ports, [8080, 8082]);
    }

    #[test]
    fn an_address_that_is_none_is_answered_with_one() {
        assert_eq!(
            address("[::1]:8081").unwrap(),
            "[::1]:8081".parse().unwrap()
        );
        assert_eq!(address("0.0.0.0:0").unwrap().port(), 0);
        for (text, example) in [
            ("8081", "127.0.0.1:8081 or, for everybody, 0.0.0.0:8081"),
            (":8081", "0.0.0.0:8081"),
            ("localhost:8081", "127.0.0.1:8080 or [::1]:8080"),
            ("::1:70000", "[::1]:8080"),
            ("", "127.0.0.1:8080 or [::1]:8080"),
        ] {
            let said = address(text).unwrap_err();
            assert!(
                said.contains("not an IP address and a port") && said.ends_with(example),
                "{said}"
            );
        }
    }

    #[test]
    fn a_length_of_time_has_a_unit_and_is_one() {
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(duration("2m").unwrap(), Duration::from_secs(120));
        for text in [
            "",
            "5",
            "s",
            "5d",
            "-5s",
            "5 s",
            "99999999999999999999s",
            "9999999999999999999h",
        ] {
            assert!(
                duration(text)
                    .unwrap_err()
                    .contains("is not a length of time"),
                "{text}"
            );
        }
        for text in ["0s", "0ms", "00h"] {
            assert!(
                duration(text)
                    .unwrap_err()
                    .ends_with("is no time at all: write at least 1ms"),
                "{text}"
            );
        }
    }
}
