//! Where the story is told: a control plane, the controller, and a shell whose commands the reader sees.

use std::env;
use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::control_plane::{Auth, ControlPlane, Options};
use crate::error::Error;

const CONTROLLER: &str = "claviger";
const GATE: &str = "claviger-gate";
const LOG_LINES: usize = 20;

/// A running control plane and what is needed to show it.
pub(crate) struct Stage {
    control_plane: ControlPlane,
    kubeconfig: PathBuf,
    /// `claviger`, built beside this program.
    claviger: PathBuf,
    path: OsString,
}

impl Stage {
    /// Starts a control plane with nothing in it.
    ///
    /// # Errors
    /// [`Error::NotHere`] outside the checkout; [`Error::NoController`]; [`Error::ControlPlane`].
    pub(crate) fn set() -> Result<Self, Error> {
        for needed in ["dev/demo/billing-export.yaml", "charts/claviger/Chart.yaml"] {
            if !Path::new(needed).is_file() {
                return Err(Error::NotHere(needed));
            }
        }
        // Cargo puts examples one folder below programs.
        let program = env::current_exe().map_err(|_| Error::NoController)?;
        let folder = program
            .parent()
            .and_then(Path::parent)
            .ok_or(Error::NoController)?;
        let claviger = folder.join("claviger");
        if !claviger.is_file() {
            return Err(Error::NoController);
        }
        let control_plane = ControlPlane::start(&Options::default())?;
        let admin = Auth::ClientCert {
            user: "admin".to_owned(),
            groups: vec!["system:masters".to_owned()],
        };
        let kubeconfig = control_plane.write_kubeconfig("demo", control_plane.url(), admin)?;
        let tools = [control_plane.kubectl(), control_plane.helm()]
            .map(|tool| tool.parent().unwrap_or(folder));
        let path = path_with([folder, tools[0], tools[1]]);
        Ok(Self {
            control_plane,
            kubeconfig,
            claviger,
            path,
        })
    }

    /// A kubeconfig that may do everything here.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The last lines that the controller wrote.
    pub(crate) fn end_of_log(&self) -> String {
        let log = self.control_plane.guest_log(CONTROLLER);
        let lines: Vec<&str> = log.lines().collect();
        lines
            .get(lines.len().saturating_sub(LOG_LINES)..)
            .unwrap_or_default()
            .join("\n")
    }
}

/// Begins a chapter.
///
/// # Errors
/// [`Error::Output`] if nobody reads, as everywhere here.
pub(crate) fn chapter(title: &str) -> Result<(), Error> {
    Ok(writeln!(io::stdout(), "\n=== {title}\n")?)
}

/// Says what there was to see, once it was checked.
///
/// # Errors
/// [`Error::Output`].
pub(crate) fn told(sentence: &str) -> Result<(), Error> {
    Ok(writeln!(io::stdout(), "--> {sentence}\n")?)
}

/// What the reader sees.
impl Stage {
    /// Shows a command and what it prints; it must succeed.
    ///
    /// # Errors
    /// [`Error::Ended`] if it fails; [`Error::Shell`]; [`Error::Output`].
    pub(crate) fn show(&self, command: &str) -> Result<String, Error> {
        let output = self.run_shown(command)?;
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(ended(command, "succeeded", &output))
        }
    }

    /// Shows a command that must be refused, and what it says.
    ///
    /// # Errors
    /// [`Error::Ended`] if it succeeds; [`Error::Shell`]; [`Error::Output`].
    pub(crate) fn show_refused(&self, command: &str) -> Result<String, Error> {
        let output = self.run_shown(command)?;
        if output.status.success() {
            Err(ended(command, "been refused", &output))
        } else {
            Ok(text(&output.stderr))
        }
    }

    /// Runs a command unseen, to check what was told; it must succeed.
    ///
    /// # Errors
    /// [`Error::Ended`] if it fails; [`Error::Shell`].
    pub(crate) fn ask(&self, command: &str) -> Result<String, Error> {
        let output = self.run(command)?;
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(ended(command, "succeeded", &output))
        }
    }

    /// Waits until an unseen command says what is wanted.
    ///
    /// # Errors
    /// [`Error::NotAsTold`] after half a minute; [`Error::Ended`] if it fails; [`Error::Shell`].
    pub(crate) fn until_said(
        &self,
        told: &'static str,
        command: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<(), Error> {
        until(told, || {
            let said = self.ask(command)?;
            Ok(if wanted(&said) { Ok(()) } else { Err(said) })
        })
    }

    fn run_shown(&self, command: &str) -> Result<Output, Error> {
        writeln!(io::stdout(), "$ {command}")?;
        let output = self.run(command)?;
        let mut out = io::stdout();
        for said in [&output.stdout, &output.stderr] {
            out.write_all(said)?;
            if said.last().is_some_and(|byte| *byte != b'\n') {
                writeln!(out)?;
            }
        }
        writeln!(out)?;
        Ok(output)
    }

    fn run(&self, command: &str) -> Result<Output, Error> {
        Command::new("sh")
            .args(["-c", command])
            .env("KUBECONFIG", &self.kubeconfig)
            .env("PATH", &self.path)
            // What helm keeps goes with the control plane.
            .env("HELM_CACHE_HOME", self.control_plane.dir().join("helm"))
            .env("HELM_CONFIG_HOME", self.control_plane.dir().join("helm"))
            .env("HELM_DATA_HOME", self.control_plane.dir().join("helm"))
            .stdin(Stdio::null())
            .output()
            .map_err(|source| Error::Shell {
                command: command.to_owned(),
                source,
            })
    }
}

