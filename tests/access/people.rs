//! What developers, viewers and administrators of keys may do at all.

use serde_json::json;

use super::{ADMIN, DEVELOPER, Person};
use crate::stories;
use crate::support::stage::{Stage, manifest};
use crate::support::wait;

stories![
    a_developer_creates_views_edits_and_deletes,
    who_may_edit_or_view_a_namespace_may_so_with_its_keys,
    nobody_but_the_controller_writes_a_status,
    who_administers_a_namespace_cannot_give_themselves_more,
    an_expiry_stays_as_it_was_created,
    a_description_has_more_than_10_and_fewer_than_100_characters,
];

fn a_developer_creates_views_edits_and_deletes() {
    let stage = Stage::new("developer");
    let operator = stage.operator().start_ready();
    let dev = Person::new(&stage, "dev", &[DEVELOPER]);
    let spec = "{description: Nightly export of invoices, owner: billing@example.com, expiry: {after: 90d}}";
    assert_eq!(dev.declares("k", spec), "apikey.claviger.dev/k created\n");
    stage.wait_issued("k");
    let seen = dev.kubectl(&["get", "ak", "-o", "wide"], "");
    assert!(
        seen.contains("Active") && seen.contains("Nightly export of invoices"),
        "{seen}"
    );
    assert!(
        dev.kubectl(&["describe", "ak", "k"], "")
            .contains("sha256:")
    );
    assert_eq!(
        dev.patches("k", &json!({ "spec": { "owner": "ops@example.com" } })),
        "apikey.claviger.dev/k patched\n"
    );
    // The right to ApiKeys is none to Secrets.
    dev.refused(
        &["get", "secret", "k"],
        "",
        &["cannot get resource \"secrets\""],
    );
    dev.kubectl(&["delete", "ak", "k", "--timeout=80s"], "");
    assert!(stage.find("k").is_none() && stage.secret("k").is_none());
    assert!(operator.stop().success());
}

/// The roles that everybody knows have the shipped ones in them.
fn who_may_edit_or_view_a_namespace_may_so_with_its_keys() {
    let stage = Stage::new("aggregated");
    for role in ["view", "edit", "admin"] {
        wait::until(&format!("{role} knows ApiKeys"), || {
            let rules = stage
                .cluster
                .kubectl(&["get", "clusterrole", role, "-o", "yaml"]);
            if rules.contains("claviger.dev") {
                Ok(())
            } else {
                Err(rules)
            }
        });
    }
    let (viewer, editor) = (
        Person::new(&stage, "vic", &["view"]),
        Person::new(&stage, "eve", &["edit"]),
    );
    editor.declares("k", "{}");
    assert!(viewer.kubectl(&["get", "ak"], "").contains('k'));
    viewer.may_not_declare(
        "j",
        "{}",
        &["User \"vic\" cannot create resource \"apikeys\" in API group \"claviger.dev\""],
    );
    viewer.refused(
        &["delete", "ak", "k"],
        "",
        &["User \"vic\" cannot delete resource \"apikeys\""],
    );
    editor.may_not_patch(
        "k",
        &json!({ "spec": { "revoked": true } }),
        &["eve may not revoke this key"],
    );
    editor.kubectl(&["delete", "ak", "k", "--wait=false"], "");
    // Whose ClusterRole is bound in a namespace sees nothing that belongs to none.
    editor.refused(
        &["get", "apikeypolicies"],
        "",
        &[
            "cannot list resource \"apikeypolicies\"",
            "at the cluster scope",
        ],
    );
}

