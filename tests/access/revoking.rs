//! Who ends a key, and that nobody begins it again.

use serde_json::json;

use super::{ADMIN, DEVELOPER, Person, resource_version};
use crate::stories;
use crate::support::stage::{Stage, manifest};

stories![
    a_developer_cannot_revoke,
    an_administrator_of_keys_revokes_and_stands_for_it,
    the_verb_revoke_for_one_key_revokes_that,
    nobody_takes_a_revocation_back,
    a_manifest_of_a_revoked_key_can_be_applied_again,
];

fn a_developer_cannot_revoke() {
    let stage = Stage::new("no-revoking");
    let dev = Person::new(&stage, "dev", &[DEVELOPER]);
    dev.declares("k", "{}");
    let words = [
        "(Forbidden)",
        "dev may not revoke this key: that needs the verb revoke on apikeys.claviger.dev in namespace no-revoking-",
        "which the ClusterRole claviger-admin has",
    ];
    dev.may_not_patch("k", &json!({ "spec": { "revoked": true } }), &words);
    dev.may_not_patch(
        "k",
        &json!({ "spec": { "revoked": true, "revokedBy": "dev" } }),
        &words,
    );
    let revoked = manifest("k", "{revoked: true}");
    dev.refused(&["apply", "-f", "-"], &revoked, &words);
    dev.refused(
        &["apply", "--server-side", "--force-conflicts", "-f", "-"],
        &revoked,
        &words,
    );
    dev.refused(&["replace", "-f", "-"], &revoked, &words);
    let json_patch = r#"[{"op": "add", "path": "/spec/revoked", "value": true}]"#;
    dev.refused(
        &["patch", "ak", "k", "--type=json", "-p", json_patch],
        "",
        &words,
    );
    assert_eq!(stage.apikey("k").spec.revoked, None);
    // Who creates a key that is revoked already harms nobody, and stands for it.
    dev.declares("dead", "{revoked: true}");
    assert_eq!(stage.apikey("dead").spec.revoked_by.as_deref(), Some("dev"));
    dev.may_not_declare(
        "dead-2",
        "{revoked: true, revokedBy: ada}",
        &["spec.revokedBy is ada, but it is dev who revokes"],
    );
}

fn an_administrator_of_keys_revokes_and_stands_for_it() {
    let stage = Stage::new("revoking");
    let (dev, ada) = (
        Person::new(&stage, "dev", &[DEVELOPER]),
        Person::new(&stage, "ada", &[ADMIN]),
    );
    for name in ["stamped", "said", "blamed"] {
        dev.declares(name, "{}");
    }
    let may = ["auth", "can-i", "revoke", "apikeys"];
    assert_eq!(
        (dev.try_kubectl(&may, "").0, ada.try_kubectl(&may, "").0),
        (false, true)
    );
    ada.patches(
        "stamped",
        &json!({ "spec": { "revoked": true, "revocationReason": "leaked in a build log" } }),
    );
    ada.patches(
        "said",
        &json!({ "spec": { "revoked": true, "revokedBy": "ada" } }),
    );
    let blames = json!({ "spec": { "revoked": true, "revokedBy": "dev" } });
    ada.may_not_patch(
        "blamed",
        &blames,
        &[
            "(Forbidden)",
            "spec.revokedBy is dev, but it is ada who revokes: leave it out",
        ],
    );
    assert_eq!(stage.apikey("blamed").spec.revoked, None);
    for name in ["stamped", "said"] {
        assert_eq!(stage.apikey(name).spec.revoked_by.as_deref(), Some("ada"));
        let rewrites = json!({ "spec": { "revokedBy": "dev" } });
        dev.may_not_patch(
            name,
            &rewrites,
            &["revokedBy cannot be changed after the revocation"],
        );
    }
}

fn the_verb_revoke_for_one_key_revokes_that() {
    let stage = Stage::new("revoking-one");
    let dev = Person::new(&stage, "dev", &[DEVELOPER]);
    dev.give("revoke", "claviger.dev", "apikeys", &["mine"]);
    for name in ["mine", "other"] {
        dev.declares(name, "{}");
    }
    let revokes = json!({ "spec": { "revoked": true } });
    dev.may_not_patch("other", &revokes, &["dev may not revoke this key"]);
    dev.patches("mine", &revokes);
}

fn nobody_takes_a_revocation_back() {
    let stage = Stage::new("one-way");
    let operator = stage.operator().start_ready();
    let (dev, ada) = (
        Person::new(&stage, "dev", &[DEVELOPER]),
        Person::new(&stage, "ada", &[ADMIN]),
    );
    dev.declares("k", "{}");
    stage.wait_issued("k");
    ada.patches("k", &json!({ "spec": { "revoked": true } }));
    stage.wait_phase("k", claviger::api::Phase::Revoked);
    let says = ["revocation is one-way: a revoked key stays revoked; create another ApiKey"];
    let back = json!({ "spec": { "revoked": null, "revokedBy": null } });
    dev.may_not_patch("k", &back, &says);
    ada.may_not_patch("k", &back, &says);
    ada.refused(&["replace", "-f", "-"], &manifest("k", "{}"), &says);
    // Who may do everything may not do this, either.
    let output = stage.try_kubectl(&["patch", "ak", "k", "--type=merge", "-p", &back.to_string()]);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains(says[0]));
    // Nor make the status say otherwise.
    let active = r#"{"status": {"phase": "Active"}}"#;
    let output = stage.try_kubectl(&[
        "patch",
        "ak",
        "k",
        "--subresource=status",
        "--type=merge",
        "-p",
        active,
    ]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("Expired and Revoked are final"));
    // Under the old name there is only another key.
    let hash = stage.status("k").hash;
    dev.kubectl(&["delete", "ak", "k", "--timeout=80s"], "");
    dev.declares("k", "{}");
    assert_ne!(stage.wait_issued("k").hash, hash);
    assert!(operator.stop().success());
}

/// Whoever keeps manifests in Git writes `revoked: true` there, and not who did it.
fn a_manifest_of_a_revoked_key_can_be_applied_again() {
    let stage = Stage::new("revoked-again");
    let ada = Person::new(&stage, "ada", &[ADMIN]);
    let dev = Person::new(&stage, "dev", &[DEVELOPER]);
    let (living, revoked) = (
        |name: &str| manifest(name, "{}"),
        |name: &str| manifest(name, "{revoked: true}"),
    );
    let client: &[&str] = &["apply", "-f", "-"];
    let flux: &[&str] = &["apply", "--server-side", "--field-manager=flux", "-f", "-"];
    let argo: &[&str] = &["apply", "--server-side", "--field-manager=argo", "-f", "-"];
    let replace: &[&str] = &["replace", "-f", "-"];
    for (name, create, ways) in [
        ("client", client, vec![client, replace]),
        ("server", flux, vec![flux, argo, replace]),
    ] {
        dev.kubectl(create, &living(name));
        ada.kubectl(create, &revoked(name));
        for way in ways {
            // The first of a kind may write down who manages what; the second has nothing to say.
            dev.kubectl(way, &revoked(name));
            let before = resource_version(&stage, name);
            dev.kubectl(way, &revoked(name));
            assert_eq!(
                resource_version(&stage, name),
                before,
                "{name}: {way:?} again"
            );
            assert_eq!(
                stage.apikey(name).spec.revoked_by.as_deref(),
                Some("ada"),
                "{name}: {way:?}"
            );
        }
    }
}
