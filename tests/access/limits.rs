//! What organizations and `ApiKeyPolicy` objects keep people from asking for.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{DEVELOPER, Person};
use crate::stories;
use crate::support::stage::{Stage, manifest};
use crate::support::wait;

stories![
    a_key_stays_in_its_organization,
    a_longer_life_than_a_policy_allows_is_refused,
    a_default_is_a_lifetime,
    every_limit_of_a_policy_is_told_when_a_key_is_created,
    on_an_edit_only_what_changes_is_measured,
    several_policies_apply_together_where_their_labels_are,
    the_policy_of_the_readme_is_taken,
];

/// Imposes something on the story's namespace, and waits until the API server does.
pub(super) fn impose(stage: &Stage, name: &str, spec: &Value) -> String {
    let name = format!("{}-{name}", stage.namespace);
    let mut spec = spec.clone();
    spec["namespaces"] =
        json!({ "matchLabels": { "kubernetes.io/metadata.name": stage.namespace } });
    // Something in it that is easily broken shows that it is in force.
    spec["prefixes"] = spec
        .get("prefixes")
        .cloned()
        .unwrap_or_else(|| json!({ "allowed": ["clv"] }));
    let policy = json!({
        "apiVersion": "claviger.dev/v1alpha1", "kind": "ApiKeyPolicy", "metadata": { "name": name }, "spec": spec,
    });
    stage.cluster.apply(&policy.to_string());
    let probe = manifest("probe", "{prefix: not_allowed}");
    wait::until(&format!("ApiKeyPolicy {name} is in force"), || {
        let output = stage.cluster.try_kubectl(
            &[
                "-n",
                &stage.namespace,
                "create",
                "--dry-run=server",
                "-f",
                "-",
            ],
            &probe,
        );
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // One refusal is told, of any policy: this one's place is found by asking without the others.
        if said.contains("ApiKeyPolicy ") {
            Ok(())
        } else {
            Err(said)
        }
    });
    name
}

/// A developer to whom everything is granted, so that only policies stand in the way.
pub(super) fn trusted(stage: &Stage) -> Person<'_> {
    let dev = Person::new(stage, "dev", &[DEVELOPER]);
    for resource in ["apikeyroles", "permissions", "audiences"] {
        dev.give("grant", "claviger.dev", resource, &[]);
    }
    dev.give("import", "claviger.dev", "apikeys", &[]);
    dev
}

fn a_key_stays_in_its_organization() {
    let stage = Stage::new("organization");
    let dev = Person::new(&stage, "dev", &[DEVELOPER]);
    let none = "the key belongs to organization acme, and its namespace to none: label the namespace claviger.dev/organization";
    dev.may_not_declare(
        "k",
        "{organization: acme}",
        &["The apikeys \"k\" is invalid", none],
    );
    dev.declares("without", "{}");
    stage.cluster.kubectl(&[
        "label",
        "namespace",
        &stage.namespace,
        "claviger.dev/organization=acme.mobile",
    ]);
    wait::until("the label is known", || {
        let (accepted, said) = dev.try_kubectl(
            &["create", "--dry-run=server", "-f", "-"],
            &manifest("k", "{organization: acme.mobile}"),
        );
        if accepted { Ok(()) } else { Err(said) }
    });
    for other in [
        "acme",
        "acme.web",
        "acme.mobile2",
        "mobile",
        "acme.mobil",
        "globex",
    ] {
        let words = format!(
            "the key belongs to organization {other}, which is neither acme.mobile, the organization of its namespace, nor one below it"
        );
        dev.may_not_declare(
            "k",
            &format!("{{organization: {other}}}"),
            &["The apikeys \"k\" is invalid", &words],
        );
    }
    for own in ["acme.mobile", "acme.mobile.ios"] {
        dev.declares(&own.replace('.', "-"), &format!("{{organization: {own}}}"));
    }
    let moves = json!({ "spec": { "organization": "acme.mobile.ios" } });
    dev.may_not_patch(
        "acme-mobile",
        &moves,
        &["organization cannot be changed, added or removed after creation"],
    );
}

