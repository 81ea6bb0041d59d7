//! What a reader can rely on about plans.
//!
//! [`model`] is a cluster in a few hundred lines: it does what plans say and objects where an API server would. [`table`]
//! and [`endings`] tell single situations, [`mod@rotation`], [`retention`], [`taking_over`] and [`compliance`] stories, [`matrix`] their combinations, [`properties`] long lives with accidents and [`worlds`] at random, [`news`] the events.

mod compliance;
mod endings;
mod last_use;
mod matrix;
mod model;
mod news;
mod properties;
mod retention;
mod rotation;
mod table;
mod taking_over;
mod worlds;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::api::conditions::reason;
use crate::api::{
    ApiKeySpec, ApiKeyStatus, Expiry, Retention, Rotation, SecretSpec, SecretTemplate, Source,
    SourceSecret, TemplateMetadata,
};
use crate::key::Hash;
use model::{Model, Wish};

/// When every story begins.
const NOON: &str = "2026-11-21T12:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn hours(count: i64) -> SignedDuration {
    SignedDuration::from_hours(count)
}

fn days(count: i64) -> SignedDuration {
    hours(24 * count)
}

fn never() -> Expiry {
    Expiry {
        never: Some(true),
        ..Expiry::default()
    }
}

fn after(text: &str) -> Expiry {
    Expiry {
        after: Some(text.to_owned()),
        ..Expiry::default()
    }
}

fn ending_at(text: &str) -> Expiry {
    Expiry {
        at: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(
            text,
        ))),
        ..Expiry::default()
    }
}

fn expiring(expiry: Expiry) -> ApiKeySpec {
    ApiKeySpec {
        expiry: Some(expiry),
        ..ApiKeySpec::default()
    }
}

/// A template with one label, one annotation and one entry, all of which say `word`.
fn template(word: &str) -> SecretTemplate {
    let one = |name: &str, value: String| [(name.to_owned(), value)].into();
    SecretTemplate {
        metadata: TemplateMetadata {
            labels: one("tier", word.to_owned()),
            annotations: one("note", word.to_owned()),
        },
        data: one("HEADER", format!("{word} ${{key}}")),
    }
}

fn with_template(word: &str) -> ApiKeySpec {
    let secret = SecretSpec {
        template: Some(template(word)),
        ..SecretSpec::default()
    };
    ApiKeySpec {
        secret: Some(secret),
        ..ApiKeySpec::default()
    }
}

fn rotation(every: Option<&str>, overlap: Option<&str>) -> Rotation {
    Rotation {
        every: every.map(ToOwned::to_owned),
        overlap: overlap.map(ToOwned::to_owned),
    }
}

fn rotating(every: Option<&str>, overlap: Option<&str>) -> ApiKeySpec {
    ApiKeySpec {
        rotation: Some(rotation(every, overlap)),
        ..ApiKeySpec::default()
    }
}

fn retained(retention: Retention) -> ApiKeySpec {
    let secret = SecretSpec {
        retention: Some(retention),
        ..SecretSpec::default()
    };
    ApiKeySpec {
        secret: Some(secret),
        ..ApiKeySpec::default()
    }
}

fn from_secret() -> Source {
    let secret = SourceSecret {
        name: "legacy".to_owned(),
        key: "token".to_owned(),
    };
    Source {
        secret_ref: Some(secret),
        ..Source::default()
    }
}

fn by_hash() -> Source {
    Source {
        hash: Some(Hash::of(b"brought along").to_string()),
        ..Source::default()
    }
}

fn taking_over(source: Source) -> ApiKeySpec {
    ApiKeySpec {
        source: Some(source),
        ..ApiKeySpec::default()
    }
}

/// An ApiKey that nobody has looked at yet.
fn new(spec: ApiKeySpec) -> Model {
    Model::new(spec, at(NOON))
}

/// Announced, and the controller holds the key.
fn held(spec: ApiKeySpec) -> Model {
    let mut model = new(spec);
    model.look();
    while model.world.status().newest_announced().is_none() {
        let step = plan(&model.world, model.now()).step;
        model.apply(step).unwrap();
    }
    model
}

/// Announced, and the controller that held the key is dead.
fn crashed(spec: ApiKeySpec) -> Model {
    let mut model = held(spec);
    model.crash();
    model.look();
    model
}

/// As [`crashed`], and no request of the dead controller can still be under way.
fn settled(spec: ApiKeySpec) -> Model {
    let mut model = crashed(spec);
    model.grace_passes();
    model.look();
    model
}

/// The first version came to nothing, and the second is announced and held.
fn announced_twice(spec: ApiKeySpec) -> Model {
    let mut model = settled(spec);
    let step = plan(&model.world, model.now()).step;
    model.apply(step).unwrap();
    model
}

/// Minted, delivered and in use.
fn issued(spec: ApiKeySpec) -> Model {
    let mut model = new(spec);
    model.reconcile().unwrap();
    assert!(model.world.status().current().is_some());
    model
}

