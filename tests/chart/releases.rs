//! Releases: installed, upgraded, rolled back, uninstalled, and installed again.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use claviger::api::Phase;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::stories;
use crate::support::cluster::{ACCOUNT, CRDS, Cluster, NAMESPACE};
use crate::support::helm::{CHART, arguments_of};
use crate::support::operator::{Builder, Operator};
use crate::support::rights;
use crate::support::stage::Stage;
use crate::support::wait;

stories![
    keys_outlive_upgrade_rollback_uninstall_and_installation,
    an_upgrade_brings_the_definitions_along_and_touches_no_key,
    a_release_for_one_namespace_works_there_with_the_rights_it_has,
    guarded_owner_references_need_no_more_rights,
];

/// Incidents 2, 34, 45: what was issued stays as it is through everything that can be done to a release, and the next
/// installation goes on with it: it mints nothing and writes no Secret.
fn keys_outlive_upgrade_rollback_uninstall_and_installation() {
    let cluster = Cluster::without_claviger();
    let said = cluster.helm(&["install", "claviger", CHART, "--create-namespace"]);
    assert!(
        said.contains("STATUS: deployed")
            && said.contains("rollout status deployment/claviger-controller"),
        "{said}"
    );
    assert!(
        said.contains("http://claviger-gate.claviger-system.svc:8081")
            && !said.contains("https://claviger-gate"),
        "{said}"
    );
    // A gate answers every pod, unless an installation says who may ask.
    assert_eq!(said.matches("WARNING").count(), 1, "{said}");
    assert!(said.contains("gate.proxyCallers=mtls"), "{said}");
    cluster.await_definitions();
    let stage = Stage::on(&cluster, "released");
    let history = stage.history();
    let operator = as_deployed(&cluster);
    stage.declare("plain", "{}");
    stage.declare(
        "lasting",
        "{expiry: {after: 90d}, secret: {template: {data: {H: 'Bearer ${key}'}}}}",
    );
    stage.declare("ended", "{}");
    stage.wait_many(3, Phase::Active);
    stage.patch("apikey/ended", "{\"spec\": {\"revoked\": true}}");
    stage.wait_phase("ended", Phase::Revoked);
    let before = everything(&stage);
    assert_eq!(before.len(), 6, "{before:?}");

    let upgrade = ["upgrade", "claviger", CHART, "--reset-then-reuse-values"];
    let changed =
        "--set=controller.concurrency=4,controller.replicas=3,gate.replicas=4,gate.drain=40s";
    cluster.helm(&[&upgrade[..], &[changed]].concat());
    let of_gate = |cluster: &Cluster| {
        let spec = deployed(cluster, "gate")["spec"].clone();
        (
            spec["replicas"].clone(),
            spec["template"]["spec"]["terminationGracePeriodSeconds"].clone(),
        )
    };
    assert_eq!(of_gate(&cluster), (json!(4), json!(55)));
    assert_eq!(deployed(&cluster, "controller")["spec"]["replicas"], 3);
    assert!(arguments(&cluster).contains(&"--concurrency=4".to_owned()));
    assert!(operator.stop().success());
    let operator = as_deployed(&cluster);
    cluster.helm(&["rollback", "claviger", "1"]);
    assert_eq!(deployed(&cluster, "controller")["spec"]["replicas"], 2);
    assert!(arguments(&cluster).contains(&"--concurrency=16".to_owned()));
    assert_eq!(of_gate(&cluster), (json!(2), json!(35)));
    assert_eq!(everything(&stage), before);

    assert!(operator.stop().success());
    let said = cluster.helm(&["uninstall", "claviger"]);
    assert!(
        said.contains("kept due to the resource policy") && said.contains("apikeys.claviger.dev"),
        "{said}"
    );
    for gone in [
        "deployment/claviger-controller",
        "serviceaccount/claviger-controller",
        "role/claviger-leader-election",
        "deployment/claviger-gate",
        "service/claviger-gate",
        "serviceaccount/claviger-gate",
        "role/claviger-gate-reports",
    ] {
        assert!(
            !cluster
                .try_kubectl(&["get", "-n", NAMESPACE, gone], "")
                .status
                .success(),
            "{gone} is left"
        );
    }
    for gone in [
        "clusterrole/claviger-controller",
        "clusterrolebinding/claviger-controller",
        "clusterrole/claviger-gate",
        "clusterrole/claviger-verifier",
        "validatingadmissionpolicy/claviger-gate",
    ] {
        assert!(
            !cluster.try_kubectl(&["get", gone], "").status.success(),
            "{gone} is left"
        );
    }
    assert_eq!(
        everything(&stage),
        before,
        "definitions, ApiKeys and Secrets stay"
    );

    let written = rights::secret_writes(&cluster);
    assert!(written >= 3, "the audit log tells of the deliveries");
    cluster.helm(&["install", "claviger", CHART]);
    let operator = as_deployed(&cluster);
    wait::until("it has looked at every ApiKey", || {
        match operator.metric("claviger_reconciles_total{outcome=\"Unchanged\"}") {
            Some(looked) if looked >= 3.0 => Ok(()),
            _ => Err(operator.metrics()),
        }
    });
    assert_eq!(
        everything(&stage),
        before,
        "nothing was minted, nothing was written"
    );
    assert_eq!(rights::secret_writes(&cluster), written);
    stage.declare("new", "{}");
    stage.wait_issued("new");
    assert_eq!(
        rights::secret_writes(&cluster),
        written + 1,
        "what is new is issued"
    );
    assert!(operator.stop().success());
    history.check();
}

