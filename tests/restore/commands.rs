//! Backup and restore with the commands that are documented, of two hundred keys in every state.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use claviger::api::names::LABEL_ORGANIZATION;
use claviger::api::{ApiKeyStatus, ConditionType, Phase};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::controller;
use super::states::{everything, in_every_state, is_idle, is_whole};
use crate::drift::{copy_of, create};
use crate::stories;
use crate::support::cluster::Cluster;
use crate::support::stage::Stage;

stories![
    the_documentation_shows_these_commands,
    two_hundred_keys_in_every_state_come_back_as_they_were_saved,
    while_minting_is_held_nothing_stands_in_the_way_of_a_status,
];

/// Saves everything, Secrets first. All of these stand in docs/backup.md.
const BACKUP: &str = r#"umask 077
portable='.items[].metadata |= (with_entries(select(.key | IN("name", "namespace", "labels", "annotations")))
  | del(.annotations["kubectl.kubernetes.io/last-applied-configuration"]))'
kubectl get secrets --all-namespaces -l claviger.dev/apikey -o json | jq "$portable" > claviger-secrets.json
kubectl get apikeys --all-namespaces -o json | jq "$portable" > claviger-apikeys.json
kubectl get apikeyroles,apikeypolicies -o json | jq "$portable" > claviger-cluster.json"#;

/// Keeps the controller from minting.
const HOLD: &str = "helm upgrade claviger charts/claviger -n claviger-system --reuse-values --set controller.holdMinting=true";

/// Takes away what would refuse an ApiKey that is as it was saved, until the chart puts it back.
const LET_IN: &str = "kubectl delete validatingadmissionpolicybindings --ignore-not-found \\
  claviger-expiry claviger-revoke claviger-policies claviger-organization";

/// Takes one namespace out of a backup.
const ONE_NAMESPACE: &str = r#"mkdir team-a && for file in claviger-secrets.json claviger-apikeys.json; do
  jq '.items |= map(select(.metadata.namespace == "team-a"))' $file > team-a/$file
done && cd team-a"#;

/// What belongs to the whole cluster.
const RESTORE_CLUSTER: &str = "kubectl apply --server-side -f claviger-cluster.json";

/// Secrets, ApiKeys, and what became of them.
const RESTORE: &str = "kubectl create -f claviger-secrets.json
kubectl create -f claviger-apikeys.json
kubectl replace --subresource=status -f claviger-apikeys.json";

/// Finds what has no status yet.
const WITHOUT_STATUS: &str = r#"kubectl get apikeys --all-namespaces -o json \
  | jq -r '.items[] | select(.status.keyId == null) | .metadata.namespace + "/" + .metadata.name'"#;

/// Lets the controller mint again.
const RELEASE: &str = "helm upgrade claviger charts/claviger -n claviger-system --reuse-values --set controller.holdMinting=false";

/// Takes over the key of a Secret.
const ADOPT: &str = "kubectl annotate apikey billing-export claviger.dev/adopt=true";

/// What the documentation says is what is tried here.
fn the_documentation_shows_these_commands() {
    let text = include_str!("../../docs/backup.md");
    for command in [
        BACKUP,
        HOLD,
        LET_IN,
        ONE_NAMESPACE,
        RESTORE_CLUSTER,
        RESTORE,
        WITHOUT_STATUS,
        RELEASE,
        ADOPT,
    ] {
        assert!(text.contains(command), "not in docs/backup.md: {command}");
    }
    assert!(
        include_str!("../../README.md").contains("(docs/backup.md)"),
        "the README leads there"
    );
}

/// Runs commands in a folder as a person would type them, and returns what they print.
fn shell(cluster: &Cluster, folder: &Path, commands: &str) -> String {
    let plane = &cluster.control_plane;
    let tools = [plane.kubectl(), plane.helm()]
        .map(|tool| tool.parent().unwrap().display().to_string())
        .join(":");
    let done = Command::new("sh")
        .args(["-e", "-c", commands])
        .current_dir(folder)
        .env(
            "PATH",
            format!("{tools}:{}", std::env::var("PATH").unwrap_or_default()),
        )
        .env("KUBECONFIG", plane.kubeconfig())
        .env("HELM_CACHE_HOME", plane.dir().join("helm"))
        .env("HELM_CONFIG_HOME", plane.dir().join("helm"))
        .env("HELM_DATA_HOME", plane.dir().join("helm"))
        .output()
        .expect("a shell");
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(done.status.success(), "{commands}: {out}{err}");
    out.into_owned()
}