/// In use, and the next version is announced and held.
fn announced_next(spec: ApiKeySpec) -> Model {
    let mut model = issued(spec);
    model.wish(Wish::Raise);
    model.look();
    while model.world.status().newest_announced().is_none() {
        let step = plan(&model.world, model.now()).step;
        model.apply(step).unwrap();
    }
    model
}

/// Refused, because somebody else's Secret has the name; the announcement was withdrawn.
fn withdrawn(spec: ApiKeySpec) -> Model {
    let mut model = new(spec);
    model.plant_foreign(false);
    model.reconcile().unwrap();
    assert!(model.world.status().versions.is_empty() && model.world.status().key_id.is_some());
    model
}

/// Issued and expired.
fn expired(life: &str) -> Model {
    let mut model = issued(expiring(after(life)));
    model.pass(days(400));
    model.reconcile().unwrap();
    model
}

/// Issued and revoked.
fn revoked(spec: ApiKeySpec) -> Model {
    let mut model = issued(spec);
    model.wish(Wish::Revoke);
    model.reconcile().unwrap();
    model
}

/// The listed versions, in words.
fn versions(model: &Model) -> String {
    let status = model.world.status();
    status
        .versions
        .iter()
        .map(|version| format!("{} {:?}", version.version, version.phase))
        .collect::<Vec<_>>()
        .join(", ")
}

/// What a condition says: `Type(Reason)`, with `!` where it does not hold.
fn says(model: &Model, type_: &str) -> String {
    let status = model.world.status();
    let Some(found) = status.conditions.iter().find(|one| one.type_ == type_) else {
        return "nothing".to_owned();
    };
    format!(
        "{}{}",
        if found.status == "True" { "" } else { "!" },
        found.reason
    )
}

/// What was told since the last time.
fn heard(model: &mut Model) -> Vec<String> {
    std::mem::take(&mut model.told)
        .into_iter()
        .map(|item| item.reason)
        .collect()
}

/// A look at the world that changes nothing in it.
fn seen(mut model: Model) -> Model {
    model.look();
    model
}

/// The model, changed, and looked at.
fn when(mut model: Model, change: impl FnOnce(&mut Model)) -> Model {
    change(&mut model);
    seen(model)
}

/// A step in words. Of a status: phase, conditions with their reasons, and what kstatus computes. Every condition and the
/// status itself must speak of the generation that was looked at.
fn tell(world: &World, now: Timestamp) -> String {
    match plan(world, now).step {
        Step::Settled { wake, at: None } => format!("wait, {wake:?}"),
        Step::Settled { wake, at: Some(at) } => format!("wait, {wake:?}, until {at} at the latest"),
        Step::Announce(announcement) => format!("announce {}", announcement.version),
        Step::Deliver { version } => format!("deliver {version}"),
        Step::WriteStatus(status) => format!("write {}", describe(world, &status)),
        Step::DeleteSecret { uid } => format!("delete Secret {uid}"),
        Step::MendSecret(mending) => {
            let mut parts: Vec<_> = [&mending.labels, &mending.annotations]
                .into_iter()
                .flatten()
                .map(|(name, value)| match value {
                    Some(_) => format!("+{name}"),
                    None => format!("-{name}"),
                })
                .collect();
            parts.extend(
                mending
                    .owner_references
                    .map(|owners| format!("{} owners", owners.len())),
            );
            parts.extend(mending.data.map(|gone| format!("data -{gone:?}")));
            format!("mend {}: {}", mending.uid, parts.join(" "))
        }
        step @ (Step::AddFinalizer | Step::RemoveFinalizer | Step::AskDelivery) => {
            step.name().to_owned()
        }
    }
}

fn describe(world: &World, status: &ApiKeyStatus) -> String {
    let generation = world.apikey.metadata.generation;
    assert_eq!(status.observed_generation, generation);
    let mut text = format!("{:?}:", status.phase.unwrap());
    for condition in &status.conditions {
        assert_eq!(
            condition.observed_generation, generation,
            "{}",
            condition.type_
        );
        let not = if condition.status == "True" { "" } else { "!" };
        text.extend([" ", not, &condition.type_, "(", &condition.reason, ")"]);
    }
    text + " = " + kstatus(world, status)
}

/// What `kubectl`-like tools compute from a status, by the rules of kstatus (sigs.k8s.io/cli-utils): deletion, generation,
/// `Stalled`, `Ready`, in that order.
fn kstatus(world: &World, status: &ApiKeyStatus) -> &'static str {
    let holds = |type_: &str, what: &str| {
        status
            .conditions
            .iter()
            .any(|one| one.type_ == type_ && one.status == what)
    };
    if world.apikey.is_deleting() {
        "Terminating"
    } else if status.observed_generation != world.apikey.metadata.generation {
        "InProgress"
    } else if holds("Stalled", "True") {
        "Failed"
    } else if holds("Ready", "True") {
        "Current"
    } else {
        "InProgress"
    }
}
