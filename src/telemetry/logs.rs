//! Logs on standard error, as text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::filter::{EnvFilter, filter_fn};
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
        /// Why.
        #[source]
        source: tracing_subscriber::filter::ParseError,
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
    let filter = EnvFilter::try_new(level).map_err(|source| LogsError::Filter { given: level.to_owned(), source })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    let harmless = filter_fn(|line| line.target() != QUOTES_ANSWERS);
    let started =
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(filter).with(lines.with_filter(harmless)));
    started.map_err(|_| LogsError::Twice)
}
