//! What others keep in the cluster costs the controller nothing.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::stories;
use crate::support::cluster::{Cluster, runtime};
use crate::support::operator::{Builder, Operator};
use crate::support::proxy::{Matcher, Proxy, Verb};
use crate::support::stage::Stage;
use crate::support::wait::{self, LIMIT};

stories![secrets_of_others_cost_no_memory];

const LABEL: &str = "claviger.dev/apikey";
const FOREIGN: usize = 300;
const SIZE: usize = 100_000;
/// A tenth of what the foreign Secrets hold would already be more.
const BOUND_KIB: u64 = 8 * 1_024;

/// Incidents 30: 300 foreign Secrets of 100 kB each, first without, then with the label that we select by: 30 MB that the
/// controller neither asks for nor keeps.
fn secrets_of_others_cost_no_memory() {
    let cluster = Cluster::own();
    let proxy = cluster.proxy();
    let keys = Stage::on(&cluster, "keys");
    let others = Stage::on(&cluster, "others");
    let operator = Builder::for_cluster(&cluster).via(&proxy).start_ready();
    keys.declare_many("key", 20, "{}");
    keys.wait_many(20, claviger::api::Phase::Active);
    relist(&proxy);
    let before = operator.resident_kib();

    others.fill();
    look_at_everything(&keys, &operator, &proxy, "unlabelled");
    let unlabelled = operator.resident_kib();
    others.label();
    look_at_everything(&keys, &operator, &proxy, "labelled");
    let labelled = operator.resident_kib();
    println!(
        "resident: {before} KiB alone, {unlabelled} KiB with 30 MB of others, {labelled} KiB with the same labelled as ours"
    );
    assert!(
        unlabelled < before + BOUND_KIB,
        "{before} KiB before, {unlabelled} KiB with foreign Secrets"
    );
    assert!(
        labelled < before + BOUND_KIB,
        "{before} KiB before, {labelled} KiB with foreign Secrets labelled as ours"
    );

    drop(operator);
    let operator = Builder::for_cluster(&cluster).via(&proxy).start_ready();
    look_at_everything(&keys, &operator, &proxy, "restarted");
    let restarted = operator.resident_kib();
    println!("resident: {restarted} KiB after a restart among them");
    assert!(
        restarted < before + BOUND_KIB,
        "{before} KiB before, {restarted} KiB after a restart"
    );

    let asked: Vec<_> = proxy
        .calls()
        .into_iter()
        .map(|record| record.call)
        .filter(|call| call.resource == "secrets")
        .collect();
    let many: Vec<_> = asked
        .iter()
        .filter(|call| matches!(call.verb, Verb::List | Verb::Watch))
        .collect();
    assert!(many.len() >= 8, "it has listed and watched Secrets");
    for call in many {
        assert_eq!(
            call.parameter("labelSelector"),
            Some(LABEL),
            "{call}: only ours are asked for"
        );
    }
    let foreign = asked
        .iter()
        .find(|call| call.namespace.as_deref() == Some(&others.namespace));
    assert!(
        foreign.is_none(),
        "none of the others' Secrets is asked for: {foreign:?}"
    );
}

/// Lets the controller see everything anew, and issue one more key after it.
fn look_at_everything(keys: &Stage, operator: &Operator, proxy: &Proxy, name: &str) {
    relist(proxy);
    keys.declare(name, "{}");
    keys.wait_issued(name);
    assert!(operator.runs());
}

fn relist(proxy: &Proxy) {
    for resource in ["apikeys", "secrets"] {
        wait::until_true("it watches", || proxy.open_watches(resource) > 0);
        let lists = || proxy.count(|call| Matcher::call(Verb::List, resource).matches(call));
        let before = lists();
        proxy.expire_watches(resource);
        wait::until_true("it lists anew", || {
            lists() > before && proxy.open_watches(resource) > 0
        });
    }
    assert!(proxy.wait_quiet(std::time::Duration::from_millis(500), LIMIT, |_| true));
}

impl Stage {
    /// Many large Secrets that are none of ours.
    fn fill(&self) {
        let api: Api<Secret> = Api::namespaced(self.cluster.client(), &self.namespace);
        let made = futures::stream::iter(0..FOREIGN).map(|number| {
            let (api, data) = (
                api.clone(),
                BTreeMap::from([("blob".to_owned(), ByteString(vec![b'x'; SIZE]))]),
            );
            let metadata = ObjectMeta {
                name: Some(format!("foreign-{number}")),
                ..ObjectMeta::default()
            };
            let secret = Secret {
                metadata,
                data: Some(data),
                ..Secret::default()
            };
            async move { api.create(&PostParams::default(), &secret).await }
        });
        runtime()
            .block_on(made.buffer_unordered(8).try_for_each(async |_| Ok(())))
            .unwrap();
    }

    /// Puts the label on them that we select ours by.
    fn label(&self) {
        let api: Api<Secret> = Api::namespaced(self.cluster.client(), &self.namespace);
        let labelled = futures::stream::iter(0..FOREIGN).map(|number| {
            let (api, patch) = (
                api.clone(),
                json!({ "metadata": { "labels": { LABEL: format!("nobody-{number}") } } }),
            );
            async move {
                api.patch_metadata(
                    &format!("foreign-{number}"),
                    &PatchParams::default(),
                    &Patch::Merge(patch),
                )
                .await
            }
        });
        runtime()
            .block_on(labelled.buffer_unordered(8).try_for_each(async |_| Ok(())))
            .unwrap();
    }
}
