//! Logs, metrics and health: shared by everything that runs.

mod clock;
mod describe;
mod exposition;
mod logs;
mod metrics;
mod requests;
mod server;

pub use clock::ServerClock;
pub use describe::describe;
pub use logs::{LogFormat, LogsError, dropped as log_lines_dropped, start as start_logs};
pub use metrics::{Metrics, Outcome, Snapshot};
pub use requests::{RequestLayer, RequestService};
pub use server::{Health, ServerError, bind, serve};
