//! List and watch: one [`Watcher`] follows one collection of the API server, for ever.
//!
//! - [`Watcher`]: the loop: a consistent list in pages, then a watch from there
//! - [`Handler`]: takes the changes that a [`Watcher`] reads
//! - [`Change`], [`Object`], [`Metadata`]: objects, decoded one by one
//!
//! The gate and the controller use the same loop. kube-runtime's `watcher` is not enough for either:
//! ARCHITECTURE.md says why.

mod backoff;
mod collection;
mod error;
mod handler;
mod object;
mod page;
mod watcher;

pub use self::collection::Collection;
pub use self::handler::Handler;
pub use self::object::{Change, Metadata, Object, Uid};
pub use self::watcher::{GRACE, Timing, Watcher};
