//! What somebody can do who got hold of a gate's token: next to nothing. A gate faces the network, and is asked by everybody.

use std::collections::BTreeSet;

use http::{Method, Request};
use kube::Client;
use serde_json::{Value, json};

use super::{ADMIN, Person};
use crate::stories;
use crate::support::cluster::{GATE_ACCOUNT, NAMESPACE, config, runtime};
use crate::support::control_plane::Auth;
use crate::support::rights::TRESPASSER;
use crate::support::stage::Stage;
use crate::support::wait;

stories![
    a_gates_rights_are_these_and_no_others,
    a_gates_token_reads_no_secret_and_makes_no_key_valid,
    a_gate_writes_its_own_report_and_no_others,
    who_looks_after_keys_sees_gates_and_may_ask_them,
];

/// Somebody with the token of a gate's pod. That pod runs nowhere.
struct Trespasser {
    pod: String,
    client: Client,
}

impl Trespasser {
    fn new(stage: &Stage, name: &str) -> Self {
        let pod = format!("{TRESPASSER}{name}-{}", stage.namespace);
        let spec = json!({ "serviceAccountName": "claviger-gate", "containers": [{ "name": "gate", "image": "none" }] });
        let manifest = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": pod, "namespace": NAMESPACE }, "spec": spec });
        stage.cluster.apply(&manifest.to_string());
        let bound = [
            "create",
            "token",
            "claviger-gate",
            "-n",
            NAMESPACE,
            "--bound-object-kind=Pod",
            "--bound-object-name",
            &pod,
        ];
        let token = stage.cluster.kubectl(&bound).trim().to_owned();
        let plane = &stage.cluster.control_plane;
        let file = plane
            .write_kubeconfig(&pod, plane.url(), Auth::Token(token))
            .expect("a kubeconfig");
        let client = runtime()
            .block_on(async { Client::try_from(config(&file).await) })
            .expect("a client");
        Self { pod, client }
    }

    /// What the API server says to this: the message of its refusal, or the object.
    fn asks(&self, method: &Method, path: &str, body: &Value) -> Result<Value, String> {
        asks(&self.client, method, path, body)
    }
}

fn asks(client: &Client, method: &Method, path: &str, body: &Value) -> Result<Value, String> {
    let kind = if method == Method::PATCH {
        "application/merge-patch+json"
    } else {
        "application/json"
    };
    let body = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", kind)
        .body(body)
        .expect("a request");
    match runtime().block_on(client.request::<Value>(request)) {
        Ok(answer) => Ok(answer),
        Err(kube::Error::Api(status)) => Err(format!("{} {}", status.code, status.message)),
        Err(other) => panic!("{method} {path}: {other}"),
    }
}