/// Incidents 35: there is no released chart to upgrade from yet. What stands for it is a copy of this one, with a lower version,
/// without the disruption budget, and with a definition that shows another column.
fn an_upgrade_brings_the_definitions_along_and_touches_no_key() {
    let cluster = Cluster::without_claviger();
    let directory = tempfile::tempdir().unwrap();
    let old = older_chart(directory.path());
    cluster.helm(&["install", "claviger", &old, "--create-namespace"]);
    cluster.await_definitions();
    let stage = Stage::on(&cluster, "upgraded");
    let history = stage.history();
    let operator = as_deployed(&cluster);
    stage.declare("k", "{}");
    stage.wait_issued("k");
    assert!(operator.stop().success());
    let version = |cluster: &Cluster| {
        deployed(cluster, "controller")["metadata"]["labels"]["app.kubernetes.io/version"].clone()
    };
    let columns = || {
        stage
            .kubectl(&["get", "apikeys"])
            .lines()
            .next()
            .unwrap()
            .to_owned()
    };
    let definition = || {
        cluster.kubectl(&[
            "get",
            "crd",
            "apikeys.claviger.dev",
            "-o",
            "jsonpath={.metadata.uid}",
        ])
    };
    assert_eq!(version(&cluster), "0.0.9");
    assert!(columns().contains("ENDING"), "{}", columns());
    let (before, uid) = (everything(&stage), definition());

    cluster.helm(&["upgrade", "claviger", CHART, "--reset-then-reuse-values"]);
    assert_eq!(version(&cluster), env!("CARGO_PKG_VERSION"));
    wait::until("the new definition is served", || {
        let columns = columns();
        if columns.contains("TAIL") && !columns.contains("ENDING") {
            Ok(())
        } else {
            Err(columns)
        }
    });
    assert_eq!(
        definition(),
        uid,
        "it is the same definition, not a new one"
    );
    // A changed definition ends the watches of what it defines, that of the history, too: what happened meanwhile would be missing.
    history.check();
    cluster.kubectl(&[
        "get",
        "-n",
        NAMESPACE,
        "poddisruptionbudget/claviger-controller",
    ]);
    let operator = as_deployed(&cluster);
    stage.declare("new", "{}");
    stage.wait_issued("new");
    stage.kubectl(&["delete", "apikey", "new", "--timeout=60s"]);
    assert_eq!(everything(&stage), before);
    assert!(operator.stop().success());
}

