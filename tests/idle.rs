//! Idle means idle: what issuing costs, and that nothing is written when nothing has changed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use claviger::api::Phase;

use crate::stories;
use crate::support::cluster::Cluster;
use crate::support::operator::{Builder, Operator};
use crate::support::proxy::{Call, Matcher, Proxy, Verb};
use crate::support::stage::Stage;
use crate::support::wait::{self, LIMIT};

stories![a_thousand_keys_cost_three_writes_each_and_nothing_when_idle];

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
    let expected = [("create secrets", KEYS), ("update apikeys/status", 2 * KEYS)];
    assert_eq!(work(&proxy), counts(&expected), "announce, deliver, activate: they are born with the finalizer");
    assert_eq!(reads(&proxy), BTreeMap::new(), "no reads of single objects");
    assert_eq!(stage.secrets_agree(), KEYS);
    let told = proxy.count(|call| call.is_mutation() && call.resource == "events");
    let leases = proxy.count(|call| call.is_mutation() && call.resource == "leases");
    println!("{KEYS} keys in {took:.1?}: {:?}, events {told}, leases {leases}", work(&proxy));
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
    assert_eq!(operator.metric("claviger_keys{phase=\"Active\"}"), Some(1_000.0));
    println!("a restart and ten re-lists: {:?}", all(&proxy));
}

/// Before 1.36 the API server adds no finalizer; a controller that uses none writes no more than it must, either.
fn an_older_api_server_costs_a_write_more() {
    const KEYS: usize = 100;
    let cluster = Cluster::own_without_finalizer_policy();
    let expected = [("patch apikeys", KEYS), ("create secrets", KEYS), ("update apikeys/status", 2 * KEYS)];
    for (name, flag, expected) in [("older", "--finalizer=true", &expected[..]), ("plain", "--finalizer=false", &expected[1..])] {
        let (stage, proxy) = (Stage::on(&cluster, name), cluster.proxy());
        stage.declare_many("key", KEYS, "{}");
        let operator = leader(&stage, &proxy).args(&[flag]).start_ready();
        stage.wait_many(KEYS, Phase::Active);
        come_to_rest(&proxy);
        assert_eq!(work(&proxy), counts(expected), "{name}: finalizer if any, announce, deliver, activate");
        assert_eq!(reads(&proxy), BTreeMap::new(), "{name}: no reads of single objects");
        assert!(operator.stop().success());
    }
}

fn leader<'a>(stage: &Stage, proxy: &'a Proxy) -> Builder<'a> {
    stage.allow_leases();
    let namespace = format!("--lease-namespace={}", stage.namespace);
    stage.operator_via(proxy).args(&["--leader-election=true", &namespace])
}

/// Waits until every key was looked at.
fn wait_looked_at(operator: &Operator, keys: f64) {
    wait::until("every key was looked at", || {
        let looked = operator.metric("claviger_reconciles_total{outcome=\"Unchanged\"}").unwrap_or_default();
        if looked >= keys { Ok(()) } else { Err(format!("{looked}")) }
    });
}

fn come_to_rest(proxy: &Proxy) {
    let but_leases = |call: &Call| call.resource != "leases";
    assert!(proxy.wait_quiet(Duration::from_secs(1), LIMIT, but_leases), "the controller comes to rest");
}

fn assert_idle(proxy: &Proxy, after: &str) {
    assert_eq!(work(proxy), BTreeMap::new(), "{after}: nothing is written");
    let events = proxy.count(|call| call.is_mutation() && call.resource == "events");
    assert_eq!(events, 0, "{after}: and nothing is told");
    assert_eq!(reads(proxy), BTreeMap::new(), "{after}: and nothing is read but lists and watches");
}

/// What was asked to be changed, by kind, Leases and events left aside.
fn work(proxy: &Proxy) -> BTreeMap<String, usize> {
    tally(proxy, |call| Matcher::work().matches(call))
}

/// What was read of single objects, and dry runs, the Lease left aside.
fn reads(proxy: &Proxy) -> BTreeMap<String, usize> {
    let single = |call: &Call| call.verb == Verb::Get && !call.resource.is_empty() && call.resource != "leases";
    tally(proxy, |call| single(call) || call.dry_run)
}

fn all(proxy: &Proxy) -> BTreeMap<String, usize> {
    tally(proxy, |_| true)
}

fn tally(proxy: &Proxy, counted: impl Fn(&Call) -> bool) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for record in proxy.calls().iter().filter(|record| counted(&record.call)) {
        *counts.entry(format!("{} {}", record.call.verb, record.call.target())).or_default() += 1;
    }
    counts
}

fn counts(of: &[(&str, usize)]) -> BTreeMap<String, usize> {
    of.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect()
}
