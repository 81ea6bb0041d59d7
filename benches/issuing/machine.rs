//! The machine, and what a process costs it. Linux only, where `/proc` tells.

use std::fs;
use std::process::Command;

/// What a process has used so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Processor time of all its threads, in milliseconds.
    pub(crate) cpu_ms: f64,
    /// Resident memory, in bytes.
    pub(crate) resident: u64,
}

/// Prints what the figures depend on.
pub(crate) fn describe() {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or_default();
    println!(
        "machine        {} x {}, {} GiB",
        cores,
        model.map_or("unknown", |(_, name)| name),
        kib >> 20
    );
    println!(
        "kernel         {}",
        fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim()
    );
    println!(
        "load before    {}",
        fs::read_to_string("/proc/loadavg")
            .unwrap_or_default()
            .trim()
    );
    let build = if cfg!(debug_assertions) {
        "DEBUG build: rates say little"
    } else {
        "optimised build"
    };
    println!(
        "claviger       {}, {build}, system allocator",
        env!("CARGO_PKG_VERSION")
    );
}

/// What a process has used so far; nothing where it is gone.
pub(crate) fn cost(pid: u32) -> Cost {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Fields 14 and 15, in clock ticks; the name before them may hold anything but ends with the last bracket.
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .map_or("", |(_, rest)| rest)
        .split(' ')
        .collect();
    let ticks: f64 = fields
        .iter()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib: Option<u64> = status.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    Cost {
        cpu_ms: ticks * 1_000.0 / ticks_per_second(),
        resident: kib.unwrap_or_default() * 1_024,
    }
}

fn ticks_per_second() -> f64 {
    let said = Command::new("getconf").arg("CLK_TCK").output();
    said.ok()
        .and_then(|said| String::from_utf8(said.stdout).ok()?.trim().parse().ok())
        .unwrap_or(100.0)
}
