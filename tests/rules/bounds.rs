//! How long, how many, and of which characters.

use serde_json::{Value, json};

use super::{Part, Rule, entry, letters, list, map, tell};
use crate::stories;

stories![
    texts_lists_and_maps_are_bounded,
    a_name_that_no_secret_could_have_is_refused,
    a_lifetime_and_a_moment_are_well_formed
];

pub(super) fn rules() -> Vec<Rule> {
    [sizes(), patterns(), times()]
        .into_iter()
        .flatten()
        .collect()
}

fn texts_lists_and_maps_are_bounded() {
    let stage = super::stage("bounds");
    tell(&stage, Part::Spec, &sizes());
}

fn a_name_that_no_secret_could_have_is_refused() {
    let stage = super::stage("patterns");
    tell(&stage, Part::Spec, &patterns());
}

fn a_lifetime_and_a_moment_are_well_formed() {
    let stage = super::stage("times");
    tell(&stage, Part::Spec, &times());
}

fn sizes() -> Vec<Rule> {
    let one = |what: &str, field: &str, broken: Value, says: &str, nearest: Value| {
        Rule::new(
            what,
            json!({ field: broken }),
            &format!("spec.{field}: … {says}"),
            json!({ field: nearest }),
        )
    };
    let first = |what: &str, field: &str, broken: Value, says: &str, nearest: Value| {
        Rule::new(
            what,
            json!({ field: [broken] }),
            &format!("spec.{field}[0]: … {says}"),
            json!({ field: [nearest] }),
        )
    };
    let short = "should be at least 1 chars long";
    vec![
        one(
            "spec.description minLength",
            "description",
            json!("ten letter"),
            "at least 11 chars",
            json!("eleven char"),
        ),
        // Ten characters, thirty bytes: characters count.
        one(
            "spec.description minLength",
            "description",
            json!("請求書の夜間出力用鍵"),
            "at least 11 chars",
            json!("請求書の夜間出力用の鍵"),
        ),
        one(
            "spec.description maxLength",
            "description",
            json!(letters(100)),
            "more than 99",
            json!(letters(99)),
        ),
        one(
            "spec.description maxLength",
            "description",
            json!("鍵".repeat(100)),
            "more than 99",
            json!("鍵".repeat(99)),
        ),
        one(
            "spec.owner minLength",
            "owner",
            json!(""),
            short,
            json!("o"),
        ),
        one(
            "spec.owner maxLength",
            "owner",
            json!(letters(254)),
            "more than 253",
            json!(letters(253)),
        ),
        one(
            "spec.application minLength",
            "application",
            json!(""),
            short,
            json!("a"),
        ),
        one(
            "spec.application maxLength",
            "application",
            json!(letters(64)),
            "more than 63",
            json!(letters(63)),
        ),
        one(
            "spec.audiences maxItems",
            "audiences",
            list(17),
            "at most 16 items",
            list(16),
        ),
        first(
            "spec.audiences[] minLength",
            "audiences",
            json!(""),
            short,
            json!("a"),
        ),
        first(
            "spec.audiences[] maxLength",
            "audiences",
            json!(letters(254)),
            "more than 253",
            json!(letters(253)),
        ),
        one(
            "spec.roles maxItems",
            "roles",
            list(17),
            "at most 16 items",
            list(16),
        ),
        first(
            "spec.roles[] minLength",
            "roles",
            json!(""),
            short,
            json!("r"),
        ),
        first(
            "spec.roles[] maxLength",
            "roles",
            json!(letters(254)),
            "more than 253",
            json!(letters(253)),
        ),
        one(
            "spec.permissions maxItems",
            "permissions",
            list(65),
            "at most 64 items",
            list(64),
        ),
        first(
            "spec.permissions[] minLength",
            "permissions",
            json!(""),
            short,
            json!("p"),
        ),
        first(
            "spec.permissions[] maxLength",
            "permissions",
            json!(letters(129)),
            "more than 128",
            json!(letters(128)),
        ),
        one(
            "spec.prefix minLength",
            "prefix",
            json!("p"),
            "at least 2 chars",
            json!("pk"),
        ),
        one(
            "spec.prefix maxLength",
            "prefix",
            json!(letters(17)),
            "more than 16",
            json!(letters(16)),
        ),
        one(
            "spec.metadata maxProperties",
            "metadata",
            map(17),
            "at most 16 items",
            map(16),
        ),
        Rule::new(
            "spec.metadata{} maxLength",
            json!({ "metadata": entry("tier", &letters(257)) }),
            "spec.metadata.tier: … more than 256",
            json!({ "metadata": entry("tier", &letters(256)) }),
        ),
        one(
            "a key of metadata has 1 to 63 characters",
            "metadata",
            entry(&letters(64), "gold"),
            "a key of metadata has 1 to 63 characters",
            entry(&letters(63), "gold"),
        ),
        one(
            "a key of metadata has 1 to 63 characters",
            "metadata",
            entry("", "gold"),
            "a key of metadata has 1 to 63 characters",
            entry("k", ""),
        ),
        revocation("revocationReason", "minLength", "", short, "r"),
        revocation(
            "revocationReason",
            "maxLength",
            &letters(257),
            "more than 256",
            &letters(256),
        ),
        revocation("revokedBy", "minLength", "", short, "u"),
        revocation(
            "revokedBy",
            "maxLength",
            &letters(257),
            "more than 256",
            &letters(256),
        ),
    ]
}

