//! List and watch: one [`Watcher`] follows one collection of the API server, for ever.
//!
//! - [`Watcher`]: the loop: a consistent list in pages, then a watch from there
//! - [`Handler`]: takes the changes that a [`Watcher`] reads
//! - [`Change`], [`Object`], [`Metadata`]: objects, decoded one by one
//!
//! A loop of our own: kube-runtime's `watcher` hides bookmarks and where a list stands, by which the
//! gate knows that its index is complete; the number of objects of its pages is fixed, so that large
//! ones fill the memory; and the beginning of a list resets its back-off.

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
