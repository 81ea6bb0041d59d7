//! The gate before a crowd: many connections, peers that are slow, loud or broken, and an end in the middle of work.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use crate::stories;
use crate::support::asker::Asker;
use crate::support::client::Question;
use crate::support::cluster::runtime;
use crate::support::gate::Gate;
use crate::support::stage::Stage;
use crate::support::tls::{Authority, Mounted};
use crate::support::wait::{self, LIMIT};

stories![
    ten_thousand_connections_do_not_exhaust_the_gate,
    longest_idle_connection_makes_way_for_a_new_client,
    nobody_keeps_the_gate_from_answering,
    a_gate_that_is_asked_to_stop_answers_what_is_under_way,
];

const AUDIENCE: &str = "invoices-api";
const PATH: &str = "/v1/auth/envoy/audience=invoices-api/-/";

fn key(stage: &Stage) -> String {
    stage.declare("k", &format!("{{audiences: [{AUDIENCE}]}}"));
    stage.wait_issued("k");
    stage.mounted("k")["api-key"].clone()
}

fn wait_metric(gate: &Gate, name: &str, is: impl Fn(f64) -> bool) -> f64 {
    wait::until(&format!("{name} is as wanted"), || {
        match gate.metric(name) {
            Some(value) if is(value) => Ok(value),
            other => Err(format!("{other:?}")),
        }
    })
}

/// A connection whose every byte the story writes itself.
async fn raw(address: SocketAddr) -> TcpStream {
    let connected = tokio::time::timeout(LIMIT, TcpStream::connect(address)).await;
    connected.expect("in time").expect("a connection")
}

/// What comes until the server closes, or cuts, the connection.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    // A reset is an end, too.
    let _ = tokio::time::timeout(LIMIT, stream.read_to_end(&mut heard))
        .await
        .expect("the server closes it");
    String::from_utf8_lossy(&heard).into_owned()
}

/// What comes until it holds this.
async fn until_heard(stream: &mut TcpStream, what: &str) -> String {
    let mut heard = String::new();
    while !heard.contains(what) {
        let mut piece = [0; 4096];
        let length = tokio::time::timeout(LIMIT, stream.read(&mut piece))
            .await
            .expect("in time")
            .expect("an answer");
        assert!(length > 0, "closed after {heard:?}");
        heard.push_str(&String::from_utf8_lossy(&piece[..length]));
    }
    heard
}

/// Heads and bodies that are larger than any should be.
async fn say_too_much(address: SocketAddr) {
    let large = format!(
        "GET {PATH} HTTP/1.1\r\nhost: gate\r\nx-large: {}\r\n\r\n",
        "x".repeat(128 * 1024)
    );
    let many = format!(
        "GET {PATH} HTTP/1.1\r\nhost: gate\r\n{}\r\n",
        "x-many: x\r\n".repeat(500)
    );
    let chunk = format!("80000\r\n{}\r\n", "x".repeat(0x80000));
    let chunks = format!(
        "POST /v1/verify HTTP/1.1\r\nhost: gate\r\ntransfer-encoding: chunked\r\n\r\n{chunk}"
    );
    for (text, status) in [(large, "431"), (many, "431"), (chunks, "413")] {
        let mut stream = raw(address).await;
        // It may be cut off before it has said everything, and then the answer with it.
        let _ = stream.write_all(text.as_bytes()).await;
        let said = until_closed(&mut stream).await;
        assert!(
            said.is_empty() || said.starts_with(&format!("HTTP/1.1 {status} ")),
            "{said}"
        );
    }
    let mut told = raw(address).await;
    let head = "POST /v1/verify HTTP/1.1\r\nhost: gate\r\ncontent-length: 99999999999\r\n\r\n";
    told.write_all(head.as_bytes()).await.expect("it is taken");
    assert!(
        until_heard(&mut told, "\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 413 ")
    );
}

/// Bytes that are no HTTP, and some that begin like it.
async fn say_nonsense(address: SocketAddr) {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff";
    for nonsense in [&b"\0\x01\x02\xff\xfe garbage\r\n\r\n"[..], preface] {
        let mut stream = raw(address).await;
        stream.write_all(nonsense).await.expect("it is taken");
        let said = until_closed(&mut stream).await;
        assert!(!said.contains(" 200 "), "{said}");
    }
}

