//! Why the demo stops before its end.

use std::io;

use crate::control_plane;

/// Why the demo stops before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The control plane did not do as asked.
    #[error(transparent)]
    ControlPlane(#[from] control_plane::Error),
    /// Not started where the manifests are.
    #[error(
        "{0} is not here: start the demo with `make demo`, in the folder of Claviger's Makefile"
    )]
    NotHere(&'static str),
    /// There is no controller to show.
    #[error("no claviger beside this program: start the demo with `make demo`, which builds it")]
    NoController,
    /// A shell could not be started.
    #[error("cannot run `{command}`: {source}")]
    Shell {
        /// What was to be run.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// A command that should have succeeded failed, or the other way round.
    #[error("`{command}` should have {wanted}, and ended with {status}: {output}")]
    Ended {
        /// What was run.
        command: String,
        /// `succeeded` or `been refused`.
        wanted: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        output: String,
    },
    /// Something is not as the demo tells it.
    #[error("{told}: that is not so; found {found}")]
    NotAsTold {
        /// What the demo tells.
        told: &'static str,
        /// What is the case.
        found: String,
    },
    /// The terminal is gone.
    #[error("nobody reads what the demo prints: {0}")]
    Output(#[from] io::Error),
}
