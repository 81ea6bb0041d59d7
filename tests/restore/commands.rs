//! Backup and restore with the commands that are documented, of two hundred keys in every state.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use claviger::api::names::{
    ANNOTATION_COLLECTED, ANNOTATION_ENDED_AT, FINALIZER, LABEL_ORGANIZATION,
};
use claviger::api::{ApiKey, ApiKeyStatus, ConditionType, Phase, VersionPhase};
use claviger::key::{Hash, Key, OsRandom, Prefix};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::drift::{copy_of, create};
use crate::stories;
use crate::support::cluster::{Cluster, runtime};
use crate::support::operator::{Builder, Operator};
use crate::support::proxy::{Call, Proxy};
use crate::support::stage::{Stage, condition, manifest};
use crate::support::wait::{self, LIMIT};

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

/// The controller as the installed release would run it, but for what tests need.
fn controller(cluster: &Arc<Cluster>, proxy: Option<&Proxy>) -> Operator {
    let arguments = cluster.kubectl(&[
        "-n",
        "claviger-system",
        "get",
        "deployments",
        "-o",
        "jsonpath={.items[*].spec.template.spec.containers[0].args}",
    ]);
    let held: &[&str] = if arguments.contains("--hold-minting") {
        &["--hold-minting"]
    } else {
        &[]
    };
    let controller = Builder::for_cluster(cluster).args(held);
    match proxy {
        Some(proxy) => controller.via(proxy).start_ready(),
        None => controller.start_ready(),
    }
}

/// Merges something into many objects, many at once.
fn patch_many<K>(stage: &Stage, prefix: &str, count: usize, patch: &Value)
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(stage.cluster.client(), &stage.namespace);
    let patched = futures::stream::iter(0..count).map(|number| {
        let (api, patch) = (api.clone(), patch.clone());
        async move {
            api.patch(
                &format!("{prefix}-{number}"),
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await
        }
    });
    runtime()
        .block_on(patched.buffer_unordered(16).try_for_each(async |_| Ok(())))
        .expect("they are accepted");
}

/// How many keys of each kind there are.
const EACH: usize = 13;

