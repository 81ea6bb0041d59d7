//! What befalls the controller at every request of a scenario, and what must be true after it.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use claviger::api::VersionPhase;

use crate::support::cluster::Cluster;
use crate::support::proxy::{Call, Fault, Matcher, Proxy, Verb, When};
use crate::support::stage::Stage;
use crate::support::wait::LIMIT;

/// How many runs of a scenario go on side by side: most of the time they wait.
const SIDE_BY_SIDE: usize = 6;
/// How long nothing must be asked for a scenario to count as settled.
const QUIET: Duration = Duration::from_millis(700);

/// The same before the requests of the undisturbed run are counted: longer than any pause at which the controller looks again at what
/// a scenario begins with, so that such a look is not taken for a part of it.
const STILL: Duration = Duration::from_millis(4_200);

/// Something that happens to an ApiKey.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) cluster: Arc<Cluster>,
    pub(super) before: fn(&Stage),
    pub(super) trigger: fn(&Stage),
    pub(super) end: fn(&Stage),
    /// Whether requests that issuing makes are counted, too, and are to be left out because their own scenario tries them.
    pub(super) from_creation: bool,
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

/// Scenarios and requests tried so far.
static TOTAL: Mutex<(usize, usize)> = Mutex::new((0, 0));

/// Says how much was tried in all scenarios that were told.
pub(crate) fn print_total() {
    let (scenarios, requests) = *TOTAL.lock().unwrap();
    if scenarios > 0 {
        println!(
            "killed anywhere: {scenarios} scenarios, {requests} requests, {} crash points and {} other faults tried",
            2 * requests,
            9 * requests
        );
    }
}

/// Tries every blow at every request.
pub(super) fn everywhere(scenario: &Scenario) {
    let points = reference(scenario);
    assert!(points.len() >= 2, "{}: {points:?}", scenario.name);
    let runs: Vec<(Point, Blow)> = points
        .iter()
        .flat_map(|point| BLOWS.map(|blow| (point.clone(), blow)))
        .collect();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some((point, blow)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let told = std::panic::catch_unwind(AssertUnwindSafe(|| {
                        strike(scenario, point, *blow);
                    }));
                    if let Err(panic) = told {
                        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                        failed
                            .lock()
                            .unwrap()
                            .push(format!("{point:?} {blow:?}: {text}"));
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
    let mut total = TOTAL.lock().unwrap();
    *total = (total.0 + 1, total.1 + points.len());
    drop(total);
    for point in &points {
        println!("  {} {} #{}", point.verb, point.target, point.ordinal);
    }
    assert!(
        failed.is_empty(),
        "{} of {} runs failed:\n{}",
        failed.len(),
        runs.len(),
        failed.join("\n")
    );
}

/// The undisturbed run: which requests there are.
fn reference(scenario: &Scenario) -> Vec<Point> {
    let (stage, proxy) = stage(scenario);
    let _operator = stage.operator_via(&proxy).start_ready();
    (scenario.before)(&stage);
    assert!(
        proxy.wait_quiet(STILL, LIMIT, is_single),
        "the controller comes to rest"
    );
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
    let single = calls
        .iter()
        .map(|record| &record.call)
        .filter(|call| is_single(call));
    single
        .map(|call| Point {
            verb: format!("{:?}", call.verb),
            target: call.target(),
            ordinal: call.ordinal,
        })
        .collect()
}

/// Lists and watches have stories of their own.
fn is_single(call: &Call) -> bool {
    !matches!(call.verb, Verb::List | Verb::Watch) && call.namespace.is_some()
}

fn settle(proxy: &Proxy) {
    assert!(
        proxy.wait_quiet(QUIET, LIMIT, is_single),
        "the controller comes to rest"
    );
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
        format!("{:?}", call.verb) == aim.verb
            && call.target() == aim.target
            && call.ordinal == aim.ordinal
    });
    let rule = match blow {
        Blow::Kill(when) => proxy.on(matcher, when, Fault::call(operator.killer())),
        Blow::Respond(when, code) => proxy.on(matcher, when, Fault::Respond(code)),
        Blow::Hang(when) => proxy.on(matcher, when, Fault::Hang),
        Blow::Drop(when) => proxy.on(matcher, when, Fault::Drop),
    };
    (scenario.trigger)(&stage);
    assert!(
        rule.fired(LIMIT),
        "the blow was dealt: {:#?}",
        proxy.calls()
    );
    let _second = matches!(blow, Blow::Kill(_)).then(|| stage.operator_via(&proxy).start_ready());
    (scenario.end)(&stage);
    settle(&proxy);
    history.check();
    if let Some(apikey) = stage.find("k") {
        let status = apikey.status.unwrap_or_default();
        assert!(
            status
                .versions
                .iter()
                .all(|version| version.phase != VersionPhase::Announced),
            "nothing is left announced: {status:?}"
        );
        assert_eq!(
            status.observed_generation, apikey.metadata.generation,
            "the status speaks of the spec as it is"
        );
    }
}
