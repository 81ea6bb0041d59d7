//! Every bound of the schemas and every CEL rule of `ApiKey`, `ApiKeyRole`, `ApiKeyPolicy` and `Gate`, as a person meets them: what
//! `kubectl apply` answers to a manifest that breaks one, and that the nearest manifest that does not is taken.
//!
//! [`complete`] holds the tables here against the definitions as they are shipped, so that none of their rules goes untold.

mod bounds;
mod changes;
mod choices;
mod complete;
mod definition;
mod drift;
mod gates;
mod names;
mod organizations;
mod policies;
mod protection;
mod revocation;
mod roles;
mod rotation;
mod sources;
mod statuses;
mod templates;
mod versions;
mod views;

use std::collections::BTreeMap;

use claviger::api::manifests;
use serde_json::{Value, json};

use crate::support::Story;
use crate::support::cluster::Cluster;
use crate::support::stage::Stage;

pub(crate) fn stories() -> Vec<Story> {
    [
        bounds::stories(),
        changes::stories(),
        choices::stories(),
        complete::stories(),
        definition::stories(),
        drift::stories(),
        gates::stories(),
        names::stories(),
        organizations::stories(),
        policies::stories(),
        protection::stories(),
        revocation::stories(),
        roles::stories(),
        rotation::stories(),
        sources::stories(),
        statuses::stories(),
        templates::stories(),
        versions::stories(),
        views::stories(),
    ]
    .concat()
}

/// What Claviger defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Key,
    Role,
    Policy,
    Gate,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Key, Self::Role, Self::Policy, Self::Gate];

    fn name(self) -> &'static str {
        match self {
            Self::Key => "ApiKey",
            Self::Role => "ApiKeyRole",
            Self::Policy => "ApiKeyPolicy",
            Self::Gate => "Gate",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Key => "apikeys",
            Self::Role => "apikeyroles",
            Self::Policy => "apikeypolicies",
            Self::Gate => "gates",
        }
    }

    /// The schema in its definition as it is shipped.
    fn schema(self) -> Value {
        let file = format!("{}.claviger.dev.yaml", self.plural());
        let all = manifests::all().expect("definitions");
        let (_, yaml) = all
            .into_iter()
            .find(|(name, _)| *name == file)
            .expect("its definition");
        let definition: Value = serde_saphyr::from_str(&yaml).expect("YAML");
        definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }
}

/// A namespace where nothing but the definitions says what is right.
fn stage(name: &str) -> Stage {
    Stage::on(&Cluster::shared_without_admission(), name)
}

/// Which part of which kind a rule is about: what people write, or what the controller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Spec,
    Status,
    Role,
    Policy,
    Gate,
}

impl Part {
    fn kind(self) -> Kind {
        match self {
            Self::Spec | Self::Status => Kind::Key,
            Self::Role => Kind::Role,
            Self::Policy => Kind::Policy,
            Self::Gate => Kind::Gate,
        }
    }

    fn field(self) -> &'static str {
        if self == Self::Status {
            "status"
        } else {
            "spec"
        }
    }

    /// What is written for `value`. A policy that does not choose its namespaces is told to hold for none, so that no other
    /// story meets it.
    fn written(self, stage: &Stage, value: &Value) -> Value {
        let mut value = value.clone();
        if let (Self::Policy, Some(fields)) = (self, value.as_object_mut()) {
            fields
                .entry("namespaces")
                .or_insert_with(|| json!({ "matchLabels": { STORY: stage.namespace } }));
        }
        value
    }
}

/// The label of what is not in a story's namespace: the name of that namespace.
const STORY: &str = "claviger.dev/story";

/// Takes away what a story has put outside its namespace, however it ends.
struct Swept<'a>(&'a Stage, Kind);

impl Drop for Swept<'_> {
    fn drop(&mut self) {
        if !matches!(self.1, Kind::Key | Kind::Gate) {
            let _ = self.0.try_kubectl(&[
                "delete",
                self.1.plural(),
                "-l",
                &format!("{STORY}={}", self.0.namespace),
            ]);
        }
    }
}

/// One rule, and the two sides of it.
#[derive(Clone, Debug)]
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
        Self {
            what: what.to_owned(),
            before: None,
            broken,
            says: says.to_owned(),
            nearest,
        }
    }

    /// A rule about a change from `before`.
    fn change(what: &str, before: Value, broken: Value, says: &str, nearest: Value) -> Self {
        Self {
            before: Some(before),
            ..Self::new(what, broken, says, nearest)
        }
    }
}