/// Incidents 9, 40, 41: two hundred keys in every state are saved and put back, once where their namespace was deleted, once in
/// another cluster: each keeps its key, none is minted, and none that has ended returns.
fn two_hundred_keys_in_every_state_come_back_as_they_were_saved() {
    let cluster = Cluster::own();
    let folder = tempfile::tempdir().unwrap();
    symlink(
        concat!(env!("CARGO_MANIFEST_DIR"), "/charts"),
        folder.path().join("charts"),
    )
    .unwrap();
    let run = |cluster: &Cluster, commands: &str| shell(cluster, folder.path(), commands);
    let make = |cluster: &Arc<Cluster>, name: &str| {
        cluster.kubectl(&["create", "namespace", name]);
        cluster.kubectl(&[
            "label",
            "namespace",
            name,
            &format!("{LABEL_ORGANIZATION}=acme"),
        ]);
        Stage {
            cluster: cluster.clone(),
            namespace: name.to_owned(),
        }
    };
    let (stage, other) = (make(&cluster, "team-a"), make(&cluster, "team-b"));
    cluster.apply(
        "
apiVersion: claviger.dev/v1alpha1
kind: ApiKeyRole
metadata: {name: ic-viewer}
spec: {permissions: ['invoices:read']}
---
apiVersion: claviger.dev/v1alpha1
kind: ApiKeyPolicy
metadata: {name: bounded}
spec: {lifetime: {max: 365d}, namespaces: {matchLabels: {nobody: has}}}
",
    );
    let operator = controller(&cluster, None);
    in_every_state(&stage);
    other.declare("k", "{}");
    other.wait_issued("k");
    // What the controller adds when it looks again is part of what is saved.
    assert!(operator.stop().success());
    let proxy = cluster.proxy();
    is_idle(&stage, &controller(&cluster, Some(&proxy)), &proxy);

    run(&cluster, BACKUP);
    let saved = everything(&stage);
    assert!(
        saved
            .keys()
            .filter(|name| name.starts_with("apikey/"))
            .count()
            >= 195,
        "about two hundred"
    );
    let foreign = stage
        .secrets()
        .into_iter()
        .filter(|secret| secret.labels().is_empty());
    let foreign: Vec<Value> = foreign
        .map(|secret| serde_json::from_str(&copy_of(&secret)).unwrap())
        .collect();
    let foreign = json!({ "apiVersion": "v1", "kind": "List", "items": foreign }).to_string();
    let uids: Vec<_> = stage.apikeys().iter().map(kube::ResourceExt::uid).collect();
    let untouched = json!([other.apikey("k"), other.secret("k")]);

    // The namespace is deleted and put back.
    let operator = controller(&cluster, None);
    cluster.kubectl(&["delete", "namespace", "team-a", "--timeout=85s"]);
    assert!(operator.stop().success());
    make(&cluster, "team-a");
    let history = stage.history();
    run(&cluster, &[HOLD, LET_IN].join("\n"));
    let operator = controller(&cluster, None);
    create(&stage, &foreign);
    let began = std::time::Instant::now();
    run(&cluster, &[ONE_NAMESPACE, RESTORE].join("\n"));
    println!("{} keys put back in {:?}", uids.len(), began.elapsed());
    assert_eq!(
        run(&cluster, WITHOUT_STATUS)
            .lines()
            .filter(|line| !line.contains("/stillborn"))
            .count(),
        0
    );
    run(&cluster, RELEASE);
    assert!(operator.stop().success());
    let operator = controller(&cluster, Some(&proxy));
    is_whole(&stage, &saved);
    is_idle(&stage, &operator, &proxy);
    assert!(
        stage
            .apikeys()
            .iter()
            .all(|apikey| !uids.contains(&apikey.uid())),
        "they are new objects"
    );
    assert_eq!(
        json!([other.apikey("k"), other.secret("k")]),
        untouched,
        "nobody else was touched"
    );
    history.check();

    // And in another cluster, everything.
    let cluster = Cluster::own();
    let (stage, other) = (make(&cluster, "team-a"), make(&cluster, "team-b"));
    let history = stage.history();
    run(&cluster, &[HOLD, LET_IN].join("\n"));
    let proxy = cluster.proxy();
    let operator = controller(&cluster, None);
    create(&stage, &foreign);
    run(&cluster, &[RESTORE_CLUSTER, RESTORE].join("\n"));
    run(&cluster, RELEASE);
    assert!(operator.stop().success());
    let operator = controller(&cluster, Some(&proxy));
    is_whole(&stage, &saved);
    is_idle(&stage, &operator, &proxy);
    other.wait_issued("k");
    assert_eq!(
        other.status("k").hash.as_deref(),
        untouched[0]["status"]["hash"].as_str()
    );
    // What is applied from Git again knows nothing of the revocation, and does not fight it.
    stage.declare("revoked-by-another", "{}");
    assert!(stage.apikey("revoked-by-another").is_revoked());
    let kept = cluster.kubectl(&[
        "get",
        "apikeyroles,apikeypolicies",
        "-o",
        "jsonpath={.items[*].spec}",
    ]);
    assert!(
        kept.contains("invoices:read") && kept.contains("365d"),
        "{kept}"
    );
    history.check();
}

