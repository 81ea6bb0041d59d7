use serde_json::{Value, json};

use super::*;
use crate::gate::testing::{NOW, apikey, index, key as test_key, role, version};

fn at(moment: i64, objects: Vec<Value>, shown: &str, needs: Needs<'_>) -> Code {
    let roles = [
        role("viewer", &["invoices:read"]),
        role("clerk", &["invoices:write", "invoices:send"]),
    ];
    decide(
        &index(objects, &roles),
        &Ask {
            shown: Shown::One(shown.as_bytes()),
            needs,
        },
        moment,
    )
    .code
}

fn one(parts: Value, needs: Needs<'_>) -> Code {
    at(NOW, vec![apikey(1, parts)], &test_key(1), needs)
}

fn plain(parts: Value) -> Code {
    one(parts, Needs::default())
}

/// NOW as the API server writes it.
const NOW_TEXT: &str = "2027-01-15T08:00:00Z";

#[test]
fn a_key_passes_from_its_announcement_on() {
    assert_eq!(plain(json!({})), Code::Valid);
    let announced = json!({ "status": { "phase": "Pending", "versions": [version(1, 1, "Announced", Value::Null)] } });
    assert_eq!(
        plain(announced),
        Code::Valid,
        "a workload may hold it before its activation is seen"
    );
}

#[test]
fn a_request_without_exactly_one_key_learns_so() {
    let index = index([apikey(1, json!({}))], &[]);
    let ask = |shown| {
        decide(
            &index,
            &Ask {
                shown,
                needs: Needs::default(),
            },
            NOW,
        )
        .code
    };
    assert_eq!(ask(Shown::Nothing), Code::Missing);
    let unclear = Shown::Unclear(MalformedReason::SeveralKeys);
    assert_eq!(ask(unclear), Code::Malformed);
    assert_eq!(ask(Shown::One(b"")), Code::Malformed);
    assert_eq!(ask(Shown::One(&[b'a'; MAX_KEY + 1])), Code::Malformed);
    assert_eq!(ask(Shown::One(b"\xff\xfe")), Code::Malformed);
}

#[test]
fn malformed_key_has_a_reason() {
    let index = index([], &[]);
    let minted = key::Key::mint(&key::Prefix::default(), &mut key::OsRandom).unwrap();
    let with_line_end = format!("{}\n", minted.expose());
    for (shown, expected) in [
        (
            Shown::One(with_line_end.as_bytes()),
            MalformedReason::WhiteSpace,
        ),
        (Shown::One(b"two words"), MalformedReason::WhiteSpace),
        (Shown::One(b"made-up"), MalformedReason::NoKey),
        (Shown::One(&[b'a'; MAX_KEY + 1]), MalformedReason::NoKey),
        (
            Shown::Unclear(MalformedReason::IdentityHeaders),
            MalformedReason::IdentityHeaders,
        ),
    ] {
        let needs = Needs::default();
        let verdict = decide(&index, &Ask { shown, needs }, NOW);
        assert_eq!(
            (verdict.code, verdict.malformed),
            (Code::Malformed, Some(expected))
        );
    }
}

#[test]
fn a_key_that_nobody_has_is_told_from_one_that_is_mistyped() {
    let minted = key::Key::mint(&key::Prefix::default(), &mut key::OsRandom).unwrap();
    let text = minted.expose();
    assert_eq!(at(NOW, vec![], text, Needs::default()), Code::NotFound);
    let swapped: String = text.chars().rev().collect();
    assert_eq!(at(NOW, vec![], &swapped, Needs::default()), Code::Malformed);
    assert_eq!(
        plain(json!({})),
        Code::Valid,
        "an imported key has no checksum, and is found"
    );
}

