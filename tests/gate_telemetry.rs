//! Logs and metrics of a gate, where what they depend on fails.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::stories;
use crate::support::gate::Gate;
use crate::support::stage::Stage;
use crate::support::wait;

stories![log_pipe_that_nobody_reads_stops_no_request];

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
