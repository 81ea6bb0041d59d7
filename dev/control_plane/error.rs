//! What can go wrong while a control plane starts or is played with, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a control plane did not do as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The binaries are neither found nor built; the script has said why on stderr.
    #[error(
        "no control plane binaries: {0}; see the lines above, or set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver and kube-controller-manager"
    )]
    Binaries(String),
    /// A file or folder of the control plane could not be read or written.
    #[error("cannot use {path}: {source}; check that the temporary folder can be written and is not full", path = path.display())]
    File {
        /// The file or folder concerned.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The process that owns the components could not be started or has gone.
    #[error("the keeper of the control plane does not answer: {0}; start a new control plane")]
    KeeperGone(io::Error),
    /// The keeper refused, for example to stop what does not run.
    #[error("the keeper of the control plane says: {0}")]
    Refused(String),
    /// A certificate or key could not be made.
    #[error("cannot make a certificate for {subject}: {source}")]
    Certificate {
        /// The common name of the subject.
        subject: String,
        /// What the library said.
        source: rcgen::Error,
    },
    /// A client certificate can carry this many groups at most.
    #[error(
        "a client certificate for {user} can carry 2 groups, not {count}; bind the roles to the user instead"
    )]
    TooManyGroups {
        /// The user concerned.
        user: String,
        /// How many groups were asked for.
        count: usize,
    },
    /// No free port was found.
    #[error("no free port between 20000 and 31999 after 100 tries; end some of what listens there")]
    NoFreePort,
    /// Somebody else took a component's port between the choice and its use.
    #[error("{component} found its port taken; start again to choose another")]
    PortTaken {
        /// The component concerned.
        component: &'static str,
    },
    /// A component ended before it was ready.
    #[error("{component} ended before it was ready; the end of its log:\n{log}")]
    Ended {
        /// The component concerned.
        component: &'static str,
        /// The last lines of its log.
        log: String,
    },
    /// A component runs but did not become ready in time.
    #[error(
        "{component} was not ready after {seconds} s ({last}); try again on a less busy machine; the end of its log:\n{log}"
    )]
    NotReady {
        /// The component concerned.
        component: &'static str,
        /// How long it was given, in seconds.
        seconds: u64,
        /// What the last look at it said.
        last: String,
        /// The last lines of its log.
        log: String,
    },
}

impl Error {
    /// Names the file in what the system said about it.
    pub(super) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::File {
            path: path.to_path_buf(),
            source,
        }
    }
}