#[test]
fn an_end_counts_when_it_is_asked_for_not_when_it_is_recorded() {
    assert_eq!(plain(json!({ "spec": { "revoked": true } })), Code::Revoked);
    assert_eq!(
        plain(json!({ "status": { "phase": "Revoked" } })),
        Code::Revoked
    );
    assert_eq!(
        plain(json!({ "status": { "revokedAt": NOW_TEXT } })),
        Code::Revoked
    );
    assert_eq!(
        plain(json!({ "status": { "phase": "Expired" } })),
        Code::Expired
    );
    assert_eq!(
        plain(json!({ "status": { "expiredAt": NOW_TEXT } })),
        Code::Expired,
        "the clock stepped back"
    );
    assert_eq!(
        plain(json!({ "status": { "expiresAt": NOW_TEXT } })),
        Code::Expired,
        "by the clock, with no controller"
    );
    assert_eq!(
        plain(json!({ "status": { "expiresAt": "2027-01-15T08:00:01Z" } })),
        Code::Valid
    );
    let both = json!({ "spec": { "revoked": true }, "status": { "phase": "Expired", "expiresAt": NOW_TEXT } });
    assert_eq!(plain(both), Code::Expired, "what was recorded first stays");
    let both = json!({ "spec": { "revoked": true }, "status": { "expiresAt": NOW_TEXT } });
    assert_eq!(plain(both), Code::Revoked);
}

#[test]
fn phase_of_a_newer_definition_neither_ends_nor_revives_a_key() {
    let newer = |more: Value| {
        let mut status = json!({ "phase": "Suspended" });
        status
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        plain(json!({ "status": status }))
    };
    assert_eq!(newer(json!({})), Code::Valid);
    assert_eq!(newer(json!({ "revokedAt": NOW_TEXT })), Code::Revoked);
    assert_eq!(newer(json!({ "expiredAt": NOW_TEXT })), Code::Expired);
    assert_eq!(newer(json!({ "expiresAt": NOW_TEXT })), Code::Expired);
}

#[test]
fn version_in_a_phase_of_a_newer_definition_does_not_pass() {
    let newer = version(1, 1, "Quarantined", Value::Null);
    let versions = json!([newer, version(2, 2, "Current", Value::Null)]);
    let ask = |number| {
        let object = apikey(1, json!({ "status": { "versions": versions } }));
        at(NOW, vec![object], &test_key(number), Needs::default())
    };
    assert_eq!(ask(1), Code::Rotated);
    assert_eq!(ask(2), Code::Valid);
}

#[test]
fn a_deleted_apikey_has_no_key_from_the_moment_its_deletion_is_asked_for() {
    assert_eq!(
        plain(json!({ "metadata": { "deletionTimestamp": NOW_TEXT } })),
        Code::Malformed,
        "the test's keys have no checksum"
    );
}

#[test]
fn both_versions_pass_while_they_overlap_and_only_then() {
    let versions = |old: Value| json!({ "status": { "version": 2, "versions": [old, version(2, 2, "Current", Value::Null)] } });
    let retiring = |at: &str| versions(version(1, 1, "Retiring", json!({ "retiresAt": at })));
    let ask = |object: Value, number| {
        at(
            NOW,
            vec![apikey(1, object)],
            &test_key(number),
            Needs::default(),
        )
    };
    assert_eq!(ask(retiring("2027-01-15T08:00:01Z"), 1), Code::Valid);
    assert_eq!(ask(retiring("2027-01-15T08:00:01Z"), 2), Code::Valid);
    assert_eq!(
        ask(retiring(NOW_TEXT), 1),
        Code::Rotated,
        "by the clock, with no controller"
    );
    assert_eq!(
        ask(versions(version(1, 1, "Retired", Value::Null)), 1),
        Code::Rotated
    );
    assert_eq!(
        ask(versions(version(1, 1, "Retiring", Value::Null)), 1),
        Code::Rotated,
        "an end that is missing is no end that never comes"
    );
}

#[test]
fn a_key_passes_only_where_it_is_meant_to() {
    let audience = |audience| Needs {
        audience: Some(audience),
        ..Needs::default()
    };
    assert_eq!(one(json!({}), audience("invoices-api")), Code::Valid);
    assert_eq!(one(json!({}), audience("invoices-ap")), Code::WrongAudience);
    assert_eq!(
        one(
            json!({ "spec": { "audiences": [] } }),
            audience("invoices-api")
        ),
        Code::WrongAudience,
        "for none is not for all"
    );
    assert_eq!(
        one(json!({ "spec": { "revoked": true } }), audience("other")),
        Code::Revoked,
        "the holder of a dead key learns that"
    );
}

