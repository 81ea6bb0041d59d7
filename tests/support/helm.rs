//! The real helm, and what it makes of the chart.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::cluster::{Cluster, NAMESPACE};

/// The chart as it stands in the checkout.
pub(crate) const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/claviger");

impl Cluster {
    /// Runs helm as administrator in the namespace of the installation; it must succeed.
    pub(crate) fn helm(&self, arguments: &[&str]) -> String {
        let output = self.try_helm(arguments);
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(
            output.status.success(),
            "helm {}: {out}{err}",
            arguments.join(" ")
        );
        out.into_owned()
    }

    /// Runs helm as administrator in the namespace of the installation, whatever comes of it.
    pub(crate) fn try_helm(&self, arguments: &[&str]) -> Output {
        let home = self.control_plane.dir();
        let mut command = Command::new(self.control_plane.helm());
        // What helm keeps goes with the control plane, and nobody's plugins or repositories matter.
        for variable in [
            "HELM_CACHE_HOME",
            "HELM_CONFIG_HOME",
            "HELM_DATA_HOME",
            "KUBECACHEDIR",
        ] {
            command.env(variable, home.join("helm"));
        }
        command
            .args(["--namespace", NAMESPACE])
            .args(arguments)
            .env("KUBECONFIG", self.control_plane.kubeconfig())
            .stdin(Stdio::null())
            .output()
            .expect("helm runs")
    }

    /// Installs the chart of the checkout as the release `claviger`, or upgrades it; more arguments are helm's own. No pod runs
    /// here, so nothing is waited for.
    pub(crate) fn install(&self, arguments: &[&str]) {
        self.helm(
            &[
                &[
                    "upgrade",
                    "--install",
                    "claviger",
                    CHART,
                    "--create-namespace",
                ],
                arguments,
            ]
            .concat(),
        );
    }

    /// What the chart renders to, as the release `claviger`: one object after another.
    pub(crate) fn render(&self, arguments: &[&str]) -> Vec<Value> {
        let text = self.helm(&[&["template", "claviger", CHART], arguments].concat());
        let all: Vec<Value> =
            serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        all.into_iter().filter(|object| !object.is_null()).collect()
    }
}

/// The rendered objects of a kind.
pub(crate) fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .collect()
}

/// The Deployment of the `controller` or the `gate` in a rendering.
pub(crate) fn deployment_of<'a>(objects: &'a [Value], program: &str) -> &'a Value {
    let name = |object: &Value| {
        object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let mut deployments = of_kind(objects, "Deployment").into_iter();
    deployments
        .find(|one| name(one).ends_with(&format!("-{program}")))
        .unwrap_or_else(|| panic!("no Deployment of the {program}"))
}

/// The arguments that a rendering would run the `controller` or the `gate` with, without the subcommand.
pub(crate) fn arguments_of(objects: &[Value], program: &str) -> Vec<String> {
    let deployment = deployment_of(objects, program);
    let arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
        .as_array()
        .expect("arguments");
    let mut arguments: Vec<String> = arguments
        .iter()
        .map(|one| one.as_str().expect("text").to_owned())
        .collect();
    assert_eq!(arguments.remove(0), program);
    arguments
}
