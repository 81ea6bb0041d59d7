//! The limit: the same writes with bodies of the same size, by a loop that watches nothing and decides nothing.

use std::time::Duration;

use claviger::api::names::{FIELD_MANAGER, FINALIZER};
use claviger::key::{Hash, Key, OsRandom, Prefix};
use futures::StreamExt;
use kube::Client;
use kube::api::{Patch, PatchParams, PostParams, Request};
use serde_json::{Value, json};

use crate::bed::Bed;

const GROUP: &str = "/apis/claviger.dev/v1alpha1";

/// Bodies as the controller writes them. Every key of the loop has the same text: nobody but a gate would mind.
pub(crate) struct Sample {
    announced: Value,
    active: Value,
    secret: Value,
}

impl Sample {
    /// Takes the bodies from a key that the controller has issued.
    pub(crate) async fn of(bed: &Bed, namespace: &str, name: &str) -> Self {
        let get = async |path: &str| {
            let request = Request::new(format!(
                "{path}/namespaces/{namespace}/{}",
                if path == GROUP { "apikeys" } else { "secrets" }
            ));
            let client = &bed.service_account;
            client
                .request::<Value>(
                    request
                        .get(name, &kube::api::GetParams::default())
                        .expect("a request"),
                )
                .await
                .expect("an answer")
        };
        let (apikey, mut secret) = (get(GROUP).await, get("/api/v1").await);
        let key = Key::mint(&Prefix::default(), &mut OsRandom).expect("random bytes");
        let mut active = apikey["status"].clone();
        active["versions"][0]["hash"] = json!(Hash::of(key.expose().as_bytes()).to_string());
        active["hash"] = active["versions"][0]["hash"].clone();
        let mut announced = active.clone();
        announced["phase"] = json!("Pending");
        announced["versions"][0]["phase"] = json!("Announced");
        for later in ["version", "hash", "tail", "issuedAt", "secretRef"] {
            announced.as_object_mut().expect("an object").remove(later);
        }
        announced["versions"][0]
            .as_object_mut()
            .expect("an object")
            .remove("activatedAt");
        for condition in announced["conditions"].as_array_mut().expect("conditions") {
            condition["status"] = json!("False");
        }
        secret["data"] =
            json!({ "api-key": k8s_openapi::ByteString(key.expose().as_bytes().to_vec()) });
        for servers in [
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "managedFields",
        ] {
            secret["metadata"]
                .as_object_mut()
                .expect("an object")
                .remove(servers);
        }
        Self {
            announced,
            active,
            secret,
        }
    }
}

/// Issues the keys of a namespace in a plain loop, and says how long that took.
pub(crate) async fn issue(bed: &Bed, sample: &Sample, namespace: &str, keys: usize) -> Duration {
    let path = format!("{GROUP}/namespaces/{namespace}/apikeys");
    let list = Request::new(&path)
        .list(&kube::api::ListParams::default())
        .expect("a request");
    let list: Value = bed.service_account.request(list).await.expect("a list");
    let meter = bed.meter(namespace, keys).await;
    let items = list["items"].as_array().expect("items").clone();
    assert_eq!(items.len(), keys, "all are declared");
    futures::stream::iter(items)
        .for_each_concurrent(16, |item| {
            issue_one(&bed.service_account, sample, namespace, item)
        })
        .await;
    meter.await.expect("the meter ends")
}

async fn issue_one(client: &Client, sample: &Sample, namespace: &str, apikey: Value) {
    let name = apikey["metadata"]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    let apikeys = Request::new(format!("{GROUP}/namespaces/{namespace}/apikeys"));
    let put = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };

    let patch = json!({ "metadata": {
        "resourceVersion": apikey["metadata"]["resourceVersion"],
        "uid": apikey["metadata"]["uid"],
        "finalizers": [FINALIZER],
    } });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let request = apikeys
        .patch(&name, &params, &Patch::Merge(&patch))
        .expect("a request");
    let apikey: Value = client.request(request).await.expect("the finalizer");

    let body = with_status(apikey, sample.announced.clone());
    let request = apikeys
        .replace_subresource("status", &name, &put, body)
        .expect("a request");
    let apikey: Value = client.request(request).await.expect("the announcement");

    let mut secret = sample.secret.clone();
    secret["metadata"]["name"] = json!(name);
    secret["metadata"]["namespace"] = json!(namespace);
    secret["metadata"]["labels"]["claviger.dev/apikey"] = json!(name);
    secret["metadata"]["ownerReferences"][0]["name"] = json!(name);
    secret["metadata"]["ownerReferences"][0]["uid"] = apikey["metadata"]["uid"].clone();
    let secrets = Request::new(format!("/api/v1/namespaces/{namespace}/secrets"));
    let request = secrets
        .create(&put, secret.to_string().into_bytes())
        .expect("a request");
    let secret: Value = client.request(request).await.expect("the Secret");

    let mut active = sample.active.clone();
    active["secretRef"] = json!({
        "name": name,
        "key": "api-key",
        "uid": secret["metadata"]["uid"],
        "resourceVersion": secret["metadata"]["resourceVersion"],
    });
    let request = apikeys
        .replace_subresource("status", &name, &put, with_status(apikey, active))
        .expect("a request");
    let _: Value = client.request(request).await.expect("the activation");
}

fn with_status(mut apikey: Value, status: Value) -> Vec<u8> {
    apikey["metadata"]
        .as_object_mut()
        .expect("an object")
        .remove("managedFields");
    apikey["status"] = status;
    apikey.to_string().into_bytes()
}
