//! The gate over TLS: both versions of HTTP, certificates that are renewed while it runs, and clients that have to show one.

use std::net::TcpListener;

use serde_json::json;

use crate::stories;
use crate::support::client::Question;
use crate::support::cluster::{Cluster, runtime};
use crate::support::gate::{Builder, Gate};
use crate::support::stage::Stage;
use crate::support::tls::{Authority, Mounted, Pair, TlsClient};
use crate::support::wait;

stories![
    http_1_and_2_are_served_over_tls,
    a_renewed_certificate_is_shown_without_a_restart,
    proxies_and_services_may_have_to_show_a_certificate,
    a_gate_that_cannot_work_says_what_to_do,
];

const AUDIENCE: &str = "invoices-api";
const PROTOCOLS: [&str; 2] = ["http/1.1", "h2"];

fn key(stage: &Stage) -> String {
    stage.declare("k", &format!("{{audiences: [{AUDIENCE}]}}"));
    stage.wait_issued("k");
    stage.mounted("k")["api-key"].clone()
}

fn files(pair: &Pair) -> [(&str, &str); 2] {
    [("tls.crt", &pair.certificate), ("tls.key", &pair.key)]
}

/// A gate with these files, for HTTPS.
fn over_tls(cluster: &std::sync::Arc<Cluster>, mounted: &Mounted) -> Builder<'static> {
    let (certificate, key) = (
        mounted.flag("--tls-cert", "tls.crt"),
        mounted.flag("--tls-key", "tls.key"),
    );
    Gate::builder(cluster).args(&["--listen-tls=127.0.0.1:0", &certificate, &key])
}

/// What a proxy asks.
fn of_proxy(key: &str) -> Question {
    Question::get(&format!("/v1/auth/envoy/audience={AUDIENCE}/-/")).bearer(key)
}

/// What a service asks.
fn of_service(key: &str) -> Question {
    Question::post("/v1/verify", &json!({ "key": key, "audience": AUDIENCE }))
}