fn a_longer_life_than_a_policy_allows_is_refused() {
    let stage = Stage::new("lifetime");
    let dev = Person::new(&stage, "dev", &[DEVELOPER]);
    let policy = impose(
        &stage,
        "short-lived",
        &json!({ "lifetime": { "max": "90d" } }),
    );
    let soon = |days: i64| {
        (Timestamp::now() + SignedDuration::from_hours(24 * days))
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string()
    };
    let never = "a key that never ends";
    for (expiry, asked) in [
        (json!({ "after": "365d" }), "365d"),
        (json!({ "after": "91d" }), "91d"),
        (json!({ "after": "13w" }), "13w"),
        (json!({ "after": "2161h" }), "2161h"),
        (json!({ "after": "99999w" }), "99999w"),
        (json!({ "at": soon(91) }), &soon(91)[..10]),
        (
            json!({ "at": "9999-12-31T23:59:59Z" }),
            "9999-12-31T23:59:59Z",
        ),
        (json!({ "never": true }), never),
        (Value::Null, never),
    ] {
        let words = format!(
            "ApiKeyPolicy {policy} allows a lifetime of at most 90d; spec.expiry asks for {asked}"
        );
        let spec = if expiry.is_null() {
            json!({})
        } else {
            json!({ "expiry": expiry })
        };
        dev.may_not_declare(
            "k",
            &spec.to_string(),
            &["The apikeys \"k\" is invalid", &words],
        );
    }
    for (name, expiry) in [
        ("days", json!({ "after": "90d" })),
        ("hours", json!({ "after": "2160h" })),
        ("weeks", json!({ "after": "12w" })),
        ("second", json!({ "after": "1s" })),
        ("at", json!({ "at": soon(89) })),
    ] {
        dev.declares(name, &json!({ "expiry": expiry }).to_string());
    }
}

fn a_default_is_a_lifetime() {
    let stage = Stage::new("default");
    let dev = Person::new(&stage, "dev", &[DEVELOPER]);
    let limits = json!({ "lifetime": { "max": "90d", "default": "30d" }, "require": ["expiry"] });
    let policy = impose(&stage, "defaulting", &limits);
    dev.declares("silent", "{}");
    let words = format!(
        "ApiKeyPolicy {policy} allows a lifetime of at most 90d; spec.expiry asks for a key that never ends"
    );
    dev.may_not_declare("never", "{expiry: {never: true}}", &[&words]);
    // Where there is no limit, never is an answer, too.
    let stage = Stage::new("required");
    let dev = Person::new(&stage, "dev", &[DEVELOPER]);
    let policy = impose(&stage, "asking", &json!({ "require": ["expiry"] }));
    dev.may_not_declare(
        "silent",
        "{}",
        &[&format!("ApiKeyPolicy {policy} requires spec.expiry")],
    );
    dev.declares("never", "{expiry: {never: true}}");
}

/// Limits of every kind.
fn limits() -> Value {
    json!({
        "rotation": { "maxInterval": "30d", "required": true },
        "roles": { "allowed": ["ic-viewer", "team-*"] },
        "permissions": { "allowed": ["invoices:*"] },
        "audiences": { "allowed": ["invoices-api"] },
        "prefixes": { "allowed": ["acme", "acme_*"] },
        "imports": "Forbidden",
        "template": { "annotationPrefixes": ["example.com/"] },
        "require": ["description", "owner", "application"],
    })
}

/// What keeps to all of them.
fn good() -> Value {
    json!({
        "description": "Nightly export", "owner": "ops", "application": "billing", "prefix": "acme_x",
        "rotation": { "every": "30d" },
        "roles": ["ic-viewer", "team-a"], "permissions": ["invoices:read"], "audiences": ["invoices-api"],
        "secret": { "template": { "metadata": { "annotations": { "example.com/cost-centre": "42" } } } },
    })
}

/// One field of [`good`] as something else, or without it.
fn but(field: &str, value: Value) -> Value {
    let mut spec = good();
    spec[field] = value;
    if spec[field].is_null() {
        spec.as_object_mut().unwrap().remove(field);
    }
    spec
}

