//! What a reader can rely on about the resources.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::Value;

use super::conditions::{self, Statement, reason};
use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

// ---- Lifetimes and expiry -----------------------------------------------------------------------------------------------

#[test]
fn a_lifetime_is_a_number_and_a_unit() {
    let seconds = |text: &str| text.parse::<Lifetime>().map(|lifetime| lifetime.duration().as_secs());
    assert_eq!(seconds("1s"), Ok(1));
    assert_eq!(seconds("90m"), Ok(5_400));
    assert_eq!(seconds("12h"), Ok(43_200));
    assert_eq!(seconds("90d"), Ok(7_776_000));
    assert_eq!(seconds("99999w"), Ok(60_479_395_200));
    for wrong in [
        "", "d", "90", "0d", "090d", "100000s", "-1d", "+1d", "1.5h", "1h30m", "1 d", " 1d", "1d ", "1D", "1y", "１d", "1µ",
        "1日",
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
    assert_eq!(longest.after(at("2026-11-21T12:00:00Z")), at("3943-05-29T12:00:00Z"));
}

/// What `^[1-9][0-9]{0,4}[smhdw]$` matches, without a regular expression.
fn is_lifetime(text: &str) -> bool {
    let mut chars: Vec<_> = text.chars().collect();
    let unit = chars.pop();
    matches!(unit, Some('s' | 'm' | 'h' | 'd' | 'w'))
        && (1..=5).contains(&chars.len())
        && chars[0] != '0'
        && chars.iter().all(char::is_ascii_digit)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_the_schema_accepts_is_what_can_be_read(text in prop_oneof!["[1-9][0-9]{0,4}[smhdw]", "[0-9]{0,6}[smhdwy]?", ".{0,8}"]) {
        prop_assert_eq!(text.parse::<Lifetime>().is_ok(), is_lifetime(&text), "{:?}", text);
    }

    #[test]
    fn a_lifetime_lasts_as_long_as_it_says(count in 1..=99_999_i64, unit in prop::sample::select(vec![('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400), ('w', 604_800)]), start in 0..4_000_000_000_i64) {
        let lifetime: Lifetime = format!("{count}{}", unit.0).parse().unwrap();
        prop_assert_eq!(lifetime.duration(), SignedDuration::from_secs(count * unit.1));
        let start = Timestamp::from_second(start).unwrap();
        prop_assert_eq!(lifetime.after(start).duration_since(start), lifetime.duration());
    }
}

#[test]
fn the_pattern_in_the_schema_is_the_one_of_the_parser() {
    assert_eq!(spec_schema()["properties"]["expiry"]["properties"]["after"]["pattern"], Lifetime::PATTERN);
}

#[test]
fn an_expiry_ends_after_a_while_at_a_moment_or_never() {
    let noon = at("2026-11-21T12:00:00Z");
    let after = |text: &str| Expiry { after: Some(text.to_owned()), ..Expiry::default() };
    let moment = |text: &str| Expiry { at: Some(Time(at(text))), ..Expiry::default() };
    assert_eq!(after("1h").ends(noon), Some(at("2026-11-21T13:00:00Z")));
    assert_eq!(moment("2027-03-01T00:00:00Z").ends(noon), Some(at("2027-03-01T00:00:00Z")));
    assert_eq!(moment("2027-03-01T00:00:00.999Z").ends(noon), Some(at("2027-03-01T00:00:00Z")), "in whole seconds, never later");
    assert_eq!(moment("1999-01-01T00:00:00Z").ends(noon), Some(at("1999-01-01T00:00:00Z")), "the past is for others to judge");
    assert_eq!(Expiry { never: Some(true), ..Expiry::default() }.ends(noon), None);
    assert_eq!(after("soon").ends(noon), Some(noon), "what nobody can read lives no longer than was meant");
}

// ---- Templates ----------------------------------------------------------------------------------------------------------

fn expand(text: &str) -> String {
    let facts = Facts { key_id: "ID", tail: "TAIL", name: "NAME", namespace: "NS", prefix: "PRE" };
    SecretTemplate::expand(text, "KEY", &facts)
}

#[test]
fn a_template_knows_six_placeholders() {
    assert_eq!(expand("Bearer ${key}"), "Bearer KEY");
    assert_eq!(expand("${key}${key}"), "KEYKEY");
    assert_eq!(expand("${keyId}/${tail}/${name}/${namespace}/${prefix}"), "ID/TAIL/NAME/NS/PRE");
    assert_eq!(expand(""), "");
}

#[test]
fn what_is_no_placeholder_stays_as_it_is() {
    for text in ["$key", "${}", "${ key}", "${Key}", "${keys}", "${unknown}", "${key", "$", "${", "}", "$${", "{key}"] {
        assert_eq!(expand(text), text);
    }
    assert_eq!(expand("$${key}"), "$KEY");
    assert_eq!(expand("${${key}key}"), "${KEYkey}");
    assert_eq!(expand("${unknown ${key}"), "${unknown KEY");
    assert_eq!(expand("ü${key}ü"), "üKEYü");
}

#[test]
fn what_a_placeholder_brings_in_is_not_expanded_again() {
    let facts = Facts { key_id: "${key}", tail: "${", name: "key}", namespace: "", prefix: "$" };
    assert_eq!(SecretTemplate::expand("${keyId}", "KEY", &facts), "${key}");
    assert_eq!(SecretTemplate::expand("${tail}${name}", "KEY", &facts), "${key}");
    assert_eq!(SecretTemplate::expand("${prefix}{key}", "KEY", &facts), "${key}");
    assert_eq!(SecretTemplate::expand("${key}", "${key}", &facts), "${key}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_template_without_a_dollar_is_copied(text in "[^$]{0,64}") {
        prop_assert_eq!(expand(&text), text);
    }

    #[test]
    fn any_template_can_be_expanded(parts in prop::collection::vec(prop_oneof![Just("${"), Just("}"), Just("key"), Just("$"), Just("é")], 0..16)) {
        let text = parts.concat();
        prop_assert_eq!(expand(&text), text.replace("${key}", "KEY"));
    }
}

// ---- Conditions ---------------------------------------------------------------------------------------------------------

#[test]
fn a_condition_dates_from_when_it_turned() {
    let say =
        |holds, reason, message: &str| Statement { type_: ConditionType::Ready, holds, reason, message: message.to_owned() };
    let (noon, one, two) = (at("2026-11-21T12:00:00Z"), at("2026-11-21T13:00:00Z"), at("2026-11-21T14:00:00Z"));
    let mut all = Vec::new();
    conditions::set(&mut all, say(false, reason::PENDING, "not yet"), Some(1), noon);
    conditions::set(&mut all, say(false, reason::ISSUING, "soon"), Some(2), one);
    let ready = conditions::find(&all, ConditionType::Ready).unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str(), ready.message.as_str()), ("False", "Issuing", "soon"));
    assert_eq!(ready.observed_generation, Some(2));
    assert_eq!(ready.last_transition_time, Time(noon), "it has not turned since");
    conditions::set(&mut all, say(true, reason::ISSUED, "done"), Some(2), two);
    let ready = conditions::find(&all, ConditionType::Ready).unwrap();
    assert_eq!((ready.status.as_str(), &ready.last_transition_time), ("True", &Time(two)));
    assert_eq!(all.len(), 1);
}

#[test]
fn conditions_of_other_types_are_left_alone() {
    let mut all = Vec::new();
    for type_ in [ConditionType::Ready, ConditionType::Stalled, ConditionType::Usable, ConditionType::Delivered] {
        let statement = Statement { type_, holds: true, reason: reason::ISSUED, message: String::new() };
        conditions::set(&mut all, statement, None, at("2026-11-21T12:00:00Z"));
    }
    let before = all.clone();
    let statement = Statement { type_: ConditionType::Usable, holds: false, reason: reason::REVOKED, message: String::new() };
    conditions::set(&mut all, statement, None, at("2026-11-21T13:00:00Z"));
    let names: Vec<_> = all.iter().map(|one| one.type_.as_str()).collect();
    assert_eq!(names, ["Ready", "Stalled", "Usable", "Delivered"], "in the order in which they came");
    assert_eq!((&all[0], &all[1], &all[3]), (&before[0], &before[1], &before[3]));
}

// ---- The definition as it is shipped ------------------------------------------------------------------------------------

#[test]
fn the_shipped_definitions_are_the_generated_ones() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let generated = manifests::all().unwrap();
    for (file, yaml) in &generated {
        let shipped = std::fs::read_to_string(folder.join(file)).unwrap();
        assert!(shipped.trim_end() == yaml.trim_end(), "crds/{file} has drifted: write what `claviger manifests` prints");
    }
    let shipped = std::fs::read_dir(folder).unwrap().count();
    assert_eq!(shipped, generated.len(), "and there are no others");
}

fn root_schema() -> Value {
    let crd = manifests::apikeys().unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn spec_schema() -> Value {
    root_schema()["properties"]["spec"].clone()
}

/// Every schema within `schema`, with its path.
fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), visit);
    }
    if schema["items"].is_object() {
        walk(&schema["items"], &format!("{path}[]"), visit);
    }
    if schema["additionalProperties"].is_object() {
        walk(&schema["additionalProperties"], &format!("{path}{{}}"), visit);
    }
}