#[test]
fn organizations_reach_down_where_the_key_says_so_and_never_up_or_sideways() {
    let of = |own: &str, down: bool, wanted: &'static str| {
        let parts = json!({ "spec": { "includeSubOrganizations": down }, "status": { "organization": own } });
        one(
            parts,
            Needs {
                organization: Some(wanted),
                ..Needs::default()
            },
        )
    };
    assert_eq!(of("acme", false, "acme"), Code::Valid);
    assert_eq!(of("acme", false, "acme.mobile"), Code::WrongOrganization);
    assert_eq!(of("acme", true, "acme.mobile"), Code::Valid);
    assert_eq!(
        of("acme", true, "acmeco"),
        Code::WrongOrganization,
        "a name that begins alike is another's"
    );
    assert_eq!(of("acme.mobile", true, "acme"), Code::WrongOrganization);
    assert_eq!(
        one(
            json!({}),
            Needs {
                organization: Some("acme"),
                ..Needs::default()
            }
        ),
        Code::WrongOrganization
    );
}

#[test]
fn permissions_come_from_the_key_and_its_roles() {
    let may = |spec: Value, text: &str| {
        let expression = text.parse().unwrap();
        one(
            json!({ "spec": spec }),
            Needs {
                permissions: Some(&expression),
                ..Needs::default()
            },
        )
    };
    let spec = json!({ "roles": ["viewer", "missing"], "permissions": ["reports:run"] });
    assert_eq!(
        may(spec.clone(), "invoices:read AND reports:run"),
        Code::Valid
    );
    assert_eq!(
        may(spec.clone(), "invoices:write"),
        Code::InsufficientPermissions
    );
    assert_eq!(
        may(spec.clone(), "invoices:write OR reports:run"),
        Code::Valid
    );
    assert_eq!(
        may(spec, "missing"),
        Code::InsufficientPermissions,
        "a role's name is no permission"
    );
    assert_eq!(
        may(json!({}), "invoices:read"),
        Code::InsufficientPermissions
    );
}

#[test]
fn a_caller_of_one_namespace_cannot_tell_a_foreign_key_from_none() {
    let in_namespace = |namespace| Needs {
        namespace: Some(namespace),
        ..Needs::default()
    };
    let index = index([apikey(1, json!({}))], &[]);
    let text = test_key(1);
    let ask = |needs| {
        decide(
            &index,
            &Ask {
                shown: Shown::One(text.as_bytes()),
                needs,
            },
            NOW,
        )
    };
    assert_eq!(ask(in_namespace("team-a")).code, Code::Valid);
    let foreign = ask(in_namespace("team-b"));
    let unknown = at(NOW, vec![], &text, Needs::default());
    assert_eq!(foreign.code, unknown);
    assert!(foreign.holder.is_none(), "and learns nothing about it");
}

#[test]
fn of_two_apikeys_with_one_hash_the_older_counts_whichever_was_seen_first() {
    let older = apikey(
        1,
        json!({ "metadata": { "creationTimestamp": "2025-01-01T00:00:00Z" }, "spec": { "revoked": true } }),
    );
    let younger = apikey(
        2,
        json!({ "status": { "versions": [version(1, 1, "Current", Value::Null)] } }),
    );
    let twin = apikey(
        3,
        json!({ "status": { "versions": [version(1, 1, "Current", Value::Null)] } }),
    );
    for objects in [
        vec![older.clone(), younger.clone()],
        vec![younger.clone(), older.clone()],
    ] {
        assert_eq!(
            at(NOW, objects, &test_key(1), Needs::default()),
            Code::Revoked
        );
    }
    for objects in [vec![younger.clone(), twin.clone()], vec![twin, younger]] {
        let verdict = decide(
            &index(objects, &[]),
            &Ask {
                shown: Shown::One(test_key(1).as_bytes()),
                needs: Needs::default(),
            },
            NOW,
        );
        assert_eq!(
            verdict.holder.unwrap().entry().name(),
            "key-2",
            "created in one second: the lower UID"
        );
    }
}
