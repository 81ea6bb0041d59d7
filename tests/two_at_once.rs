//! Two controllers at once: both believe that they lead, or one is frozen while the other takes over.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use claviger::api::{ConditionType, Phase, VersionPhase};
use claviger::controller::leadership::Record as Claim;
use futures::TryStreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher;
use serde_json::json;

use crate::stories;
use crate::support::cluster::runtime;
use crate::support::history::values;
use crate::support::operator::{Builder, Operator};
use crate::support::proxy::{Call, Fault, Hold, Matcher, Proxy, Verb, When};
use crate::support::stage::{Stage, condition};
use crate::support::wait::{self, LIMIT};

stories![
    two_that_both_work_deliver_one_key_each,
    two_that_both_rotate_deliver_one_version_more_for_each_revision,
    a_frozen_leader_is_replaced_and_changes_nothing_when_it_wakes,
    a_leader_frozen_at_work_is_fenced_when_it_wakes,
    a_leader_frozen_between_announcing_and_delivering_delivers_nothing_more,
    a_delivery_that_arrives_after_its_successors_changes_nothing,
    a_delivery_that_arrives_before_its_successors_is_the_one_that_counts,
    a_leader_that_stops_gives_its_lease_back_at_once,
    a_leader_that_stops_finishes_what_it_began,
];

/// Incidents 13: two replicas both believe that they lead: at most one key each, and revocation still lands.
fn two_that_both_work_deliver_one_key_each() {
    const KEYS: usize = 200;
    let stage = Stage::new("both");
    let history = stage.history();
    let proxies = [stage.cluster.proxy(), stage.cluster.proxy()];
    let _operators = proxies
        .each_ref()
        .map(|proxy| stage.operator_via(proxy).start_ready());
    for proxy in &proxies {
        wait::until_true("it watches", || proxy.open_watches("apikeys") > 0);
        proxy.hold_watches("apikeys");
    }
    stage.declare_many("key", KEYS, "{}");
    for proxy in &proxies {
        assert!(
            proxy.wait_stopped_events("apikeys", KEYS as u64, LIMIT),
            "both are about to see all keys"
        );
    }
    for proxy in &proxies {
        proxy.release_watches("apikeys");
    }
    // Some are revoked while both are at it.
    for number in (0..KEYS).step_by(10) {
        stage.patch_fast(
            &format!("key-{number}"),
            json!({ "spec": { "revoked": true } }),
        );
    }
    stage.wait_many(KEYS / 10, Phase::Revoked);
    stage.wait_many(KEYS - KEYS / 10, Phase::Active);
    // And some afterwards.
    for number in (1..KEYS).step_by(10) {
        stage.patch_fast(
            &format!("key-{number}"),
            json!({ "spec": { "revoked": true } }),
        );
    }
    stage.wait_many(2 * KEYS / 10, Phase::Revoked);
    assert!(stage.secrets_agree() >= KEYS - KEYS / 10);
    let announced = |proxy: &Proxy| accepted(proxy, "update apikeys/status");
    let refused = |proxy: &Proxy| {
        proxy
            .calls()
            .iter()
            .filter(|record| record.upstream == Some(409))
            .count()
    };
    for proxy in &proxies {
        assert!(announced(proxy) > 0, "both worked");
    }
    assert!(
        proxies.iter().map(refused).sum::<usize>() > 0,
        "and got into each other's way"
    );
    let states = history.check();
    println!(
        "{states} states; refused as overtaken: {:?}",
        proxies.each_ref().map(refused)
    );
}

