//! Policies, organizations and roles.

use super::table::plain;
use super::*;
use crate::api::names::LABEL_ORGANIZATION;
use crate::api::{
    AllowList, ApiKeyPolicySpec, Imports, LifetimeLimits, NamespaceSelector, RequiredField,
    RotationLimits, TemplateLimits,
};

fn policy() -> ApiKeyPolicySpec {
    ApiKeyPolicySpec::default()
}

fn lifetime(max: Option<&str>, default: Option<&str>) -> ApiKeyPolicySpec {
    let limits = LifetimeLimits {
        max: max.map(ToOwned::to_owned),
        default: default.map(ToOwned::to_owned),
    };
    ApiKeyPolicySpec {
        lifetime: Some(limits),
        ..policy()
    }
}

fn only(allowed: &str) -> AllowList {
    AllowList {
        allowed: vec![allowed.to_owned()],
    }
}

fn under(model: &mut Model, policies: Vec<ApiKeyPolicySpec>) {
    let named = policies
        .into_iter()
        .zip(["strict", "stricter"])
        .map(|(policy, name)| (name.to_owned(), Some(policy)));
    model.world.surroundings.known = true;
    model.world.surroundings.policies = named.collect::<Vec<_>>().into();
}

fn ready_message(model: &Model) -> String {
    model
        .world
        .status()
        .conditions
        .into_iter()
        .find(|one| one.type_ == "Ready")
        .unwrap()
        .message
}

/// What a key that asks for `spec` is told under `policy`; empty where it is issued.
fn violates(spec: ApiKeySpec, policy: ApiKeyPolicySpec) -> String {
    let mut model = new(spec);
    model.apikey().metadata.creation_timestamp = Some(
        k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(NOON)),
    );
    model.elsewhere = Some(Hash::of(b"brought along"));
    under(&mut model, vec![policy]);
    model.reconcile().unwrap();
    if model.world.status().current().is_some() {
        assert_eq!(says(&model, "Compliant"), "Compliant");
        return String::new();
    }
    assert_eq!(
        (
            says(&model, "Ready").as_str(),
            says(&model, "Compliant").as_str()
        ),
        ("!PolicyViolated", "!PolicyViolated")
    );
    ready_message(&model)
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn every_limit_is_told_in_words() {
    let rotations = |max: Option<&str>, required| ApiKeyPolicySpec {
        rotation: Some(RotationLimits {
            max_interval: max.map(ToOwned::to_owned),
            required,
        }),
        ..policy()
    };
    let listing = |change: fn(&mut ApiKeySpec)| {
        let mut spec = plain();
        change(&mut spec);
        spec
    };
    let rows = vec![
        (
            plain(),
            lifetime(Some("30d"), None),
            "strict allows a lifetime of at most 30d; spec.expiry asks for a key that never ends",
        ),
        (
            expiring(after("31d")),
            lifetime(Some("30d"), None),
            "strict allows a lifetime of at most 30d; spec.expiry asks for 31d",
        ),
        (expiring(after("720h")), lifetime(Some("30d"), None), ""),
        (
            expiring(never()),
            lifetime(Some("30d"), Some("7d")),
            "strict allows a lifetime of at most 30d; spec.expiry asks for a key that never ends",
        ),
        (
            expiring(ending_at("2027-11-21T12:00:00Z")),
            lifetime(Some("30d"), None),
            "strict allows a lifetime of at most 30d; spec.expiry asks for 2027-11-21T12:00:00Z",
        ),
        (
            expiring(ending_at("2026-12-21T12:00:00Z")),
            lifetime(Some("30d"), None),
            "",
        ),
        (plain(), lifetime(Some("30d"), Some("7d")), ""),
        (
            plain(),
            rotations(None, Some(true)),
            "strict requires spec.rotation.every",
        ),
        (
            rotating(Some("60d"), None),
            rotations(Some("30d"), None),
            "strict allows a rotation interval of at most 30d; spec.rotation.every is 60d",
        ),
        (
            rotating(Some("30d"), None),
            rotations(Some("30d"), Some(true)),
            "",
        ),
        (
            rotating(Some("30d"), None),
            rotations(Some("unreadable"), None),
            "",
        ),
        (
            listing(|spec| spec.roles = vec!["admin".to_owned()]),
            ApiKeyPolicySpec {
                roles: Some(only("ic-*")),
                ..policy()
            },
            "strict does not allow the role admin",
        ),
        (
            listing(|spec| spec.roles = vec!["ic-viewer".to_owned()]),
            ApiKeyPolicySpec {
                roles: Some(only("ic-*")),
                ..policy()
            },
            "",
        ),
        (
            listing(|spec| spec.permissions = vec!["a:write".to_owned()]),
            ApiKeyPolicySpec {
                permissions: Some(only("a:read")),
                ..policy()
            },
            "strict does not allow the permission a:write",
        ),
        (
            listing(|spec| spec.audiences = vec!["b".to_owned()]),
            ApiKeyPolicySpec {
                audiences: Some(only("a")),
                ..policy()
            },
            "strict does not allow the audience b",
        ),
        (
            plain(),
            ApiKeyPolicySpec {
                prefixes: Some(only("acme")),
                ..policy()
            },
            "strict does not allow the prefix clv",
        ),
        (
            taking_over(from_secret()),
            ApiKeyPolicySpec {
                imports: Some(Imports::Forbidden),
                ..policy()
            },
            "strict does not allow imports",
        ),
        (
            taking_over(from_secret()),
            ApiKeyPolicySpec {
                imports: Some(Imports::Allowed),
                ..policy()
            },
            "",
        ),
        (
            with_template("gold"),
            ApiKeyPolicySpec {
                template: Some(TemplateLimits {
                    annotation_prefixes: vec!["x/".to_owned()],
                }),
                ..policy()
            },
            "strict does not allow the annotation note in spec.secret.template",
        ),
        (
            plain(),
            ApiKeyPolicySpec {
                require: vec![RequiredField::Owner],
                ..policy()
            },
            "strict requires spec.owner",
        ),
        (
            plain(),
            ApiKeyPolicySpec {
                require: vec![RequiredField::Expiry],
                ..policy()
            },
            "strict requires spec.expiry",
        ),
        (
            plain(),
            ApiKeyPolicySpec {
                require: vec![RequiredField::Expiry],
                ..lifetime(None, Some("7d"))
            },
            "",
        ),
    ];
    for (spec, policy, expected) in rows {
        let told = violates(spec, policy);
        let expected = if expected.is_empty() {
            String::new()
        } else {
            format!("nothing is issued: ApiKeyPolicy {expected}")
        };
        assert_eq!(told, expected);
    }
}

