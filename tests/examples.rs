//! Every manifest in `examples/` keeps what its comment promises.
//!
//! A promise is a line of the comment on top of a file, about the one ApiKey in it:
//! - `# reaches: phase=… Ready=True/Issued … kstatus=…`: where it ends up, and what deployment tools make of it
//! - `# passes: …`: where it has been before
//! - `# secret: name[entry,…]` or `# secret: none`: the Secret that pods find

use std::collections::BTreeMap;
use std::path::Path;

use claviger::api::ApiKey;
use claviger::api::conditions::find;
use claviger::api::{ConditionType, Phase, VersionPhase};
use claviger::key::{self, Hash};
use serde_json::{Value, json};

use crate::stories;
use crate::support::history::{History, State};
use crate::support::kstatus::kstatus;
use crate::support::stage::Stage;
use crate::support::wait::until;

stories![
    every_example_reaches_what_its_comment_promises,
    applying_the_examples_again_changes_nothing,
    the_examples_survive_a_change_of_tools,
    a_taken_name_is_what_tools_call_failed,
];

/// A file of `examples/`.
struct Example {
    file: String,
    text: String,
    /// The name of its ApiKey.
    name: String,
    passes: Option<String>,
    reaches: String,
    /// The Secret and its entries.
    secret: Option<(String, Vec<String>)>,
}

/// Every example; folders hold examples of other things. A file without a promise, or with a word in it that means nothing, is
/// an error.
fn examples() -> Vec<Example> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .expect("examples")
        .map(|file| file.expect("a file").path())
        .collect();
    files.retain(|file| file.is_file());
    files.sort();
    assert!(files.len() >= 8, "{files:?}");
    files.iter().map(|file| Example::read(file)).collect()
}

impl Example {
    fn read(path: &Path) -> Self {
        let file = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let text = std::fs::read_to_string(path).expect("a text");
        let line = |word: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(&format!("# {word}: ")))
                .map(str::to_owned)
        };
        let reaches = line("reaches")
            .unwrap_or_else(|| panic!("{file} promises nothing: it has no line `# reaches: …`"));
        let secret =
            line("secret").unwrap_or_else(|| panic!("{file} does not say which Secret it makes"));
        let secret = secret
            .strip_suffix(']')
            .and_then(|secret| secret.split_once('['))
            .map(|(name, entries)| {
                let mut entries: Vec<_> = entries.split(',').map(str::to_owned).collect();
                entries.sort();
                (name.to_owned(), entries)
            });
        let documents: Vec<_> = text
            .split("\n---\n")
            .filter(|document| document.contains("kind: ApiKey\n"))
            .collect();
        assert_eq!(documents.len(), 1, "{file} has one ApiKey");
        let name = documents[0]
            .lines()
            .find_map(|line| line.strip_prefix("  name: "))
            .expect("a name")
            .to_owned();
        Self {
            file,
            name,
            passes: line("passes"),
            reaches,
            secret,
            text,
        }
    }

    fn apply(&self, stage: &Stage, how: &[&str]) {
        let output = stage.cluster.try_kubectl(
            &[&["-n", &stage.namespace], how, &["-f", "-"]].concat(),
            &self.text,
        );
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.is_empty(),
            "{}: {said}",
            self.file
        );
    }

    /// Waits until it is where it promises to be, and its Secret says so where it has ended.
    fn wait(&self, stage: &Stage) {
        until(&format!("{} reaches {}", self.file, self.reaches), || {
            let live = stage.find(&self.name).ok_or("it is gone")?;
            match broken(&live, &self.reaches).as_slice() {
                [] => Ok(()),
                broken => Err(format!("{broken:?}")),
            }
        });
        if stage.status(&self.name).is_final() {
            stage.wait_over(&self.name);
        }
    }

    /// Reads the Secret as a pod would: by the names that the manifest says, and nothing else.
    fn check_secret(&self, stage: &Stage) {
        let live = stage.apikey(&self.name);
        let status = live.status.clone().unwrap_or_default();
        let Some((secret, entries)) = &self.secret else {
            assert!(
                stage.secret(&live.secret_name()).is_none(),
                "{}: there is no Secret",
                self.file
            );
            // Nothing was minted: all there may be is what was known before.
            let known = live
                .spec
                .source
                .as_ref()
                .and_then(|source| source.hash.clone());
            let listed: Vec<_> = status
                .versions
                .iter()
                .map(|version| version.hash.clone())
                .collect();
            assert_eq!(
                (status.hash, listed),
                (known.clone(), known.into_iter().collect()),
                "{}: no key was ever minted",
                self.file
            );
            return;
        };
        let mounted = stage.mounted(secret);
        assert_eq!(
            mounted.keys().collect::<Vec<_>>(),
            entries.iter().collect::<Vec<_>>(),
            "{}",
            self.file
        );
        let text = &mounted[live.data_key()];
        assert!(
            live.spec.source.is_some() || key::check(text) == Ok(()),
            "{}",
            self.file
        );
        assert!(
            live.spec.source.is_some()
                || text.starts_with(&format!(
                    "{}_",
                    live.spec.prefix.as_deref().unwrap_or("clv")
                )),
            "{}: its prefix",
            self.file
        );
        assert_eq!(
            Some(Hash::of(text.as_bytes()).to_string()),
            status.hash,
            "{}",
            self.file
        );
        assert_eq!(
            Some(&text[text.len() - 6..]),
            status.tail.as_deref(),
            "{}",
            self.file
        );
        if let Some(header) = mounted.get("AUTH_HEADER") {
            assert_eq!(header, &format!("Bearer {text}"), "{}", self.file);
        }
        if let Some(client) = mounted.get("CLIENT_ID") {
            let id = status.key_id.as_deref().unwrap_or_default();
            assert_eq!(
                client,
                &format!("{}/{} {id}", stage.namespace, self.name),
                "{}",
                self.file
            );
        }
        let template = live.template().metadata;
        let meta = stage.secret(secret).expect("a Secret").metadata;
        let (labels, annotations) = (
            meta.labels.unwrap_or_default(),
            meta.annotations.unwrap_or_default(),
        );
        assert!(
            template
                .labels
                .iter()
                .all(|(name, value)| labels.get(name) == Some(value)),
            "{}: {labels:?}",
            self.file
        );
        let annotated = |(name, value): (&String, &String)| annotations.get(name) == Some(value);
        assert!(
            template.annotations.iter().all(annotated),
            "{}: {annotations:?}",
            self.file
        );
    }
}

