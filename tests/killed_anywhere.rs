//! Killed anywhere: for issuing, expiring, revoking and deleting, the controller is killed once before each of its requests leaves
//! and once after the answer to each was lost; a new process then converges, and what must hold at every instant has held. The
//! same with refusals, hangs and dropped connections instead of the kill (incidents 1, 2, 3).

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use claviger::api::{Phase, VersionPhase};

use crate::stories;
use crate::support::cluster::Cluster;
use crate::support::proxy::{Call, Fault, Matcher, Proxy, Verb, When};
use crate::support::stage::Stage;
use crate::support::wait::LIMIT;

stories![
    issuing_survives_every_crash_and_every_fault,
    expiring_survives_every_crash_and_every_fault,
    revoking_survives_every_crash_and_every_fault,
    deleting_survives_every_crash_and_every_fault,
];

/// How many runs of a scenario go on side by side: most of the time they wait.
const SIDE_BY_SIDE: usize = 6;
/// How long nothing must be asked for a scenario to count as settled.
const QUIET: Duration = Duration::from_millis(700);

fn issuing_survives_every_crash_and_every_fault() {
    everywhere(&Scenario {
        name: "issuing",
        // Where the controller adds the finalizer, too: elsewhere it makes one request less.
        cluster: Cluster::own_without_finalizer_policy(),
        before: |_| {},
        trigger: |stage| stage.declare("k", "{}"),
        end: |stage| {
            stage.wait_issued("k");
        },
        from_creation: false,
    });
}

fn expiring_survives_every_crash_and_every_fault() {
    everywhere(&Scenario {
        name: "expiring",
        cluster: Cluster::shared(),
        before: |_| {},
        // Numbered from the creation on: the time is running, so there is no moment to begin to count at later.
        trigger: |stage| stage.declare("k", "{expiry: {after: 15s}}"),
        end: |stage| {
            stage.wait_phase("k", Phase::Expired);
        },
        from_creation: true,
    });
}

fn revoking_survives_every_crash_and_every_fault() {
    everywhere(&Scenario {
        name: "revoking",
        cluster: Cluster::shared(),
        before: issue,
        trigger: |stage| drop(stage.patch("apikey/k", "{\"spec\": {\"revoked\": true}}")),
        end: |stage| {
            stage.wait_phase("k", Phase::Revoked);
        },
        from_creation: false,
    });
}

fn deleting_survives_every_crash_and_every_fault() {
    everywhere(&Scenario {
        name: "deleting",
        cluster: Cluster::shared(),
        before: issue,
        trigger: |stage| drop(stage.kubectl(&["delete", "apikey", "k", "--wait=false"])),
        end: |stage| {
            stage.wait_gone("k");
            assert!(stage.secret("k").is_none(), "the Secret went with the ApiKey");
        },
        from_creation: false,
    });
}

fn issue(stage: &Stage) {
    stage.declare("k", "{}");
    stage.wait_issued("k");
}

/// Something that happens to an ApiKey.
struct Scenario {
    name: &'static str,
    cluster: Arc<Cluster>,
    before: fn(&Stage),
    trigger: fn(&Stage),
    end: fn(&Stage),
    /// Whether requests that issuing makes are counted, too, and are to be left out because their own scenario tries them.
    from_creation: bool,
}

/// One request of the reference run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    verb: String,
    target: String,
    ordinal: usize,
}

/// What befalls the request.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Kill(When),
    Respond(When, u16),
    Hang(When),
    Drop(When),
}

const BLOWS: [Blow; 11] = [
    Blow::Kill(When::Before),
    Blow::Kill(When::After),
    Blow::Respond(When::Before, 409),
    Blow::Respond(When::Before, 429),
    Blow::Respond(When::Before, 500),
    Blow::Respond(When::Before, 503),
    Blow::Respond(When::After, 503),
    Blow::Hang(When::Before),
    Blow::Hang(When::After),
    Blow::Drop(When::Before),
    Blow::Drop(When::After),
];

