//! What the parts without I/O cost: keys, plans, statuses, templates.

#![allow(
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a benchmark that is set up wrongly stops at once"
)]

use std::hint::black_box;
use std::sync::Arc;

use claviger::api::names::FINALIZER;
use claviger::api::{ApiKey, ApiKeySpec, ApiKeyStatus, Expiry, Facts, SecretTemplate};
use claviger::key::{Hash, Key, OsRandom, Prefix, check, random_hex_128};
use claviger::lifecycle::{
    Announcement, Clock, Delivery, GateView, Outstanding, Rules, SecretFacts, SecretView,
    SourceView, Step, Surroundings, World, news, plan, shape,
};
use criterion::{Criterion, criterion_group, criterion_main};
use jiff::Timestamp;

criterion_group!(pure, keys, plans, statuses, templates);
criterion_main!(pure);

fn keys(criterion: &mut Criterion) {
    let prefix = Prefix::default();
    let key = mint();
    criterion.bench_function("key/mint (system random source)", |bencher| {
        bencher.iter(|| Key::mint(black_box(&prefix), &mut OsRandom).expect("random bytes"));
    });
    criterion.bench_function("key/check", |bencher| {
        bencher.iter(|| check(black_box(key.expose())));
    });
    criterion.bench_function("key/hash", |bencher| {
        bencher.iter(|| Hash::of(black_box(key.expose().as_bytes())));
    });
    criterion.bench_function("key/tail", |bencher| {
        bencher.iter(|| black_box(&key).tail());
    });
}

fn plans(criterion: &mut Criterion) {
    let life = Life::begin();
    let situations = [
        ("new: announce", &life.new),
        ("announced: deliver", &life.announced),
        ("delivered: activate", &life.delivered),
        ("issued: nothing to do", &life.issued),
        ("revoked: record it", &life.revoked),
        ("deleted: delete the Secret", &life.deleted),
    ];
    for (name, world) in situations {
        criterion.bench_function(&format!("plan/{name}"), |bencher| {
            bencher.iter(|| plan(black_box(world), life.now));
        });
    }
    let late = life.now + jiff::SignedDuration::from_hours(24 * 365);
    criterion.bench_function("plan/expired: record it", |bencher| {
        bencher.iter(|| plan(black_box(&life.issued), late));
    });
}

fn statuses(criterion: &mut Criterion) {
    let life = Life::begin();
    let (hash, tail) = (life.key.hash(), life.key.tail().to_string());
    let status = life.issued.apikey.status.clone().expect("issued");
    let announced = life.announced.apikey.status.as_ref();
    criterion.bench_function("status/of an announcement", |bencher| {
        bencher.iter(|| {
            life.announcement
                .status(black_box(hash), &tail, Some("0".repeat(32)))
        });
    });
    criterion.bench_function("status/news of a change", |bencher| {
        bencher.iter(|| news(black_box(&life.issued.apikey), announced, &status));
    });
    criterion.bench_function("world/copy", |bencher| {
        bencher.iter(|| black_box(&life.issued).clone());
    });
    criterion.bench_function("world/shape of the Secret", |bencher| {
        bencher.iter(|| shape(black_box(&life.issued.apikey), &status));
    });
}

fn templates(criterion: &mut Criterion) {
    let key = mint();
    let facts = Facts {
        key_id: "6f1c",
        tail: "2Xk9Qd",
        name: "billing-export",
        namespace: "team-a",
        prefix: "clv",
    };
    let text = "https://api.example.com/?name=${namespace}/${name}&key=${key}&id=${keyId}";
    criterion.bench_function("template/expand four placeholders", |bencher| {
        bencher.iter(|| SecretTemplate::expand(black_box(text), key.expose(), &facts));
    });
}

fn mint() -> Key {
    Key::mint(&Prefix::default(), &mut OsRandom).expect("random bytes")
}

/// One ApiKey in the situations of its life, made by following its own plans.
struct Life {
    now: Timestamp,
    key: Key,
    announcement: Announcement,
    new: World,
    announced: World,
    delivered: World,
    issued: World,
    revoked: World,
    deleted: World,
}

impl Life {
    fn begin() -> Self {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().expect("a time");
        let key = mint();
        let spec = ApiKeySpec {
            description: Some("Nightly export of invoices".to_owned()),
            expiry: Some(Expiry {
                after: Some("90d".to_owned()),
                ..Expiry::default()
            }),
            ..ApiKeySpec::default()
        };
        let mut apikey = ApiKey::new("billing-export", spec);
        apikey.metadata.namespace = Some("team-a".to_owned());
        apikey.metadata.uid = Some("8a8cd3a0-0000-4000-8000-000000000001".to_owned());
        apikey.metadata.generation = Some(1);
        apikey.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        let new = World {
            apikey: Arc::new(apikey),
            secret: SecretView::Unknown,
            outstanding: Outstanding::Settled,
            delivery: Delivery::Untried,
            gates: GateView::Ready,
            clock: Clock::Agrees,
            may_mend: true,
            surroundings: Surroundings {
                known: true,
                ..Surroundings::default()
            },
            source: SourceView::NotAsked,
            duplicate: None,
            since: now,
            rules: Arc::new(Rules {
                finalizer: true,
                principal_domain: "claviger.local".to_owned(),
                hold_minting: false,
            }),
        };
        let Step::Announce(announcement) = plan(&new, now).step else {
            panic!("a new ApiKey is announced")
        };
        let id = random_hex_128(&mut OsRandom).expect("random bytes");
        let mut announced = with(
            &new,
            announcement.status(key.hash(), &key.tail().to_string(), Some(id)),
        );
        announced.outstanding = Outstanding::Held {
            version: 1,
            ambiguous: false,
        };
        let mut delivered = announced.clone();
        delivered.secret = SecretView::Present(secret(&announced, &key));
        let Step::WriteStatus(active) = plan(&delivered, now).step else {
            panic!("a delivered version is activated")
        };
        let mut issued = with(&delivered, *active);
        issued.outstanding = Outstanding::Settled;
        let mut revoked = issued.clone();
        Arc::make_mut(&mut revoked.apikey).spec.revoked = Some(true);
        let mut deleted = issued.clone();
        let end = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now);
        Arc::make_mut(&mut deleted.apikey)
            .metadata
            .deletion_timestamp = Some(end);
        assert!(
            matches!(plan(&issued, now).step, Step::Settled { .. }),
            "nothing to do for an issued key"
        );
        Self {
            now,
            key,
            announcement: *announcement,
            new,
            announced,
            delivered,
            issued,
            revoked,
            deleted,
        }
    }
}

fn with(world: &World, status: ApiKeyStatus) -> World {
    let mut world = world.clone();
    Arc::make_mut(&mut world.apikey).status = Some(status);
    world
}

fn secret(world: &World, key: &Key) -> SecretFacts {
    let shape = shape(&world.apikey, &world.status());
    SecretFacts {
        uid: "8a8cd3a0-0000-4000-8000-000000000002".to_owned(),
        resource_version: "12345".to_owned(),
        deleting: false,
        immutable: false,
        key: Some(key.hash()),
        edited_entries: Vec::new(),
        labels: shape.labels,
        annotations: shape.annotations,
        owner_references: shape.owner.into_iter().collect(),
    }
}