fn apply(examples: &[Example], stage: &Stage, how: &[&str]) {
    for example in examples {
        example.apply(stage, how);
    }
}

fn wait(examples: &[Example], stage: &Stage) {
    for example in examples {
        example.wait(stage);
    }
}

/// The words of a promise that an ApiKey does not keep.
fn broken(apikey: &ApiKey, promise: &str) -> Vec<String> {
    let status = apikey.status.clone().unwrap_or_default();
    let seen = |word: &str| match word {
        "phase" => status.phase.map_or("none", Phase::as_str).to_owned(),
        "kstatus" => kstatus(&json!(apikey)).to_owned(),
        type_ => {
            let all = [
                ConditionType::Ready,
                ConditionType::Stalled,
                ConditionType::Usable,
                ConditionType::Delivered,
                ConditionType::Compliant,
            ];
            let type_ = all
                .into_iter()
                .find(|known| known.as_str() == type_)
                .unwrap_or_else(|| panic!("{type_} means nothing"));
            let found = find(&status.conditions, type_);
            found.map_or_else(
                || "absent".to_owned(),
                |condition| format!("{}/{}", condition.status, condition.reason),
            )
        }
    };
    let words = promise
        .split_whitespace()
        .map(|word| word.split_once('=').expect("word=value"));
    words
        .filter(|(word, value)| seen(word) != *value)
        .map(|(word, value)| format!("{word}={}, not {value}", seen(word)))
        .collect()
}

fn every_example_reaches_what_its_comment_promises() {
    let stage = Stage::new("examples");
    let history = stage.history();
    let operator = stage.operator().start_ready();
    let examples = examples();
    apply(&examples, &stage, &["apply"]);
    for example in &examples {
        example.wait(&stage);
        example.check_secret(&stage);
        if let Some(promise) = &example.passes {
            assert!(
                has_been(&history, &example.name, promise),
                "{} has never been {promise}",
                example.file
            );
        }
    }
    let found = pods_find_what_they_mount(&stage);
    assert_eq!(found, 2, "a file and a variable");
    assert!(operator.stop().success());
    history.check();
}

/// Whether some recorded state of an ApiKey kept a promise.
fn has_been(history: &History, name: &str, promise: &str) -> bool {
    history.states().iter().any(|state| match state {
        State::Apikey(apikey) => {
            apikey.metadata.name.as_deref() == Some(name) && broken(apikey, promise).is_empty()
        }
        _ => false,
    })
}

/// Follows every reference to a Secret in the Deployments, as the kubelet would.
fn pods_find_what_they_mount(stage: &Stage) -> usize {
    let all: Value =
        serde_json::from_str(&stage.kubectl(&["get", "deployments", "-o", "json"])).expect("JSON");
    let mut references = Vec::new();
    for deployment in all["items"].as_array().expect("a list") {
        let pod = &deployment["spec"]["template"]["spec"];
        for container in pod["containers"].as_array().into_iter().flatten() {
            for variable in container["env"].as_array().into_iter().flatten() {
                let from = &variable["valueFrom"]["secretKeyRef"];
                references.push((from["name"].clone(), from["key"].clone()));
            }
        }
        for volume in pod["volumes"].as_array().into_iter().flatten() {
            for item in volume["secret"]["items"].as_array().into_iter().flatten() {
                references.push((volume["secret"]["secretName"].clone(), item["key"].clone()));
            }
        }
    }
    for (secret, entry) in &references {
        let (secret, entry) = (
            secret.as_str().expect("a Secret"),
            entry.as_str().expect("an entry"),
        );
        assert!(
            stage
                .mounted(secret)
                .get(entry)
                .is_some_and(|value| !value.is_empty()),
            "{secret}[{entry}]"
        );
    }
    references.len()
}

