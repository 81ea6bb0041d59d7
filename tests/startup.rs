//! Starting: bad input gets one clear line and nothing is lost.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use crate::stories;
use crate::support::cluster::Cluster;
use crate::support::control_plane::Auth;
use crate::support::operator::{Builder, Operator};
use crate::support::proxy::{Fault, Matcher, Verb, When};
use crate::support::stage::Stage;
use crate::support::wait::{self};

stories![
    bad_flags_are_refused_with_what_to_write_instead,
    help_explains_every_flag,
    a_kubeconfig_that_is_missing_or_garbage_is_named,
    an_api_server_that_is_not_there_is_named,
    an_api_server_that_is_too_old_is_refused,
    credentials_that_nobody_knows_are_told_apart_from_missing_rights,
    a_missing_right_is_named_by_verb_and_resource,
    a_right_that_goes_missing_later_is_named_and_waited_for,
    a_missing_definition_is_waited_for,
    an_admin_address_that_is_taken_is_named,
];

fn bad_flags_are_refused_with_what_to_write_instead() {
    for (arguments, code, words) in [
        (
            &["--frobnicate"][..],
            2,
            &["unexpected argument", "--frobnicate"][..],
        ),
        (
            &["--request-timeout=soon"],
            2,
            &["--request-timeout", "soon", "30s"],
        ),
        (&["--request-timeout=0s"], 2, &["--request-timeout", "0s"]),
        (&["--concurrency=0"], 2, &["--concurrency", "1..=1024"]),
        (&["--log-format=xml"], 2, &["--log-format", "text", "json"]),
        (
            &["--principal-domain=Not A Domain"],
            2,
            &["--principal-domain", "keys.example.com"],
        ),
        (&["--admin-address=here"], 2, &["--admin-address", "here"]),
        (
            &["--leader-election=false", "--log-level=lo=ud=er"],
            1,
            &["--log-level", "lo=ud=er", "info"],
        ),
        (
            &[
                "--leader-election=false",
                "--announce-grace=5s",
                "--request-timeout=5s",
            ],
            1,
            &["--announce-grace", "longer than"],
        ),
        (
            &["--leader-election=false", "--gate-wait=61s"],
            1,
            &["--gate-wait", "1m or less"],
        ),
        (
            &[],
            1,
            &[
                "leader election needs a namespace",
                "--lease-namespace",
                "POD_NAMESPACE",
                "--leader-election=false",
            ],
        ),
        (
            &["--lease-namespace=x", "--renew-deadline=15s"],
            1,
            &["renew deadline", "lease duration"],
        ),
        (
            &["--lease-namespace=x", "--retry-period=9s"],
            1,
            &["retry period", "renew deadline"],
        ),
        (
            &["--lease-namespace=x", "--lease-duration=1500ms"],
            1,
            &["lease duration", "whole number of seconds"],
        ),
    ] {
        let output = controller(arguments, None);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            said(&output)
        );
        assert_says(&output, words);
        if code == 1 {
            assert_one_line(&output);
        }
    }
}