/// Incidents 9: as long as minting is held, an ApiKey without a status gets none that could not be replaced by the saved one, even
/// where its spec says that it is revoked or that it has ended.
fn while_minting_is_held_nothing_stands_in_the_way_of_a_status() {
    // Where admission lets an end in the past in, as the documented commands have it.
    let stage = Stage::on(&Cluster::shared_without_admission(), "held");
    let operator = stage.operator().start_ready();
    stage.declare("revoked", "{}");
    stage.declare(
        "expired",
        &format!(
            "{{expiry: {{at: {}}}}}",
            jiff::Timestamp::now() + jiff::SignedDuration::from_secs(5)
        ),
    );
    stage.wait_issued("revoked");
    stage.patch("apikey/revoked", r#"{"spec": {"revoked": true}}"#);
    let saved = ["revoked", "expired"].map(|name| {
        stage.wait(name, "has ended", ApiKeyStatus::is_final);
        let mut apikey = stage.apikey(name);
        apikey.metadata = kube::api::ObjectMeta {
            name: Some(name.to_owned()),
            ..Default::default()
        };
        apikey
    });
    stage.kubectl(&["delete", "apikeys", "--all", "--timeout=60s"]);
    assert!(operator.stop().success());

    let history = stage.history();
    let operator = stage.operator().args(&["--hold-minting"]).start_ready();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": saved }).to_string();
    let feed = |arguments: &[&str]| {
        stage
            .cluster
            .kubectl_with(&[&["-n", &stage.namespace], arguments].concat(), &list)
    };
    feed(&["create", "-f", "-"]);
    for apikey in &saved {
        let status = stage.wait_reason(&apikey.name_any(), ConditionType::Ready, "MintingHeld");
        assert_eq!(
            (status.phase, status.revoked_at, status.expired_at),
            (Some(Phase::Pending), None, None)
        );
    }
    feed(&["replace", "--subresource=status", "-f", "-"]);
    for apikey in &saved {
        let (before, name) = (apikey.status.clone().unwrap(), apikey.name_any());
        let now = stage.wait(&name, "is looked at", |status| {
            status.phase == before.phase && status.observed_generation == Some(1)
        });
        assert_eq!(
            (now.hash, now.versions, now.key_id),
            (before.hash, before.versions, before.key_id),
            "{name}"
        );
    }
    // What was never issued ends when minting goes on.
    stage.declare("never", "{revoked: true}");
    stage.wait_reason("never", ConditionType::Ready, "MintingHeld");
    assert!(operator.stop().success());
    let operator = stage.operator().start_ready();
    stage.wait_phase("never", Phase::Revoked);
    assert!(operator.stop().success());
    history.check();
}
