//! What a running controller says of itself: health, metrics, logs.

use claviger::api::Phase;
use serde_json::Value;

use crate::stories;
use crate::support::client::Question;
use crate::support::proxy::{Fault, Hold, Matcher, Verb, When};
use crate::support::stage::Stage;
use crate::support::wait::{self, LIMIT};

stories![
    health_and_metrics_tell_how_it_is,
    logs_in_json_name_the_object_they_are_about,
];

fn health_and_metrics_tell_how_it_is() {
    let stage = Stage::new("metrics");
    let proxy = stage.cluster.proxy();
    let operator = stage.operator_via(&proxy).start_ready();
    assert_eq!(operator.get("/healthz"), Some((200, "ok\n".to_owned())));
    assert_eq!(operator.get("/readyz"), Some((200, "ok\n".to_owned())));
    assert_eq!(operator.get("/elsewhere").unwrap().0, 404);
    assert_eq!(
        operator.metric("claviger_next_expiry_seconds"),
        Some(-1.0),
        "none will"
    );
    stage.declare("plain", "{}");
    stage.declare("lasting", "{expiry: {after: 90d}}");
    stage.declare("short", "{expiry: {after: 10s}}");
    stage.declare("revoked", "{revoked: true}");
    stage.wait_many(2, Phase::Active);
    stage.wait_phase("short", Phase::Expired);
    stage.wait_phase("revoked", Phase::Revoked);
    for (name, value) in [
        ("claviger_keys{phase=\"Pending\"}", 0.0),
        ("claviger_keys{phase=\"Active\"}", 2.0),
        ("claviger_keys{phase=\"Expired\"}", 1.0),
        ("claviger_keys{phase=\"Revoked\"}", 1.0),
        ("claviger_undecodable_objects", 0.0),
        ("claviger_objects_waiting", 0.0),
        ("claviger_objects_working", 0.0),
        ("claviger_leading", 1.0),
        (
            "claviger_api_writes_total{verb=\"create\",resource=\"secrets\"}",
            3.0,
        ),
        // The mark on the Secret of the key that has expired.
        (
            "claviger_api_writes_total{verb=\"patch\",resource=\"secrets\"}",
            1.0,
        ),
    ] {
        wait::until(name, || match operator.metric(name) {
            Some(now) if (now - value).abs() < f64::EPSILON => Ok(()),
            _ => Err(operator.metrics()),
        });
    }
    let left = operator.metric("claviger_next_expiry_seconds").unwrap();
    assert!(
        (1.0..=90.0 * 86_400.0).contains(&left),
        "{left} s until lasting expires"
    );
    for name in [
        "claviger_reconciles_total{outcome=\"Changed\"}",
        "claviger_reconciles_total{outcome=\"Unchanged\"}",
        "claviger_reconcile_duration_seconds_count",
        "claviger_reconcile_duration_seconds_sum",
        "claviger_api_requests_total{verb=\"list\",resource=\"apikeys\",code=\"200\"}",
    ] {
        assert!(
            operator.metric(name).is_some_and(|value| value > 0.0),
            "{name}\n{}",
            operator.metrics()
        );
    }
    // What is being worked on, what fails and waits.
    let hold = Hold::new();
    proxy.on(
        Matcher::call(Verb::Create, "secrets"),
        When::Before,
        Fault::Delay(hold.clone()),
    );
    stage.declare("slow", "{}");
    assert!(hold.reached(LIMIT));
    assert_eq!(operator.metric("claviger_objects_working"), Some(1.0));
    assert_eq!(
        operator.metric("claviger_keys{phase=\"Pending\"}"),
        Some(1.0)
    );
    hold.release();
    stage.wait_issued("slow");
    let failing = proxy
        .on(
            Matcher::call(Verb::Update, "apikeys/status"),
            When::Before,
            Fault::Respond(500),
        )
        .always();
    stage.declare("failing", "{}");
    assert!(failing.fired_times(2, LIMIT));
    wait::until_true("it waits", || {
        operator.metric("claviger_objects_waiting") == Some(1.0)
    });
    assert!(
        operator
            .metric("claviger_reconcile_errors_total{kind=\"api\"}")
            .is_some_and(|errors| errors >= 1.0)
    );
    assert!(
        operator
            .metric("claviger_reconciles_total{outcome=\"Failed\"}")
            .is_some_and(|failed| failed >= 1.0)
    );
    failing.remove();
    stage.wait_issued("failing");
    let metrics = operator.metrics();
    for word in ["lasting", "failing", &stage.namespace] {
        assert!(
            !metrics.contains(word),
            "no series names an object: {word}\n{metrics}"
        );
    }
    let (openmetrics, prometheus) = ("application/openmetrics-text", "text/plain; version=0.0.4");
    for (accepts, format) in [(openmetrics, openmetrics), ("*/*", prometheus)] {
        let question = Question::get("/metrics").header("accept", accepts);
        let answer = question.ask(operator.address().unwrap()).unwrap();
        assert!(answer.header("content-type").unwrap().starts_with(format));
        let counter = answer
            .body
            .contains("# TYPE claviger_events_dropped_total counter");
        assert_eq!(counter, format == prometheus, "{}", answer.body);
    }
}

fn logs_in_json_name_the_object_they_are_about() {
    let stage = Stage::new("json");
    let operator = stage.operator().args(&["--log-format=json"]).start_ready();
    stage.declare("key", "{}");
    stage.wait_issued("key");
    assert!(operator.stop().success());
    let logs = operator.logs();
    let lines: Vec<Value> = logs
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect();
    for message in ["announced", "delivered"] {
        let line = lines
            .iter()
            .find(|line| line["message"] == message)
            .unwrap_or_else(|| panic!("{message}: {logs}"));
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["version"], 1);
        let spans = line["spans"].as_array().unwrap();
        let span = spans
            .iter()
            .find(|span| span["name"] == "apikey")
            .unwrap_or_else(|| panic!("{line}"));
        assert_eq!(span["namespace"], stage.namespace.as_str());
        assert_eq!(span["apikey"], "key");
        assert_eq!(
            span["uid"],
            stage.apikey("key").metadata.uid.unwrap().as_str()
        );
    }
}
