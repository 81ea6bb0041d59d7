//! Without an answer of the gate nobody passes, be it that nobody is there or that somebody is silent.

use std::net::{SocketAddr, TcpListener};

use crate::stories;
use crate::support::client::Question;
use crate::support::proxies::{Kind, Proxy};

stories![
    envoy_over_grpc_is_closed_without_a_gate,
    envoy_over_http_is_closed_without_a_gate,
    nginx_is_closed_without_a_gate,
    haproxy_is_closed_without_a_gate,
    caddy_is_closed_without_a_gate,
    traefik_is_closed_without_a_gate,
    a_mistake_in_traefiks_route_does_not_open_it,
];

fn envoy_over_grpc_is_closed_without_a_gate() {
    closed(Kind::EnvoyGrpc);
}

fn envoy_over_http_is_closed_without_a_gate() {
    closed(Kind::EnvoyHttp);
}

fn nginx_is_closed_without_a_gate() {
    closed(Kind::Nginx);
}

fn haproxy_is_closed_without_a_gate() {
    closed(Kind::HaProxy);
}

fn caddy_is_closed_without_a_gate() {
    closed(Kind::Caddy);
}

fn traefik_is_closed_without_a_gate() {
    closed(Kind::Traefik);
}

/// Traefik drops a route that has a mistake, and looks for another that takes the request.
fn a_mistake_in_traefiks_route_does_not_open_it() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let proxy = Proxy::start_edited(Kind::Traefik, nobody, |text| {
        let mistaken = text.replace(
            "middlewares: [may-read-invoices,",
            "middlewares: [may-read-invoice,",
        );
        assert_ne!(mistaken, text, "the example has no such line any more");
        mistaken
    });
    for (path, status) in [("/", 500), ("/reports", 404), ("/reports/7", 404)] {
        let answer = proxy.ask(Question::get(path));
        assert_eq!(answer.status, status, "{path}: {answer:?}\n{}", proxy.log());
    }
}

fn closed(kind: Kind) {
    // It accepts connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let proxy = Proxy::start(kind, silent.local_addr().expect("an address"));
    refuses(&proxy, "is silent");
    drop(silent);
    refuses(&proxy, "is not there");
}

fn refuses(proxy: &Proxy, gate: &str) {
    let kind = proxy.kind;
    // At once, for Traefik waits half a minute for a silent gate.
    std::thread::scope(|scope| {
        for path in ["/", "/reports"] {
            scope.spawn(move || {
                let answer = proxy.ask(Question::get(path).bearer("clv_any"));
                assert!(
                    matches!(answer.status, 500 | 502..=504),
                    "{kind}: a gate that {gate}: {answer:?}"
                );
            });
        }
    });
    assert!(
        proxy.upstream.take().is_empty(),
        "{kind}: a gate that {gate}: something reached the API"
    );
}
