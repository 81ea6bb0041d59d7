//! Versions that replace one another: when they are due, what becomes of the one before, and what nobody may notice of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use claviger::api::{ApiKey, ApiKeyStatus, ConditionType, Version, VersionPhase};
use claviger::key::Hash;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::drift::{create, eager, message, wait_secret};
use crate::stories;
use crate::support::cluster::runtime;
use crate::support::history::{State, values};
use crate::support::kstatus::kstatus;
use crate::support::proxy::{Call, Fault, Hold, Matcher, Proxy, Verb, When};
use crate::support::stage::{Stage, condition, manifest};
use crate::support::wait::{self, LIMIT};

stories![
    a_holder_that_reads_again_in_time_never_holds_a_key_that_does_not_pass,
    a_declared_interval_rotates_in_its_last_tenth_and_the_old_version_retires,
    lowering_the_overlap_ends_a_leaked_version_at_once,
    a_revision_raised_again_and_again_delivers_once_for_each_that_was_seen,
    a_revision_is_acted_on_once,
    the_ninth_version_waits_until_one_retires,
    a_rotation_that_cannot_deliver_leaves_the_old_version_and_heals,
    whatever_became_of_the_secret_a_revision_delivers_into_it_or_says_why_not,
    a_rotation_changes_nothing_that_others_put_there,
    only_the_last_five_retired_versions_stay_listed,
    a_version_that_was_to_end_while_nobody_worked_ends_before_anything_else,
    applying_the_same_manifest_during_a_rotation_moves_nothing,
];

/// How many holders there are, each with a key, a controller and a proxy of its own.
const HOLDERS: usize = 8;
/// How many rotations each of them lives through.
const ROTATIONS: usize = 25;
/// How many requests a rotation makes at least: it is announced, delivered, activated and told.
const REQUESTS: usize = 4;
/// How long a replaced version passes, and when holders read again.
const OVERLAP: Duration = Duration::from_secs(8);
const DELAY: Duration = Duration::from_millis(300);
/// What still counts as having read again in time, on a machine that is busy: ends are whole seconds.
const IN_TIME: Duration = Duration::from_secs(7);

/// Incidents 1, 22: every rotation is hit by a kill, at each of its requests in turn, before and after. Whoever reads the Secret
/// again within the overlap holds, at every instant, a key that a gate accepts.
fn a_holder_that_reads_again_in_time_never_holds_a_key_that_does_not_pass() {
    let (kills, reads) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for holder in 0..HOLDERS {
            let (kills, reads) = (&kills, &reads);
            scope.spawn(move || rotate_and_hold(holder, kills, reads));
        }
    });
    println!("{} rotations, {kills:?} kills, {reads:?} reads of a Secret", HOLDERS * ROTATIONS);
}

fn rotate_and_hold(holder: usize, kills: &AtomicUsize, reads: &AtomicUsize) {
    let stage = Stage::new("holder");
    let history = stage.history();
    let proxy = stage.cluster.proxy();
    let mut operator = stage.operator_via(&proxy).start_ready();
    stage.declare("k", &format!("{{rotation: {{overlap: {}s}}}}", OVERLAP.as_secs()));
    stage.wait_issued("k");
    let done = AtomicBool::new(false);
    let holds = std::thread::scope(|scope| {
        let holding = scope.spawn(|| hold(&stage, &done));
        // Also where the story ends badly: the holder must not go on for ever.
        let _ending = Ending(&done);
        for rotation in 1..=ROTATIONS {
            let strike = (holder + rotation) % (2 * REQUESTS);
            let when = if strike.is_multiple_of(2) { When::Before } else { When::After };
            let single = |call: &Call| !matches!(call.verb, Verb::List | Verb::Watch) && call.namespace.is_some();
            let killed = proxy.on(Matcher::any().filter(single).nth(strike / 2 + 1), when, Fault::call(operator.killer()));
            stage.raise("k", rotation);
            assert!(killed.fired(LIMIT), "it is killed: {:#?}", proxy.calls());
            kills.fetch_add(1, Ordering::Relaxed);
            operator = stage.operator_via(&proxy).start_ready();
            stage.wait_rotated("k", rotation);
            proxy.reset();
        }
        done.store(true, Ordering::SeqCst);
        holding.join().unwrap()
    });
    reads.fetch_add(holds.len(), Ordering::Relaxed);
    history.check();
    let states = history.states();
    assert_eq!(values(&states)["k"].len(), 1 + ROTATIONS, "one value for each rotation");
    // What the gate said at two moments of each hold is so for all of it: no state ever ended a version before it was let go.
    let mut ends: BTreeMap<&str, Timestamp> = BTreeMap::new();
    let statuses = states.iter().filter_map(|state| match state {
        State::Apikey(apikey) => apikey.status.as_ref(),
        _ => None,
    });
    for version in statuses.flat_map(|status| &status.versions) {
        if let Some(end) = &version.retires_at {
            ends.entry(&version.hash).and_modify(|known| *known = end.0.min(*known)).or_insert(end.0);
        }
    }
    for (hash, until) in &holds {
        assert!(ends.get(hash.as_str()).is_none_or(|end| until < end), "held until {until}: {hash} of {ends:?}");
    }
    assert!(holds.len() > ROTATIONS, "it has read again and again: {}", holds.len());
}

