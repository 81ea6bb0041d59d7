//! Backups and restores: what comes back is what was saved. Nothing is minted anew, and nothing that has ended returns.

mod adopting;
mod anew;
mod commands;
mod order;
mod states;
mod velero;

use std::collections::BTreeMap;
use std::sync::Arc;

use claviger::api::names::LABEL_APIKEY;
use k8s_openapi::ByteString;
use kube::ResourceExt as _;
use kube::api::ObjectMeta;
use serde_json::json;

use crate::support::Story;
use crate::support::cluster::Cluster;
use crate::support::operator::{Builder, Operator};
use crate::support::proxy::Proxy;
use crate::support::stage::Stage;
use crate::support::wait;

/// The stories of all files.
pub(crate) fn stories() -> Vec<Story> {
    [
        commands::stories(),
        order::stories(),
        velero::stories(),
        adopting::stories(),
        anew::stories(),
    ]
    .concat()
}

/// A copy of an object as a backup keeps it: nothing of where it came from, but its labels and annotations.
fn portable<K: kube::Resource + Clone + serde::Serialize>(object: &K) -> String {
    let mut copy = object.clone();
    let old = object.meta();
    *copy.meta_mut() = ObjectMeta {
        name: old.name.clone(),
        labels: old.labels.clone(),
        annotations: old.annotations.clone(),
        ..ObjectMeta::default()
    };
    json!(copy).to_string()
}

/// Puts the status of an ApiKey back from a copy.
fn put_status_back(stage: &Stage, copy: &str) {
    stage.cluster.kubectl_with(
        &[
            "-n",
            &stage.namespace,
            "replace",
            "--subresource=status",
            "-f",
            "-",
        ],
        copy,
    );
}

/// All that a Secret holds.
fn data(stage: &Stage, name: &str) -> Option<BTreeMap<String, ByteString>> {
    stage.secret(name).and_then(|secret| secret.data)
}

/// Waits until a Secret belongs to its ApiKey and the ApiKey knows it.
fn wait_owned(stage: &Stage, name: &str) {
    wait::until(&format!("Secret {name} belongs to its ApiKey"), || {
        let (apikey, secret) = (stage.apikey(name), stage.secret(name).ok_or("none")?);
        let recorded = apikey
            .status
            .as_ref()
            .and_then(|status| status.secret_ref.as_ref())
            .map(|recorded| recorded.uid.clone());
        let owners = secret.owner_references();
        let owned = owners.len() == 1 && Some(&owners[0].uid) == apikey.uid().as_ref();
        let labelled = secret.labels().get(LABEL_APIKEY).map(String::as_str) == Some(name);
        if owned && labelled && recorded == secret.uid() {
            Ok(())
        } else {
            Err(format!("{:?} {recorded:?}", secret.metadata))
        }
    });
}

/// The controller as the installed release would run it, but for what tests need.
fn controller(cluster: &Arc<Cluster>, proxy: Option<&Proxy>) -> Operator {
    let arguments = cluster.kubectl(&[
        "-n",
        "claviger-system",
        "get",
        "deployments",
        "-o",
        "jsonpath={.items[*].spec.template.spec.containers[0].args}",
    ]);
    let held: &[&str] = if arguments.contains("--hold-minting") {
        &["--hold-minting"]
    } else {
        &[]
    };
    let controller = Builder::for_cluster(cluster).args(held);
    match proxy {
        Some(proxy) => controller.via(proxy).start_ready(),
        None => controller.start_ready(),
    }
}