/// The gate.
impl Stage {
    /// Shows a gate's start, as its `ServiceAccount`, and returns where it can be asked when it knows every key.
    ///
    /// # Errors
    /// [`Error::ControlPlane`] if it cannot be started; [`Error::NotAsTold`] if it does not come to know them.
    pub(crate) fn start_gate(&self) -> Result<String, Error> {
        let token =
            self.ask("kubectl create token claviger-gate -n claviger-system --duration=24h")?;
        let auth = Auth::Token(token.trim().to_owned());
        let kubeconfig =
            self.control_plane
                .write_kubeconfig(GATE, self.control_plane.url(), auth)?;
        let arguments = [
            "gate".to_owned(),
            format!("--kubeconfig={}", kubeconfig.display()),
            "--listen=127.0.0.1:0".to_owned(),
            "--admin-address=127.0.0.1:0".to_owned(),
        ];
        writeln!(io::stdout(), "$ claviger {} &", arguments.join(" "))?;
        let command: Vec<_> = std::iter::once(self.claviger.display().to_string())
            .chain(arguments)
            .collect();
        self.control_plane.run_guest(GATE, &command)?;
        let address = |name: &str| {
            let log = self.control_plane.guest_log(GATE);
            Some(
                log.split(&format!(" {name}="))
                    .nth(1)?
                    .split_whitespace()
                    .next()?
                    .to_owned(),
            )
        };
        until("the gate starts and knows every key", || {
            if !self.control_plane.guest_runs(GATE)? {
                return Ok(Err("that it has ended".to_owned()));
            }
            let Some(admin) = address("address") else {
                return Ok(Err("no address yet".to_owned()));
            };
            let said = self.run(&format!("curl -s http://{admin}/readyz"))?;
            let said = text(&said.stdout);
            Ok(if said.trim() == "ok" {
                Ok(())
            } else {
                Err(said)
            })
        })?;
        writeln!(io::stdout(), "{}", self.control_plane.guest_log(GATE))?;
        address("plain_address").ok_or(Error::NotAsTold {
            told: "the gate says where it listens",
            found: "nothing".to_owned(),
        })
    }
}

