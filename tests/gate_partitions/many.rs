//! A hundred thousand keys.

use crate::support::cluster::Cluster;
use crate::support::gate::Gate;
use crate::support::wait;
use crate::support::watch_server::{How, WatchServer};

use super::{ROUTE, wait_code, wait_unready};

crate::stories![
    a_restart_among_a_hundred_thousand_keys_refuses_to_guess_until_it_knows_all,
    a_server_that_takes_watches_and_says_nothing_is_found_out,
];

const KEYS: usize = 100_000;
const PAGE: usize = 500;

/// From the start, with changes between the pages, to a list that misses a thousand keys of which nobody was told.
fn a_restart_among_a_hundred_thousand_keys_refuses_to_guess_until_it_knows_all() {
    let empty = start(&WatchServer::start(0));
    empty.wait_ready();
    let alone = empty.resident_kib();
    drop(empty);

    let server = WatchServer::start(KEYS);
    server.allow_pages(KEYS / PAGE / 2);
    let gate = start(&server);
    wait_listed(&server, KEYS / 2);
    wait_unready(&gate, &["still loading"]);
    // One that it has read already, and one that it has not.
    for number in [0, KEYS - 1] {
        assert_eq!(
            gate.ask(ROUTE, &WatchServer::key(number)),
            (503, "UNAVAILABLE".to_owned())
        );
    }
    let (early, late) = ([1, 2, 4], [KEYS - 1, KEYS - 2, KEYS - 4]);
    for number in [early, late].concat() {
        if number % 2 == 0 {
            server.change(number, How::Revoked);
        } else {
            server.delete(number);
        }
    }
    let created = server.create();
    server.allow_all_pages();
    wait_listed(&server, KEYS);
    gate.wait_ready();
    wait_code(&gate, &WatchServer::key(created), "VALID");
    let sample = || {
        (0..KEYS)
            .step_by(97)
            .chain([early, late].concat())
            .chain([created, KEYS + 7])
    };
    assert_right(&server, &gate, sample());
    let loaded = gate.resident_kib();
    let each = (loaded - alone) * 1_024 / u64::try_from(KEYS).unwrap();
    println!(
        "resident: {alone} KiB with no keys, {loaded} KiB with {KEYS}: {each} bytes each, with what reading them has left"
    );

    // Nobody tells of what goes now, and then it is forgotten.
    server.fall_silent(true);
    let missed = || (0..1_000).map(|number| number * 89 + 11);
    for number in missed() {
        server.delete(number);
    }
    assert_eq!(
        gate.ask(ROUTE, &WatchServer::key(11)),
        (200, "VALID".to_owned()),
        "it cannot know"
    );
    server.fall_silent(false);
    server.forget();
    wait_listed(&server, 2 * KEYS);
    wait_code(&gate, &WatchServer::key(11), "NOT_FOUND");
    assert_right(&server, &gate, missed().chain(sample()));
    let again = gate.resident_kib();
    println!("resident: {again} KiB after the second list");
    let keys = gate.metric("claviger_gate_keys").expect("it counts them");
    assert!(
        (keys - f64::from(u32::try_from(server.keys()).unwrap())).abs() < f64::EPSILON,
        "{keys}"
    );
}

fn a_server_that_takes_watches_and_says_nothing_is_found_out() {
    let server = WatchServer::start(1_000);
    let gate = start_with(&server, &["--watch-timeout=1s", "--max-staleness=7s"]);
    gate.wait_ready();
    wait::until_true("it watches", || server.watches() > 0);
    server.fall_silent(true);
    server.change(1, How::Revoked);
    server.delete(2);
    // It looks for itself before seven seconds are over, since no watch shows that it lives.
    wait_code(&gate, &WatchServer::key(1), "REVOKED");
    wait_code(&gate, &WatchServer::key(2), "NOT_FOUND");
    server.fall_silent(false);
    server.change(4, How::Revoked);
    wait_code(&gate, &WatchServer::key(4), "REVOKED");
    assert_right(&server, &gate, 0..1_000);
}

fn start(server: &WatchServer) -> Gate {
    start_with(server, &[])
}

fn start_with(server: &WatchServer, arguments: &[&str]) -> Gate {
    // It asks the made-up server; the cluster keeps its log for the search for keys.
    Gate::builder(&Cluster::shared())
        .to(server.kubeconfig())
        .args(&["--access-log=refused"])
        .args(arguments)
        .start()
}

/// Waits until so many ApiKeys were listed, little by little: how long it takes depends on the machine.
fn wait_listed(server: &WatchServer, keys: usize) {
    // Fewer than there were are listed the second time.
    let keys = keys - keys / 50;
    for part in 1..=20 {
        wait::until(&format!("{part}/20 of {keys} ApiKeys are listed"), || {
            let listed = server.listed();
            if listed >= keys * part / 20 {
                Ok(())
            } else {
                Err(format!("{listed}"))
            }
        });
    }
}

fn assert_right(server: &WatchServer, gate: &Gate, numbers: impl Iterator<Item = usize>) {
    let mut asked = 0;
    for number in numbers {
        let right = match server.how(number) {
            Some(How::Active) => "VALID",
            Some(How::Revoked) => "REVOKED",
            Some(How::Expired) => "EXPIRED",
            None => "NOT_FOUND",
        };
        assert_eq!(
            gate.ask(ROUTE, &WatchServer::key(number)).1,
            right,
            "ApiKey {number}"
        );
        asked += 1;
    }
    println!("{asked} keys were answered right");
}