fn annotated(name: &str, value: &str) -> Value {
    json!({ "template": { "metadata": { "annotations": { "example.com/cost-centre": "42", name: value } } } })
}

fn every_limit_of_a_policy_is_told_when_a_key_is_created() {
    let stage = Stage::new("limits");
    let dev = trusted(&stage);
    let policy = impose(&stage, "strict", &limits());
    for (spec, words) in [
        (but("description", Value::Null), "requires spec.description"),
        (but("owner", Value::Null), "requires spec.owner"),
        (but("application", Value::Null), "requires spec.application"),
        (but("rotation", Value::Null), "requires spec.rotation.every"),
        (
            but("rotation", json!({ "overlap": "1h" })),
            "requires spec.rotation.every",
        ),
        (
            but("rotation", json!({ "every": "31d" })),
            "allows a rotation interval of at most 30d; spec.rotation.every is 31d",
        ),
        (
            but("roles", json!(["ic-viewer", "ic-view"])),
            "does not allow the role ic-view",
        ),
        (
            but("roles", json!(["team"])),
            "does not allow the role team",
        ),
        (
            but("permissions", json!(["invoices:read", "invoice:read"])),
            "does not allow the permission invoice:read",
        ),
        (
            but("audiences", json!(["invoices-api-2"])),
            "does not allow the audience invoices-api-2",
        ),
        (but("prefix", Value::Null), "does not allow the prefix clv"),
        (
            but("prefix", json!("acmes")),
            "does not allow the prefix acmes",
        ),
        (
            but(
                "source",
                json!({ "hash": format!("sha256:{}", "2".repeat(64)) }),
            ),
            "does not allow imports",
        ),
        (
            but("secret", annotated("reflector.example.org/to", "all")),
            "does not allow the annotation reflector.example.org/to in spec.secret.template",
        ),
    ] {
        let words = format!("ApiKeyPolicy {policy} {words}");
        dev.may_not_declare(
            "k",
            &spec.to_string(),
            &["The apikeys \"k\" is invalid", &words],
        );
    }
    dev.declares("k", &good().to_string());
    // Adopting is importing by another way, also for who may do everything.
    let adopted = stage.try_kubectl(&["annotate", "apikey", "k", "claviger.dev/adopt=true"]);
    let said = String::from_utf8_lossy(&adopted.stderr);
    assert!(
        !adopted.status.success()
            && said.contains(&format!("ApiKeyPolicy {policy} does not allow imports")),
        "{said}"
    );
    for (name, spec) in [
        (
            "a",
            but("rotation", json!({ "every": "720h", "overlap": "1h" })),
        ),
        ("b", but("prefix", json!("acme"))),
    ] {
        dev.declares(name, &spec.to_string());
    }
}

