//! Issuing keys on a real API server, against a plain loop of the same writes in the same run, and what the controller
//! costs: `make bench`.
//!
//! Both work as the controller's `ServiceAccount`, 16 keys at once, on objects that were created before; rounds alternate.
//! The clock runs from the first write that a watch shows to the last key that it shows Active. Writes are counted by the
//! API server. `CLAVIGER_BENCH_KEYS` (1000) and `CLAVIGER_BENCH_ROUNDS` (3) change the size.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a benchmark that is set up wrongly stops at once"
)]

mod bed;
#[path = "../../dev/control_plane/mod.rs"]
mod control_plane;
mod machine;
mod plain_loop;

use std::time::{Duration, Instant};

use self::bed::{Bed, Controller, Writes};
use self::machine::Cost;
use self::plain_loop::Sample;

/// The writes that the design allows for an issued key, of which the finalizer is one.
const BUDGET_WRITES: f64 = 4.0;
/// Memory of the controller per `ApiKey`, in bytes.
const BUDGET_MEMORY: f64 = 3_000.0;
/// Issue rate against the plain loop's.
const BUDGET_RATE: f64 = 0.8;

fn main() {
    // `cargo test --benches` starts this, too: only a benchmark run measures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let keys = setting("CLAVIGER_BENCH_KEYS", 1_000);
    let rounds = setting("CLAVIGER_BENCH_ROUNDS", 3);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(measure(keys, rounds));
}

async fn measure(keys: usize, rounds: usize) {
    machine::describe();
    let bed = Bed::make().await;
    println!(
        "kubernetes     {}, etcd without fsync, all on this machine",
        bed.version().await
    );

    // Warms everything up, and gives the plain loop its bodies.
    bed.declare("warm-up", 100).await;
    let (controller, _, _) = issue(&bed, "warm-up", 100, &["--finalizer=true"]).await;
    controller.stop();
    let sample = Sample::of(&bed, "warm-up", "key-0").await;

    println!("\nissuing {keys} keys, 16 at once, {rounds} rounds, alternating\n");
    println!(
        "round   controller keys/s   plain loop keys/s   ratio   writes/key (budget 4)   controller CPU ms/key"
    );
    let (mut ratios, mut ours, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    let mut after_issuing = None;
    for round in 1..=rounds {
        let (mine, theirs) = (format!("controller-{round}"), format!("plain-{round}"));
        bed.declare(&mine, keys).await;
        bed.declare(&theirs, keys).await;
        // Neither is always the first.
        let early = if round % 2 == 0 {
            Some(plain_loop::issue(&bed, &sample, &theirs, keys).await)
        } else {
            None
        };
        let (controller, took, cost) = issue(&bed, &mine, keys, &["--finalizer=true"]).await;
        after_issuing = Some(controller.cost().resident);
        controller.stop();
        let baseline = match early {
            Some(took) => took,
            None => plain_loop::issue(&bed, &sample, &theirs, keys).await,
        };
        let (a, b) = (
            keys as f64 / took.as_secs_f64(),
            keys as f64 / baseline.as_secs_f64(),
        );
        let writes = cost.writes.ours as f64 / keys as f64;
        println!(
            "{round:>5}   {a:>17.0}   {b:>17.0}   {:>5.2}   {writes:>21.2}   {:>21.2}",
            a / b,
            cost.cpu_ms / keys as f64
        );
        println!(
            "        (and {:.2} events per key; {} reads)",
            cost.writes.events as f64 / keys as f64,
            cost.reads
        );
        ratios.push(a / b);
        ours.push(a);
        plain.push(b);
        assert!((writes - BUDGET_WRITES).abs() < 0.5, "writes per key");
    }
    println!(
        "\nissue rate     {} keys/s, plain loop {} keys/s",
        spread(&mut ours, 0),
        spread(&mut plain, 0)
    );
    println!(
        "ratio          {} (budget: at least {BUDGET_RATE})",
        spread(&mut ratios, 2)
    );

    bed.declare("bare", keys).await;
    let (controller, _, cost) = issue(&bed, "bare", keys, &["--finalizer=false"]).await;
    controller.stop();
    println!(
        "no finalizer   {:.2} writes/key (budget 3)",
        cost.writes.ours as f64 / keys as f64
    );

    resync(&bed, keys).await;
    memory(
        &bed,
        100 + keys * (2 * rounds + 1),
        after_issuing.unwrap_or_default(),
        keys,
    )
    .await;
}

/// What a round cost.
struct Round {
    writes: Writes,
    cpu_ms: f64,
    reads: usize,
}

/// Lets a controller issue the keys of a namespace, and says how long that took.
async fn issue(
    bed: &Bed,
    namespace: &str,
    keys: usize,
    arguments: &[&str],
) -> (Controller, Duration, Round) {
    let before = bed.writes().await;
    let meter = bed.meter(namespace, keys).await;
    let controller =
        bed.controller(&[&[&format!("--namespace={namespace}")[..]], arguments].concat());
    let took = meter.await.expect("the meter ends");
    let (cost, reads) = (controller.cost(), controller.reads());
    // Events trail behind; they are counted, too.
    let mut seen = bed.writes().await;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = bed.writes().await;
        if now.events == seen.events {
            break;
        }
        seen = now;
    }
    (
        controller,
        took,
        Round {
            writes: seen.since(&before),
            cpu_ms: cost.cpu_ms,
            reads,
        },
    )
}

