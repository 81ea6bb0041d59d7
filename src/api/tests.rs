//! What a reader can rely on about the resources.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::Value;

use super::conditions::{self, Statement, reason};
use super::*;

mod definitions;
mod template;

use self::definitions::{everywhere, spec_schema};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

// ---- Lifetimes and expiry -----------------------------------------------------------------------------------------------

#[test]
fn a_lifetime_is_a_number_and_a_unit() {
    let seconds = |text: &str| {
        text.parse::<Lifetime>()
            .map(|lifetime| lifetime.duration().as_secs())
    };
    assert_eq!(seconds("1s"), Ok(1));
    assert_eq!(seconds("0s"), Ok(0));
    assert_eq!(seconds("0w"), Ok(0));
    assert_eq!(seconds("90m"), Ok(5_400));
    assert_eq!(seconds("12h"), Ok(43_200));
    assert_eq!(seconds("90d"), Ok(7_776_000));
    assert_eq!(seconds("99999w"), Ok(60_479_395_200));
    for wrong in [
        "", "d", "90", "00d", "090d", "0", "100000s", "-1d", "+1d", "1.5h", "1h30m", "1 d", " 1d",
        "1d ", "1D", "1y", "１d", "1µ", "1日",
    ] {
        let error = wrong.parse::<Lifetime>().unwrap_err();
        assert!(error.to_string().contains("such as 90d"), "{wrong:?}");
    }
}

#[test]
fn a_lifetime_that_leads_out_of_time_ends_at_its_end() {
    let longest: Lifetime = "99999w".parse().unwrap();
    assert_eq!(longest.after(Timestamp::MAX), Timestamp::MAX);
    assert_eq!(longest.after(at("9000-01-01T00:00:00Z")), Timestamp::MAX);
    assert_eq!(
        longest.after(at("2026-11-21T12:00:00Z")),
        at("3943-05-29T12:00:00Z")
    );
}

