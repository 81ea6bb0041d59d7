//! What a question to the gate adds to a request through Envoy, against Envoy without the filter and against a backend that
//! decides nothing. Envoy answers by itself, so that there is no upstream in the figures.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::keys::{AUDIENCE, Case, Numbers, shown};
use crate::questions::{Asked, Protocol};
use crate::serve::Server;
use crate::setting;
use crate::stats::spread;

/// Connections, each with a thread and one request at a time.
const CONNECTIONS: u32 = 16;
/// How long one of the three is asked before the next is.
const WINDOW: Duration = Duration::from_millis(1_500);
const KEYS: u64 = 100_000;

pub(crate) fn measure() {
    let rate = u32::try_from(setting("CLAVIGER_BENCH_RATE", 400)).expect("a rate");
    let rounds = setting("CLAVIGER_BENCH_ROUNDS", 9);
    let server = Server::start(KEYS, 0);
    let backends = [
        ("no filter", None),
        ("no-op", Some(server.address(Protocol::Grpc, Asked::Noop))),
        ("gate", Some(server.address(Protocol::Grpc, Asked::Gate))),
    ];
    let dir = tempfile::tempdir().expect("a folder");
    let ports: Vec<SocketAddr> = backends.iter().map(|_| free_port()).collect();
    let envoy = Envoy::start(
        dir.path(),
        &config(&ports, &backends.map(|(_, backend)| backend)),
    );
    for port in &ports {
        wait_for(*port);
    }
    println!(
        "\nthrough Envoy (one worker, answering by itself), gRPC, {KEYS} keys: {rounds} rounds of {rate} requests a second for {} s each, in turn",
        WINDOW.as_secs_f64()
    );
    println!(
        "open loop: a request that had to wait for an earlier one is measured from when it was due\n"
    );
    let mut order = Numbers(3);
    let mut latencies: Vec<Latencies> = backends.iter().map(|_| Latencies::default()).collect();
    for round in 0..=rounds {
        for number in 0..ports.len() {
            // Each is the first in turn.
            let at = (number + round) % ports.len();
            let keys: Vec<String> = (0..requests(rate))
                .map(|_| shown(Case::Hit, KEYS, &mut order))
                .collect();
            let mut times = ask(ports[at], &keys, rate);
            times.sort_by(f64::total_cmp);
            if round > 0 {
                latencies[at].p50.push(times[times.len() / 2]);
                latencies[at].p99.push(times[times.len() * 99 / 100]);
            }
        }
    }
    drop(envoy);
    println!(
        "| {:<10} | {:<22} | {:<24} |",
        "backend", "p50 us", "p99 us"
    );
    println!(
        "|{}|",
        [12, 24, 26].map(|width| "-".repeat(width)).join("|")
    );
    for ((name, _), Latencies { p50, p99 }) in backends.iter().zip(&latencies) {
        println!(
            "| {name:<10} | {:<22} | {:<24} |",
            spread(p50.iter().copied()).text(0),
            spread(p99.iter().copied()).text(0)
        );
    }
    let compare = |what: &str, ours: usize, theirs: usize| {
        let of = |pick: fn(&Latencies) -> &Vec<f64>| {
            let pairs = || pick(&latencies[ours]).iter().zip(pick(&latencies[theirs]));
            (
                spread(pairs().map(|(ours, theirs)| ours - theirs)),
                spread(pairs().map(|(ours, theirs)| ours / theirs)),
            )
        };
        let (p50, p99) = (
            of(|latencies| &latencies.p50),
            of(|latencies| &latencies.p99),
        );
        println!(
            "{what}: p50 {} us, ratio {}; p99 {} us, ratio {}",
            p50.0.text(0),
            p50.1.text(2),
            p99.0.text(0),
            p99.1.text(2)
        );
    };
    println!();
    compare("gate more than no filter", 2, 0);
    compare("no-op more than no filter", 1, 0);
    compare("gate more than no-op", 2, 1);
}

