//! The memory of a gate that is attacked, in a control group of 512 MiB as the chart's default
//! limit is: the gate goes on and answers others.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger::gate::protocols::GRPC_PATHS;
use futures::stream::{self, StreamExt as _};
use tokio::net::TcpStream;

use crate::stories;
use crate::support::asker::Asker;
use crate::support::cluster::{Cluster, runtime};
use crate::support::gate::Gate;
use crate::support::http2;
use crate::support::memory_group::MemoryGroup;
use crate::support::proxy::{Fault, Matcher, Proxy, Verb, When};
use crate::support::stage::Stage;
use crate::support::wait::LIMIT;

stories![
    idle_connections_leave_memory_for_others,
    http2_header_blocks_leave_memory_for_others,
    requests_without_bodies_leave_memory_for_others,
    large_heads_without_bodies_leave_memory_for_others,
    grpc_heads_without_bodies_leave_memory_for_others,
    responses_that_are_not_taken_leave_memory_for_others,
    busy_connections_keep_no_proxy_out,
    hanging_token_reviews_leave_memory_for_others,
];

const MEMORY: u64 = 512 << 20;
const PATH: &str = "/v1/auth/envoy/audience=invoices-api/-/";

/// A gate with the memory of a small container, and a key that passes there.
struct Target {
    gate: Gate,
    address: SocketAddr,
    key: String,
    _group: Option<MemoryGroup>,
}

impl Target {
    fn start(name: &str, arguments: &[&str], proxy: Option<&Proxy>) -> Self {
        let limit = rlimit::increase_nofile_limit(u64::MAX).expect("the limit of open files");
        assert!(
            limit >= 8_192,
            "raise the limit of open files (ulimit -Hn 8192): it is {limit}"
        );
        let stage = Stage::new(name);
        {
            let _operator = stage.operator().start_ready();
            stage.declare("k", "{audiences: [invoices-api]}");
            stage.wait_issued("k");
        }
        let key = stage.mounted("k")["api-key"].clone();
        let group = MemoryGroup::new(MEMORY);
        let mut builder = Gate::builder(&stage.cluster)
            .args(&["--access-log=off", "--log-level=info"])
            .args(arguments);
        if let Some(proxy) = proxy {
            builder = builder.via(proxy);
        }
        builder = if let Some(group) = &group {
            builder.in_group(group)
        } else {
            println!("no control group can be made here: only the peak is looked at");
            builder.args(&["--max-connections=819"])
        };
        let gate = builder.start_ready();
        let address = gate.plain_address();
        Self {
            gate,
            address,
            key,
            _group: group,
        }
    }

    /// Attacks with `connections`, 100 at a time, each of which stays open as long as the gate lets
    /// it; and asks as a proxy does until all of them are there and a little longer.
    fn attack<F>(&self, connections: usize, attack: impl Fn() -> F)
    where
        F: Future<Output = std::io::Result<TcpStream>>,
    {
        let before = self.gate.resident_kib();
        runtime().block_on(async {
            // The gate closes some of them while they still write.
            let attackers = stream::iter(0..connections).map(|_| attack());
            let attackers = attackers.buffer_unordered(100).collect::<Vec<_>>();
            let mut proxy = None;
            let (mut answered, mut refused) = (0, 0);
            let mut attackers = std::pin::pin!(attackers);
            let all = loop {
                tokio::select! {
                    biased;
                    all = &mut attackers => break all,
                    before = self.ask(&mut proxy) => {
                        answered += 1;
                        refused += before;
                    }
                }
            };
            for _ in 0..100 {
                refused += self.ask(&mut proxy).await;
            }
            let open = all.iter().filter(|attacker| attacker.is_ok()).count();
            println!(
                "{connections} attackers, {open} of them until the end: {} MiB resident, {} at \
                 most, {} before; {answered} answers meanwhile, \
                 {refused} refused before",
                self.gate.resident_kib() / 1024,
                self.gate.peak_kib() / 1024,
                before / 1024,
            );
        });
        assert!(self.gate.runs(), "{}", self.gate.logs());
        assert!(self.gate.peak_kib() * 1024 < MEMORY);
        let used = self.gate.metric("claviger_gate_connections");
        assert!(used.is_some_and(|used| used <= 819.0), "{used:?}");
    }

