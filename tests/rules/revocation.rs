//! A revoked key stays revoked, whatever is tried (incidents 23).

use claviger::api::{ConditionType, Phase};
use serde_json::{Value, json};

use super::Rule;
use super::statuses::with;
use crate::stories;
use crate::support::stage::{condition, manifest};

stories![
    a_revoked_key_cannot_be_brought_back_through_its_spec,
    a_revoked_key_cannot_be_brought_back_through_its_status,
    who_revoked_a_key_is_settled_with_the_revocation,
    why_a_key_was_revoked_is_not_rewritten,
];

const ONE_WAY: &str = "revocation is one-way: a revoked key stays revoked; create another ApiKey";
const WHY: &str = "revocationReason stays as it was first given";
const BY: &str = "revokedBy cannot be changed after the revocation";

pub(super) fn rules() -> Vec<Rule> {
    [one_way(), by(), why()].concat()
}

fn one_way() -> Vec<Rule> {
    // Told with every way to try it, below.
    vec![Rule::change(
        ONE_WAY,
        json!({ "revoked": true }),
        json!({}),
        &format!("spec.revoked: … {ONE_WAY}"),
        json!({ "revoked": true }),
    )]
}

fn by() -> Vec<Rule> {
    let change = |before: Value, broken: Value, nearest: Value| {
        Rule::change(
            BY,
            before,
            broken,
            &format!("spec.revokedBy: … {BY}"),
            nearest,
        )
    };
    let (ann, bob) = (
        json!({ "revoked": true, "revokedBy": "ann" }),
        json!({ "revoked": true, "revokedBy": "bob" }),
    );
    let somebody = json!({ "revoked": true });
    let told = |whole: &Value| with(whole, "revocationReason", json!("leaked in a build log"));
    vec![
        change(ann.clone(), bob.clone(), told(&ann)),
        change(ann.clone(), somebody.clone(), ann.clone()),
        change(somebody.clone(), bob, told(&somebody)),
        change(
            told(&somebody),
            with(&ann, "revocationReason", json!("leaked in a build log")),
            told(&somebody),
        ),
        change(
            told(&ann),
            told(&json!({ "revoked": true, "revokedBy": "Ann" })),
            told(&ann),
        ),
    ]
}

/// Why a key was revoked may be said later, and once.
fn why() -> Vec<Rule> {
    let because = |reason: &str| json!({ "revoked": true, "revocationReason": reason });
    let change = |broken: Value| {
        Rule::change(
            WHY,
            because("leaked"),
            broken,
            &format!("spec.revocationReason: … {WHY}"),
            because("leaked"),
        )
    };
    vec![
        change(because("routine clean-up")),
        change(json!({ "revoked": true })),
    ]
}

fn why_a_key_was_revoked_is_not_rewritten() {
    let stage = super::stage("revoked-why");
    super::tell(&stage, super::Part::Spec, &why());
}

fn who_revoked_a_key_is_settled_with_the_revocation() {
    let stage = super::stage("revoked-by");
    super::tell(&stage, super::Part::Spec, &by());
    // Whoever revokes says who it is in the same write, and nobody before.
    stage.declare("leaked", "{}");
    assert!(
        stage
            .refused(&manifest("leaked", "{revokedBy: ann}"))
            .contains("revokedBy goes with revoked: true")
    );
    stage.declare("leaked", "{revoked: true, revokedBy: ann}");
    assert!(
        stage
            .refused(&manifest("leaked", "{revoked: true, revokedBy: bob}"))
            .contains(BY)
    );
    assert!(
        stage
            .refused(&manifest("leaked", "{revokedBy: ann}"))
            .contains(ONE_WAY)
    );
}

