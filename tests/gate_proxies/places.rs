//! Keys in other places than the examples', at proxies whose files say so: what the API sees of them.

use super::forged;
use super::verdicts::AUDIENCE;
use crate::stories;
use crate::support::client::Question;
use crate::support::gate::Gate;
use crate::support::proxies::{Kind, Proxy};
use crate::support::stage::Stage;

stories![
    envoy_over_grpc_takes_keys_out_of_queries_and_cookies,
    the_files_take_keys_out_of_queries_and_cookies,
    a_permission_with_a_slash_is_asked_for,
    nginx_location_with_its_own_header_keeps_the_identity,
    forgotten_include_forges_no_identity,
];

/// A gate, and a key that passes.
pub(super) fn gate_and_key(name: &str) -> (Stage, Gate, String) {
    let stage = Stage::new(name);
    {
        let _operator = stage.operator().start_ready();
        stage.declare(
            "k",
            &format!("{{audiences: [{AUDIENCE}], permissions: [files/read]}}"),
        );
        stage.wait_issued("k");
    }
    let key = stage.mounted("k")["api-key"].clone();
    let gate = Gate::start(&stage);
    (stage, gate, key)
}

pub(super) fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the example has no {from:?} any more");
    text.replace(from, to)
}

fn envoy_over_grpc_takes_keys_out_of_queries_and_cookies() {
    let (_stage, gate, key) = gate_and_key("elsewhere-in-envoy");
    let proxy = Proxy::start_edited(Kind::EnvoyGrpc, gate.plain_address(), |text| {
        let credentials = "audience: invoices-api, credentials: \"query:api_key,cookie:api_key\"";
        replaced(&text, "audience: invoices-api", credentials)
    });
    proxy.upstream.take();
    for (asked, arrives) in [
        ("/orders?b=%61&api_key=K&c=1", "/orders?b=%61&c=1"),
        ("/orders?api_key=K", "/orders"),
    ] {
        let answer = proxy.ask(Question::get(&asked.replace('K', &key)));
        assert_eq!(answer.status, 200, "{asked}: {answer:?}\n{}", proxy.log());
        let seen = proxy.upstream.take();
        assert!(
            !format!("{seen:?}").contains(&key),
            "{asked}: the key reached the API: {seen:?}"
        );
        assert_eq!(seen[0].path, arrives, "{asked}");
    }
    // Envoy would look for `api_key` and leave these.
    for asked in [
        "/orders?%61pi_key=K",
        "/orders?b=c&api%5Fkey=K",
        "/orders?api_key=K&%61pi_key=K",
    ] {
        let answer = proxy.ask(Question::get(&asked.replace('K', &key)));
        assert_eq!(
            (answer.status, answer.header("x-claviger-code")),
            (401, Some("MALFORMED")),
            "{asked}: {answer:?}"
        );
        assert!(proxy.upstream.take().is_empty(), "{asked}");
    }
    for (cookie, arrives) in [
        ("a=\"x y\";b; api_key=K ;c=d=e", Some("a=\"x y\";b;c=d=e")),
        ("api_key=K; a=b", Some("a=b")),
        ("api_key=K", None),
    ] {
        let answer =
            proxy.ask(Question::get("/orders").header("cookie", &cookie.replace('K', &key)));
        assert_eq!(answer.status, 200, "{cookie}: {answer:?}\n{}", proxy.log());
        let seen = proxy.upstream.take();
        assert_eq!(seen[0].header("cookie"), arrives, "{cookie}");
    }
}

/// Keys in queries and cookies reach the API over HTTP, and do not where the lines in the files are uncommented.
fn the_files_take_keys_out_of_queries_and_cookies() {
    let (_stage, gate, key) = gate_and_key("elsewhere-in-others");
    for kind in [
        Kind::EnvoyHttp,
        Kind::Nginx,
        Kind::HaProxy,
        Kind::Caddy,
        Kind::Traefik,
    ] {
        for uncommented in [false, true] {
            let proxy = Proxy::start_all_edited(kind, gate.plain_address(), |name, text| {
                let credentials = "audience=invoices-api&credentials=query:api_key,cookie:api_key";
                let text = text
                    .replace("audience=invoices-api", credentials)
                    .replace("{exact: x-api-key}", "{exact: cookie}");
                if uncommented {
                    uncomment(&text, lines_for_other_places(kind, name))
                } else {
                    text
                }
            });
            takes_keys_out(&proxy, &key, uncommented);
        }
    }
}

/// A slash would end the settings in a path: it is written %2F there. Caddy makes %252F of that, which nothing passes.
fn a_permission_with_a_slash_is_asked_for() {
    let (_stage, gate, key) = gate_and_key("slashes");
    for kind in Kind::ALL {
        let written = |name: &str| match kind {
            Kind::EnvoyGrpc => name.to_owned(),
            // To HAProxy a percent sign in a format begins something else.
            Kind::HaProxy => name.replace('/', "%%2F"),
            _ => name.replace('/', "%2F"),
        };
        let questions = match kind {
            Kind::Caddy => vec![("files/read", 403, Some("MISCONFIGURED"))],
            _ => vec![
                ("files/read", 200, None),
                ("files/write", 403, Some("INSUFFICIENT_PERMISSIONS")),
            ],
        };
        for (permission, status, code) in questions {
            let proxy = Proxy::start_edited(kind, gate.plain_address(), |text| {
                replaced(&text, "invoices:read", &written(permission))
            });
            proxy.upstream.take();
            let answer = proxy.ask(Question::get("/reports").bearer(&key));
            assert_eq!(
                answer.status,
                status,
                "{kind}: {permission}: {answer:?}\n{}",
                proxy.log()
            );
            assert_eq!(
                answer
                    .header("x-claviger-code")
                    .filter(|code| *code != "VALID"),
                code,
                "{kind}: {answer:?}"
            );
        }
    }
}