/// Reads the Secret, holds what it read for the delay, and so on. Returns what was held, and until when.
fn hold(stage: &Stage, done: &AtomicBool) -> Vec<(String, Timestamp)> {
    let mut holds = Vec::new();
    while !done.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let hash = Hash::of(stage.mounted("k")["api-key"].as_bytes()).to_string();
        assert_passes(stage, &hash);
        std::thread::park_timeout(DELAY);
        if begun.elapsed() < IN_TIME {
            holds.push((hash.clone(), Timestamp::now()));
            assert_passes_if(stage, &hash, begun);
        }
    }
    holds
}

/// What a gate says that has seen the ApiKey as it is now.
fn assert_passes(stage: &Stage, hash: &str) {
    assert_passes_if(stage, hash, Instant::now());
}

fn assert_passes_if(stage: &Stage, hash: &str, held_since: Instant) {
    let status = stage.status("k");
    let now = Timestamp::now();
    let version = status.versions.iter().find(|version| version.hash == hash);
    let passes = version.is_some_and(|version| match version.phase {
        VersionPhase::Announced | VersionPhase::Current => true,
        VersionPhase::Retiring => version.retires_at.as_ref().is_some_and(|end| now < end.0),
        VersionPhase::Retired => false,
    });
    let in_time = held_since.elapsed() < IN_TIME;
    assert!(passes || !in_time, "{hash} is held and does not pass at {now}: {status:?}");
}

struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The interval, its jitter, and what follows a rotation that was due by it.
fn a_declared_interval_rotates_in_its_last_tenth_and_the_old_version_retires() {
    const KEYS: usize = 20;
    let stage = Stage::new("interval");
    let history = stage.history();
    let _operator = stage.operator().start_ready();
    stage.declare_many("month", KEYS, r#"{"rotation": {"every": "30d", "overlap": "1h"}}"#);
    stage.declare("k", "{rotation: {every: 5s, overlap: 2s}}");
    let mut early = Vec::new();
    for number in 0..KEYS {
        let status = stage.wait_issued(&format!("month-{number}"));
        let activated = status.versions[0].activated_at.clone().unwrap().0;
        let wait = status.rotates_at.unwrap().0.duration_since(activated);
        let (least, most) = (SignedDuration::from_hours(27 * 24), SignedDuration::from_hours(30 * 24));
        assert!((least..=most).contains(&wait), "between nine tenths of it and all of it: {wait:?}");
        early.push(wait.as_secs());
    }
    early.sort_unstable();
    early.dedup();
    assert!(early.len() > KEYS / 2, "each at a moment of its own: {early:?}");
    let first = stage.status("k");
    let status = stage.wait("k", "has its third version", |status| status.version >= Some(3));
    let [one, two] = [&status.versions[0], &status.versions[1]];
    assert_eq!(one.hash, first.hash.unwrap());
    assert_eq!((one.version, one.phase), (1, VersionPhase::Retired));
    for old in [one, two] {
        let [activated, replaced, retires] =
            [&old.activated_at, &old.replaced_at, &old.retires_at].map(|time| time.clone().unwrap().0);
        assert!(replaced.duration_since(activated) >= SignedDuration::from_secs(4), "not before nine tenths of it: {old:?}");
        assert_eq!(retires.duration_since(replaced), SignedDuration::from_secs(2), "the overlap: {old:?}");
    }
    stage.wait_event("k", "Rotated");
    stage.wait_event("k", "Retired");
    assert_eq!(stage.status("month-0").version, Some(1));
    history.check();
}

/// What is lowered counts for what is retiring already; what is raised does not.
fn lowering_the_overlap_ends_a_leaked_version_at_once() {
    let stage = Stage::new("leaked");
    let history = stage.history();
    let _operator = stage.operator().start_ready();
    let overlap = |text: &str| stage.merge("k", json!({ "spec": { "rotation": { "overlap": text } } }));
    stage.declare("k", "{}");
    stage.wait_issued("k");
    stage.raise("k", 1);
    let old = first(&stage.wait_rotated("k", 1));
    let passes = |version: &Version| version.retires_at.clone().unwrap().0.duration_since(version.replaced_at.clone().unwrap().0);
    assert_eq!((old.phase, passes(&old)), (VersionPhase::Retiring, SignedDuration::from_hours(24)), "a day by default");
    overlap("2h");
    let lowered = first(&stage.wait("k", "ends sooner", |status| passes(&first(status)) == SignedDuration::from_hours(2)));
    overlap("20h");
    let generation = stage.apikey("k").metadata.generation;
    let status = stage.wait("k", "was looked at", |status| status.observed_generation == generation);
    assert_eq!(first(&status).retires_at, lowered.retires_at, "raising it extends nothing");
    overlap("0s");
    let status = stage.wait("k", "has ended it", |status| first(status).phase == VersionPhase::Retired);
    assert!(first(&status).retires_at.unwrap().0 <= Timestamp::now());
    stage.wait_event("k", "Retired");
    overlap("20h");
    let generation = stage.apikey("k").metadata.generation;
    let status = stage.wait("k", "was looked at", |status| status.observed_generation == generation);
    assert_eq!(first(&status).phase, VersionPhase::Retired, "for good");
    stage.wait_issued("k");
    history.check();
}

/// Incidents 21: raised during a rotation, twice at once, and twice in one second.
fn a_revision_raised_again_and_again_delivers_once_for_each_that_was_seen() {
    let stage = Stage::new("again");
    let history = stage.history();
    let proxy = stage.cluster.proxy();
    let _operator = stage.operator_via(&proxy).start_ready();
    stage.declare("k", "{}");
    stage.wait_issued("k");
    let hold = Hold::new();
    proxy.on(Matcher::call(Verb::Patch, "secrets"), When::Before, Fault::Delay(hold.clone()));
    stage.raise("k", 1);
    assert!(hold.reached(LIMIT), "it delivers");
    stage.raise("k", 2);
    stage.raise("k", 3);
    hold.release();
    let status = stage.wait_rotated("k", 3);
    let asked: Vec<_> = status.versions.iter().map(|version| version.revision).collect();
    assert_eq!(asked, [None, Some(1), Some(3)], "what nobody saw was not asked for");
    // Each as soon as the one before was acted on: several in one second.
    for revision in 4..=6 {
        stage.raise("k", revision);
        stage.wait_rotated("k", revision);
    }
    stage.raise("k", 7);
    stage.raise("k", 8);
    let status = stage.wait_rotated("k", 8);
    let versions = status.versions.len();
    assert!((7..=8).contains(&versions), "one for each of four to six, one or two for the last two: {status:?}");
    stage.wait_issued("k");
    history.check();
    assert_eq!(values(&history.states())["k"].len(), versions, "each value for a version");
}

/// Incidents 5, 21: what stands in the spec and was acted on is no reason to rotate, be it after a restart or an apply.
fn a_revision_is_acted_on_once() {
    let stage = Stage::new("once");
    let history = stage.history();
    let proxy = stage.cluster.proxy();
    let operator = stage.operator_via(&proxy).start_ready();
    stage.declare("k", "{revision: 3}");
    let status = stage.wait_issued("k");
    assert_eq!((status.version, status.revision), (Some(1), Some(3)), "the first version is for it");
    stage.declare("k", "{revision: 4}");
    let status = stage.wait_rotated("k", 4);
    assert_eq!(status.version, Some(2));
    rest(&proxy);
    assert!(operator.stop().success());
    let before = stage.apikey("k").resource_version();
    proxy.reset();
    let operator = stage.operator_via(&proxy).start_ready();
    wait::until_true("it has looked", || {
        operator.metric("claviger_reconcile_duration_seconds_count").is_some_and(|looked| looked >= 1.0)
    });
    stage.declare("k", "{revision: 4}");
    rest(&proxy);
    assert_eq!(proxy.mutations().len(), 0, "{:?}", proxy.mutations());
    assert_eq!(stage.apikey("k").resource_version(), before);
    history.check();
}

/// At most eight overlap.
fn the_ninth_version_waits_until_one_retires() {
    let stage = Stage::new("ninth");
    let history = stage.history();
    let _operator = stage.operator().start_ready();
    stage.declare("k", "{rotation: {overlap: 1h}}");
    stage.wait_issued("k");
    for revision in 1..=7 {
        stage.raise("k", revision);
        stage.wait_rotated("k", revision);
    }
    stage.raise("k", 8);
    let status = stage.wait_reason("k", ConditionType::Ready, "RotationWaits");
    assert_eq!((status.version, status.versions.len()), (Some(8), 8), "it waits: {status:?}");
    assert_eq!(condition(&status, ConditionType::Stalled), "False/NotStalled");
    assert_eq!(condition(&status, ConditionType::Delivered), "True/Delivered");
    let text = message(&status, ConditionType::Ready);
    let end = first(&status).retires_at.unwrap().0;
    assert!(text.contains(&format!("it waits until {end}")), "{text}");
    stage.wait_event("k", "RotationWaits");
    // The oldest ends in a moment, by itself.
    let overlap = Timestamp::now().duration_since(first(&status).replaced_at.unwrap().0).as_secs() + 3;
    stage.merge("k", json!({ "spec": { "rotation": { "overlap": format!("{overlap}s") } } }));
    let status = stage.wait_rotated("k", 8);
    assert_eq!((status.version, first(&status).phase), (Some(9), VersionPhase::Retired));
    assert_eq!(condition(&stage.wait_issued("k"), ConditionType::Ready), "True/Issued");
    history.check();
}

/// Incidents 3, 31: the old version stays in use, the ApiKey says why, and nothing is left to do once the way is free.
fn a_rotation_that_cannot_deliver_leaves_the_old_version_and_heals() {
    let stage = Stage::new("undeliverable");
    let history = stage.history();
    let _operator = eager(&stage);
    stage.declare("k", "{}");
    let issued = stage.wait_issued("k");
    let before = stage.secret("k").unwrap();
    let policy = UNWRITABLE.replace("NAMESPACE", &stage.namespace);
    stage.cluster.apply(&policy);
    let write = || stage.try_kubectl(&["annotate", "secret", "k", "probe=1", "--overwrite", "--dry-run=server"]);
    wait::until_true("no Secret can be written", || !write().status.success());
    stage.raise("k", 1);
    let status = stage.wait_reason("k", ConditionType::Ready, "DeliveryRefused");
    assert_eq!(status.versions, issued.versions, "the old version is the current one, and nothing else is listed");
    assert_eq!(condition(&status, ConditionType::Stalled), "True/DeliveryRefused");
    assert_eq!(condition(&status, ConditionType::Delivered), "True/Delivered", "the Secret holds the current version");
    assert_eq!(condition(&status, ConditionType::Usable), "True/Active");
    assert!(message(&status, ConditionType::Ready).contains("no Secret is written here"), "{status:?}");
    stage.wait_event("k", "DeliveryRefused");
    assert_eq!(stage.secret("k").unwrap().resource_version(), before.resource_version());
    stage.cluster.kubectl_with(&["delete", "-f", "-"], &policy);
    let status = stage.wait_rotated("k", 1);
    assert_eq!(first(&status).phase, VersionPhase::Retiring);
    assert_eq!(condition(&stage.wait_issued("k"), ConditionType::Ready), "True/Issued");
    history.check();
    assert_eq!(values(&history.states())["k"].len(), 2);
}

const UNWRITABLE: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: NAMESPACE}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [UPDATE], resources: [secrets]}
  validations:
  - {expression: "false", message: no Secret is written here}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: NAMESPACE}
