//! Looks for keys where none may be: in logs, metrics, events, and everything that etcd ever stored but the keys' own Secrets.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

use aho_corasick::AhoCorasick;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::cluster::{Cluster, runtime};

/// What was written by controllers that have ended.
#[derive(Default)]
pub(crate) struct Evidence(Mutex<Vec<(String, String)>>);

impl Evidence {
    /// Keeps a text.
    pub(crate) fn keep(&self, what: &str, text: String) {
        self.0
            .lock()
            .expect("no story panicked here")
            .push((what.to_owned(), text));
    }

    /// Keeps what a file holds now.
    pub(crate) fn keep_file(&self, file: &Path) {
        self.keep(
            &file.display().to_string(),
            std::fs::read_to_string(file).unwrap_or_default(),
        );
    }

    /// Everything kept so far.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        self.0.lock().expect("no story panicked here").clone()
    }
}

/// What an audit has looked through.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    pub(crate) keys: usize,
    pub(crate) texts: usize,
    pub(crate) stored: usize,
}

/// Looks for every key that any Secret of the cluster ever held.
pub(crate) fn audit(cluster: &Cluster) -> Audit {
    let stored = runtime().block_on(everything_ever_stored(cluster.control_plane.etcd_url()));
    let is_secret = |name: &str| name.starts_with("/registry/secrets/");
    let mut keys = BTreeSet::new();
    for (name, value) in &stored {
        if is_secret(name) {
            keys.extend(keys_in(value));
        }
    }
    let mut audit = Audit {
        keys: keys.len(),
        ..Audit::default()
    };
    let needles = Needles::of(&keys);
    for (what, text) in cluster.evidence.all() {
        assert_clean(&what, text.as_bytes(), &needles);
        audit.texts += 1;
    }
    for (name, value) in stored.iter().filter(|(name, _)| !is_secret(name)) {
        assert_clean(name, value, &needles);
        audit.stored += 1;
    }
    audit
}

/// Where etcd holds a key now, in whatever disguise.
pub(crate) fn stands_in(cluster: &Cluster, key: &str) -> Vec<String> {
    let stored = runtime().block_on(everything_stored(cluster.control_plane.etcd_url()));
    assert!(!stored.is_empty());
    let needles = Needles::of(&[key.to_owned()].into());
    let found = stored
        .into_iter()
        .filter(|(_, value)| needles.search.is_match(value));
    found.map(|(name, _)| name).collect()
}

/// Ways in which a key could stand somewhere: as it is, or in base64 at any offset.
fn disguises(key: &str) -> Vec<(String, Vec<u8>)> {
    let tail = &key[key.len() - 6..];
    let mut all = vec![(format!("the key …{tail}"), key.as_bytes().to_vec())];
    // The random part alone gives a key away, too.
    all.push((
        format!("the random part of the key …{tail}"),
        key.as_bytes()[key.len() - 38..].to_vec(),
    ));
    for offset in 0..3 {
        let padded = [&b"\0\0\0"[..offset], key.as_bytes()].concat();
        let text = base64(&padded);
        // The first group holds the padding, the last one what would follow.
        all.push((
            format!("the key …{tail} in base64"),
            text.as_bytes()[4..text.len() - 4].to_vec(),
        ));
    }
    all
}

fn assert_clean(what: &str, text: &[u8], needles: &Needles) {
    if let Some(found) = needles.search.find(text) {
        panic!(
            "{} stands in {what}",
            needles.names[found.pattern().as_usize()]
        );
    }
    // Whatever has the form and the checksum of a key is one, also when it never reached a Secret.
    let stray = keys_in(text);
    assert!(
        stray.is_empty(),
        "{} well-formed keys stand in {what}",
        stray.len()
    );
}

/// What is searched for, all at once.
struct Needles {
    names: Vec<String>,
    search: AhoCorasick,
}

impl Needles {
    fn of(keys: &BTreeSet<String>) -> Self {
        let (names, texts): (Vec<_>, Vec<_>) = keys.iter().flat_map(|key| disguises(key)).unzip();
        Self {
            names,
            search: AhoCorasick::new(texts).expect("needles"),
        }
    }
}

