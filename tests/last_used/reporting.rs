//! What a gate writes of itself, on a real API server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use claviger::api::{Gate, GateState};
use claviger::gate::report::{GateFacts, Identity, Noted, Reporter, Subject, Uses};
use k8s_openapi::jiff::Timestamp;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{ago, issue, shown, stage, wait_shown};
use crate::stories;
use crate::support::cluster::runtime;
use crate::support::proxy::{Call, Matcher, Proxy, Record, Verb};
use crate::support::stage::Stage;
use crate::support::wait;

stories![
    a_gate_writes_at_most_once_a_second_and_only_its_heartbeat_when_nothing_changes,
    a_use_is_told_until_the_status_shows_it,
    a_gate_comes_back_after_an_outage_and_goes_with_its_pod,
];

/// A reporter of a gate that knows as many keys as the story says.
struct Reporting {
    keys: Arc<AtomicU64>,
    uses: Arc<Uses>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Reporting {
    fn start(stage: &Stage, proxy: &Proxy, pod_uid: Option<String>) -> Self {
        let token = stage.kubectl(&["create", "token", "gate", "--duration=1h"]);
        let kubeconfig = Kubeconfig::from_yaml(&proxy.kubeconfig(token.trim())).unwrap();
        let (keys, uses) = (Arc::new(AtomicU64::new(0)), Arc::new(Uses::default()));
        let (counted, pending, changed) = (keys.clone(), uses.clone(), Arc::new(Notify::new()));
        let identity = Identity {
            name: "gate-a".to_owned(),
            namespace: stage.namespace.clone(),
            pod_uid,
        };
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let task = runtime().spawn(async move {
            let mut config =
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                    .await
                    .unwrap();
            config.default_retry = false;
            let facts = move || GateFacts {
                state: GateState::Current,
                keys: counted.load(Ordering::Relaxed),
                reached: Some("1".to_owned()),
                roles_reached: None,
            };
            Reporter::new(
                Client::try_from(config).unwrap(),
                identity,
                None,
                pending,
                facts,
                changed,
            )
            .run(stopping, CancellationToken::new())
            .await;
        });
        Self {
            keys,
            uses,
            stop,
            task,
        }
    }

    fn stop(self) {
        self.stop.cancel();
        runtime().block_on(self.task).unwrap();
    }
}

fn gate(stage: &Stage) -> Option<Gate> {
    let api: Api<Gate> = Api::namespaced(stage.cluster.client(), &stage.namespace);
    runtime()
        .block_on(api.get_opt("gate-a"))
        .expect("the API server answers")
}

fn wait_gate<T>(stage: &Stage, what: &str, mut found: impl FnMut(&Gate) -> Option<T>) -> T {
    wait::until(what, || {
        let gate = gate(stage);
        gate.as_ref()
            .and_then(&mut found)
            .ok_or_else(|| format!("{gate:?}"))
    })
}

fn reports(proxy: &Proxy) -> Vec<Record> {
    let all = Matcher::call(Verb::Patch, "gates");
    proxy
        .calls()
        .into_iter()
        .filter(|record| all.matches(&record.call) && record.accepted())
        .collect()
}

fn a_gate_writes_at_most_once_a_second_and_only_its_heartbeat_when_nothing_changes() {
    let stage = stage("reporting");
    let proxy = stage.cluster.proxy();
    proxy.record_bodies(true);
    let begun = Instant::now();
    let reporting = Reporting::start(&stage, &proxy, None);
    // Something changes all the time.
    wait::until("four reports are written", || {
        reporting.keys.fetch_add(1, Ordering::Relaxed);
        let written = reports(&proxy).len();
        let most = begun.elapsed().as_secs() + 1;
        assert!(
            u64::try_from(written).unwrap() <= most,
            "{written} of {most}"
        );
        if written >= 4 {
            Ok(())
        } else {
            Err(format!("{written}"))
        }
    });
    let keys = i64::try_from(reporting.keys.load(Ordering::Relaxed)).unwrap();
    wait_gate(&stage, "it says how many keys it knows", |gate| {
        (gate.spec.keys == Some(keys)).then_some(())
    });
    let before = reports(&proxy).len();
    wait::until("two heartbeats are written", || {
        let written = reports(&proxy).len() - before;
        if written >= 2 {
            Ok(())
        } else {
            Err(format!("{written}"))
        }
    });
    let bodies: Vec<_> = reports(&proxy)[before - 1..]
        .iter()
        .map(|record| record.request_json().unwrap())
        .collect();
    let moment = |body: &serde_json::Value| {
        body["spec"]["heartbeatTime"]
            .as_str()
            .unwrap()
            .parse::<Timestamp>()
            .unwrap()
    };
    for two in bodies.windows(2) {
        let pause = moment(&two[1]).duration_since(moment(&two[0])).as_secs();
        assert!(
            pause >= 9,
            "idle, it writes every ten seconds, which here are cut to whole ones: {bodies:#?}"
        );
        assert_eq!(two[1]["spec"]["keys"], keys);
    }
    assert!(stage.kubectl(&["get", "gates"]).contains("Current"));
    reporting.stop();
    assert!(
        gate(&stage).is_none(),
        "who leaves in good order takes the object away"
    );
    let others: Vec<_> = proxy
        .calls()
        .iter()
        .filter(|record| record.call.resource != "gates")
        .map(ToString::to_string)
        .collect();
    assert_eq!(others, Vec::<String>::new(), "it asks for nothing else");
}

/// From the verdict to the status, and back to the gate, which then has nothing more to tell.
fn a_use_is_told_until_the_status_shows_it() {
    let stage = stage("told");
    let proxy = stage.cluster.proxy();
    let reporting = Reporting::start(&stage, &proxy, None);
    let operator = stage.operator().start_ready();
    issue(&stage, &["k", "last"]);
    operator.kill();
    let (noted, moment) = (Noted::new(None), ago(5));
    let apikey = stage.apikey("k");
    let uid = apikey.metadata.uid.clone().unwrap();
    let subject = |name: &str| Subject {
        namespace: stage.namespace.clone(),
        name: name.to_owned(),
        uid: stage.apikey(name).metadata.uid.unwrap(),
    };
    for later in 0..3 {
        reporting
            .uses
            .record(&noted, moment.as_second() + later, || subject("k"));
    }
    wait_gate(&stage, "the use is told", |gate| {
        (gate.spec.uses.len() == 1).then_some(())
    });
    reporting
        .uses
        .seen(&uid, shown(&stage.status("k")).map(Timestamp::as_second));
    assert_eq!(reporting.uses.pending(), 1, "nobody has written it yet");
    let operator = stage.operator().start_ready();
    wait_shown(&stage, "k", moment);
    reporting
        .uses
        .seen(&uid, shown(&stage.status("k")).map(Timestamp::as_second));
    wait_gate(&stage, "there is nothing more to tell", |gate| {
        gate.spec.uses.is_empty().then_some(())
    });

    // What it saw last is told before it leaves.
    let moment = ago(1);
    reporting
        .uses
        .record(&Noted::new(None), moment.as_second(), || subject("last"));
    reporting.stop();
    wait_shown(&stage, "last", moment);
    assert!(gate(&stage).is_none());
    assert!(operator.stop().success());
}

fn a_gate_comes_back_after_an_outage_and_goes_with_its_pod() {
    let stage = stage("outage");
    let proxy = stage.cluster.proxy();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "gate-a" },
        "spec": {
            "serviceAccountName": "gate", "automountServiceAccountToken": false,
            "containers": [{ "name": "gate", "image": "claviger" }],
        },
    });
    stage.apply(&pod.to_string());
    let uid = stage.kubectl(&["get", "pod", "gate-a", "-o", "jsonpath={.metadata.uid}"]);
    let reporting = Reporting::start(&stage, &proxy, Some(uid.clone()));
    let owner = wait_gate(&stage, "it is there", |gate| {
        gate.metadata.owner_references.clone()?.pop()
    });
    assert_eq!(
        (owner.kind.as_str(), &owner.uid, owner.block_owner_deletion),
        ("Pod", &uid, None)
    );

    proxy.set_upstream_down(true);
    reporting.keys.store(7, Ordering::Relaxed);
    assert!(proxy.wait_quiet(Duration::from_secs(1), wait::LIMIT, Call::is_mutation));
    proxy.set_upstream_down(false);
    wait_gate(&stage, "it says what is new", |gate| {
        (gate.spec.keys == Some(7)).then_some(())
    });

    // Killed: nobody takes the object away but the garbage collector.
    reporting.task.abort();
    stage.kubectl(&["delete", "pod", "gate-a", "--now"]);
    wait::until_true("it goes with its pod", || gate(&stage).is_none());
}