/// Incidents 13 and 21: two replicas race for the rotations of many keys: one value more for each revision, whoever wins.
fn two_that_both_rotate_deliver_one_version_more_for_each_revision() {
    const KEYS: usize = 50;
    const REVISIONS: usize = 3;
    let stage = Stage::new("rotate-both");
    let history = stage.history();
    let proxies = [stage.cluster.proxy(), stage.cluster.proxy()];
    let _operators = proxies
        .each_ref()
        .map(|proxy| stage.operator_via(proxy).start_ready());
    stage.declare_many("key", KEYS, "{}");
    stage.wait_many(KEYS, Phase::Active);
    for revision in 1..=REVISIONS {
        for proxy in &proxies {
            assert!(
                proxy.wait_quiet(Duration::from_millis(500), LIMIT, Call::is_mutation),
                "both come to rest"
            );
            proxy.hold_watches("apikeys");
        }
        for number in 0..KEYS {
            stage.raise(&format!("key-{number}"), revision);
        }
        for proxy in &proxies {
            assert!(
                proxy.wait_stopped_events("apikeys", KEYS as u64, LIMIT),
                "both are about to see all of them"
            );
            proxy.reset();
        }
        for proxy in &proxies {
            proxy.release_watches("apikeys");
        }
        for number in 0..KEYS {
            stage.wait_rotated(&format!("key-{number}"), revision);
        }
        let delivered = proxies
            .each_ref()
            .map(|proxy| accepted(proxy, "patch secrets"));
        assert_eq!(
            delivered.iter().sum::<usize>(),
            KEYS,
            "revision {revision}: {delivered:?}"
        );
        let refused = |proxy: &Proxy| {
            proxy
                .calls()
                .iter()
                .filter(|record| record.upstream == Some(409))
                .count()
        };
        let refused = proxies.each_ref().map(refused);
        println!("revision {revision}: delivered {delivered:?}, refused as overtaken {refused:?}");
        assert!(
            refused.iter().sum::<usize>() > 0,
            "they got into each other's way"
        );
    }
    assert_eq!(stage.secrets_agree(), KEYS);
    history.check();
    let values = values(&history.states());
    assert!(
        values.len() == KEYS && values.values().all(|values| values.len() == 1 + REVISIONS),
        "{values:?}"
    );
}

/// Incidents 13 and 5: the leader is frozen, the other takes over without a write to what exists; thawed, the first one ends.
fn a_frozen_leader_is_replaced_and_changes_nothing_when_it_wakes() {
    let stage = Stage::new("frozen");
    let history = stage.history();
    let pair = Pair::new(&stage);
    let (old, new) = pair.start(&stage);
    stage.declare_many("before", 5, "{}");
    stage.wait_many(5, Phase::Active);
    assert_eq!(work(&pair.second), 0, "who stands by writes nothing");

    old.freeze();
    wait_leads(&new);
    let claim = stage.claim();
    assert_eq!(claim.transitions, 1, "the lease has changed hands once");
    stage.declare("after", "{}");
    stage.wait_issued("after");
    assert!(
        pair.second.mutations().iter().all(|record| record
            .call
            .name
            .as_deref()
            .is_none_or(|name| !name.starts_with("before"))),
        "what was issued before is left as it is"
    );

    let before = stage.outcome();
    let thawed = Instant::now();
    old.thaw();
    assert_lost(&old);
    assert!(
        late_work(&pair.first, thawed) <= 1,
        "at most one request was on its way: {:?}",
        pair.first.mutations()
    );
    assert_eq!(stage.outcome(), before, "and it changes nothing");
    assert_eq!(
        stage.claim().holder,
        claim.holder,
        "the lease stays with who took it"
    );
    stage.declare("later", "{}");
    stage.wait_issued("later");
    history.check();
}

/// Incidents 13: the leader is frozen in the middle of its work; one object at a time, so at most one request can be on its way.
fn a_leader_frozen_at_work_is_fenced_when_it_wakes() {
    const KEYS: usize = 60;
    let stage = Stage::new("busy");
    let history = stage.history();
    let pair = Pair::new(&stage);
    let (old, new) = pair.start_with(&stage, &["--concurrency=1"]);
    stage.declare_many("key", KEYS, "{}");
    assert!(
        pair.first
            .wait_for(LIMIT, |record| record.call.verb == Verb::Create
                && record.call.resource == "secrets")
    );
    old.freeze();
    wait_leads(&new);
    stage.wait_many(KEYS, Phase::Active);
    assert!(work(&pair.second) > 0, "something was left to do");

    let before = stage.outcome();
    let thawed = Instant::now();
    old.thaw();
    assert_lost(&old);
    assert!(
        late_work(&pair.first, thawed) <= 1,
        "at most one request was on its way: {:?}",
        pair.first.mutations()
    );
    assert_eq!(stage.outcome(), before, "and it changes nothing");
    assert_eq!(stage.secrets_agree(), KEYS);
    history.check();
}

