//! What browsers send beside plain requests: the preflight (CORS), and the WebSocket.

use super::forged;
use super::places::{gate_and_key, replaced, uncomment};
use super::relay::Relay;
use super::verdicts::{Keys, assert_identity, assert_refused};
use crate::stories;
use crate::support::client::Question;
use crate::support::proxies::{Kind, Proxy};
use crate::support::upstream::WEBSOCKET_KEY;

stories![
    preflight_without_a_key_is_refused,
    uncommented_preflight_passes_without_a_key,
    envoy_ends_a_websocket_after_the_maximum,
];

/// Any client can forge a preflight, and not every API looks at the method before it answers with
/// data.
fn preflight_without_a_key_is_refused() {
    let (_stage, gate, key) = gate_and_key("preflight");
    for kind in Kind::ALL {
        let proxy = Proxy::start(kind, gate.plain_address());
        proxy.upstream.take();
        for path in ["/", "/orders", "/reports"] {
            let answer = proxy.ask(preflight(path));
            assert_refused(&proxy, &answer, 401, "MISSING");
        }
        let answer = proxy.ask(preflight("/orders").bearer(&key));
        assert_eq!(answer.status, 200, "{kind}: with a key: {answer:?}");
    }
}

fn uncommented_preflight_passes_without_a_key() {
    let (_stage, gate, key) = gate_and_key("uncommented-preflight");
    for kind in Kind::ALL {
        let starts: &[&str] = match kind {
            Kind::EnvoyGrpc | Kind::EnvoyHttp => &["- match:"],
            Kind::Nginx => &["map \"$request_method,", "if ($claviger_preflight)"],
            Kind::HaProxy => &["http-request set-var(txn.claviger_allows)"],
            Kind::Caddy => &["@preflight {", "route @preflight {"],
            Kind::Traefik => &["preflight:", "without-identity:"],
        };
        let relay = Relay::to(gate.plain_address());
        let proxy = Proxy::start_edited(kind, relay.address, |text| uncomment(&text, starts));
        proxy.upstream.take();
        preflight_passes_without_a_key(&proxy);
        other_options_requests_are_asked(&proxy, &key);
        relay.cut();
        let answer = proxy.ask(preflight("/reports"));
        assert_eq!(answer.status, 200, "{kind}: no gate: {answer:?}");
    }
}

/// The API hears nothing that only the gate says.
fn preflight_passes_without_a_key(proxy: &Proxy) {
    let kind = proxy.kind;
    for path in ["/", "/orders", "/reports"] {
        let mut question = preflight(path)
            .bearer("clv_any")
            .header("x-api-key", "clv_any");
        for name in forged::names() {
            // Where nobody asks the gate, nginx and Traefik drop headers by their names.
            let dropped = !matches!(kind, Kind::Nginx | Kind::Traefik) || forged::is_ours(&name);
            if dropped {
                question = question.header(&name, "forged");
            }
        }
        let answer = proxy.ask(question);
        assert_eq!(answer.status, 200, "{kind}: {path}: {answer:?}");
        let seen = proxy.upstream.take();
        assert_eq!(seen.len(), 1, "{kind}: {path}");
        let seen = &seen[0];
        assert_eq!((&*seen.method, &*seen.path), ("OPTIONS", path), "{kind}");
        assert_eq!(seen.header("origin"), Some("https://app.example"));
        for absent in ["clv_any", "forged"] {
            let text = format!("{seen:?}");
            assert!(!text.contains(absent), "{kind}: {path}: {text}");
        }
    }
    // Nor does it begin another protocol. Envoy refuses that.
    let upgrade = preflight("/reports")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-key", WEBSOCKET_KEY);
    let answer = proxy.ask(upgrade);
    assert!(matches!(answer.status, 200 | 403), "{kind}: {answer:?}");
    for seen in proxy.upstream.take() {
        assert_eq!(seen.header("upgrade"), None, "{kind}: {seen:?}");
    }
}