/// Tries every blow at every request.
fn everywhere(scenario: &Scenario) {
    let points = reference(scenario);
    assert!(points.len() >= 2, "{}: {points:?}", scenario.name);
    let runs: Vec<(Point, Blow)> = points.iter().flat_map(|point| BLOWS.map(|blow| (point.clone(), blow))).collect();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some((point, blow)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let told = std::panic::catch_unwind(AssertUnwindSafe(|| strike(scenario, point, *blow)));
                    if let Err(panic) = told {
                        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                        failed.lock().unwrap().push(format!("{point:?} {blow:?}: {text}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    println!(
        "{}: {} requests, {} crash points and {} other faults tried",
        scenario.name,
        points.len(),
        2 * points.len(),
        9 * points.len()
    );
    for point in &points {
        println!("  {} {} #{}", point.verb, point.target, point.ordinal);
    }
    assert!(failed.is_empty(), "{} of {} runs failed:\n{}", failed.len(), runs.len(), failed.join("\n"));
}

/// The undisturbed run: which requests there are.
fn reference(scenario: &Scenario) -> Vec<Point> {
    let (stage, proxy) = stage(scenario);
    let _operator = stage.operator_via(&proxy).start_ready();
    (scenario.before)(&stage);
    settle(&proxy);
    proxy.reset();
    (scenario.trigger)(&stage);
    let mut left_out = BTreeSet::new();
    if scenario.from_creation {
        stage.wait_issued("k");
        settle(&proxy);
        left_out = points(&proxy);
    }
    (scenario.end)(&stage);
    settle(&proxy);
    points(&proxy).difference(&left_out).cloned().collect()
}

fn points(proxy: &Proxy) -> BTreeSet<Point> {
    let calls = proxy.calls();
    let single = calls.iter().map(|record| &record.call).filter(|call| is_single(call));
    single.map(|call| Point { verb: format!("{:?}", call.verb), target: call.target(), ordinal: call.ordinal }).collect()
}

/// Lists and watches have stories of their own.
fn is_single(call: &Call) -> bool {
    !matches!(call.verb, Verb::List | Verb::Watch) && call.namespace.is_some()
}

fn settle(proxy: &Proxy) {
    assert!(proxy.wait_quiet(QUIET, LIMIT, is_single), "the controller comes to rest");
}

fn stage(scenario: &Scenario) -> (Stage, Proxy) {
    let stage = Stage::on(&scenario.cluster, &format!("crash-{}", scenario.name));
    let proxy = stage.cluster.proxy();
    (stage, proxy)
}

/// One run with one blow.
fn strike(scenario: &Scenario, point: &Point, blow: Blow) {
    let (stage, proxy) = stage(scenario);
    let history = stage.history();
    let operator = stage.operator_via(&proxy).start_ready();
    (scenario.before)(&stage);
    settle(&proxy);
    proxy.reset();
    let aim = point.clone();
    let matcher = Matcher::any().filter(move |call: &Call| {
        format!("{:?}", call.verb) == aim.verb && call.target() == aim.target && call.ordinal == aim.ordinal
    });
    let rule = match blow {
        Blow::Kill(when) => proxy.on(matcher, when, Fault::call(operator.killer())),
        Blow::Respond(when, code) => proxy.on(matcher, when, Fault::Respond(code)),
        Blow::Hang(when) => proxy.on(matcher, when, Fault::Hang),
        Blow::Drop(when) => proxy.on(matcher, when, Fault::Drop),
    };
    (scenario.trigger)(&stage);
    assert!(rule.fired(LIMIT), "the blow was dealt: {:#?}", proxy.calls());
    let _second = matches!(blow, Blow::Kill(_)).then(|| stage.operator_via(&proxy).start_ready());
    (scenario.end)(&stage);
    settle(&proxy);
    history.check();
    if let Some(apikey) = stage.find("k") {
        let status = apikey.status.unwrap_or_default();
        assert!(
            status.versions.iter().all(|version| version.phase != VersionPhase::Announced),
            "nothing is left announced: {status:?}"
        );
        assert_eq!(status.observed_generation, apikey.metadata.generation, "the status speaks of the spec as it is");
    }
}