spec:
  policyName: NAMESPACE
  validationActions: [Deny]
  matchResources:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NAMESPACE}}
"#;

/// Incidents 6, 7, 11, 31: a revision heals a Secret that is missing or edited; one that is immutable or somebody else's is left
/// alone until it goes.
fn whatever_became_of_the_secret_a_revision_delivers_into_it_or_says_why_not() {
    let stage = Stage::new("became");
    let history = stage.history();
    let _operator = eager(&stage);
    for name in ["missing", "edited", "immutable", "taken"] {
        stage.declare(name, "{}");
        stage.wait_issued(name);
    }
    stage.kubectl(&["delete", "secret", "missing", "taken"]);
    stage.patch("secret/edited", r#"{"stringData": {"api-key": "something else"}}"#);
    stage.patch("secret/immutable", r#"{"immutable": true}"#);
    create(
        &stage,
        r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "taken"}, "stringData": {"api-key": "theirs"}}"#,
    );
    stage.wait_reason("missing", ConditionType::Delivered, "SecretMissing");
    stage.wait_reason("edited", ConditionType::Delivered, "SecretChanged");
    stage.wait_reason("taken", ConditionType::Delivered, "SecretConflict");
    let before = ["immutable", "taken"].map(|name| stage.secret(name).unwrap().resource_version());
    for name in ["missing", "edited", "immutable", "taken"] {
        stage.raise(name, 1);
    }
    for name in ["missing", "edited"] {
        stage.wait_rotated(name, 1);
        let status = stage.wait_issued(name);
        assert_eq!((condition(&status, ConditionType::Ready).as_str(), status.version), ("True/Issued", Some(2)));
    }
    for (name, reason) in [("immutable", "SecretImmutable"), ("taken", "SecretConflict")] {
        let status = stage.wait_reason(name, ConditionType::Ready, reason);
        assert_eq!(condition(&status, ConditionType::Stalled), format!("True/{reason}"));
        assert_eq!((status.version, status.versions.len()), (Some(1), 1), "{status:?}");
        assert_eq!(condition(&status, ConditionType::Usable), "True/Active");
    }
    assert_eq!(before, ["immutable", "taken"].map(|name| stage.secret(name).unwrap().resource_version()), "left alone");
    stage.kubectl(&["delete", "secret", "immutable", "taken"]);
    for name in ["immutable", "taken"] {
        stage.wait_rotated(name, 1);
        assert_eq!(condition(&stage.wait_issued(name), ConditionType::Ready), "True/Issued");
    }
    history.check();
}

