//! Gates that are silent or behind are told of.

use serde_json::{Value, json};

use super::{issue, report, stage};
use crate::stories;
use crate::support::operator::Operator;
use crate::support::stage::Stage;
use crate::support::wait;

stories![a_gate_that_is_behind_or_silent_is_told_of];

/// One gate does what it should; one has not reached what the controller saw; and both fall silent.
fn a_gate_that_is_behind_or_silent_is_told_of() {
    let stage = stage("standing");
    let operator = stage.operator().start_ready();
    report(&stage, "good", &standing(u64::MAX));
    report(&stage, "late", &standing(1));
    wait_counted(&operator, [2.0, 0.0, 0.0], || ());
    issue(&stage, &["k"]);
    let live = |more: u64| {
        report(
            &stage,
            "good",
            &json!({ "state": "Current", "keys": more, "reachedResourceVersion": u64::MAX.to_string() }),
        );
    };
    let mut beats = 0;
    wait_counted(&operator, [1.0, 1.0, 0.0], || {
        beats += 1;
        live(beats);
    });
    wait_told(&stage, "late", &["GateBehind"]);
    let reached = stage
        .apikey("k")
        .metadata
        .resource_version
        .unwrap()
        .parse()
        .unwrap();
    report(&stage, "late", &standing(reached));
    wait_told(&stage, "late", &["GateBehind", "GateCurrent"]);
    wait_counted(&operator, [1.0, 0.0, 1.0], || {
        beats += 1;
        live(beats);
    });
    wait_told(&stage, "late", &["GateBehind", "GateCurrent", "GateSilent"]);
    assert_eq!(
        told(&stage, "good"),
        Vec::<String>::new(),
        "who reports is no news"
    );
    let logs = operator.logs();
    let told: Vec<_> = logs
        .lines()
        .filter(|line| line.contains("WARN") && line.contains("gate=\"late\""))
        .collect();
    assert!(
        told.len() == 2 && told[0].contains("GateBehind") && told[1].contains("GateSilent"),
        "{told:?}"
    );

    stage.kubectl(&["delete", "gate", "late"]);
    wait_counted(&operator, [1.0, 0.0, 0.0], || ());
    assert!(operator.stop().success());
}

fn standing(reached: u64) -> Value {
    json!({ "state": "Current", "reachedResourceVersion": reached.to_string() })
}

/// Waits until so many gates are current, behind and silent.
fn wait_counted(operator: &Operator, wanted: [f64; 3], mut meanwhile: impl FnMut()) {
    let count = |state: &str| {
        operator
            .metric(&format!("claviger_gates{{state=\"{state}\"}}"))
            .unwrap_or(-1.0)
    };
    wait::until(&format!("gates are counted as {wanted:?}"), || {
        meanwhile();
        let seen = ["current", "behind", "silent"].map(count);
        let same = seen
            .iter()
            .zip(wanted)
            .all(|(seen, wanted)| (seen - wanted).abs() < 0.5);
        if same {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    });
}

/// The reasons of the events about a gate.
fn told(stage: &Stage, gate: &str) -> Vec<String> {
    let selector = format!("--field-selector=involvedObject.kind=Gate,involvedObject.name={gate}");
    let reasons = "jsonpath={range .items[*]}{.reason}{\"\\n\"}{end}";
    let out = stage.kubectl(&[
        "get",
        "events",
        &selector,
        "--sort-by=.metadata.creationTimestamp",
        "-o",
        reasons,
    ]);
    let mut all: Vec<_> = out.lines().map(str::to_owned).collect();
    // Of one second, their order is anybody's guess.
    all.sort();
    all
}

fn wait_told(stage: &Stage, gate: &str, reasons: &[&str]) {
    wait::until(&format!("{reasons:?} is told about {gate}"), || {
        let told = told(stage, gate);
        let mut wanted: Vec<_> = reasons.to_vec();
        wanted.sort_unstable();
        if told == wanted {
            Ok(())
        } else {
            Err(format!("{told:?}"))
        }
    });
}
