//! What every proxy must make of the gate's answers: what the client gets, and what the API behind it sees.

use std::net::SocketAddr;

use super::relay::Relay;
use super::{browsers, closed, forged, spellings};
use crate::support::client::{Answer, Question};
use crate::support::proxies::{Kind, Proxy};
use crate::support::upstream::Seen;

/// The audience that the examples ask for.
pub(crate) const AUDIENCE: &str = "invoices-api";
/// The permission that every path asks for but those under `/orders`.
pub(crate) const PERMISSION: &str = "invoices:read";

/// One key for each verdict.
pub(crate) struct Keys {
    /// For [`AUDIENCE`], with [`PERMISSION`].
    pub(crate) good: String,
    /// For [`AUDIENCE`], without [`PERMISSION`].
    pub(crate) narrow: String,
    /// For [`AUDIENCE`], with so many permissions that they are cut at 4 KiB.
    pub(crate) crowded: String,
    /// For another audience.
    pub(crate) elsewhere: String,
    pub(crate) expired: String,
    pub(crate) revoked: String,
    /// Replaced, and its overlap is over.
    pub(crate) rotated: String,
    /// Well formed, and nobody's.
    pub(crate) unknown: String,
    /// All that is said about `good`: header and value, each `x-claviger-*`.
    pub(crate) identity: Vec<(&'static str, String)>,
}

/// How a request is refused: the key it brings, the path, the status, the code, and a part of `WWW-Authenticate`.
type Refusal<'a> = (
    Option<&'a str>,
    &'static str,
    u16,
    &'static str,
    &'static str,
);

/// Puts a proxy before an API, and goes through every verdict. Returns what the proxy wrote meanwhile.
pub(crate) fn told(kind: Kind, gate: SocketAddr, keys: &Keys) -> String {
    let relay = Relay::to(gate);
    let proxy = Proxy::start(kind, relay.address);
    proxy.upstream.take();
    who_may_passes(&proxy, keys);
    who_may_not_is_told_why(&proxy, keys);
    two_keys_are_none(&proxy, keys);
    forged::nobody_says_who_they_are(&proxy, keys);
    spellings::report_needs_its_permission_in_every_spelling(&proxy, keys);
    spellings::only_listed_paths_need_less(&proxy, keys);
    browsers::websocket_passes_with_a_good_key_only(&proxy, keys);
    browsers::no_other_upgrade_reaches_the_api(&proxy, keys);
    much_about_a_key_fits(&proxy, keys);
    // Hundreds of questions; HAProxy may keep one connection for each of its threads.
    assert!(
        relay.connections() <= 10,
        "{kind} keeps its connections to the gate: {}",
        relay.connections()
    );
    relay.cut();
    for path in ["/", "/orders"] {
        let answer = proxy.ask(Question::get(path).bearer(&keys.good));
        assert_eq!(
            answer.status,
            closed::STATUS_WITHOUT_A_GATE[kind as usize],
            "{kind}: the gate has gone: {answer:?}"
        );
        assert!(
            proxy.upstream.take().is_empty(),
            "{kind}: the gate has gone, and {path} reached the API"
        );
    }
    proxy.log()
}