fn on_an_edit_only_what_changes_is_measured() {
    let stage = Stage::new("edits");
    let dev = trusted(&stage);
    // This one was there before the policy, and breaks all of it.
    let foreign = json!({
        "roles": ["ic-admin"], "permissions": ["a:b"], "audiences": ["c"], "rotation": { "every": "365d" },
        "source": { "hash": format!("sha256:{}", "3".repeat(64)) }, "secret": annotated("reflector.example.org/to", "some"),
    });
    dev.declares("older", &foreign.to_string());
    dev.declares("bare", "{}");
    let policy = impose(&stage, "strict", &limits());
    dev.declares("k", &good().to_string());
    for (name, patch, words) in [
        (
            "k",
            json!({ "description": null }),
            "requires spec.description",
        ),
        ("k", json!({ "owner": null }), "requires spec.owner"),
        (
            "k",
            json!({ "application": null }),
            "requires spec.application",
        ),
        (
            "k",
            json!({ "rotation": null }),
            "requires spec.rotation.every",
        ),
        (
            "k",
            json!({ "rotation": { "every": "31d" } }),
            "allows a rotation interval of at most 30d; spec.rotation.every is 31d",
        ),
        (
            "k",
            json!({ "roles": ["ic-admin"] }),
            "does not allow the role ic-admin",
        ),
        (
            "k",
            json!({ "secret": annotated("reflector.example.org/to", "all") }),
            "does not allow the annotation reflector.example.org/to",
        ),
        (
            "older",
            json!({ "roles": ["ic-admin", "ic-editor"] }),
            "does not allow the role ic-editor",
        ),
        (
            "older",
            json!({ "permissions": ["a:b", "b:c"] }),
            "does not allow the permission b:c",
        ),
        (
            "older",
            json!({ "audiences": ["c", "d"] }),
            "does not allow the audience d",
        ),
        (
            "older",
            json!({ "rotation": { "every": "364d" } }),
            "allows a rotation interval of at most 30d; spec.rotation.every is 364d",
        ),
        (
            "older",
            json!({ "rotation": null }),
            "requires spec.rotation.every",
        ),
        (
            "older",
            json!({ "secret": annotated("reflector.example.org/to", "all") }),
            "does not allow the annotation reflector.example.org/to",
        ),
    ] {
        let words = format!("ApiKeyPolicy {policy} {words}");
        dev.may_not_patch(name, &json!({ "spec": patch }), &[&words]);
    }
    for (name, patch) in [
        (
            "older",
            json!({ "metadata": { "tier": "gold" }, "revision": 2 }),
        ),
        (
            "older",
            json!({ "roles": ["ic-admin", "team-b"], "permissions": null }),
        ),
        ("older", json!({ "description": "Now it has one" })),
        ("older", json!({ "rotation": { "every": "30d" } })),
        (
            "older",
            json!({ "secret": { "template": { "metadata": { "annotations": { "reflector.example.org/to": null } } } } }),
        ),
        ("bare", json!({ "metadata": { "tier": "gold" } })),
        ("bare", json!({ "rotation": { "overlap": "1h" } })),
        ("bare", json!({ "rotation": { "every": "7d" } })),
    ] {
        dev.patches(name, &json!({ "spec": patch }));
    }
}

fn several_policies_apply_together_where_their_labels_are() {
    let (stage, elsewhere) = (Stage::new("both"), Stage::new("neither"));
    let dev = Person::new(&stage, "dev", &[DEVELOPER]);
    let other = Person::new(&elsewhere, "dev", &[DEVELOPER]);
    let long = impose(&stage, "long", &json!({ "lifetime": { "max": "90d" } }));
    let short = impose(
        &stage,
        "short",
        &json!({ "lifetime": { "max": "7d" }, "prefixes": { "allowed": ["*"] } }),
    );
    let past = |name: &str, max: &str| {
        format!("ApiKeyPolicy {name} allows a lifetime of at most {max}; spec.expiry asks for 30d")
    };
    wait::until("the second is in force, too", || {
        let (accepted, said) = dev.try_kubectl(
            &["create", "--dry-run=server", "-f", "-"],
            &manifest("k", "{expiry: {after: 30d}}"),
        );
        if said.contains(&past(&short, "7d")) {
            Ok(())
        } else {
            Err(format!("{accepted} {said}"))
        }
    });
    let (_, said) = dev.try_kubectl(
        &["apply", "-f", "-"],
        &manifest("k", "{expiry: {after: 365d}}"),
    );
    assert!(
        said.contains(&format!("ApiKeyPolicy {long} allows"))
            || said.contains(&format!("ApiKeyPolicy {short} allows")),
        "{said}"
    );
    dev.declares("k", "{expiry: {after: 7d}}");
    other.declares("k", "{expiry: {never: true}}");
}

fn the_policy_of_the_readme_is_taken() {
    let readme = include_str!("../../README.md");
    let policy = readme
        .split("```")
        .find(|block| block.contains("kind: ApiKeyPolicy\n"))
        .expect("a policy");
    let stage = Stage::new("readme");
    let taken = stage.cluster.kubectl_with(
        &["apply", "--dry-run=server", "-f", "-"],
        policy.strip_prefix("yaml").unwrap(),
    );
    assert!(
        taken.contains("apikeypolicy.claviger.dev/short-lived created"),
        "{taken}"
    );
}