/// A team that may not have rights in the whole cluster; its keys are issued, others' are not looked at. Uninstalled with
/// `crds.keep=false`, everything goes. The definitions were there before, applied by hand: the release takes them over when told to.
fn a_release_for_one_namespace_works_there_with_the_rights_it_has() {
    let cluster = Cluster::without_claviger();
    let (stage, other) = (Stage::on(&cluster, "team"), Stage::on(&cluster, "other"));
    let namespace = format!("--set=watchNamespace={}", stage.namespace);
    cluster.kubectl_with(&["apply", "--server-side", "-f", "-"], CRDS);
    let install = [
        "install",
        "claviger",
        CHART,
        "--create-namespace",
        &namespace,
        "--set=crds.keep=false",
    ];
    let refused = cluster.try_helm(&install);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success()
            && said.contains("claviger.dev\" in namespace")
            && said.contains("ownership"),
        "{said}"
    );
    let said = cluster.helm(&[&install[..], &["--take-ownership"]].concat());
    assert!(
        said.contains(&format!("works on the namespace {}", stage.namespace)),
        "{said}"
    );
    assert!(said.contains("WARNING: crds.keep is false"), "{said}");
    cluster.await_definitions();
    for (namespace, wanted) in [(&stage.namespace, "yes"), (&other.namespace, "no")] {
        let answer = cluster.try_kubectl(
            &[
                "auth",
                "can-i",
                "get",
                "secrets",
                "-n",
                namespace,
                &format!("--as={ACCOUNT}"),
            ],
            "",
        );
        assert_eq!(
            String::from_utf8_lossy(&answer.stdout).trim(),
            wanted,
            "in {namespace}"
        );
    }
    let history = stage.history();
    let operator = as_deployed(&cluster);
    for stage in [&stage, &other] {
        stage.declare("k", "{}");
    }
    stage.wait_issued("k");
    stage.wait_event("k", "Issued");
    assert!(
        stage.apikey("k").finalizers().is_empty(),
        "nothing that only the controller could take off"
    );
    stage.kubectl(&["delete", "apikey", "k", "--timeout=60s"]);
    wait::until_true("the garbage collector removes the Secret", || {
        stage.secret("k").is_none()
    });
    stage.declare("k", "{}");
    stage.wait_issued("k");
    assert!(
        other.secret("k").is_none() && other.status("k").phase.is_none(),
        "that is somebody else's"
    );
    assert!(operator.stop().success());
    history.check();

    cluster.helm(&["uninstall", "claviger"]);
    wait::until_true("the definitions go", || {
        !cluster
            .try_kubectl(&["get", "crd", "apikeys.claviger.dev"], "")
            .status
            .success()
    });
    wait::until_true("and the Secret", || stage.secret("k").is_none());
}

/// Where the admission plugin `OwnerReferencesPermissionEnforcement` is on (`OpenShift` has it), `apikeys/finalizers` is asked about
/// for owners whose deletion a Secret would block. Ours does not block it, so the chart does not grant that right.
fn guarded_owner_references_need_no_more_rights() {
    let cluster =
        Cluster::own_with(&["--enable-admission-plugins=OwnerReferencesPermissionEnforcement"]);
    let stage = Stage::on(&cluster, "guarded");
    let history = stage.history();
    let operator = stage.operator().start_ready();
    stage.declare("k", "{}");
    stage.wait_issued("k");
    let owner = stage
        .secret("k")
        .unwrap()
        .metadata
        .owner_references
        .unwrap_or_default();
    assert_eq!(owner.len(), 1);
    let blocking = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": "probe", "namespace": stage.namespace, "ownerReferences": [{
            "apiVersion": owner[0].api_version, "kind": owner[0].kind, "name": "k", "uid": owner[0].uid, "blockOwnerDeletion": true,
        }] },
    });
    let output = cluster.try_kubectl(
        &[
            "create",
            "--dry-run=server",
            &format!("--as={ACCOUNT}"),
            "-f",
            "-",
        ],
        &blocking.to_string(),
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("cannot set blockOwnerDeletion"),
        "the plugin is on: {said}"
    );

    // Changing the owners of what is there asks for the right to delete it.
    stage.patch("secret/k", "{\"metadata\": {\"ownerReferences\": null}}");
    stage.declare("k", "{owner: somebody}");
    wait::until_true("the owner is put back", || {
        stage
            .secret("k")
            .unwrap()
            .metadata
            .owner_references
            .as_ref()
            == Some(&owner)
    });
    assert!(operator.stop().success());
    history.check();
}

