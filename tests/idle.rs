//! Idle means idle: what issuing costs, and that nothing is written when nothing has changed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use claviger::api::{ConditionType, Phase};

use crate::stories;
use crate::support::cluster::Cluster;
use crate::support::operator::{Builder, Operator};
use crate::support::proxy::{Call, Matcher, Proxy, Verb};
use crate::support::stage::{Stage, condition};
use crate::support::wait::{self, LIMIT};

stories![
    a_thousand_keys_cost_three_writes_each_and_nothing_when_idle,
    a_restart_and_an_upgrade_write_nothing,
];

/// Incidents 32 and 5: 1,000 keys cost three writes each, four where the controller adds the finalizer, and no read of single
/// objects; then a restart and ten forced re-lists write nothing but Leases and read nothing but lists and watches.
fn a_thousand_keys_cost_three_writes_each_and_nothing_when_idle() {
    const KEYS: usize = 1_000;
    an_older_api_server_costs_a_write_more();
    let cluster = Cluster::own();
    let proxy = cluster.proxy();
    let stage = Stage::on(&cluster, "idle");

    stage.declare_many("key", KEYS, "{}");
    proxy.reset();
    let begun = Instant::now();
    let operator = leader(&stage, &proxy).start_ready();
    stage.wait_many(KEYS, Phase::Active);
    let took = begun.elapsed();
    come_to_rest(&proxy);
    let expected = [
        ("create secrets", KEYS),
        ("update apikeys/status", 2 * KEYS),
    ];
    assert_eq!(
        work(&proxy),
        counts(&expected),
        "announce, deliver, activate: they are born with the finalizer"
    );
    assert_eq!(reads(&proxy), BTreeMap::new(), "no reads of single objects");
    assert_eq!(stage.secrets_agree(), KEYS);
    let told = proxy.count(|call| call.is_mutation() && call.resource == "events");
    let leases = proxy.count(|call| call.is_mutation() && call.resource == "leases");
    println!(
        "{KEYS} keys in {took:.1?}: {:?}, events {told}, leases {leases}",
        work(&proxy)
    );
    println!("resident: {} KiB with {KEYS} keys", operator.resident_kib());
    assert!(told <= KEYS, "an event for each key at most: {told}");

    assert!(operator.stop().success());
    proxy.reset();
    let operator = leader(&stage, &proxy).start_ready();
    wait_looked_at(&operator, 1_000.0);
    come_to_rest(&proxy);
    assert_idle(&proxy, "a restart");
    for _ in 0..10 {
        for resource in ["apikeys", "secrets"] {
            let lists = || proxy.count(|call| Matcher::call(Verb::List, resource).matches(call));
            let before = lists();
            wait::until_true("it watches", || proxy.open_watches(resource) > 0);
            proxy.expire_watches(resource);
            wait::until_true("it lists anew", || lists() > before);
        }
    }
    come_to_rest(&proxy);
    assert_idle(&proxy, "ten re-lists");
    assert_eq!(
        operator.metric("claviger_keys{phase=\"Active\"}"),
        Some(1_000.0)
    );
    println!("a restart and ten re-lists: {:?}", all(&proxy));
}

/// Before 1.36 the API server adds no finalizer; a controller that uses none writes no more than it must, either.
fn an_older_api_server_costs_a_write_more() {
    const KEYS: usize = 100;
    let cluster = Cluster::own_without_finalizer_policy();
    let expected = [
        ("patch apikeys", KEYS),
        ("create secrets", KEYS),
        ("update apikeys/status", 2 * KEYS),
    ];
    for (name, flag, expected) in [
        ("older", "--finalizer=true", &expected[..]),
        ("plain", "--finalizer=false", &expected[1..]),
    ] {
        let (stage, proxy) = (Stage::on(&cluster, name), cluster.proxy());
        stage.declare_many("key", KEYS, "{}");
        let operator = leader(&stage, &proxy).args(&[flag]).start_ready();
        stage.wait_many(KEYS, Phase::Active);
        come_to_rest(&proxy);
        assert_eq!(
            work(&proxy),
            counts(expected),
            "{name}: finalizer if any, announce, deliver, activate"
        );
        assert_eq!(
            reads(&proxy),
            BTreeMap::new(),
            "{name}: no reads of single objects"
        );
        assert!(operator.stop().success());
    }
}

fn leader<'a>(stage: &Stage, proxy: &'a Proxy) -> Builder<'a> {
    stage.allow_leases();
    let namespace = format!("--lease-namespace={}", stage.namespace);
    stage
        .operator_via(proxy)
        .args(&["--leader-election=true", &namespace])
}

/// Waits until every key was looked at.
fn wait_looked_at(operator: &Operator, keys: f64) {
    wait::until("every key was looked at", || {
        let looked = operator
            .metric("claviger_reconciles_total{outcome=\"Unchanged\"}")
            .unwrap_or_default();
        if looked >= keys {
            Ok(())
        } else {
            Err(format!("{looked}"))
        }
    });
}

