//! Taking Claviger off a cluster, in any order.

use std::process::Command;
use std::sync::Arc;

use claviger::api::names::FINALIZER;
use kube::ResourceExt as _;

use crate::drift::pass;
use crate::stories;
use crate::support::cluster::Cluster;
use crate::support::operator::Builder;
use crate::support::stage::Stage;
use crate::support::wait;

stories![
    the_readme_shows_the_way_out,
    the_definition_goes_and_comes_back_under_a_running_controller,
    without_a_controller_a_namespace_and_the_definition_go_by_the_documented_way_out,
];

/// The way out when the controller was uninstalled first and ApiKeys hang in deletion: takes the finalizers off all of them. It
/// stands in the README.
const TAKE_FINALIZERS_OFF: &str = r#"kubectl get apikeys --all-namespaces -o jsonpath='{range .items[*]}-n {.metadata.namespace} apikey/{.metadata.name}{"\n"}{end}' \
  | xargs -r -L1 kubectl patch --type=merge -p '{"metadata":{"finalizers":null}}'"#;

/// Removes the Secrets that were left behind when the definition went without a controller. It stands in the README.
const REMOVE_SECRETS: &str = "kubectl delete secrets --all-namespaces -l claviger.dev/apikey";

/// Removes the definitions of the chart, and with them every ApiKey that is left. It stands in the README.
const REMOVE_DEFINITIONS: &str = "kubectl delete crd -l app.kubernetes.io/part-of=claviger";

/// What the README says is what is tried here.
fn the_readme_shows_the_way_out() {
    let readme = include_str!("../README.md");
    for command in [TAKE_FINALIZERS_OFF, REMOVE_SECRETS, REMOVE_DEFINITIONS] {
        assert!(readme.contains(command), "not in the README: {command}");
    }
}

/// Runs a command as a person would type it.
fn shell(cluster: &Cluster, command: &str) {
    let kubectl = cluster.control_plane.kubectl();
    let path = format!(
        "{}:{}",
        kubectl.parent().unwrap().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let done = Command::new("sh")
        .args(["-c", command])
        .env("PATH", path)
        .env("KUBECONFIG", cluster.control_plane.kubeconfig())
        .output()
        .expect("a shell");
    assert!(
        done.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// Waits until an object is gone.
fn wait_gone(cluster: &Cluster, object: &str) {
    wait::until(&format!("{object} is gone"), || {
        let left = cluster.try_kubectl(&["get", object, "-o", "yaml"], "");
        if left.status.success() {
            Err(String::from_utf8_lossy(&left.stdout).into_owned())
        } else {
            Ok(())
        }
    });
}

/// Incidents 26, 34: the definition is deleted while the controller runs: keys, Secrets and definition go. Installed again, it is
/// used again without anybody's help.
fn the_definition_goes_and_comes_back_under_a_running_controller() {
    let cluster = Cluster::own();
    let stage = Stage::on(&cluster, "definition");
    let other = Stage::on(&cluster, "definition-too");
    let histories = [stage.history(), other.history()];
    let operator = Builder::for_cluster(&cluster).start_ready();
    for stage in [&stage, &other] {
        stage.declare("k", "{}");
        stage.declare("ended", "{revoked: true}");
        stage.wait_issued("k");
        assert_eq!(stage.apikey("k").finalizers(), [FINALIZER]);
    }
    let old = stage.status("k").hash;
    shell(&cluster, &format!("{REMOVE_DEFINITIONS} --timeout=85s"));
    assert!(
        !cluster
            .try_kubectl(&["get", "crd", "apikeys.claviger.dev"], "")
            .status
            .success()
    );
    assert!(
        stage.secret("k").is_none() && other.secret("k").is_none(),
        "the Secrets went before"
    );
    assert!(operator.runs());
    for history in histories {
        history.check();
    }
    cluster.install_definitions();
    let histories = [stage.history(), other.history()];
    stage.declare("k", "{}");
    assert_ne!(stage.wait_issued("k").hash, old);
    pass(&other, "marker");
    stage.kubectl(&["delete", "apikey", "k", "--timeout=85s"]);
    assert!(stage.secret("k").is_none());
    assert!(operator.stop().success());
    for history in histories {
        history.check();
    }
}

/// Incidents 26, 45: the controller was uninstalled first. A namespace, then the definition, hang on our finalizer; the
/// documented command lets them go, and what is installed later starts afresh.
fn without_a_controller_a_namespace_and_the_definition_go_by_the_documented_way_out() {
    let cluster = Cluster::own();
    let (stage, going) = (Stage::on(&cluster, "stays"), Stage::on(&cluster, "goes"));
    let histories = [stage.history(), going.history()];
    let operator = Builder::for_cluster(&cluster).start_ready();
    for stage in [&stage, &going] {
        stage.declare("k", "{}");
        stage.declare("l", "{}");
        stage.wait_issued("k");
        stage.wait_issued("l");
    }
    let old = stage.status("k").hash;
    assert!(operator.stop().success());
    for history in histories {
        history.check();
    }

    namespace_is_stuck(&cluster, &going);
    shell(&cluster, TAKE_FINALIZERS_OFF);
    wait_gone(&cluster, &format!("namespace/{}", going.namespace));
    assert!(
        stage.find("k").is_some(),
        "whoever was not being deleted stays"
    );

    // A controller that comes back puts its finalizer on again.
    let operator = Builder::for_cluster(&cluster).start_ready();
    wait::until("the finalizer is back", || {
        let finalizers = stage.apikey("k").finalizers().to_vec();
        if finalizers == [FINALIZER] {
            Ok(())
        } else {
            Err(format!("{finalizers:?}"))
        }
    });
    wait::until_true("on all of them", || {
        stage.apikey("l").finalizers() == [FINALIZER]
    });
    assert_eq!(stage.status("k").hash, old);
    assert!(operator.stop().success());

    cluster.kubectl(&["delete", "crd", "apikeys.claviger.dev", "--wait=false"]);
    wait::until_true("the ApiKeys wait", || {
        ["k", "l"]
            .iter()
            .all(|name| stage.apikey(name).is_deleting())
    });
    assert!(
        cluster
            .try_kubectl(&["get", "crd", "apikeys.claviger.dev"], "")
            .status
            .success(),
        "the definition is stuck"
    );
    shell(&cluster, TAKE_FINALIZERS_OFF);
    wait_gone(&cluster, "crd/apikeys.claviger.dev");
    shell(&cluster, REMOVE_SECRETS);
    assert!(stage.secret("k").is_none() && stage.secret("l").is_none());

    cluster.install_definitions();
    let history = stage.history();
    let operator = Builder::for_cluster(&cluster).start_ready();
    stage.declare("k", "{}");
    assert_ne!(
        stage.wait_issued("k").hash,
        old,
        "the old key never revives"
    );
    assert!(operator.stop().success());
    history.check();
}

fn namespace_is_stuck(cluster: &Arc<Cluster>, stage: &Stage) {
    cluster.kubectl(&["delete", "namespace", &stage.namespace, "--wait=false"]);
    wait::until("the namespace says what it waits for", || {
        let said = cluster.kubectl(&[
            "get",
            "namespace",
            &stage.namespace,
            "-o",
            "jsonpath={.status.conditions[*].message}",
        ]);
        if said.contains(&format!("{FINALIZER} in 2 resource instances")) {
            Ok(())
        } else {
            Err(said)
        }
    });
    assert!(stage.apikey("k").is_deleting() && stage.apikey("l").is_deleting());
}