/// The default may be all that the maximum allows, and a key is announced later than it was created, be it after a refusal.
#[test]
fn a_default_that_is_as_long_as_the_maximum_violates_nothing() {
    let mut model = new(plain());
    model.apikey().metadata.creation_timestamp = Some(
        k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(NOON)),
    );
    under(&mut model, vec![lifetime(Some("30d"), Some("30d"))]);
    model.pass(SignedDuration::from_secs(2));
    model.plant_foreign(false);
    model.reconcile().unwrap();
    assert!(
        model.world.status().key_id.is_some() && model.world.status().versions.is_empty(),
        "its end is fixed, and it is refused"
    );
    model.there = None;
    model.back_off_passes();
    model.reconcile().unwrap();
    let status = model.world.status();
    assert!(status.current().is_some(), "{}", ready_message(&model));
    assert!(
        status
            .conditions
            .iter()
            .any(|one| one.type_ == "Compliant" && one.status == "True"),
        "{status:?}"
    );
    // A maximum that comes later and is shorter is another matter.
    under(&mut model, vec![lifetime(Some("7d"), Some("7d"))]);
    model.reconcile().unwrap();
    let status = model.world.status();
    let said = status
        .conditions
        .iter()
        .find(|one| one.type_ == "Compliant")
        .unwrap();
    assert!(
        said.status == "False" && said.message.contains("at most 7d; the key ends at"),
        "{said:?}"
    );
}

#[test]
fn the_strictest_of_several_counts_and_only_where_it_holds() {
    let mut model = new(plain());
    under(
        &mut model,
        vec![lifetime(None, Some("30d")), lifetime(None, Some("7d"))],
    );
    model.reconcile().unwrap();
    assert_eq!(
        model.world.status().expires_at.unwrap().0,
        at(NOON) + days(7),
        "the shortest default"
    );
    let mut model = new(expiring(after("20d")));
    under(
        &mut model,
        vec![lifetime(Some("30d"), None), lifetime(Some("7d"), None)],
    );
    model.reconcile().unwrap();
    assert_eq!(
        ready_message(&model),
        "nothing is issued: ApiKeyPolicy stricter allows a lifetime of at most 7d; spec.expiry asks for 20d"
    );
    let selector = NamespaceSelector {
        match_labels: [("stage".to_owned(), "prod".to_owned())].into(),
    };
    let mut model = new(plain());
    under(
        &mut model,
        vec![ApiKeyPolicySpec {
            namespaces: Some(selector),
            ..lifetime(Some("7d"), None)
        }],
    );
    let mut prod = model.clone();
    prod.world.surroundings.namespace =
        std::sync::Arc::new([("stage".to_owned(), "prod".to_owned())].into());
    model.reconcile().unwrap();
    prod.reconcile().unwrap();
    assert_eq!(
        (
            says(&model, "Ready").as_str(),
            says(&prod, "Ready").as_str()
        ),
        ("Issued", "!PolicyViolated")
    );
    let mut model = new(plain());
    model.world.surroundings.known = true;
    model.world.surroundings.policies = vec![("broken".to_owned(), None)].into();
    model.reconcile().unwrap();
    assert_eq!(
        ready_message(&model),
        "nothing is issued: ApiKeyPolicy broken cannot be read: correct or delete it"
    );
}

