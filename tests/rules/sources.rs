//! A key that exists elsewhere: how it is pointed at, and that nobody can point elsewhere later.

use serde_json::{Value, json};

use super::statuses::{hash, with};
use super::{Part, Rule, letters, tell};
use crate::stories;
use crate::support::stage::manifest;

stories![
    a_source_names_what_can_exist,
    a_source_is_a_secret_or_a_hash,
    a_source_is_not_where_the_key_goes,
    a_source_cannot_be_changed,
];

const ONE: &str = "source takes exactly one of secretRef and hash";
const TAIL: &str = "tail goes with hash: of a Secret it is read";
const ONCE: &str = "a key of another Secret cannot be shown once: it stays there";
const OTHER: &str = "source.secretRef must name another Secret than the one that the key is delivered into: set secret.name";
const STAYS: &str = "source cannot be changed, added or removed after creation";

pub(super) fn rules() -> Vec<Rule> {
    [secrets(), hashes(), choices(), targets(), changes()]
        .into_iter()
        .flatten()
        .collect()
}

fn a_source_names_what_can_exist() {
    let stage = super::stage("sources");
    tell(&stage, Part::Spec, &[secrets(), hashes()].concat());
}

fn a_source_is_a_secret_or_a_hash() {
    let stage = super::stage("source-choices");
    tell(&stage, Part::Spec, &choices());
}

fn a_source_is_not_where_the_key_goes() {
    let stage = super::stage("source-targets");
    tell(&stage, Part::Spec, &targets());
    // The default of the Secret's name is the ApiKey's own name.
    let own = "{source: {secretRef: {name: legacy, key: token}}}";
    let says = stage.refused(&manifest("legacy", own));
    assert!(
        says.contains("spec.source") && says.contains(OTHER),
        "{says}"
    );
    assert!(
        stage
            .refused(&manifest(
                "other",
                &own.replace("{source", "{secret: {name: legacy}, source")
            ))
            .contains(OTHER)
    );
    stage.declare("other", own);
    stage.declare(
        "legacy",
        &own.replace("{source", "{secret: {name: legacy-2}, source"),
    );
}

fn a_source_cannot_be_changed() {
    let stage = super::stage("source-changes");
    tell(&stage, Part::Spec, &changes());
}

fn source(source: &Value) -> Value {
    json!({ "source": source })
}

fn secret(name: &str, key: &str) -> Value {
    source(&json!({ "secretRef": { "name": name, "key": key } }))
}

fn secrets() -> Vec<Rule> {
    let name = |keyword: &str, broken: &str, says: &str, nearest: &str| {
        let what = format!("spec.source.secretRef.name {keyword}");
        Rule::new(
            &what,
            secret(broken, "token"),
            &format!("spec.source.secretRef.name: … {says}"),
            secret(nearest, "token"),
        )
    };
    let key = |keyword: &str, broken: &str, says: &str, nearest: &str| {
        let what = format!("spec.source.secretRef.key {keyword}");
        Rule::new(
            &what,
            secret("legacy", broken),
            &format!("spec.source.secretRef.key: … {says}"),
            secret("legacy", nearest),
        )
    };
    let whole = json!({ "name": "legacy", "key": "token" });
    let required = |field: &str| {
        let what = format!("spec.source.secretRef.{field} required");
        let broken = source(&json!({ "secretRef": with(&whole, field, Value::Null) }));
        Rule::new(
            &what,
            broken,
            &format!("spec.source.secretRef.{field}: Required value"),
            secret("legacy", "token"),
        )
    };
    vec![
        required("name"),
        required("key"),
        name("minLength", "", "at least 1 chars", "s"),
        name("maxLength", &letters(254), "more than 253", &letters(253)),
        name("pattern", "Legacy", "should match", "legacy"),
        name("pattern", "legacy_keys", "should match", "legacy-keys"),
        name("pattern", "legacy..keys", "should match", "legacy.keys"),
        name("pattern", "other/legacy", "should match", "other.legacy"),
        key("minLength", "", "at least 1 chars", "k"),
        key("maxLength", &letters(254), "more than 253", &letters(253)),
        key("pattern", "api key", "should match", "api_key"),
        key("pattern", "api/key", "should match", "API-key.txt"),
        key("pattern", ".", "should match", ".k"),
        key("pattern", "..key", "should match", ".key"),
    ]
}