fn come_to_rest(proxy: &Proxy) {
    let but_leases = |call: &Call| call.resource != "leases";
    assert!(
        proxy.wait_quiet(Duration::from_secs(1), LIMIT, but_leases),
        "the controller comes to rest"
    );
}

fn assert_idle(proxy: &Proxy, after: &str) {
    assert_eq!(work(proxy), BTreeMap::new(), "{after}: nothing is written");
    let events = proxy.count(|call| call.is_mutation() && call.resource == "events");
    assert_eq!(events, 0, "{after}: and nothing is told");
    assert_eq!(
        reads(proxy),
        BTreeMap::new(),
        "{after}: and nothing is read but lists and watches"
    );
}

/// What was asked to be changed, by kind, Leases and events left aside.
fn work(proxy: &Proxy) -> BTreeMap<String, usize> {
    tally(proxy, |call| Matcher::work().matches(call))
}

/// What was read of single objects, and dry runs, the Lease left aside.
fn reads(proxy: &Proxy) -> BTreeMap<String, usize> {
    let single = |call: &Call| {
        call.verb == Verb::Get && !call.resource.is_empty() && call.resource != "leases"
    };
    tally(proxy, |call| single(call) || call.dry_run)
}

fn all(proxy: &Proxy) -> BTreeMap<String, usize> {
    tally(proxy, |_| true)
}

fn tally(proxy: &Proxy, counted: impl Fn(&Call) -> bool) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for record in proxy.calls().iter().filter(|record| counted(&record.call)) {
        *counts
            .entry(format!("{} {}", record.call.verb, record.call.target()))
            .or_default() += 1;
    }
    counts
}

fn counts(of: &[(&str, usize)]) -> BTreeMap<String, usize> {
    of.iter()
        .map(|(kind, count)| ((*kind).to_owned(), *count))
        .collect()
}

/// Incidents 5 and 32: keys in every state; a restart, and another version of the controller with other settings, write nothing.
fn a_restart_and_an_upgrade_write_nothing() {
    let stage = Stage::new("upgrade");
    stage.declare_many("plain", 30, "{}");
    stage.declare_many("lasting", 5, "{\"expiry\": {\"after\": \"90d\"}}");
    stage.declare_many("short", 5, "{\"expiry\": {\"after\": \"1s\"}}");
    stage.declare_many("revoked", 5, "{\"revoked\": true}");
    let proxy = stage.cluster.proxy();
    let operator = stage.operator_via(&proxy).start_ready();
    stage.wait_many(35, Phase::Active);
    stage.wait_many(5, Phase::Expired);
    stage.wait_many(5, Phase::Revoked);
    stage.kubectl(&["delete", "secret", "plain-0"]);
    stage.wait_reason("plain-0", ConditionType::Delivered, "SecretMissing");
    for number in 0..5 {
        stage.wait_over(&format!("short-{number}"));
    }
    come_to_rest(&proxy);
    let everything = || serde_json::to_string(&(stage.apikeys(), stage.secrets())).unwrap();
    let before = everything();
    assert!(operator.stop().success());
    let upgrades: [&[&str]; 3] = [
        &[],
        &[
            "--concurrency=2",
            "--principal-domain=keys.example.com",
            "--announce-grace=1m",
        ],
        &["--finalizer=false"],
    ];
    for arguments in upgrades {
        proxy.reset();
        let operator = stage.operator_via(&proxy).args(arguments).start_ready();
        wait::until("it has looked at every key", || {
            let looked = operator
                .metric("claviger_reconcile_duration_seconds_count")
                .unwrap_or_default();
            if looked >= 45.0
                && operator
                    .metric("claviger_objects_waiting")
                    .is_some_and(|waiting| waiting <= 1.0)
            {
                Ok(())
            } else {
                Err(operator.metrics())
            }
        });
        come_to_rest(&proxy);
        assert_eq!(
            proxy.mutations().len(),
            0,
            "{arguments:?}: {:?}",
            proxy.mutations()
        );
        let read: Vec<_> = proxy
            .calls()
            .into_iter()
            .filter(|record| record.call.verb == Verb::Get)
            .collect();
        // A key may have ended before it could be said that it was delivered.
        let is_recorded = |name: &str| {
            condition(&stage.status(name), ConditionType::Delivered).starts_with("True")
        };
        let of_others = read
            .iter()
            .filter(|record| record.call.name.as_deref().is_some_and(is_recorded));
        assert_eq!(
            of_others.count(),
            0,
            "only what is not as recorded is read: {read:?}"
        );
        assert_eq!(
            condition(&stage.status("plain-0"), ConditionType::Delivered),
            "False/SecretMissing"
        );
        assert!(operator.stop().success());
    }
    assert_eq!(
        everything(),
        before,
        "nothing was written, not even an event's worth"
    );
}
