//! Uses on their way into the status.

use std::time::Duration;

use claviger::api::{MAX_USES, Phase};
use jiff::SignedDuration;
use serde_json::json;

use super::{ago, as_gate, issue, report, shown, stage, used, wait_shown};
use crate::stories;
use crate::support::proxy::{Call, Fault, Matcher, Record, Verb, When};
use crate::support::stage::Stage;
use crate::support::wait;

stories![
    a_use_that_a_gate_tells_is_shown_to_the_hour,
    a_hundred_uses_cost_a_write_each_whoever_is_killed,
    what_cannot_be_is_not_shown,
    an_apikey_created_anew_gets_nothing_of_the_old_one,
];

fn writes(call: &Call) -> bool {
    Matcher::call(Verb::Patch, "apikeys/status").matches(call)
}

fn a_use_that_a_gate_tells_is_shown_to_the_hour() {
    let stage = stage("used");
    let operator = stage.operator().start_ready();
    issue(&stage, &["k", "later"]);
    let columns = || stage.kubectl(&["get", "ak", "k", "-o", "wide"]);
    assert!(columns().contains("LAST USED"), "{}", columns());

    // No key was used before there was one.
    let issued = json!({ "status": { "issuedAt": ago(86_400).to_string() } }).to_string();
    stage.kubectl(&[
        "patch",
        "ak",
        "k",
        "--subresource=status",
        "--type=merge",
        "-p",
        &issued,
    ]);
    let first = ago(7_200);
    let mut told = 0;
    wait::until("the use is shown", || {
        // As gates do, which tell until it is; the controller may not have seen yet since when there is a key.
        told += 1;
        report(
            &stage,
            "gate-a",
            &json!({ "keys": told, "uses": [used(&stage, "k", first), used(&stage, "later", first)] }),
        );
        let shown = shown(&stage.status("k"));
        if shown == Some(first) {
            Ok(())
        } else {
            Err(format!("{shown:?}"))
        }
    });
    assert_eq!(shown(&stage.status("later")), None, "there was no key yet");
    assert!(columns().contains("120m"), "{}", columns());

    // What a gate tells first is written first: once the other key's use is shown, this one's was passed over.
    let (within, marker) = (first + SignedDuration::from_secs(3_599), ago(10));
    report(
        &stage,
        "gate-b",
        &json!({ "uses": [used(&stage, "k", within), used(&stage, "later", marker)] }),
    );
    wait_shown(&stage, "later", marker);
    assert_eq!(
        shown(&stage.status("k")),
        Some(first),
        "within the hour nothing is written"
    );
    let (after, before) = (
        first + SignedDuration::from_secs(3_600),
        first - SignedDuration::from_secs(7_200),
    );
    report(
        &stage,
        "gate-a",
        &json!({ "uses": [used(&stage, "k", before)] }),
    );
    report(
        &stage,
        "gate-b",
        &json!({ "uses": [used(&stage, "k", after)] }),
    );
    wait_shown(&stage, "k", after);

    // All that the account of a gate can do is tell.
    let uid = stage.apikey("k").metadata.uid.unwrap();
    for patch in [
        json!({ "status": { "phase": "Revoked" } }),
        json!({ "metadata": { "uid": uid }, "status": { "lastUsedAt": null } }),
    ] {
        let patch = patch.to_string();
        let (done, said) = as_gate(
            &stage,
            &[
                "patch",
                "ak",
                "k",
                "--subresource=status",
                "--type=merge",
                "-p",
                &patch,
            ],
            "",
        );
        assert!(
            !done && said.contains("(Forbidden)") && said.contains("apikeys/status"),
            "{said}"
        );
    }
    let refused = stage.cluster.try_kubectl(
        &[
            "-n",
            &stage.namespace,
            "patch",
            "ak",
            "k",
            "--subresource=status",
            "--type=merge",
            "-p",
            "{\"status\": {\"lastUsedAt\": null}}",
        ],
        "",
    );
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("status.lastUsedAt can only grow"),
        "{said}"
    );
    assert_eq!(operator.metric("claviger_last_use_writes_total"), Some(3.0));
    assert!(operator.stop().success());
}

