//! Logs on standard error, as text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::filter::{EnvFilter, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};

/// The client logs whole answers that it cannot decode, and an answer may be a Secret. Its errors reach us all the same.
const QUOTES_ANSWERS: &str = "kube_client::client";

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

/// Starts logs for the whole process.
///
/// # Errors
/// [`LogsError`] when the filter is not understood, or logs run already.
pub fn start(level: &str, format: LogFormat) -> Result<(), LogsError> {
    let filter = filter(level).ok_or_else(|| LogsError::Filter {
        given: level.to_owned(),
    })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    let harmless = filter_fn(|line| line.target() != QUOTES_ANSWERS);
    let started = tracing::subscriber::set_global_default(
        tracing_subscriber::registry()
            .with(filter)
            .with(lines.with_filter(harmless)),
    );
    started.map_err(|_| LogsError::Twice)
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
