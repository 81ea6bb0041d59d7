//! Any body of a question to the verify API.

#![no_main]

use std::sync::LazyLock;

use claviger::gate::Origin;
use claviger::gate::protocols::{Verification, Verify};
use claviger_fuzz::{AUDIENCE, DESK, KEY, contains};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const FIELDS: [&str; 5] = [
    "key",
    "audience",
    "organization",
    "permissions",
    "namespace",
];

static VERIFY: LazyLock<Verify> = LazyLock::new(|| Verify::new(DESK.clone()));

fuzz_target!(|data: &[u8]| {
    let Ok(question) = serde_json::from_slice::<Verification>(data) else {
        return;
    };
    let asked: Value = serde_json::from_slice(data).expect("JSON");
    // Also as a list, in the order of the fields: it means the same.
    let text = |name: &str| match &asked {
        Value::Array(fields) => fields
            .get(FIELDS.iter().position(|field| *field == name)?)?
            .as_str(),
        fields => fields.get(name)?.as_str(),
    };
    let answer = match VERIFY.answer(&question, Origin::default) {
        Ok(answer) => answer,
        Err(error) => {
            assert!(
                !error.to_string().contains(KEY),
                "a key in the wrong place is not repeated"
            );
            return;
        }
    };
    let body = serde_json::to_vec(&answer).expect("an answer can be written");
    let told: Value = serde_json::from_slice(&body).expect("JSON");
    let key = text("key").unwrap_or_default();
    // An answer may repeat what the route needs, and has words of its own with spaces between; it does not repeat the key.
    let mut needs = ["audience", "organization", "permissions"]
        .into_iter()
        .filter_map(text);
    let told_anyway = key.len() < 20 || key.contains(' ') || needs.any(|need| need.contains(key));
    assert!(told_anyway || !contains(&body, key.as_bytes()));
    let valid = told["valid"] == true;
    assert_eq!(valid, told["code"] == "VALID");
    assert_eq!(
        told.get("keyId").is_some(),
        key == KEY && text("namespace").is_none_or(|namespace| namespace == "team-a")
    );
    if valid {
        assert_eq!((key, text("audience")), (KEY, Some(AUDIENCE)));
        assert!(text("organization").is_none(), "the key has none");
    }
});