/// Every well-formed key in a text.
fn keys_in(text: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for at in text
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'_')
        .map(|(at, _)| at)
    {
        let body = &text[at + 1..(at + 39).min(text.len())];
        if body.len() < 38 || !body.iter().all(u8::is_ascii_alphanumeric) {
            continue;
        }
        let prefix_byte =
            |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_';
        let longest = text[..at]
            .iter()
            .rev()
            .take(16)
            .take_while(|byte| prefix_byte(byte))
            .count();
        for length in 2..=longest {
            let candidate = String::from_utf8_lossy(&text[at - length..at + 39]).into_owned();
            if claviger::key::check(&candidate).is_ok() {
                found.push(candidate);
            }
        }
    }
    found
}

/// Requests to etcd's JSON gateway.
struct Etcd<'a> {
    url: &'a str,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl<'a> Etcd<'a> {
    fn new(url: &'a str) -> Self {
        Self {
            url,
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    async fn post(&self, path: &str, body: Value) -> hyper::body::Incoming {
        let request = http::Request::post(format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .body(Full::new(body.to_string().into()))
            .expect("a request");
        self.client
            .request(request)
            .await
            .expect("etcd answers")
            .into_body()
    }

    async fn range(&self, body: Value) -> Value {
        let answer = self
            .post("/v3/kv/range", body)
            .await
            .collect()
            .await
            .expect("an answer");
        serde_json::from_slice(&answer.to_bytes()).expect("JSON")
    }
}

/// Every value that etcd holds now.
async fn everything_stored(etcd: &str) -> Vec<(String, Vec<u8>)> {
    let all = Etcd::new(etcd)
        .range(json!({ "key": "AA==", "range_end": "AA==" }))
        .await;
    all["kvs"]
        .as_array()
        .into_iter()
        .flatten()
        .map(stored)
        .collect()
}

fn stored(kv: &Value) -> (String, Vec<u8>) {
    let field = |name: &str| unbase64(kv[name].as_str().unwrap_or_default());
    (
        String::from_utf8_lossy(&field("key")).into_owned(),
        field("value"),
    )
}

/// Every value that etcd has stored since it was started, by way of a watch from its first revision (it is never compacted).
async fn everything_ever_stored(etcd: &str) -> Vec<(String, Vec<u8>)> {
    let etcd = Etcd::new(etcd);
    let head = etcd
        .range(json!({ "key": "AA==", "count_only": true, "range_end": "AA==" }))
        .await;
    let last: u64 = head["header"]["revision"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("a revision");
    let watch =
        json!({ "create_request": { "key": "AA==", "range_end": "AA==", "start_revision": "1" } });
    let mut stream = etcd.post("/v3/watch", watch).await;
    let (mut waiting, mut all, mut reached) = (Vec::new(), Vec::new(), 0);
    while reached < last {
        let frame = stream
            .frame()
            .await
            .expect("more to come")
            .expect("a frame");
        waiting.extend_from_slice(frame.data_ref().expect("data"));
        while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = waiting.drain(..=end).collect();
            let events: Value = serde_json::from_slice(&line).expect("JSON");
            assert!(events["error"].is_null(), "etcd: {events}");
            for event in events["result"]["events"].as_array().into_iter().flatten() {
                reached = event["kv"]["mod_revision"]
                    .as_str()
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(reached);
                all.push(stored(&event["kv"]));
            }
        }
    }
    all
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    bytes
        .chunks(3)
        .flat_map(|group| {
            let value = group
                .iter()
                .fold(0_u32, |value, byte| value << 8 | u32::from(*byte))
                << (8 * (3 - group.len()));
            (0..4).map(move |digit| {
                if digit <= group.len() {
                    char::from(DIGITS[(value >> (18 - 6 * digit)) as usize & 63])
                } else {
                    '='
                }
            })
        })
        .collect()
}

fn unbase64(text: &str) -> Vec<u8> {
    // ByteString reads base64 as the API server writes it.
    serde_json::from_value::<k8s_openapi::ByteString>(json!(text))
        .map(|bytes| bytes.0)
        .expect("base64")
}
