//! Versions of Envoy that treat the headers of an answer in different ways: the API sees the same behind each.

use super::forged;
use super::places::{gate_and_key, replaced};
use crate::stories;
use crate::support::client::Question;
use crate::support::proxies::{Envoy, Kind, Proxy};

stories![
    envoy_1_36_passes_on_only_the_gates_identity,
    envoy_1_37_passes_on_only_the_gates_identity,
    newest_envoy_passes_on_only_the_gates_identity,
];

fn envoy_1_36_passes_on_only_the_gates_identity() {
    only_the_gates_identity(Envoy::V1_36, "envoy-1-36");
}

fn envoy_1_37_passes_on_only_the_gates_identity() {
    only_the_gates_identity(Envoy::V1_37, "envoy-1-37");
}

fn newest_envoy_passes_on_only_the_gates_identity() {
    only_the_gates_identity(Envoy::Newest, "envoy-newest");
}

fn only_the_gates_identity(envoy: Envoy, name: &str) {
    let (_stage, gate, key) = gate_and_key(name);
    for kind in [Kind::EnvoyGrpc, Kind::EnvoyHttp] {
        for mutation in [true, false] {
            let proxy = Proxy::start_envoy(envoy, kind, gate.plain_address(), |text| {
                let text = match kind {
                    Kind::EnvoyGrpc => replaced(
                        &text,
                        "audience: invoices-api",
                        "audience: invoices-api, credentials: \"bearer,cookie:api_key\"",
                    ),
                    _ => text,
                };
                if mutation {
                    text
                } else {
                    without_mutation(&text)
                }
            });
            proxy.upstream.take();
            forged_headers_are_replaced(&proxy, &key, mutation);
            if kind == Kind::EnvoyGrpc {
                the_cookie_of_the_key_is_taken_out(&proxy, &key);
            }
            // Over HTTP, Envoy 1.37.0 takes all headers but the code from a refusal (envoyproxy/envoy#43043).
            let cut = (envoy, kind) == (Envoy::V1_37, Kind::EnvoyHttp);
            a_refusal_has_each_header_once(&proxy, cut);
        }
    }
}

/// The example without what drops a client's own identity headers before Envoy looks at the request, as control planes write it.
fn without_mutation(text: &str) -> String {
    let (before, rest) = text
        .split_once("          early_header_mutation_extensions:\n")
        .expect("the mutation");
    let end = "regex: \"x[^a-z0-9]claviger[^a-z0-9].*\"}}}\n";
    let (_, after) = rest.split_once(end).expect("its last line");
    format!("{before}{after}")
}

fn forged_headers_are_replaced(proxy: &Proxy, key: &str, mutation: bool) {
    let kind = proxy.kind;
    for name in forged::names() {
        // Over HTTP, Envoy shows the gate no such header: without the mutation, none but the gate's own names is replaced.
        let unseen = kind == Kind::EnvoyHttp && !mutation && !forged::is_ours(&name);
        if unseen {
            continue;
        }
        let question = Question::get("/orders")
            .bearer(key)
            .header(&name, "forged")
            .header(&name, "forged, too");
        let answer = proxy.ask(question.header("x-kept", "kept"));
        assert_eq!(answer.status, 200, "{name}: {answer:?}\n{}", proxy.log());
        let seen = proxy.upstream.take();
        assert!(
            !format!("{seen:?}").contains("forged"),
            "{kind}, mutation {mutation}: {name}: {seen:?}"
        );
        let own = seen[0]
            .headers
            .iter()
            .filter(|(name, _)| forged::may_be_taken_for_ours(name.as_str()));
        assert_eq!(own.count(), 9, "{kind}: {name}: {seen:?}");
        assert_eq!(seen[0].header("x-kept"), Some("kept"), "{kind}: {seen:?}");
    }
}

fn the_cookie_of_the_key_is_taken_out(proxy: &Proxy, key: &str) {
    let cookie = format!("a=b; api_key={key}; c=d");
    let answer = proxy.ask(Question::get("/orders").header("cookie", &cookie));
    assert_eq!(answer.status, 200, "{answer:?}\n{}", proxy.log());
    let seen = proxy.upstream.take();
    assert_eq!(seen[0].header("cookie"), Some("a=b; c=d"), "{seen:?}");
}

fn a_refusal_has_each_header_once(proxy: &Proxy, cut: bool) {
    let answer = proxy.ask(Question::get("/orders").bearer("no-key-at-all"));
    assert_eq!(answer.status, 401, "{answer:?}");
    assert_eq!(answer.json()["code"], "MALFORMED", "{answer:?}");
    let headers = [
        ("x-claviger-code", "MALFORMED"),
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
        ("www-authenticate", "invalid_token"),
    ];
    for (name, part) in headers.into_iter().take(if cut { 1 } else { 4 }) {
        let value = answer.header(name).unwrap_or_default();
        assert!(value.contains(part), "{}: {name}: {answer:?}", proxy.kind);
    }
    assert!(proxy.upstream.take().is_empty(), "{}", proxy.kind);
}
