//! A key rotates under load, from the view of who uses it: through a real Envoy, with everything behind it being killed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, WatchEvent, WatchParams};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use crate::stories;
use crate::support::asker::Asker;
use crate::support::client::Question;
use crate::support::cluster::{NAMESPACE, runtime};
use crate::support::gate::Gate;
use crate::support::proxies::{Kind, Proxy};
use crate::support::proxy::{Call, Fault, Hold, Matcher, Verb, When};
use crate::support::stage::Stage;
use crate::support::wait;

stories![
    a_thousand_requests_a_second_see_no_rotation,
    gates_that_die_in_turn_cost_no_request,
    a_rotated_key_is_given_out_when_the_gates_know_it,
    a_controller_that_ends_hands_out_what_it_held_back,
    a_controller_that_ends_hands_out_what_its_watch_never_showed,
    a_dead_gate_holds_a_rotation_up_for_a_moment,
    a_dead_gate_costs_no_request_where_there_is_another,
];

const ROTATIONS: usize = 50;
/// Gates killed one after the other, by each story of an Envoy.
const DEATHS: usize = 40;
/// Clients, each with a connection of its own to Envoy, which asks this often.
const CLIENTS: usize = 50;
const PACE: Duration = Duration::from_millis(50);
/// How long a replaced version passes.
const OVERLAP: &str = "8s";
/// When the two halves of the clients go over to a new key: the moment it is delivered, and within the overlap.
const AFTER: [Duration; 2] = [Duration::ZERO, Duration::from_secs(3)];

/// Incidents 22; the key rotates 50 times while the controller and one of two gates are killed again and again.
fn a_thousand_requests_a_second_see_no_rotation() {
    let stage = Stage::new("under-load");
    // It looks at gates where they report.
    let start_operator = || {
        stage
            .operator()
            .args(&["--lease-namespace", NAMESPACE])
            .start_ready()
    };
    let mut operator = start_operator();
    stage.declare(
        "k",
        &format!("{{audiences: [invoices-api], permissions: ['invoices:read'], rotation: {{overlap: {OVERLAP}}}}}"),
    );
    stage.wait_issued("k");
    // A container that is started again keeps the name of its pod.
    let start = |number: usize, address: &str| {
        Gate::builder(&stage.cluster)
            .args(&[
                "--access-log=off",
                "--log-level=info",
                &format!("--listen={address}"),
            ])
            .reporting_as(&format!("{}-{number}", stage.namespace))
            .start_ready()
    };
    let gates: Vec<Gate> = (0..2).map(|number| start(number, "127.0.0.1:0")).collect();
    let addresses: Vec<SocketAddr> = gates.iter().map(Gate::plain_address).collect();
    let envoy = Proxy::start_before(Kind::EnvoyGrpc, &addresses);
    let load = Load::start(&stage, &envoy);

    let mut controllers_killed = 0;
    let (rotating, rotations) = mpsc::channel();
    let gates_killed = std::thread::scope(|scope| {
        // The channel is closed also where the story ends badly.
        let rotating = rotating;
        let killing = scope.spawn(move || {
            let mut gates = gates;
            let mut killed = 0;
            for rotation in rotations {
                let victim: usize = rotation % 2;
                gates[victim].kill();
                killed += 1;
                // The other one is all there is until this one knows everything again.
                gates[victim] = start(victim, &addresses[victim].to_string());
            }
            killed
        });
        for rotation in 1..=ROTATIONS {
            if rotation % 2 == 0 {
                rotating.send(rotation / 2).expect("gates come back");
            }
            stage.raise("k", rotation);
            if rotation % 5 == 0 {
                // Somewhere in the middle of it.
                operator.kill();
                controllers_killed += 1;
                operator = start_operator();
            }
            stage.wait_rotated("k", rotation);
            envoy.upstream.take();
        }
        drop(rotating);
        killing.join().expect("gates come back")
    });
    let told = load.stop();
    println!(
        "{ROTATIONS} rotations, {controllers_killed} controllers and {gates_killed} gates killed: {} requests at {:.0} a second with {} keys, {} refused",
        told.requests,
        told.rate,
        told.keys,
        told.refused.len(),
    );
    assert_eq!(told.keys, ROTATIONS + 1, "the clients saw every version");
    assert!(
        gates_killed >= ROTATIONS / 2 && controllers_killed >= ROTATIONS / 5,
        "they were killed"
    );
    assert!(
        told.requests > CLIENTS * ROTATIONS,
        "there was load: {} requests",
        told.requests
    );
    told.assert_none_refused(&envoy);
}