/// Each use costs one write, and a change of the status by it costs none. What a controller that dies has not written, the next one
/// writes: the gate tells until the status shows it.
fn a_hundred_uses_cost_a_write_each_whoever_is_killed() {
    const KEYS: usize = 100;
    let stage = stage("hundred");
    let proxy = stage.cluster.proxy();
    let operator = stage.operator_via(&proxy).start_ready();
    stage.declare_many("key", KEYS, "{}");
    stage.wait_many(KEYS, Phase::Active);
    let moments: Vec<_> = (0..KEYS)
        .map(|number| ago(i64::try_from(number % MAX_USES).unwrap()))
        .collect();
    let uses: Vec<_> = (0..KEYS)
        .map(|number| used(&stage, &format!("key-{number}"), moments[number]))
        .collect();
    assert!(
        proxy.wait_quiet(Duration::from_secs(1), wait::LIMIT, Call::is_mutation),
        "it comes to rest"
    );
    proxy.reset();
    let killer = proxy.on(
        Matcher::call(Verb::Patch, "apikeys/status").nth(20),
        When::After,
        Fault::call(operator.killer()),
    );
    // Two gates have seen the same, and both go on telling.
    let (some, others) = uses.split_at(MAX_USES);
    report(&stage, "gate-a", &json!({ "keys": KEYS, "uses": some }));
    report(&stage, "gate-b", &json!({ "keys": KEYS, "uses": some }));
    report(&stage, "gate-c", &json!({ "keys": KEYS, "uses": others }));
    assert!(killer.fired(wait::LIMIT));
    let operator = stage.operator_via(&proxy).start_ready();
    report(&stage, "gate-b", &json!({ "keys": KEYS + 1, "uses": some }));
    report(
        &stage,
        "gate-c",
        &json!({ "keys": KEYS + 1, "uses": others }),
    );
    wait::until("every use is shown", || {
        let right = |number: &usize| {
            shown(&stage.status(&format!("key-{number}"))) == Some(moments[*number])
        };
        let right = (0..KEYS).filter(right).count();
        if right == KEYS {
            Ok(())
        } else {
            Err(format!("{right}"))
        }
    });
    report(&stage, "gate-a", &json!({ "keys": KEYS + 2, "uses": some }));
    assert!(
        proxy.wait_quiet(Duration::from_secs(1), wait::LIMIT, Call::is_mutation),
        "it comes to rest"
    );
    let written = proxy
        .calls()
        .iter()
        .filter(|record| writes(&record.call) && record.accepted())
        .count();
    assert_eq!(written, KEYS, "a write each");
    let work = |call: &Call| Matcher::work().matches(call) && !writes(call);
    let others: Vec<_> = proxy
        .calls()
        .iter()
        .filter(|record| work(&record.call))
        .map(ToString::to_string)
        .collect();
    assert_eq!(others, Vec::<String>::new(), "and no other");
    assert!(operator.stop().success());
}

fn what_cannot_be_is_not_shown() {
    let stage = stage("cannot");
    let other = Stage::new("cannot-other");
    let proxy = stage.cluster.proxy();
    let operator = stage.operator_via(&proxy).start_ready();
    issue(&stage, &["future", "foreign", "marker"]);
    other.declare("elsewhere", "{}");
    proxy.reset();
    let moment = ago(10);
    let of = |namespace: &str, name: &str, uid: &str| json!({ "namespace": namespace, "name": name, "uid": uid, "usedAt": moment });
    let uid = |stage: &Stage, name: &str| stage.apikey(name).metadata.uid.unwrap();
    let uses = [
        used(&stage, "future", ago(-300)),
        of(&stage.namespace, "foreign", &uid(&stage, "marker")),
        of(&stage.namespace, "nobody", "0"),
        // One that this controller does not look at.
        of(&other.namespace, "elsewhere", &uid(&other, "elsewhere")),
        used(&stage, "marker", moment),
    ];
    report(&stage, "gate-a", &json!({ "uses": uses }));
    wait_shown(&stage, "marker", moment);
    assert!(
        proxy.wait_quiet(Duration::from_secs(1), wait::LIMIT, Call::is_mutation),
        "it comes to rest"
    );
    assert_eq!(proxy.count(writes), 1);
    for name in ["future", "foreign"] {
        assert_eq!(shown(&stage.status(name)), None, "{name}");
    }
    assert_eq!(shown(&other.status("elsewhere")), None);
    assert!(operator.stop().success());
}

/// The controller may not know yet that the ApiKey is another: the write says which one it means.
fn an_apikey_created_anew_gets_nothing_of_the_old_one() {
    let stage = stage("anew");
    let proxy = stage.cluster.proxy();
    let operator = stage.operator_via(&proxy).start_ready();
    issue(&stage, &["k"]);
    let old = used(&stage, "k", ago(10));
    proxy.hold_watches("apikeys");
    stage.kubectl(&["delete", "ak", "k", "--wait=false"]);
    // The controller, which sees nothing, cannot take it off.
    stage.patch("apikey/k", "{\"metadata\": {\"finalizers\": null}}");
    stage.wait_gone("k");
    stage.declare("k", "{}");
    report(&stage, "gate-a", &json!({ "uses": [old] }));
    let refused = |record: &Record| writes(&record.call) && record.upstream.is_some();
    assert!(proxy.wait_for(wait::LIMIT, refused));
    let answers: Vec<_> = proxy
        .calls()
        .into_iter()
        .filter(refused)
        .map(|record| record.upstream)
        .collect();
    assert_eq!(answers, [Some(422)]);
    proxy.release_watches("apikeys");
    stage.wait("k", "is looked at", |status| {
        status.observed_generation.is_some()
    });
    report(&stage, "gate-a", &json!({ "keys": 1, "uses": [old] }));
    let new = ago(20);
    report(
        &stage,
        "gate-b",
        &json!({ "uses": [used(&stage, "k", new)] }),
    );
    wait_shown(&stage, "k", new);
    assert_eq!(proxy.count(writes), 2);
    assert!(operator.stop().success());
}
