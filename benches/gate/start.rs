//! From the start of `claviger gate` to its first verdict, against a raw list of the same ApiKeys in pages.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use claviger::api::ApiKey;
use futures::StreamExt as _;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, Request};
use serde_json::json;

use crate::bed::Bed;
use crate::keys::key;
use crate::setting;
use crate::stats::{ratios, spread};

const PATH: &str = "/apis/claviger.dev/v1alpha1/apikeys";
/// Objects in a page, as the gate lists.
const PAGE: u32 = 500;
const NAMESPACE: &str = "many";

pub(crate) async fn measure() {
    let keys = setting("CLAVIGER_BENCH_KEYS", 10_000);
    let rounds = setting("CLAVIGER_BENCH_ROUNDS", 9);
    let bed = Bed::make().await;
    bed.declare(NAMESPACE, keys).await;
    issue(&bed, keys).await;
    println!(
        "\ncold start with {keys} ApiKeys on kubernetes {} and etcd without fsync, all on this machine",
        bed.version().await
    );
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let (gate, list) = if round % 2 == 0 {
            (start(&bed), list(&bed, keys).await)
        } else {
            let list = list(&bed, keys).await;
            (start(&bed), list)
        };
        if round > 0 {
            ours.push(gate);
            raw.push(list);
        }
    }
    println!(
        "start to ready {} s, {rounds} rounds, in turn",
        spread(ours.iter().copied()).text(2)
    );
    println!("raw paged list {} s", spread(raw.iter().copied()).text(2));
    println!("ratio          {}", ratios(&ours, &raw).text(2));
}

/// Gives each the status that an issued key has.
async fn issue(bed: &Bed, keys: usize) {
    let api: Api<ApiKey> = Api::namespaced(bed.service_account.clone(), NAMESPACE);
    futures::stream::iter(0..keys)
        .for_each_concurrent(16, |number| {
            let api = api.clone();
            async move {
                let number_of_key = u64::try_from(number).expect("a number");
                let (key, id) = (key(number_of_key), format!("{number_of_key:032x}"));
                let at = "2026-01-01T00:00:00Z";
                let status = json!({ "status": {
                    "phase": "Active", "observedGeneration": 1, "keyId": id, "version": 1, "hash": key.hash().to_string(),
                    "principal": format!("{id}@{NAMESPACE}.claviger.local"), "tail": key.tail().to_string(), "issuedAt": at,
                    "secretRef": { "name": format!("key-{number}"), "key": "api-key", "uid": id, "resourceVersion": "1" },
                    "versions": [{ "version": 1, "hash": key.hash().to_string(), "tail": key.tail().to_string(),
                        "phase": "Current", "announcedAt": at, "activatedAt": at }],
                    "conditions": [{ "type": "Ready", "status": "True", "reason": "Issued", "message": "the key is in the Secret",
                        "lastTransitionTime": at, "observedGeneration": 1 }],
                } });
                let patch = Patch::Merge(&status);
                api.patch_status(&format!("key-{number}"), &PatchParams::default(), &patch).await.expect("a status");
            }
        })
        .await;
}

/// Seconds for all pages, which nobody reads but for where the next begins.
async fn list(bed: &Bed, keys: usize) -> f64 {
    let begun = Instant::now();
    let mut params = ListParams::default().limit(PAGE);
    let mut listed = 0;
    loop {
        let request = Request::new(PATH).list(&params).expect("a request");
        let page = bed
            .service_account
            .request_text(request)
            .await
            .expect("a page");
        listed += page.matches(r#""kind":"ApiKey","#).count();
        // The metadata of the list comes last.
        let next = page
            .rsplit_once(r#""continue":""#)
            .and_then(|(_, rest)| rest.split_once('"'))
            .map(|(next, _)| next);
        match next {
            Some(next) if !next.is_empty() => params.continue_token = Some(next.to_owned()),
            _ => break,
        }
    }
    assert_eq!(listed, keys, "all are listed");
    begun.elapsed().as_secs_f64()
}

/// Seconds until the gate says that it is ready.
fn start(bed: &Bed) -> f64 {
    let log = tempfile::NamedTempFile::new().expect("a file");
    let begun = Instant::now();
    let mut process = Command::new(env!("CARGO_BIN_EXE_claviger"))
        .args([
            "gate",
            "--listen=127.0.0.1:0",
            "--admin-address=127.0.0.1:0",
            "--report=false",
        ])
        .arg(format!("--kubeconfig={}", bed.kubeconfig()))
        .stdin(Stdio::null())
        .stdout(File::create(log.path()).expect("a file"))
        .stderr(File::create(log.path()).expect("a file"))
        .spawn()
        .expect("a gate");
    let took = loop {
        let told = std::fs::read_to_string(log.path()).unwrap_or_default();
        let address = told
            .split_once(" address=")
            .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
        if address.is_some_and(is_ready) {
            break begun.elapsed().as_secs_f64();
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{told}");
        std::thread::sleep(Duration::from_millis(5));
    };
    let _ = process.kill();
    let _ = process.wait();
    took
}

fn is_ready(address: SocketAddr) -> bool {
    let mut answer = String::new();
    let asked = TcpStream::connect(address).and_then(|mut stream| {
        write!(
            stream,
            "GET /readyz HTTP/1.1\r\nhost: claviger\r\nconnection: close\r\n\r\n"
        )?;
        stream.read_to_string(&mut answer)
    });
    asked.is_ok() && answer.starts_with("HTTP/1.1 200")
}
