//! After all stories: the audit logs tell what the controller asked the API servers for. It was never denied, and every right that
//! the chart grants was used (incidents 31).

use std::collections::BTreeSet;

use serde_json::Value;

use crate::stories;
use crate::support::cluster::Cluster;
use crate::support::helm::of_kind;
use crate::support::rights::{self, Right};

stories![the_controller_has_the_rights_it_needs_and_no_others];

fn the_controller_has_the_rights_it_needs_and_no_others() {
    let Some(cluster) = Cluster::shared_if_started() else { return };
    rights::gather(&cluster);
    let requests = rights::gathered();
    println!("the controller used {} rights and was denied {} requests", requests.used.len(), requests.denied.len());
    assert!(requests.denied.is_empty(), "denied: {:#?}", requests.denied);
    let arguments = libtest_mimic::Arguments::from_args();
    if arguments.filter.is_some() || !arguments.skip.is_empty() || arguments.ignored {
        println!("not every story was told: whether every right was used is not asked");
        return;
    }
    let granted = granted(&cluster);
    assert!(!granted.is_empty());
    let idle: Vec<_> = granted.iter().filter(|right| !requests.used.contains(*right)).collect();
    assert!(idle.is_empty(), "granted and never used: {idle:#?}");
}

/// Every right that the chart grants the controller, in the namespace of the Lease or everywhere.
fn granted(cluster: &Cluster) -> BTreeSet<Right> {
    let objects = cluster.render(&[]);
    let name = |object: &Value| text(object["metadata"]["name"].as_str().unwrap());
    let controllers = ["claviger-controller", "claviger-leader-election"];
    let all_roles = of_kind(&objects, "ClusterRole").into_iter().chain(of_kind(&objects, "Role"));
    let rules =
        all_roles.filter(|role| controllers.contains(&name(role).as_str())).flat_map(|role| role["rules"].as_array().unwrap());
    let list = |rule: &Value, field: &str| -> Vec<String> {
        rule[field].as_array().unwrap().iter().map(|one| text(one.as_str().unwrap())).collect()
    };
    let mut all = BTreeSet::new();
    for rule in rules {
        for group in list(rule, "apiGroups") {
            for resource in list(rule, "resources") {
                all.extend(list(rule, "verbs").into_iter().map(|verb| (verb, group.clone(), resource.clone())));
            }
        }
    }
    all
}

fn text(text: &str) -> String {
    text.to_owned()
}
