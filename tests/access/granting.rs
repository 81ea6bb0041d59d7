//! What a key may do is granted to who writes it down, by name.

use claviger::api::ConditionType;
use claviger::api::names::{
    ANNOTATION_ADOPT, ANNOTATION_KEY_ID, LABEL_APIKEY, LABEL_MANAGED_BY, MANAGED_BY,
};
use serde_json::{Value, json};

use super::{DEVELOPER, Person, numbered};
use crate::drift::pass;
use crate::stories;
use crate::support::stage::{Stage, manifest};
use crate::support::wait;

stories![
    nobody_grants_what_was_not_granted_to_them,
    who_was_granted_a_name_grants_that,
    the_grant_of_the_example_is_that_of_the_readme_and_works,
    what_a_key_has_already_needs_no_grant,
    everything_that_a_list_holds_can_be_granted_in_one_request,
    who_was_granted_everything_grants_everything,
    a_planted_secret_gives_a_key_nothing,
    roles_change_without_a_new_version,
];

fn nobody_grants_what_was_not_granted_to_them() {
    let stage = Stage::new("not-granted");
    let dev = Person::new(&stage, "dev", &[DEVELOPER]);
    dev.declares("old", "{}");
    for (field, name, words) in [
        (
            "roles",
            "ic-admin",
            "dev may not grant the role ic-admin: that needs the verb grant on apikeyroles.claviger.dev of this name",
        ),
        (
            "permissions",
            "invoices:write",
            "dev may not grant the permission invoices:write: that needs the verb grant on permissions",
        ),
        (
            "audiences",
            "payments-api",
            "dev may not grant the audience payments-api: that needs the verb grant on audiences",
        ),
    ] {
        let words = ["(Forbidden)", words, "in namespace not-granted-"];
        dev.may_not_declare("new", &json!({ field: [name] }).to_string(), &words);
        dev.may_not_patch("old", &json!({ "spec": { field: [name] } }), &words);
        // Not under a name that is allowed to begin with, nor together with a revocation or another key's origin.
        let source =
            json!({ field: [name], "source": { "hash": format!("sha256:{}", "0".repeat(64)) } });
        dev.may_not_declare(
            "imported",
            &source.to_string(),
            &["(Forbidden)", "dev may not"],
        );
        dev.may_not_declare(
            "dead",
            &json!({ field: [name], "revoked": true }).to_string(),
            &words,
        );
        let server_side = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        dev.refused(
            &server_side,
            &manifest("old", &json!({ field: [name] }).to_string()),
            &words,
        );
        dev.refused(
            &["replace", "-f", "-"],
            &manifest("old", &json!({ field: [name] }).to_string()),
            &words,
        );
    }
    // Even who may import and adopt may not import what was not granted to them.
    dev.give("import", "claviger.dev", "apikeys", &[]);
    let source = json!({ "roles": ["ic-admin"], "source": { "hash": format!("sha256:{}", "0".repeat(64)) } });
    dev.may_not_declare(
        "imported",
        &source.to_string(),
        &["dev may not grant the role ic-admin"],
    );
    // A template has no place for any, and what it puts on the Secret is not what gates ask.
    let template = r#"{"secret": {"template": {"roles": ["ic-admin"]}}}"#;
    dev.may_not_declare(
        "templated",
        template,
        &["unknown field \"spec.secret.template.roles\""],
    );
    let label =
        r#"{"secret": {"template": {"metadata": {"labels": {"claviger.dev/roles": "ic-admin"}}}}}"#;
    dev.may_not_declare(
        "templated",
        label,
        &["claviger.dev/… and app.kubernetes.io/managed-by are set by Claviger"],
    );
}

fn who_was_granted_a_name_grants_that() {
    let stage = Stage::new("granted");
    let dev = Person::new(&stage, "dev", &[DEVELOPER]);
    dev.give(
        "grant",
        "claviger.dev",
        "apikeyroles",
        &["ic-viewer", "ic-editor"],
    );
    dev.give(
        "grant",
        "claviger.dev",
        "permissions",
        &["invoices:read", "invoices/eu:read.all_of-it", "A9"],
    );
    dev.give(
        "grant",
        "claviger.dev",
        "audiences",
        &["https://invoices.example.com/v1?x=1"],
    );
    let spec = json!({
        "roles": ["ic-viewer"],
        "permissions": ["invoices:read", "invoices/eu:read.all_of-it", "A9"],
        "audiences": ["https://invoices.example.com/v1?x=1"],
    });
    dev.declares("k", &spec.to_string());
    dev.patches(
        "k",
        &json!({ "spec": { "roles": ["ic-viewer", "ic-editor"] } }),
    );
    let more = json!({ "spec": { "roles": ["ic-viewer", "ic-admin", "ic-editor"] } });
    dev.may_not_patch("k", &more, &["dev may not grant the role ic-admin"]);
    // A name is itself and no other, and a role is no permission.
    for (field, name) in [
        ("permissions", "invoices:rea"),
        ("permissions", "invoices"),
        ("permissions", "ic-viewer"),
        ("roles", "a9"),
    ] {
        dev.may_not_declare(
            "other",
            &json!({ field: [name] }).to_string(),
            &["dev may not grant", name],
        );
    }
    // A grant is for the namespace that it was given in.
    let elsewhere = Stage::new("granted-elsewhere");
    let visitor = Person::new(&elsewhere, "dev", &[DEVELOPER]);
    visitor.may_not_declare(
        "k",
        "{roles: [ic-viewer]}",
        &["dev may not grant the role ic-viewer"],
    );
}

