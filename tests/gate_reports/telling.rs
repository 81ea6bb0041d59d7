//! The Gate object, and last use.

use claviger::api::{Gate as GateObject, GateState};
use jiff::{SignedDuration, Timestamp};

use super::{ask, find, issued, operator, reporting, wait_code, wait_gone, wait_object};
use crate::stories;
use crate::support::cluster::NAMESPACE;
use crate::support::stage::Stage;
use crate::support::wait;

stories![
    a_gate_tells_how_it_stands_as_long_as_it_runs,
    the_use_of_a_key_is_shown_once_within_the_hour_whichever_gate_saw_it,
    a_gate_that_was_killed_is_told_of_as_silent,
];

fn reached(object: &GateObject) -> Option<u64> {
    object.spec.reached_resource_version.as_ref()?.parse().ok()
}

/// Resource versions are compared as the API server's are: as numbers.
fn version(stage: &Stage, name: &str) -> u64 {
    stage
        .apikey(name)
        .metadata
        .resource_version
        .and_then(|text| text.parse().ok())
        .expect("a number")
}

fn a_gate_tells_how_it_stands_as_long_as_it_runs() {
    let stage = Stage::new("told");
    let operator = operator(&stage);
    let key = issued(&stage, "k");
    let (gate, name) = reporting(&stage, "gate-a");
    let first = wait_object(&stage, &name, "is current", |object| {
        (object.spec.state == Some(GateState::Current) && object.spec.keys >= Some(1))
            .then(|| object.clone())
    });
    assert_eq!(
        first.spec.version.as_deref(),
        Some(env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(
        first.spec.namespace, None,
        "it knows the keys of the whole cluster"
    );
    assert!(first.spec.roles_resource_version.is_some(), "{first:?}");

    stage.patch("apikey/k", r#"{"spec": {"revoked": true}}"#);
    let revoked = version(&stage, "k");
    wait_code(&gate, &key, "REVOKED");
    let later = wait_object(&stage, &name, "has reached the revocation", |object| {
        reached(object)
            .is_some_and(|reached| reached >= revoked)
            .then(|| object.clone())
    });
    assert!(
        later.spec.heartbeat_time >= first.spec.heartbeat_time && reached(&later) > reached(&first),
        "{first:?} {later:?}"
    );
    // Kept current also where nothing happens.
    let beat = later.spec.heartbeat_time.clone();
    wait_object(&stage, &name, "beats", |object| {
        (object.spec.heartbeat_time > beat).then_some(())
    });
    let shown = stage
        .cluster
        .kubectl(&["get", "gates", "-n", NAMESPACE, &name]);
    let lines: Vec<Vec<_>> = shown
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0],
        ["NAME", "STATE", "KEYS", "REACHED", "HEARTBEAT", "AGE"]
    );
    assert_eq!(
        (lines[1][0], lines[1][1], lines[1].len()),
        (name.as_str(), "Current", 6),
        "{shown}"
    );
    assert!(
        lines[1][3]
            .parse::<u64>()
            .is_ok_and(|reached| reached >= revoked),
        "{shown}"
    );

    assert!(gate.stop().success());
    assert_eq!(
        find(&stage, &name),
        None,
        "a gate that is gone is not listed"
    );
    assert!(operator.stop().success());
}

fn the_use_of_a_key_is_shown_once_within_the_hour_whichever_gate_saw_it() {
    let stage = Stage::new("last-use");
    let operator = operator(&stage);
    let (used, refused, marker) = (
        issued(&stage, "used"),
        issued(&stage, "refused"),
        issued(&stage, "marker"),
    );
    stage.patch("apikey/refused", r#"{"spec": {"revoked": true}}"#);
    let (gate_a, name_a) = reporting(&stage, "gate-a");
    let (gate_b, name_b) = reporting(&stage, "gate-b");
    let begun = claviger::api::whole_second(Timestamp::now());
    for gate in [&gate_a, &gate_b] {
        wait_code(gate, &refused, "REVOKED");
    }
    assert_eq!(ask(&gate_a, "envoy", &used), (200, "VALID".to_owned()));
    let status = stage.wait("used", "was used", |status| status.last_used_at.is_some());
    let shown = status.last_used_at.expect("a moment").0;
    assert!(
        (begun..=Timestamp::now() + SignedDuration::from_secs(1)).contains(&shown),
        "{shown}"
    );
    let pending =
        |gate: &crate::support::gate::Gate| gate.metric("claviger_gate_uses_pending") == Some(0.0);
    wait::until_true("nothing is left to tell", || pending(&gate_a));
    assert!(
        stage
            .kubectl(&["get", "ak", "used", "-o", "wide"])
            .contains("LAST USED")
    );

    // Again and again, at both. The other key's use comes after: once that is shown, these were passed over.
    for _ in 0..20 {
        for (gate, dialect) in [(&gate_a, "nginx"), (&gate_b, "envoy"), (&gate_b, "caddy")] {
            assert_eq!(ask(gate, dialect, &used), (200, "VALID".to_owned()));
        }
    }
    for gate in [&gate_a, &gate_b] {
        assert_eq!(ask(gate, "traefik", &marker), (200, "VALID".to_owned()));
    }
    stage.wait("marker", "was used", |status| status.last_used_at.is_some());
    wait::until_true("nothing is left to tell", || {
        pending(&gate_a) && pending(&gate_b)
    });
    assert_eq!(
        stage.status("used").last_used_at.expect("a moment").0,
        shown,
        "within the hour nothing is written"
    );
    assert_eq!(
        stage.status("refused").last_used_at,
        None,
        "a key that does not pass is not used"
    );
    assert_eq!(operator.metric("claviger_last_use_writes_total"), Some(2.0));

    for (gate, name) in [(gate_a, &name_a), (gate_b, &name_b)] {
        assert!(gate.stop().success());
        wait_gone(&stage, name);
    }
    assert!(operator.stop().success());
}

fn a_gate_that_was_killed_is_told_of_as_silent() {
    let stage = Stage::new("silent");
    let operator = operator(&stage);
    let (gate_a, name_a) = reporting(&stage, "gate-a");
    let (gate_b, name_b) = reporting(&stage, "gate-b");
    for name in [&name_a, &name_b] {
        wait_object(&stage, name, "is current", |object| {
            (object.spec.state == Some(GateState::Current)).then_some(())
        });
    }
    let told = |name: &str| -> Vec<String> {
        let selector =
            format!("--field-selector=involvedObject.kind=Gate,involvedObject.name={name}");
        let reasons = "jsonpath={range .items[*]}{.reason}{\"\\n\"}{end}";
        let out = stage
            .cluster
            .kubectl(&["get", "events", "-n", NAMESPACE, &selector, "-o", reasons]);
        out.lines().map(str::to_owned).collect()
    };
    gate_a.kill();
    wait::until("the silence is told of", || match told(&name_a) {
        told if told.iter().any(|reason| reason == "GateSilent") => Ok(()),
        told => Err(format!("{told:?}")),
    });
    assert!(find(&stage, &name_a).is_some(), "what it said last stays");
    assert!(
        !told(&name_b).iter().any(|reason| reason == "GateSilent"),
        "the other one reports: {:?}",
        told(&name_b)
    );
    // It comes back under its name, as a StatefulSet's pod would.
    let (back, same) = reporting(&stage, "gate-a");
    assert_eq!(same, name_a);
    wait::until("it is told of again", || match told(&name_a) {
        told if told.iter().any(|reason| reason == "GateCurrent") => Ok(()),
        told => Err(format!("{told:?}")),
    });
    assert!(back.stop().success() && gate_b.stop().success());
    wait_gone(&stage, &name_a);
    wait_gone(&stage, &name_b);
    assert!(operator.stop().success());
}