/// A gate dies the moment the other one is back, which Envoy may still leave alone.
fn gates_that_die_in_turn_cost_no_request() {
    let stage = Stage::new("in-turn");
    let _operator = stage.operator().start_ready();
    stage.declare(
        "k",
        "{audiences: [invoices-api], permissions: ['invoices:read']}",
    );
    stage.wait_issued("k");
    let start = |address: &str| {
        Gate::builder(&stage.cluster)
            .args(&["--access-log=off", &format!("--listen={address}")])
            .start_ready()
    };
    for kind in [Kind::EnvoyGrpc, Kind::EnvoyHttp] {
        let mut gates = [start("127.0.0.1:0"), start("127.0.0.1:0")];
        let addresses = gates.each_ref().map(Gate::plain_address);
        let envoy = Proxy::start_before(kind, &addresses);
        let load = Load::start(&stage, &envoy);
        for victim in [0, 1].repeat(DEATHS / 2) {
            gates[victim].kill();
            gates[victim] = start(&addresses[victim].to_string());
            envoy.upstream.take();
        }
        let told = load.stop();
        println!(
            "{kind}: {DEATHS} gates killed: {} requests, {} refused",
            told.requests,
            told.refused.len(),
        );
        assert!(told.requests > DEATHS, "there was load");
        told.assert_none_refused(&envoy);
    }
}

/// A key that was given out before a gate had heard of it would be refused there. Gates say in their `Gate` how far they are.
fn a_rotated_key_is_given_out_when_the_gates_know_it() {
    let stage = Stage::new("known");
    let proxy = stage.cluster.proxy();
    let _operator = stage
        .operator_via(&proxy)
        .args(&["--gate-wait=1m"])
        .start_ready();
    gate_has_reached(&stage, 1);
    stage.declare("k", "{}");
    assert_eq!(
        stage.wait_issued("k").version,
        Some(1),
        "nobody could know its first key any sooner"
    );
    let before = stage.mounted("k")["api-key"].clone();

    let announced_at = announce_second(&stage);
    gate_has_reached(&stage, announced_at - 1);
    assert!(proxy.wait_quiet(Duration::from_millis(700), wait::LIMIT, Call::is_mutation));
    assert_eq!(
        stage.mounted("k")["api-key"],
        before,
        "the key before it is what everybody has"
    );
    gate_has_reached(&stage, announced_at);
    stage.wait_rotated("k", 1);
    assert_ne!(stage.mounted("k")["api-key"], before);
}

/// Who comes next does not have that key: it would have to wait until nothing can arrive any more, and mint another.
fn a_controller_that_ends_hands_out_what_it_held_back() {
    let stage = Stage::new("leaving");
    let operator = stage.operator().args(&["--gate-wait=1m"]).start_ready();
    gate_has_reached(&stage, 1);
    stage.declare("k", "{}");
    stage.wait_issued("k");
    let before = stage.mounted("k")["api-key"].clone();
    announce_second(&stage);
    assert_eq!(stage.mounted("k")["api-key"], before);
    assert!(operator.stop().success());
    assert_ne!(stage.mounted("k")["api-key"], before);
    stage.wait_rotated("k", 1);
    assert_eq!(stage.status("k").version, Some(2));
}