/// Incidents 29: labels, annotations, owners and entries of others, and what the template asks for.
fn a_rotation_changes_nothing_that_others_put_there() {
    let stage = Stage::new("kept");
    let history = stage.history();
    let _operator = stage.operator().start_ready();
    let template = |label: &str, note: &str| {
        format!(
            r#"{{secret: {{template: {{metadata: {{labels: {{team: {label}}}, annotations: {{note: {note}}}}},
            data: {{HEADER: "Bearer ${{key}}", SHOWN: "${{tail}} of ${{name}}", FIXED: same}}}}}}}}"#
        )
    };
    stage.declare("k", &template("a", "one"));
    stage.wait_issued("k");
    let theirs = json!({
        "metadata": {
            "labels": { "theirs": "l" },
            "annotations": { "theirs": "n" },
            "finalizers": ["example.com/theirs"],
        },
        "stringData": { "THEIRS": "d" },
    });
    stage.patch("secret/k", &theirs.to_string());
    let before = stage.secret("k").unwrap();
    stage.raise("k", 1);
    stage.wait_rotated("k", 1);
    let status = stage.wait_issued("k");
    let after = stage.secret("k").unwrap();
    let mounted = stage.mounted("k");
    let (key, tail) = (mounted["api-key"].clone(), status.tail.clone().unwrap());
    assert_eq!(mounted["HEADER"], format!("Bearer {key}"), "the template's entries hold the new key");
    assert_eq!(mounted["SHOWN"], format!("{tail} of k"));
    assert_eq!(others(&after), others(&before), "everything else is as it was");
    assert_ne!(before.data.unwrap()["api-key"], after.data.unwrap()["api-key"]);

    stage.declare("k", &template("b", "two"));
    let edited = wait_secret(&stage, "k", "follows the template", |secret| {
        secret.labels().get("team").is_some_and(|team| team == "b")
            && secret.annotations().get("note").is_some_and(|note| note == "two")
    });
    assert_eq!(stage.mounted("k"), mounted, "and no entry is touched");
    let foreign = [edited.labels().get("theirs"), edited.annotations().get("theirs")];
    assert_eq!(foreign.map(|value| value.map(String::as_str)), [Some("l"), Some("n")]);
    assert_eq!(stage.wait_issued("k").version, Some(2), "nor another version minted");
    stage.patch("secret/k", r#"{"metadata": {"finalizers": null}}"#);
    history.check();
}

