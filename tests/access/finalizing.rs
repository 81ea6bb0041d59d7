//! The finalizer that an `ApiKey` is born with, and what becomes of those that lose it.

use claviger::api::Phase;
use claviger::api::names::FINALIZER;
use kube::ResourceExt as _;
use serde_json::json;

use super::{DEVELOPER, Person, resource_version};
use crate::stories;
use crate::support::stage::{Stage, manifest};
use crate::support::wait;

stories![
    an_apikey_is_born_with_the_finalizer,
    no_way_of_applying_again_changes_anything,
    a_finalizer_that_was_taken_off_comes_back,
    without_its_finalizer_a_deleted_key_takes_its_secret_along,
];

fn an_apikey_is_born_with_the_finalizer() {
    let stage = Stage::new("born");
    let dev = Person::new(&stage, "dev", &[DEVELOPER]);
    for (name, given, wanted) in [
        ("none", "", vec![FINALIZER]),
        ("null", ", finalizers: null", vec![FINALIZER]),
        ("empty", ", finalizers: []", vec![FINALIZER]),
        (
            "own",
            ", finalizers: [claviger.dev/finalizer]",
            vec![FINALIZER],
        ),
        (
            "other",
            ", finalizers: [example.com/hold]",
            vec!["example.com/hold", FINALIZER],
        ),
    ] {
        let text = manifest(name, "{}").replace(
            &format!("{{name: {name}}}"),
            &format!("{{name: \"{name}\"{given}}}"),
        );
        dev.kubectl(&["create", "-f", "-"], &text);
        assert_eq!(stage.apikey(name).finalizers(), wanted, "{name}");
    }
    dev.kubectl(
        &["apply", "--server-side", "-f", "-"],
        &manifest("server", "{}"),
    );
    assert_eq!(stage.apikey("server").finalizers(), [FINALIZER]);
}

/// What the API server added is nobody's in `managedFields`, so that nobody takes it away by not knowing of it.
fn no_way_of_applying_again_changes_anything() {
    let stage = Stage::new("applied-again");
    let dev = Person::new(&stage, "dev", &[DEVELOPER]);
    let spec = "{description: Nightly export, expiry: {after: 90d}}";
    let client: &[&str] = &["apply", "-f", "-"];
    let flux: &[&str] = &["apply", "--server-side", "--field-manager=flux", "-f", "-"];
    let argo: &[&str] = &["apply", "--server-side", "--field-manager=argo", "-f", "-"];
    for (name, ways) in [
        ("client", vec![client, client]),
        ("flux", vec![flux, flux]),
        ("both", vec![flux, argo, flux, argo]),
    ] {
        let text = manifest(name, spec);
        let mut known: Vec<&[&str]> = Vec::new();
        for way in ways {
            let before = stage.find(name).map(|_| resource_version(&stage, name));
            dev.kubectl(way, &text);
            // Who applies for the first time is written down as another manager.
            if known.contains(&way) {
                assert_eq!(
                    Some(resource_version(&stage, name)),
                    before,
                    "{name}: {way:?}"
                );
            }
            known.push(way);
            assert_eq!(
                stage.apikey(name).finalizers(),
                [FINALIZER],
                "{name}: {way:?}"
            );
        }
        let (same, diff) = dev.try_kubectl(&["diff", "-f", "-"], &text);
        assert!(same, "{name}: {diff}");
    }
}

/// Whoever may edit an ApiKey can take its finalizer off, and `kubectl replace` does by not naming it.
fn a_finalizer_that_was_taken_off_comes_back() {
    let stage = Stage::new("taken-off");
    let operator = stage.operator().start_ready();
    let dev = Person::new(&stage, "dev", &[DEVELOPER]);
    dev.declares("k", "{}");
    let issued = stage.wait_issued("k");
    let off = json!({ "metadata": { "finalizers": null } });
    let ways: [&dyn Fn() -> String; 2] = [&|| dev.patches("k", &off), &|| {
        dev.kubectl(&["replace", "-f", "-"], &manifest("k", "{}"))
    }];
    for way in ways {
        let before = resource_version(&stage, "k");
        way();
        wait::until("the finalizer is back", || {
            let apikey = stage.apikey("k");
            let back = apikey.finalizers() == [FINALIZER]
                && apikey.metadata.resource_version.as_ref() != Some(&before);
            if back {
                Ok(())
            } else {
                Err(format!("{apikey:?}"))
            }
        });
        assert_eq!(
            stage.status("k").hash,
            issued.hash,
            "and nothing else happened"
        );
    }
    assert!(operator.stop().success());
}

/// The key is refused from the moment that its ApiKey is deleted; the Secret then goes by its owner reference.
fn without_its_finalizer_a_deleted_key_takes_its_secret_along() {
    let stage = Stage::new("collected");
    let operator = stage.operator().start_ready();
    let dev = Person::new(&stage, "dev", &[DEVELOPER]);
    dev.declares("k", "{}");
    stage.wait_issued("k");
    assert_eq!(stage.status("k").phase, Some(Phase::Active));
    operator.kill();
    dev.kubectl(&["delete", "ak", "k", "--wait=false"], "");
    assert!(stage.apikey("k").is_deleting());
    dev.patches("k", &json!({ "metadata": { "finalizers": null } }));
    stage.wait_gone("k");
    wait::until("the Secret is collected", || {
        stage
            .secret("k")
            .map_or(Ok(()), |left| Err(format!("{:?}", left.metadata)))
    });
}