/// Incidents 13: frozen exactly between announcing and delivering. The other waits the grace period, gives version 1 up and
/// delivers version 2; the first one wakes with a key in its hands and does not deliver it.
fn a_leader_frozen_between_announcing_and_delivering_delivers_nothing_more() {
    let stage = Stage::new("between");
    let history = stage.history();
    let pair = Pair::new(&stage);
    let (old, new) = pair.start(&stage);
    // Before the answer reaches it, however busy the machine is.
    let answer = Matcher::call(Verb::Update, "apikeys/status").ordinal(1);
    let frozen = pair
        .first
        .on(answer, When::After, Fault::call(old.freezer()));
    stage.declare("key", "{}");
    assert!(frozen.fired(LIMIT), "it announces");
    wait_leads(&new);
    let status = stage.wait_issued("key");
    assert_eq!(
        status.version,
        Some(2),
        "what was announced and not delivered is given up, not reused"
    );
    let before = stage.outcome();
    let thawed = Instant::now();
    old.thaw();
    assert_lost(&old);
    assert_eq!(
        late_work(&pair.first, thawed),
        0,
        "{:?}",
        pair.first.mutations()
    );
    assert_eq!(
        accepted(&pair.first, "create secrets"),
        0,
        "the first key never left"
    );
    assert_eq!(stage.outcome(), before);
    history.check();
}

/// Incidents 13: the Secret's POST of a frozen leader arrives when its successor has delivered the next version.
fn a_delivery_that_arrives_after_its_successors_changes_nothing() {
    let stage = Stage::new("late");
    let history = stage.history();
    let pair = Pair::new(&stage);
    let (old, new) = pair.start(&stage);
    let hold = Hold::new();
    pair.first.on(
        Matcher::call(Verb::Create, "secrets"),
        When::Before,
        Fault::Delay(hold.clone()),
    );
    stage.declare("key", "{}");
    assert!(hold.reached(LIMIT), "it delivers");
    old.freeze();
    wait_leads(&new);
    assert_eq!(stage.wait_issued("key").version, Some(2));
    let before = stage.outcome();
    hold.release();
    assert!(
        pair.first
            .wait_for(LIMIT, |record| record.call.verb == Verb::Create
                && record.upstream == Some(409)),
        "it arrives"
    );
    assert_eq!(stage.outcome(), before, "and the name is taken");
    let thawed = Instant::now();
    old.thaw();
    assert_lost(&old);
    assert_eq!(
        late_work(&pair.first, thawed),
        0,
        "{:?}",
        pair.first.mutations()
    );
    assert_eq!(stage.outcome(), before);
    history.check();
}