fn revocation(field: &str, keyword: &str, broken: &str, says: &str, nearest: &str) -> Rule {
    let spec = |text: &str| json!({ "revoked": true, field: text });
    Rule::new(
        &format!("spec.{field} {keyword}"),
        spec(broken),
        &format!("spec.{field}: … {says}"),
        spec(nearest),
    )
}

fn patterns() -> Vec<Rule> {
    let role = |broken: &str, nearest: &str| {
        Rule::new(
            "spec.roles[] pattern",
            json!({ "roles": [broken] }),
            "spec.roles[0]: … should match",
            json!({ "roles": [nearest] }),
        )
    };
    let permission = |broken: &str, nearest: &str| {
        let says = "spec.permissions[0]: … should match";
        Rule::new(
            "spec.permissions[] pattern",
            json!({ "permissions": [broken] }),
            says,
            json!({ "permissions": [nearest] }),
        )
    };
    let prefix = |broken: &str, nearest: &str| {
        Rule::new(
            "spec.prefix pattern",
            json!({ "prefix": broken }),
            "spec.prefix: … should match",
            json!({ "prefix": nearest }),
        )
    };
    let secret = |what: &str, field: &str, broken: &str, says: &str, nearest: &str| {
        let says = format!("spec.secret.{field}: … {says}");
        Rule::new(
            what,
            json!({ "secret": { field: broken } }),
            &says,
            json!({ "secret": { field: nearest } }),
        )
    };
    let name = |broken: &str, nearest: &str| {
        secret(
            "spec.secret.name pattern",
            "name",
            broken,
            "should match",
            nearest,
        )
    };
    let key = |broken: &str, nearest: &str| {
        secret(
            "spec.secret.key pattern",
            "key",
            broken,
            "should match",
            nearest,
        )
    };
    vec![
        role("Viewer", "viewer"),
        role("-viewer", "ic-viewer"),
        role("viewer.", "viewer.v1"),
        permission("invoices read", "invoices:read"),
        permission(":read", "invoices:read/eu.v1_x-y"),
        permission("invoices:*", "invoices:all"),
        prefix("Acme", "acme"),
        prefix("1acme", "acme1"),
        prefix("acme_", "acme_live"),
        prefix("acme-live", "acmelive"),
        secret(
            "spec.secret.name minLength",
            "name",
            "",
            "at least 1 chars",
            "s",
        ),
        secret(
            "spec.secret.name maxLength",
            "name",
            &letters(254),
            "more than 253",
            &letters(253),
        ),
        name("Billing", "billing"),
        name("billing_export", "billing-export"),
        name("billing..export", "billing.export"),
        name("billing.-export", "billing.e-xport"),
        name("-billing", "b-illing"),
        secret(
            "spec.secret.key minLength",
            "key",
            "",
            "at least 1 chars",
            "k",
        ),
        secret(
            "spec.secret.key maxLength",
            "key",
            &letters(254),
            "more than 253",
            &letters(253),
        ),
        key("api key", "api_key"),
        key("api/key", "API-key.txt"),
        // Names that the API server takes for no Secret, because a mounted volume could not hold them.
        key(".", ".k"),
        key("..", ".-"),
        key("..key", ".key"),
    ]
}

fn times() -> Vec<Rule> {
    let after = |what: &str, broken: &str, says: &str, nearest: &str| {
        let says = format!("spec.expiry.after: … {says}");
        Rule::new(
            what,
            json!({ "expiry": { "after": broken } }),
            &says,
            json!({ "expiry": { "after": nearest } }),
        )
    };
    let shape = |broken: &str, nearest: &str| {
        after("spec.expiry.after pattern", broken, "should match", nearest)
    };
    let at = |broken: &str, nearest: &str| {
        let says = "spec.expiry.at: … date-time";
        Rule::new(
            "spec.expiry.at date-time",
            json!({ "expiry": { "at": broken } }),
            says,
            json!({ "expiry": { "at": nearest } }),
        )
    };
    // What the schema lets pass is found by the rules, which read the moment.
    let read = |broken: &str, nearest: &str| {
        let says = "spec.expiry: … Invalid date-time formatted string";
        Rule::new(
            "spec.expiry.at date-time",
            json!({ "expiry": { "at": broken } }),
            says,
            json!({ "expiry": { "at": nearest } }),
        )
    };
    vec![
        after(
            "spec.expiry.after maxLength",
            "100000d",
            "more than 6",
            "99999d",
        ),
        shape("0d", "1s"),
        shape("090d", "90d"),
        shape("90", "90m"),
        shape("90D", "90h"),
        shape("1y", "52w"),
        shape("1.5h", "5h"),
        shape("-5h", "5h"),
        shape("1d12h", "36h"),
        shape("", "1d"),
        at("2097-03-01", "2097-03-01T00:00:00Z"),
        at("2097-02-29T00:00:00Z", "2096-02-29T00:00:00Z"),
        at("2097-03-01T00:00:00", "2097-03-01T00:00:00+02:00"),
        at("2097-03-01 00:00:00Z", "2097-03-01T00:00:00Z"),
        at("2097-03-01T24:00:00Z", "2097-03-01T23:59:59.5Z"),
        at("tomorrow", "1997-03-01T00:00:00Z"),
        read("2097-03-01T00:00:00x5Z", "2097-03-01T00:00:00.5Z"),
        read("2097-03-01T00:00:00+99:99", "2097-03-01T00:00:00+14:00"),
    ]
}