/// The controller.
impl Stage {
    /// Shows the controller's start, as its `ServiceAccount`, and returns when it leads.
    ///
    /// # Errors
    /// [`Error::ControlPlane`] if it cannot be started; [`Error::NotAsTold`] if it does not come to lead.
    pub(crate) fn start_controller(&self) -> Result<(), Error> {
        let token =
            self.ask("kubectl create token claviger-controller -n claviger-system --duration=24h")?;
        let auth = Auth::Token(token.trim().to_owned());
        let kubeconfig =
            self.control_plane
                .write_kubeconfig(CONTROLLER, self.control_plane.url(), auth)?;
        let arguments = [
            "controller".to_owned(),
            format!("--kubeconfig={}", kubeconfig.display()),
            "--lease-namespace=claviger-system".to_owned(),
            "--admin-address=127.0.0.1:0".to_owned(),
        ];
        writeln!(io::stdout(), "$ claviger {} &", arguments.join(" "))?;
        let command: Vec<_> = std::iter::once(self.claviger.display().to_string())
            .chain(arguments)
            .collect();
        let already = self.control_plane.guest_log(CONTROLLER).len();
        self.control_plane.run_guest(CONTROLLER, &command)?;
        until("the controller starts and leads", || {
            if !self.control_plane.guest_runs(CONTROLLER)? {
                return Ok(Err("that it has ended".to_owned()));
            }
            let leads = self.metric(already, "claviger_leading");
            Ok(if leads == Some(1) {
                Ok(())
            } else {
                Err(format!("claviger_leading {leads:?}"))
            })
        })?;
        let log = self.control_plane.guest_log(CONTROLLER);
        writeln!(io::stdout(), "{}", log.get(already..).unwrap_or_default())?;
        Ok(())
    }

    /// Shows the controller's end and its new start, and returns when it has looked at that many `ApiKey`s again.
    ///
    /// # Errors
    /// As [`Stage::start_controller`].
    pub(crate) fn restart_controller(&self, apikeys: i64) -> Result<(), Error> {
        let pid = self.control_plane.guest_pid(CONTROLLER).unwrap_or_default();
        self.show(&format!("kill -TERM {pid}"))?;
        until("the controller ends when it is asked to", || {
            Ok(if self.control_plane.guest_runs(CONTROLLER)? {
                Err("that it still runs".to_owned())
            } else {
                Ok(())
            })
        })?;
        let already = self.control_plane.guest_log(CONTROLLER).len();
        self.start_controller()?;
        until(
            "the new controller looks at every ApiKey and finds nothing to do",
            || {
                let unchanged = self
                    .metric(already, "claviger_reconciles_total{outcome=\"Unchanged\"}")
                    .unwrap_or_default();
                Ok(if unchanged >= apikeys {
                    Ok(())
                } else {
                    Err(format!("{unchanged} of {apikeys} looked at"))
                })
            },
        )
    }

    /// How often the controller that was started last has written something of ours (no Lease, no Event).
    ///
    /// # Errors
    /// [`Error::NotAsTold`] if it does not answer.
    pub(crate) fn writes(&self) -> Result<i64, Error> {
        let page = self.metrics(0).ok_or(Error::NotAsTold {
            told: "the controller serves its metrics",
            found: "none".to_owned(),
        })?;
        let ours = |line: &&str| {
            line.starts_with("claviger_api_writes_total{")
                && !line.contains("\"leases\"")
                && !line.contains("\"events\"")
        };
        Ok(page
            .lines()
            .filter(ours)
            .filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok())
            .sum())
    }

    fn metric(&self, already: usize, name: &str) -> Option<i64> {
        self.metrics(already)?
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// The metrics of the controller whose log begins after `already` bytes, if it is up.
    fn metrics(&self, already: usize) -> Option<String> {
        let log = self.control_plane.guest_log(CONTROLLER);
        let address = log
            .get(already..)?
            .rsplit_once("address=")?
            .1
            .split_whitespace()
            .next()?
            .parse::<SocketAddr>()
            .ok()?;
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(
            stream,
            "GET /metrics HTTP/1.1\r\nhost: claviger\r\nconnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

/// Waits, half a minute at most, until `holds`; otherwise says what was `told` and what was found last.
fn until(
    told: &'static str,
    mut holds: impl FnMut() -> Result<Result<(), String>, Error>,
) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        match holds()? {
            Ok(()) => return Ok(()),
            Err(found) if begun.elapsed() > Duration::from_secs(30) => {
                return Err(Error::NotAsTold { told, found });
            }
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn path_with(first: [&Path; 3]) -> OsString {
    let old = env::var_os("PATH").unwrap_or_default();
    let all = first
        .into_iter()
        .map(Path::to_path_buf)
        .chain(env::split_paths(&old));
    env::join_paths(all).unwrap_or(old.clone())
}

fn ended(command: &str, wanted: &'static str, output: &Output) -> Error {
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    Error::Ended {
        command: command.to_owned(),
        wanted,
        status: output.status,
        output: said.trim().to_owned(),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
