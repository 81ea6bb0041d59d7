//! A gate that runs as the chart deploys it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::stories;
use crate::support::cluster::{Cluster, NAMESPACE};
use crate::support::gate::Gate;
use crate::support::helm::{CHART, arguments_of, deployment_of};
use crate::support::stage::Stage;
use crate::support::wait;

stories![
    a_gate_that_runs_as_deployed_answers_whoever_may_ask,
    in_one_namespace_a_gate_knows_that_namespace_only,
];

/// Every right that a gate has is used here: it watches keys and roles, asks who its callers are, and keeps its Gate.
fn a_gate_that_runs_as_deployed_answers_whoever_may_ask() {
    let stage = Stage::new("asked");
    let operator = stage.operator().start_ready();
    let pod = format!("gate-of-{}", stage.namespace);
    let gate = as_deployed(&stage, &["--set=gate.verifyCallers={token}"], &pod);
    stage.role("asked-reader", &["invoices:read"]);
    stage.declare("k", "{audiences: [invoices-api], roles: [asked-reader]}");
    stage.wait_issued("k");
    stage.kubectl(&["create", "serviceaccount", "frontend"]);
    let account = format!("--serviceaccount={}:frontend", stage.namespace);
    let token = stage
        .kubectl(&["create", "token", "frontend", "--audience=claviger-gate"])
        .trim()
        .to_owned();
    let key = stage.mounted("k")["api-key"].clone();
    let here = json!({ "key": key, "audience": "invoices-api", "permissions": "invoices:read", "namespace": stage.namespace });
    let ask = |question: &Value| verify(&gate, Some(&token), question);
    assert_eq!(verify(&gate, None, &here).0, 401);
    wait::until("it may not ask without the right", || match ask(&here) {
        (403, said) if said.to_string().contains("verify on apikeys.claviger.dev") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    stage.kubectl(&[
        "create",
        "rolebinding",
        "frontend",
        "--clusterrole=claviger-verifier",
        &account,
    ]);
    let answer = wait::until("the key passes", || match ask(&here) {
        (200, answer) if answer["code"] == "VALID" => Ok(answer),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(
        (&answer["name"], &answer["permissions"]),
        (&json!("k"), &json!(["invoices:read"]))
    );
    // The right reaches as far as its binding.
    let everywhere = json!({ "key": key, "audience": "invoices-api" });
    assert_eq!(ask(&everywhere).0, 403);
    // And it is no right to look at ApiKeys.
    let may_look = [
        "auth",
        "can-i",
        "get",
        "apikeys",
        &format!("--as=system:serviceaccount:{}:frontend", stage.namespace),
    ];
    assert_eq!(
        String::from_utf8_lossy(&stage.try_kubectl(&may_look).stdout).trim(),
        "no"
    );

    let object = [
        "get",
        "gate",
        &pod,
        "-n",
        NAMESPACE,
        "-o",
        "jsonpath={.spec.state}",
    ];
    wait::until("it reports", || {
        match stage.cluster.try_kubectl(&object, "") {
            output if output.stdout == b"Current" => Ok(()),
            output => Err(format!("{output:?}")),
        }
    });
    assert!(gate.stop().success());
    assert!(
        !stage.cluster.try_kubectl(&object, "").status.success(),
        "its Gate goes with it"
    );
    assert!(operator.stop().success());
}

fn in_one_namespace_a_gate_knows_that_namespace_only() {
    let cluster = Cluster::without_claviger();
    let (stage, other) = (Stage::on(&cluster, "team"), Stage::on(&cluster, "other"));
    let values = [
        format!(
            "--set=watchNamespace={},rbac.clusterReads=false",
            stage.namespace
        ),
        "--set=gate.verifyCallers={none}".to_owned(),
    ];
    let values = [values[0].as_str(), values[1].as_str()];
    let said = cluster.helm(
        &[
            &["install", "claviger", CHART, "--create-namespace"],
            &values[..],
        ]
        .concat(),
    );
    assert!(
        said.contains("WARNING: gate.verifyCallers is none"),
        "{said}"
    );
    cluster.await_definitions();
    // What issues keys over there is somebody else's; it borrows the account.
    let lent = [
        "create",
        "rolebinding",
        "lent",
        "--clusterrole=admin",
        "--serviceaccount=claviger-system:claviger-controller",
    ];
    other.kubectl(&lent);
    other.kubectl(&[
        "create",
        "role",
        "status",
        "--verb=update,patch",
        "--resource=apikeys.claviger.dev/status",
    ]);
    other.kubectl(&[
        "create",
        "rolebinding",
        "status",
        "--role=status",
        "--serviceaccount=claviger-system:claviger-controller",
    ]);
    // What POD_NAMESPACE says in a pod.
    let beside = format!("--lease-namespace={NAMESPACE}");
    let operator = |stage: &Stage| {
        stage
            .operator()
            .args(&["--cluster-objects=false", &beside])
            .token(cluster.new_token())
            .start_ready()
    };
    let operators = [operator(&stage), operator(&other)];
    let gate = as_deployed(&stage, &values, "gate-of-team");
    for stage in [&stage, &other] {
        stage.declare("k", "{audiences: [invoices-api]}");
        stage.wait_issued("k");
    }
    let code = |stage: &Stage| {
        let (_, answer) = verify(
            &gate,
            None,
            &json!({ "key": stage.mounted("k")["api-key"], "audience": "invoices-api" }),
        );
        answer["code"].clone()
    };
    wait::until("the key of its namespace passes", || match code(&stage) {
        code if code == "VALID" => Ok(()),
        code => Err(code.to_string()),
    });
    assert_eq!(code(&other), "NOT_FOUND", "that is another gate's");
    assert!(gate.stop().success());
    assert!(operators.iter().all(|operator| operator.stop().success()));
}

/// Starts a gate as its Deployment would with these values, and waits until it is ready. Only its addresses are others.
fn as_deployed(stage: &Stage, values: &[&str], pod: &str) -> Gate {
    let objects = stage.cluster.render(values);
    let container = &deployment_of(&objects, "gate")["spec"]["template"]["spec"]["containers"][0];
    let fields: Vec<_> = container["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["valueFrom"]["fieldRef"]["fieldPath"])
        .collect();
    assert_eq!(
        fields,
        ["metadata.namespace", "metadata.name", "metadata.uid"]
    );
    let arguments = arguments_of(&objects, "gate");
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let here = ["--listen=127.0.0.1:0", "--admin-address=127.0.0.1:0"];
    Gate::builder(&stage.cluster)
        .args(&arguments)
        .args(&here)
        .reporting_as(pod)
        .start_ready()
}

/// Asks `/v1/verify`: the status, and what is said.
fn verify(gate: &Gate, token: Option<&str>, question: &Value) -> (u16, Value) {
    let body = question.to_string();
    let bearer = token
        .map(|token| format!("authorization: Bearer {token}\r\n"))
        .unwrap_or_default();
    let always = "host: claviger\r\nconnection: close\r\ncontent-type: application/json";
    let mut stream = TcpStream::connect(gate.plain_address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let length = body.len();
    write!(
        stream,
        "POST /v1/verify HTTP/1.1\r\n{always}\r\n{bearer}content-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (
        status,
        serde_json::from_str(body).unwrap_or_else(|_| json!(body)),
    )
}