/// Incidents 13: the Secret's POST of a frozen leader arrives when its successor has announced the next version and not yet
/// delivered it. Version 1 is still listed, so its key is the one that counts; version 2 is never delivered.
fn a_delivery_that_arrives_before_its_successors_is_the_one_that_counts() {
    let stage = Stage::new("first");
    let history = stage.history();
    let pair = Pair::new(&stage);
    let (old, new) = pair.start(&stage);
    let (first, second) = (Hold::new(), Hold::new());
    let create = || Matcher::call(Verb::Create, "secrets");
    pair.first
        .on(create(), When::Before, Fault::Delay(first.clone()));
    pair.second
        .on(create(), When::Before, Fault::Delay(second.clone()));
    stage.declare("key", "{}");
    assert!(first.reached(LIMIT), "it delivers");
    old.freeze();
    wait_leads(&new);
    assert!(
        second.reached(LIMIT),
        "version 1 is given up and version 2 about to be delivered"
    );
    let listed: Vec<_> = stage
        .status("key")
        .versions
        .iter()
        .map(|version| (version.version, version.phase))
        .collect();
    assert_eq!(
        listed,
        [(1, VersionPhase::Announced), (2, VersionPhase::Announced)],
        "gates know both"
    );
    first.release();
    wait::until_true("the late Secret lands", || stage.secret("key").is_some());
    second.release();
    let status = stage.wait_issued("key");
    assert_eq!(status.version, Some(1), "what landed first counts");
    assert_eq!(
        condition(&status, ConditionType::Delivered),
        "True/Delivered"
    );
    assert_eq!(accepted(&pair.second, "create secrets"), 0);
    let before = stage.outcome();
    old.thaw();
    assert_lost(&old);
    assert_eq!(stage.outcome(), before);
    history.check();
}

/// Incidents 5 and 13: a leader that is asked to stop empties the lease, and the other need not wait for its term, which is
/// longer than any story.
fn a_leader_that_stops_gives_its_lease_back_at_once() {
    let stage = Stage::new("release");
    let pair = Pair::new(&stage);
    let (old, new) = pair.start_with(&stage, &["--lease-duration=1h", "--renew-deadline=30m"]);
    stage.declare("before", "{}");
    stage.wait_issued("before");
    let first = stage.claim().holder;
    let claims = stage.claims();
    assert!(old.stop().success());
    wait_leads(&new);
    let second = stage.claim().holder;
    let seen = wait::until("the whole way of the lease is recorded", || {
        let mut holders: Vec<_> = claims
            .lock()
            .unwrap()
            .iter()
            .map(|claim: &Claim| claim.holder.clone())
            .collect();
        holders.dedup();
        if holders.last() == Some(&second) {
            Ok(holders)
        } else {
            Err(format!("{holders:?}"))
        }
    });
    assert_eq!(
        seen,
        [first, None, second],
        "held, empty, held by the other"
    );
    stage.declare("after", "{}");
    stage.wait_issued("after");
    assert_eq!(stage.claim().transitions, 1);
}

/// Incidents 1 and 13: a leader that is asked to stop while a delivery is under way finishes it before it gives the lease back.
fn a_leader_that_stops_finishes_what_it_began() {
    let stage = Stage::new("drain");
    let history = stage.history();
    let pair = Pair::new(&stage);
    let (old, new) = pair.start(&stage);
    let hold = Hold::new();
    pair.first.on(
        Matcher::call(Verb::Create, "secrets"),
        When::After,
        Fault::Delay(hold.clone()),
    );
    stage.declare("key", "{}");
    assert!(hold.reached(LIMIT), "it delivers");
    let asked = Command::new("kill")
        .arg("-TERM")
        .arg(old.pid().to_string())
        .status()
        .unwrap();
    assert!(asked.success());
    wait::until_true("it has heard", || old.logs().contains("asked to stop"));
    hold.release();
    assert!(old.ended().success(), "{}", old.logs());
    wait_leads(&new);
    assert_eq!(stage.wait_issued("key").version, Some(1));
    assert_eq!(
        accepted(&pair.first, "update apikeys/status"),
        2,
        "announced and activated by the one that began"
    );
    assert_eq!(work(&pair.second), 0, "nothing was left to do");
    history.check();
}

/// Two controllers that stand for the same lease, each behind a proxy of its own.
struct Pair {
    first: Proxy,
    second: Proxy,
}

impl Pair {
    fn new(stage: &Stage) -> Self {
        Self {
            first: stage.cluster.proxy(),
            second: stage.cluster.proxy(),
        }
    }

    fn start(&self, stage: &Stage) -> (Operator, Operator) {
        self.start_with(stage, &[])
    }

