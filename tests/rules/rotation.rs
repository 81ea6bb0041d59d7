//! How often a key is replaced, and how long the replaced one still passes.

use serde_json::{Value, json};

use super::{Part, Rule, tell};
use crate::stories;

stories![
    a_rotation_is_written_in_whole_units,
    versions_overlap_for_less_than_they_last,
    a_revision_only_grows,
    whether_a_key_is_shown_once_is_settled_with_the_key,
];

const SHORTER: &str = "overlap must be shorter than every";
const GROWS: &str = "revision can only grow";
const RETENTION: &str =
    "secret.retention cannot be changed to or from UntilCollected after creation";

pub(super) fn rules() -> Vec<Rule> {
    [shapes(), overlaps(), revisions(), retentions()]
        .into_iter()
        .flatten()
        .collect()
}

fn a_rotation_is_written_in_whole_units() {
    let stage = super::stage("rotations");
    tell(&stage, Part::Spec, &shapes());
}

fn versions_overlap_for_less_than_they_last() {
    let stage = super::stage("overlaps");
    tell(&stage, Part::Spec, &overlaps());
}

fn a_revision_only_grows() {
    let stage = super::stage("revisions");
    tell(&stage, Part::Spec, &revisions());
}

fn whether_a_key_is_shown_once_is_settled_with_the_key() {
    let stage = super::stage("retentions");
    tell(&stage, Part::Spec, &retentions());
}

fn shapes() -> Vec<Rule> {
    let one = |field: &str, keyword: &str, broken: &str, says: &str, nearest: &str| {
        let what = format!("spec.rotation.{field} {keyword}");
        let says = format!("spec.rotation.{field}: … {says}");
        Rule::new(
            &what,
            json!({ "rotation": { field: broken } }),
            &says,
            json!({ "rotation": { field: nearest } }),
        )
    };
    let every =
        |broken: &str, nearest: &str| one("every", "pattern", broken, "should match", nearest);
    let overlap =
        |broken: &str, nearest: &str| one("overlap", "pattern", broken, "should match", nearest);
    vec![
        one("every", "maxLength", "100000s", "more than 6", "99999s"),
        // Nothing can be replaced all the time.
        every("0s", "1s"),
        every("0d", "1d"),
        every("030d", "30d"),
        every("30", "30m"),
        every("30D", "30h"),
        every("1y", "52w"),
        every("1d12h", "36h"),
        every("", "1d"),
        one("overlap", "maxLength", "100000w", "more than 6", "99999w"),
        // What is replaced can end at once.
        overlap("0", "0s"),
        overlap("00s", "0s"),
        overlap("01d", "0d"),
        overlap("-1d", "0w"),
        overlap("0.5h", "30m"),
        overlap("1d ", "1d"),
        overlap("", "0h"),
    ]
}

fn overlaps() -> Vec<Rule> {
    let of =
        |every: &str, overlap: &str| json!({ "rotation": { "every": every, "overlap": overlap } });
    let rule = |every: &str, broken: &str, nearest: &str| {
        Rule::new(
            SHORTER,
            of(every, broken),
            &format!("spec.rotation.overlap: … {SHORTER}"),
            of(every, nearest),
        )
    };
    let change = |before: Value, broken: Value, nearest: Value| {
        Rule::change(
            SHORTER,
            before,
            broken,
            &format!("spec.rotation.overlap: … {SHORTER}"),
            nearest,
        )
    };
    vec![
        rule("30d", "30d", "29d"),
        rule("30d", "31d", "7d"),
        // Lengths count, and not how they are written.
        rule("1m", "60s", "59s"),
        rule("1h", "60m", "59m"),
        rule("1d", "24h", "23h"),
        rule("1w", "7d", "6d"),
        rule("14d", "2w", "1w"),
        rule("7200s", "2h", "119m"),
        rule("1s", "1s", "0s"),
        rule("1s", "1w", "0w"),
        rule("99999w", "99999w", "99998w"),
        rule("99999s", "99999w", "27h"),
        change(of("30d", "7d"), of("7d", "7d"), of("8d", "7d")),
        // Without an interval, only whoever raises the revision has versions replaced.
        change(
            json!({ "rotation": { "overlap": "9w" } }),
            of("9w", "9w"),
            json!({ "rotation": { "overlap": "10w" } }),
        ),
    ]
}

fn revisions() -> Vec<Rule> {
    let of = |revision: i64| json!({ "revision": revision });
    let least = |broken: i64| {
        Rule::new(
            "spec.revision minimum",
            of(broken),
            "spec.revision: … greater than or equal to 1",
            of(1),
        )
    };
    let grows = |before: Value, broken: Value, nearest: Value| {
        Rule::change(
            GROWS,
            before,
            broken,
            &format!("spec.revision: … {GROWS}"),
            nearest,
        )
    };
    vec![
        least(0),
        least(-1),
        grows(of(2), of(1), of(3)),
        grows(of(7), of(6), of(7)),
        grows(of(1), json!({}), of(2)),
        grows(
            of(1),
            json!({ "description": "Nightly export" }),
            of(i64::from(u32::MAX)),
        ),
    ]
}

fn retentions() -> Vec<Rule> {
    let of = |retention: &str| json!({ "secret": { "retention": retention } });
    let once = || of("UntilCollected");
    let settled = |before: Value, broken: Value, nearest: Value| {
        Rule::change(
            RETENTION,
            before,
            broken,
            &format!("spec.secret: … {RETENTION}"),
            nearest,
        )
    };
    let says = "spec.secret.retention: … supported values: \"Always\", \"WhileActive\", \"UntilCollected\"";
    vec![
        Rule::new(
            "spec.secret.retention enum",
            of("Never"),
            says,
            of("WhileActive"),
        ),
        Rule::new(
            "spec.secret.retention enum",
            of("always"),
            says,
            of("Always"),
        ),
        settled(
            once(),
            of("Always"),
            json!({ "secret": { "retention": "UntilCollected", "key": "api-key" } }),
        ),
        settled(once(), of("WhileActive"), once()),
        settled(once(), json!({ "secret": {} }), once()),
        settled(once(), json!({}), once()),
        settled(json!({}), once(), of("Always")),
        settled(
            json!({ "secret": { "key": "token" } }),
            json!({ "secret": { "key": "token", "retention": "UntilCollected" } }),
            json!({ "secret": { "key": "token", "retention": "WhileActive" } }),
        ),
        settled(of("Always"), once(), of("WhileActive")),
        settled(of("WhileActive"), once(), json!({})),
    ]
}
