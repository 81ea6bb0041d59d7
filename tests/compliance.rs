//! Policies, organizations and roles that change under live keys: nothing breaks, violations are reported, new keys obey.

use claviger::api::conditions::{find, reason};
use claviger::api::{ApiKeyStatus, ConditionType, Phase};
use jiff::SignedDuration;
use kube::ResourceExt as _;

use crate::stories;

use crate::support::cluster::Cluster;
use crate::support::operator::Builder;
use crate::support::stage::{Stage, condition};
use crate::support::wait;

stories![
    a_policy_that_comes_later_breaks_no_key_and_is_reported,
    a_key_that_violates_a_policy_is_never_minted_until_it_complies,
    of_several_policies_the_strictest_counts,
    a_key_belongs_to_the_organization_that_it_was_issued_in,
    a_role_may_come_and_go_and_is_named_while_it_is_missing,
    a_policy_holds_for_the_namespaces_it_selects,
    a_namespace_that_was_not_shown_yet_fixes_nothing,
];

/// A policy for one namespace alone, which goes with its story.
struct Policy<'a> {
    stage: &'a Stage,
    name: String,
}

impl<'a> Policy<'a> {
    /// The namespace gets a label of its own, by which the policy finds it.
    fn new(stage: &'a Stage, name: &str, spec: &str) -> Self {
        let namespace = &stage.namespace;
        stage.cluster.kubectl(&[
            "label",
            "namespace",
            namespace,
            &format!("story={namespace}"),
            "--overwrite",
        ]);
        let policy = Self {
            stage,
            name: format!("{namespace}-{name}"),
        };
        policy.set(spec);
        policy
    }

    /// Makes it say something else.
    fn set(&self, spec: &str) {
        let (name, namespace) = (&self.name, &self.stage.namespace);
        self.stage.cluster.apply(&format!(
            "apiVersion: claviger.dev/v1alpha1\nkind: ApiKeyPolicy\nmetadata: {{name: {name}}}\n\
             spec: {{namespaces: {{matchLabels: {{story: {namespace}}}}}, {spec}}}"
        ));
    }
}

impl Drop for Policy<'_> {
    fn drop(&mut self) {
        self.stage
            .cluster
            .kubectl(&["delete", "apikeypolicy", &self.name, "--ignore-not-found"]);
    }
}

fn said(status: &ApiKeyStatus, type_: ConditionType) -> String {
    find(&status.conditions, type_)
        .map(|condition| condition.message.clone())
        .unwrap_or_default()
}

/// The versions and the Secret of a key: what no policy may touch.
fn substance(stage: &Stage, name: &str) -> (Vec<String>, Option<String>) {
    let hashes = stage
        .status(name)
        .versions
        .into_iter()
        .map(|version| version.hash)
        .collect();
    (
        hashes,
        stage
            .secret(name)
            .and_then(|secret| secret.resource_version()),
    )
}