/// What `^(0|[1-9][0-9]{0,4})[smhdw]$` matches, without a regular expression.
fn is_lifetime(text: &str) -> bool {
    let mut chars: Vec<_> = text.chars().collect();
    let unit = chars.pop();
    matches!(unit, Some('s' | 'm' | 'h' | 'd' | 'w'))
        && (1..=5).contains(&chars.len())
        && (chars[0] != '0' || chars.len() == 1)
        && chars.iter().all(char::is_ascii_digit)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_the_schema_accepts_is_what_can_be_read(text in prop_oneof!["(0|[1-9][0-9]{0,4})[smhdw]", "[0-9]{0,6}[smhdwy]?", ".{0,8}"]) {
        prop_assert_eq!(text.parse::<Lifetime>().is_ok(), is_lifetime(&text), "{:?}", text);
    }

    #[test]
    fn a_lifetime_lasts_as_long_as_it_says(count in 0..=99_999_i64, unit in prop::sample::select(vec![('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400), ('w', 604_800)]), start in 0..4_000_000_000_i64) {
        let lifetime: Lifetime = format!("{count}{}", unit.0).parse().unwrap();
        prop_assert_eq!(lifetime.duration(), SignedDuration::from_secs(count * unit.1));
        let start = Timestamp::from_second(start).unwrap();
        prop_assert_eq!(lifetime.after(start).duration_since(start), lifetime.duration());
    }
}

#[test]
fn a_schema_takes_what_the_parser_reads_and_zero_only_where_it_ends_something() {
    let mut found = Vec::new();
    everywhere(&mut |path, schema| {
        let Some(pattern) = schema["pattern"]
            .as_str()
            .filter(|pattern| pattern.contains("smhdw"))
        else {
            return;
        };
        let zero = pattern == "^(0|[1-9][0-9]{0,4})[smhdw]$";
        assert!(
            zero || pattern == "^[1-9][0-9]{0,4}[smhdw]$",
            "{path}: {pattern}"
        );
        assert_eq!(schema["maxLength"], 6, "{path}");
        found.push(format!("{path}{}", if zero { " or 0" } else { "" }));
    });
    assert_eq!(
        found,
        [
            "ApiKeyPolicy.spec.lifetime.default",
            "ApiKeyPolicy.spec.lifetime.max",
            "ApiKeyPolicy.spec.rotation.maxInterval",
            "ApiKey.spec.expiry.after",
            "ApiKey.spec.rotation.every",
            "ApiKey.spec.rotation.overlap or 0",
        ]
    );
}

#[test]
fn an_expiry_ends_after_a_while_at_a_moment_or_never() {
    let noon = at("2026-11-21T12:00:00Z");
    let after = |text: &str| Expiry {
        after: Some(text.to_owned()),
        ..Expiry::default()
    };
    let moment = |text: &str| Expiry {
        at: Some(Time(at(text))),
        ..Expiry::default()
    };
    assert_eq!(after("1h").ends(noon), Some(at("2026-11-21T13:00:00Z")));
    assert_eq!(
        moment("2027-03-01T00:00:00Z").ends(noon),
        Some(at("2027-03-01T00:00:00Z"))
    );
    assert_eq!(
        moment("2027-03-01T00:00:00.999Z").ends(noon),
        Some(at("2027-03-01T00:00:00Z")),
        "in whole seconds, never later"
    );
    assert_eq!(
        moment("1999-01-01T00:00:00Z").ends(noon),
        Some(at("1999-01-01T00:00:00Z")),
        "the past is for others to judge"
    );
    assert_eq!(
        Expiry {
            never: Some(true),
            ..Expiry::default()
        }
        .ends(noon),
        None
    );
    assert_eq!(
        after("soon").ends(noon),
        Some(noon),
        "what nobody can read lives no longer than was meant"
    );
}

// ---- What a policy allows -----------------------------------------------------------------------------------------------

fn allow(patterns: &[&str]) -> AllowList {
    AllowList {
        allowed: patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
    }
}

#[test]
fn what_is_allowed_is_listed_or_begins_like_what_is_listed_with_a_star() {
    let list = allow(&["viewer", "ic-*"]);
    for name in ["viewer", "ic-", "ic-viewer", "ic-*"] {
        assert!(list.allows(name), "{name}");
    }
    for name in [
        "",
        "view",
        "viewers",
        "Viewer",
        "ic",
        "IC-viewer",
        "xic-viewer",
        "*",
    ] {
        assert!(!list.allows(name), "{name}");
    }
    for name in ["", "viewer", "*", "鍵"] {
        assert!(
            allow(&["*"]).allows(name),
            "a star alone stands for everything: {name}"
        );
        assert!(
            !allow(&[]).allows(name),
            "an empty list allows nothing: {name}"
        );
    }
}

#[test]
fn only_the_last_star_stands_for_anything() {
    // The schema refuses these; where one is stored anyway, it allows less and not more.
    assert!(!allow(&["*:read"]).allows("invoices:read"));
    assert!(!allow(&["invoices:**"]).allows("invoices:read"));
    assert!(!allow(&["a*c"]).allows("abc"));
    assert!(!allow(&[""]).allows("viewer"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_list_allows_what_its_patterns_say(patterns in prop::collection::vec("[ab]{0,3}[*]?", 0..4), name in "[ab]{0,4}") {
        let list = AllowList { allowed: patterns.clone() };
        let allowed = patterns.iter().any(|pattern| {
            let beginning = pattern.trim_end_matches('*');
            if beginning.len() < pattern.len() { name.get(..beginning.len()) == Some(beginning) } else { name == *pattern }
        });
        prop_assert_eq!(list.allows(&name), allowed, "{:?} {:?}", patterns, name);
    }
}

#[test]
fn a_field_that_can_be_required_is_named_as_in_the_spec() {
    for field in [
        RequiredField::Description,
        RequiredField::Owner,
        RequiredField::Application,
        RequiredField::Expiry,
    ] {
        assert_eq!(serde_json::to_value(field).unwrap(), field.as_str());
        assert!(
            spec_schema()["properties"][field.as_str()].is_object(),
            "{field:?}"
        );
    }
}

// ---- Templates ----------------------------------------------------------------------------------------------------------

#[test]
fn a_condition_dates_from_when_it_turned() {
    let say = |holds, reason, message: &str| Statement {
        type_: ConditionType::Ready,
        holds,
        reason,
        message: message.to_owned(),
    };
    let (noon, one, two) = (
        at("2026-11-21T12:00:00Z"),
        at("2026-11-21T13:00:00Z"),
        at("2026-11-21T14:00:00Z"),
    );
    let mut all = Vec::new();
    conditions::set(
        &mut all,
        say(false, reason::PENDING, "not yet"),
        Some(1),
        noon,
    );
    conditions::set(&mut all, say(false, reason::ISSUING, "soon"), Some(2), one);
    let ready = conditions::find(&all, ConditionType::Ready).unwrap();
    assert_eq!(
        (
            ready.status.as_str(),
            ready.reason.as_str(),
            ready.message.as_str()
        ),
        ("False", "Issuing", "soon")
    );
    assert_eq!(ready.observed_generation, Some(2));
    assert_eq!(
        ready.last_transition_time,
        Time(noon),
        "it has not turned since"
    );
    conditions::set(&mut all, say(true, reason::ISSUED, "done"), Some(2), two);
    let ready = conditions::find(&all, ConditionType::Ready).unwrap();
    assert_eq!(
        (ready.status.as_str(), &ready.last_transition_time),
        ("True", &Time(two))
    );
    assert_eq!(all.len(), 1);
}

#[test]
fn conditions_of_other_types_are_left_alone() {
    let mut all = Vec::new();
    for type_ in [
        ConditionType::Ready,
        ConditionType::Stalled,
        ConditionType::Usable,
        ConditionType::Delivered,
    ] {
        let statement = Statement {
            type_,
            holds: true,
            reason: reason::ISSUED,
            message: String::new(),
        };
        conditions::set(&mut all, statement, None, at("2026-11-21T12:00:00Z"));
    }
    let before = all.clone();
    let statement = Statement {
        type_: ConditionType::Usable,
        holds: false,
        reason: reason::REVOKED,
        message: String::new(),
    };
    conditions::set(&mut all, statement, None, at("2026-11-21T13:00:00Z"));
    let names: Vec<_> = all.iter().map(|one| one.type_.as_str()).collect();
    assert_eq!(
        names,
        ["Ready", "Stalled", "Usable", "Delivered"],
        "in the order in which they came"
    );
    assert_eq!(
        (&all[0], &all[1], &all[3]),
        (&before[0], &before[1], &before[3])
    );
}

// ---- The definition as it is shipped ------------------------------------------------------------------------------------

#[test]
fn a_secret_can_have_another_name_and_entry() {
    let spec: ApiKeySpec =
        serde_json::from_value(serde_json::json!({"secret": {"name": "other", "key": "token"}}))
            .unwrap();
    let apikey = ApiKey::new("billing", spec);
    assert_eq!(
        (apikey.secret_name().as_str(), apikey.data_key()),
        ("other", "token")
    );
}

/// Reads `json` and writes it again.
fn again<T: serde::de::DeserializeOwned + serde::Serialize>(json: &Value) -> Value {
    serde_json::to_value(serde_json::from_value::<T>(json.clone()).unwrap()).unwrap()
}

#[test]
fn what_is_read_is_written_again() {
    let hash = format!("sha256:{}", "0a".repeat(32));
    let spec = serde_json::json!({
        "description": "Nightly export of invoices", "owner": "billing@example.com", "application": "billing",
        "organization": "acme.eu", "includeSubOrganizations": false, "audiences": ["invoices-api"], "roles": ["ic-viewer"],
        "permissions": ["invoices:read"], "expiry": {"after": "90d"}, "rotation": {"every": "30d", "overlap": "0s"},
        "revision": 3, "prefix": "acme", "secret": {"name": "billing-export", "key": "token", "retention": "UntilCollected"},
        "source": {"secretRef": {"name": "legacy", "key": "token"}}, "metadata": {"tier": "gold"}, "revoked": true,
        "revocationReason": "leaked", "revokedBy": "ann",
    });
    assert_eq!(again::<ApiKeySpec>(&spec), spec);
    assert_eq!(
        spec.as_object().unwrap().len(),
        spec_schema()["properties"].as_object().unwrap().len(),
        "every field"
    );
    let source = serde_json::json!({"hash": hash, "tail": "2Xk9Qd"});
    assert_eq!(again::<Source>(&source), source);
    let at = "2026-11-21T12:00:00Z";
    let version = serde_json::json!({
        "version": 1, "hash": hash, "tail": "2Xk9Qd", "phase": "Retiring", "announcedAt": at, "activatedAt": at, "revision": 3,
        "replacedAt": at, "retiresAt": at, "collectedAt": at, "discardedAt": at,
    });
    assert_eq!(again::<Version>(&version), version);
    let status = serde_json::json!({"organization": "acme.eu", "revision": 0, "rotatesAt": at, "versions": [version]});
    assert_eq!(again::<ApiKeyStatus>(&status), status);
    let role = serde_json::json!({"title": "Viewer", "description": "Reads", "permissions": ["invoices:read"]});
    assert_eq!(again::<ApiKeyRoleSpec>(&role), role);
    let policy = serde_json::json!({
        "namespaces": {"matchLabels": {"team": "billing"}}, "lifetime": {"max": "90d", "default": "30d"},
        "rotation": {"maxInterval": "30d", "required": false}, "roles": {"allowed": ["ic-*"]}, "permissions": {"allowed": []},
        "audiences": {"allowed": ["*"]}, "prefixes": {"allowed": ["acme"]}, "imports": "Forbidden",
        "template": {"annotationPrefixes": []}, "require": ["description", "owner", "application", "expiry"],
    });
    assert_eq!(again::<ApiKeyPolicySpec>(&policy), policy);
}

#[test]
fn what_nobody_asked_for_is_not_written() {
    let empty = serde_json::json!({});
    assert_eq!(again::<ApiKeySpec>(&empty), empty);
    assert_eq!(again::<ApiKeyStatus>(&empty), empty);
    assert_eq!(again::<ApiKeyRoleSpec>(&empty), empty);
    assert_eq!(again::<ApiKeyPolicySpec>(&empty), empty);
    for part in ["namespaces", "lifetime", "rotation"] {
        let policy = serde_json::json!({ part: {} });
        assert_eq!(
            again::<ApiKeyPolicySpec>(&policy),
            policy,
            "an empty limit stays one"
        );
    }
    for part in ["rotation", "secret"] {
        let spec = serde_json::json!({ part: {} });
        assert_eq!(again::<ApiKeySpec>(&spec), spec);
    }
}

#[test]
fn a_secret_stays_unless_something_else_is_asked_for() {
    let retention =
        |spec: Value| ApiKey::new("billing", serde_json::from_value(spec).unwrap()).retention();
    assert_eq!(retention(serde_json::json!({})), Retention::Always);
    assert_eq!(
        retention(serde_json::json!({"secret": {}})),
        Retention::Always
    );
    assert_eq!(
        retention(serde_json::json!({"secret": {"retention": "WhileActive"}})),
        Retention::WhileActive
    );
    assert_eq!(
        retention(serde_json::json!({"secret": {"retention": "UntilCollected"}})),
        Retention::UntilCollected
    );
}
