//! Every bound of the schema and every CEL rule of `ApiKey`, as a person meets them: what `kubectl apply` answers to a manifest
//! that breaks one, and that the nearest manifest that does not is taken.
//!
//! [`complete`] holds the tables here against the definition as it is shipped, so that none of its rules goes untold.

mod bounds;
mod changes;
mod choices;
mod complete;
mod definition;
mod drift;
mod names;
mod protection;
mod revocation;
mod statuses;
mod templates;
mod views;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::Story;
use crate::support::stage::Stage;

pub(crate) fn stories() -> Vec<Story> {
    [
        bounds::stories(),
        changes::stories(),
        choices::stories(),
        complete::stories(),
        definition::stories(),
        drift::stories(),
        names::stories(),
        protection::stories(),
        revocation::stories(),
        statuses::stories(),
        templates::stories(),
        views::stories(),
    ]
    .concat()
}

/// Which part of an ApiKey a rule is about: what people write, or what the controller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Spec,
    Status,
}

/// One rule, and the two sides of it.
#[derive(Debug)]
struct Rule {
    /// The place and the keyword in the schema, or the message of the CEL rule.
    what: String,
    /// What is there before, for rules about changes.
    before: Option<Value>,
    /// What breaks it.
    broken: Value,
    /// What the API server answers: these parts, with ` … ` between them.
    says: String,
    /// The nearest that passes.
    nearest: Value,
}

impl Rule {
    fn new(what: &str, broken: Value, says: &str, nearest: Value) -> Self {
        Self { what: what.to_owned(), before: None, broken, says: says.to_owned(), nearest }
    }

    /// A rule about a change from `before`.
    fn change(what: &str, before: Value, broken: Value, says: &str, nearest: Value) -> Self {
        Self { before: Some(before), ..Self::new(what, broken, says, nearest) }
    }
}

/// Tells both sides of each rule, with a dry run and in earnest.
fn tell(stage: &Stage, part: Part, rules: &[Rule]) {
    let name = |number: usize| format!("rule-{number}");
    let named = |pick: fn(&Rule) -> Option<&Value>| -> String {
        let picked = rules.iter().enumerate().filter_map(|(number, rule)| Some((name(number), pick(rule)?)));
        picked.map(|(name, value)| document(part, &name, value)).collect()
    };
    let (before, broken, nearest) =
        (named(|rule| rule.before.as_ref()), named(|rule| Some(&rule.broken)), named(|rule| Some(&rule.nearest)));
    if part == Part::Status {
        let plain: String = (0..rules.len()).map(|number| document(Part::Spec, &name(number), &json!({}))).collect();
        accepted(stage, Part::Spec, &plain, &[]);
    }
    if !before.is_empty() {
        accepted(stage, part, &before, &[]);
    }
    for dry in [&["--dry-run=server"][..], &[]] {
        let answers = refusals(stage, part, &broken, dry);
        for (number, rule) in rules.iter().enumerate() {
            let answer =
                answers.get(&name(number)).unwrap_or_else(|| panic!("{}: not refused {dry:?}: {}", rule.what, rule.broken));
            for says in rule.says.split(" … ") {
                assert!(answer.contains(says), "{} {dry:?}: {says:?} is not in: {answer}", rule.what);
            }
        }
    }
    let live = stored(stage, part);
    for (number, rule) in rules.iter().enumerate() {
        assert_eq!(live.get(&name(number)), rule.before.as_ref(), "{}: what was refused has changed nothing", rule.what);
    }
    accepted(stage, part, &nearest, &["--dry-run=server"]);
    accepted(stage, part, &nearest, &[]);
    let live = stored(stage, part);
    for (number, rule) in rules.iter().enumerate() {
        assert_eq!(live.get(&name(number)), Some(&rule.nearest), "{}: kept as it was written, nothing added", rule.what);
    }
}

fn document(part: Part, name: &str, value: &Value) -> String {
    let (spec, status) = match part {
        Part::Spec => (value, Value::Null),
        Part::Status => (&json!({}), value.clone()),
    };
    let mut apikey =
        json!({ "apiVersion": "claviger.dev/v1alpha1", "kind": "ApiKey", "metadata": { "name": name }, "spec": spec });
    if !status.is_null() {
        apikey["status"] = status;
    }
    format!("{apikey}\n")
}

fn command(stage: &Stage, part: Part, more: &[&str]) -> Vec<String> {
    let verb: &[&str] = match part {
        Part::Spec => &["apply"],
        Part::Status => &["replace", "--subresource=status"],
    };
    [&["-n", &stage.namespace][..], verb, more, &["-f", "-"]].concat().into_iter().map(str::to_owned).collect()
}

/// Applies manifests that must all be taken, without a warning.
fn accepted(stage: &Stage, part: Part, manifests: &str, more: &[&str]) {
    let command = command(stage, part, more);
    let output = stage.cluster.try_kubectl(&command.iter().map(String::as_str).collect::<Vec<_>>(), manifests);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", command.join(" "));
}

/// Applies manifests that are to be refused, and returns the answer to each by its name.
fn refusals(stage: &Stage, part: Part, manifests: &str, more: &[&str]) -> BTreeMap<String, String> {
    let command = command(stage, part, more);
    let output = stage.cluster.try_kubectl(&command.iter().map(String::as_str).collect::<Vec<_>>(), manifests);
    let mut answers = BTreeMap::new();
    let mut about = String::new();
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        if let Some((_, rest)) = line.split_once("\"rule-") {
            about = format!("rule-{}", rest.split('"').next().unwrap_or_default());
        }
        let answer: &mut String = answers.entry(about.clone()).or_default();
        answer.push_str(line);
        answer.push('\n');
    }
    answers
}

/// What is stored, by name; without what is empty.
fn stored(stage: &Stage, part: Part) -> BTreeMap<String, Value> {
    let all: Value = serde_json::from_str(&stage.kubectl(&["get", "apikeys", "-o", "json"])).expect("JSON");
    let field = if part == Part::Spec { "spec" } else { "status" };
    let items = all["items"].as_array().expect("a list");
    let named = items.iter().map(|one| (one["metadata"]["name"].as_str().expect("a name").to_owned(), one[field].clone()));
    named.filter(|(_, value)| !value.is_null()).collect()
}

/// A text of so many characters.
fn letters(count: usize) -> String {
    "x".repeat(count)
}

/// A list of so many different texts.
fn list(count: usize) -> Value {
    (0..count).map(|number| json!(format!("x{number}"))).collect()
}

/// A map of so many entries.
fn map(count: usize) -> Value {
    Value::Object((0..count).map(|number| (format!("x{number}"), json!("y"))).collect())
}

/// A map of one entry.
fn entry(name: &str, value: &str) -> Value {
    Value::Object([(name.to_owned(), json!(value))].into_iter().collect())
}
