//! Processor time per request, of each protocol against the same server's no-op, for keys that pass, that nobody has and that are
//! mistyped, and for gates of ten to a million keys. Also what a key costs in resident memory.

use std::fs;

use crate::keys::{Case, Numbers};
use crate::load::Load;
use crate::questions::{Asked, Protocol};
use crate::serve::Server;
use crate::stats::{ratios, spread};
use crate::{machine, setting};

/// How many keys the gates know.
pub(crate) const SIZES: [u64; 4] = [10, 1_000, 100_000, 1_000_000];

/// Processor time in microseconds per request, one value for each round.
struct Measured {
    gate: Vec<f64>,
    noop: Vec<f64>,
}

pub(crate) async fn measure(protocols: &[Protocol]) {
    let requests = setting("CLAVIGER_BENCH_REQUESTS", 4_000);
    let rounds = setting("CLAVIGER_BENCH_ROUNDS", 9);
    let servers: Vec<Server> = SIZES
        .into_iter()
        .map(|keys| Server::start(keys, 0))
        .collect();
    println!(
        "\nprocessor time per request: {rounds} rounds of {requests} requests each, in turn; server on one processor, load on the other"
    );
    println!(
        "median [middle half]; ratio to the same server's answer without a decision, round by round\n"
    );
    println!(
        "| {:<22} | {:<9} | {:>9} | {:>7} | {:>7} | {:<21} |",
        "protocol", "shows", "keys", "gate us", "no-op us", "ratio"
    );
    println!(
        "|{}|",
        [24, 11, 11, 9, 9, 23]
            .map(|width| "-".repeat(width))
            .join("|")
    );
    let mut notes = Vec::new();
    for protocol in protocols.iter().copied() {
        let mut of_case = Vec::new();
        for case in Case::ALL {
            let measured =
                measure_case(&servers, protocol, case, Asked::Noop, rounds, requests).await;
            for (server, measured) in servers.iter().zip(&measured) {
                line(protocol, case.name(), server.keys, measured);
            }
            let (few, many) = (&measured[0].gate, &measured[measured.len() - 1].gate);
            let flat = ratios(many, few).text(2);
            notes.push(format!(
                "{}, {}: 1,000,000 keys cost {flat} times what 10 do",
                protocol.name(),
                case.name()
            ));
            of_case.push(spread(measured[1].gate.iter().copied()).median);
        }
        notes.push(format!(
            "{}: to a hit, a miss is {:.2} and a malformed key {:.2} (1,000 keys)",
            protocol.name(),
            of_case[1] / of_case[0],
            of_case[2] / of_case[0]
        ));
        if matches!(protocol, Protocol::Forward | Protocol::Grpc) {
            let measured = measure_case(
                &servers[1..2],
                protocol,
                Case::Hit,
                Asked::Empty,
                rounds,
                requests,
            )
            .await;
            line(
                protocol,
                "hit, to an empty answer",
                servers[1].keys,
                &measured[0],
            );
        }
    }
    println!();
    for note in notes {
        println!("{note}");
    }
    let resident: Vec<u64> = servers
        .iter()
        .map(|server| machine::cost(server.pid()).resident)
        .collect();
    for (server, with) in servers.iter().zip(&resident).skip(2) {
        #[expect(clippy::cast_precision_loss, reason = "bytes of one machine")]
        let each = with.saturating_sub(resident[0]) as f64 / server.keys as f64;
        println!(
            "resident memory with {} keys: {each:.0} bytes per key more than with 10",
            server.keys
        );
    }
}

fn line(protocol: Protocol, shows: &str, keys: u64, measured: &Measured) {
    let median = |values: &[f64]| spread(values.iter().copied()).median;
    println!(
        "| {:<22} | {shows:<9} | {keys:>9} | {:>7.2} | {:>8.2} | {:<21} |",
        protocol.name(),
        median(&measured.gate),
        median(&measured.noop),
        ratios(&measured.gate, &measured.noop).text(3)
    );
}

/// One case at all servers, in turn: what disturbs one disturbs the others.
async fn measure_case(
    servers: &[Server],
    protocol: Protocol,
    case: Case,
    against: Asked,
    rounds: usize,
    requests: usize,
) -> Vec<Measured> {
    let status = if protocol == Protocol::Forward && case != Case::Hit {
        401
    } else {
        200
    };
    let grpc = protocol == Protocol::Grpc;
    let mut loads = Vec::new();
    for server in servers {
        let gate = Load::connect(server.address(protocol, Asked::Gate), grpc).await;
        loads.push((
            gate,
            Load::connect(server.address(protocol, against), grpc).await,
        ));
    }
    let mut measured: Vec<Measured> = servers
        .iter()
        .map(|_| Measured {
            gate: Vec::new(),
            noop: Vec::new(),
        })
        .collect();
    let mut order = Numbers(1);
    // Two rounds go before, unmeasured: connections, allocators and branch predictors get warm.
    for round in 0..rounds + 2 {
        for ((server, (gate, noop)), measured) in servers.iter().zip(&mut loads).zip(&mut measured)
        {
            let mut sides = [
                (Asked::Gate, gate, &mut measured.gate),
                (against, noop, &mut measured.noop),
            ];
            if round % 2 == 0 {
                sides.reverse();
            }
            for (asked, load, times) in sides {
                let questions = (0..requests)
                    .map(|_| protocol.question(asked, case, server.keys, &mut order))
                    .collect();
                let before = processor_time(server.pid());
                load.ask(questions, status).await;
                let took = processor_time(server.pid()) - before;
                if round > 1 {
                    #[expect(clippy::cast_precision_loss, reason = "a few thousand requests")]
                    times.push(took / 1_000.0 / requests as f64);
                }
            }
        }
    }
    measured
}

/// What the threads of a process have used so far, in nanoseconds: as exact as the scheduler's own books, where `/proc/<pid>/stat`
/// counts in hundredths of a second.
fn processor_time(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a running server");
    let of_thread = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        text.split(' ')
            .next()
            .and_then(|time| time.parse::<f64>().ok())
            .unwrap_or_default()
    };
    threads.filter_map(Result::ok).map(of_thread).sum()
}
