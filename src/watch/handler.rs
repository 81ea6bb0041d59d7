//! What a [`super::Watcher`] works for.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::object::{Change, Object, Uid};

/// Takes the changes that a [`super::Watcher`] reads. One task makes all calls, one after the other.
pub trait Handler: Send + Sync {
    /// What is decoded of an object.
    type Object: Object + Send;

    /// A page of a list: none of its changes is a [`Change::Deleted`].
    fn page(&self, changes: Vec<Change<Self::Object>>);

    /// A list is complete, and shows the collection at `resource_version`: an object that is not
    /// among `listed` is gone.
    fn list_ends(&self, listed: &HashSet<Uid>, resource_version: &str);

    /// Events of a watch, in their order. The first one arrived at `arrived`; all changes up to
    /// `reached` are known after them.
    fn events(&self, changes: Vec<Change<Self::Object>>, reached: Option<&str>, arrived: Instant);

    /// The watch works: it was answered, has sent something, or has ended at its time. `false` where
    /// the handler cannot go on without a list.
    fn alive(&self) -> bool;

    /// A list or a watch has failed and is retried.
    fn interrupted(&self, why: &str);

    /// Whether only a list can make good for the time in which nothing was heard.
    fn needs_list(&self) -> bool {
        false
    }

    /// How long until [`Handler::needs_list`], where that has a limit.
    fn time_left(&self) -> Option<Duration> {
        None
    }
}