fn ten_thousand_connections_do_not_exhaust_the_gate() {
    const CONNECTIONS: usize = 10_000;
    const NEEDED: u64 = 12_000;
    let limit = rlimit::increase_nofile_limit(u64::MAX).expect("the limit of open files");
    assert!(
        limit >= NEEDED,
        "this story opens {CONNECTIONS} connections and needs a limit of {NEEDED} open files, but the hard limit is {limit}: raise \
         it (ulimit -Hn {NEEDED}) for the process that runs the tests"
    );
    let stage = Stage::new("crowd");
    let _operator = stage.operator().start_ready();
    let key = key(&stage);
    let gate = Gate::builder(&stage.cluster)
        .args(&["--access-log=off", "--log-level=info"])
        .start_ready();
    let address = gate.plain_address();
    let mut proxy = runtime()
        .block_on(Asker::connect(address))
        .expect("it listens");
    assert_eq!(
        runtime().block_on(proxy.ask(PATH, &key)),
        Ok((200, "VALID".to_owned()))
    );
    let before = gate.resident_kib();

    // Each has asked once, and is kept.
    let open = stream::iter(0..CONNECTIONS).map(async |_| {
        let mut asker = Asker::connect(address).await?;
        let answer = asker.ask(PATH, "").await?;
        if answer.0 == 401 {
            Ok(asker)
        } else {
            Err(format!("{answer:?}"))
        }
    });
    let crowd: Vec<Asker> = runtime()
        .block_on(open.buffer_unordered(100).try_collect())
        .expect("all are served");
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let all = CONNECTIONS as f64;
    let open = wait_metric(&gate, "claviger_gate_connections", |open| open >= all + 1.0);
    assert_eq!(
        runtime().block_on(proxy.ask(PATH, &key)),
        Ok((200, "VALID".to_owned())),
        "the proxy that was there"
    );
    let new = Question::get(PATH)
        .bearer(&key)
        .ask(address)
        .expect("a new one is served, too");
    assert_eq!(new.status, 200, "{new:?}");
    assert_eq!(gate.get("/readyz").map(|(status, _)| status), Some(200));
    assert_eq!(gate.metric("claviger_gate_accept_errors_total"), Some(0.0));
    let bytes = gate.resident_kib().saturating_sub(before) * 1024;
    println!(
        "{open} connections: {bytes} bytes more, {} each",
        bytes / CONNECTIONS as u64
    );

    drop(crowd);
    wait_metric(&gate, "claviger_gate_connections", |open| open <= 2.0);
    assert_eq!(
        runtime().block_on(proxy.ask(PATH, &key)),
        Ok((200, "VALID".to_owned())),
        "the proxy that stays"
    );
    assert!(gate.stop().success());
}

fn longest_idle_connection_makes_way_for_a_new_client() {
    const CONNECTIONS: usize = 20;
    let stage = Stage::new("no-room");
    let _operator = stage.operator().start_ready();
    let key = key(&stage);
    let gate = Gate::builder(&stage.cluster)
        .args(&[&format!("--max-connections={CONNECTIONS}")])
        .start_ready();
    let address = gate.plain_address();
    let valid = Ok((200, "VALID".to_owned()));
    let (mut crowd, mut later) = (Vec::new(), Vec::new());
    runtime().block_on(async {
        for _ in 0..CONNECTIONS {
            let mut asker = Asker::connect(address).await.expect("there is room");
            assert_eq!(asker.ask(PATH, &key).await, valid);
            crowd.push(asker);
        }
        assert_eq!(crowd[0].ask(PATH, &key).await, valid);
        for _ in 0..CONNECTIONS {
            let mut new = Asker::connect(address).await.expect("it listens");
            assert_eq!(new.ask(PATH, &key).await, valid);
            later.push(new);
            // The proxy, whose connection is the oldest and in use, stays.
            assert_eq!(crowd[0].ask(PATH, &key).await, valid);
        }
    });
    assert_eq!(
        gate.metric("claviger_gate_connections_evicted_total"),
        Some(20.0)
    );
    assert!(gate.metric("claviger_gate_connections") <= Some(20.0));
    assert!(gate.stop().success());
}