/// Starts the controller as the live Deployment would, and waits until it leads.
fn as_deployed(cluster: &Arc<Cluster>) -> Operator {
    let container = &deployed(cluster, "controller")["spec"]["template"]["spec"]["containers"][0];
    let from_field = |name: &str| {
        let variables = container["env"].as_array().unwrap();
        variables.iter().find(|one| one["name"] == name).unwrap()["valueFrom"]["fieldRef"]["fieldPath"].clone()
    };
    assert_eq!(from_field("POD_NAMESPACE"), "metadata.namespace");
    assert_eq!(from_field("POD_NAME"), "metadata.name");
    let arguments = arguments(cluster);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    // What POD_NAMESPACE says in a pod; and a port that nobody has here.
    let lease = format!("--lease-namespace={NAMESPACE}");
    let here = [lease.as_str(), "--admin-address=127.0.0.1:0"];
    let operator = Builder::bare(cluster)
        .args(&arguments)
        .args(&here)
        .token(cluster.new_token())
        .start_ready();
    wait::until("it leads", || match operator.metric("claviger_leading") {
        Some(leading) if leading > 0.5 => Ok(()),
        _ => Err(operator.logs()),
    });
    operator
}

fn deployed(cluster: &Cluster, program: &str) -> Value {
    let deployment = cluster.kubectl(&[
        "get",
        "-n",
        NAMESPACE,
        &format!("deployment/claviger-{program}"),
        "-o",
        "json",
    ]);
    serde_json::from_str(&deployment).unwrap()
}

fn arguments(cluster: &Cluster) -> Vec<String> {
    arguments_of(&[deployed(cluster, "controller")], "controller")
}

/// Every ApiKey and Secret of the stage, with UID and resourceVersion: equal means that nothing was written.
fn everything(stage: &Stage) -> Vec<String> {
    let fields =
        "{.kind} {.metadata.name} {.metadata.uid} {.metadata.resourceVersion} {.status.hash}";
    let lines = format!("jsonpath={{range .items[*]}}{fields}{{\"\\n\"}}{{end}}");
    stage
        .kubectl(&["get", "apikeys,secrets", "-o", &lines])
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Writes the chart as it might have been before into a folder, and returns where.
fn older_chart(folder: &Path) -> String {
    let copied = Command::new("cp")
        .args(["-r", CHART])
        .arg(folder)
        .status()
        .expect("cp runs");
    assert!(copied.success());
    let chart = folder.join("claviger");
    let edit = |file: &str, from: &str, to: &str| {
        let file = chart.join(file);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from} stands in {}", file.display());
        std::fs::write(&file, text.replace(from, to)).unwrap();
    };
    edit(
        "Chart.yaml",
        &format!("ersion: {}", env!("CARGO_PKG_VERSION")),
        "ersion: 0.0.9",
    );
    edit(
        "crd-files/apikeys.claviger.dev.yaml",
        "name: Tail",
        "name: Ending",
    );
    std::fs::remove_file(chart.join("templates/controller/poddisruptionbudget.yaml")).unwrap();
    chart.display().to_string()
}
