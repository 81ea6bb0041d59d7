//! Values of the gate: what is wrong is refused, and the rest reaches the program.

use std::process::Command;

use super::gates::TLS;
use crate::stories;
use crate::support::cluster::Cluster;
use crate::support::helm::{CHART, arguments_of};

stories![
    values_of_the_gate_that_are_wrong_are_refused_by_name,
    every_flag_value_reaches_the_gate,
    the_program_understands_what_the_chart_tells_it,
];

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
