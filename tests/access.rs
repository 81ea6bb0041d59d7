//! Who may do what, as people meet it who have nothing but the ClusterRoles that are shipped, and what kubectl tells them.

mod checked;
mod finalizing;
mod gates;
mod granting;
mod importing;
mod limits;
mod newer;
mod older;
mod people;
mod revoking;

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::control_plane::Auth;
use crate::support::stage::{Stage, manifest};
use crate::support::{Story, wait};

pub(crate) fn stories() -> Vec<Story> {
    [
        checked::stories(),
        finalizing::stories(),
        gates::stories(),
        granting::stories(),
        importing::stories(),
        limits::stories(),
        newer::stories(),
        older::stories(),
        people::stories(),
        revoking::stories(),
    ]
    .concat()
}

/// The shipped ClusterRoles, which reach a person through a RoleBinding in the story's namespace.
const DEVELOPER: &str = "claviger-developer";
const ADMIN: &str = "claviger-admin";

/// Somebody who has what was bound to them in the story's namespace, and nothing else.
struct Person<'a> {
    stage: &'a Stage,
    name: String,
    kubeconfig: PathBuf,
}

impl<'a> Person<'a> {
    /// Somebody with these ClusterRoles.
    fn new(stage: &'a Stage, name: &str, cluster_roles: &[&str]) -> Self {
        Self::in_groups(stage, name, &[], cluster_roles)
    }

    /// Somebody in these groups, two at most, with these ClusterRoles.
    fn in_groups(stage: &'a Stage, name: &str, groups: &[&str], cluster_roles: &[&str]) -> Self {
        let control_plane = &stage.cluster.control_plane;
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let auth = Auth::ClientCert {
            user: name.to_owned(),
            groups,
        };
        let kubeconfig = control_plane
            .write_kubeconfig(
                &format!("{}-{name}", stage.namespace),
                control_plane.url(),
                auth,
            )
            .unwrap_or_else(|error| panic!("{error}"));
        let person = Self {
            stage,
            name: name.to_owned(),
            kubeconfig,
        };
        for role in cluster_roles {
            let binding = format!("{name}-{role}");
            stage.kubectl(&[
                "create",
                "rolebinding",
                &binding,
                &format!("--clusterrole={role}"),
                &format!("--user={name}"),
            ]);
        }
        if !cluster_roles.is_empty() {
            person.wait_may("get", "claviger.dev", "apikeys", "any");
        }
        person
    }

    /// Gives them one verb on some names, or on all where there are none.
    fn give(&self, verb: &str, group: &str, resource: &str, names: &[&str]) {
        let given = format!("{}-{verb}-{resource}", self.name);
        let mut rule = json!({ "apiGroups": [group], "resources": [resource], "verbs": [verb] });
        if !names.is_empty() {
            rule["resourceNames"] = json!(names);
        }
        self.stage.apply(
            &json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": given }, "rules": [rule],
            })
            .to_string(),
        );
        self.stage.kubectl(&[
            "create",
            "rolebinding",
            &given,
            &format!("--role={given}"),
            &format!("--user={}", self.name),
        ]);
        self.wait_may(verb, group, resource, names.first().unwrap_or(&"any"));
    }

    /// Waits until the API server knows a right that was just given.
    fn wait_may(&self, verb: &str, group: &str, resource: &str, name: &str) {
        let attributes = json!({ "namespace": self.stage.namespace, "verb": verb, "group": group, "resource": resource, "name": name });
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": { "user": self.name, "resourceAttributes": attributes },
        });
        wait::until(&format!("{} may {verb} {resource}", self.name), || {
            let asked = ["create", "-o", "jsonpath={.status.allowed}", "-f", "-"];
            let answer = self.stage.cluster.kubectl_with(&asked, &review.to_string());
            if answer == "true" {
                Ok(())
            } else {
                Err(answer)
            }
        });
    }

    /// Runs kubectl as them, whatever comes of it: whether it succeeded, and what it said.
    fn try_kubectl(&self, arguments: &[&str], input: &str) -> (bool, String) {
        let kubeconfig = self.kubeconfig.display().to_string();
        // Said twice, the later counts.
        let all = [
            &["--kubeconfig", &kubeconfig, "-n", &self.stage.namespace],
            arguments,
        ]
        .concat();
        let output = self.stage.cluster.try_kubectl(&all, input);
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.success(), said)
    }

    /// Runs kubectl as them; it must succeed.
    fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        let (succeeded, said) = self.try_kubectl(arguments, input);
        assert!(
            succeeded,
            "{} kubectl {}: {said}",
            self.name,
            arguments.join(" ")
        );
        said
    }

    /// Runs kubectl as them; it must be refused with these words.
    fn refused(&self, arguments: &[&str], input: &str, words: &[&str]) {
        let (succeeded, said) = self.try_kubectl(arguments, input);
        assert!(
            !succeeded,
            "{} kubectl {}: {said}",
            self.name,
            arguments.join(" ")
        );
        for word in words {
            assert!(
                said.contains(word),
                "{} kubectl {}: {word:?} is not in {said:?}",
                self.name,
                arguments.join(" ")
            );
        }
    }

    /// Applies an ApiKey with this spec.
    fn declares(&self, name: &str, spec: &str) -> String {
        self.kubectl(&["apply", "-f", "-"], &manifest(name, spec))
    }

    /// Applies an ApiKey with this spec, and is refused with these words.
    fn may_not_declare(&self, name: &str, spec: &str, words: &[&str]) {
        self.refused(&["apply", "-f", "-"], &manifest(name, spec), words);
    }

    /// Merges something into an ApiKey.
    fn patches(&self, name: &str, patch: &Value) -> String {
        self.kubectl(
            &[
                "patch",
                "apikey",
                name,
                "--type=merge",
                "-p",
                &patch.to_string(),
            ],
            "",
        )
    }

    /// Merges something into an ApiKey, and is refused with these words.
    fn may_not_patch(&self, name: &str, patch: &Value, words: &[&str]) {
        self.refused(
            &[
                "patch",
                "apikey",
                name,
                "--type=merge",
                "-p",
                &patch.to_string(),
            ],
            "",
            words,
        );
    }
}

/// The resourceVersion of an ApiKey.
fn resource_version(stage: &Stage, name: &str) -> String {
    stage
        .apikey(name)
        .metadata
        .resource_version
        .unwrap_or_default()
}

/// `role-1` to `role-16`.
fn numbered(beginning: &str, count: usize) -> Vec<String> {
    (1..=count)
        .map(|number| format!("{beginning}{number}"))
        .collect()
}
