//! Where the real components and tools come from: a folder that has them, or a build of their Go modules.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Error;

/// Embedded, so that a compiled test finds it wherever the checkout stands.
const BUILD: &str = include_str!("../build-control-plane.sh");

/// The executables of a control plane.
#[derive(Debug)]
pub(super) struct Binaries {
    directory: PathBuf,
    /// The `kubectl` beside the components, else the one on the `PATH`.
    pub(super) kubectl: PathBuf,
    /// `helm`, version 4.
    pub(super) helm: PathBuf,
}

impl Binaries {
    /// Finds the executables, building them first where nobody has yet: minutes the first time, milliseconds after.
    ///
    /// # Errors
    /// [`Error::Binaries`] where something needed for the build is missing or the build fails.
    pub(super) fn find() -> Result<Self, Error> {
        let output = Command::new("bash")
            .args(["-c", BUILD, "build-control-plane.sh"])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| Error::Binaries(format!("cannot run bash: {error}")))?;
        if !output.status.success() {
            return Err(Error::Binaries(format!(
                "build-control-plane.sh ended with {}",
                output.status
            )));
        }
        let answer = String::from_utf8_lossy(&output.stdout);
        let [directory, helm] = answer
            .lines()
            .map(PathBuf::from)
            .collect::<Vec<_>>()
            .try_into()
            .map_err(|_| {
                Error::Binaries(format!(
                    "build-control-plane.sh says {answer:?} instead of a folder and where helm is"
                ))
            })?;
        let kubectl = find_kubectl(&directory).ok_or_else(|| {
            Error::Binaries("kubectl is neither beside the components nor on the PATH".to_owned())
        })?;
        Ok(Self {
            directory,
            kubectl,
            helm,
        })
    }

    /// The executable of a component.
    pub(super) fn of(&self, component: &str) -> PathBuf {
        self.directory.join(component)
    }
}

fn find_kubectl(directory: &Path) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    std::iter::once(directory.to_path_buf())
        .chain(env::split_paths(&path))
        .map(|folder| folder.join("kubectl"))
        .find(|candidate| candidate.is_file())
}
