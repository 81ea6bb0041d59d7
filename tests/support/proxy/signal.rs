//! Meeting points between test threads and the proxy's tasks.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A counter that a thread can wait on.
#[derive(Debug, Default)]
pub(super) struct Counter {
    value: Mutex<u64>,
    changed: Condvar,
}

impl Counter {
    pub(super) fn add(&self, n: u64) {
        *self.value.lock().expect("counter") += n;
        self.changed.notify_all();
    }

    pub(super) fn reset(&self) {
        *self.value.lock().expect("counter") = 0;
    }

    pub(super) fn get(&self) -> u64 {
        *self.value.lock().expect("counter")
    }

    /// Blocks until the counter is at least `wanted`; `false` when `limit` passes first.
    pub(super) fn wait(&self, wanted: u64, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut value = self.value.lock().expect("counter");
        while *value < wanted {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            value = self.changed.wait_timeout(value, left).expect("counter").0;
        }
        true
    }
}

/// A place where requests wait until the test lets them go on. Clones are the same place.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    arrivals: Arc<watch::Sender<u64>>,
    counter: Arc<Counter>,
    released: Arc<watch::Sender<bool>>,
}

impl Hold {
    pub(crate) fn new() -> Self {
        Self {
            arrivals: Arc::new(watch::Sender::new(0)),
            counter: Arc::default(),
            released: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Blocks until a request has arrived here; `false` when `limit` passes first.
    pub(crate) fn reached(&self, limit: Duration) -> bool {
        self.counter.wait(1, limit)
    }

    /// As [`reached`](Self::reached), for tests that must not block their runtime.
    pub(crate) async fn reached_async(&self, limit: Duration) -> bool {
        let mut arrivals = self.arrivals.subscribe();
        let arrival = arrivals.wait_for(|count| *count > 0);
        matches!(tokio::time::timeout(limit, arrival).await, Ok(Ok(_)))
    }

    /// How many requests have arrived here, including those gone on.
    pub(crate) fn arrivals(&self) -> u64 {
        self.counter.get()
    }

    /// Lets go on what waits here and all that comes later.
    pub(crate) fn release(&self) {
        self.released.send_replace(true);
    }

    pub(super) fn arrive(&self) {
        self.counter.add(1);
        self.arrivals.send_modify(|count| *count += 1);
    }

    pub(super) async fn wait_for_release(&self) {
        let mut released = self.released.subscribe();
        // Cannot fail: `self` keeps the sender.
        let _ = released.wait_for(|released| *released).await;
    }
}