/// Whoever can write a status can make a key valid: no role that is shipped can.
fn nobody_but_the_controller_writes_a_status() {
    let stage = Stage::new("status");
    let people = [
        Person::new(&stage, "dev", &[DEVELOPER]),
        Person::new(&stage, "ada", &[ADMIN]),
        Person::new(&stage, "nate", &["admin"]),
    ];
    people[0].declares("k", "{}");
    let status = json!({ "status": { "phase": "Active", "versions": [] } }).to_string();
    for person in &people {
        let words = format!("User \"{}\" cannot", person.name);
        let patch = [
            "patch",
            "ak",
            "k",
            "--subresource=status",
            "--type=merge",
            "-p",
            &status,
        ];
        person.refused(&patch, "", &["(Forbidden)", &words, "apikeys/status"]);
        let whole = format!(
            "{}status: {{phase: Active}}\n",
            manifest("k", "{}").trim_end_matches("---\n")
        );
        let replace = ["replace", "--subresource=status", "-f", "-"];
        person.refused(&replace, &whole, &["(Forbidden)", &words, "apikeys/status"]);
        // What stands in a manifest of the ApiKey itself is dropped.
        person.kubectl(&["apply", "-f", "-"], &whole);
    }
    assert_eq!(stage.apikey("k").status, None);
}

/// RBAC gives nobody what the giver has not, and `grant` is in no role that is aggregated.
fn who_administers_a_namespace_cannot_give_themselves_more() {
    let stage = Stage::new("escalating");
    let nate = Person::new(&stage, "nate", &["admin"]);
    for (verb, resource) in [
        ("grant", "apikeyroles"),
        ("grant", "permissions"),
        ("revoke", "apikeys"),
        ("import", "apikeys"),
        ("adopt", "apikeys"),
        ("verify", "apikeys"),
        ("patch", "apikeys/status"),
    ] {
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "more" },
            "rules": [{ "apiGroups": ["claviger.dev"], "resources": [resource], "verbs": [verb] }],
        });
        nate.refused(
            &["create", "-f", "-"],
            &role.to_string(),
            &["attempting to grant RBAC permissions not currently held"],
        );
    }
    let bind = [
        "create",
        "rolebinding",
        "more",
        "--clusterrole=claviger-admin",
        "--user=nate",
    ];
    nate.refused(
        &bind,
        "",
        &["attempting to grant RBAC permissions not currently held"],
    );
}

fn an_expiry_stays_as_it_was_created() {
    let stage = Stage::new("expiry");
    let (dev, ada) = (
        Person::new(&stage, "dev", &[DEVELOPER]),
        Person::new(&stage, "ada", &[ADMIN]),
    );
    dev.declares("with", "{expiry: {after: 90d}}");
    dev.declares("without", "{}");
    let says = [
        "is invalid: spec.expiry",
        "expiry cannot be changed, added or removed after creation",
    ];
    for person in [&dev, &ada] {
        person.may_not_patch(
            "with",
            &json!({ "spec": { "expiry": { "after": "91d" } } }),
            &says,
        );
        person.may_not_patch("with", &json!({ "spec": { "expiry": null } }), &says);
        person.may_not_patch(
            "with",
            &json!({ "spec": { "expiry": { "after": null, "never": true } } }),
            &says,
        );
        person.may_not_patch(
            "without",
            &json!({ "spec": { "expiry": { "after": "90d" } } }),
            &says,
        );
    }
    dev.may_not_declare(
        "late",
        "{expiry: {at: 2020-02-29T12:00:00Z}}",
        &[
            "The apikeys \"late\" is invalid",
            "spec.expiry.at is 2020-02-29T12:00:00Z, which is past: it is 20",
        ],
    );
    dev.declares("in-time", "{expiry: {at: 2099-01-01T00:00:00Z}}");
}

fn a_description_has_more_than_10_and_fewer_than_100_characters() {
    let stage = Stage::new("described");
    let dev = Person::new(&stage, "dev", &[DEVELOPER]);
    for (count, words) in [
        (10, "should be at least 11 chars long"),
        (100, "may not be more than 99"),
    ] {
        let spec = format!("{{description: {}}}", "d".repeat(count));
        dev.may_not_declare(
            "k",
            &spec,
            &["The ApiKey \"k\" is invalid: ", "spec.description: ", words],
        );
    }
    for count in [11, 99] {
        dev.declares(
            &format!("k-{count}"),
            &format!("{{description: {}}}", "d".repeat(count)),
        );
    }
}
