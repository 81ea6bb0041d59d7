//! May this key pass? The gate watches ApiKeys and ApiKeyRoles, never Secrets, and answers proxies and services from memory.
//!
//! - [`index`]: which key belongs to whom: immutable, swapped atomically
//! - [`decide()`]: one pure function from an index, a question and a moment to a [`Verdict`]
//! - [`permission`], [`credential`], [`route`]: what a route needs, and where a request carries its key
//! - [`answer`]: what a verdict looks like over HTTP
//! - `protocols`: adapters: JSON verify, Envoy's `ext_authz` over gRPC, and whatever asks over HTTP
//! - `index_updater`: applies what the watches read to the index
//! - [`freshness`]: how old the index may be
//! - [`callers`]: who may ask the verify API
//! - [`report`]: the `Gate` object, and last uses
//! - [`server`]: the front door, with an end to everything a peer can make it wait for

mod access_log;
pub mod answer;
pub mod callers;
mod code;
pub mod credential;
mod decide;
mod desk;
mod error;
pub mod freshness;
mod health;
mod http;
pub mod index;
mod index_updater;
pub mod metrics;
mod parts;
pub mod permission;
pub mod protocols;
mod quote;
pub mod report;
pub mod route;
mod run;
pub mod server;
pub mod shown;

pub use self::http::{ProxyCallers, router};
pub use access_log::{AccessLog, Origin, request_id};
pub use code::Code;
pub use decide::{Ask, MAX_KEY, MalformedReason, Needs, Shown, Verdict, decide};
pub use desk::{Desk, wall_clock};
pub use error::RunError;
pub use run::{Settings, run};

#[cfg(test)]
mod testing;
