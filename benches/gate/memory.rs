//! What a key costs the gate in memory, counted at the allocator: `cargo bench --bench gate_memory`. A program of its own, because
//! counting costs time.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a benchmark that is set up wrongly stops at once"
)]
#![allow(dead_code, reason = "the other benchmark uses the rest")]

mod keys;

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that a key may cost.
const BUDGET: f64 = 300.0;

fn main() {
    // `cargo test --benches` starts this, too: only a benchmark run measures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!("\nheap of the index, counted at the allocator\n");
    println!(
        "| {:>9} | {:>13} | {:>15} |",
        "keys", "bytes per key", "blocks per key"
    );
    println!(
        "|{}|",
        [11, 15, 17].map(|width| "-".repeat(width)).join("|")
    );
    for keys in [1_000, 100_000, 1_000_000] {
        let region = Region::new(COUNTING);
        let writer = keys::writer(keys);
        let change = region.change();
        let held = change.bytes_allocated - change.bytes_deallocated;
        let blocks = change.allocations - change.deallocations;
        let each = |count: usize| number(count) / number(usize::try_from(keys).expect("a count"));
        println!(
            "| {keys:>9} | {:>13.0} | {:>15.1} |",
            each(held),
            each(blocks)
        );
        drop(writer);
        assert!(
            keys < 100_000 || each(held) < BUDGET,
            "more than {BUDGET} bytes per key"
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "bytes of one machine")]
fn number(count: usize) -> f64 {
    count as f64
}
