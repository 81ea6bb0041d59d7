//! What a manifest must have, and how long an ApiKey's name may be.

use super::letters;
use crate::stories;
use crate::support::stage::{Stage, manifest};

stories![
    a_name_has_at_most_63_characters,
    an_empty_spec_is_enough,
    a_slip_of_the_pen_is_found
];

/// The rules that are told here.
pub(super) const TOLD: [&str; 2] = [
    "an ApiKey's name has at most 63 characters",
    "spec required",
];

fn a_name_has_at_most_63_characters() {
    let stage = super::stage("names");
    let says = stage.refused(&manifest(&letters(64), "{}"));
    assert!(says.contains(TOLD[0]), "{says}");
    assert!(dry(&stage, &manifest(&letters(64), "{}")).is_err_and(|says| says.contains(TOLD[0])));
    assert!(stage.find(&letters(64)).is_none());
    stage.declare(&letters(63), "{}");
    // It fits into a label, as it must: the Secret is selected by it.
    let operator = stage.operator().start_ready();
    stage.wait_issued(&letters(63));
    let found = stage.kubectl(&[
        "get",
        "secrets",
        "-l",
        &format!("claviger.dev/apikey={}", letters(63)),
        "-o",
        "name",
    ]);
    assert_eq!(found.trim(), format!("secret/{}", letters(63)));
    assert!(operator.stop().success());
}

fn an_empty_spec_is_enough() {
    let stage = super::stage("spec");
    let bare = "apiVersion: claviger.dev/v1alpha1\nkind: ApiKey\nmetadata: {name: bare}\n";
    for manifest in [
        bare.to_owned(),
        manifest("bare", "{}"),
        manifest("bare", "null"),
    ] {
        assert_eq!(dry(&stage, &manifest), Ok(()), "{manifest}");
        stage.apply(&manifest);
        let live = stage.kubectl(&["get", "apikey", "bare", "-o", "jsonpath={.spec}"]);
        assert_eq!(live, "{}", "{manifest}");
    }
    let remove = r#"[{"op": "remove", "path": "/spec"}]"#;
    stage.kubectl(&["patch", "apikey", "bare", "--type=json", "-p", remove]);
    assert_eq!(
        stage.kubectl(&["get", "apikey", "bare", "-o", "jsonpath={.spec}"]),
        "{}",
        "there always is one"
    );
}

fn a_slip_of_the_pen_is_found() {
    let stage = super::stage("slips");
    for (spec, says) in [
        ("{expires: {after: 90d}}", "unknown field \"spec.expires\""),
        ("{expiry: {in: 90d}}", "unknown field \"spec.expiry.in\""),
        ("{expiry: 90d}", "spec.expiry"),
        ("{revoked: \"yes\"}", "spec.revoked"),
        ("{roles: viewer}", "spec.roles"),
        (
            "{organisation: acme}",
            "unknown field \"spec.organisation\"",
        ),
        (
            "{rotation: {interval: 30d}}",
            "unknown field \"spec.rotation.interval\"",
        ),
        ("{rotation: 30d}", "spec.rotation"),
        ("{revision: next}", "spec.revision"),
        (
            "{source: {secret: {name: a, key: b}}}",
            "unknown field \"spec.source.secret\"",
        ),
        (
            "{secret: {template: {labels: {a: b}}}}",
            "unknown field \"spec.secret.template.labels\"",
        ),
    ] {
        let answer = stage.refused(&manifest("slip", spec));
        assert!(answer.contains(says), "{spec}: {answer}");
        let answer = dry(&stage, &manifest("slip", spec)).expect_err("a dry run finds it, too");
        assert!(answer.contains(says), "{spec}: {answer}");
    }
    assert!(stage.find("slip").is_none());
}

fn dry(stage: &Stage, manifest: &str) -> Result<(), String> {
    let output = stage.cluster.try_kubectl(
        &[
            "-n",
            &stage.namespace,
            "apply",
            "--dry-run=server",
            "-f",
            "-",
        ],
        manifest,
    );
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