fn a_policy_that_comes_later_breaks_no_key_and_is_reported() {
    let stage = Stage::new("later-policy");
    let history = stage.history();
    let operator = stage.operator().start_ready();
    stage.declare("forever", "{}");
    stage.declare(
        "brief",
        "{owner: me, expiry: {after: 30d}, rotation: {every: 2w}}",
    );
    for name in ["forever", "brief"] {
        assert_eq!(
            condition(&stage.wait_issued(name), ConditionType::Compliant),
            "True/Compliant"
        );
    }
    let before = (substance(&stage, "forever"), substance(&stage, "brief"));
    let policy = Policy::new(
        &stage,
        "strict",
        "lifetime: {max: 90d}, rotation: {required: true}, require: [owner]",
    );
    let status = stage.wait_reason("forever", ConditionType::Compliant, reason::POLICY_VIOLATED);
    assert_eq!(
        condition(&status, ConditionType::Ready),
        "True/Issued",
        "the world is as the spec asks"
    );
    assert_eq!(
        condition(&status, ConditionType::Usable),
        "True/Active",
        "and the key goes on to pass"
    );
    let words = said(&status, ConditionType::Compliant);
    for part in [
        "allows a lifetime of at most 90d; spec.expiry asks for a key that never ends",
        "requires spec.rotation.every",
        "requires spec.owner",
    ] {
        assert!(
            words.contains(&format!("ApiKeyPolicy {} {part}", policy.name)),
            "{words}"
        );
    }
    stage.wait_event("forever", reason::POLICY_VIOLATED);
    assert_eq!(operator.metric("claviger_noncompliant_keys"), Some(1.0));
    assert_eq!(
        condition(&stage.status("brief"), ConditionType::Compliant),
        "True/Compliant"
    );
    // A default is for new keys: one that never ends goes on to do so, and is reported.
    policy.set("lifetime: {max: 90d, default: 30d}");
    stage.wait("forever", "is reported for its lifetime alone", |status| {
        let words = said(status, ConditionType::Compliant);
        words.contains("spec.expiry asks for a key that never ends") && !words.contains("requires")
    });
    assert_eq!(
        (substance(&stage, "forever"), substance(&stage, "brief")),
        before,
        "nothing was touched"
    );
    // A key in use can be rotated, revoked and deleted whatever policies say.
    stage.patch("apikey/forever", r#"{"spec": {"revision": 1}}"#);
    let status = stage.wait("forever", "rotated", |status| status.revision == Some(1));
    assert_eq!(status.version, Some(2));
    drop(policy);
    stage.wait_reason("forever", ConditionType::Compliant, reason::COMPLIANT);
    assert!(operator.stop().success());
    history.check();
}

fn a_key_that_violates_a_policy_is_never_minted_until_it_complies() {
    let stage = Stage::new("never-minted");
    // Declared when nothing stood against it, and not looked at before the policy came.
    stage.declare(
        "k",
        "{roles: [], permissions: [\"invoices:write\"], prefix: acme}",
    );
    let policy = Policy::new(
        &stage,
        "narrow",
        "permissions: {allowed: [\"invoices:read\"]}, prefixes: {allowed: [clv]}",
    );
    let history = stage.history();
    let operator = stage.operator().start_ready();
    let status = stage.wait_reason("k", ConditionType::Ready, reason::POLICY_VIOLATED);
    assert_eq!(
        condition(&status, ConditionType::Stalled),
        "True/PolicyViolated"
    );
    assert_eq!(
        condition(&status, ConditionType::Compliant),
        "False/PolicyViolated"
    );
    assert!(
        status.versions.is_empty() && status.key_id.is_none(),
        "nothing was announced: {status:?}"
    );
    assert!(stage.secret("k").is_none());
    // The metrics read what the watch has shown, which may be a moment after the write.
    wait::until_true("the metrics tell", || {
        operator.metric("claviger_stalled_keys") == Some(1.0)
    });
    let words = said(&status, ConditionType::Ready);
    let name = &policy.name;
    assert!(
        words.contains(&format!(
            "ApiKeyPolicy {name} does not allow the permission invoices:write"
        )),
        "{words}"
    );
    assert!(
        words.contains(&format!(
            "ApiKeyPolicy {name} does not allow the prefix acme"
        )),
        "{words}"
    );
    // The policy gives way, or the key does.
    policy.set("permissions: {allowed: [\"invoices:read\"]}");
    stage.wait("k", "no longer refused for its prefix", |status| {
        !said(status, ConditionType::Ready).contains("prefix")
    });
    stage.patch(
        "apikey/k",
        r#"{"spec": {"permissions": ["invoices:read"]}}"#,
    );
    let status = stage.wait_issued("k");
    assert_eq!(
        condition(&status, ConditionType::Compliant),
        "True/Compliant"
    );
    assert!(operator.stop().success());
    history.check();
}

fn of_several_policies_the_strictest_counts() {
    let stage = Stage::new("strictest");
    let _loose = Policy::new(
        &stage,
        "loose",
        "lifetime: {max: 365d, default: 60d}, require: [description]",
    );
    let strict = Policy::new(&stage, "strict", "lifetime: {max: 90d, default: 30d}");
    let operator = stage.operator().start_ready();
    stage.declare("asks-nothing", "{description: Asks for no lifetime}");
    let status = stage.wait_issued("asks-nothing");
    let announced = status.versions[0].announced_at.0;
    assert_eq!(
        status
            .expires_at
            .clone()
            .unwrap()
            .0
            .duration_since(announced),
        SignedDuration::from_hours(30 * 24),
        "the shortest default"
    );
    // What was issued keeps its end, whatever becomes of the policy.
    strict.set("lifetime: {max: 10d, default: 5d}, require: [owner]");
    let later = stage.wait_reason(
        "asks-nothing",
        ConditionType::Compliant,
        reason::POLICY_VIOLATED,
    );
    assert_eq!(later.expires_at, status.expires_at);
    let end = status.expires_at.as_ref().unwrap().0;
    let violations = format!(
        "ApiKeyPolicy {0} allows a lifetime of at most 10d; the key ends at {end}; ApiKeyPolicy {0} requires spec.owner",
        strict.name
    );
    assert_eq!(said(&later, ConditionType::Compliant), violations);
    stage.declare("shorter", "{description: Asks for no lifetime, owner: me}");
    let status = stage.wait_issued("shorter");
    let announced = status.versions[0].announced_at.0;
    assert_eq!(
        status.expires_at.unwrap().0.duration_since(announced),
        SignedDuration::from_hours(5 * 24),
        "new keys obey"
    );
    assert!(operator.stop().success());
}

fn a_policy_holds_for_the_namespaces_it_selects() {
    let (inside, outside) = (Stage::new("inside"), Stage::new("outside"));
    let _policy = Policy::new(&inside, "selective", "require: [owner]");
    for stage in [&inside, &outside] {
        // The label decides at every moment, not only when the policy was made.
        let operator = stage.operator().start_ready();
        stage.declare("owned", "{owner: me}");
        stage.wait_issued("owned");
        assert!(operator.stop().success());
    }
    let operator = outside.operator().start_ready();
    outside.declare("ownerless", "{}");
    assert_eq!(
        condition(&outside.wait_issued("ownerless"), ConditionType::Compliant),
        "True/Compliant"
    );
    outside.cluster.kubectl(&[
        "label",
        "namespace",
        &outside.namespace,
        &format!("story={}", inside.namespace),
        "--overwrite",
    ]);
    outside.wait_reason(
        "ownerless",
        ConditionType::Compliant,
        reason::POLICY_VIOLATED,
    );
    outside
        .cluster
        .kubectl(&["label", "namespace", &outside.namespace, "story-"]);
    outside.wait_reason("ownerless", ConditionType::Compliant, reason::COMPLIANT);
    assert!(operator.stop().success());
}

fn a_key_belongs_to_the_organization_that_it_was_issued_in() {
    let stage = Stage::new("organization");
    let label = |value: &str| {
        stage.cluster.kubectl(&[
            "label",
            "namespace",
            &stage.namespace,
            &format!("claviger.dev/organization{value}"),
            "--overwrite",
        ]);
    };
    let operator = stage.operator().start_ready();
    stage.declare("stateless", "{}");
    assert_eq!(stage.wait_issued("stateless").organization, None);
    label("=acme.mobile");
    stage.declare("inherits", "{}");
    stage.declare("below", "{organization: acme.mobile.eu}");
    // The watch of namespaces may be a moment behind; what was issued without an organization stays without.
    let below = stage.wait_issued("below");
    assert_eq!(below.organization.as_deref(), Some("acme.mobile.eu"));
    let inherits = stage.wait_issued("inherits").organization;
    assert!(
        matches!(inherits.as_deref(), None | Some("acme.mobile")),
        "{inherits:?}"
    );
    stage.declare("inherits-too", "{}");
    assert_eq!(
        stage.wait_issued("inherits-too").organization.as_deref(),
        Some("acme.mobile"),
        "shown by now"
    );
    let before = substance(&stage, "inherits-too");
    label("=other");
    let status = stage.wait_reason(
        "inherits-too",
        ConditionType::Compliant,
        reason::WRONG_ORGANIZATION,
    );
    assert_eq!(
        status.organization.as_deref(),
        Some("acme.mobile"),
        "not different, but not compliant"
    );
    assert!(
        said(&status, ConditionType::Compliant).contains("acme.mobile, which is neither other"),
        "{status:?}"
    );
    assert_eq!(condition(&status, ConditionType::Usable), "True/Active");
    assert_eq!(substance(&stage, "inherits-too"), before);
    label("=acme");
    stage.wait_reason("inherits-too", ConditionType::Compliant, reason::COMPLIANT);
    label("-");
    stage.wait_reason(
        "below",
        ConditionType::Compliant,
        reason::WRONG_ORGANIZATION,
    );
    assert_eq!(
        condition(&stage.status("stateless"), ConditionType::Compliant),
        "True/Compliant"
    );
    assert!(operator.stop().success());
}

fn a_role_may_come_and_go_and_is_named_while_it_is_missing() {
    let stage = Stage::new("role");
    let (here, gone) = (
        format!("{}-here", stage.namespace),
        format!("{}-gone", stage.namespace),
    );
    stage.role(&here, &["invoices:read"]);
    let operator = stage.operator().start_ready();
    stage.declare("k", &format!("{{roles: [{here}, {gone}]}}"));
    let status = stage.wait_reason("k", ConditionType::Ready, reason::ROLE_MISSING);
    assert_eq!(
        status.phase,
        Some(Phase::Active),
        "it is issued all the same"
    );
    let words = said(&status, ConditionType::Ready);
    assert!(words.contains(&gone) && !words.contains(&here), "{words}");
    assert_eq!(
        condition(&status, ConditionType::Stalled),
        "False/NotStalled",
        "the role may be on its way"
    );
    let before = substance(&stage, "k");
    stage.role(&gone, &["invoices:write"]);
    stage.wait_reason("k", ConditionType::Ready, reason::ISSUED);
    // What a role allows is for gates: nothing is written when it changes.
    let version = stage.apikey("k").resource_version();
    stage.role(&here, &["invoices:read", "invoices:list"]);
    stage.cluster.kubectl(&["delete", "apikeyrole", &gone]);
    let status = stage.wait_reason("k", ConditionType::Ready, reason::ROLE_MISSING);
    assert_ne!(stage.apikey("k").resource_version(), version);
    assert_eq!(condition(&status, ConditionType::Usable), "True/Active");
    // Roles are edited without a new version.
    stage.patch(
        "apikey/k",
        &format!(r#"{{"spec": {{"roles": ["{here}"]}}}}"#),
    );
    let status = stage.wait_reason("k", ConditionType::Ready, reason::ISSUED);
    assert_eq!((status.version, substance(&stage, "k")), (Some(1), before));
    stage.cluster.kubectl(&["delete", "apikeyrole", &here]);
    assert!(operator.stop().success());
}

/// Incidents 20: an ApiKey may be shown before its namespace is, which says what organization and what policies are its own. Both are
/// fixed at the first announcement, so there is none until then.
fn a_namespace_that_was_not_shown_yet_fixes_nothing() {
    let cluster = Cluster::own();
    let proxy = cluster.proxy();
    let operator = Builder::for_cluster(&cluster).via(&proxy).start_ready();
    let before = Stage::on(&cluster, "before");
    before.declare("k", "{}");
    before.wait_issued("k");
    proxy.hold_watches("namespaces");
    let stage = Stage::on(&cluster, "fresh");
    cluster.kubectl(&[
        "label",
        "namespace",
        &stage.namespace,
        "claviger.dev/organization=acme",
    ]);
    stage.declare("k", "{}");
    wait::until_true("it is looked at in vain", || {
        operator
            .metric("claviger_reconcile_errors_total{kind=\"overtaken\"}")
            .is_some_and(|times| times >= 2.0)
    });
    assert_eq!(
        stage.apikey("k").status,
        None,
        "nothing is said of it, and nothing fixed"
    );
    proxy.release_watches("namespaces");
    assert_eq!(stage.wait_issued("k").organization.as_deref(), Some("acme"));
    assert!(operator.stop().success());
}