fn the_grant_of_the_example_is_that_of_the_readme_and_works() {
    let (readme, example) = (
        include_str!("../../README.md"),
        include_str!("../../examples/granted.yaml"),
    );
    let (grant, apikey) = example.rsplit_once("\n---\n").unwrap();
    for rule in example
        .lines()
        .filter(|line| line.starts_with("- {apiGroups: [claviger.dev]"))
    {
        assert!(readme.contains(rule), "{rule}");
    }
    let stage = Stage::new("example");
    let bill = Person::in_groups(&stage, "bill", &["billing"], &[DEVELOPER]);
    bill.refused(&["apply", "-f", "-"], apikey, &["bill may not grant"]);
    // Who applies the whole file must have it to give.
    let nate = Person::new(&stage, "nate", &["admin"]);
    nate.refused(
        &["apply", "-f", "-"],
        grant,
        &["attempting to grant RBAC permissions not currently held"],
    );
    stage.apply(grant);
    wait::until("the grant is known", || {
        match bill.try_kubectl(&["apply", "-f", "-"], apikey) {
            (true, _) => Ok(()),
            (false, said) => Err(said),
        }
    });
    bill.may_not_patch(
        "granted",
        &json!({ "spec": { "roles": ["ic-viewer", "ic-admin"] } }),
        &["bill may not grant the role ic-admin"],
    );
}

fn what_a_key_has_already_needs_no_grant() {
    let stage = Stage::new("had");
    let dev = Person::new(&stage, "dev", &[DEVELOPER]);
    let spec = json!({ "roles": ["ic-admin", "ic-viewer"], "permissions": ["a", "b"], "audiences": ["x", "y"] });
    stage.declare("k", &spec.to_string());
    // By applying the same again, in another order, with less of it, or with another field.
    let again = json!({
        "owner": "ops", "roles": ["ic-viewer", "ic-admin"], "permissions": ["b", "a"], "audiences": ["y", "x"],
    });
    dev.declares("k", &again.to_string());
    dev.patches(
        "k",
        &json!({ "spec": { "roles": ["ic-viewer"], "permissions": null, "audiences": ["x"] } }),
    );
    // What was given up has to be granted again.
    let back = json!({ "spec": { "roles": ["ic-viewer", "ic-admin"] } });
    dev.may_not_patch("k", &back, &["dev may not grant the role ic-admin"]);
}

fn everything_that_a_list_holds_can_be_granted_in_one_request() {
    let stage = Stage::new("many-granted");
    let dev = Person::new(&stage, "dev", &[DEVELOPER]);
    let (roles, audiences) = (numbered("role-", 16), numbered("audience-", 16));
    let permissions = numbered("things:do-", 25);
    for (resource, names) in [
        ("apikeyroles", &roles),
        ("audiences", &audiences),
        ("permissions", &permissions),
    ] {
        dev.give(
            "grant",
            "claviger.dev",
            resource,
            &names.iter().map(String::as_str).collect::<Vec<_>>(),
        );
    }
    let all = json!({ "roles": roles, "audiences": audiences, "permissions": permissions[..24] });
    dev.declares("at-once", &all.to_string());
    dev.declares("later", "{}");
    dev.patches("later", &json!({ "spec": all }));
    let words = "at most 24 permissions can be added in one request, and this one adds 25: add the others in further requests";
    dev.may_not_declare(
        "more",
        &json!({ "permissions": permissions }).to_string(),
        &["(Forbidden)", words],
    );
    dev.patches("later", &json!({ "spec": { "permissions": permissions } }));
    // One that was not granted is named, wherever it stands.
    for (field, names) in [
        ("roles", &roles),
        ("audiences", &audiences),
        ("permissions", &permissions),
    ] {
        let most = names.len().min(24);
        for place in [0, most / 2, most - 1] {
            let mut names = names[..most].to_vec();
            names[place] = String::from("not-mine");
            let words = format!(
                "dev may not grant the {} not-mine",
                field.trim_end_matches('s')
            );
            dev.may_not_declare(
                "one-too-many",
                &json!({ field: names }).to_string(),
                &[&words],
            );
        }
    }
}