/// Declares keys in every state that there is, and waits until they are in it.
fn in_every_state(stage: &Stage) {
    let many = |prefix: &str, spec: &str| stage.declare_many(prefix, EACH, spec);
    let names = |prefix: &str| {
        (0..EACH)
            .map(|number| format!("{prefix}-{number}"))
            .collect::<Vec<_>>()
    };
    let new = || Key::mint(&Prefix::default(), &mut OsRandom).unwrap();
    let opaque = |name: &str, entry: &str, held: &str| json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { entry: held } });
    // What belongs to others, and what is taken over.
    let mut others: Vec<Value> = names("taken")
        .iter()
        .map(|name| opaque(name, "theirs", "theirs"))
        .collect();
    others.extend(
        names("legacy")
            .iter()
            .map(|name| opaque(name, "token", new().expose())),
    );
    create(
        stage,
        &json!({ "apiVersion": "v1", "kind": "List", "items": others }).to_string(),
    );

    many("taken", "{}");
    many("plain", "{}");
    many(
        "ahead",
        r#"{"expiry": {"after": "90d"}, "owner": "sec@example.com", "metadata": {"tier": "gold"}}"#,
    );
    many(
        "template",
        r#"{"secret": {"key": "k", "template": {"metadata": {"labels": {"team": "a"}}, "data": {"H": "Bearer ${key}"}}}}"#,
    );
    many(
        "retiring",
        r#"{"revision": 1, "rotation": {"every": "30d", "overlap": "24h"}}"#,
    );
    many(
        "retired",
        r#"{"revision": 1, "rotation": {"every": "30d", "overlap": "1s"}}"#,
    );
    many("shown", r#"{"secret": {"retention": "UntilCollected"}}"#);
    many(
        "collected",
        r#"{"secret": {"retention": "UntilCollected"}}"#,
    );
    many(
        "while-active",
        r#"{"secret": {"retention": "WhileActive"}}"#,
    );
    many(
        "while-revoked",
        r#"{"secret": {"retention": "WhileActive"}}"#,
    );
    many("expired", r#"{"expiry": {"after": "10s"}}"#);
    many("revoked", r#"{"roles": ["ic-viewer"]}"#);
    many("stillborn", r#"{"revoked": true}"#);
    let mut imports = String::new();
    for number in 0..EACH {
        let source = format!("{{source: {{secretRef: {{name: legacy-{number}, key: token}}}}}}");
        imports += &manifest(&format!("imported-{number}"), &source);
        let key = new();
        let source = format!(
            "{{source: {{hash: \"{}\", tail: \"{}\"}}}}",
            key.hash(),
            key.tail()
        );
        imports += &manifest(&format!("hashed-{number}"), &source);
    }
    stage.apply(&imports);
    // Somebody edited one of them by hand, so that it has a generation and an annotation of kubectl's.
    let edited = "{expiry: {after: 90d}, description: applied by somebody}";
    stage.declare("applied", edited);
    // One ends at a moment that is past when it is restored, one was revoked by another than who restores it.
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(15);
    stage.declare("expired-at", &format!("{{expiry: {{at: {soon}}}}}"));
    stage.declare("revoked-by-another", "{}");
    stage.declare("applied", &edited.replace("somebody", "somebody else"));

    let all = EACH * 15 + 3;
    wait::until("all but the conflicts are issued or ended", || {
        let waiting = stage.apikeys().into_iter().filter(|apikey| {
            let status = apikey.status.clone().unwrap_or_default();
            status.current().is_none()
                && !status.is_final()
                && condition(&status, ConditionType::Ready) != "False/SecretConflict"
        });
        let waiting: Vec<_> = waiting.map(|apikey| apikey.name_any()).collect();
        if waiting.is_empty() && stage.apikeys().len() == all {
            Ok(())
        } else {
            Err(format!("{waiting:?}"))
        }
    });
    for revision in [2, 3] {
        for prefix in ["retiring", "retired"] {
            patch_many::<ApiKey>(
                stage,
                prefix,
                EACH,
                &json!({ "spec": { "revision": revision } }),
            );
        }
        wait_status(stage, "retir", "is rotated", |status| {
            status.revision == Some(revision) && status.newest_announced().is_none()
        });
    }
    let revoke = r#"{"spec": {"revoked": true}}"#;
    let someone = ["--as=sec@example.com", "--as-group=system:masters"];
    stage.kubectl(
        &[
            &[
                "patch",
                "apikey/revoked-by-another",
                "--type=merge",
                "-p",
                revoke,
            ],
            &someone[..],
        ]
        .concat(),
    );
    for prefix in ["revoked", "while-revoked"] {
        patch_many::<ApiKey>(
            stage,
            prefix,
            EACH,
            &json!({ "spec": { "revoked": true, "revocationReason": "leaked" } }),
        );
    }
    patch_many::<Secret>(
        stage,
        "collected",
        EACH,
        &json!({ "metadata": { "annotations": { ANNOTATION_COLLECTED: "true" } } }),
    );
    wait_status(stage, "collected", "is collected", |status| {
        status.secret_ref.is_none()
    });
    wait_status(stage, "while-revoked", "has ended", |status| {
        status.revoked_at.is_some() && status.secret_ref.is_none()
    });
    wait_status(stage, "revoked", "is revoked", |status| {
        status.phase == Some(Phase::Revoked)
    });
    wait_status(stage, "expired", "has expired", |status| {
        status.phase == Some(Phase::Expired)
    });
    let phases = |status: &ApiKeyStatus, phase| {
        status
            .versions
            .iter()
            .filter(|version| version.phase == phase)
            .count()
    };
    wait_status(stage, "retired", "has retired versions", |status| {
        phases(status, VersionPhase::Retired) == 2
    });
    wait_status(stage, "retiring", "has retiring versions", |status| {
        phases(status, VersionPhase::Retiring) == 2
    });
    for prefix in ["expired", "revoked"] {
        wait::until_true("the Secrets of what has ended say so", || {
            let marked = |secret: &&Secret| {
                secret.name_any().starts_with(prefix)
                    && secret.annotations().contains_key(ANNOTATION_ENDED_AT)
            };
            stage.secrets().iter().filter(marked).count() == EACH + 1
        });
    }
}

fn wait_status(stage: &Stage, prefix: &str, what: &str, is: impl Fn(&ApiKeyStatus) -> bool) {
    wait::until(&format!("every {prefix} {what}"), || {
        let others = stage.apikeys().into_iter().filter(|apikey| {
            apikey.name_any().starts_with(prefix) && !is(&apikey.status.clone().unwrap_or_default())
        });
        let others: Vec<_> = others
            .map(|apikey| format!("{} {:?}", apikey.name_any(), apikey.status))
            .collect();
        if others.is_empty() {
            Ok(())
        } else {
            Err(format!("{} not, such as {}", others.len(), others[0]))
        }
    });
}

/// All that must come back as it was, by name.
fn everything(stage: &Stage) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for mut apikey in stage.apikeys() {
        apikey
            .annotations_mut()
            .remove("kubectl.kubernetes.io/last-applied-configuration");
        let mut status = json!(apikey.status.clone().unwrap_or_default());
        // What follows the new UIDs, and what was said when.
        for field in ["secretRef", "rotatesAt", "conditions", "observedGeneration"] {
            status.as_object_mut().unwrap().remove(field);
        }
        let conditions: BTreeMap<_, _> = apikey
            .status
            .iter()
            .flat_map(|status| &status.conditions)
            .map(|c| (&c.type_, &c.reason))
            .collect();
        let delivered = apikey
            .status
            .as_ref()
            .is_some_and(|status| status.secret_ref.is_some());
        let facts = json!({ "spec": apikey.spec, "annotations": apikey.annotations(), "status": status, "conditions": conditions, "delivered": delivered });
        all.insert(format!("apikey/{}", apikey.name_any()), facts);
    }
    for secret in stage.secrets() {
        let facts = json!({ "type": secret.type_, "data": secret.data, "labels": secret.labels(), "annotations": secret.annotations() });
        all.insert(format!("secret/{}", secret.name_any()), facts);
    }
    all
}

/// Checks that all is as it was saved, that the Secrets belong to the new ApiKeys, and that these know it.
fn is_whole(stage: &Stage, saved: &BTreeMap<String, Value>) {
    wait::until("everything is as it was saved", || {
        let now = everything(stage);
        let other = saved
            .iter()
            .find(|(name, facts)| now.get(*name) != Some(*facts));
        if let Some((name, facts)) = other {
            return Err(format!("{name} was {facts}, is {:?}", now.get(name)));
        }
        if now.len() == saved.len() {
            Ok(())
        } else {
            Err(format!("{} objects instead of {}", now.len(), saved.len()))
        }
    });
    let secrets = || {
        stage
            .secrets()
            .into_iter()
            .map(|secret| (secret.name_any(), secret))
            .collect::<BTreeMap<_, _>>()
    };
    wait::until("everybody knows everybody", || {
        let secrets = secrets();
        for apikey in stage.apikeys() {
            let name = apikey.name_any();
            let Some(recorded) = apikey
                .status
                .as_ref()
                .and_then(|status| status.secret_ref.clone())
            else {
                continue;
            };
            let secret = secrets
                .get(&apikey.secret_name())
                .ok_or_else(|| format!("{name} has no Secret"))?;
            let owners = secret.owner_references();
            if Some(&recorded.uid) != secret.uid().as_ref() {
                return Err(format!("{name} knows its Secret as {recorded:?}"));
            }
            if owners.len() != 1
                || Some(&owners[0].uid) != apikey.uid().as_ref()
                || owners[0].controller != Some(true)
            {
                return Err(format!("Secret {name} belongs to {owners:?}"));
            }
            if apikey.finalizers() != [FINALIZER] {
                return Err(format!(
                    "{name} has the finalizers {:?}",
                    apikey.finalizers()
                ));
            }
        }
        Ok(())
    });
    let secrets = secrets();
    for apikey in stage.apikeys() {
        let (Some(status), Some(secret)) =
            (apikey.status.clone(), secrets.get(&apikey.secret_name()))
        else {
            continue;
        };
        if status.secret_ref.is_some() {
            let held = Hash::of(&secret.data.as_ref().unwrap()[apikey.data_key()].0).to_string();
            assert_eq!(
                status.hash,
                Some(held),
                "{} holds what its status says",
                apikey.name_any()
            );
        }
    }
}

/// Waits until the controller rests, and checks that it does nothing any more, nor after a restart.
fn is_idle(stage: &Stage, operator: &Operator, proxy: &Proxy) {
    let rests = || {
        assert!(
            proxy.wait_quiet(Duration::from_secs(1), LIMIT, Call::is_mutation),
            "the controller comes to rest"
        );
    };
    rests();
    let versions = || -> Vec<_> {
        stage
            .apikeys()
            .iter()
            .map(kube::ResourceExt::resource_version)
            .collect()
    };
    let before = versions();
    assert!(operator.stop().success());
    proxy.reset();
    let operator = controller(&stage.cluster, Some(proxy));
    rests();
    let wrote: Vec<_> = proxy
        .mutations()
        .into_iter()
        .filter(|record| record.call.resource != "events")
        .collect();
    assert!(wrote.is_empty(), "{wrote:?}");
    assert_eq!(versions(), before);
    assert!(operator.stop().success());
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