/// Tells both sides of each rule, with a dry run and in earnest.
fn tell(stage: &Stage, part: Part, rules: &[Rule]) {
    let _swept = Swept(stage, part.kind());
    let name = |number: usize| format!("{}-rule-{number}", stage.namespace);
    let named = |pick: fn(&Rule) -> Option<&Value>| -> String {
        let picked = rules
            .iter()
            .enumerate()
            .filter_map(|(number, rule)| Some((name(number), pick(rule)?)));
        picked
            .map(|(name, value)| document(stage, part, &name, value))
            .collect()
    };
    let (before, broken, nearest) = (
        named(|rule| rule.before.as_ref()),
        named(|rule| Some(&rule.broken)),
        named(|rule| Some(&rule.nearest)),
    );
    if part == Part::Status {
        let plain: String = (0..rules.len())
            .map(|number| document(stage, Part::Spec, &name(number), &json!({})))
            .collect();
        accepted(stage, Part::Spec, &plain, &[]);
    }
    if !before.is_empty() {
        accepted(stage, part, &before, &[]);
    }
    for dry in [&["--dry-run=server"][..], &[]] {
        let answers = refusals(stage, part, &broken, dry);
        for (number, rule) in rules.iter().enumerate() {
            let answer = answers
                .get(&name(number))
                .unwrap_or_else(|| panic!("{}: not refused {dry:?}: {}", rule.what, rule.broken));
            for says in rule.says.split(" … ") {
                assert!(
                    answer.contains(says),
                    "{} {dry:?}: {says:?} is not in: {answer}",
                    rule.what
                );
            }
        }
    }
    let live = stored(stage, part);
    for (number, rule) in rules.iter().enumerate() {
        let before = rule
            .before
            .as_ref()
            .map(|before| part.written(stage, before));
        assert_eq!(
            live.get(&name(number)),
            before.as_ref(),
            "{}: what was refused has changed nothing",
            rule.what
        );
    }
    accepted(stage, part, &nearest, &["--dry-run=server"]);
    accepted(stage, part, &nearest, &[]);
    let live = stored(stage, part);
    for (number, rule) in rules.iter().enumerate() {
        let nearest = part.written(stage, &rule.nearest);
        assert_eq!(
            live.get(&name(number)),
            Some(&nearest),
            "{}: kept as it was written, nothing added",
            rule.what
        );
    }
}

fn document(stage: &Stage, part: Part, name: &str, value: &Value) -> String {
    let metadata = json!({ "name": name, "labels": { STORY: stage.namespace } });
    let mut document = json!({ "apiVersion": "claviger.dev/v1alpha1", "kind": part.kind().name(), "metadata": metadata });
    let value = part.written(stage, value);
    if part == Part::Status {
        document["spec"] = json!({});
    }
    if !value.is_null() {
        document[part.field()] = value;
    }
    format!("{document}\n")
}

fn command(stage: &Stage, part: Part, more: &[&str]) -> Vec<String> {
    let verb: &[&str] = match part {
        Part::Spec | Part::Role | Part::Policy | Part::Gate => &["apply"],
        Part::Status => &["replace", "--subresource=status"],
    };
    [&["-n", &stage.namespace][..], verb, more, &["-f", "-"]]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
}

/// Applies manifests that must all be taken, without a warning.
fn accepted(stage: &Stage, part: Part, manifests: &str, more: &[&str]) {
    let command = command(stage, part, more);
    let output = stage.cluster.try_kubectl(
        &command.iter().map(String::as_str).collect::<Vec<_>>(),
        manifests,
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.is_empty(),
        "{}: {said}",
        command.join(" ")
    );
}

/// Applies manifests that are to be refused, and returns the answer to each by its name.
fn refusals(stage: &Stage, part: Part, manifests: &str, more: &[&str]) -> BTreeMap<String, String> {
    let command = command(stage, part, more);
    let output = stage.cluster.try_kubectl(
        &command.iter().map(String::as_str).collect::<Vec<_>>(),
        manifests,
    );
    let mut answers = BTreeMap::new();
    let mut about = String::new();
    let quoted = format!("\"{}-rule-", stage.namespace);
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        if let Some((_, rest)) = line.split_once(&quoted) {
            about = format!(
                "{}{}",
                &quoted[1..],
                rest.split('"').next().unwrap_or_default()
            );
        }
        let answer: &mut String = answers.entry(about.clone()).or_default();
        answer.push_str(line);
        answer.push('\n');
    }
    answers
}

/// What is stored, by name; without what is empty.
fn stored(stage: &Stage, part: Part) -> BTreeMap<String, Value> {
    let selector = format!("{STORY}={}", stage.namespace);
    let all = stage.kubectl(&["get", part.kind().plural(), "-l", &selector, "-o", "json"]);
    let all: Value = serde_json::from_str(&all).expect("JSON");
    let items = all["items"].as_array().expect("a list");
    let named = items.iter().map(|one| {
        (
            one["metadata"]["name"].as_str().expect("a name").to_owned(),
            one[part.field()].clone(),
        )
    });
    named.filter(|(_, value)| !value.is_null()).collect()
}

/// A text of so many characters.
fn letters(count: usize) -> String {
    "x".repeat(count)
}

/// A list of so many different texts.
fn list(count: usize) -> Value {
    (0..count)
        .map(|number| json!(format!("x{number}")))
        .collect()
}

/// A map of so many entries.
fn map(count: usize) -> Value {
    Value::Object(
        (0..count)
            .map(|number| (format!("x{number}"), json!("y")))
            .collect(),
    )
}

/// A map of one entry.
fn entry(name: &str, value: &str) -> Value {
    Value::Object([(name.to_owned(), json!(value))].into_iter().collect())
}