/// The watch of a controller that ends shows nothing more: not even what it announced last.
fn a_controller_that_ends_hands_out_what_its_watch_never_showed() {
    let stage = Stage::new("leaving-blind");
    let proxy = stage.cluster.proxy();
    let operator = stage
        .operator_via(&proxy)
        .args(&["--gate-wait=1m"])
        .start_ready();
    gate_has_reached(&stage, 1);
    stage.declare("k", "{}");
    stage.wait_issued("k");
    let before = stage.mounted("k")["api-key"].clone();
    assert!(proxy.wait_quiet(Duration::from_millis(700), wait::LIMIT, Call::is_mutation));
    let (hold, announcing) = (Hold::new(), Matcher::call(Verb::Update, "apikeys/status"));
    let _announcing = proxy.on(announcing, When::Before, Fault::Delay(hold.clone()));
    stage.raise("k", 1);
    assert!(hold.reached(wait::LIMIT), "it is about to announce");
    proxy.hold_watches("apikeys");
    hold.release();
    announced_second(&stage);
    assert_eq!(stage.mounted("k")["api-key"], before);
    assert!(operator.stop().success());
    assert_ne!(stage.mounted("k")["api-key"], before);
}

/// A gate of this stage says how far it is.
fn gate_has_reached(stage: &Stage, version: u64) {
    let told = json!({
        "state": "Current", "reachedResourceVersion": version.to_string(), "heartbeatTime": Timestamp::now().to_string(),
    });
    let meta = json!({ "name": "gate-a", "namespace": stage.namespace });
    stage.apply(&json!({ "apiVersion": "claviger.dev/v1alpha1", "kind": "Gate", "metadata": meta, "spec": told }).to_string());
}

/// Asks for the second version of `k`, and waits until it is announced: the resourceVersion with which it is.
fn announce_second(stage: &Stage) -> u64 {
    stage.raise("k", 1);
    announced_second(stage)
}

fn announced_second(stage: &Stage) -> u64 {
    let announced = wait::until("the next version is announced", || {
        let apikey = stage.apikey("k");
        let listed = apikey
            .status
            .as_ref()
            .is_some_and(|status| status.newest_announced().is_some());
        if listed {
            Ok(apikey)
        } else {
            Err(format!("{:?}", apikey.status))
        }
    });
    announced
        .metadata
        .resource_version
        .expect("a version")
        .parse()
        .expect("a number")
}

/// A gate that is dead says nothing any more, and for half a minute nobody knows that it is.
fn a_dead_gate_holds_a_rotation_up_for_a_moment() {
    let stage = Stage::new("dead");
    let operator = stage
        .operator()
        .args(&["--lease-namespace", NAMESPACE])
        .start_ready();
    stage.declare("k", "{}");
    stage.wait_issued("k");
    let name = format!("{}-gate", stage.namespace);
    let gate = Gate::builder(&stage.cluster)
        .reporting_as(&name)
        .start_ready();
    gate.kill();
    stage.raise("k", 1);
    stage.wait_rotated("k", 1);
    wait::until("it says why it took so long", || {
        let log = operator.logs();
        if log.contains("is not waited for any longer") {
            Ok(())
        } else {
            Err(log)
        }
    });
    stage
        .cluster
        .kubectl(&["delete", "gate", &name, "-n", NAMESPACE]);
}

/// As long as its address is still listed, Envoy tries it.
fn a_dead_gate_costs_no_request_where_there_is_another() {
    let stage = Stage::new("one-dead");
    let _operator = stage.operator().start_ready();
    stage.declare("k", "{audiences: [invoices-api]}");
    stage.wait_issued("k");
    let key = stage.mounted("k")["api-key"].clone();
    for kind in [Kind::EnvoyGrpc, Kind::EnvoyHttp] {
        let gates = [Gate::start(&stage), Gate::start(&stage)];
        let envoy = Proxy::start_before(kind, &gates.each_ref().map(Gate::plain_address));
        let ask = || envoy.ask(Question::get("/orders").bearer(&key)).status;
        assert!((0..50).all(|_| ask() == 200), "{kind}: both live");
        gates[0].kill();
        let refused = (0..200).filter(|_| ask() != 200).count();
        assert_eq!(refused, 0, "{kind}: one is dead");
    }
}

/// What the clients saw.
struct Told {
    requests: usize,
    rate: f64,
    keys: usize,
    refused: Vec<String>,
}

impl Told {
    fn assert_none_refused(&self, envoy: &Proxy) {
        assert!(
            self.refused.is_empty(),
            "{:?}\n{}",
            &self.refused[..self.refused.len().min(10)],
            envoy.log()
        );
    }
}

