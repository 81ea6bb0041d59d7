//! The gate's part of the chart: what it renders, and a gate that runs as it would be deployed.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::stories;
use crate::support::cluster::{Cluster, NAMESPACE};
use crate::support::gate::Gate;
use crate::support::helm::{CHART, arguments_of, deployment_of, of_kind};
use crate::support::stage::Stage;
use crate::support::wait;

stories![
    values_of_the_gate_that_are_wrong_are_refused_by_name,
    every_flag_value_reaches_the_gate,
    the_program_understands_what_the_chart_tells_it,
    pods_come_and_go_without_a_question_unanswered,
    an_autoscaler_has_the_say_about_replicas,
    an_upgrade_leaves_the_autoscalers_number_alone,
    what_a_network_policy_lets_through_is_what_is_served,
    envoy_finds_every_gate_behind_the_headless_service,
    notes_warn_where_every_pod_may_ask_as_a_proxy,
    without_a_gate_nothing_of_it_is_installed,
    a_gate_is_admitted_where_only_restricted_pods_are,
    a_gate_that_runs_as_deployed_answers_whoever_may_ask,
    in_one_namespace_a_gate_knows_that_namespace_only,
];

const TLS: &str = "gate.tls.secretName=gate-tls,gate.tls.clientCa.secretName=gate-clients";

