//! What the fuzz targets share: a gate that knows one key, asked as callers ask it.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use claviger::gate::freshness::{Freshness, Watched};
use claviger::gate::index::Writer;
use claviger::gate::metrics::Metrics;
use claviger::gate::route::Routes;
use claviger::gate::shown::{ShownApiKey, ShownVersion, ShownVersionPhase};
use claviger::gate::{AccessLog, Desk};
use claviger::key::Hash;

/// The key that is known. It is no secret: it was made up for this, and the corpora hold it.
pub const KEY: &str = "clv_4fGh7TzQ0bWm2kXcR9vLsD5nYpJe8uAa30DKjN";
/// The protected API that it is for.
pub const AUDIENCE: &str = "invoices-api";

/// A gate that knows [`KEY`].
pub static DESK: LazyLock<Arc<Desk>> = LazyLock::new(|| {
    let mut shown = ShownApiKey::default();
    shown.metadata.name = "billing-export".to_owned();
    shown.metadata.namespace = "team-a".to_owned();
    shown.metadata.uid = "00000000-0000-4000-8000-000000000001".to_owned();
    shown.spec.audiences = vec![AUDIENCE.to_owned()];
    shown.spec.permissions = vec!["invoices:read".to_owned()];
    shown.spec.metadata = BTreeMap::from([("tier".to_owned(), "gold".to_owned())]);
    shown.status.key_id = Some("0123456789abcdef0123456789abcdef".to_owned());
    shown.status.principal =
        Some("0123456789abcdef0123456789abcdef@team-a.claviger.local".to_owned());
    shown.status.versions = vec![ShownVersion {
        version: 1,
        hash: Hash::of(KEY.as_bytes()).to_string(),
        phase: ShownVersionPhase::Current,
        retires_at: None,
    }];
    let mut writer = Writer::default();
    writer.apply(&shown);
    writer.publish();
    let freshness = Freshness::new(true, None);
    freshness.listed(Watched::ApiKeys);
    freshness.listed(Watched::Roles);
    assert!(freshness.check().is_ok(), "it answers");
    Arc::new(Desk {
        index: writer.published(),
        freshness: Arc::new(freshness),
        routes: Routes::new(false),
        metrics: Arc::new(Metrics::default()),
        clock: || 1_800_000_000,
        used: Box::new(|_, _| {}),
        access_log: AccessLog::Off,
    })
});

/// Runs a future that waits for nothing outside of itself.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// Whether `needle` stands somewhere in `haystack`.
pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

/// A name and a value.
pub type Line<'a> = (&'a [u8], &'a [u8]);

/// A request whose head is written in lines, as fuzzers and people can: `name: value`, with the first line apart.
pub fn lines(data: &[u8]) -> (&[u8], Vec<Line<'_>>) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let headers = lines.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    });
    (first, headers.collect())
}

/// The headers of a request, as far as HTTP allows them.
pub fn header_map(headers: &[(&[u8], &[u8])]) -> http::HeaderMap {
    let mut map = http::HeaderMap::new();
    for (name, value) in headers.iter().take(64) {
        if let (Ok(name), Ok(value)) = (
            http::HeaderName::from_bytes(name),
            http::HeaderValue::from_bytes(value),
        ) {
            map.append(name, value);
        }
    }
    map
}
