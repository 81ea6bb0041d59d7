//! What the accounts of the controller and the gate asked for, by the audit logs of all clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use serde_json::Value;

use super::cluster::{ACCOUNT, Cluster, GATE_ACCOUNT};

/// What the name of a pod begins with whose token a story uses to try what is forbidden: what it asks for is not what the program
/// itself asks for.
pub(crate) const TRESPASSER: &str = "trespasser-";

/// A verb and what it was done to: `update`, `claviger.dev`, `apikeys/status`.
pub(crate) type Right = (String, String, String);

/// What was asked for and allowed at least once, and what was denied.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    pub(crate) used: BTreeSet<Right>,
    /// One line each.
    pub(crate) denied: BTreeSet<String>,
}

static GATHERED: Mutex<BTreeMap<&str, Requests>> = Mutex::new(BTreeMap::new());

/// Adds what a cluster's audit log tells. What was denied there counts unless the story took rights away on purpose.
pub(crate) fn gather(cluster: &Cluster) {
    let log = std::fs::read_to_string(cluster.control_plane.audit_log()).unwrap_or_default();
    for account in [ACCOUNT, GATE_ACCOUNT] {
        let requests = read(&log, account);
        let mut gathered = GATHERED.lock().expect("no story panicked here");
        let gathered = gathered.entry(account).or_default();
        gathered.used.extend(requests.used);
        if !cluster.is_deprived() {
            gathered.denied.extend(requests.denied);
        }
    }
}

/// Everything gathered so far of an account.
pub(crate) fn gathered(account: &str) -> Requests {
    GATHERED
        .lock()
        .expect("no story panicked here")
        .remove(account)
        .unwrap_or_default()
}

/// How often the controller asked for something that changes Secrets.
pub(crate) fn secret_writes(cluster: &Cluster) -> usize {
    let log = std::fs::read_to_string(cluster.control_plane.audit_log()).unwrap_or_default();
    let writes = |event: &Value| {
        event["objectRef"]["resource"] == "secrets"
            && !["get", "list", "watch"]
                .iter()
                .any(|read| event["verb"] == *read)
    };
    of_account(&log, ACCOUNT).filter(writes).count()
}

fn read(log: &str, account: &str) -> Requests {
    let mut requests = Requests::default();
    for event in of_account(log, account) {
        let object = &event["objectRef"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (verb, group) = (text(&event["verb"]), text(&object["apiGroup"]));
        if event["annotations"]["authorization.k8s.io/decision"] == "forbid" {
            requests
                .denied
                .insert(format!("{verb} {}", text(&event["requestURI"])));
        } else if object.is_object() {
            let resource = match object["subresource"].as_str() {
                Some(subresource) => format!("{}/{subresource}", text(&object["resource"])),
                None => text(&object["resource"]),
            };
            // A patch that made the object needed both rights.
            if verb == "patch" && event["responseStatus"]["code"] == 201 {
                requests
                    .used
                    .insert(("create".to_owned(), group.clone(), resource.clone()));
            }
            requests.used.insert((verb, group, resource));
        }
    }
    requests
}

/// The requests that the program itself made, not somebody in its name.
fn of_account<'a>(log: &'a str, account: &'a str) -> impl Iterator<Item = Value> + 'a {
    log.lines()
        // Most lines are others': only those are parsed that could matter. The last one may not be complete yet.
        .filter(move |line| line.contains(account))
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(move |event| {
            event["user"]["username"] == account && event["impersonatedUser"].is_null()
        })
        .filter(|event| {
            let pod = event["user"]["extra"]["authentication.kubernetes.io/pod-name"][0].as_str();
            !pod.is_some_and(|pod| pod.starts_with(TRESPASSER))
        })
}