#[test]
fn a_default_lifetime_is_not_counted_from_a_wrong_clock() {
    let mut model = new(plain());
    under(&mut model, vec![lifetime(None, Some("7d"))]);
    model.ahead = days(30);
    model.reconcile().unwrap();
    assert_eq!(
        (says(&model, "Ready").as_str(), model.world.status().key_id),
        ("!ClockDisagrees", None)
    );
}

#[test]
fn a_policy_stops_no_key_in_use_and_no_rotation_of_it() {
    let mut model = issued(plain());
    heard(&mut model);
    under(
        &mut model,
        vec![ApiKeyPolicySpec {
            require: vec![RequiredField::Owner],
            ..policy()
        }],
    );
    model.reconcile().unwrap();
    assert_eq!(
        (
            says(&model, "Ready").as_str(),
            says(&model, "Compliant").as_str()
        ),
        ("Issued", "!PolicyViolated")
    );
    assert_eq!(
        (says(&model, "Usable").as_str(), heard(&mut model)),
        ("Active", vec!["PolicyViolated".to_owned()])
    );
    model.wish(Wish::Raise);
    model.reconcile().unwrap();
    assert_eq!(versions(&model), "1 Retiring, 2 Current");
    model.wish(Wish::Revoke);
    model.reconcile().unwrap();
    assert_eq!(
        (
            says(&model, "Usable").as_str(),
            says(&model, "Compliant").as_str()
        ),
        ("!Revoked", "nothing")
    );
}

#[test]
fn a_key_belongs_to_its_namespaces_organization_or_one_below() {
    let of = |namespace: Option<&str>, key: Option<&str>| {
        let mut model = new(ApiKeySpec {
            organization: key.map(ToOwned::to_owned),
            ..plain()
        });
        model.world.surroundings.known = true;
        let labels = namespace.map(|name| (LABEL_ORGANIZATION.to_owned(), name.to_owned()));
        model.world.surroundings.namespace = std::sync::Arc::new(labels.into_iter().collect());
        model.reconcile().unwrap();
        model
    };
    for (namespace, key, recorded) in [
        (None, None, None),
        (Some("acme"), None, Some("acme")),
        (Some("acme"), Some("acme"), Some("acme")),
        (Some("acme"), Some("acme.mobile"), Some("acme.mobile")),
    ] {
        let model = of(namespace, key);
        assert_eq!(
            (
                says(&model, "Ready").as_str(),
                model.world.status().organization.as_deref()
            ),
            ("Issued", recorded)
        );
    }
    for (namespace, key) in [
        (Some("acme.mobile"), "acme"),
        (Some("acme"), "acme-two"),
        (Some("acme"), "other"),
        (None, "acme"),
    ] {
        let model = of(namespace, Some(key));
        let told = (
            says(&model, "Ready"),
            says(&model, "Stalled"),
            says(&model, "Compliant"),
        );
        let wrong = "WrongOrganization";
        assert_eq!(
            told,
            (format!("!{wrong}"), wrong.to_owned(), format!("!{wrong}")),
            "{namespace:?} {key}"
        );
    }
    let mut moved = of(Some("acme"), None);
    moved.world.surroundings.namespace =
        std::sync::Arc::new([(LABEL_ORGANIZATION.to_owned(), "other".to_owned())].into());
    moved.reconcile().unwrap();
    assert_eq!(
        (
            says(&moved, "Ready").as_str(),
            says(&moved, "Compliant").as_str()
        ),
        ("Issued", "!WrongOrganization")
    );
    assert_eq!(
        moved.world.status().organization.as_deref(),
        Some("acme"),
        "recorded once"
    );
}

#[test]
fn a_missing_role_is_named_and_keeps_nothing_from_being_issued() {
    let mut model = new(ApiKeySpec {
        roles: vec!["viewer".to_owned()],
        ..plain()
    });
    model.world.surroundings.missing_roles = vec!["viewer".to_owned()];
    let (wake, _) = model.reconcile().unwrap();
    assert_eq!(
        (wake, versions(&model).as_str()),
        (Wake::OnEvent, "1 Current")
    );
    assert_eq!(
        (
            says(&model, "Ready").as_str(),
            says(&model, "Usable").as_str()
        ),
        ("!RoleMissing", "Active")
    );
    assert_eq!(
        ready_message(&model),
        "no ApiKeyRole of this name, so it grants nothing: viewer"
    );
    assert_eq!(kstatus(&model.world, &model.world.status()), "InProgress");
    model.world.surroundings.missing_roles.clear();
    model.reconcile().unwrap();
    assert_eq!(says(&model, "Ready"), "Issued");
}

#[test]
fn who_revoked_is_told() {
    let mut model = issued(ApiKeySpec {
        revoked_by: Some("sec@example.com".to_owned()),
        ..plain()
    });
    model.wish(Wish::Revoke);
    model.reconcile().unwrap();
    assert_eq!(
        model.told.last().unwrap().note,
        "the key was revoked by sec@example.com"
    );
}
