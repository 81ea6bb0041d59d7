//! When is a component ready? It is asked, again and again, until it says so, ends, or had long enough.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Error;
use super::components::Component;
use super::keeper::Keeper;

/// Long, for a machine that compiles at the same time; an idle one needs 4 seconds for all.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(50);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Waits until `ask` answers `Ok`; an `Err` tells what it still waits for.
///
/// # Errors
/// [`Error::PortTaken`] or [`Error::Ended`] if the component ends, [`Error::NotReady`] after 90 s.
pub(super) fn wait_for(
    component: Component,
    keeper: &Keeper,
    ask: impl Fn() -> Result<(), String>,
) -> Result<(), Error> {
    let component = component.name();
    let begin = Instant::now();
    loop {
        let Err(last) = ask() else { return Ok(()) };
        if !keeper.runs(component)? {
            let log = keeper.end_of_log(component);
            if log.contains("address already in use") {
                return Err(Error::PortTaken { component });
            }
            return Err(Error::Ended { component, log });
        }
        if begin.elapsed() > PATIENCE {
            let log = keeper.end_of_log(component);
            return Err(Error::NotReady {
                component,
                seconds: PATIENCE.as_secs(),
                last,
                log,
            });
        }
        thread::sleep(PAUSE);
    }
}

/// Asks etcd, which speaks plain HTTP here.
pub(super) fn etcd(port: u16) -> Result<(), String> {
    let answer = get(port, "/health").map_err(|error| error.to_string())?;
    if answer.contains(r#""health":"true""#) {
        Ok(())
    } else {
        Err(answer)
    }
}

/// Asks the API server through `kubectl`, since the standard library speaks no TLS.
///
/// Ready means more than `/readyz`: the `default` namespace has to be there, which the API server makes a little later.
pub(super) fn api_server(port: u16, kubectl: &Path, kubeconfig: &Path) -> Result<(), String> {
    // A process for each question is dear: first see whether anybody listens.
    connect(port).map_err(|error| error.to_string())?;
    get_raw(kubectl, kubeconfig, "/readyz")?;
    get_raw(kubectl, kubeconfig, "/api/v1/namespaces/default")
}

/// Asks whether the controller manager has done its first piece of work: a service account for the `default` namespace.
pub(super) fn controller_manager(kubectl: &Path, kubeconfig: &Path) -> Result<(), String> {
    get_raw(
        kubectl,
        kubeconfig,
        "/api/v1/namespaces/default/serviceaccounts/default",
    )
}

/// Looks whether the controller manager's log of one run says that the garbage collector knows all resources.
pub(super) fn garbage_collector(log: &str) -> Result<(), String> {
    if log.contains("Proceeding to collect garbage") {
        Ok(())
    } else {
        Err("it does not collect garbage yet".to_owned())
    }
}

fn get_raw(kubectl: &Path, kubeconfig: &Path, path: &str) -> Result<(), String> {
    let output = Command::new(kubectl)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(["--request-timeout=5s", "get", "--raw", path])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {}: {error}", kubectl.display()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

fn connect(port: u16) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(
        &SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        ANSWER_WITHIN,
    )
}

fn get(port: u16, path: &str) -> io::Result<String> {
    let mut stream = connect(port)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
