//! Versions that replace one another: when they are due, what becomes of the one before, and what nobody may notice of it.

mod holder;
mod secrets;

use std::time::Duration;

use claviger::api::{ApiKey, ApiKeyStatus, ConditionType, Version, VersionPhase};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::drift::message;
use crate::stories;
use crate::support::Story;
use crate::support::cluster::runtime;
use crate::support::history::values;
use crate::support::kstatus::kstatus;
use crate::support::proxy::{Call, Fault, Hold, Matcher, Proxy, Verb, When};
use crate::support::stage::{Stage, condition, manifest};
use crate::support::wait::{self, LIMIT};

/// The stories of this folder.
pub(crate) fn all() -> Vec<Story> {
    [stories(), holder::stories(), secrets::stories()].concat()
}

stories![
    a_declared_interval_rotates_in_its_last_tenth_and_the_old_version_retires,
    lowering_the_overlap_ends_a_leaked_version_at_once,
    a_revision_raised_again_and_again_delivers_once_for_each_that_was_seen,
    a_revision_is_acted_on_once,
    the_ninth_version_waits_until_one_retires,
    only_the_last_five_retired_versions_stay_listed,
    a_version_that_was_to_end_while_nobody_worked_ends_before_anything_else,
    applying_the_same_manifest_during_a_rotation_moves_nothing,
];