#[test]
fn every_string_list_and_map_is_bounded() {
    // The fields of Kubernetes' own Condition; only the controller writes them.
    let theirs = ["message", "reason", "status", "type"].map(|field| format!(".status.conditions[].{field}"));
    let (mut unbounded, mut count) = (Vec::new(), 0);
    walk(&root_schema(), "", &mut |path, schema| {
        let bounded = match schema["type"].as_str().unwrap_or_else(|| panic!("{path} has no type")) {
            "string" => schema["maxLength"].is_u64() || schema["enum"].is_array() || schema["format"] == "date-time",
            "array" => schema["maxItems"].is_u64(),
            "object" if schema["additionalProperties"].is_object() => schema["maxProperties"].is_u64(),
            "object" => schema["properties"].is_object() && schema["x-kubernetes-preserve-unknown-fields"].is_null(),
            _ => true,
        };
        count += 1;
        if !bounded && !theirs.contains(&path.to_owned()) {
            unbounded.push(path.to_owned());
        }
    });
    assert_eq!(unbounded, Vec::<String>::new());
    assert!(count > 50, "only {count} schemas were looked at");
}

#[test]
fn the_definition_knows_no_null_and_no_defaults() {
    let mut found = Vec::new();
    walk(&root_schema(), "", &mut |path, schema| {
        if !schema["nullable"].is_null() {
            found.push(format!("{path}: nullable"));
        }
        // A spec that server-side apply has emptied is `{}`, and not null; nothing in it has a default.
        let emptied = path == ".spec" && schema["default"] == serde_json::json!({});
        if !emptied && schema.as_object().is_some_and(|fields| fields.contains_key("default")) {
            found.push(format!("{path}: default"));
        }
        if schema["enum"].as_array().is_some_and(|allowed| allowed.iter().any(Value::is_null)) {
            found.push(format!("{path}: null in enum"));
        }
    });
    assert_eq!(found, Vec::<String>::new());
    assert!(!serde_json::to_string(&root_schema()).unwrap().contains("null"), "nowhere else either");
}

#[test]
fn an_empty_spec_is_valid_and_stays_empty() {
    let apikey: ApiKey = serde_json::from_value(serde_json::json!({
        "apiVersion": "claviger.dev/v1alpha1", "kind": "ApiKey", "metadata": {"name": "billing"}, "spec": {}
    }))
    .unwrap();
    assert_eq!(apikey.spec, ApiKeySpec::default());
    assert_eq!(serde_json::to_value(&apikey.spec).unwrap(), serde_json::json!({}), "nothing is written that nobody asked for");
    assert_eq!((apikey.secret_name().as_str(), apikey.data_key()), ("billing", DEFAULT_DATA_KEY));
    assert!(!apikey.is_revoked() && !apikey.is_deleting() && apikey.template().is_empty());
    assert_eq!(spec_schema()["required"], Value::Null);
}

#[test]
fn a_secret_can_have_another_name_and_entry() {
    let spec: ApiKeySpec = serde_json::from_value(serde_json::json!({"secret": {"name": "other", "key": "token"}})).unwrap();
    let apikey = ApiKey::new("billing", spec);
    assert_eq!((apikey.secret_name().as_str(), apikey.data_key()), ("other", "token"));
}