/// Of each round, in microseconds.
#[derive(Default)]
struct Latencies {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

fn requests(rate: u32) -> usize {
    usize::try_from(rate).expect("a rate") * usize::try_from(WINDOW.as_millis()).expect("a time")
        / 1_000
}

/// Asks at a fixed rate. Microseconds of each request: from when it was sent, or from when it was due where its connection was
/// still busy then. That a timer wakes its thread late is the generator's fault and not counted.
fn ask(address: SocketAddr, keys: &[String], rate: u32) -> Vec<f64> {
    let begun = Instant::now() + Duration::from_millis(20);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|thread| {
                let own: Vec<(usize, &String)> =
                    keys.iter().enumerate().filter(|(number, _)| number % CONNECTIONS as usize == thread as usize).collect();
                scope.spawn(move || {
                    let mut stream = TcpStream::connect(address).expect("Envoy");
                    stream.set_nodelay(true).expect("no delay");
                    let mut times = Vec::new();
                    for (number, key) in own {
                        let due = begun + Duration::from_secs(1) * u32::try_from(number).expect("a number") / rate;
                        let request = format!(
                            "GET /invoices?limit=10 HTTP/1.1\r\nhost: api.example.com\r\nauthorization: Bearer {key}\r\n\r\n"
                        );
                        let now = Instant::now();
                        let since = if now < due {
                            std::thread::sleep(due - now);
                            Instant::now()
                        } else {
                            due
                        };
                        stream.write_all(request.as_bytes()).expect("Envoy");
                        read_answer(&mut stream);
                        times.push(since.elapsed().as_secs_f64() * 1e6);
                    }
                    times
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("no panic"))
            .collect()
    })
}

fn read_answer(stream: &mut TcpStream) {
    let (mut buffer, mut filled) = ([0; 4_096], 0);
    while !buffer[..filled]
        .windows(4)
        .any(|window| window == b"\r\n\r\n")
    {
        let read = stream.read(&mut buffer[filled..]).expect("an answer");
        assert!(read > 0, "Envoy hung up");
        filled += read;
    }
    assert!(
        buffer.starts_with(b"HTTP/1.1 204"),
        "{}",
        String::from_utf8_lossy(&buffer[..filled])
    );
}

/// A running Envoy.
struct Envoy(Child);

impl Envoy {
    fn start(dir: &std::path::Path, config: &str) -> Self {
        let found = Command::new("bash")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/dev/fetch-proxies.sh"))
            .stderr(Stdio::inherit())
            .output()
            .expect("bash runs");
        let found = String::from_utf8(found.stdout).expect("text");
        let binary = found
            .lines()
            .next()
            .expect("dev/fetch-proxies.sh finds Envoy");
        let file = dir.join("envoy.yaml");
        fs::write(&file, config).expect("a file");
        let process = Command::new(binary)
            .args([
                "--disable-hot-restart",
                "--concurrency",
                "1",
                "--log-level",
                "warning",
                "-c",
            ])
            .arg(file)
            .stdin(Stdio::null())
            .spawn()
            .expect("Envoy");
        Self(process)
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port")
}

fn wait_for(address: SocketAddr) {
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "Envoy does not listen"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A listener for each backend; the filter is as in `examples/gate/envoy-grpc.yaml`.
fn config(ports: &[SocketAddr], backends: &[Option<SocketAddr>]) -> String {
    let mut listeners = String::new();
    let mut clusters = String::new();
    for (number, (port, backend)) in ports.iter().zip(backends).enumerate() {
        let (mut filter, mut settings) = (String::new(), String::new());
        if let Some(backend) = backend {
            filter = format!(
                r#"
          - name: envoy.filters.http.ext_authz
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
              transport_api_version: V3
              grpc_service: {{envoy_grpc: {{cluster_name: backend-{number}}}, timeout: 1s}}
              encode_raw_headers: true"#
            );
            settings = format!(
                r#"
              typed_per_filter_config:
                envoy.filters.http.ext_authz:
                  "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                  check_settings: {{context_extensions: {{audience: {AUDIENCE}, permissions: "invoices:read"}}}}"#
            );
            clusters += &format!(
                r#"
  - name: backend-{number}
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: backend-{number}
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]"#,
                backend.ip(),
                backend.port()
            );
        }
        listeners += &format!(
            r#"
  - name: listener-{number}
    address: {{socket_address: {{address: {}, port_value: {}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: listener-{number}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]{settings}
              routes: [{{match: {{prefix: /}}, direct_response: {{status: 204}}}}]
          http_filters:{filter}
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"#,
            port.ip(),
            port.port()
        );
    }
    format!("static_resources:\n  listeners:{listeners}\n  clusters:{clusters}\n")
}