/// A good key passes, wherever it stands and whatever is asked; the API learns whose it is, and never the key.
fn who_may_passes(proxy: &Proxy, keys: &Keys) {
    let good = keys.good.as_str();
    let questions = [
        ("GET", "/", Question::get("/").bearer(good)),
        (
            "GET",
            "/orders/7?page=2&q=a%20b",
            Question::get("/orders/7?page=2&q=a%20b").header("x-api-key", good),
        ),
        (
            "POST",
            "/orders",
            Question::get("/orders")
                .method("POST", "an order")
                .header("X-API-Key", good),
        ),
        (
            "PUT",
            "/reports",
            Question::get("/reports")
                .method("PUT", "a report")
                .bearer(good),
        ),
        (
            "DELETE",
            "/reports/7?x=1",
            Question::get("/reports/7?x=1")
                .method("DELETE", "")
                .bearer(good),
        ),
        // What a cache or a download asks is asked of the API, not of the gate.
        (
            "GET",
            "/conditional",
            Question::get("/conditional")
                .bearer(good)
                .header("if-none-match", "*")
                .header("range", "bytes=0-0"),
        ),
    ];
    for (method, path, question) in questions {
        let answer = proxy.ask(question);
        assert_eq!(
            answer.status,
            200,
            "{}: {method} {path}: {answer:?}\n{}",
            proxy.kind,
            proxy.log()
        );
        assert_eq!(
            answer.header("x-claviger-code"),
            None,
            "{}: a client learns nothing about its key",
            proxy.kind
        );
        let seen = proxy.upstream.take();
        assert_eq!(seen.len(), 1, "{}: {method} {path}: {seen:?}", proxy.kind);
        let seen = &seen[0];
        assert_eq!(
            (seen.method.as_str(), seen.path.as_str()),
            (method, path),
            "{}",
            proxy.kind
        );
        assert_eq!(
            seen.body.is_empty(),
            !matches!(method, "POST" | "PUT"),
            "{}: the body: {seen:?}",
            proxy.kind
        );
        assert_identity(proxy, seen, keys);
        assert!(
            !format!("{seen:?}").contains(good),
            "{}: the key reached the API: {seen:?}",
            proxy.kind
        );
    }
    if speaks_plain_h2(proxy.kind) {
        let answer = Question::get("/h2?x=1").bearer(good).ask_h2(proxy.address);
        assert_eq!(
            answer.map(|answer| answer.status),
            Ok(200),
            "{}: HTTP/2",
            proxy.kind
        );
        let seen = proxy.upstream.take();
        assert_eq!(seen[0].path, "/h2?x=1", "{}", proxy.kind);
        assert_identity(proxy, &seen[0], keys);
    }
}

/// The others speak HTTP/2 over TLS only.
pub(super) fn speaks_plain_h2(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::EnvoyGrpc | Kind::EnvoyHttp | Kind::HaProxy | Kind::Traefik
    )
}

/// Each verdict has its status and code, and the API hears of none.
fn who_may_not_is_told_why(proxy: &Proxy, keys: &Keys) {
    let (invalid, scope) = ("error=\"invalid_token\"", "error=\"insufficient_scope\"");
    let realm = "Bearer realm=\"invoices-api\"";
    let refusals: [Refusal<'_>; 12] = [
        (None, "/", 401, "MISSING", realm),
        (None, "/orders", 401, "MISSING", realm),
        (Some("no-key-at-all"), "/", 401, "MALFORMED", invalid),
        (Some(&keys.unknown), "/", 401, "NOT_FOUND", invalid),
        (Some(&keys.expired), "/", 401, "EXPIRED", invalid),
        (Some(&keys.revoked), "/", 401, "REVOKED", invalid),
        (Some(&keys.rotated), "/", 401, "ROTATED", invalid),
        (Some(&keys.rotated), "/reports", 401, "ROTATED", invalid),
        (Some(&keys.elsewhere), "/orders", 403, "WRONG_AUDIENCE", ""),
        (
            Some(&keys.narrow),
            "/",
            403,
            "INSUFFICIENT_PERMISSIONS",
            scope,
        ),
        (
            Some(&keys.narrow),
            "/reports",
            403,
            "INSUFFICIENT_PERMISSIONS",
            scope,
        ),
        (
            Some(&keys.narrow),
            "/reports/7?x=1",
            403,
            "INSUFFICIENT_PERMISSIONS",
            scope,
        ),
    ];
    for (key, path, status, code, challenge) in refusals {
        for name in ["authorization", "x-api-key"] {
            for method in ["GET", "POST"] {
                let mut question = Question::get(path)
                    .method(method, if method == "POST" { "an order" } else { "" });
                if let Some(key) = key {
                    let scheme = if name == "authorization" {
                        "Bearer "
                    } else {
                        ""
                    };
                    question = question.header(name, &format!("{scheme}{key}"));
                }
                let answer = proxy.ask(question);
                assert_refused(proxy, &answer, status, code);
                let said = answer.header("www-authenticate").unwrap_or_default();
                assert!(
                    said.contains(challenge),
                    "{}: {code}: {answer:?}",
                    proxy.kind
                );
                assert!(
                    status != 401 || said.starts_with(realm),
                    "{}: {code}: {answer:?}",
                    proxy.kind
                );
            }
        }
    }
    // The key that lacks a permission is good where none is asked for.
    for path in [
        "/orders",
        "/Orders/",
        "/orders/7?x=/../reports",
        "/orders/2026-11/a_b.pdf",
    ] {
        let answer = proxy.ask(Question::get(path).bearer(&keys.narrow));
        assert_eq!(answer.status, 200, "{}: {path}: {answer:?}", proxy.kind);
        assert_eq!(proxy.upstream.take()[0].path, path, "{}", proxy.kind);
    }
}

