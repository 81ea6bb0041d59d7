//! The commands that docs/gate.md shows, run as they are printed.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::stories;
use crate::support::cluster::Cluster;
use crate::support::gate::Gate;
use crate::support::stage::Stage;

stories![
    documented_question_is_answered_as_printed,
    documented_kubeconfig_is_enough_for_a_gate,
];

const DOCS: &str = include_str!("../docs/gate.md");

/// What a service does to ask about a key. The lines after it are the answer.
const QUESTION: &str = r#"$ kubectl -n team-a create rolebinding ask --clusterrole=claviger-verifier --serviceaccount=team-a:default
$ TOKEN=$(kubectl -n team-a create token default --audience=claviger-gate)
$ curl -s http://claviger-gate.claviger-system.svc:8081/v1/verify -H "Authorization: Bearer $TOKEN" \
    -d '{"key": "clv_…", "namespace": "team-a", "audience": "invoices-api", "permissions": "invoices:read"}'
"#;

/// Makes the kubeconfig of a gate that is run by hand.
const KUBECONFIG: &str = r#"kubectl -n claviger-system create serviceaccount gate-by-hand
kubectl create clusterrole gate-by-hand --verb=list,watch --resource=apikeys.claviger.dev,apikeyroles.claviger.dev
kubectl create clusterrolebinding gate-by-hand --clusterrole=gate-by-hand --serviceaccount=claviger-system:gate-by-hand
kubectl create clusterrolebinding gate-by-hand-callers --clusterrole=system:auth-delegator --serviceaccount=claviger-system:gate-by-hand

umask 077
kubectl config view --minify --flatten --raw -o jsonpath='{.clusters[0].cluster.certificate-authority-data}' | base64 -d > ca.crt
server=$(kubectl config view --minify -o jsonpath='{.clusters[0].cluster.server}')
token=$(kubectl -n claviger-system create token gate-by-hand --duration=720h)
kubectl config --kubeconfig=gate.kubeconfig set-cluster claviger --server="$server" --certificate-authority=ca.crt --embed-certs
kubectl config --kubeconfig=gate.kubeconfig set-credentials gate --token="$token"
kubectl config --kubeconfig=gate.kubeconfig set-context gate --cluster=claviger --user=gate
kubectl config --kubeconfig=gate.kubeconfig use-context gate
"#;

/// Runs commands in a folder as a person would type them, and returns what they print.
fn shell(cluster: &Cluster, folder: &Path, commands: &str) -> String {
    let kubectl = cluster.control_plane.kubectl();
    let tools = kubectl.parent().expect("a folder").display();
    let path = std::env::var("PATH").unwrap_or_default();
    let done = Command::new("sh")
        .args(["-e", "-c", commands])
        .current_dir(folder)
        .env("PATH", format!("{tools}:{path}"))
        .env("KUBECONFIG", cluster.control_plane.kubeconfig())
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{commands}: {said}");
    String::from_utf8(done.stdout).expect("text")
}

/// Issues a key with the permission and the audience of the documentation, and asks about it as it says.
fn ask(stage: &Stage, gate: &Gate) -> String {
    assert!(DOCS.contains(QUESTION), "not in docs/gate.md: {QUESTION}");
    let _operator = stage.operator().start_ready();
    stage.declare(
        "k",
        "{audiences: [invoices-api], permissions: ['invoices:read']}",
    );
    stage.wait_issued("k");
    let public = "claviger-gate.claviger-system.svc:8081";
    let commands = QUESTION
        .replace("$ ", "")
        .replace("team-a", &stage.namespace)
        .replace("clv_…", &stage.mounted("k")["api-key"])
        .replace(public, &gate.plain_address().to_string());
    let folder = tempfile::tempdir().expect("a folder");
    let printed = shell(&stage.cluster, folder.path(), &commands);
    let answer: Option<Value> = printed
        .lines()
        .find_map(|line| serde_json::from_str(line).ok());
    let answer = answer.unwrap_or_else(|| panic!("no answer: {printed}"));
    assert_eq!(answer["namespace"], stage.namespace.as_str(), "{answer}");
    answer["code"].as_str().expect("a code").to_owned()
}

fn documented_question_is_answered_as_printed() {
    let stage = Stage::new("documented");
    let gate = Gate::start(&stage);
    assert_eq!(ask(&stage, &gate), "VALID");
}

fn documented_kubeconfig_is_enough_for_a_gate() {
    assert!(
        DOCS.contains(KUBECONFIG),
        "not in docs/gate.md: {KUBECONFIG}"
    );
    let cluster = Cluster::shared();
    let folder = tempfile::tempdir().expect("a folder");
    shell(&cluster, folder.path(), KUBECONFIG);
    let kubeconfig = std::fs::read_to_string(folder.path().join("gate.kubeconfig"));
    let stage = Stage::new("by-hand");
    let gate = Gate::builder(&stage.cluster)
        .to(kubeconfig.expect("a kubeconfig"))
        .start_ready();
    assert_eq!(ask(&stage, &gate), "VALID");
}