/// A new process looks at every key and has nothing to do.
async fn resync(bed: &Bed, keys: usize) {
    let before = bed.writes().await;
    let begun = Instant::now();
    let controller = bed.controller(&["--namespace=controller-1", "--finalizer=true"]);
    controller.wait_unchanged(keys).await;
    let took = begun.elapsed();
    let Cost { cpu_ms, .. } = controller.cost();
    let (done, reads) = (bed.writes().await.since(&before), controller.reads());
    controller.stop();
    println!(
        "\nrestart        {keys} keys looked at after {:.2} s (from the start of the process), {cpu_ms:.0} ms CPU in all",
        took.as_secs_f64()
    );
    println!(
        "idle resync    {} writes (budget 0), {} events, {} reads of single objects",
        done.ours, done.events, reads
    );
    assert_eq!(done.ours, 0, "a resync writes nothing");
}

/// What an `ApiKey` costs the controller in resident memory: the difference between a process with none and one with all.
async fn memory(bed: &Bed, all: usize, after_issuing: u64, keys: usize) {
    bed.namespace("empty").await;
    let controller = bed.controller(&["--namespace=empty"]);
    controller.wait_ready().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let empty = controller.cost().resident;
    controller.stop();
    let some = resident_with(bed, "--namespace=controller-1", keys).await;
    let many = resident_with(bed, "--finalizer=true", all).await;
    let per = |resident: u64, count: usize| resident.saturating_sub(empty) as f64 / count as f64;
    println!("\nmemory (RSS)   {:.1} MiB with no ApiKey", mib(empty));
    println!(
        "               {:.1} MiB after issuing {keys}: {:.0} bytes each",
        mib(after_issuing),
        per(after_issuing, keys)
    );
    println!(
        "               {:.1} MiB restarted with {keys}: {:.0} bytes each",
        mib(some),
        per(some, keys)
    );
    let each = per(many, all);
    println!(
        "               {:.1} MiB restarted with {all}: {each:.0} bytes each (budget {BUDGET_MEMORY:.0})",
        mib(many)
    );
}

async fn resident_with(bed: &Bed, scope: &str, count: usize) -> u64 {
    let controller = bed.controller(
        &[scope, "--finalizer=true"][..if scope.starts_with("--finalizer") {
            1
        } else {
            2
        }],
    );
    controller.wait_unchanged(count).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let resident = controller.cost().resident;
    controller.stop();
    resident
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The median and, in brackets, the least and the greatest.
fn spread(values: &mut [f64], digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let median = values[values.len() / 2];
    format!(
        "{median:.digits$} [{:.digits$} to {:.digits$}]",
        values[0],
        values[values.len() - 1]
    )
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}