/// Each of these does its worst, many times over, while one proxy asks as ever.
fn nobody_keeps_the_gate_from_answering() {
    const EACH: usize = 100;
    let stage = Stage::new("peers");
    let _operator = stage.operator().start_ready();
    let key = key(&stage);
    let pair = Authority::new("ours").sign();
    let mounted = Mounted::new(&[("tls.crt", &pair.certificate), ("tls.key", &pair.key)]);
    let (certificate, private) = (
        mounted.flag("--tls-cert", "tls.crt"),
        mounted.flag("--tls-key", "tls.key"),
    );
    let gate = Gate::builder(&stage.cluster)
        .args(&[
            "--verify-callers=none",
            "--listen-tls=127.0.0.1:0",
            &certificate,
            &private,
            "--access-log=off",
        ])
        .start_ready();
    let (plain, tls) = (gate.plain_address(), gate.tls_address());
    let (done, answers) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let proxy = {
        let (done, answers, key) = (done.clone(), answers.clone(), key.clone());
        runtime().spawn(async move {
            let mut asker = Asker::connect(plain).await?;
            while !done.load(Ordering::SeqCst) {
                let answer = asker.ask(PATH, &key).await?;
                if answer != (200, "VALID".to_owned()) {
                    return Err(format!("{answer:?}"));
                }
                answers.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        })
    };

    // They begin, and go on as slowly as they can.
    let mut slow = runtime().block_on(async {
        let begun = stream::iter(0..EACH).then(async |_| {
            let mut stream = raw(plain).await;
            stream
                .write_all(b"GET / HTTP/1.1\r\nx-slow: ")
                .await
                .expect("it is taken");
            stream
        });
        begun.collect::<Vec<_>>().await
    });
    let mut half_open = runtime().block_on(async {
        let begun = stream::iter(0..EACH).then(async |_| {
            let mut stream = raw(tls).await;
            // The first bytes of a ClientHello of 512.
            stream
                .write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3])
                .await
                .expect("it is taken");
            stream
        });
        begun.collect::<Vec<_>>().await
    });

    runtime().block_on(async {
        for _ in 0..EACH {
            say_too_much(plain).await;
            say_nonsense(plain).await;
            say_nonsense(tls).await;
        }
    });

    // One more byte, again and again, buys no time.
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let each = EACH as f64;
    wait::until("the slow are cut off", || {
        for stream in &slow {
            let _ = stream.try_write(b"x");
        }
        let cut = (
            gate.metric("claviger_gate_slow_heads_total"),
            gate.metric("claviger_gate_refused_handshakes_total"),
        );
        if cut.0 >= Some(each) && cut.1 >= Some(3.0 * each) {
            Ok(())
        } else {
            Err(format!("{cut:?}"))
        }
    });
    runtime().block_on(async {
        for stream in slow.iter_mut().chain(&mut half_open) {
            let said = until_closed(stream).await;
            assert!(!said.contains(" 200 "), "{said}");
        }
    });
    done.store(true, Ordering::SeqCst);
    assert_eq!(
        runtime().block_on(proxy).expect("no panic"),
        Ok(()),
        "the proxy was answered all the while"
    );
    println!(
        "{} questions were answered beside {} bad peers",
        answers.load(Ordering::SeqCst),
        EACH * 10
    );
    assert!(answers.load(Ordering::SeqCst) > 0 && gate.runs());
    wait_metric(&gate, "claviger_gate_connections", |open| open < 1.0);
    assert!(!gate.logs().contains("panicked"));
    assert!(gate.stop().success());
}

fn a_gate_that_is_asked_to_stop_answers_what_is_under_way() {
    const CLIENTS: usize = 8;
    let stage = Stage::new("stopping");
    let _operator = stage.operator().start_ready();
    let key = key(&stage);
    let gate = Gate::builder(&stage.cluster)
        .args(&["--verify-callers=none", "--access-log=off"])
        .start_ready();
    let address = gate.plain_address();
    let (answered, cut) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let load = TaskTracker::new();
    for _ in 0..CLIENTS {
        let (key, answered, cut) = (key.clone(), answered.clone(), cut.clone());
        load.spawn_on(
            async move {
                let mut asker = Asker::connect(address).await.expect("it listens");
                // Until the gate closes the connection between two questions.
                loop {
                    match asker.ask(PATH, &key).await {
                        Ok(answer) => assert_eq!(
                            answer,
                            (200, "VALID".to_owned()),
                            "an answer is never another one"
                        ),
                        Err(_) => break cut.fetch_add(1, Ordering::SeqCst),
                    }
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            },
            runtime().handle(),
        );
    }
    load.close();
    wait::until_true("all ask", || answered.load(Ordering::SeqCst) > 10 * CLIENTS);

    // One question is half said when it comes.
    let body = json!({ "key": key, "audience": AUDIENCE }).to_string();
    let (first, rest) = body.split_at(body.len() / 2);
    let mut under_way = runtime().block_on(raw(address));
    let head = format!(
        "POST /v1/verify HTTP/1.1\r\nhost: gate\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    runtime().block_on(async {
        under_way
            .write_all(head.as_bytes())
            .await
            .expect("it is taken");
        until_heard(&mut under_way, "100 Continue\r\n\r\n").await;
        under_way
            .write_all(first.as_bytes())
            .await
            .expect("it is taken");
    });
    // Nor does it wait for who has nothing to say, or does not come to an end, at its admin server.
    let silent = std::net::TcpStream::connect(gate.admin_address()).expect("a connection");
    let mut slow = std::net::TcpStream::connect(gate.admin_address()).expect("a connection");
    std::io::Write::write_all(&mut slow, b"GET /met").expect("it is taken");
    gate.terminate();
    wait::until("it says so", || match gate.get("/readyz") {
        Some((503, body)) if body == "stopping\n" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    wait::until(
        "nobody else is let in",
        || match std::net::TcpStream::connect(address) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
    runtime().block_on(load.wait());
    assert_eq!(cut.load(Ordering::SeqCst), CLIENTS);
    assert_eq!(
        gate.get("/healthz").map(|(status, _)| status),
        Some(200),
        "it is alive as long as somebody waits"
    );
    let answer = runtime().block_on(async {
        under_way
            .write_all(rest.as_bytes())
            .await
            .expect("it is taken");
        until_closed(&mut under_way).await
    });
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(r#""code":"VALID""#),
        "{answer}"
    );
    assert_eq!(gate.ended().code(), Some(0), "{}", gate.logs());
    drop((silent, slow));
    println!(
        "{} questions were answered before the end",
        answered.load(Ordering::SeqCst)
    );
    assert!(!gate.logs().contains("cut off"), "{}", gate.logs());
}
