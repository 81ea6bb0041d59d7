//! What a gate costs, against the least that the same work can cost, side by side in one run: `cargo bench --bench gate`.
//!
//! Parts can be run alone: `cargo bench --bench gate -- decide cpu envoy start`, and of `cpu` one protocol: `forward`, `grpc`, `verify` or
//! `token`. On two processors, one serves and the other asks.
//! `CLAVIGER_BENCH_ROUNDS` (9), `CLAVIGER_BENCH_REQUESTS` (4000, per round), `CLAVIGER_BENCH_RATE` (400 requests a second through
//! Envoy) and `CLAVIGER_BENCH_KEYS` (10000 ApiKeys for the start) change the size.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::format_push_string,
    missing_docs,
    reason = "a benchmark that is set up wrongly stops at once"
)]

#[allow(dead_code, reason = "the other benchmark uses the rest")]
#[path = "../issuing/bed.rs"]
mod bed;
#[path = "../../dev/control_plane/mod.rs"]
mod control_plane;
mod cpu;
mod decide;
mod envoy;
mod keys;
mod load;
#[allow(dead_code, reason = "the other benchmark uses the rest")]
#[path = "../issuing/machine.rs"]
mod machine;
mod questions;
mod serve;
mod start;
mod stats;

use std::process::Command;

use tokio::runtime::Builder;

use self::questions::Protocol;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    // `cargo test --benches` starts this, too: only a benchmark run measures.
    if std::env::args().all(|argument| argument != "--bench") {
        return;
    }
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if let [serve, keys] = &*arguments
        && serve == "serve"
    {
        // As `claviger gate` runs; it has one processor.
        return Builder::new_multi_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(serve::run(keys.parse().expect("a number")));
    }
    machine::describe();
    let named = |part: &str| arguments.iter().any(|argument| argument == part);
    let wanted = |part: &str| arguments.is_empty() || named(part);
    if wanted("decide") {
        decide::measure();
    }
    let protocols: Vec<Protocol> = Protocol::ALL
        .into_iter()
        .filter(|protocol| wanted("cpu") || named(protocol.short()))
        .collect();
    if !protocols.is_empty() {
        pin("1");
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(cpu::measure(&protocols));
        pin("0-1");
    }
    if wanted("envoy") {
        envoy::measure();
    }
    if wanted("start") {
        Builder::new_multi_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(start::measure());
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("\nload after     {}", load.trim());
}

/// Keeps this process to some processors.
fn pin(cpus: &str) {
    let pinned = Command::new("taskset")
        .args(["-a", "-p", "-c", cpus, &std::process::id().to_string()])
        .output();
    assert!(
        pinned.is_ok_and(|pinned| pinned.status.success()),
        "taskset (util-linux) pins processes"
    );
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}
