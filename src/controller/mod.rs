//! Making it so: watching, observing, executing, events, leadership.
//!
//! One reconciliation reads as the design does: look at the world, plan the next step, do it, until nothing is left to do
//! (`reconcile`). All decisions are [`crate::lifecycle`]'s; all requests to the API server are in `observe`, `source`, `execute`
//! and `deliver`.

mod body;
mod clock;
mod cluster;
mod context;
mod deliver;
mod error;
mod events;
mod execute;
mod facts;
mod gates;
mod health;
pub mod leadership;
mod memory;
mod observe;
mod reconcile;
mod refusal;
mod run;
mod source;
mod startup;
mod watch;

pub use clock::{Clock, WallClock};
pub use context::Limits;
pub use error::Error;
pub use run::{LeaseSettings, RunError, Settings, run};
pub use startup::StartupError;