fn values_of_the_gate_that_are_wrong_are_refused_by_name() {
    for (values, words) in [
        ("gate.replicas=101", &["/gate/replicas", "100"][..]),
        ("gate.enable=false", &["/gate", "enable"]),
        (
            "gate.verifyCallers={jwt}",
            &["/gate/verifyCallers/0", "token", "mtls", "none"],
        ),
        (
            "gate.verifyCallers={token,mtls,token}",
            &["/gate/verifyCallers", "maxItems"],
        ),
        (
            "gate.verifyCallers={none,token}",
            &["gate.verifyCallers", "leave either out"],
        ),
        (
            "gate.verifyCallers={mtls}",
            &["gate.verifyCallers", "mtls", "gate.tls.clientCa.secretName"],
        ),
        (
            "gate.proxyCallers=mtls",
            &["gate.proxyCallers", "mtls", "gate.tls.clientCa.secretName"],
        ),
        (
            "gate.proxyCallers=mtls,gate.tls.secretName=t",
            &["gate.proxyCallers", "gate.tls.clientCa.secretName"],
        ),
        ("gate.proxyCallers=token", &["/gate/proxyCallers", "mtls"]),
        (
            "gate.tls.clientCa.secretName=ca",
            &["gate.tls.clientCa.secretName", "gate.tls.secretName"],
        ),
        ("gate.tls.secret=t", &["/gate/tls", "secret"]),
        (
            "gate.plainHttp=false",
            &["gate.plainHttp", "gate.tls.secretName"],
        ),
        ("gate.tokenCache=soon", &["/gate/tokenCache"]),
        ("gate.tokenAudiences={a b}", &["/gate/tokenAudiences/0"]),
        (
            "gate.maxStaleness=35s",
            &["gate.maxStaleness", "gate.watchTimeout"],
        ),
        (
            "gate.maxStaleness=1m,gate.watchTimeout=1m",
            &["gate.maxStaleness", "gate.watchTimeout"],
        ),
        ("gate.watchTimeout=10ms", &["/gate/watchTimeout"]),
        ("gate.maxConnections=0", &["/gate/maxConnections", "1"]),
        ("gate.accessLog=some", &["/gate/accessLog", "refused"]),
        ("gate.drain=1000s", &["/gate/drain"]),
        ("gate.preStopSeconds=301", &["/gate/preStopSeconds", "300"]),
        ("gate.logFormat=xml", &["/gate/logFormat", "json"]),
        ("gate.runAsUser=0", &["/gate/runAsUser", "1"]),
        ("gate.host=localhost", &["/gate/host"]),
        (
            "gate.service.trafficDistribution=Near",
            &["/gate/service/trafficDistribution", "PreferSameZone"],
        ),
        (
            "gate.autoscaling.maxReplicas=0",
            &["/gate/autoscaling/maxReplicas", "1"],
        ),
        (
            "gate.autoscaling.enabled=true,gate.autoscaling.minReplicas=11",
            &["minReplicas", "maxReplicas"],
        ),
        (
            "gate.autoscaling.enabled=true,gate.resources.requests.cpu=null",
            &["gate.resources.requests.cpu"],
        ),
        (
            "gate.networkPolicy.ingressFrom[0].podSelektor=x",
            &["/gate/networkPolicy/ingressFrom/0", "podSelektor"],
        ),
        // It would let everybody in, and look as if it did not.
        (
            "gate.networkPolicy.enabled=true",
            &["gate.networkPolicy.ingressFrom", "a policy without peers"],
        ),
        (
            "gate.serviceAccount.create=false",
            &["gate.serviceAccount.name", "gate.serviceAccount.create"],
        ),
        // Whose token it is, only the cluster can say.
        (
            "watchNamespace=team-a,rbac.clusterReads=false",
            &[
                "gate.verifyCallers",
                "token",
                "rbac.clusterReads",
                "system:auth-delegator",
            ],
        ),
    ] {
        let output = Cluster::shared().try_helm(&[
            "template",
            "claviger",
            CHART,
            &format!("--set={values}"),
        ]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{values} is taken");
        for word in words {
            assert!(
                said.contains(word),
                "{values}: {word:?} is missing in: {said}"
            );
        }
    }
    for values in [
        "gate.proxyCallers=mtls,gate.tls.secretName=t,gate.tls.clientCa.secretName=ca",
        "gate.maxStaleness=35001ms",
        // Somebody else grants what is needed.
        "watchNamespace=team-a,rbac.clusterReads=false,rbac.create=false",
        // An `off` without quotes, as YAML reads it.
        "gate.accessLog=false",
    ] {
        arguments_of(
            &Cluster::shared().render(&[&format!("--set={values}")]),
            "gate",
        );
    }
}

fn every_flag_value_reaches_the_gate() {
    let arguments = |values: &[&str]| arguments_of(&Cluster::shared().render(values), "gate");
    let usual = arguments(&[]);
    for unwanted in [
        "--namespace",
        "--cluster-objects",
        "--listen-tls",
        "--tls",
        "--routes-without",
        "--max-staleness",
        "--max-connections",
    ] {
        assert!(
            !usual.iter().any(|argument| argument.starts_with(unwanted)),
            "{usual:?}"
        );
    }
    let tls = |more: &str| format!("{TLS},{more}");
    for (value, flag) in [
        ("gate.tokenCache=1m", "--token-cache=1m"),
        (
            "gate.tokenAudiences={a,https://b}",
            "--token-audience=https://b",
        ),
        ("gate.verifyCallers={none}", "--verify-callers=none"),
        (
            &tls("gate.verifyCallers={mtls,token}"),
            "--verify-callers=mtls,token",
        ),
        (&tls("gate.proxyCallers=mtls"), "--proxy-callers=mtls"),
        (
            &tls("gate.proxyCallers=mtls"),
            "--tls-client-ca=/etc/claviger/client-ca/ca.crt",
        ),
        (
            "gate.tls.secretName=t",
            "--tls-cert=/etc/claviger/tls/tls.crt",
        ),
        (
            "gate.tls.secretName=t",
            "--tls-key=/etc/claviger/tls/tls.key",
        ),
        (
            "gate.tls.secretName=t,gate.host=[::]",
            "--listen-tls=[::]:8443",
        ),
        ("gate.host=[::]", "--listen=[::]:8081"),
        ("gate.host=[::]", "--admin-address=[::]:8080"),
        (
            "gate.routesWithoutAudience=true",
            "--routes-without-audience",
        ),
        ("gate.maxStaleness=10m", "--max-staleness=10m"),
        ("gate.watchTimeout=60s", "--watch-timeout=60s"),
        ("gate.maxConnections=1000000", "--max-connections=1000000"),
        ("gate.drain=2m", "--drain=2m"),
        ("gate.accessLog=refused", "--access-log=refused"),
        ("gate.accessLog=false", "--access-log=off"),
        (
            "gate.logLevel=info\\,kube=debug",
            "--log-level=info,kube=debug",
        ),
        ("gate.logFormat=json", "--log-format=json"),
        ("gate.extraArgs={--report=false}", "--report=false"),
        ("watchNamespace=team-a", "--namespace=team-a"),
        (
            "watchNamespace=team-a,rbac.clusterReads=false,gate.verifyCallers={none}",
            "--cluster-objects=false",
        ),
    ] {
        let arguments = arguments(&[&format!("--set={value}")]);
        assert!(
            arguments.contains(&flag.to_owned()),
            "{value}: {arguments:?}"
        );
    }
    let only_tls = arguments(&["--set=gate.plainHttp=false,gate.tls.secretName=t"]);
    assert!(
        !only_tls
            .iter()
            .any(|argument| argument.starts_with("--listen=")),
        "{only_tls:?}"
    );
    // The defaults of the chart are those of the program. Where it listens, only the chart can say:
    // a pod has all ports to itself.
    let help = Command::new(env!("CARGO_BIN_EXE_claviger"))
        .args(["gate", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for argument in usual.iter().filter(|argument| {
        !argument.starts_with("--listen") && !argument.starts_with("--admin-address")
    }) {
        let (flag, value) = argument.split_once('=').unwrap();
        let about = help
            .split(&format!("{flag} <"))
            .nth(1)
            .unwrap_or_else(|| panic!("no flag {flag}"));
        let default = about
            .split("[default: ")
            .nth(1)
            .and_then(|rest| rest.split(']').next());
        assert_eq!(default, Some(value), "{flag}");
    }
}

/// With every value set, the program goes as far as its kubeconfig, which is read after all arguments.
fn the_program_understands_what_the_chart_tells_it() {
    let everything = [
        "--set=gate.verifyCallers={mtls,token},gate.proxyCallers=mtls,gate.maxStaleness=10m,gate.routesWithoutAudience=true",
        "--set=gate.tokenAudiences={a,b},gate.accessLog=all,gate.logFormat=json,gate.extraArgs={--report=false}",
        "--set=watchNamespace=team-a,gate.host=[::]",
    ];
    let tls = format!("--set={TLS}");
    for values in [&[][..], &[&[tls.as_str()], &everything[..]].concat()] {
        let arguments = arguments_of(&Cluster::shared().render(values), "gate");
        let run = |more: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
            let output = command
                .arg("gate")
                .args(&arguments)
                .args(more)
                .env_clear()
                .output()
                .unwrap();
            assert!(!output.status.success());
            String::from_utf8_lossy(&output.stderr).into_owned()
        };
        let said = run(&["--kubeconfig=/no/such/file"]);
        assert!(
            said.contains("kubeconfig")
                && said.contains("/no/such/file")
                && !said.contains("Usage"),
            "{said}"
        );
        // It would say so if it did not.
        let said = run(&["--kubeconfig=/no/such/file", "--no-such-flag"]);
        assert!(
            said.contains("--no-such-flag") && said.contains("Usage"),
            "{said}"
        );
    }
}

fn pods_come_and_go_without_a_question_unanswered() {
    for (values, pre_stop, grace) in [
        ("gate.drain=20s", 5, 35),
        ("gate.drain=2m,gate.preStopSeconds=15", 15, 145),
        ("gate.drain=1s,gate.preStopSeconds=1", 1, 12),
    ] {
        let objects = Cluster::shared().render(&[&format!("--set={values}")]);
        let deployment = deployment_of(&objects, "gate");
        assert_eq!(
            deployment["spec"]["strategy"]["rollingUpdate"],
            json!({ "maxUnavailable": 0, "maxSurge": 1 })
        );
        let pod = &deployment["spec"]["template"]["spec"];
        let gate = &pod["containers"][0];
        assert_eq!(
            gate["lifecycle"],
            json!({ "preStop": { "sleep": { "seconds": pre_stop } } }),
            "{values}"
        );
        assert_eq!(pod["terminationGracePeriodSeconds"], grace, "{values}");
        let path = |probe: &str| {
            (
                gate[probe]["httpGet"]["path"].clone(),
                gate[probe]["httpGet"]["port"].clone(),
            )
        };
        assert_eq!(path("startupProbe"), (json!("/healthz"), json!("admin")));
        assert_eq!(path("livenessProbe"), path("startupProbe"));
        assert_eq!(path("readinessProbe"), (json!("/readyz"), json!("admin")));
    }
    let at_once = Cluster::shared().render(&["--set=gate.preStopSeconds=0"]);
    assert!(
        deployment_of(&at_once, "gate")["spec"]["template"]["spec"]["containers"][0]["lifecycle"]
            .is_null()
    );
}

/// An upgrade that says how many there are would undo what the autoscaler did.
fn an_autoscaler_has_the_say_about_replicas() {
    let usual = Cluster::shared().render(&[]);
    assert_eq!(deployment_of(&usual, "gate")["spec"]["replicas"], 2);
    assert!(of_kind(&usual, "HorizontalPodAutoscaler").is_empty());
    let growing = Cluster::shared()
        .render(&["--set=gate.autoscaling.enabled=true,gate.autoscaling.maxReplicas=7"]);
    let deployment = deployment_of(&growing, "gate");
    assert!(deployment["spec"]["replicas"].is_null());
    let [scaler] = of_kind(&growing, "HorizontalPodAutoscaler")[..] else {
        panic!("one")
    };
    assert_eq!(
        scaler["spec"]["scaleTargetRef"]["name"],
        deployment["metadata"]["name"]
    );
    assert_eq!(
        (
            &scaler["spec"]["minReplicas"],
            &scaler["spec"]["maxReplicas"]
        ),
        (&json!(2), &json!(7))
    );
}

/// What an autoscaler does is done here by hand: none runs.
fn an_upgrade_leaves_the_autoscalers_number_alone() {
    let cluster = Cluster::without_claviger();
    let chart = [
        "upgrade",
        "--install",
        "claviger",
        CHART,
        "--create-namespace",
        "--reset-then-reuse-values",
    ];
    let upgrade = |value: &str| cluster.helm(&[&chart[..], &[value]].concat());
    let deployment = ["-n", NAMESPACE, "deployment/claviger-gate"];
    let replicas = || {
        cluster.kubectl(
            &[
                &["get"],
                &deployment[..],
                &["-o", "jsonpath={.spec.replicas}"],
            ]
            .concat(),
        )
    };
    upgrade("--set=gate.replicas=3");
    assert_eq!(replicas(), "3");
    upgrade("--set=gate.autoscaling.enabled=true");
    assert_eq!(replicas(), "1", "as values.yaml warns");
    cluster.kubectl(&[&["scale"], &deployment[..], &["--replicas=7"]].concat());
    upgrade("--set=gate.logFormat=json");
    assert_eq!(replicas(), "7");
    upgrade("--set=gate.autoscaling.enabled=false");
    assert_eq!(replicas(), "3");
}

fn what_a_network_policy_lets_through_is_what_is_served() {
    let from = "--set=gate.networkPolicy.enabled=true,gate.networkPolicy.ingressFrom[0].podSelector.matchLabels.app=envoy";
    let monitoring =
        "--set=networkPolicy.ingressFrom[0].namespaceSelector.matchLabels.team=monitoring";
    for (values, ports) in [
        ("", &["http"][..]),
        (TLS, &["http", "https"]),
        (&format!("{TLS},gate.plainHttp=false"), &["https"]),
    ] {
        let objects = Cluster::shared().render(&[from, monitoring, &format!("--set={values}")]);
        let names = |ports: &Value, field: &str| -> Vec<String> {
            ports
                .as_array()
                .unwrap()
                .iter()
                .map(|port| port[field].as_str().unwrap().to_owned())
                .collect()
        };
        let service = of_kind(&objects, "Service")
            .into_iter()
            .find(|one| one["metadata"]["name"] == "claviger-gate")
            .unwrap();
        assert_eq!(names(&service["spec"]["ports"], "targetPort"), ports);
        let container =
            &deployment_of(&objects, "gate")["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(
            names(&container["ports"], "name"),
            [ports, &["admin"]].concat()
        );
        let [policy] = of_kind(&objects, "NetworkPolicy")[..] else {
            panic!("the gate's has a switch of its own")
        };
        let ingress = policy["spec"]["ingress"].as_array().unwrap();
        assert_eq!(names(&ingress[0]["ports"], "port"), ports);
        assert_eq!(
            ingress[0]["from"],
            json!([{ "podSelector": { "matchLabels": { "app": "envoy" } } }])
        );
        assert_eq!(names(&ingress[1]["ports"], "port"), ["admin"]);
        assert_eq!(
            ingress[1]["from"],
            json!([{ "namespaceSelector": { "matchLabels": { "team": "monitoring" } } }])
        );
        assert_eq!(
            policy["spec"]["egress"][0]["ports"][0],
            json!({ "port": 443, "protocol": "TCP" })
        );
    }
}

fn without_a_gate_nothing_of_it_is_installed() {
    let objects = Cluster::shared().render(&[
        "--set=gate.enabled=false,gate.networkPolicy.enabled=true,gate.autoscaling.enabled=true",
    ]);
    let named = |object: &Value| {
        object["metadata"]["name"]
            .as_str()
            .unwrap()
            .starts_with("claviger-gate")
    };
    let left: Vec<_> = objects
        .iter()
        .filter(|one| named(one) && !is_of_the_cluster(one))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let usual = Cluster::shared().render(&[]);
    let count = usual
        .iter()
        .filter(|one| named(one) && !is_of_the_cluster(one))
        .count();
    assert_eq!(
        count, 10,
        "account, three Services, Deployment, budget, and two roles with their bindings"
    );
}

/// The admission policy is the cluster's, whichever release has gates.
fn is_of_the_cluster(object: &Value) -> bool {
    object["kind"]
        .as_str()
        .unwrap()
        .starts_with("ValidatingAdmissionPolicy")
}

/// One connection to a cluster IP would be one gate for as long as it lasts.
fn envoy_finds_every_gate_behind_the_headless_service() {
    let ports = |values: &str| {
        let objects = Cluster::shared().render(&[&format!("--set={values}")]);
        let services = of_kind(&objects, "Service");
        let named = |name: &str| {
            let mut all = services.iter();
            let found = all.find(|one| one["metadata"]["name"] == name);
            found.unwrap_or_else(|| panic!("no {name}"))["spec"].clone()
        };
        let headless = named("claviger-gate-headless");
        assert_eq!(headless["clusterIP"], "None");
        assert_eq!(headless["publishNotReadyAddresses"], false);
        assert_eq!(headless["selector"], named("claviger-gate")["selector"]);
        headless["ports"].clone()
    };
    let grpc = json!({ "name": "grpc", "port": 8081, "targetPort": "http" });
    let grpc_tls = json!({ "name": "grpc-tls", "port": 8443, "targetPort": "https" });
    assert_eq!(ports(""), json!([grpc]));
    assert_eq!(ports(TLS), json!([grpc, grpc_tls]));
    assert_eq!(
        ports(&format!("{TLS},gate.plainHttp=false")),
        json!([grpc_tls])
    );
}

fn notes_warn_where_every_pod_may_ask_as_a_proxy() {
    let peers = "gate.networkPolicy.ingressFrom[0].podSelector.matchLabels.app=envoy";
    for (values, warned) in [
        ("", true),
        (TLS, true),
        (peers, true),
        (&format!("gate.networkPolicy.enabled=true,{peers}"), false),
        (&format!("{TLS},gate.proxyCallers=mtls"), false),
        ("gate.enabled=false", false),
    ] {
        let values = format!("--set={values}");
        let dry = ["install", "claviger", CHART, "--dry-run=client", &values];
        let said = Cluster::shared().helm(&dry);
        let notes = said.split("NOTES:").nth(1).expect("notes");
        let warning = [
            "WARNING",
            "/v1/auth",
            "gate.proxyCallers=mtls",
            "gate.networkPolicy.ingressFrom",
        ];
        let there = warning.iter().all(|word| notes.contains(word));
        assert_eq!(there, warned, "{values}: {notes}");
    }
}

/// Real pods this time: the API server refuses those that are less than restricted.
fn a_gate_is_admitted_where_only_restricted_pods_are() {
    let stage = Stage::new("enforcing");
    stage.kubectl(&[
        "label",
        "namespace",
        &stage.namespace,
        "pod-security.kubernetes.io/enforce=restricted",
    ]);
    stage.kubectl(&["create", "serviceaccount", "claviger-gate"]);
    for (name, values) in [("plain", ""), ("tls", TLS)] {
        let objects = stage.cluster.render(&[&format!("--set={values}")]);
        let template = &deployment_of(&objects, "gate")["spec"]["template"];
        let metadata =
            |name: &str| json!({ "name": name, "labels": template["metadata"]["labels"] });
        let pod = |name: &str, spec: &Value| json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata(name), "spec": spec });
        stage.apply(&pod(name, &template["spec"]).to_string());
        let mut lax = template["spec"].clone();
        lax["containers"][0]["securityContext"]["capabilities"] = Value::Null;
        let said = stage.refused(&pod(&format!("{name}-lax"), &lax).to_string());
        assert!(
            said.contains("violates PodSecurity \"restricted") && said.contains("capabilities"),
            "{said}"
        );
    }
}

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