    /// A good key passes, as a proxy sees to it: over the connection that is there, or once more
    /// where the gate closes it or is busy. Returns how often it was refused before.
    async fn ask(&self, proxy: &mut Option<Asker>) -> usize {
        let answered = async {
            let mut refused = 0;
            loop {
                let answer = match proxy {
                    Some(asker) => asker.ask(PATH, &self.key).await,
                    None => Err("not connected".to_owned()),
                };
                match answer {
                    Ok(answer) if answer == (200, "VALID".to_owned()) => return refused,
                    Ok((503, _)) => refused += 1,
                    Ok(other) => panic!("{other:?}"),
                    Err(_) => *proxy = Asker::connect(self.address).await.ok(),
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, answered)
            .await
            .expect("an answer in time")
    }
}

fn idle_connections_leave_memory_for_others() {
    let target = Target::start("memory-idle", &[], None);
    let address = target.address;
    let ask = format!("GET {PATH} HTTP/1.1\r\nhost: gate\r\n\r\n");
    target.attack(3_000, async || {
        let mut stream = TcpStream::connect(address).await?;
        tokio::io::AsyncWriteExt::write_all(&mut stream, ask.as_bytes()).await?;
        stream.readable().await?;
        Ok(stream)
    });
    // A request without a body: HEADERS that end the stream.
    let request = http2::frame(1, 5, 1, &http2::post(PATH));
    target.attack(3_000, || http2::connect(address, &request));
    assert!(
        target
            .gate
            .metric("claviger_gate_connections_evicted_total")
            > Some(0.0)
    );
}

fn http2_header_blocks_leave_memory_for_others() {
    let target = Target::start("memory-blocks", &[], None);
    let large = http2::literal("x-large", &"x".repeat(4_000));
    let block = [http2::post(PATH), large.repeat(7)].concat();
    let head = http2::endless_head(1, &block);
    target.attack(4_000, || http2::connect(target.address, &head));
}

fn requests_without_bodies_leave_memory_for_others() {
    let target = Target::start("memory-bodies", &["--verify-callers=none"], None);
    // Each request is a hundred bytes and has headers of 30 KiB.
    let first = [
        http2::post("/v1/verify"),
        http2::remembered("x-large", &"x".repeat(280)),
        vec![http2::AGAIN; 90],
    ];
    let again = [http2::post("/v1/verify"), vec![http2::AGAIN; 91]].concat();
    let mut requests = http2::head(1, &first.concat());
    for number in 1..100 {
        requests.extend(http2::head(2 * number + 1, &again));
    }
    target.attack(400, || http2::connect(target.address, &requests));
    assert!(target.gate.metric("claviger_gate_refused_requests_total") > Some(0.0));
}

fn large_heads_without_bodies_leave_memory_for_others() {
    let target = Target::start("memory-heads", &["--verify-callers=none"], None);
    let large = http2::literal("x-large", &"x".repeat(4_000));
    let block = [http2::post("/v1/verify"), large.repeat(7)].concat();
    let requests: Vec<u8> = (0..100)
        .flat_map(|number| http2::head(2 * number + 1, &block))
        .collect();
    target.attack(100, || http2::connect(target.address, &requests));
}

fn grpc_heads_without_bodies_leave_memory_for_others() {
    let target = Target::start("memory-grpc", &[], None);
    for path in GRPC_PATHS {
        let path = format!("{path}?{}", "x".repeat(24_000));
        let block = [
            http2::post(&path),
            http2::literal("content-type", "application/grpc"),
            http2::literal("te", &"x".repeat(6_000)),
        ];
        let block = block.concat();
        let requests: Vec<u8> = (0..100)
            .flat_map(|number| http2::head(2 * number + 1, &block))
            .collect();
        target.attack(100, || http2::connect(target.address, &requests));
    }
}

/// Windows of zero: the peer takes no byte of a body.
fn responses_that_are_not_taken_leave_memory_for_others() {
    let target = Target::start("memory-responses", &["--verify-callers=none"], None);
    let forward: Vec<u8> = (0..100)
        .flat_map(|number| http2::frame(1, 5, 2 * number + 1, &http2::post(PATH)))
        .collect();
    let forward = [http2::no_window(), forward].concat();
    target.attack(900, || http2::connect(target.address, &forward));
    // Each key of a batch is answered with all that is known of it.
    let one = serde_json::json!({ "key": target.key, "audience": "invoices-api" });
    let batch = serde_json::json!({ "requests": vec![one; 100] }).to_string();
    let batch: Vec<u8> = (0..4)
        .flat_map(|number| {
            let (stream, body) = (2 * number + 1, batch.as_bytes());
            let head = http2::head(stream, &http2::post("/v1/verify/batch"));
            [head, http2::frame(0, 1, stream, body)].concat()
        })
        .collect();
    let batch = [http2::no_window(), batch].concat();
    target.attack(900, || http2::connect(target.address, &batch));
}

/// Each connection always has one request whose body does not come.
fn busy_connections_keep_no_proxy_out() {
    let target = Target::start("memory-busy", &["--max-connections=200"], None);
    let head = http2::head(1, &http2::post(GRPC_PATHS[0]));
    target.attack(1_000, || http2::connect(target.address, &head));
    assert!(
        target
            .gate
            .metric("claviger_gate_connections_evicted_total")
            > Some(0.0)
    );
}

/// The API server takes the questions about tokens and does not answer: all requests with one
/// made-up token wait for the same answer.
fn hanging_token_reviews_leave_memory_for_others() {
    let proxy = Cluster::shared().proxy();
    let target = Target::start("memory-reviews", &[], Some(&proxy));
    let reviews = Matcher::call(Verb::Create, "tokenreviews");
    proxy.on(reviews, When::Before, Fault::Hang);
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let token = format!(
        "{}.{}.{}",
        part(r#"{"alg":"RS256"}"#),
        part("{}"),
        part("made up")
    );
    let large = http2::literal("x-large", &"x".repeat(4_000));
    let caller = http2::literal("authorization", &format!("Bearer {token}"));
    let block = [http2::post("/v1/verify"), caller, large.repeat(6)].concat();
    let requests: Vec<u8> = (0..100)
        .flat_map(|number| http2::head(2 * number + 1, &block))
        .collect();
    target.attack(100, || http2::connect(target.address, &requests));
}
