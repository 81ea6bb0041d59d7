//! After all stories: the audit logs tell what the controller and the gates asked the API servers for. They were never denied,
//! and every right that the chart grants them was used (incidents 31).

use std::collections::BTreeSet;

use serde_json::Value;

use crate::stories;
use crate::support::cluster::{ACCOUNT, Cluster, GATE_ACCOUNT};
use crate::support::helm::of_kind;
use crate::support::rights::{self, Right};

stories![programs_have_the_rights_they_need_and_no_others];

fn programs_have_the_rights_they_need_and_no_others() {
    let Some(cluster) = Cluster::shared_if_started() else {
        return;
    };
    rights::gather(&cluster);
    let arguments = libtest_mimic::Arguments::from_args();
    let all_told = arguments.filter.is_none() && arguments.skip.is_empty() && !arguments.ignored;
    if !all_told {
        println!("not every story was told: whether every right was used is not asked");
    }
    for (program, account) in [("controller", ACCOUNT), ("gate", GATE_ACCOUNT)] {
        let requests = rights::gathered(account);
        println!(
            "the {program} used {} rights and was denied {} requests",
            requests.used.len(),
            requests.denied.len()
        );
        assert!(
            requests.denied.is_empty(),
            "the {program} was denied: {:#?}",
            requests.denied
        );
        let granted = granted(&cluster, account);
        assert!(!granted.is_empty());
        let idle: Vec<_> = granted
            .iter()
            .filter(|right| !requests.used.contains(*right))
            .collect();
        assert!(
            !all_told || idle.is_empty(),
            "granted to the {program} and never used: {idle:#?}"
        );
    }
}

/// Every right that the chart grants an account, in the namespace of the release or everywhere.
fn granted(cluster: &Cluster, account: &str) -> BTreeSet<Right> {
    let objects = cluster.render(&[]);
    let mut all = BTreeSet::new();
    for (binding, role) in [
        ("RoleBinding", "Role"),
        ("ClusterRoleBinding", "ClusterRole"),
    ] {
        let bindings = of_kind(&objects, binding)
            .into_iter()
            .filter(|binding| binds(binding, account));
        let names: Vec<_> = bindings
            .map(|binding| &binding["roleRef"]["name"])
            .collect();
        let roles = of_kind(&objects, role)
            .into_iter()
            .filter(|role| names.contains(&&role["metadata"]["name"]));
        all.extend(
            roles
                .flat_map(|role| role["rules"].as_array().unwrap())
                .flat_map(rights_of),
        );
    }
    all
}

fn binds(binding: &Value, account: &str) -> bool {
    let subjects = binding["subjects"].as_array().unwrap();
    subjects.iter().any(|subject| {
        let part = |field: &str| subject[field].as_str().unwrap();
        format!(
            "system:serviceaccount:{}:{}",
            part("namespace"),
            part("name")
        ) == account
    })
}

fn rights_of(rule: &Value) -> Vec<Right> {
    let list = |field: &str| -> Vec<String> {
        rule[field]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one.as_str().unwrap().to_owned())
            .collect()
    };
    let mut all = Vec::new();
    for group in list("apiGroups") {
        for resource in list("resources") {
            all.extend(
                list("verbs")
                    .into_iter()
                    .map(|verb| (verb, group.clone(), resource.clone())),
            );
        }
    }
    all
}
