//! `make demo`: Claviger's story on a real, throw-away Kubernetes control plane.
//!
//! Every command is shown as it is run, with its real output, and everything that is told is checked: the demo ends with
//! a non-zero code at the first step that is not as told. On a terminal it stays up to be played with.
//!
//! - [`story`] is what is told
//! - [`stage`] is where: the control plane, the controller, and a shell

#[path = "../control_plane/mod.rs"]
mod control_plane;
mod error;
mod stage;
mod story;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use self::error::Error;
use self::stage::Stage;

fn main() -> ExitCode {
    match tell() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "\ndemo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn tell() -> Result<(), Error> {
    let stage = Stage::set()?;
    if let Err(error) = story::tell(&stage) {
        // Before the stage goes, and the log with it.
        writeln!(
            io::stderr(),
            "\nthe end of the controller's log:\n{}",
            stage.end_of_log()
        )?;
        return Err(error);
    }
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        stay_up(&stage)?;
    }
    Ok(())
}

/// Waits for Enter. Ctrl-C ends this process at once; what it started ends with it.
fn stay_up(stage: &Stage) -> Result<(), Error> {
    let mut out = io::stdout();
    writeln!(
        out,
        "\nThe control plane and the controller stay up for you to play with. In another terminal:\n"
    )?;
    writeln!(
        out,
        "    export KUBECONFIG={}",
        stage.kubeconfig().display()
    )?;
    writeln!(
        out,
        "    kubectl get ak\n\nEnter or Ctrl-C ends everything and leaves nothing behind."
    )?;
    out.flush()?;
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}
