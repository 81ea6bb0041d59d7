//! What the chart renders, and which values it takes.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::stories;
use crate::support::cluster::Cluster;
use crate::support::helm::{CHART, arguments_of, deployment_of, of_kind};
use crate::support::stage::Stage;

stories![
    the_chart_is_the_version_of_the_program,
    the_chart_carries_every_definition,
    helm_lint_has_nothing_to_say,
    values_that_are_wrong_are_refused_by_name,
    every_flag_value_reaches_the_controller,
    pods_keep_the_strictest_standard,
    a_disruption_budget_only_where_a_replica_can_be_spared,
    every_optional_object_is_taken_by_the_api_server,
    with_one_namespace_nothing_reaches_beyond_it_unless_asked,
];

fn the_chart_is_the_version_of_the_program() {
    let chart: Value =
        serde_saphyr::from_str(include_str!("../../charts/claviger/Chart.yaml")).unwrap();
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

fn the_chart_carries_every_definition() {
    let copy = Path::new(CHART).join("crd-files");
    let files = |folder: &Path| -> Vec<(String, String)> {
        let entries = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries
            .map(|file| {
                (
                    file.file_name().unwrap().to_str().unwrap().to_owned(),
                    std::fs::read_to_string(&file).unwrap(),
                )
            })
            .collect();
        files.sort();
        files
    };
    let shipped = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("crds"));
    assert!(!shipped.is_empty());
    assert!(
        shipped == files(&copy),
        "run `make manifests`: {} is not what crds/ holds",
        copy.display()
    );
    // What is rendered is the definition, with a keep annotation and labels and nothing else.
    let rendered = Cluster::shared().render(&[]);
    let rendered = of_kind(&rendered, "CustomResourceDefinition");
    assert_eq!(rendered.len(), shipped.len());
    for (name, text) in &shipped {
        let definition: Value = serde_saphyr::from_str(text).unwrap();
        let twin = rendered
            .iter()
            .find(|other| other["metadata"]["name"] == definition["metadata"]["name"]);
        let twin = twin.unwrap_or_else(|| panic!("{name} is not rendered"));
        assert_eq!(twin["spec"], definition["spec"], "{name}");
        assert_eq!(
            twin["metadata"]["annotations"],
            json!({ "helm.sh/resource-policy": "keep" })
        );
    }
    let without = Cluster::shared().render(&["--set=crds.enabled=false"]);
    assert!(of_kind(&without, "CustomResourceDefinition").is_empty());
}

fn helm_lint_has_nothing_to_say() {
    let said = Cluster::shared().helm(&["lint", "--strict", CHART]);
    assert!(said.contains("0 chart(s) failed"), "{said}");
    assert!(
        !said.contains("[WARNING]") && !said.contains("[ERROR]"),
        "{said}"
    );
}