/// nginx with a location that sets a header of its own, and the line that follows it there.
fn nginx_with_own_location(gate: &Gate, line: &str) -> Proxy {
    Proxy::start_edited(Kind::Nginx, gate.plain_address(), |text| {
        let include = text
            .lines()
            .find(|line| line.trim().starts_with("include "))
            .expect("the include");
        let line = line.replace("INCLUDE", include);
        let own = format!(
            "location /orders/ {{ proxy_set_header X-Real-IP $remote_addr; {line} proxy_pass http://invoices; }}\n\n    location / {{"
        );
        replaced(&text, "location / {", &own)
    })
}

fn nginx_location_with_its_own_header_keeps_the_identity() {
    let (_stage, gate, key) = gate_and_key("own-location");
    let proxy = nginx_with_own_location(&gate, "INCLUDE");
    let answer = proxy.ask(Question::get("/orders/7").bearer(&key));
    assert_eq!(answer.status, 200, "{answer:?}\n{}", proxy.log());
    let seen = &proxy.upstream.take()[0];
    for (name, value) in [
        ("x-real-ip", Some("127.0.0.1")),
        ("x-claviger-name", Some("k")),
        ("x-claviger-permissions", Some("files/read")),
        ("x-claviger-organization", Some("-")),
        ("authorization", None),
    ] {
        assert_eq!(seen.header(name), value, "{name}: {seen:?}");
    }
}

/// The API learns no identity, and never one that a client made up.
fn forgotten_include_forges_no_identity() {
    let (_stage, gate, key) = gate_and_key("forgotten-include");
    let proxy = nginx_with_own_location(&gate, "");
    let ask = || Question::get("/orders/7").bearer(&key);
    let answer = proxy.ask(ask());
    assert_eq!(answer.status, 200, "{answer:?}\n{}", proxy.log());
    assert_eq!(proxy.upstream.take()[0].header("x-claviger-name"), None);
    for name in forged::names().filter(|name| forged::is_ours(name)) {
        let answer = proxy.ask(ask().header(&name, "forged"));
        assert_eq!(answer.status, 401, "{name}: {answer:?}");
        assert!(proxy.upstream.take().is_empty(), "{name}");
    }
}

fn takes_keys_out(proxy: &Proxy, key: &str, uncommented: bool) {
    let kind = proxy.kind;
    proxy.upstream.take();
    for place in ["query", "cookie"] {
        let question = if place == "query" {
            Question::get(&format!("/orders?b=c&api_key={key}&d=e"))
        } else {
            Question::get("/orders?b=c&d=e").header("cookie", &format!("api_key={key}"))
        };
        let answer = proxy.ask(question);
        assert_eq!(
            answer.status,
            200,
            "{kind}: {place}: {answer:?}\n{}",
            proxy.log()
        );
        let seen = proxy.upstream.take();
        // The Caddy that is tested is older than what takes a parameter out, and Traefik has nothing that does.
        let gone =
            uncommented && !(matches!(kind, Kind::Caddy | Kind::Traefik) && place == "query");
        assert_eq!(
            format!("{seen:?}").contains(key),
            !gone,
            "{kind}: {place}: {seen:?}"
        );
        assert!(
            !gone || seen[0].path == "/orders?b=c&d=e",
            "{kind}: {place}: {seen:?}"
        );
    }
}

/// The lines to uncomment where keys stand in queries and cookies.
fn lines_for_other_places(kind: Kind, name: &str) -> &'static [&'static str] {
    match kind {
        _ if name == "claviger.lua" => &[],
        _ if name == "claviger-headers.conf" => &["proxy_set_header Cookie"],
        Kind::EnvoyGrpc => &[],
        Kind::EnvoyHttp => &["- name: envoy.filters.http.header_mutation"],
        Kind::Nginx => &["if ($args"],
        Kind::HaProxy => &["http-request del-header cookie", "http-request set-query"],
        Kind::Caddy => &["request_header -Cookie"],
        Kind::Traefik => &["Cookie: \"\""],
    }
}

/// Uncomments each line that starts so, the lines that are indented below it, and the brace that
/// closes it.
pub(super) fn uncomment(text: &str, starts: &[&str]) -> String {
    for start in starts {
        let count = text.matches(&format!("# {start}")).count();
        assert_eq!(count, 1, "commented lines that start with {start:?}");
    }
    let mut inside = false;
    let lines = text.split('\n').map(|line| {
        let comment = line
            .split_once("# ")
            .filter(|(before, _)| before.trim().is_empty());
        inside = comment.is_some_and(|(_, rest)| {
            starts.iter().any(|start| rest.starts_with(start))
                || inside && rest.starts_with([' ', '\t', '}'])
        });
        match comment {
            Some((indent, rest)) if inside => format!("{indent}{rest}"),
            _ => line.to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}
