//! The keeper: the process that owns the components and outlives the owner just long enough to clean up.
//!
//! A `Drop` alone would not do: it does not run on a SIGKILL, nor for what stands in a `static`.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use super::{Error, ports};

/// Embedded, so that a compiled test finds it wherever the checkout stands.
const SCRIPT: &str = include_str!("../keeper.sh");

/// A running keeper with a directory of its own. Dropping it ends the components and removes the directory.
#[derive(Debug)]
pub(super) struct Keeper {
    directory: PathBuf,
    process: Child,
    /// `None` only while dropping: closing them is what ends the keeper.
    pipes: Mutex<Option<Pipes>>,
}

#[derive(Debug)]
struct Pipes {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Keeper {
    /// Makes a directory that only this user may enter and starts a keeper for it.
    ///
    /// # Errors
    /// [`Error::File`] if the directory cannot be made, [`Error::KeeperGone`] if no shell can be started.
    pub(super) fn start() -> Result<Self, Error> {
        let directory =
            std::env::temp_dir().join(format!("claviger-control-plane-{:016x}", ports::random()));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .map_err(Error::file(&directory))?;
        Self::spawn(&directory).inspect_err(|_| drop(fs::remove_dir_all(&directory)))
    }

    fn spawn(directory: &Path) -> Result<Self, Error> {
        let script = directory.join("keeper.sh");
        fs::write(&script, SCRIPT).map_err(Error::file(&script))?;
        let mut process = Command::new("sh")
            .arg(script)
            .arg(directory)
            .current_dir("/")
            // Ctrl-C goes to the owner's process group; the keeper and the components learn of it by the pipe.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Not the owner's: whoever reads that to its end would wait for the keeper too.
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::KeeperGone)?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let pipes = pipes.map(|(orders, answers)| Pipes {
            orders,
            answers: BufReader::new(answers),
        });
        Ok(Self {
            directory: directory.to_path_buf(),
            process,
            pipes: Mutex::new(pipes),
        })
    }

    /// The directory, removed when the keeper ends.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts `component` with this command line, whose arguments hold no line breaks.
    ///
    /// # Errors
    /// [`Error::File`] if the command line cannot be written; [`Error::Refused`] if it runs already.
    pub(super) fn run(&self, component: &str, command: &[String]) -> Result<(), Error> {
        let path = self.directory.join(format!("{component}.args"));
        fs::write(&path, command.join("\n")).map_err(Error::file(&path))?;
        self.order("start", component)
    }

    /// Whether `component` runs, paused or not.
    ///
    /// # Errors
    /// [`Error::KeeperGone`].
    pub(super) fn runs(&self, component: &str) -> Result<bool, Error> {
        match self.order("status", component) {
            Ok(()) => Ok(true),
            Err(Error::Refused(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives the keeper one of its orders (`keeper.sh` lists them) and waits until it is carried out: five seconds
    /// at most, for a `stop`.
    ///
    /// # Errors
    /// [`Error::Refused`] with the keeper's reason; [`Error::KeeperGone`].
    pub(super) fn order(&self, verb: &str, component: &str) -> Result<(), Error> {
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        let pipes = pipes
            .as_mut()
            .ok_or_else(|| Error::KeeperGone(io::ErrorKind::BrokenPipe.into()))?;
        writeln!(pipes.orders, "{verb} {component}").map_err(Error::KeeperGone)?;
        let mut answer = String::new();
        pipes
            .answers
            .read_line(&mut answer)
            .map_err(Error::KeeperGone)?;
        match answer.trim_end().split_once(' ') {
            Some(("ok", _)) => Ok(()),
            Some((_, reason)) => Err(Error::Refused(reason.to_owned())),
            None => Err(Error::KeeperGone(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// A component's log, of all its runs; nothing where there is none.
    pub(super) fn log(&self, component: &str) -> String {
        let log = fs::read(self.directory.join(format!("{component}.log"))).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The last lines of a component's log, or nothing where there is none.
    pub(super) fn end_of_log(&self, component: &str) -> String {
        const LINES: usize = 15;
        let log = self.log(component);
        let lines: Vec<&str> = log.lines().collect();
        lines
            .get(lines.len().saturating_sub(LINES)..)
            .unwrap_or_default()
            .join("\n")
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(
            self.pipes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        // Nobody is left to tell if this fails; the keeper ends by itself anyway.
        let _ = self.process.wait();
    }
}
