//! The access log and the metrics.

use serde_json::{Value, json};

use super::{AUDIENCE, ask, issued, wait_code};
use crate::stories;
use crate::support::client::Question;
use crate::support::gate::{Gate, METRICS};
use crate::support::proxies::{Kind, Proxy};
use crate::support::stage::Stage;
use crate::support::wait;

stories![
    the_access_log_names_keys_by_their_id_for_each_protocol,
    a_log_of_refusals_says_nothing_of_what_passes,
    every_metric_is_there_and_tells_what_happened,
];

const DIALECTS: [&str; 5] = ["envoy", "nginx", "traefik", "caddy", "haproxy"];

/// A key that passes and one that was revoked, with their IDs.
struct Keys {
    good: (String, String),
    revoked: (String, String),
}

impl Keys {
    fn new(stage: &Stage) -> Self {
        let with_id = |name: &str| {
            (
                issued(stage, name),
                stage.status(name).key_id.expect("an ID"),
            )
        };
        let keys = Self {
            good: with_id("good"),
            revoked: with_id("revoked"),
        };
        stage.patch("apikey/revoked", r#"{"spec": {"revoked": true}}"#);
        stage.wait_phase("revoked", claviger::api::Phase::Revoked);
        keys
    }

    /// Asks about each of both once by every protocol.
    fn ask_all(&self, gate: &Gate) {
        let envoy = Proxy::start(Kind::EnvoyGrpc, gate.plain_address());
        for ((key, _), status, code) in
            [(&self.good, 200, "VALID"), (&self.revoked, 401, "REVOKED")]
        {
            for dialect in DIALECTS {
                assert_eq!(
                    ask(gate, dialect, key),
                    (status, code.to_owned()),
                    "{dialect}"
                );
            }
            let question =
                Question::post("/v1/verify", &json!({ "key": key, "audience": AUDIENCE }));
            let answer = question.ask(gate.plain_address()).expect("an answer");
            assert_eq!((answer.status, &answer.json()["code"]), (200, &json!(code)));
            assert_eq!(envoy.ask(Question::get("/").bearer(key)).status, status);
        }
        assert_eq!(
            ask(gate, "envoy", "no-key-at-all"),
            (401, "MALFORMED".to_owned())
        );
    }

    fn assert_not_in(&self, text: &str) {
        for (key, _) in [&self.good, &self.revoked] {
            assert!(!text.contains(key.as_str()), "a key is written down");
            // Nor its random part alone.
            assert!(
                !text.contains(&key[key.len() - 38..]),
                "a key is written down"
            );
        }
    }
}

fn the_access_log_names_keys_by_their_id_for_each_protocol() {
    let stage = Stage::new("access-log");
    let _operator = stage.operator().start_ready();
    let keys = Keys::new(&stage);
    let arguments = [
        "--verify-callers=none",
        "--access-log=all",
        "--log-level=info",
    ];
    let text = Gate::builder(&stage.cluster).args(&arguments).start_ready();
    let json = Gate::builder(&stage.cluster)
        .args(&arguments)
        .args(&["--log-format=json"])
        .start_ready();
    for gate in [&text, &json] {
        wait_code(gate, &keys.good.0, "VALID");
        keys.ask_all(gate);
        // The last lines are written when it ends.
        assert!(gate.stop().success());
    }
    let (text, json) = (text.logs(), json.logs());
    let lines: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    for protocol in DIALECTS.into_iter().chain(["verify", "grpc"]) {
        for ((_, id), name, code) in [
            (&keys.good, "good", "VALID"),
            (&keys.revoked, "revoked", "REVOKED"),
        ] {
            let of_text = [
                "claviger::access: ".to_owned(),
                format!(
                    "protocol=\"{protocol}\" code=\"{code}\" audience=\"{AUDIENCE}\" key_id=\"{id}\""
                ),
                format!(
                    "namespace=\"{}\" name=\"{name}\" version=1",
                    stage.namespace
                ),
            ];
            let told = text
                .lines()
                .any(|line| of_text.iter().all(|part| line.contains(part.as_str())));
            assert!(told, "{of_text:?} in {text}");
            let told = lines.iter().any(|line| {
                line["target"] == "claviger::access"
                    && line["level"] == "INFO"
                    && (&line["protocol"], &line["code"], &line["key_id"])
                        == (&json!(protocol), &json!(code), &json!(id))
                    && (&line["namespace"], &line["name"], &line["version"])
                        == (&json!(stage.namespace), &json!(name), &json!(1))
                    && line["audience"] == AUDIENCE
            });
            assert!(told, "{protocol} {code} in {json}");
        }
    }
    // Of what is no key nothing is known, and nothing is written.
    let strange = text
        .lines()
        .find(|line| line.contains("MALFORMED"))
        .expect("a line");
    assert!(
        strange.ends_with(&format!(
            "protocol=\"envoy\" code=\"MALFORMED\" audience=\"{AUDIENCE}\""
        )),
        "{strange}"
    );
    assert!(!text.contains("no-key-at-all") && !json.contains("no-key-at-all"));
    keys.assert_not_in(&text);
    keys.assert_not_in(&json);
}

fn a_log_of_refusals_says_nothing_of_what_passes() {
    let stage = Stage::new("refusal-log");
    let _operator = stage.operator().start_ready();
    let keys = Keys::new(&stage);
    for (which, refusals, passes) in [
        ("refused", true, false),
        ("off", false, false),
        ("all", true, true),
    ] {
        let gate = Gate::builder(&stage.cluster)
            .args(&[&format!("--access-log={which}"), "--log-level=info"])
            .start_ready();
        assert_eq!(ask(&gate, "envoy", &keys.good.0), (200, "VALID".to_owned()));
        assert_eq!(
            ask(&gate, "envoy", &keys.revoked.0),
            (401, "REVOKED".to_owned())
        );
        assert!(gate.stop().success());
        let logs = gate.logs();
        assert_eq!(
            (logs.contains("REVOKED"), logs.contains("VALID")),
            (refusals, passes),
            "{which}: {logs}"
        );
        assert_eq!(logs.contains(&keys.revoked.1), refusals, "{which}: {logs}");
        keys.assert_not_in(&logs);
    }
}

/// How many verdicts were given by one protocol, of all codes.
fn decided(gate: &Gate, protocol: &str) -> f64 {
    let of_protocol = format!("claviger_gate_verdicts_total{{protocol=\"{protocol}\",");
    let metrics = gate.metrics();
    let samples = metrics
        .lines()
        .filter(|line| line.starts_with(&of_protocol) && !line.contains("MISCONFIGURED"));
    samples
        .map(|line| {
            line.rsplit(' ')
                .next()
                .and_then(|count| count.parse::<f64>().ok())
                .expect("a number")
        })
        .sum()
}

fn every_metric_is_there_and_tells_what_happened() {
    let stage = Stage::new("gate-metrics");
    let _operator = stage.operator().start_ready();
    let keys = Keys::new(&stage);
    stage.role(&format!("{}-role", stage.namespace), &["invoices:read"]);
    let proxy = stage.cluster.proxy();
    let gate = Gate::builder(&stage.cluster)
        .via(&proxy)
        .args(&["--verify-callers=none"])
        .start_ready();
    keys.ask_all(&gate);
    assert_eq!(
        ask(&gate, "no-such-dialect", ""),
        (403, "MISCONFIGURED".to_owned())
    );
    let wrong = Question::get("/v1/auth/nginx/audience=/-")
        .ask(gate.plain_address())
        .expect("an answer");
    assert_eq!(wrong.status, 403);

    let value = |name: &str| gate.metric(name);
    for protocol in DIALECTS.into_iter().chain(["verify", "grpc"]) {
        let verdicts = |code: &str| {
            value(&format!(
                "claviger_gate_verdicts_total{{protocol=\"{protocol}\",code=\"{code}\"}}"
            ))
        };
        assert_eq!(
            (verdicts("VALID"), verdicts("REVOKED")),
            (Some(1.0), Some(1.0)),
            "{protocol}"
        );
        assert_eq!(
            verdicts("MISCONFIGURED"),
            Some(if protocol == "nginx" { 1.0 } else { 0.0 }),
            "{protocol}"
        );
        assert_eq!(
            (verdicts("UNAVAILABLE"), verdicts("RATE_LIMITED")),
            (Some(0.0), Some(0.0)),
            "{protocol}"
        );
        let took = value(&format!(
            "claviger_gate_decision_duration_seconds_count{{protocol=\"{protocol}\"}}"
        ));
        assert_eq!(took, Some(decided(&gate, protocol)), "{protocol}");
    }
    assert!(
        value("claviger_gate_keys") >= Some(2.0) && value("claviger_gate_roles") >= Some(1.0),
        "{}",
        gate.metrics()
    );
    assert_eq!(
        (
            value("claviger_gate_ready"),
            value("claviger_gate_undecodable_objects_total")
        ),
        (Some(1.0), Some(0.0))
    );
    for resource in ["apikeys", "apikeyroles"] {
        let age = value(&format!(
            "claviger_gate_last_event_age_seconds{{resource=\"{resource}\"}}"
        ));
        assert!(age >= Some(0.0), "{resource}: {age:?}");
    }

    // A change is counted, and a watch that the API server does not let go on.
    stage.patch("apikey/good", r#"{"spec": {"revoked": true}}"#);
    wait_code(&gate, &keys.good.0, "REVOKED");
    assert!(
        value("claviger_gate_changes_total{resource=\"apikeys\"}") >= Some(1.0),
        "{}",
        gate.metrics()
    );
    assert!(
        value("claviger_gate_index_lag_seconds_count") >= Some(1.0),
        "{}",
        gate.metrics()
    );
    proxy.expire_watches("apikeys");
    wait::until("it is counted", || {
        match value("claviger_gate_watch_restarts_total{resource=\"apikeys\"}") {
            Some(count) if count >= 1.0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });

    // Nothing is there that the list does not have, and the other way round.
    let metrics = gate.metrics();
    let mut there: Vec<_> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    there.sort_unstable();
    let listed: Vec<_> = METRICS
        .iter()
        .map(|(name, kind, _)| (*name, *kind))
        .collect();
    assert_eq!(there, listed);
    for (name, _, labels) in METRICS {
        let sample = |line: &&str| line.starts_with(name) && !line.starts_with('#');
        let samples: Vec<_> = metrics.lines().filter(sample).collect();
        assert!(!samples.is_empty(), "{name} has no value:\n{metrics}");
        for label in *labels {
            assert!(
                samples
                    .iter()
                    .any(|line| line.contains(&format!("{label}=\""))),
                "{name} has no {label}: {samples:?}"
            );
        }
    }
    keys.assert_not_in(&metrics);
}