fn help_explains_every_flag() {
    let output = controller(&["--help"], None);
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    let flags: Vec<_> = help
        .lines()
        .filter(|line| line.trim_start().starts_with("--"))
        .collect();
    assert!(flags.len() >= 17, "{help}");
    for flag in &flags {
        let rest = help.split(flag).nth(1).unwrap();
        let explained = rest
            .lines()
            .nth(1)
            .is_some_and(|line| line.trim().len() > 15 && !line.trim_start().starts_with('-'));
        assert!(explained, "{flag} is not explained:\n{help}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_claviger"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(
        help.contains("controller") && help.contains("manifests"),
        "{help}"
    );
}

fn a_kubeconfig_that_is_missing_or_garbage_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.kubeconfig");
    let garbage = directory.path().join("garbage.kubeconfig");
    std::fs::write(&garbage, "{ this is: no kubeconfig").unwrap();
    for file in [&missing, &garbage] {
        let name = file.file_name().unwrap().to_str().unwrap();
        let by_flag = format!("--kubeconfig={}", file.display());
        let output = controller(&["--leader-election=false", &by_flag], None);
        assert_eq!(output.status.code(), Some(1));
        assert_says(&output, &["--kubeconfig", name]);
        assert_one_line(&output);
        let output = controller(&["--leader-election=false"], Some(file));
        assert_eq!(output.status.code(), Some(1));
        assert_says(
            &output,
            &[
                "no cluster to talk to",
                name,
                "--kubeconfig",
                "ServiceAccount",
            ],
        );
        assert_one_line(&output);
    }
}

fn an_api_server_that_is_not_there_is_named() {
    let cluster = Cluster::shared();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let server = format!("https://{free}");
    let file = kubeconfig(&cluster, "nowhere", &server, &cluster.token);
    let output = controller(&["--leader-election=false"], Some(&file));
    assert_eq!(output.status.code(), Some(1));
    assert_last_line(
        &output,
        &[
            "the API server at",
            &free.to_string(),
            "cannot be reached",
            "refused",
            "check --kubeconfig",
        ],
    );
    assert!(
        said(&output).contains("trying again"),
        "a server that is only late is given time"
    );
}

fn an_api_server_that_is_too_old_is_refused() {
    let cluster = Cluster::shared();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let version = serde_json::json!({
            "major": "1", "minor": "32", "gitVersion": "v1.32.4", "gitCommit": "", "gitTreeState": "", "buildDate": "",
            "goVersion": "", "compiler": "", "platform": "",
        });
        let version = version.to_string();
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
                version.len()
            );
            let _ = write!(stream, "{head}connection: close\r\n\r\n{version}");
        }
    });
    let file = kubeconfig(&cluster, "old", &server, &cluster.token);
    let output = controller(&["--leader-election=false"], Some(&file));
    assert_eq!(output.status.code(), Some(1));
    assert_last_line(&output, &["v1.32.4", "1.33 or newer", "upgrade"]);
}

fn credentials_that_nobody_knows_are_told_apart_from_missing_rights() {
    let cluster = Cluster::shared();
    let file = kubeconfig(
        &cluster,
        "stranger",
        cluster.control_plane.url(),
        "not-a-token",
    );
    let output = controller(&["--leader-election=false"], Some(&file));
    assert_eq!(output.status.code(), Some(1));
    assert_last_line(
        &output,
        &["does not accept our credentials", "Unauthorized", "token"],
    );
}

/// Incidents 31: a ServiceAccount without rights, and one that may do a part.
fn a_missing_right_is_named_by_verb_and_resource() {
    let stage = Stage::new("powerless");
    stage.kubectl(&["create", "serviceaccount", "powerless"]);
    let token = stage
        .kubectl(&["create", "token", "powerless"])
        .trim()
        .to_owned();
    let file = kubeconfig(
        &stage.cluster,
        "powerless",
        stage.cluster.control_plane.url(),
        &token,
    );
    let output = controller(&["--leader-election=false"], Some(&file));
    assert_eq!(output.status.code(), Some(1));
    assert_last_line(
        &output,
        &[
            "missing right",
            "\"list\"",
            "\"apikeys.claviger.dev\"",
            "in the whole cluster",
            "RBAC",
        ],
    );

    let namespace = format!("--namespace={}", stage.namespace);
    let output = controller(&["--leader-election=false", &namespace], Some(&file));
    assert_last_line(
        &output,
        &[
            "\"list\"",
            "\"apikeys.claviger.dev\"",
            &format!("in namespace {}", stage.namespace),
        ],
    );
    stage.kubectl(&[
        "create",
        "role",
        "some",
        "--verb=get,list,watch",
        "--resource=apikeys.claviger.dev",
    ]);
    let account = format!("--serviceaccount={}:powerless", stage.namespace);
    stage.kubectl(&["create", "rolebinding", "some", "--role=some", &account]);
    let output = controller(&["--leader-election=false", &namespace], Some(&file));
    assert_eq!(output.status.code(), Some(1));
    assert_last_line(
        &output,
        &[
            "missing right",
            "\"list\"",
            "\"secrets\"",
            &format!("in namespace {}", stage.namespace),
        ],
    );
    // Roles, policies and namespaces are the cluster's own: without a right to them, it has to be told so.
    stage.kubectl(&[
        "create",
        "role",
        "more",
        "--verb=list",
        "--resource=secrets",
    ]);
    stage.kubectl(&["create", "rolebinding", "more", "--role=more", &account]);
    let output = controller(&["--leader-election=false", &namespace], Some(&file));
    let wanted = [
        "missing right",
        "\"list\"",
        "\"apikeyroles.claviger.dev\"",
        "in the whole cluster",
        "--cluster-objects=false",
    ];
    assert_last_line(&output, &wanted);
}