fn who_was_granted_everything_grants_everything() {
    let stage = Stage::new("all-granted");
    let dev = Person::new(&stage, "dev", &[DEVELOPER]);
    for resource in ["apikeyroles", "permissions", "audiences"] {
        dev.give("grant", "claviger.dev", resource, &[]);
    }
    let long = |beginning: &str, count: usize, length: usize| -> Vec<String> {
        let filled = numbered(beginning, count)
            .into_iter()
            .map(|name| format!("{name}-{}", "x".repeat(length - name.len() - 1)));
        filled.collect()
    };
    let all = json!({ "roles": long("role-", 16, 253), "audiences": long("audience-", 16, 253), "permissions": long("things:do-", 64, 128) });
    dev.declares("k", &all.to_string());
    let other = json!({ "roles": long("a-role-", 16, 253), "audiences": long("an-audience-", 16, 253), "permissions": long("else:do-", 64, 128) });
    dev.patches("k", &json!({ "spec": other }));
}

/// The status is the only authority: a Secret that somebody made to look like ours is not taken over, and to ask for that needs a
/// verb that they do not have.
fn a_planted_secret_gives_a_key_nothing() {
    let stage = Stage::new("planted");
    let eve = Person::new(&stage, "eve", &["edit"]);
    eve.declares("k", "{}");
    let uid = stage.apikey("k").metadata.uid;
    let planted = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": "k",
            "labels": { LABEL_APIKEY: "k", LABEL_MANAGED_BY: MANAGED_BY },
            "annotations": { ANNOTATION_KEY_ID: "0".repeat(32) },
            "ownerReferences": [{
                "apiVersion": "claviger.dev/v1alpha1", "kind": "ApiKey", "name": "k", "uid": uid, "controller": true,
            }],
        },
        "stringData": { "api-key": "a-key-that-somebody-else-knows-already" },
    });
    eve.kubectl(&["create", "-f", "-"], &planted.to_string());
    let operator = stage.operator().start_ready();
    let status = stage.wait_reason("k", ConditionType::Delivered, "SecretConflict");
    assert_eq!((status.hash, status.version), (None, None));
    let adopts =
        |value: &Value| json!({ "metadata": { "annotations": { ANNOTATION_ADOPT: value } } });
    let words = [
        "(Forbidden)",
        "eve may not have a Secret adopted: the annotation claviger.dev/adopt needs the verb adopt on apikeys.claviger.dev",
    ];
    eve.may_not_patch("k", &adopts(&json!("true")), &words);
    eve.may_not_patch("k", &adopts(&json!("yes")), &words);
    let born = manifest("j", "{}").replace(
        "{name: j}",
        r#"{name: j, annotations: {claviger.dev/adopt: "true"}}"#,
    );
    eve.refused(&["apply", "-f", "-"], &born, &words);
    pass(&stage, "marker");
    assert_eq!(stage.status("k").hash, None, "still not taken over");
    // With the verb it may be asked for; to write the annotation again is no new question.
    eve.give("adopt", "claviger.dev", "apikeys", &["j"]);
    eve.may_not_patch("k", &adopts(&json!("true")), &words);
    eve.kubectl(&["apply", "-f", "-"], &born);
    // Adopting shows the hash and the tail of a Secret to whoever may look at ApiKeys: who asks for it may read that Secret.
    let mallory = Person::new(&stage, "mallory", &[DEVELOPER]);
    mallory.give("adopt", "claviger.dev", "apikeys", &["spy"]);
    let spy = manifest("spy", "{secret: {name: db-credentials}}");
    let spy = spy.replace(
        "{name: spy}",
        r#"{name: spy, annotations: {claviger.dev/adopt: "true"}}"#,
    );
    let words = [
        "(Forbidden)",
        "mallory may not have the Secret db-credentials adopted: that needs the verb get on it",
    ];
    mallory.refused(&["apply", "-f", "-"], &spy, &words);
    mallory.give("get", "", "secrets", &["db-credentials"]);
    mallory.kubectl(&["apply", "-f", "-"], &spy);
    assert!(operator.stop().success());
}

fn roles_change_without_a_new_version() {
    let stage = Stage::new("roles");
    let operator = stage.operator().start_ready();
    let dev = Person::new(&stage, "dev", &[DEVELOPER]);
    dev.give(
        "grant",
        "claviger.dev",
        "apikeyroles",
        &["ic-viewer", "ic-editor"],
    );
    dev.declares("k", "{roles: [ic-viewer]}");
    let issued = stage.wait_issued("k");
    let secret = stage.secret("k").unwrap().metadata.resource_version;
    for roles in [
        json!(["ic-viewer", "ic-editor"]),
        json!(["ic-editor"]),
        Value::Null,
    ] {
        dev.patches("k", &json!({ "spec": { "roles": roles } }));
        let generation = stage.apikey("k").metadata.generation;
        let status = stage.wait("k", "is looked at again", |status| {
            status.observed_generation == generation
        });
        assert_eq!(
            (status.version, status.hash, status.versions.len()),
            (Some(1), issued.hash.clone(), 1),
            "{roles}"
        );
        assert_eq!(
            stage.secret("k").unwrap().metadata.resource_version,
            secret,
            "{roles}"
        );
    }
    assert!(operator.stop().success());
}