fn applying_the_examples_again_changes_nothing() {
    for how in [&["apply"][..], &["apply", "--server-side"]] {
        let stage = Stage::new("again");
        let operator = stage.operator().start_ready();
        let examples = examples();
        apply(&examples, &stage, how);
        wait(&examples, &stage);
        let before = versions(&stage);
        let secrets = examples
            .iter()
            .filter(|example| example.secret.is_some())
            .count();
        assert_eq!(
            before.len(),
            examples.len() + secrets + 1,
            "the ApiKeys, a Secret for each that promises one, and one to import"
        );
        for _ in 0..2 {
            apply(&examples, &stage, how);
        }
        // A controller that starts looks at everything once more.
        assert!(operator.stop().success());
        let operator = stage.operator().start_ready();
        settle(&stage);
        assert_eq!(versions(&stage), before, "{how:?}");
        assert!(operator.stop().success());
        for example in &examples {
            assert_eq!(
                broken(&stage.apikey(&example.name), &example.reaches),
                [""; 0]
            );
        }
    }
}

/// From client-side to server-side apply: what is kept about who set what changes, the keys do not.
fn the_examples_survive_a_change_of_tools() {
    let stage = Stage::new("tools");
    let operator = stage.operator().start_ready();
    let examples = examples();
    apply(&examples, &stage, &["apply"]);
    wait(&examples, &stage);
    // Not those that the manifests bring along.
    let ours = |name: &str| name.starts_with("Secret/") && name != "Secret/legacy-partner";
    let secrets = |stage: &Stage| {
        versions(stage)
            .into_iter()
            .filter(|(name, _)| ours(name))
            .collect::<Vec<_>>()
    };
    let generations = |stage: &Stage| -> Vec<_> {
        examples
            .iter()
            .map(|example| stage.apikey(&example.name).metadata.generation)
            .collect()
    };
    let minted = |stage: &Stage| -> Vec<_> {
        examples
            .iter()
            .map(|example| stage.status(&example.name).versions)
            .collect()
    };
    let before = (secrets(&stage), generations(&stage), minted(&stage));
    for how in [
        &["apply", "--server-side"][..],
        &["apply"],
        &["replace"],
        &["apply", "--server-side", "--force-conflicts"],
    ] {
        apply(&examples, &stage, how);
        settle(&stage);
        assert_eq!(
            (secrets(&stage), generations(&stage), minted(&stage)),
            before,
            "{how:?}"
        );
    }
    assert!(operator.stop().success());
    for version in minted(&stage).iter().flatten() {
        assert_eq!(
            (version.version, version.phase),
            (1, VersionPhase::Current),
            "the first and only one"
        );
    }
}

/// Waits until the controller has worked off what it was told: an ApiKey that came after everything else is issued.
fn settle(stage: &Stage) {
    stage.declare("last", "{}");
    stage.wait_issued("last");
    stage.kubectl(&["delete", "apikey", "last", "--timeout=60s"]);
}

/// The resourceVersion of every ApiKey and Secret.
fn versions(stage: &Stage) -> BTreeMap<String, String> {
    let all: Value =
        serde_json::from_str(&stage.kubectl(&["get", "apikeys,secrets", "-o", "json"]))
            .expect("JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let items = all["items"].as_array().expect("a list").iter();
    items
        .map(|one| {
            let name = format!("{}/{}", text(&one["kind"]), text(&one["metadata"]["name"]));
            (name, text(&one["metadata"]["resourceVersion"]))
        })
        .collect()
}

/// The other side of the promises: an example that cannot be kept is not called done.
fn a_taken_name_is_what_tools_call_failed() {
    let stage = Stage::new("taken");
    let shown = |name: &str| kstatus(&json!(stage.apikey(name)));
    let example = examples()
        .into_iter()
        .find(|example| example.file == "minimal.yaml")
        .expect("minimal.yaml");
    stage.kubectl(&[
        "create",
        "secret",
        "generic",
        "minimal",
        "--from-literal=api-key=mine",
    ]);
    let operator = stage.operator().start_ready();
    example.apply(&stage, &["apply"]);
    until("it has failed", || {
        if shown("minimal") == "Failed" {
            Ok(())
        } else {
            Err(format!("{:?}", stage.status("minimal")))
        }
    });
    assert!(!broken(&stage.apikey("minimal"), &example.reaches).is_empty());
    assert_eq!(stage.mounted("minimal")["api-key"], "mine");
    // What nobody has looked at yet is under way.
    assert!(operator.stop().success());
    stage.patch("apikey/minimal", r#"{"spec": {"owner": "me"}}"#);
    assert_eq!(shown("minimal"), "InProgress");
    stage.kubectl(&["delete", "apikey", "minimal", "--wait=false"]);
    assert_eq!(shown("minimal"), "Terminating");
    let operator = stage.operator().start_ready();
    stage.wait_gone("minimal");
    assert!(operator.stop().success());
}