fn object(kind: &str, metadata: &Value, spec: &Value) -> Value {
    json!({ "apiVersion": "claviger.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec })
}

/// As the API server itself counts them, without those that everybody has: nothing is forgotten in such a list.
fn a_gates_rights_are_these_and_no_others() {
    let stage = Stage::new("gate-rights");
    let gate = Trespasser::new(&stage, "rights");
    let everywhere = [
        "list claviger.dev/apikeys",
        "watch claviger.dev/apikeys",
        "list claviger.dev/apikeyroles",
        "watch claviger.dev/apikeyroles",
        "create authentication.k8s.io/tokenreviews",
        "create authorization.k8s.io/subjectaccessreviews",
    ];
    let at_home = [
        "create claviger.dev/gates",
        "patch claviger.dev/gates",
        "delete claviger.dev/gates",
    ];
    for (namespace, more) in [
        (stage.namespace.as_str(), &[][..]),
        ("kube-system", &[]),
        (NAMESPACE, &at_home),
    ] {
        let question = json!({ "spec": { "namespace": namespace } });
        let review = |client: &Client, group: &str| {
            let path = format!("/apis/{group}/v1/selfsubjectrulesreviews");
            asks(client, &Method::POST, &path, &question).expect("anybody may ask")["status"]["resourceRules"].clone()
        };
        let mut found = BTreeSet::new();
        for rule in review(&gate.client, "authorization.k8s.io")
            .as_array()
            .unwrap()
        {
            let list = |field: &str| {
                rule[field]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|one| one.as_str().unwrap().to_owned())
            };
            for (verb, group) in list("verbs")
                .flat_map(|verb| list("apiGroups").map(move |group| (verb.clone(), group)))
            {
                found
                    .extend(list("resources").map(|resource| format!("{verb} {group}/{resource}")));
            }
        }
        found.retain(|right| !right.contains("/selfsubject"));
        let wanted: BTreeSet<_> = everywhere
            .iter()
            .chain(more)
            .map(|right| (*right).to_owned())
            .collect();
        assert_eq!(found, wanted, "in {namespace}");
    }
}

/// Each request is one that an administrator may make, and the gate may not.
fn a_gates_token_reads_no_secret_and_makes_no_key_valid() {
    let stage = Stage::new("gate-token");
    let operator = stage.operator().start_ready();
    stage.declare("k", "{}");
    stage.wait_issued("k");
    assert!(operator.stop().success());
    stage.role("gate-token", &["a:b"]);
    let gate = Trespasser::new(&stage, "token");
    let here = &stage.namespace;
    let (core, ours) = (
        format!("/api/v1/namespaces/{here}"),
        format!("/apis/claviger.dev/v1alpha1/namespaces/{here}"),
    );
    let cluster = "/apis/claviger.dev/v1alpha1";
    let object = |kind: &str, spec: Value| object(kind, &json!({ "name": "new" }), &spec);
    let rules = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]);
    let rbac = "rbac.authorization.k8s.io/v1";
    let role = json!({ "apiVersion": rbac, "kind": "ClusterRole", "metadata": { "name": "new" }, "rules": rules });
    let (get, post, patch, delete) = (Method::GET, Method::POST, Method::PATCH, Method::DELETE);
    let tried = [
        (
            &get,
            format!("{core}/secrets/k"),
            Value::Null,
            "cannot get resource \"secrets\"",
        ),
        (
            &get,
            format!("{core}/secrets"),
            Value::Null,
            "cannot list resource \"secrets\"",
        ),
        (
            &get,
            "/api/v1/secrets".to_owned(),
            Value::Null,
            "cannot list resource \"secrets\"",
        ),
        (
            &delete,
            format!("{core}/secrets/k"),
            Value::Null,
            "cannot delete resource \"secrets\"",
        ),
        (
            &post,
            format!("{ours}/apikeys"),
            object("ApiKey", json!({})),
            "cannot create resource \"apikeys\"",
        ),
        (
            &patch,
            format!("{ours}/apikeys/k"),
            json!({ "spec": { "revoked": true } }),
            "cannot patch resource \"apikeys\"",
        ),
        (
            &patch,
            format!("{ours}/apikeys/k"),
            json!({ "spec": { "permissions": ["x:y"] } }),
            "cannot patch resource \"apikeys\"",
        ),
        (
            &patch,
            format!("{ours}/apikeys/k/status"),
            json!({ "status": { "revision": 0 } }),
            "cannot patch resource \"apikeys/status\"",
        ),
        (
            &delete,
            format!("{ours}/apikeys/k"),
            Value::Null,
            "cannot delete resource \"apikeys\"",
        ),
        (
            &get,
            format!("{ours}/apikeys/k"),
            Value::Null,
            "cannot get resource \"apikeys\"",
        ),
        (
            &post,
            format!("{cluster}/apikeyroles"),
            object("ApiKeyRole", json!({ "permissions": ["c:d"] })),
            "cannot create resource \"apikeyroles\"",
        ),
        (
            &patch,
            format!("{cluster}/apikeyroles/gate-token"),
            json!({ "spec": { "permissions": ["c:d"] } }),
            "cannot patch resource \"apikeyroles\"",
        ),
        (
            &delete,
            format!("{cluster}/apikeyroles/gate-token"),
            Value::Null,
            "cannot delete resource \"apikeyroles\"",
        ),
        (
            &post,
            format!("{cluster}/apikeypolicies"),
            object("ApiKeyPolicy", json!({})),
            "cannot create resource \"apikeypolicies\"",
        ),
        (
            &get,
            format!("{cluster}/apikeypolicies"),
            Value::Null,
            "cannot list resource \"apikeypolicies\"",
        ),
        (
            &get,
            format!("{cluster}/gates"),
            Value::Null,
            "cannot list resource \"gates\"",
        ),
        (
            &post,
            format!("{ours}/gates"),
            object("Gate", json!({})),
            "cannot create resource \"gates\"",
        ),
        (
            &get,
            "/api/v1/pods".to_owned(),
            Value::Null,
            "cannot list resource \"pods\"",
        ),
        (
            &post,
            "/apis/rbac.authorization.k8s.io/v1/clusterroles".to_owned(),
            role,
            "cannot create resource \"clusterroles\"",
        ),
    ];
    let dry = |path: &str| format!("{path}?dryRun=All");
    for (method, path, body, words) in tried {
        asks(&stage.cluster.client(), method, &dry(&path), &body)
            .unwrap_or_else(|said| panic!("{method} {path}: {said}"));
        for path in [dry(&path), path] {
            let said = gate
                .asks(method, &path, &body)
                .err()
                .unwrap_or_else(|| panic!("the gate may {method} {path}"));
            assert!(
                said.starts_with("403 ") && said.contains(words) && said.contains(GATE_ACCOUNT),
                "{method} {path}: {said}"
            );
        }
    }
    assert!(stage.status("k").phase.is_some() && stage.secret("k").is_some());
}

