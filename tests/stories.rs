//! Claviger's stories, told on a real API server.
//!
//! All stories share one control plane and one process; each has a namespace of its own. Those that stop, starve or reshape
//! the API server start their own. After all of them, [`no_leak`] looks for their keys where none may be, and [`rights`] at what
//! the controller asked for.
//!
//! `cargo test --test stories -- --list` lists them; a name or a part of one runs those.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unwrap_in_result,
    clippy::print_stdout,
    clippy::too_many_lines,
    missing_docs,
    reason = "a story that does not go as told stops at once"
)]

mod access;
mod chart;
mod clock;
mod compliance;
mod conflicts;
mod contained;
mod controller_telemetry;
mod deleting;
mod drift;
mod examples;
mod gate_callers;
mod gate_documented;
mod gate_front;
mod gate_lag;
mod gate_memory;
mod gate_partitions;
mod gate_proxies;
mod gate_reports;
mod gate_rotation;
mod gate_telemetry;
mod gate_tls;
mod gate_verify;
mod idle;
mod issuing;
mod killed_anywhere;
mod last_used;
mod memory;
mod no_leak;
mod refusals;
mod restore;
mod retention;
mod rights;
mod rotation;
mod rules;
mod stale;
mod startup;
mod support;
mod two_at_once;
mod uninstall;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let mut arguments = Arguments::from_args();
    // They wait most of the time, for what the API server does or for a moment to come.
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    arguments
        .test_threads
        .get_or_insert(cores + cores.div_ceil(2));
    let mut all = Vec::new();
    all.extend(access::stories());
    all.extend(chart::stories());
    all.extend(clock::stories());
    all.extend(compliance::stories());
    all.extend(conflicts::stories());
    all.extend(contained::stories());
    all.extend(controller_telemetry::stories());
    all.extend(deleting::stories());
    all.extend(drift::stories());
    all.extend(examples::stories());
    all.extend(gate_callers::stories());
    all.extend(gate_documented::stories());
    all.extend(gate_front::stories());
    all.extend(gate_lag::stories());
    all.extend(gate_memory::stories());
    all.extend(gate_partitions::all());
    all.extend(gate_proxies::all());
    all.extend(gate_reports::stories());
    all.extend(gate_rotation::stories());
    all.extend(gate_telemetry::stories());
    all.extend(gate_tls::stories());
    all.extend(gate_verify::stories());
    all.extend(idle::stories());
    all.extend(issuing::stories());
    all.extend(killed_anywhere::stories());
    all.extend(last_used::stories());
    all.extend(memory::stories());
    all.extend(refusals::stories());
    all.extend(restore::stories());
    all.extend(retention::stories());
    all.extend(rotation::all());
    all.extend(rules::stories());
    all.extend(stale::stories());
    all.extend(startup::stories());
    all.extend(two_at_once::stories());
    all.extend(uninstall::stories());
    all.extend(support::proxy::tests::trials());
    let trials = |stories: Vec<support::Story>| -> Vec<Trial> {
        stories
            .into_iter()
            .map(|(name, story)| {
                Trial::test(name.trim_start_matches("stories::"), move || {
                    story();
                    Ok(())
                })
            })
            .collect()
    };
    let told = libtest_mimic::run(&arguments, trials(all));
    killed_anywhere::print_total();
    // What the stories left behind is looked through when all of them have ended, whichever were told.
    let everything = Arguments {
        filter: None,
        skip: Vec::new(),
        exact: false,
        ..arguments
    };
    let audited = libtest_mimic::run(
        &everything,
        trials([no_leak::stories(), rights::stories()].concat()),
    );
    if told.has_failed() || audited.has_failed() {
        std::process::exit(101);
    }
}