fn http_1_and_2_are_served_over_tls() {
    let stage = Stage::new("tls");
    let _operator = stage.operator().start_ready();
    let key = key(&stage);
    let authority = Authority::new("ours");
    let pair = authority.sign();
    let mounted = Mounted::new(&files(&pair));
    let gate = over_tls(&stage.cluster, &mounted)
        .without("--listen")
        .args(&["--verify-callers=none"])
        .start_ready();
    let client = authority.client(None);
    for protocol in PROTOCOLS {
        let (answer, shown) = client
            .ask(gate.tls_address(), protocol, of_proxy(&key))
            .expect("an answer");
        assert_eq!(
            (answer.status, answer.header("x-claviger-code")),
            (200, Some("VALID")),
            "{protocol}: {answer:?}"
        );
        assert_eq!(answer.header("x-claviger-name"), Some("k"));
        assert_eq!(shown, pair.der());
        let (answer, _) = client
            .ask(gate.tls_address(), protocol, of_service(&key))
            .expect("an answer");
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (200, &json!("VALID")),
            "{protocol}: {answer:?}"
        );
    }
    // Who takes the gate for somebody else's, or speaks no TLS, gets nothing.
    let stranger =
        Authority::new("theirs")
            .client(None)
            .ask(gate.tls_address(), "h2", of_proxy(&key));
    assert!(
        stranger
            .as_ref()
            .is_err_and(|error| error.contains("UnknownIssuer")),
        "{stranger:?}"
    );
    let plain = of_proxy(&key).ask(gate.tls_address());
    assert!(plain.is_err(), "{plain:?}");
    wait::until("both are counted", || {
        match gate.metric("claviger_gate_refused_handshakes_total") {
            Some(count) if count >= 2.0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(gate.stop().success());
}

fn a_renewed_certificate_is_shown_without_a_restart() {
    let stage = Stage::new("tls-renewed");
    let _operator = stage.operator().start_ready();
    let key = key(&stage);
    let authority = Authority::new("ours");
    let (first, second, third) = (authority.sign(), authority.sign(), authority.sign());
    let mounted = Mounted::new(&files(&first));
    let gate = over_tls(&stage.cluster, &mounted).start_ready();
    let client = authority.client(None);
    let shown = || {
        let (answer, shown) = client
            .ask(gate.tls_address(), "h2", of_proxy(&key))
            .expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        shown
    };
    let wait_shown = |pair: &Pair| {
        wait::until("another certificate is shown", || {
            if shown() == pair.der() {
                Ok(())
            } else {
                Err("not yet".to_owned())
            }
        });
    };
    assert_eq!(shown(), first.der());
    // Somebody has a connection since before.
    let mut kept = runtime().block_on(async { OverTls::connect(&client, &gate).await });
    assert_eq!(runtime().block_on(kept.status(&key)), 200);

    mounted.exchange(&files(&second));
    wait_shown(&second);
    assert_eq!(runtime().block_on(kept.status(&key)), 200, "it goes on");

    // A pair that is none is told of, and what was good stays.
    mounted.exchange(&[("tls.crt", &third.certificate), ("tls.key", &first.key)]);
    let told = || {
        gate.logs()
            .matches("the TLS files cannot be used; the certificate that was read before stays")
            .count()
    };
    wait::until_true("the broken pair is told of", || told() == 1);
    assert_eq!(shown(), second.der());
    mounted.exchange(&files(&third));
    wait_shown(&third);
    assert_eq!((told(), runtime().block_on(kept.status(&key))), (1, 200));
    assert!(!gate.logs().contains("PRIVATE KEY"));
    assert!(gate.stop().success());
}

/// A kept connection.
struct OverTls(hyper::client::conn::http1::SendRequest<http_body_util::Empty<hyper::body::Bytes>>);

impl OverTls {
    async fn connect(client: &TlsClient, gate: &Gate) -> Self {
        let stream = client
            .connect(gate.tls_address(), "http/1.1")
            .await
            .expect("a connection");
        let io = hyper_util::rt::TokioIo::new(stream);
        let (sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .expect("HTTP");
        tokio::spawn(connection);
        Self(sender)
    }

    async fn status(&mut self, key: &str) -> u16 {
        self.0.ready().await.expect("it is open");
        let request = http::Request::get(format!("/v1/auth/envoy/audience={AUDIENCE}/-/"))
            .header("host", "gate")
            .header("authorization", format!("Bearer {key}"));
        let request = request
            .body(http_body_util::Empty::new())
            .expect("a request");
        self.0
            .send_request(request)
            .await
            .expect("an answer")
            .status()
            .as_u16()
    }
}

fn proxies_and_services_may_have_to_show_a_certificate() {
    let stage = Stage::new("tls-clients");
    let _operator = stage.operator().start_ready();
    let key = key(&stage);
    let (servers, clients, others) = (
        Authority::new("servers"),
        Authority::new("clients"),
        Authority::new("others"),
    );
    let pair = servers.sign();
    let ca = clients.pem();
    let mounted = Mounted::new(&[
        ("tls.crt", &pair.certificate),
        ("tls.key", &pair.key),
        ("ca.crt", &ca),
    ]);
    let ca = mounted.flag("--tls-client-ca", "ca.crt");
    let (known, foreign) = (clients.sign(), others.sign());
    let (with, without) = (servers.client(Some(&known)), servers.client(None));
    let (foreign, selfsigned) = (servers.client(Some(&foreign)), servers.client(Some(&pair)));

    let both = over_tls(&stage.cluster, &mounted)
        .args(&[&ca, "--proxy-callers=mtls", "--verify-callers=mtls"])
        .start_ready();
    let verify_only = over_tls(&stage.cluster, &mounted)
        .args(&[&ca, "--verify-callers=mtls"])
        .start_ready();
    let proxy_only = over_tls(&stage.cluster, &mounted)
        .args(&[&ca, "--proxy-callers=mtls", "--verify-callers=none"])
        .start_ready();
    // What proxies and services are answered, with a certificate and without.
    for (name, gate, proxy, service) in [
        ("both", &both, 403, 401),
        ("verify", &verify_only, 200, 401),
        ("proxy", &proxy_only, 403, 200),
    ] {
        for protocol in PROTOCOLS {
            let status = |client: &TlsClient, question| {
                client
                    .ask(gate.tls_address(), protocol, question)
                    .expect("an answer")
                    .0
            };
            assert_eq!(
                (
                    status(&with, of_proxy(&key)).status,
                    status(&with, of_service(&key)).status
                ),
                (200, 200),
                "{name}"
            );
            let (proxied, verified) = (
                status(&without, of_proxy(&key)),
                status(&without, of_service(&key)),
            );
            assert_eq!(
                (proxied.status, verified.status),
                (proxy, service),
                "{name}: {proxied:?} {verified:?}"
            );
            if proxy == 403 {
                let says = "a client certificate is needed (--proxy-callers=mtls)";
                assert_eq!(proxied.json()["message"], says);
                assert_eq!(proxied.header("x-claviger-key-id"), None);
            }
            if service == 401 {
                assert_eq!(
                    verified.json()["message"],
                    "who asks is not known: show a client certificate"
                );
            }
            // A certificate of somebody else's is worse than none.
            for stranger in [&foreign, &selfsigned] {
                let answer = stranger.ask(gate.tls_address(), protocol, of_proxy(&key));
                assert!(answer.is_err(), "{name}: {answer:?}");
            }
        }
        // Over plain HTTP nobody can show one.
        let plain = (
            of_proxy(&key).ask(gate.plain_address()),
            of_service(&key).ask(gate.plain_address()),
        );
        assert_eq!(
            (
                plain.0.expect("an answer").status,
                plain.1.expect("an answer").status
            ),
            (proxy, service),
            "{name}"
        );
    }
    // Over gRPC Envoy is turned away as well, before its question is read.
    let grpc = Question::post("/envoy.service.auth.v3.Authorization/Check", "")
        .ask_h2(both.plain_address())
        .expect("an answer");
    assert_eq!(grpc.status, 403, "{grpc:?}");
}

/// At start, with one sentence, and before anything is served.
fn a_gate_that_cannot_work_says_what_to_do() {
    let cluster = Cluster::shared();
    let authority = Authority::new("ours");
    let (pair, other) = (authority.sign(), authority.sign());
    let mounted = Mounted::new(&[
        ("tls.crt", &pair.certificate),
        ("tls.key", &pair.key),
        ("other.key", &other.key),
        ("empty", ""),
        ("ca.crt", &authority.pem()),
    ]);
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = holder.local_addr().expect("its address");
    let flag = |flag, name| mounted.flag(flag, name);
    let (certificate, key) = (flag("--tls-cert", "tls.crt"), flag("--tls-key", "tls.key"));
    let (listen, listen_tls) = ("--listen=127.0.0.1:0", "--listen-tls=127.0.0.1:0");
    let tls = [listen_tls, certificate.as_str(), key.as_str()];
    let more = |arguments: &[&str]| -> Vec<String> {
        tls.iter()
            .chain(arguments)
            .map(|one| (*one).to_owned())
            .collect()
    };
    let plain = |arguments: &[&str]| -> Vec<String> {
        [listen]
            .iter()
            .chain(arguments)
            .map(|one| (*one).to_owned())
            .collect()
    };
    let no_ca = "client certificates (mtls) need --listen-tls with --tls-client-ca";
    let staleness = "--max-staleness must be more than --watch-timeout and five seconds";
    let other_port = "choose another address, or";
    let cases: Vec<(Vec<String>, Vec<&str>)> = vec![
        (
            vec![],
            vec!["nothing is listened on: set --listen, --listen-tls, or both"],
        ),
        (plain(&["--proxy-callers=mtls"]), vec![no_ca]),
        (plain(&["--verify-callers=mtls"]), vec![no_ca]),
        (more(&["--verify-callers=token,mtls"]), vec![no_ca]),
        (
            plain(&["--verify-callers=none,token"]),
            vec!["--verify-callers=none", "leave either out"],
        ),
        (
            more(&[&flag("--tls-cert", "gone")]),
            vec!["--tls-cert ", "gone: No such file"],
        ),
        (
            more(&[&flag("--tls-key", "gone")]),
            vec!["--tls-key ", "gone: No such file"],
        ),
        (
            more(&[&flag("--tls-client-ca", "gone")]),
            vec!["--tls-client-ca ", "gone: No such file"],
        ),
        (
            more(&[&flag("--tls-cert", "empty")]),
            vec!["--tls-cert ", "it holds no certificate"],
        ),
        (
            more(&[&flag("--tls-key", "tls.crt")]),
            vec!["--tls-key ", "it holds no whole private key in PEM"],
        ),
        (
            more(&[&flag("--tls-key", "other.key")]),
            vec!["--tls-cert and --tls-key cannot be used together"],
        ),
        (
            plain(&["--max-staleness=10s", "--watch-timeout=5s"]),
            vec![staleness],
        ),
        (
            plain(&["--watch-timeout=999ms"]),
            vec!["--watch-timeout must be from 1s to 5m"],
        ),
        (
            vec![format!("--listen={taken}")],
            vec!["cannot listen on --listen ", other_port],
        ),
        (
            more(&[&format!("--listen-tls={taken}")]),
            vec!["cannot listen on --listen-tls ", other_port],
        ),
        (
            plain(&[&format!("--admin-address={taken}")]),
            vec!["cannot listen on --admin-address ", other_port],
        ),
    ];
    for (arguments, says) in cases {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let gate = Gate::builder(&cluster)
            .without("--listen")
            .args(&arguments)
            .start();
        let (status, logs) = (gate.ended(), gate.logs());
        let last = logs.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("claviger: ") && says.iter().all(|part| last.contains(part)),
            "{arguments:?}: {logs}"
        );
        assert_eq!(status.code(), Some(1), "{arguments:?}");
    }
    // What cannot be meant is refused with the usage.
    for (arguments, says) in [
        (&[listen_tls][..], "--tls-cert <FILE>"),
        (&[listen, &certificate], "--listen-tls <ADDRESS>"),
        (
            &[listen, &flag("--tls-client-ca", "ca.crt")],
            "--listen-tls <ADDRESS>",
        ),
        (&[listen, "--max-connections=0"], "--max-connections <N>"),
        (&[listen, "--token-cache=0s"], "--token-cache <TIME>"),
    ] {
        let gate = Gate::builder(&cluster)
            .without("--listen")
            .args(arguments)
            .start();
        let (status, logs) = (gate.ended(), gate.logs());
        assert!(
            status.code() == Some(2) && logs.contains(says),
            "{arguments:?}: {logs}"
        );
    }
}
