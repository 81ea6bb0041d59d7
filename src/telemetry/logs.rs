//! Logs on standard error, as text or JSON.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{EnvFilter, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};

/// The client logs whole answers that it cannot decode, and an answer may be a Secret. Its errors reach us all the same.
const QUOTES_ANSWERS: &str = "kube_client::client";

/// How many lines wait for the reader of the log. More are dropped and counted. A thread of its own
/// writes them, so that a slow reader stops no worker.
const WAITING: usize = 8_192;

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The filter is not understood.
    #[error(
        "--log-level {given:?} is not understood: write trace, debug, info, warn or error, or a list such as info,kube=debug"
    )]
    Filter {
        /// What was given.
        given: String,
    },
    /// Something else in this process has started them.
    #[error("logs were started twice")]
    Twice,
}

/// Starts logs for the whole process. The last lines are written when the guard is dropped, which
/// waits about a second at most.
///
/// # Errors
/// [`LogsError`] when the filter is not understood, or logs run already.
pub fn start(level: &str, format: LogFormat) -> Result<WorkerGuard, LogsError> {
    let filter = filter(level).ok_or_else(|| LogsError::Filter {
        given: level.to_owned(),
    })?;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING)
        .finish(std::io::stderr());
    let _ = DROPPED.set(writer.error_counter());
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match format {
        // The current span is the last of the list.
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .boxed(),
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    let harmless = filter_fn(|line| line.target() != QUOTES_ANSWERS);
    let started = tracing::subscriber::set_global_default(
        tracing_subscriber::registry()
            .with(filter)
            .with(lines.with_filter(harmless)),
    );
    started.map_err(|_| LogsError::Twice)?;
    Ok(guard)
}

/// How many lines were dropped because too many waited.
#[must_use]
pub fn dropped() -> u64 {
    let dropped = DROPPED.get().map_or(0, ErrorCounter::dropped_lines);
    u64::try_from(dropped).unwrap_or(u64::MAX)
}

/// A word alone is a level: by itself, the filter would take a mistyped one for the name of a part of the program, and show nothing.
fn filter(level: &str) -> Option<EnvFilter> {
    let words = level
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty() && !word.contains(['=', '[']));
    let known = words
        .clone()
        .all(|word| word.parse::<LevelFilter>().is_ok());
    (known && words.count() <= 1)
        .then(|| EnvFilter::try_new(level).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_level_is_refused_and_not_taken_for_silence() {
        for good in [
            "info",
            "DEBUG",
            "off",
            "warn,kube=debug",
            "kube=debug",
            "info,[apikey]=trace",
        ] {
            assert!(filter(good).is_some(), "{good}");
        }
        for bad in [
            "inof",
            "loud",
            "info,kube",
            "kube",
            "loud=3=4",
            "info,debug",
        ] {
            assert!(filter(bad).is_none(), "{bad}");
        }
    }
}
