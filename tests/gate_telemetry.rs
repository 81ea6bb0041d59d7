//! Logs and metrics of a gate, where what they depend on fails.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::stories;
use crate::support::gate::Gate;
use crate::support::stage::Stage;
use crate::support::wait;

stories![
    log_pipe_that_nobody_reads_stops_no_request,
    clock_skew_is_measured_and_logged_once,
];

/// Requests that are sent at once, each of which is a line in the access log.
const BATCH: usize = 500;

fn log_pipe_that_nobody_reads_stops_no_request() {
    let stage = Stage::new("log-pipe");
    let gate = Gate::builder(&stage.cluster)
        .args(&["--access-log=all"])
        .with_log_pipe()
        .start();
    gate.read_log_until("verdicts are given");
    let mut stream = TcpStream::connect(gate.plain_address()).expect("it listens");
    stream
        .set_read_timeout(Some(wait::LIMIT))
        .expect("a socket");
    let request = "GET /v1/auth/envoy/audience=invoices-api/- HTTP/1.1\r\nhost: gate\r\n\r\n";
    wait::until("lines are dropped", || {
        stream
            .write_all(request.repeat(BATCH).as_bytes())
            .expect("it reads");
        let (mut answers, mut piece) = (String::new(), [0; 4_096]);
        while answers.matches("HTTP/1.1 401").count() < BATCH {
            let length = stream.read(&mut piece).expect("it answers");
            assert!(length > 0, "it closed the connection: {answers}");
            answers.push_str(std::str::from_utf8(&piece[..length]).expect("text"));
        }
        match gate.metric("claviger_gate_log_lines_dropped_total") {
            Some(dropped) if dropped > 0.0 => Ok(()),
            dropped => Err(format!("{dropped:?}")),
        }
    });
    assert_eq!(gate.ask("audience=invoices-api", "x").1, "MALFORMED");
    assert!(gate.stop().success());
}

fn clock_skew_is_measured_and_logged_once() {
    let stage = Stage::new("clock-skew");
    let proxy = stage.cluster.proxy();
    let gate = Gate::builder(&stage.cluster)
        .via(&proxy)
        .args(&["--watch-timeout=1s"])
        .start_ready();
    let skew = |name: &str, minutes: std::ops::Range<f64>| {
        wait::until(name, || {
            match gate.metric("claviger_gate_clock_skew_seconds") {
                Some(skew) if minutes.contains(&(skew / 60.0)) => Ok(()),
                skew => Err(format!("{skew:?}")),
            }
        });
    };
    let logged = |text: &str, times: usize| {
        wait::until(text, || match gate.logs().matches(text).count() {
            count if count == times => Ok(()),
            count => Err(format!("{count} times: {}", gate.logs())),
        });
    };
    let (disagrees, agrees) = ("the clock disagrees", "agrees with the API server's again");
    skew("the clocks agree", -1.0..1.0);
    logged(disagrees, 0);
    proxy.shift_date(-3_600);
    skew("the gate is an hour ahead", 59.0..61.0);
    logged(disagrees, 1);
    proxy.shift_date(0);
    skew("the clocks agree again", -1.0..1.0);
    logged(agrees, 1);
    logged(disagrees, 1);
}
