//! What a template may put on the Secret: nothing that the API server would refuse at delivery, and nothing that is Claviger's.

use serde_json::{Value, json};

use super::{Part, Rule, entry, letters, map, tell};
use crate::stories;

stories![
    a_template_that_no_secret_could_hold_is_refused,
    what_is_clavigers_cannot_be_templated
];

const LABEL_NAME: &str = "a label's name is [prefix/]name: at most 63 letters, digits, -, _ and . after an optional DNS name";
const LABEL_VALUE: &str = "a label's value has at most 63 letters, digits, -, _ and ., and begins and ends with a letter or digit";
const ANNOTATION_NAME: &str = "an annotation's name is [prefix/]name: at most 63 letters, digits, -, _ and . after an optional DNS name";
const ENTRY_NAME: &str = "the name of a Secret's entry has at most 253 characters out of letters, digits, -, _ and ., and does not begin with ..";
const PLACEHOLDERS: &str =
    "a template knows only ${key}, ${keyId}, ${tail}, ${name}, ${namespace} and ${prefix}";

pub(super) fn rules() -> Vec<Rule> {
    [labels(), annotations(), data(), reserved()]
        .into_iter()
        .flatten()
        .collect()
}

fn a_template_that_no_secret_could_hold_is_refused() {
    let stage = super::stage("templates");
    tell(
        &stage,
        Part::Spec,
        &[labels(), annotations(), data()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>(),
    );
}

fn what_is_clavigers_cannot_be_templated() {
    let stage = super::stage("reserved");
    tell(&stage, Part::Spec, &reserved());
}

fn on(field: &str, value: Value) -> Value {
    let fields = Value::Object([(field.to_owned(), value)].into_iter().collect());
    let template = if field == "data" {
        fields
    } else {
        json!({ "metadata": fields })
    };
    json!({ "secret": { "template": template } })
}

fn path(field: &str) -> String {
    let place = if field == "data" { "" } else { "metadata." };
    format!("spec.secret.template.{place}{field}")
}

fn one(what: &str, field: &str, broken: Value, says: &str, nearest: Value) -> Rule {
    Rule::new(
        what,
        on(field, broken),
        &format!("{}: … {says}", path(field)),
        on(field, nearest),
    )
}

fn bounds(field: &str, most: usize, longest: usize) -> Vec<Rule> {
    let path = path(field);
    vec![
        one(
            &format!("{path} maxProperties"),
            field,
            map(most + 1),
            &format!("at most {most} items"),
            map(most),
        ),
        Rule::new(
            &format!("{path}{{}} maxLength"),
            on(field, entry("x", &letters(longest + 1))),
            &format!("{path}.x: … more than {longest}"),
            on(field, entry("x", &letters(longest))),
        ),
    ]
}

/// Names that are wrong, each with the nearest that is right.
fn names() -> Vec<(String, String)> {
    let pairs = [
        ("", "a"),
        ("team a", "team-a"),
        ("-team", "team"),
        ("team.", "t.eam"),
        ("/team", "x/team"),
        ("example.com/", "example.com/x"),
        ("example.com/a/b", "example.com/a"),
        ("Example.com/team", "example.com/Team"),
        ("example..com/team", "example.com/te..am"),
        ("example.-com/team", "example.c-om/te.-am"),
        ("example-.com/team", "exampl-e.com/te-.am"),
    ];
    let mut all: Vec<_> = pairs
        .iter()
        .map(|(broken, nearest)| ((*broken).to_owned(), (*nearest).to_owned()))
        .collect();
    all.push((letters(64), letters(63)));
    all.push((format!("x/{}", letters(64)), format!("x/{}", letters(63))));
    all.push((format!("{}/x", letters(254)), format!("{}/x", letters(253))));
    all
}

fn labels() -> Vec<Rule> {
    let name = |(broken, nearest): (String, String)| {
        one(
            LABEL_NAME,
            "labels",
            entry(&broken, "y"),
            LABEL_NAME,
            entry(&nearest, "y"),
        )
    };
    let value = |broken: &str, nearest: &str| {
        one(
            LABEL_VALUE,
            "labels",
            entry("x", broken),
            LABEL_VALUE,
            entry("x", nearest),
        )
    };
    let values = vec![
        value("a b", "a_b"),
        value("-a", "a-b"),
        value("a.", ""),
        value("${name}", "name"),
        value("ä", "a"),
    ];
    [
        bounds("labels", 16, 63),
        names().into_iter().map(name).collect(),
        values,
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn annotations() -> Vec<Rule> {
    let name = |(broken, nearest): (String, String)| {
        one(
            ANNOTATION_NAME,
            "annotations",
            entry(&broken, "y"),
            ANNOTATION_NAME,
            entry(&nearest, "any value: ${key}, äöü"),
        )
    };
    bounds("annotations", 16, 256)
        .into_iter()
        .chain(names().into_iter().map(name))
        .collect()
}

fn data() -> Vec<Rule> {
    let name = |broken: &str, nearest: &str| {
        one(
            ENTRY_NAME,
            "data",
            entry(broken, "y"),
            ENTRY_NAME,
            entry(nearest, "y"),
        )
    };
    let text = |broken: &str, nearest: &str| {
        one(
            PLACEHOLDERS,
            "data",
            entry("x", broken),
            PLACEHOLDERS,
            entry("x", nearest),
        )
    };
    let own = |broken: Value, nearest: Value| {
        let says = "template.data cannot set the entry that holds the key";
        Rule::new(
            says,
            json!({ "secret": broken }),
            &format!("spec.secret: … {says}"),
            json!({ "secret": nearest }),
        )
    };
    let with = |key: Option<&str>, entry_name: &str| {
        let template = json!({ "data": entry(entry_name, "y") });
        key.map_or_else(
            || json!({ "template": template }),
            |key| json!({ "key": key, "template": template }),
        )
    };
    let mut all = bounds("data", 8, 1024);
    all.extend([
        name(&letters(254), &letters(253)),
        name("", "e"),
        name("a b", "a_b"),
        name("a/b", "a-b.c"),
        // Names that a mounted volume could not hold.
        name(".", ".e"),
        name("..", ".-"),
        name("..data", ".data"),
        text(
            "${kye}",
            "${key}${keyId}${tail}${name}${namespace}${prefix}",
        ),
        text("Bearer ${ key }", "Bearer ${key}"),
        text("${key", "$key {key} $${key} $"),
        text("${KEY}", "KEY=${key}"),
        text("${}", "{}"),
        text("${key}${secret}", "${key}:${tail}"),
        own(with(None, "api-key"), with(None, "api-key-2")),
        own(with(Some("token"), "token"), with(Some("token"), "api-key")),
    ]);
    all
}

fn reserved() -> Vec<Rule> {
    let label = "claviger.dev/… and app.kubernetes.io/managed-by are set by Claviger";
    let annotation = "claviger.dev/… is set by Claviger";
    vec![
        one(
            label,
            "labels",
            entry("claviger.dev/apikey", "mine"),
            label,
            entry("claviger.example.com/apikey", "mine"),
        ),
        one(
            label,
            "labels",
            entry("claviger.dev/anything", "mine"),
            label,
            entry("claviger.dev", "mine"),
        ),
        one(
            label,
            "labels",
            entry("app.kubernetes.io/managed-by", "argo"),
            label,
            entry("app.kubernetes.io/part-of", "argo"),
        ),
        one(
            annotation,
            "annotations",
            entry("claviger.dev/key-id", "x"),
            annotation,
            entry("example.com/key-id", "x"),
        ),
        one(
            annotation,
            "annotations",
            entry("claviger.dev/adopt", "true"),
            annotation,
            entry("claviger.dev", "true"),
        ),
    ]
}