/// Clients that read the key from its Secret, at once or some time later.
struct Load {
    begun: Instant,
    requests: Arc<AtomicUsize>,
    refused: Arc<Mutex<Vec<String>>>,
    read: Read,
    stop: tokio_util::sync::CancellationToken,
    clients: tokio_util::task::TaskTracker,
}

impl Load {
    fn start(stage: &Stage, envoy: &Proxy) -> Self {
        let (secrets, now): (Api<Secret>, _) = (
            Api::namespaced(stage.cluster.client(), &stage.namespace),
            stage.mounted("k")["api-key"].clone(),
        );
        let read = Arc::new(Mutex::new(vec![(now, Instant::now())]));
        let load = Self {
            begun: Instant::now(),
            requests: Arc::default(),
            refused: Arc::default(),
            read: read.clone(),
            stop: tokio_util::sync::CancellationToken::new(),
            clients: tokio_util::task::TaskTracker::new(),
        };
        let (stop, reading) = (load.stop.clone(), read.clone());
        runtime().spawn(async move { stop.run_until_cancelled(follow(secrets, reading)).await });
        for number in 0..CLIENTS {
            let client = Client {
                read: read.clone(),
                after: AFTER[number % 2],
                requests: load.requests.clone(),
                refused: load.refused.clone(),
            };
            let (address, stop) = (envoy.address, load.stop.clone());
            load.clients.spawn_on(
                async move { stop.run_until_cancelled(client.run(address)).await },
                runtime().handle(),
            );
        }
        load.clients.close();
        load
    }

    fn stop(self) -> Told {
        let took = self.begun.elapsed();
        self.stop.cancel();
        runtime().block_on(self.clients.wait());
        let requests = self.requests.load(Ordering::SeqCst);
        Told {
            requests,
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            rate: requests as f64 / took.as_secs_f64(),
            keys: self.read.lock().expect("nobody panicked here").len(),
            refused: std::mem::take(&mut *self.refused.lock().expect("no client panicked here")),
        }
    }
}

/// The keys that the Secret held, and since when.
type Read = Arc<Mutex<Vec<(String, Instant)>>>;

/// Takes down each key as the Secret holds it.
async fn follow(secrets: Api<Secret>, read: Read) {
    let params = WatchParams::default().fields("metadata.name=k");
    let mut since = "0".to_owned();
    loop {
        let Ok(events) = secrets.watch(&params, &since).await else {
            continue;
        };
        let mut events = events.boxed();
        while let Ok(Some(event)) = events.try_next().await {
            if let WatchEvent::Added(secret) | WatchEvent::Modified(secret) = event {
                since = secret.metadata.resource_version.unwrap_or_default();
                let key = secret
                    .data
                    .and_then(|data| String::from_utf8(data.get("api-key")?.0.clone()).ok())
                    .expect("a key");
                let mut read = read.lock().expect("nobody panicked here");
                if read.last().is_none_or(|(last, _)| *last != key) {
                    read.push((key, Instant::now()));
                }
            }
        }
    }
}

struct Client {
    read: Read,
    after: Duration,
    requests: Arc<AtomicUsize>,
    refused: Arc<Mutex<Vec<String>>>,
}

impl Client {
    async fn run(self, address: SocketAddr) {
        let mut asker = Asker::connect(address).await.expect("Envoy listens");
        let mut ticks = interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            ticks.tick().await;
            let held = {
                let read = self.read.lock().expect("nobody panicked here");
                let (first, _) = read.first().expect("a key");
                read.iter()
                    .rfind(|(_, since)| since.elapsed() >= self.after)
                    .map_or(first, |(key, _)| key)
                    .clone()
            };
            let answer = asker.ask("/reports", &held).await;
            self.requests.fetch_add(1, Ordering::Relaxed);
            if !matches!(&answer, Ok((200, _))) {
                let tail = &held[held.len() - 6..];
                self.refused
                    .lock()
                    .expect("no client panicked here")
                    .push(format!("{tail}: {answer:?}"));
                if answer.is_err() {
                    asker = Asker::connect(address).await.expect("Envoy listens");
                }
            }
        }
    }
}