/// Of two gates, one cannot speak for the other, nor take away what it has said.
fn a_gate_writes_its_own_report_and_no_others() {
    let stage = Stage::new("gate-reports");
    let (one, other) = (
        Trespasser::new(&stage, "one"),
        Trespasser::new(&stage, "other"),
    );
    let all = format!("/apis/claviger.dev/v1alpha1/namespaces/{NAMESPACE}/gates");
    let gate = |name: &str| object("Gate", &json!({ "name": name }), &json!({ "keys": 1 }));
    let of = |trespasser: &Trespasser| format!("{all}/{}", trespasser.pod);
    let more = json!({ "spec": { "keys": 2 } });
    let refused = |answer: Result<Value, String>| {
        let said = answer.expect_err("that is another's");
        let words = format!(
            "the pod {} may write the Gate of its own name only",
            one.pod
        );
        assert!(said.starts_with("403 ") && said.contains(&words), "{said}");
    };
    wait::until("the policy is in force", || {
        match one.asks(&Method::POST, &format!("{all}?dryRun=All"), &gate("nobody")) {
            Err(said) if said.contains("of its own name only") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    one.asks(&Method::POST, &all, &gate(&one.pod)).unwrap();
    one.asks(&Method::PATCH, &of(&one), &more).unwrap();
    refused(one.asks(&Method::POST, &all, &gate(&other.pod)));
    let nameless = object("Gate", &json!({ "generateName": one.pod }), &json!({}));
    refused(one.asks(&Method::POST, &all, &nameless));
    other.asks(&Method::POST, &all, &gate(&other.pod)).unwrap();
    refused(one.asks(&Method::PATCH, &of(&other), &more));
    refused(one.asks(&Method::DELETE, &of(&other), &Value::Null));
    // Others than pods are left to RBAC: who administers the cluster cleans up.
    stage
        .cluster
        .kubectl(&["delete", "gate", "-n", NAMESPACE, &other.pod]);
    one.asks(&Method::DELETE, &of(&one), &Value::Null).unwrap();
}

fn who_looks_after_keys_sees_gates_and_may_ask_them() {
    let stage = Stage::new("gate-people");
    let (vic, ada) = (
        Person::new(&stage, "vic", &["claviger-viewer"]),
        Person::new(&stage, "ada", &[ADMIN]),
    );
    for person in [&vic, &ada] {
        assert!(
            person
                .kubectl(&["get", "gates"], "")
                .contains("No resources found")
        );
        person.refused(
            &["delete", "gate", "any"],
            "",
            &["cannot delete resource \"gates\""],
        );
    }
    let may_ask = |person: &Person<'_>| {
        person
            .try_kubectl(&["auth", "can-i", "verify", "apikeys.claviger.dev"], "")
            .0
    };
    assert!(!may_ask(&vic) && may_ask(&ada));
}