/// The interval, its jitter, and what follows a rotation that was due by it.
fn a_declared_interval_rotates_in_its_last_tenth_and_the_old_version_retires() {
    const KEYS: usize = 20;
    let stage = Stage::new("interval");
    let history = stage.history();
    let _operator = stage.operator().start_ready();
    stage.declare_many(
        "month",
        KEYS,
        r#"{"rotation": {"every": "30d", "overlap": "1h"}}"#,
    );
    stage.declare("k", "{rotation: {every: 5s, overlap: 2s}}");
    let mut early = Vec::new();
    for number in 0..KEYS {
        let status = stage.wait_issued(&format!("month-{number}"));
        let activated = status.versions[0].activated_at.clone().unwrap().0;
        let wait = status.rotates_at.unwrap().0.duration_since(activated);
        let (least, most) = (
            SignedDuration::from_hours(27 * 24),
            SignedDuration::from_hours(30 * 24),
        );
        assert!(
            (least..=most).contains(&wait),
            "between nine tenths of it and all of it: {wait:?}"
        );
        early.push(wait.as_secs());
    }
    early.sort_unstable();
    early.dedup();
    assert!(
        early.len() > KEYS / 2,
        "each at a moment of its own: {early:?}"
    );
    let first = stage.status("k");
    let status = stage.wait("k", "has its third version", |status| {
        status.version >= Some(3)
    });
    let [one, two] = [&status.versions[0], &status.versions[1]];
    assert_eq!(one.hash, first.hash.unwrap());
    assert_eq!((one.version, one.phase), (1, VersionPhase::Retired));
    for old in [one, two] {
        let [activated, replaced, retires] = [&old.activated_at, &old.replaced_at, &old.retires_at]
            .map(|time| time.clone().unwrap().0);
        assert!(
            replaced.duration_since(activated) >= SignedDuration::from_secs(4),
            "not before nine tenths of it: {old:?}"
        );
        assert_eq!(
            retires.duration_since(replaced),
            SignedDuration::from_secs(2),
            "the overlap: {old:?}"
        );
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
    let overlap =
        |text: &str| stage.merge("k", json!({ "spec": { "rotation": { "overlap": text } } }));
    stage.declare("k", "{}");
    stage.wait_issued("k");
    stage.raise("k", 1);
    let old = first(&stage.wait_rotated("k", 1));
    let passes = |version: &Version| {
        version
            .retires_at
            .clone()
            .unwrap()
            .0
            .duration_since(version.replaced_at.clone().unwrap().0)
    };
    assert_eq!(
        (old.phase, passes(&old)),
        (VersionPhase::Retiring, SignedDuration::from_hours(24)),
        "a day by default"
    );
    overlap("2h");
    let lowered = first(&stage.wait("k", "ends sooner", |status| {
        passes(&first(status)) == SignedDuration::from_hours(2)
    }));
    overlap("20h");
    let generation = stage.apikey("k").metadata.generation;
    let status = stage.wait("k", "was looked at", |status| {
        status.observed_generation == generation
    });
    assert_eq!(
        first(&status).retires_at,
        lowered.retires_at,
        "raising it extends nothing"
    );
    overlap("0s");
    let status = stage.wait("k", "has ended it", |status| {
        first(status).phase == VersionPhase::Retired
    });
    assert!(first(&status).retires_at.unwrap().0 <= Timestamp::now());
    stage.wait_event("k", "Retired");
    overlap("20h");
    let generation = stage.apikey("k").metadata.generation;
    let status = stage.wait("k", "was looked at", |status| {
        status.observed_generation == generation
    });
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
    proxy.on(
        Matcher::call(Verb::Patch, "secrets"),
        When::Before,
        Fault::Delay(hold.clone()),
    );
    stage.raise("k", 1);
    assert!(hold.reached(LIMIT), "it delivers");
    stage.raise("k", 2);
    stage.raise("k", 3);
    hold.release();
    let status = stage.wait_rotated("k", 3);
    let asked: Vec<_> = status
        .versions
        .iter()
        .map(|version| version.revision)
        .collect();
    assert_eq!(
        asked,
        [None, Some(1), Some(3)],
        "what nobody saw was not asked for"
    );
    // Each as soon as the one before was acted on: several in one second.
    for revision in 4..=6 {
        stage.raise("k", revision);
        stage.wait_rotated("k", revision);
    }
    stage.raise("k", 7);
    stage.raise("k", 8);
    let status = stage.wait_rotated("k", 8);
    let versions = status.versions.len();
    assert!(
        (7..=8).contains(&versions),
        "one for each of four to six, one or two for the last two: {status:?}"
    );
    stage.wait_issued("k");
    history.check();
    assert_eq!(
        values(&history.states())["k"].len(),
        versions,
        "each value for a version"
    );
}

/// Incidents 5, 21: what stands in the spec and was acted on is no reason to rotate, be it after a restart or an apply.
fn a_revision_is_acted_on_once() {
    let stage = Stage::new("once");
    let history = stage.history();
    let proxy = stage.cluster.proxy();
    let operator = stage.operator_via(&proxy).start_ready();
    stage.declare("k", "{revision: 3}");
    let status = stage.wait_issued("k");
    assert_eq!(
        (status.version, status.revision),
        (Some(1), Some(3)),
        "the first version is for it"
    );
    stage.declare("k", "{revision: 4}");
    let status = stage.wait_rotated("k", 4);
    assert_eq!(status.version, Some(2));
    rest(&proxy);
    assert!(operator.stop().success());
    let before = stage.apikey("k").resource_version();
    proxy.reset();
    let operator = stage.operator_via(&proxy).start_ready();
    wait::until_true("it has looked", || {
        operator
            .metric("claviger_reconcile_duration_seconds_count")
            .is_some_and(|looked| looked >= 1.0)
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
    assert_eq!(
        (status.version, status.versions.len()),
        (Some(8), 8),
        "it waits: {status:?}"
    );
    assert_eq!(
        condition(&status, ConditionType::Stalled),
        "False/NotStalled"
    );
    assert_eq!(
        condition(&status, ConditionType::Delivered),
        "True/Delivered"
    );
    let text = message(&status, ConditionType::Ready);
    let end = first(&status).retires_at.unwrap().0;
    assert!(text.contains(&format!("it waits until {end}")), "{text}");
    stage.wait_event("k", "RotationWaits");
    // The oldest ends in a moment, by itself.
    let overlap = Timestamp::now()
        .duration_since(first(&status).replaced_at.unwrap().0)
        .as_secs()
        + 3;
    stage.merge(
        "k",
        json!({ "spec": { "rotation": { "overlap": format!("{overlap}s") } } }),
    );
    let status = stage.wait_rotated("k", 8);
    assert_eq!(
        (status.version, first(&status).phase),
        (Some(9), VersionPhase::Retired)
    );
    assert_eq!(
        condition(&stage.wait_issued("k"), ConditionType::Ready),
        "True/Issued"
    );
    history.check();
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
    let listed: Vec<_> = status
        .versions
        .iter()
        .map(|version| (version.version, version.phase))
        .collect();
    let retired = (6..=10).map(|number| (number, VersionPhase::Retired));
    assert_eq!(
        listed,
        retired
            .chain([(11, VersionPhase::Current)])
            .collect::<Vec<_>>()
    );
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
    assert_eq!(
        first(&stage.status("k")).phase,
        VersionPhase::Retiring,
        "nobody worked"
    );
    stage.raise("k", 2);
    stage.patch("secret/k", r#"{"metadata": {"labels": null}}"#);
    proxy.reset();
    proxy.record_bodies(true);
    let _operator = stage.operator_via(&proxy).start_ready();
    stage.wait_rotated("k", 2);
    let writes: Vec<_> = proxy
        .mutations()
        .into_iter()
        .filter(|record| Matcher::work().matches(&record.call))
        .collect();
    assert_eq!(writes[0].call.target(), "apikeys/status", "{writes:?}");
    let versions = writes[0].request_json().unwrap()["status"]["versions"].clone();
    let phases: Vec<_> = versions
        .as_array()
        .unwrap()
        .iter()
        .map(|version| version["phase"].as_str().unwrap())
        .collect();
    assert_eq!(
        phases,
        ["Retired", "Current"],
        "the first write ends it and begins nothing"
    );
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
    let apply = |spec: &str| {
        stage.apply(&manifest("k", spec).replace(
            "metadata: {name: k}",
            &format!("metadata: {{name: k, {marks}}}"),
        ))
    };
    apply("{rotation: {overlap: 1h}}");
    stage.wait_issued("k");
    let health = || kstatus(&serde_json::to_value(stage.apikey("k")).unwrap());
    wait::until_true("it is done", || health() == "Current");
    let hold = Hold::new();
    proxy.on(
        Matcher::call(Verb::Patch, "secrets"),
        When::Before,
        Fault::Delay(hold.clone()),
    );
    apply("{rotation: {overlap: 1h}, revision: 1}");
    assert!(hold.reached(LIMIT), "it delivers");
    assert_eq!(health(), "InProgress");
    assert_eq!(
        condition(&stage.status("k"), ConditionType::Usable),
        "True/Active"
    );
    let during = stage.apikey("k").metadata;
    assert!(apply("{rotation: {overlap: 1h}, revision: 1}").contains("unchanged"));
    assert_eq!(stage.apikey("k").metadata.generation, during.generation);
    hold.release();
    stage.wait_rotated("k", 1);
    wait::until_true("it is done again", || health() == "Current");
    rest(&proxy);
    let before = stage.apikey("k");
    assert!(
        apply("{rotation: {overlap: 1h}, revision: 1}").contains("unchanged"),
        "no difference for ever"
    );
    rest(&proxy);
    assert_eq!(
        stage.apikey("k").resource_version(),
        before.resource_version()
    );
    assert_eq!(before.status.unwrap().version, Some(2));
    let secret = stage.secret("k").unwrap();
    assert!(
        !secret.labels().contains_key("app.kubernetes.io/instance"),
        "{:?}",
        secret.labels()
    );
    assert!(
        !secret
            .annotations()
            .contains_key("argocd.argoproj.io/tracking-id"),
        "nothing marks it for pruning"
    );
    history.check();
}

/// The oldest listed version.
fn first(status: &ApiKeyStatus) -> Version {
    status.versions[0].clone()
}

/// Waits until the controller has come to rest.
fn rest(proxy: &Proxy) {
    assert!(
        proxy.wait_quiet(Duration::from_millis(700), LIMIT, Call::is_mutation),
        "the controller comes to rest"
    );
}

impl Stage {
    /// Merges something into an ApiKey, without the detour by kubectl.
    pub(crate) fn merge(&self, name: &str, patch: Value) {
        let api: Api<ApiKey> = Api::namespaced(self.cluster.client(), &self.namespace);
        runtime()
            .block_on(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)))
            .expect("it is accepted");
    }

    /// Asks for the next version.
    pub(crate) fn raise(&self, name: &str, revision: usize) {
        self.merge(name, json!({ "spec": { "revision": revision } }));
    }

    /// Waits until a revision was acted on, and nothing is under way.
    pub(crate) fn wait_rotated(&self, name: &str, revision: usize) -> ApiKeyStatus {
        let revision = i64::try_from(revision).expect("a small number");
        self.wait(
            name,
            &format!("has acted on revision {revision}"),
            |status| status.revision == Some(revision) && status.newest_announced().is_none(),
        )
    }
}
