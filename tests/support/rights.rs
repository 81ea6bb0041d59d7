//! What the controller's ServiceAccount asked for, by the audit logs of all clusters.

use std::collections::BTreeSet;
use std::sync::Mutex;

use serde_json::Value;

use super::cluster::{ACCOUNT, Cluster};

/// A verb and what it was done to: `update`, `claviger.dev`, `apikeys/status`.
pub(crate) type Right = (String, String, String);

/// What was asked for and allowed at least once, and what was denied.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    pub(crate) used: BTreeSet<Right>,
    /// One line each.
    pub(crate) denied: BTreeSet<String>,
}

static GATHERED: Mutex<Requests> = Mutex::new(Requests { used: BTreeSet::new(), denied: BTreeSet::new() });

/// Adds what a cluster's audit log tells. What was denied there counts unless the story took rights away on purpose.
pub(crate) fn gather(cluster: &Cluster) {
    let log = std::fs::read_to_string(cluster.control_plane.audit_log()).unwrap_or_default();
    let requests = read(&log);
    let mut gathered = GATHERED.lock().expect("no story panicked here");
    gathered.used.extend(requests.used);
    if !cluster.is_deprived() {
        gathered.denied.extend(requests.denied);
    }
}

/// Everything gathered so far.
pub(crate) fn gathered() -> Requests {
    std::mem::take(&mut GATHERED.lock().expect("no story panicked here"))
}

/// How often the controller asked for something that changes Secrets.
pub(crate) fn secret_writes(cluster: &Cluster) -> usize {
    let log = std::fs::read_to_string(cluster.control_plane.audit_log()).unwrap_or_default();
    let writes = |event: &Value| {
        event["objectRef"]["resource"] == "secrets" && !["get", "list", "watch"].iter().any(|read| event["verb"] == *read)
    };
    ours(&log).filter(writes).count()
}

fn read(log: &str) -> Requests {
    let mut requests = Requests::default();
    for event in ours(log) {
        let object = &event["objectRef"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (verb, group) = (text(&event["verb"]), text(&object["apiGroup"]));
        if event["annotations"]["authorization.k8s.io/decision"] == "forbid" {
            requests.denied.insert(format!("{verb} {}", text(&event["requestURI"])));
        } else if object.is_object() {
            let resource = match object["subresource"].as_str() {
                Some(subresource) => format!("{}/{subresource}", text(&object["resource"])),
                None => text(&object["resource"]),
            };
            requests.used.insert((verb, group, resource));
        }
    }
    requests
}

/// The requests that the controller itself made, not somebody in its name.
fn ours(log: &str) -> impl Iterator<Item = Value> {
    log.lines()
        // Most lines are others': only those are parsed that could matter. The last one may not be complete yet.
        .filter(|line| line.contains(ACCOUNT))
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| event["user"]["username"] == ACCOUNT && event["impersonatedUser"].is_null())
}
