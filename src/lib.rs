//! Claviger makes an API key a resource.
//!
//! The rooms of the house, in the order in which they may use each other:
//!
//! - [`key`]: what a key is: format, minting, checksum, hash, tail. Pure; knows nothing of Kubernetes.
//! - [`api`]: what people write: the `ApiKey`, its rules, conditions, lifetimes.
//! - [`lifecycle`]: what should happen: a [`lifecycle::World`] is looked at, [`lifecycle::plan`] says the next step. Pure: no
//!   I/O, no clock, no randomness.
//! - [`controller`]: making it so: watching, observing, executing, events, leadership.
//! - [`gate`]: may this key pass: index, decision, protocols. Uses [`api`], [`key`], [`watch`] and [`telemetry`].
//! - [`watch`]: list and watch.
//! - [`telemetry`]: logs, metrics, health.
//!
//! Start with [`lifecycle::plan`]: it is the whole of what Claviger decides.

pub mod api;
pub mod controller;
pub mod gate;
pub mod key;
pub mod lifecycle;
pub mod telemetry;
pub mod watch;
