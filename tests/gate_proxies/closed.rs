//! Without an answer of the gate nobody passes, be it that nobody is there or that somebody is silent.

use std::net::{SocketAddr, TcpListener};

use crate::stories;
use crate::support::client::Question;
use crate::support::proxies::{Envoy, Kind, Proxy};

stories![
    envoy_over_grpc_is_closed_without_a_gate,
    envoy_over_http_is_closed_without_a_gate,
    nginx_is_closed_without_a_gate,
    haproxy_is_closed_without_a_gate,
    caddy_is_closed_without_a_gate,
    traefik_is_closed_without_a_gate,
    a_mistake_in_traefiks_route_does_not_open_it,
    older_envoys_are_closed_without_a_gate,
];

/// What the client of each of [`Kind::ALL`] gets where no gate answers, as the documentation says.
pub(super) const STATUS_WITHOUT_A_GATE: [u16; 6] = [503, 503, 500, 503, 502, 500];

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
    // What is left of the route that needs less is the one that needs the most; without that there is none.
    for (middleware, orders, others) in [
        ("may-use-invoices", 500, 500),
        ("may-read-invoices", 500, 404),
    ] {
        let proxy = Proxy::start_edited(Kind::Traefik, nobody, |text| {
            let name = format!("middlewares: [{middleware},");
            let mistaken = text.replace(&name, "middlewares: [mistaken,");
            assert_ne!(mistaken, text, "the example has no such line any more");
            mistaken
        });
        for (path, status) in [
            ("/orders", orders),
            ("/reports", others),
            ("/reports/7", others),
        ] {
            let answer = proxy.ask(Question::get(path));
            assert_eq!(answer.status, status, "{path}: {answer:?}\n{}", proxy.log());
            assert!(proxy.upstream.take().is_empty(), "{path} reached the API");
        }
    }
}

/// Over HTTP, Envoy 1.37.0 does not know `status_on_error`.
fn older_envoys_are_closed_without_a_gate() {
    for (envoy, kind, status) in [
        (Envoy::V1_36, Kind::EnvoyGrpc, 503),
        (Envoy::V1_37, Kind::EnvoyGrpc, 503),
        (Envoy::V1_36, Kind::EnvoyHttp, 503),
        (Envoy::V1_37, Kind::EnvoyHttp, 403),
    ] {
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let gate = silent.local_addr().expect("an address");
        let proxy = Proxy::start_envoy(envoy, kind, gate, |text| text);
        refuses(&proxy, "is silent", status);
        drop(silent);
        refuses(&proxy, "is not there", status);
    }
}

fn closed(kind: Kind) {
    // It accepts connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let proxy = Proxy::start(kind, silent.local_addr().expect("an address"));
    let status = STATUS_WITHOUT_A_GATE[kind as usize];
    // Caddy tells a gate that is silent from one that is not there.
    refuses(
        &proxy,
        "is silent",
        if kind == Kind::Caddy { 504 } else { status },
    );
    drop(silent);
    refuses(&proxy, "is not there", status);
}

fn refuses(proxy: &Proxy, gate: &str, status: u16) {
    let kind = proxy.kind;
    // At once, for Traefik waits half a minute for a silent gate.
    std::thread::scope(|scope| {
        for path in ["/", "/orders"] {
            scope.spawn(move || {
                let answer = proxy.ask(Question::get(path).bearer("clv_any"));
                assert_eq!(
                    answer.status, status,
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