fn hashes() -> Vec<Rule> {
    let of = |text: &str| source(&json!({ "hash": text }));
    let sum = |keyword: &str, broken: &str, says: &str| {
        Rule::new(
            &format!("spec.source.hash {keyword}"),
            of(broken),
            &format!("spec.source.hash: … {says}"),
            of(&hash("0")),
        )
    };
    let tail = |keyword: &str, broken: &str, says: &str, nearest: &str| {
        let of = |tail: &str| source(&json!({ "hash": hash("0"), "tail": tail }));
        let what = format!("spec.source.tail {keyword}");
        Rule::new(
            &what,
            of(broken),
            &format!("spec.source.tail: … {says}"),
            of(nearest),
        )
    };
    vec![
        sum("maxLength", &(hash("0") + "0"), "more than 71"),
        sum("pattern", &hash("0")[..70], "should match"),
        sum("pattern", &hash("A"), "should match"),
        sum("pattern", &hash("g"), "should match"),
        sum("pattern", &"0".repeat(64), "should match"),
        sum(
            "pattern",
            &hash("0").replace("sha256", "sha512"),
            "should match",
        ),
        sum("pattern", "", "should match"),
        tail("minLength", "", "at least 1 chars", "x"),
        // So much that people recognise the key, and so little that nobody can use it.
        tail("maxLength", "2Xk9Qdx", "more than 6", "2Xk9Qd"),
        tail("pattern", "a b", "should match", "a_b"),
        tail("pattern", "a\nb", "should match", "!~\"'\\"),
        tail("pattern", "é", "should match", "e"),
    ]
}

fn choices() -> Vec<Rule> {
    let whole = json!({ "name": "legacy", "key": "token" });
    let rule = |message: &str, broken: Value, nearest: Value| {
        Rule::new(
            message,
            source(&broken),
            &format!("spec.source: … {message}"),
            source(&nearest),
        )
    };
    vec![
        rule(ONE, json!({}), json!({ "hash": hash("0") })),
        rule(
            ONE,
            json!({ "tail": "2Xk9Qd" }),
            json!({ "hash": hash("0"), "tail": "2Xk9Qd" }),
        ),
        rule(
            ONE,
            json!({ "secretRef": whole, "hash": hash("0") }),
            json!({ "secretRef": whole }),
        ),
        rule(
            ONE,
            json!({ "secretRef": whole, "hash": hash("0"), "tail": "2Xk9Qd" }),
            json!({ "hash": hash("0") }),
        ),
        rule(
            TAIL,
            json!({ "secretRef": whole, "tail": "2Xk9Qd" }),
            json!({ "secretRef": whole }),
        ),
        rule(
            TAIL,
            json!({ "tail": "2Xk9Qd" }),
            json!({ "hash": hash("0"), "tail": "2Xk9Qd" }),
        ),
    ]
}

fn targets() -> Vec<Rule> {
    let rule = |broken: &str, nearest: &str| {
        let of = |name: &str| {
            with(
                &secret("legacy", "token"),
                "secret",
                json!({ "name": name }),
            )
        };
        Rule::new(
            OTHER,
            of(broken),
            &format!("spec.source: … {OTHER}"),
            of(nearest),
        )
    };
    let entry = json!({ "name": "legacy", "key": "api-key" });
    vec![
        rule("legacy", "legacy-2"),
        // Another entry of the same Secret is no other Secret.
        Rule::new(
            OTHER,
            with(&secret("legacy", "token"), "secret", entry.clone()),
            OTHER,
            with(&secret("legacy-2", "token"), "secret", entry),
        ),
        // It would not be shown once.
        Rule::new(
            ONCE,
            with(
                &secret("legacy", "token"),
                "secret",
                json!({ "retention": "UntilCollected" }),
            ),
            &format!("spec.source: … {ONCE}"),
            with(
                &secret("legacy", "token"),
                "secret",
                json!({ "retention": "WhileActive" }),
            ),
        ),
    ]
}

fn changes() -> Vec<Rule> {
    let stays = |before: Value, broken: Value, nearest: Value| {
        Rule::change(
            STAYS,
            before,
            broken,
            &format!("spec.source: … {STAYS}"),
            nearest,
        )
    };
    let of = |hash: &str, tail: &str| source(&json!({ "hash": hash, "tail": tail }));
    let (from_secret, from_hash) = (secret("legacy", "token"), of(&hash("0"), "2Xk9Qd"));
    vec![
        stays(
            from_secret.clone(),
            secret("legacy-2", "token"),
            from_secret.clone(),
        ),
        stays(
            from_secret.clone(),
            secret("legacy", "token-2"),
            from_secret.clone(),
        ),
        stays(from_secret.clone(), from_hash.clone(), from_secret.clone()),
        stays(
            from_secret.clone(),
            json!({}),
            with(&from_secret, "owner", json!("billing")),
        ),
        stays(
            from_hash.clone(),
            of(&hash("1"), "2Xk9Qd"),
            from_hash.clone(),
        ),
        stays(
            from_hash.clone(),
            of(&hash("0"), "2Xk9Qe"),
            from_hash.clone(),
        ),
        stays(
            from_hash.clone(),
            source(&json!({ "hash": hash("0") })),
            from_hash.clone(),
        ),
        stays(
            from_hash.clone(),
            json!({}),
            with(&from_hash, "revision", json!(1)),
        ),
        stays(json!({}), from_secret, json!({ "owner": "billing" })),
        stays(json!({}), from_hash, json!({})),
    ]
}