/// What is no preflight needs a key like any request.
fn other_options_requests_are_asked(proxy: &Proxy, key: &str) {
    let (origin, method) = ("origin", "access-control-request-method");
    let get = || Question::get("/orders");
    let options = || get().method("OPTIONS", "");
    for question in [
        options(),
        options().header(origin, "https://app.example"),
        options().header(method, "GET"),
        get()
            .header(origin, "https://app.example")
            .header(method, "GET"),
        get()
            .method("POST", "an order")
            .header(origin, "https://app.example")
            .header(method, "GET"),
    ] {
        let answer = proxy.ask(question);
        assert_refused(proxy, &answer, 401, "MISSING");
    }
    let answer = proxy.ask(options().bearer(key));
    assert_eq!(answer.status, 200, "{}: {answer:?}", proxy.kind);
    let seen = &proxy.upstream.take()[0];
    assert_eq!(seen.header("x-claviger-name"), Some("k"), "{}", proxy.kind);
    assert_eq!(seen.header("authorization"), None, "{}", proxy.kind);
}

pub(super) fn websocket_passes_with_a_good_key_only(proxy: &Proxy, keys: &Keys) {
    let kind = proxy.kind;
    let good = Question::get("/reports/live").bearer(&keys.good);
    let mut socket = good
        .open_websocket(proxy.address)
        .unwrap_or_else(|answer| panic!("{kind}: {answer:?}\n{}", proxy.log()));
    let seen = proxy.upstream.take();
    assert_identity(proxy, &seen[0], keys);
    assert_eq!(socket.echo("hello"), "hello", "{kind}");
    for (key, status, code) in [
        (&keys.narrow, 403, "INSUFFICIENT_PERMISSIONS"),
        (&keys.revoked, 401, "REVOKED"),
    ] {
        let answer = Question::get("/reports/live")
            .bearer(key)
            .open_websocket(proxy.address)
            .expect_err("no WebSocket");
        assert_refused(proxy, &answer, status, code);
    }
}

/// Over h2c a client would speak to the API past the proxy: any path, any identity.
pub(super) fn no_other_upgrade_reaches_the_api(proxy: &Proxy, keys: &Keys) {
    for upgrades in [
        &["h2c"][..],
        &["h2c", "websocket"],
        &["websocket", "h2c"],
        &["h2c, websocket"],
    ] {
        let mut question = Question::get("/orders")
            .bearer(&keys.narrow)
            .header("connection", "Upgrade, HTTP2-Settings")
            .header("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA");
        for upgrade in upgrades {
            question = question.header("upgrade", upgrade);
        }
        let _ = proxy.ask(question);
        for seen in proxy.upstream.take() {
            let text = format!("{:?}", seen.headers.get_all("upgrade"));
            assert!(
                !text.contains("h2c"),
                "{}: {upgrades:?}: {seen:?}",
                proxy.kind
            );
        }
    }
}

fn preflight(path: &str) -> Question {
    Question::get(path)
        .method("OPTIONS", "")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "PUT")
        .header("access-control-request-headers", "authorization")
}

/// A key that is revoked meanwhile has its WebSocket until then, and no longer.
fn envoy_ends_a_websocket_after_the_maximum() {
    let (_stage, gate, key) = gate_and_key("long-websocket");
    for kind in [Kind::EnvoyGrpc, Kind::EnvoyHttp] {
        let proxy = Proxy::start_edited(kind, gate.plain_address(), |text| {
            replaced(
                &text,
                "max_stream_duration: 3600s",
                "max_stream_duration: 2s",
            )
        });
        let mut socket = Question::get("/orders")
            .bearer(&key)
            .open_websocket(proxy.address)
            .unwrap_or_else(|answer| panic!("{kind}: {answer:?}\n{}", proxy.log()));
        assert_eq!(socket.echo("hello"), "hello", "{kind}");
        socket.wait_closed();
    }
}