    /// The first leads, the second stands by.
    fn start_with(&self, stage: &Stage, arguments: &[&str]) -> (Operator, Operator) {
        let old = candidate(stage, &self.first).args(arguments).start_ready();
        wait_leads(&old);
        let new = candidate(stage, &self.second).args(arguments).start_ready();
        assert!(
            self.second
                .wait_for(LIMIT, |record| record.call.resource == "leases"
                    && record.accepted()),
            "it stands by"
        );
        wait::until_true("the first one watches", || {
            self.first.open_watches("apikeys") > 0
        });
        self.first.reset();
        self.second.reset();
        (old, new)
    }
}

fn candidate<'a>(stage: &Stage, proxy: &'a Proxy) -> Builder<'a> {
    stage.allow_leases();
    let namespace = format!("--lease-namespace={}", stage.namespace);
    stage.operator_via(proxy).args(&[
        "--leader-election=true",
        &namespace,
        "--lease-duration=4s",
        "--renew-deadline=3s",
        "--retry-period=500ms",
    ])
}

fn wait_leads(operator: &Operator) {
    wait::until("it leads", || {
        if operator.metric("claviger_leading") == Some(1.0) {
            Ok(())
        } else {
            Err(operator.logs())
        }
    });
}

/// It ends by itself, and says why.
fn assert_lost(operator: &Operator) {
    let ended = operator.ended();
    assert_eq!(ended.code(), Some(1), "{}", operator.logs());
    let said = operator.logs();
    // Work that is cut off at that moment may say so after it.
    let lost = said
        .lines()
        .find(|line| line.starts_with("claviger: leadership of lease "));
    assert!(lost.is_some_and(|line| line.contains(" is lost")), "{said}");
}

fn is_work(call: &Call) -> bool {
    Matcher::work().matches(call)
}

/// How many changes of ApiKeys and Secrets were asked for.
fn work(proxy: &Proxy) -> usize {
    proxy.count(is_work)
}

/// How many of them left after an instant.
fn late_work(proxy: &Proxy, after: Instant) -> usize {
    assert!(proxy.wait_quiet(Duration::from_millis(300), LIMIT, Call::is_mutation));
    proxy.count(|call| is_work(call) && call.at > after)
}

/// How many requests of a kind the API server has carried out.
fn accepted(proxy: &Proxy, kind: &str) -> usize {
    let of_kind = |call: &Call| format!("{} {}", call.verb, call.target()) == kind;
    proxy
        .calls()
        .iter()
        .filter(|record| record.accepted() && of_kind(&record.call))
        .count()
}

impl Stage {
    /// Everything stored of ApiKeys and Secrets.
    fn outcome(&self) -> String {
        serde_json::to_string(&(self.apikeys(), self.secrets())).unwrap()
    }

    /// Merges something into an ApiKey.
    fn patch_fast(&self, name: &str, patch: serde_json::Value) {
        let api: Api<claviger::api::ApiKey> =
            Api::namespaced(self.cluster.client(), &self.namespace);
        runtime()
            .block_on(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)))
            .unwrap();
    }

    /// What the lease says.
    fn claim(&self) -> Claim {
        let api: Api<Lease> = Api::namespaced(self.cluster.client(), &self.namespace);
        Claim::of(&runtime().block_on(api.get("claviger-controller")).unwrap())
    }

    /// What the lease says from now on, all of it.
    fn claims(&self) -> Arc<Mutex<Vec<Claim>>> {
        let api: Api<Lease> = Api::namespaced(self.cluster.client(), &self.namespace);
        let claims = Arc::<Mutex<Vec<Claim>>>::default();
        let taken = claims.clone();
        runtime().spawn(async move {
            let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
            while let Some(event) = events.try_next().await.unwrap() {
                if let watcher::Event::Apply(lease) | watcher::Event::InitApply(lease) = event {
                    taken.lock().unwrap().push(Claim::of(&lease));
                }
            }
        });
        wait::until_true("the recording has begun", || {
            !claims.lock().unwrap().is_empty()
        });
        claims
    }
}
