use std::future::pending;

use super::*;

/// A connection that only waits, and its timeouts.
fn open(capacity: &Capacity) -> (ConnectionTimeouts, tokio::task::JoinHandle<()>) {
    let timeouts = ConnectionTimeouts::new(Limits::default());
    let task = tokio::spawn(pending());
    capacity.opened(timeouts.clone(), task.abort_handle());
    (timeouts, task)
}

#[tokio::test(start_paused = true)]
async fn one_in_sixty_four_connections_is_closed_at_a_time() {
    let capacity = Capacity::new(&Limits::default(), Arc::default());
    let mut all = Vec::new();
    for _ in 0..130 {
        all.push(open(&capacity));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    capacity.evict_longest(|timeouts| Some(timeouts.waits_since()));
    // Those that were cut off have not ended, so that no others are.
    capacity.evict_longest(|timeouts| Some(timeouts.waits_since()));
    assert_eq!(capacity.counters.evicted.get(), 3);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let ended: Vec<bool> = all.iter().map(|(_, task)| task.is_finished()).collect();
    assert_eq!(ended.iter().filter(|ended| **ended).count(), 3);
    assert_eq!(ended[..3], [true; 3], "the longest idle");
    capacity.evict_longest(ConnectionTimeouts::busy_since);
    assert_eq!(capacity.counters.evicted.get(), 3, "none is busy");
}

#[tokio::test]
async fn ended_connections_are_forgotten() {
    let capacity = Capacity::new(&Limits::default(), Arc::default());
    for _ in 0..1000 {
        let (_, task) = open(&capacity);
        task.abort();
        let _ = task.await;
    }
    assert!(capacity.open().connections.capacity() < 100);
}
