//! Who may bring a key along that exists elsewhere.

use super::{ADMIN, DEVELOPER, Person};
use crate::stories;
use crate::support::stage::Stage;

stories![
    an_import_needs_the_verb,
    an_import_from_a_secret_needs_the_right_to_read_it
];

fn hash() -> String {
    format!("{{source: {{hash: \"sha256:{}\"}}}}", "1".repeat(64))
}

fn an_import_needs_the_verb() {
    let stage = Stage::new("importing");
    let people = [
        Person::new(&stage, "dev", &[DEVELOPER]),
        Person::new(&stage, "ada", &[ADMIN]),
        Person::new(&stage, "eve", &["edit"]),
    ];
    for person in &people {
        let words = format!(
            "{} may not import a key: spec.source needs the verb import on apikeys.claviger.dev",
            person.name
        );
        person.may_not_declare("k", &hash(), &["(Forbidden)", &words]);
    }
    people[0].give("import", "claviger.dev", "apikeys", &["k"]);
    people[0].may_not_declare("j", &hash(), &["dev may not import a key"]);
    people[0].declares("k", &hash());
}

fn an_import_from_a_secret_needs_the_right_to_read_it() {
    let stage = Stage::new("importing-secret");
    stage.kubectl(&[
        "create",
        "secret",
        "generic",
        "legacy",
        "--from-literal=token=0123456789abcdefghijklmnopqrstuvwxyz",
    ]);
    let dev = Person::new(&stage, "dev", &[DEVELOPER]);
    let spec = "{source: {secretRef: {name: legacy, key: token}}}";
    dev.may_not_declare("k", spec, &["dev may not import a key"]);
    dev.give("import", "claviger.dev", "apikeys", &[]);
    dev.give("get", "", "secrets", &["another"]);
    dev.may_not_declare(
        "k",
        spec,
        &[
            "(Forbidden)",
            "dev may not import from the Secret legacy: that needs the verb get on it",
        ],
    );
    dev.declares("by-hash", &hash());
    // Who may edit the namespace may read its Secrets.
    let eve = Person::new(&stage, "eve", &["edit"]);
    eve.may_not_declare("k", spec, &["eve may not import a key"]);
    eve.give("import", "claviger.dev", "apikeys", &[]);
    eve.declares("k", spec);
}