/// A Secret without what a rotation is to change.
fn others(secret: &Secret) -> Value {
    let mut secret = secret.clone();
    for entry in ["api-key", "HEADER", "SHOWN"] {
        secret.data.as_mut().unwrap().remove(entry);
    }
    secret.metadata.managed_fields = None;
    secret.metadata.resource_version = None;
    json!(secret)
}

/// The status does not grow.
fn only_the_last_five_retired_versions_stay_listed() {
    let stage = Stage::new("five");
    let history = stage.history();
    let _operator = stage.operator().start_ready();
    stage.declare("k", "{rotation: {overlap: 0s}}");
    stage.wait_issued("k");
    for revision in 1..=10 {
        stage.raise("k", revision);
        stage.wait_rotated("k", revision);
    }
    let status = stage.wait_issued("k");
    let listed: Vec<_> = status.versions.iter().map(|version| (version.version, version.phase)).collect();
    let retired = (6..=10).map(|number| (number, VersionPhase::Retired));
    assert_eq!(listed, retired.chain([(11, VersionPhase::Current)]).collect::<Vec<_>>());
    history.check();
    assert_eq!(values(&history.states())["k"].len(), 11);
}

/// Incidents 17: on start, the late end of a version comes first, before the rotation that was asked for meanwhile.
fn a_version_that_was_to_end_while_nobody_worked_ends_before_anything_else() {
    let stage = Stage::new("late-end");
    let history = stage.history();
    let proxy = stage.cluster.proxy();
    let operator = stage.operator_via(&proxy).start_ready();
    stage.declare("k", "{rotation: {overlap: 3s}}");
    stage.wait_issued("k");
    stage.raise("k", 1);
    let end = first(&stage.wait_rotated("k", 1)).retires_at.unwrap().0;
    operator.kill();
    wait::until_true("its end has come", || Timestamp::now() > end);
    assert_eq!(first(&stage.status("k")).phase, VersionPhase::Retiring, "nobody worked");
    stage.raise("k", 2);
    stage.patch("secret/k", r#"{"metadata": {"labels": null}}"#);
    proxy.reset();
    proxy.record_bodies(true);
    let _operator = stage.operator_via(&proxy).start_ready();
    stage.wait_rotated("k", 2);
    let writes: Vec<_> = proxy.mutations().into_iter().filter(|record| Matcher::work().matches(&record.call)).collect();
    assert_eq!(writes[0].call.target(), "apikeys/status", "{writes:?}");
    let versions = writes[0].request_json().unwrap()["status"]["versions"].clone();
    let phases: Vec<_> = versions.as_array().unwrap().iter().map(|version| version["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["Retired", "Current"], "the first write ends it and begins nothing");
    stage.wait_event("k", "Retired");
    history.check();
}

/// Incidents 28: Argo CD and its like apply the same manifest again and again and prune what carries their labels.
fn applying_the_same_manifest_during_a_rotation_moves_nothing() {
    let stage = Stage::new("gitops");
    let history = stage.history();
    let proxy = stage.cluster.proxy();
    let _operator = stage.operator_via(&proxy).start_ready();
    let marks = "labels: {app.kubernetes.io/instance: shop}, annotations: {argocd.argoproj.io/tracking-id: shop}";
    let apply =
        |spec: &str| stage.apply(&manifest("k", spec).replace("metadata: {name: k}", &format!("metadata: {{name: k, {marks}}}")));
    apply("{rotation: {overlap: 1h}}");
    stage.wait_issued("k");
    let health = || kstatus(&serde_json::to_value(stage.apikey("k")).unwrap());
    wait::until_true("it is done", || health() == "Current");
    let hold = Hold::new();
    proxy.on(Matcher::call(Verb::Patch, "secrets"), When::Before, Fault::Delay(hold.clone()));
    apply("{rotation: {overlap: 1h}, revision: 1}");
    assert!(hold.reached(LIMIT), "it delivers");
    assert_eq!(health(), "InProgress");
    assert_eq!(condition(&stage.status("k"), ConditionType::Usable), "True/Active");
    let during = stage.apikey("k").metadata;
    assert!(apply("{rotation: {overlap: 1h}, revision: 1}").contains("unchanged"));
    assert_eq!(stage.apikey("k").metadata.generation, during.generation);
    hold.release();
    stage.wait_rotated("k", 1);
    wait::until_true("it is done again", || health() == "Current");
    rest(&proxy);
    let before = stage.apikey("k");
    assert!(apply("{rotation: {overlap: 1h}, revision: 1}").contains("unchanged"), "no difference for ever");
    rest(&proxy);
    assert_eq!(stage.apikey("k").resource_version(), before.resource_version());
    assert_eq!(before.status.unwrap().version, Some(2));
    let secret = stage.secret("k").unwrap();
    assert!(!secret.labels().contains_key("app.kubernetes.io/instance"), "{:?}", secret.labels());
    assert!(!secret.annotations().contains_key("argocd.argoproj.io/tracking-id"), "nothing marks it for pruning");
    history.check();
}

/// The oldest listed version.
fn first(status: &ApiKeyStatus) -> Version {
    status.versions[0].clone()
}

/// Waits until the controller has come to rest.
fn rest(proxy: &Proxy) {
    assert!(proxy.wait_quiet(Duration::from_millis(700), LIMIT, Call::is_mutation), "the controller comes to rest");
}

impl Stage {
    /// Merges something into an ApiKey, without the detour by kubectl.
    pub(crate) fn merge(&self, name: &str, patch: Value) {
        let api: Api<ApiKey> = Api::namespaced(self.cluster.client(), &self.namespace);
        runtime().block_on(api.patch(name, &PatchParams::default(), &Patch::Merge(patch))).expect("it is accepted");
    }

    /// Asks for the next version.
    pub(crate) fn raise(&self, name: &str, revision: usize) {
        self.merge(name, json!({ "spec": { "revision": revision } }));
    }

    /// Waits until a revision was acted on, and nothing is under way.
    pub(crate) fn wait_rotated(&self, name: &str, revision: usize) -> ApiKeyStatus {
        let revision = i64::try_from(revision).expect("a small number");
        self.wait(name, &format!("has acted on revision {revision}"), |status| {
            status.revision == Some(revision) && status.newest_announced().is_none()
        })
    }
}
