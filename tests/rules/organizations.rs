//! Which organization a key belongs to: written like the label of a namespace, and settled with the key.

use serde_json::{Value, json};

use super::{Part, Rule, letters, tell};
use crate::stories;

stories![
    an_organization_is_named_like_a_label_with_levels,
    a_key_stays_with_its_organization
];

const STAYS: &str = "organization cannot be changed, added or removed after creation";

pub(super) fn rules() -> Vec<Rule> {
    [shapes(), changes()].into_iter().flatten().collect()
}

fn an_organization_is_named_like_a_label_with_levels() {
    let stage = super::stage("organizations");
    tell(&stage, Part::Spec, &shapes());
}

fn a_key_stays_with_its_organization() {
    let stage = super::stage("organization-stays");
    tell(&stage, Part::Spec, &changes());
}

fn shapes() -> Vec<Rule> {
    let one = |keyword: &str, broken: &str, says: &str, nearest: &str| {
        let what = format!("spec.organization {keyword}");
        let says = format!("spec.organization: … {says}");
        Rule::new(
            &what,
            json!({ "organization": broken }),
            &says,
            json!({ "organization": nearest }),
        )
    };
    let shape = |broken: &str, nearest: &str| one("pattern", broken, "should match", nearest);
    vec![
        one("minLength", "", "at least 1 chars", "a"),
        one("maxLength", &letters(64), "more than 63", &letters(63)),
        shape("Acme", "acme"),
        shape("acme_eu", "acme-eu"),
        shape("acme/eu", "acme.eu"),
        shape("acme..eu", "acme.eu.north"),
        shape("acme.", "acme.1"),
        shape(".acme", "a.acme"),
        shape("-acme", "0-acme"),
        shape("acme-.eu", "acme-0.eu"),
        shape("acme.-eu", "acme.0-eu"),
        shape("acme ", "acme"),
        shape("*", "all"),
    ]
}

fn changes() -> Vec<Rule> {
    let stays = |before: Value, broken: Value, nearest: Value| {
        Rule::change(
            STAYS,
            before,
            broken,
            &format!("spec.organization: … {STAYS}"),
            nearest,
        )
    };
    let of = |organization: &str| json!({ "organization": organization });
    vec![
        stays(
            of("acme"),
            of("acme.eu"),
            json!({ "organization": "acme", "includeSubOrganizations": true }),
        ),
        stays(of("acme.eu"), of("acme"), of("acme.eu")),
        stays(of("acme"), json!({}), of("acme")),
        stays(
            json!({}),
            of("acme"),
            json!({ "includeSubOrganizations": false }),
        ),
    ]
}
