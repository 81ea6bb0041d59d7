//! Templates of Secrets.

use proptest::prelude::*;

use super::super::*;

fn expand(text: &str) -> String {
    let facts = Facts {
        key_id: "ID",
        tail: "TAIL",
        name: "NAME",
        namespace: "NS",
        prefix: "PRE",
    };
    SecretTemplate::expand(text, "KEY", &facts)
}

#[test]
fn a_template_knows_six_placeholders() {
    assert_eq!(expand("Bearer ${key}"), "Bearer KEY");
    assert_eq!(expand("${key}${key}"), "KEYKEY");
    assert_eq!(
        expand("${keyId}/${tail}/${name}/${namespace}/${prefix}"),
        "ID/TAIL/NAME/NS/PRE"
    );
    assert_eq!(expand(""), "");
}

#[test]
fn what_is_no_placeholder_stays_as_it_is() {
    for text in [
        "$key",
        "${}",
        "${ key}",
        "${Key}",
        "${keys}",
        "${unknown}",
        "${key",
        "$",
        "${",
        "}",
        "$${",
        "{key}",
    ] {
        assert_eq!(expand(text), text);
    }
    assert_eq!(expand("$${key}"), "$KEY");
    assert_eq!(expand("${${key}key}"), "${KEYkey}");
    assert_eq!(expand("${unknown ${key}"), "${unknown KEY");
    assert_eq!(expand("ü${key}ü"), "üKEYü");
}

#[test]
fn what_a_placeholder_brings_in_is_not_expanded_again() {
    let facts = Facts {
        key_id: "${key}",
        tail: "${",
        name: "key}",
        namespace: "",
        prefix: "$",
    };
    assert_eq!(SecretTemplate::expand("${keyId}", "KEY", &facts), "${key}");
    assert_eq!(
        SecretTemplate::expand("${tail}${name}", "KEY", &facts),
        "${key}"
    );
    assert_eq!(
        SecretTemplate::expand("${prefix}{key}", "KEY", &facts),
        "${key}"
    );
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
