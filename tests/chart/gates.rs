//! The manifests of the gate that the chart renders.

use serde_json::{Value, json};

use crate::stories;
use crate::support::cluster::{Cluster, NAMESPACE};
use crate::support::helm::{CHART, deployment_of, of_kind};
use crate::support::stage::Stage;

stories![
    pods_come_and_go_without_a_question_unanswered,
    an_autoscaler_has_the_say_about_replicas,
    an_upgrade_leaves_the_autoscalers_number_alone,
    what_a_network_policy_lets_through_is_what_is_served,
    envoy_finds_every_gate_behind_the_headless_service,
    notes_warn_where_every_pod_may_ask_as_a_proxy,
    without_a_gate_nothing_of_it_is_installed,
    a_gate_is_admitted_where_only_restricted_pods_are,
];

pub(super) const TLS: &str =
    "gate.tls.secretName=gate-tls,gate.tls.clientCa.secretName=gate-clients";

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