/// Nobody picks one of two keys.
fn two_keys_are_none(proxy: &Proxy, keys: &Keys) {
    let (good, narrow) = (keys.good.as_str(), keys.narrow.as_str());
    for question in [
        Question::get("/").bearer(good).header("x-api-key", narrow),
        Question::get("/")
            .header("x-api-key", narrow)
            .header("x-api-key", good),
        Question::get("/").bearer(narrow).bearer(good),
    ] {
        let said = format!("{question:?}").matches("authorization").count();
        let answer = proxy.ask(question);
        // nginx itself refuses a request with two Authorization headers from 1.23 on, and Caddy and Envoy may.
        if answer.status != 400 || said != 2 {
            assert_refused(proxy, &answer, 401, "MALFORMED");
        }
        assert!(proxy.upstream.take().is_empty(), "{}", proxy.kind);
    }
}

/// A key of many permissions does not burst anybody's buffers.
fn much_about_a_key_fits(proxy: &Proxy, keys: &Keys) {
    let long = "x".repeat(6000);
    for extra in ["", &long] {
        let answer = proxy.ask(
            Question::get("/orders")
                .bearer(&keys.crowded)
                .header("x-extra", extra)
                .header("x-more", extra),
        );
        assert_eq!(
            answer.status,
            200,
            "{}: {answer:?}\n{}",
            proxy.kind,
            proxy.log()
        );
        let seen = proxy.upstream.take();
        let permissions = seen[0].header("x-claviger-permissions").unwrap_or_default();
        assert!(
            permissions.len() > 3500 && permissions.ends_with("..."),
            "{}: {permissions}",
            proxy.kind
        );
    }
}

pub(super) fn assert_refused(proxy: &Proxy, answer: &Answer, status: u16, code: &str) {
    let kind = proxy.kind;
    assert_eq!(
        (answer.status, answer.header("x-claviger-code")),
        (status, Some(code)),
        "{kind}: {answer:?}\n{}",
        proxy.log()
    );
    // nginx shows its own page.
    if kind != Kind::Nginx {
        assert_eq!(
            answer.header("content-type"),
            Some("application/json"),
            "{kind}: {answer:?}"
        );
        assert_eq!(answer.json()["code"], code, "{kind}: {answer:?}");
        assert_eq!(
            answer.header("cache-control"),
            Some("no-store"),
            "{kind}: {answer:?}"
        );
    }
    let seen = proxy.upstream.take();
    assert!(
        seen.is_empty(),
        "{kind}: a refused request reached the API: {seen:?}"
    );
}

pub(super) fn assert_identity(proxy: &Proxy, seen: &Seen, keys: &Keys) {
    let said: Vec<_> = seen
        .headers
        .keys()
        .filter(|name| forged::may_be_taken_for_ours(name.as_str()))
        .collect();
    assert_eq!(said.len(), keys.identity.len(), "{}: {said:?}", proxy.kind);
    for (name, value) in &keys.identity {
        assert_eq!(
            seen.header(name),
            Some(value.as_str()),
            "{}: {name}: {seen:?}",
            proxy.kind
        );
    }
    for credential in ["authorization", "x-api-key"] {
        assert_eq!(
            seen.header(credential),
            None,
            "{}: {credential} reached the API",
            proxy.kind
        );
    }
}