fn a_revoked_key_cannot_be_brought_back_through_its_spec() {
    let stage = super::stage("revoked-spec");
    super::tell(&stage, super::Part::Spec, &one_way());
    let operator = stage.operator().start_ready();
    // The manifest as it stood in Git before the leak.
    let before = manifest("leaked", "{description: Nightly export of invoices}");
    stage.apply(&before);
    let status = stage.wait_issued("leaked");
    let (hash, key) = (status.hash, stage.mounted("leaked"));
    stage.declare(
        "leaked",
        "{description: Nightly export of invoices, revoked: true, revocationReason: in a log}",
    );
    stage.wait_phase("leaked", Phase::Revoked);

    let removed = json!([{ "op": "remove", "path": "/spec/revoked" }]).to_string();
    let whole = json!([{ "op": "replace", "path": "/spec", "value": {} }]).to_string();
    let null = json!({ "spec": { "revoked": null, "revocationReason": null } }).to_string();
    let no = json!({ "spec": { "revoked": false } }).to_string();
    let tries: [(&str, &[&str], &str, &str); 10] = [
        (
            "the manifest is rolled back",
            &["apply", "-f", "-"],
            &before,
            ONE_WAY,
        ),
        ("it is replaced", &["replace", "-f", "-"], &before, ONE_WAY),
        (
            "the field is removed",
            &["patch", "apikey", "leaked", "--type=json", "-p", &removed],
            "",
            ONE_WAY,
        ),
        (
            "the spec is replaced",
            &["patch", "apikey", "leaked", "--type=json", "-p", &whole],
            "",
            ONE_WAY,
        ),
        (
            "the field is set to null",
            &["patch", "apikey", "leaked", "--type=merge", "-p", &null],
            "",
            ONE_WAY,
        ),
        (
            "false is written",
            &["patch", "apikey", "leaked", "--type=merge", "-p", &no],
            "",
            "revoked can only be true",
        ),
        (
            "false is applied",
            &["apply", "-f", "-"],
            &manifest("leaked", "{revoked: false}"),
            "revoked can only be true",
        ),
        (
            "null is applied",
            &["apply", "-f", "-"],
            &manifest("leaked", "{revoked: null}"),
            ONE_WAY,
        ),
        (
            "another field is applied",
            &["apply", "-f", "-"],
            &manifest("leaked", "{owner: me}"),
            ONE_WAY,
        ),
        // Server-side apply leaves alone what its manager never set.
        (
            "a GitOps tool applies the old manifest",
            &["apply", "--server-side", "--field-manager=git", "-f", "-"],
            &before,
            "",
        ),
    ];
    for (what, arguments, input, says) in tries {
        let output = stage
            .cluster
            .try_kubectl(&[&["-n", &stage.namespace], arguments].concat(), input);
        let said = String::from_utf8_lossy(&output.stderr);
        if says.is_empty() {
            assert!(output.status.success(), "{what}: {said}");
        } else {
            assert!(
                !output.status.success() && said.contains(says),
                "{what}: {said}"
            );
        }
        assert!(stage.apikey("leaked").is_revoked(), "{what}");
    }
    let by_git = |spec: &str| {
        let command = [
            "-n",
            &stage.namespace,
            "apply",
            "--server-side",
            "--field-manager=git",
            "-f",
            "-",
        ];
        stage
            .cluster
            .try_kubectl(&command, &manifest("from-git", spec))
    };
    assert!(by_git("{revoked: true}").status.success());
    let output = by_git("{}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains(ONE_WAY),
        "a GitOps tool takes its own revocation back: {said}"
    );

    let status = stage.wait("leaked", "is looked at again", |status| {
        status.observed_generation == stage.apikey("leaked").metadata.generation
    });
    assert_eq!(status.phase, Some(Phase::Revoked));
    assert_eq!(condition(&status, ConditionType::Usable), "False/Revoked");
    assert_eq!(
        (status.hash, stage.mounted("leaked")),
        (hash, key),
        "and nothing was minted"
    );
    assert!(operator.stop().success());
}

fn a_revoked_key_cannot_be_brought_back_through_its_status() {
    let stage = super::stage("revoked-status");
    let operator = stage.operator().start_ready();
    stage.declare("leaked", "{}");
    stage.wait_issued("leaked");
    stage.declare("leaked", "{revoked: true}");
    stage.wait_phase("leaked", Phase::Revoked);
    assert!(operator.stop().success());
    for (patch, says) in [
        (
            json!({ "phase": "Active" }),
            "Expired and Revoked are final",
        ),
        (
            json!({ "phase": "Expired" }),
            "Expired and Revoked are final",
        ),
        (json!({ "phase": null }), "Expired and Revoked are final"),
        (
            json!({ "revokedAt": null }),
            "status.revokedAt is set once and stays",
        ),
        (
            json!({ "revokedAt": "2097-03-01T00:00:00Z" }),
            "status.revokedAt is set once and stays",
        ),
        (json!(null), "status.keyId is set once and stays"),
    ] {
        let patch = json!({ "status": patch }).to_string();
        let output = stage.try_kubectl(&[
            "patch",
            "apikey",
            "leaked",
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(says),
            "{patch}: {said}"
        );
    }
    assert_eq!(stage.status("leaked").phase, Some(Phase::Revoked));
}