/// Incidents 31: the right to write a status, or to use the Lease, is taken away; the logs name it, and all goes on by itself
/// when it is given back.
fn a_right_that_goes_missing_later_is_named_and_waited_for() {
    let stage = Stage::new("deprived");
    let proxy = stage.cluster.proxy();
    let deny = |target: &str, verb| {
        proxy
            .on(
                Matcher::call(verb, target),
                When::Before,
                Fault::Respond(403),
            )
            .always()
    };
    let rules = [
        deny("leases", Verb::Create),
        deny("apikeys/status", Verb::Update),
    ];
    stage.allow_leases();
    let lease = format!("--lease-namespace={}", stage.namespace);
    let operator = stage
        .operator_via(&proxy)
        .args(&["--leader-election=true", &lease, "--max-backoff=1s"])
        .start_ready();
    wait_said(
        &operator,
        &[
            "not allowed to create leases.coordination.k8s.io",
            "get, create and update on leases",
        ],
    );
    rules[0].remove();
    stage.declare("key", "{}");
    wait_said(
        &operator,
        &[
            "update apikeys/status",
            "cannot update",
            "grant this right with RBAC",
        ],
    );
    rules[1].remove();
    stage.wait_issued("key");
}

fn a_missing_definition_is_waited_for() {
    let cluster = Cluster::without_definitions();
    let operator = Builder::for_cluster(&cluster).start();
    wait_said(
        &operator,
        &[
            "apikeys.claviger.dev is missing",
            "claviger manifests | kubectl apply",
            "waiting for it",
        ],
    );
    let (code, answer) = operator.get("/readyz").unwrap();
    assert_eq!(code, 503);
    assert!(answer.contains("CustomResourceDefinition"), "{answer}");
    assert_eq!(
        operator.get("/healthz").unwrap().0,
        200,
        "waiting is no reason to be restarted"
    );
    cluster.install_definitions();
    wait::until_true("it goes on by itself", || {
        operator.get("/readyz").is_some_and(|(code, _)| code == 200)
    });
    let stage = Stage::on(&cluster, "defined");
    stage.declare("key", "{}");
    stage.wait_issued("key");
    assert_eq!(
        operator.logs().matches("is missing").count(),
        1,
        "it says so once"
    );
    assert!(operator.stop().success());
}

fn an_admin_address_that_is_taken_is_named() {
    let cluster = Cluster::shared();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let file = kubeconfig(
        &cluster,
        "taken",
        cluster.control_plane.url(),
        &cluster.token,
    );
    let output = controller(
        &[
            "--leader-election=false",
            &format!("--admin-address={address}"),
        ],
        Some(&file),
    );
    assert_eq!(output.status.code(), Some(1));
    assert_last_line(
        &output,
        &[
            "cannot listen on --admin-address",
            &address,
            "choose another",
        ],
    );
}

/// Runs the controller until it ends by itself.
fn controller(arguments: &[&str], kubeconfig: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
    command.arg("controller").args(arguments).env_clear();
    if !arguments
        .iter()
        .any(|argument| argument.starts_with("--admin-address"))
    {
        command.arg("--admin-address=127.0.0.1:0");
    }
    if let Some(file) = kubeconfig {
        command.env("KUBECONFIG", file);
    }
    command.output().expect("the controller runs")
}

fn kubeconfig(cluster: &Arc<Cluster>, name: &str, server: &str, token: &str) -> std::path::PathBuf {
    cluster
        .control_plane
        .write_kubeconfig(name, server, Auth::Token(token.to_owned()))
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn assert_says(output: &Output, words: &[&str]) {
    let said = said(output);
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in: {said}");
    }
}

/// The error is one line, whatever came before it.
fn assert_last_line(output: &Output, words: &[&str]) {
    let said = said(output);
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("claviger: "), "{said}");
    for word in words {
        assert!(last.contains(word), "{word:?} is missing in: {last}");
    }
}

fn assert_one_line(output: &Output) {
    assert_eq!(said(output).lines().count(), 1, "{}", said(output));
    assert!(said(output).starts_with("claviger: "), "{}", said(output));
}

fn wait_said(operator: &Operator, words: &[&str]) {
    wait::until(&format!("it says {words:?}"), || {
        let logs = operator.logs();
        if words.iter().all(|word| logs.contains(word)) {
            Ok(())
        } else {
            Err(logs)
        }
    });
}