/// Whoever mistypes a value learns it before anything is installed.
fn values_that_are_wrong_are_refused_by_name() {
    for (values, words) in [
        (
            "controller.replicas=many",
            &["/controller/replicas", "integer"][..],
        ),
        ("controller.replicas=100", &["/controller/replicas", "5"]),
        ("controller.concurency=4", &["/controller", "concurency"]),
        (
            "controller.concurrency=0",
            &["/controller/concurrency", "1"],
        ),
        (
            "controller.logFormat=xml",
            &["/controller/logFormat", "text", "json"],
        ),
        (
            "controller.announceGrace=soon",
            &["/controller/announceGrace"],
        ),
        (
            "controller.requestTimeout=0s",
            &["/controller/requestTimeout"],
        ),
        (
            "controller.principalDomain=Not A Domain",
            &["/controller/principalDomain"],
        ),
        ("controller.runAsUser=0", &["/controller/runAsUser", "1"]),
        (
            "controller.extraArgs={lease-duration}",
            &["/controller/extraArgs/0"],
        ),
        (
            "controller.resources.limits.memory=much",
            &["/controller/resources/limits/memory"],
        ),
        (
            "controller.tolerations[0].efect=NoSchedule",
            &["/controller/tolerations/0", "efect"],
        ),
        ("watchNamespace=Team_A", &["/watchNamespace"]),
        ("image.digest=sha256:short", &["/image/digest"]),
        (
            "image.pullPolicy=Sometimes",
            &["/image/pullPolicy", "IfNotPresent"],
        ),
        ("crds.keep=perhaps", &["/crds/keep", "boolean"]),
        ("admission.enable=false", &["/admission", "enable"]),
        (
            "clusterRoles.create=some",
            &["/clusterRoles/create", "boolean"],
        ),
        (
            "networkPolicy.apiServerPorts={70000}",
            &["/networkPolicy/apiServerPorts/0", "65,535"],
        ),
        ("crd.enabled=false", &["crd"]),
        (
            "rbac.clusterReads=false",
            &["rbac.clusterReads", "watchNamespace"],
        ),
        (
            "serviceAccount.create=false",
            &["serviceAccount.name", "serviceAccount.create"],
        ),
        (
            "metrics.service=false,metrics.serviceMonitor.enabled=true",
            &["metrics.serviceMonitor.enabled", "metrics.service"],
        ),
    ] {
        let output = template(&[&format!("--set={values}")]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{values} is taken");
        for word in words {
            assert!(
                said.contains(word),
                "{values}: {word:?} is missing in: {said}"
            );
        }
    }
}

fn every_flag_value_reaches_the_controller() {
    let arguments = |values: &[&str]| arguments_of(&Cluster::shared().render(values), "controller");
    let usual = arguments(&[]);
    assert!(
        usual.contains(&"--lease-name=claviger-controller".to_owned()),
        "{usual:?}"
    );
    for unwanted in ["--namespace", "--hold-minting", "--cluster-objects"] {
        assert!(
            !usual.iter().any(|argument| argument.starts_with(unwanted)),
            "{usual:?}"
        );
    }
    for (value, flag) in [
        (
            "controller.principalDomain=keys.example.com",
            "--principal-domain=keys.example.com",
        ),
        ("controller.concurrency=64", "--concurrency=64"),
        ("controller.announceGrace=3m", "--announce-grace=3m"),
        ("controller.gateWait=5s", "--gate-wait=5s"),
        ("controller.requestTimeout=20s", "--request-timeout=20s"),
        ("controller.maxBackoff=90s", "--max-backoff=90s"),
        (
            "controller.logLevel=info\\,kube=debug",
            "--log-level=info,kube=debug",
        ),
        ("controller.logFormat=json", "--log-format=json"),
        ("controller.holdMinting=true", "--hold-minting"),
        ("controller.adminPort=9090", "--admin-address=0.0.0.0:9090"),
        ("controller.adminHost=[::]", "--admin-address=[::]:8080"),
        (
            "controller.extraArgs={--lease-duration=60s}",
            "--lease-duration=60s",
        ),
        ("watchNamespace=team-a", "--namespace=team-a"),
        (
            "watchNamespace=team-a,rbac.clusterReads=false,gate.enabled=false",
            "--cluster-objects=false",
        ),
        ("fullnameOverride=keys", "--lease-name=keys-controller"),
    ] {
        let arguments = arguments(&[&format!("--set={value}")]);
        assert!(
            arguments.contains(&flag.to_owned()),
            "{value}: {arguments:?}"
        );
    }
    // The defaults of the chart are those of the program, or it would matter how one installs.
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_claviger"))
        .args(["controller", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for argument in &usual {
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

/// A pod that is less than restricted would draw a warning in a namespace that asks for them.
fn pods_keep_the_strictest_standard() {
    let stage = Stage::new("restricted");
    let label = "pod-security.kubernetes.io/warn=restricted";
    stage.kubectl(&["label", "namespace", &stage.namespace, label]);
    let objects = stage.cluster.render(&["--set=crds.enabled=false"]);
    let warnings = |deployment: &Value| {
        let mut deployment = deployment.clone();
        deployment["metadata"]["namespace"] = json!(stage.namespace);
        let output = stage.cluster.try_kubectl(
            &["apply", "--dry-run=server", "-f", "-"],
            &deployment.to_string(),
        );
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    };
    let deployments = of_kind(&objects, "Deployment");
    assert!(!deployments.is_empty());
    for deployment in deployments {
        assert_eq!(warnings(deployment), "");
        // The warning would be there if there was something to warn of.
        for (pointer, word) in [
            (
                "/spec/template/spec/containers/0/securityContext",
                "allowPrivilegeEscalation",
            ),
            ("/spec/template/spec/securityContext", "runAsNonRoot"),
        ] {
            let mut lax = deployment.clone();
            *lax.pointer_mut(pointer).unwrap() = json!({});
            let said = warnings(&lax);
            assert!(
                said.contains("would violate PodSecurity") && said.contains(word),
                "{said}"
            );
        }
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsUser"], 65532);
        // Which the standard does not ask for.
        assert!(
            pod["containers"]
                .as_array()
                .unwrap()
                .iter()
                .all(|one| one["securityContext"]["readOnlyRootFilesystem"] == true)
        );
    }
    let open = stage.cluster.render(&["--set=controller.runAsUser=null"]);
    assert!(deployment_of(&open, "controller")["spec"]["template"]["spec"]["securityContext"]["runAsUser"].is_null());
}

fn a_disruption_budget_only_where_a_replica_can_be_spared() {
    for program in ["controller", "gate"] {
        for (replicas, budgets) in [(0, 0), (1, 0), (2, 1), (3, 1)] {
            let objects =
                Cluster::shared().render(&[&format!("--set={program}.replicas={replicas}")]);
            let name = json!(format!("claviger-{program}"));
            let found = of_kind(&objects, "PodDisruptionBudget")
                .iter()
                .filter(|one| one["metadata"]["name"] == name)
                .count();
            assert_eq!(found, budgets, "with {replicas} replicas of the {program}");
            assert_eq!(
                deployment_of(&objects, program)["spec"]["replicas"],
                replicas
            );
        }
    }
}

/// Everything that can be switched on and needs no foreign definition is checked, field by field, by the API server.
fn every_optional_object_is_taken_by_the_api_server() {
    let stage = Stage::new("everything");
    let tls = "gate.tls.secretName=gate-tls,gate.tls.clientCa.secretName=gate-clients,gate.plainHttp=false";
    let digest = format!("--set=image.digest=sha256:{}", "0123456789abcdef".repeat(4));
    let required =
        "controller.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution";
    let term = format!("{required}.nodeSelectorTerms[0].matchExpressions[0]");
    let objects = stage.cluster.render(&[
        "--set=crds.enabled=false,networkPolicy.enabled=true,imagePullSecrets[0].name=registry",
        &digest,
        "--set=networkPolicy.ingressFrom[0].namespaceSelector.matchLabels.team=monitoring",
        "--set=controller.priorityClassName=system-cluster-critical,controller.nodeSelector.zone=a,controller.podLabels.team=a",
        "--set=controller.tolerations[0].key=dedicated,controller.tolerations[0].operator=Exists",
        &format!("--set={term}.key=a,{term}.operator=Exists"),
        "--set=controller.podAnnotations.note=x,serviceAccount.annotations.note=x",
        &format!("--set={tls},gate.autoscaling.enabled=true,gate.service.trafficDistribution=PreferSameZone"),
        "--set=gate.networkPolicy.enabled=true,gate.networkPolicy.ingressFrom[0].podSelector.matchLabels.app=envoy",
        "--set=gate.priorityClassName=system-cluster-critical,gate.nodeSelector.zone=a,gate.podLabels.team=a",
        "--set=gate.podAnnotations.note=x,gate.serviceAccount.annotations.note=x",
        "--set=gate.tolerations[0].key=dedicated,gate.tolerations[0].operator=Exists,gate.service.annotations.note=x",
    ]);
    let mut kinds = Vec::new();
    for mut object in objects {
        if object["metadata"]["namespace"].is_string() {
            object["metadata"]["namespace"] = json!(stage.namespace);
        }
        let arguments = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--validate=strict",
            "--warnings-as-errors",
            "--dry-run=server",
            "-f",
            "-",
        ];
        stage.cluster.kubectl_with(&arguments, &object.to_string());
        kinds.push(object["kind"].as_str().unwrap().to_owned());
    }
    for (kind, count) in [
        ("Deployment", 2),
        ("NetworkPolicy", 2),
        ("PodDisruptionBudget", 2),
        ("HorizontalPodAutoscaler", 1),
        ("Service", 4),
        ("ServiceAccount", 2),
    ] {
        assert_eq!(
            kinds.iter().filter(|one| *one == kind).count(),
            count,
            "{kind} among {kinds:?}"
        );
    }
    let monitored = stage
        .cluster
        .render(&["--set=metrics.serviceMonitor.enabled=true"]);
    assert_eq!(of_kind(&monitored, "ServiceMonitor").len(), 2);
}

fn with_one_namespace_nothing_reaches_beyond_it_unless_asked() {
    let cluster = Cluster::shared();
    let alone = cluster.render(&[
        "--set=watchNamespace=team-a,rbac.clusterReads=false",
        "--set=gate.verifyCallers={none}",
    ]);
    assert!(
        of_kind(&alone, "ClusterRole")
            .iter()
            .all(|role| !bound(&alone, role)),
        "no right in the whole cluster"
    );
    let reading = cluster.render(&["--set=watchNamespace=team-a"]);
    let whole = cluster.render(&[]);
    let rules_of = |objects: &[Value], kind: &str, name: &str| {
        let roles = of_kind(objects, kind);
        let role = roles
            .iter()
            .find(|role| role["metadata"]["name"] == name)
            .unwrap_or_else(|| panic!("no {kind} {name}"));
        role["rules"].as_array().unwrap().clone()
    };
    let own = rules_of(&alone, "Role", "claviger-controller");
    assert_eq!(own, rules_of(&reading, "Role", "claviger-controller"));
    let reads = rules_of(
        &reading,
        "ClusterRole",
        "claviger-controller-reads-claviger-system",
    );
    for rule in &reads {
        assert_eq!(rule["verbs"], json!(["list", "watch"]), "only to be read");
        assert!(
            !rule["resources"]
                .as_array()
                .unwrap()
                .contains(&json!("secrets"))
        );
    }
    // Gates are beside their controller, which is not always the namespace that is worked on.
    let mut gates = rules_of(&alone, "Role", "claviger-controller-gates");
    assert_eq!(
        gates,
        rules_of(&reading, "Role", "claviger-controller-gates")
    );
    let told = gates.pop().unwrap();
    assert!(own.contains(&told), "events about them are told there, too");
    assert_eq!(
        [own, gates, reads].concat(),
        rules_of(&whole, "ClusterRole", "claviger-controller"),
        "together they are the usual rights"
    );
}

/// Whether a role is bound to anybody by the chart.
fn bound(objects: &[Value], role: &Value) -> bool {
    of_kind(objects, "ClusterRoleBinding")
        .iter()
        .any(|binding| binding["roleRef"]["name"] == role["metadata"]["name"])
}

fn template(arguments: &[&str]) -> Output {
    Cluster::shared().try_helm(&[&["template", "claviger", CHART], arguments].concat())
}
