//! What all connections share: how many there may be, with how many requests and how many bytes of
//! bodies; and which connection is evicted where that is used up.
//!
//! A new connection waits then, and a new request is refused. The connection that has kept the server
//! waiting for longest is closed: a peer that holds connections or requests without using them loses
//! them to peers that do. A request of an honest peer ends within milliseconds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::counters::Counters;
use super::limits::Limits;
use super::timeouts::ConnectionTimeouts;

/// The pause between two looks for a connection to close.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One in so many connections is closed at a time: a look at all of them, when a flood of new ones
/// comes, costs more than to close a few too many.
const CLOSED_PART: usize = 64;

/// A connection is not closed for another one before it has waited for so long: for a request of its
/// peer, or for the end of one. An honest new peer sends its request sooner.
const HONEST: Duration = Duration::from_secs(1);

pub(super) struct Capacity {
    connections: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    body_bytes: Arc<Semaphore>,
    open: Mutex<Open>,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Open {
    connections: Vec<Connection>,
    /// Those that were cut off last.
    closing: Vec<AbortHandle>,
}

struct Connection {
    timeouts: ConnectionTimeouts,
    task: AbortHandle,
}

impl Capacity {
    pub(super) fn new(limits: &Limits, counters: Arc<Counters>) -> Arc<Self> {
        let semaphore = |permits: u32| {
            let permits = usize::try_from(permits.max(1)).unwrap_or(Semaphore::MAX_PERMITS);
            Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
        };
        Arc::new(Self {
            connections: semaphore(limits.connections),
            requests: semaphore(limits.requests),
            waiting: semaphore(limits.waiting),
            body_bytes: semaphore(limits.body_bytes),
            open: Mutex::default(),
            counters,
        })
    }

    /// Waits until there may be another connection.
    pub(super) async fn connection(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.connections.clone().try_acquire_owned() {
            return Some(permit);
        }
        self.counters.waited.inc();
        loop {
            let long_ago = |since: &Instant| since.elapsed() >= HONEST;
            self.evict_longest(|timeouts| Some(timeouts.waits_since()).filter(long_ago));
            let permit = self.connections.clone().acquire_owned();
            if let Ok(permit) = tokio::time::timeout(LOOK_AGAIN, permit).await {
                return permit.ok();
            }
        }
    }

    /// Registers a connection that is open, until its task has ended.
    pub(super) fn opened(&self, timeouts: ConnectionTimeouts, task: AbortHandle) {
        let connections = &mut self.open().connections;
        if connections.len() == connections.capacity() {
            connections.retain(|connection| !connection.task.is_finished());
        }
        connections.push(Connection { timeouts, task });
    }

    /// Lets another request begin, if there may be one.
    pub(super) fn request(&self) -> Option<OwnedSemaphorePermit> {
        self.try_acquire(&self.requests, 1)
    }

    /// Lets a request wait for something before it is answered, if another may.
    pub(super) fn waiting(&self) -> Option<OwnedSemaphorePermit> {
        self.try_acquire(&self.waiting, 1)
    }

    /// Lets so many bytes of a body be held, if they may.
    pub(super) fn body_bytes(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.try_acquire(&self.body_bytes, u32::try_from(bytes).ok()?)
    }

    fn try_acquire(
        &self,
        semaphore: &Arc<Semaphore>,
        permits: u32,
    ) -> Option<OwnedSemaphorePermit> {
        let permit = semaphore.clone().try_acquire_many_owned(permits).ok();
        if permit.is_none() {
            self.counters.refused_requests.inc();
            self.evict_longest(ConnectionTimeouts::busy_since);
        }
        permit
    }

    /// Cuts off all connections.
    pub(super) fn close_all(&self) {
        self.open()
            .connections
            .iter()
            .for_each(|connection| connection.task.abort());
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts off the connections for which `since` is longest ago. Those that were cut off last may be
    /// enough: nothing happens while these have not ended.
    fn evict_longest(&self, since: impl Fn(&ConnectionTimeouts) -> Option<Instant>) {
        let Open {
            connections,
            closing,
        } = &mut *self.open();
        closing.retain(|task| !task.is_finished());
        if !closing.is_empty() {
            return;
        }
        connections.retain(|connection| !connection.task.is_finished());
        let mut candidates: Vec<(Instant, &AbortHandle)> = connections
            .iter()
            .filter_map(|connection| Some((since(&connection.timeouts)?, &connection.task)))
            .collect();
        candidates.sort_unstable_by_key(|(since, _)| *since);
        let count = connections.len().div_ceil(CLOSED_PART);
        for (_, task) in candidates.into_iter().take(count) {
            task.abort();
            closing.push(task.clone());
            self.counters.evicted.inc();
        }
    }
}

#[cfg(test)]
mod tests;
