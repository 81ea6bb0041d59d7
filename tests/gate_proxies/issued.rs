//! Keys that Claviger issued, at the real proxies: every verdict of the gate, and what becomes of it.

use claviger::api::Phase;

use super::verdicts::{self, AUDIENCE, Keys, PERMISSION};
use crate::stories;
use crate::support::client::Question;
use crate::support::gate::Gate;
use crate::support::proxies::{Kind, Proxy};
use crate::support::stage::Stage;
use crate::support::wait;

stories![
    envoy_over_grpc_passes_on_every_verdict,
    envoy_over_http_passes_on_every_verdict,
    nginx_passes_on_every_verdict,
    haproxy_passes_on_every_verdict,
    caddy_passes_on_every_verdict,
    traefik_passes_on_every_verdict,
    a_revoked_key_stops_at_every_proxy,
];

fn envoy_over_grpc_passes_on_every_verdict() {
    every_verdict("envoy-grpc", Kind::EnvoyGrpc);
}

fn envoy_over_http_passes_on_every_verdict() {
    every_verdict("envoy-http", Kind::EnvoyHttp);
}

fn nginx_passes_on_every_verdict() {
    every_verdict("nginx", Kind::Nginx);
}

fn haproxy_passes_on_every_verdict() {
    every_verdict("haproxy", Kind::HaProxy);
}

fn caddy_passes_on_every_verdict() {
    every_verdict("caddy", Kind::Caddy);
}

fn traefik_passes_on_every_verdict() {
    every_verdict("traefik", Kind::Traefik);
}

fn every_verdict(name: &str, kind: Kind) {
    let stage = Stage::new(name);
    let _operator = stage.operator().start_ready();
    let keys = keys(&stage);
    let gate = Gate::start(&stage);
    let log = verdicts::told(kind, gate.plain_address(), &keys);
    stage.cluster.evidence.keep(&kind.to_string(), log);
}

/// Nobody keeps answers: what was allowed a moment ago is asked again.
fn a_revoked_key_stops_at_every_proxy() {
    let stage = Stage::new("revoked-everywhere");
    let _operator = stage.operator().start_ready();
    stage.declare("k", &format!("{{audiences: [{AUDIENCE}]}}"));
    stage.wait_issued("k");
    let key = stage.mounted("k")["api-key"].clone();
    let gate = Gate::start(&stage);
    let proxies = Kind::ALL.map(|kind| Proxy::start(kind, gate.plain_address()));
    let ask = |proxy: &Proxy| proxy.ask(Question::get("/orders").bearer(&key));
    for proxy in &proxies {
        assert_eq!(ask(proxy).status, 200, "{}", proxy.kind);
    }
    stage.patch("apikey/k", r#"{"spec": {"revoked": true}}"#);
    let [first, others @ ..] = &proxies;
    wait::until("the gate knows", || {
        let answer = ask(first);
        if answer.header("x-claviger-code") == Some("REVOKED") {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    });
    // What one proxy was told, all are told.
    for proxy in others {
        let answer = ask(proxy);
        assert_eq!(
            (answer.status, answer.header("x-claviger-code")),
            (401, Some("REVOKED")),
            "{}: {answer:?}",
            proxy.kind
        );
    }
}

/// One key for each verdict, all of them at rest.
fn keys(stage: &Stage) -> Keys {
    let reader = format!("{}-reader", stage.namespace);
    let crowd = format!("{}-crowd", stage.namespace);
    stage.role(&reader, &[PERMISSION]);
    let many: Vec<_> = (0..200)
        .map(|number| format!("invoices/of-a-long-name-{number}:read"))
        .collect();
    stage.role(&crowd, &many.iter().map(String::as_str).collect::<Vec<_>>());
    let usual = format!("audiences: [{AUDIENCE}]");
    let key = |name: &str, spec: &str| {
        stage.declare(name, spec);
        stage.wait_issued(name);
        stage.mounted(name)["api-key"].clone()
    };
    let expired = key("expired", &format!("{{{usual}, expiry: {{after: 10s}}}}"));
    let keys = Keys {
        good: key("good", &format!("{{{usual}, roles: [{reader}]}}")),
        narrow: key(
            "narrow",
            &format!("{{{usual}, permissions: ['invoices:list']}}"),
        ),
        crowded: key("crowded", &format!("{{{usual}, roles: [{crowd}]}}")),
        elsewhere: key(
            "elsewhere",
            &format!("{{audiences: [orders-api], permissions: ['{PERMISSION}']}}"),
        ),
        revoked: key("revoked", &format!("{{{usual}}}")),
        rotated: key(
            "rotated",
            &format!("{{{usual}, rotation: {{overlap: 0s}}}}"),
        ),
        unknown: key("gone", &format!("{{{usual}}}")),
        expired,
        identity: Vec::new(),
    };
    stage.patch("apikey/revoked", r#"{"spec": {"revoked": true}}"#);
    stage.raise("rotated", 1);
    stage.kubectl(&["delete", "apikey", "gone", "--timeout=60s"]);
    stage.wait_rotated("rotated", 1);
    stage.wait_phase("revoked", Phase::Revoked);
    stage.wait_phase("expired", Phase::Expired);
    let status = stage.status("good");
    let identity = [
        ("x-claviger-code", "VALID"),
        (
            "x-claviger-key-id",
            status.key_id.as_deref().expect("an ID"),
        ),
        ("x-claviger-name", "good"),
        ("x-claviger-namespace", stage.namespace.as_str()),
        (
            "x-claviger-principal",
            status.principal.as_deref().expect("a principal"),
        ),
        ("x-claviger-organization", "-"),
        ("x-claviger-roles", reader.as_str()),
        ("x-claviger-permissions", PERMISSION),
        ("x-claviger-version", "1"),
    ];
    Keys {
        identity: identity
            .map(|(name, value)| (name, value.to_owned()))
            .to_vec(),
        ..keys
    }
}
