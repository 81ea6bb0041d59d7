//! What a client says about itself in the gate's words reaches nobody, in whatever spelling an API may take for them.

use super::verdicts::{Keys, PERMISSION, assert_identity, assert_refused, speaks_plain_h2};
use crate::support::client::Question;
use crate::support::proxies::{Kind, Proxy};

/// The names of headers as the gate and as clients spell them.
const NAMES: [&str; 14] = [
    "x-claviger-roles",
    "X-Claviger-Key-Id",
    "X-CLAVIGER-PERMISSIONS",
    "x-claviger-code",
    "x_claviger_roles",
    "X_Claviger_Roles",
    "x-claviger_roles",
    "x_claviger-roles",
    "x-claviger.key.id",
    "x.claviger-roles",
    "X~Claviger+Roles",
    "X|Claviger'Key-Id",
    "x-claviger-anything",
    "X-Claviger-",
];
/// All that may stand in a header's name beside letters and digits (RFC 9110, section 5.6.2).
const MARKS: &str = "!#$%&'*+-.^_`|~";

/// Names that clients may try: [`NAMES`], and one for each of the [`MARKS`].
pub(super) fn names() -> impl Iterator<Item = String> {
    NAMES.into_iter().map(str::to_owned).chain(
        MARKS
            .chars()
            .map(|mark| format!("X{mark}Claviger{mark}Roles")),
    )
}

/// CGI, WSGI and PHP know letters and digits, and make `_` of all else: to them these are one name.
pub(super) fn may_be_taken_for_ours(name: &str) -> bool {
    name.to_ascii_lowercase()
        .replace(|mark: char| !mark.is_ascii_alphanumeric(), "_")
        .starts_with("x_claviger")
}

/// Whether the gate itself sets a header of this name.
pub(super) fn is_ours(name: &str) -> bool {
    claviger::gate::answer::IDENTITY
        .iter()
        .any(|own| own.as_str().eq_ignore_ascii_case(name))
}

pub(super) fn nobody_says_who_they_are(proxy: &Proxy, keys: &Keys) {
    for name in names() {
        // nginx drops what has a mark in its name, but a dash. What nginx and Traefik cannot drop they show to the gate, which
        // refuses the request.
        let undroppable = match proxy.kind {
            Kind::Nginx => name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
            Kind::Traefik => true,
            _ => false,
        };
        let answer = proxy.ask(
            Question::get("/")
                .bearer(&keys.good)
                .header(&name, "forged")
                .header(&name, "forged, too"),
        );
        let seen = proxy.upstream.take();
        assert!(
            !format!("{seen:?}").contains("forged"),
            "{}: {name}: {seen:?}",
            proxy.kind
        );
        if undroppable {
            assert_refused(proxy, &answer, 401, "MALFORMED");
            let challenge = answer.header("www-authenticate").unwrap_or_default();
            assert!(challenge.contains("x-claviger- headers"), "{challenge}");
            continue;
        }
        assert_eq!(
            (answer.status, seen.len()),
            (200, 1),
            "{}: {name}: {answer:?}",
            proxy.kind
        );
        assert_identity(proxy, &seen[0], keys);
        let answer = proxy.ask(
            Question::get("/reports")
                .bearer(&keys.narrow)
                .header(&name, PERMISSION),
        );
        assert_refused(proxy, &answer, 403, "INSUFFICIENT_PERMISSIONS");
        if speaks_plain_h2(proxy.kind) {
            let answer = Question::get("/")
                .bearer(&keys.good)
                .header(&name, "forged")
                .ask_h2(proxy.address);
            assert_eq!(
                answer.map(|answer| answer.status),
                Ok(200),
                "{}: HTTP/2: {name}",
                proxy.kind
            );
            assert_identity(proxy, &proxy.upstream.take()[0], keys);
        }
    }
    nobody_takes_away_who_they_are(proxy, keys);
    nobody_says_what_they_ask_for(proxy, keys);
}

/// A client may list headers that are not for the API (RFC 9110, section 7.6.1), but not these.
fn nobody_takes_away_who_they_are(proxy: &Proxy, keys: &Keys) {
    for listed in [
        "close, x-claviger-roles, X-Claviger-Key-Id",
        "X-Claviger-Permissions",
    ] {
        let question = Question::get("/")
            .header("connection", "keep-alive")
            .header("connection", listed);
        let mut question = question.bearer(&keys.good);
        // nginx and Traefik would not drop it, and the gate refuses it.
        if !matches!(proxy.kind, Kind::Nginx | Kind::Traefik) {
            question = question.header("x-claviger-roles", "forged");
        }
        let answer = proxy.ask(question);
        assert_eq!(answer.status, 200, "{}: {answer:?}", proxy.kind);
        assert_identity(proxy, &proxy.upstream.take()[0], keys);
    }
}

fn nobody_says_what_they_ask_for(proxy: &Proxy, keys: &Keys) {
    let answer = proxy.ask(
        Question::get("/reports")
            .bearer(&keys.narrow)
            .header("x-original-uri", "/")
            .header("x-original-url", "/")
            .header("x-forwarded-uri", "/")
            .header("x-envoy-original-path", "/")
            .header("x-rewrite-url", "/"),
    );
    assert_refused(proxy, &answer, 403, "INSUFFICIENT_PERMISSIONS");
}
