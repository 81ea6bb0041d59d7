//! Who may ask the gate about keys, by what a real API server says of their tokens and rights.

use std::time::Duration;

use claviger::gate::callers::{Caller, Callers, Refusal, Settings};
use claviger::gate::server::Peer;
use http::{HeaderMap, header};
use kube::Client;

use crate::stories;
use crate::support::cluster::{config, runtime};
use crate::support::control_plane::Auth;
use crate::support::stage::Stage;
use crate::support::wait;

stories![
    a_service_may_ask_about_the_namespace_it_has_the_right_for,
    a_proxy_may_ask_about_all_namespaces,
    a_service_that_is_deleted_may_ask_no_more,
    a_token_for_somebody_else_is_not_taken,
    a_gate_without_rights_says_which_it_needs,
];

const VERIFIER: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: verifier}
rules:
- {apiGroups: [claviger.dev], resources: [apikeys], verbs: [verify]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: verifier}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: verifier}
subjects:
- {kind: ServiceAccount, name: frontend}
";

/// Answers are kept for no time worth mentioning, where a story waits for another one.
fn forgetful() -> Settings {
    Settings {
        cache: Duration::from_millis(5),
        patience: Duration::from_secs(30),
        ..Settings::default()
    }
}

/// A guard that asks as the ServiceAccount `gate` of the stage, with the rights that the gate needs.
fn guard(stage: &Stage, settings: Settings) -> Callers {
    stage.kubectl(&["create", "serviceaccount", "gate"]);
    let account = format!("--serviceaccount={}:gate", stage.namespace);
    let delegator = "--clusterrole=system:auth-delegator";
    stage.cluster.kubectl(&[
        "create",
        "clusterrolebinding",
        &format!("{}-gate", stage.namespace),
        delegator,
        &account,
    ]);
    as_gate(stage, settings)
}

fn as_gate(stage: &Stage, settings: Settings) -> Callers {
    let plane = &stage.cluster.control_plane;
    let name = format!("{}-gate", stage.namespace);
    let file = plane
        .write_kubeconfig(&name, plane.url(), Auth::Token(token(stage, "gate")))
        .expect("a kubeconfig");
    // A client wants to be made where it will work.
    let client = runtime()
        .block_on(async { Client::try_from(config(&file).await) })
        .expect("a client");
    Callers::new(client, settings).expect("a guard")
}

fn token(stage: &Stage, account: &str) -> String {
    stage
        .kubectl(&["create", "token", account])
        .trim()
        .to_owned()
}

fn admit(callers: &Callers, token: &str, namespace: Option<&str>) -> Result<Caller, Refusal> {
    let headers = HeaderMap::from_iter([(
        header::AUTHORIZATION,
        format!("Bearer {token}").parse().expect("a header"),
    )]);
    let peer = Peer {
        address: ([192, 0, 2, 1], 4711).into(),
        certified: false,
    };
    runtime().block_on(async {
        let credentials = callers.credentials(&headers, &peer)?;
        callers
            .admit(&callers.identify(credentials).await?, namespace)
            .await
    })
}

fn user(stage: &Stage, account: &str) -> Caller {
    Caller::User(format!("system:serviceaccount:{}:{account}", stage.namespace).into())
}

/// Waits until somebody is let in: rights take a moment to be known to the API server.
fn wait_admitted(callers: &Callers, token: &str, namespace: Option<&str>) -> Caller {
    wait::until("the caller is let in", || {
        admit(callers, token, namespace).map_err(|refusal| refusal.to_string())
    })
}

fn is_unauthenticated(answer: &Result<Caller, Refusal>) -> bool {
    matches!(answer, Err(Refusal::Unauthenticated(_)))
}

fn a_service_may_ask_about_the_namespace_it_has_the_right_for() {
    let stage = Stage::new("callers-one");
    stage.kubectl(&["create", "serviceaccount", "frontend"]);
    stage.apply(VERIFIER);
    let guard = guard(&stage, forgetful());
    let token = token(&stage, "frontend");
    assert_eq!(
        wait_admitted(&guard, &token, Some(&stage.namespace)),
        user(&stage, "frontend")
    );
    for (namespace, place) in [
        (Some("kube-system"), "in namespace kube-system"),
        (None, "in the whole cluster"),
    ] {
        let refusal = admit(&guard, &token, namespace).expect_err("it has no right there");
        assert_eq!(refusal.status().as_u16(), 403);
        let told = refusal.to_string();
        let expected = format!(
            "system:serviceaccount:{}:frontend may not verify keys {place}",
            stage.namespace
        );
        assert!(
            told.starts_with(&expected) && told.contains("the verb verify on apikeys.claviger.dev"),
            "{told}"
        );
    }
    // Whoever may ask about callers may not ask about keys for that.
    let own = admit(&guard, &self::token(&stage, "gate"), Some(&stage.namespace));
    assert!(matches!(own, Err(Refusal::Forbidden { .. })), "{own:?}");
}

fn a_proxy_may_ask_about_all_namespaces() {
    let stage = Stage::new("callers-all");
    stage.kubectl(&["create", "serviceaccount", "proxy"]);
    let name = format!("{}-verifier", stage.namespace);
    stage.cluster.kubectl(&[
        "create",
        "clusterrole",
        &name,
        "--verb=verify",
        "--resource=apikeys.claviger.dev",
    ]);
    let (role, account) = (
        format!("--clusterrole={name}"),
        format!("--serviceaccount={}:proxy", stage.namespace),
    );
    stage
        .cluster
        .kubectl(&["create", "clusterrolebinding", &name, &role, &account]);
    let guard = guard(&stage, forgetful());
    let token = token(&stage, "proxy");
    assert_eq!(wait_admitted(&guard, &token, None), user(&stage, "proxy"));
    for namespace in [
        stage.namespace.as_str(),
        "kube-system",
        "one-that-does-not-exist",
    ] {
        assert_eq!(
            admit(&guard, &token, Some(namespace)),
            Ok(user(&stage, "proxy"))
        );
    }
}

fn a_service_that_is_deleted_may_ask_no_more() {
    let stage = Stage::new("callers-gone");
    stage.kubectl(&["create", "serviceaccount", "frontend"]);
    stage.apply(VERIFIER);
    let guard = guard(&stage, forgetful());
    let token = token(&stage, "frontend");
    wait_admitted(&guard, &token, Some(&stage.namespace));
    stage.kubectl(&["delete", "rolebinding", "verifier"]);
    wait::until("its right is gone", || {
        match admit(&guard, &token, Some(&stage.namespace)) {
            Err(Refusal::Forbidden { .. }) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    stage.kubectl(&["delete", "serviceaccount", "frontend"]);
    wait::until("its token is worth nothing", || {
        let answer = admit(&guard, &token, Some(&stage.namespace));
        if is_unauthenticated(&answer) {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    });
}

fn a_token_for_somebody_else_is_not_taken() {
    let stage = Stage::new("callers-audience");
    stage.kubectl(&["create", "serviceaccount", "frontend"]);
    stage.apply(VERIFIER);
    let guard = guard(&stage, forgetful());
    let usual = token(&stage, "frontend");
    let gates = stage
        .kubectl(&["create", "token", "frontend", "--audience=gate"])
        .trim()
        .to_owned();
    let here = Some(stage.namespace.as_str());
    wait_admitted(&guard, &usual, here);
    let half = &usual[..usual.len() / 2];
    for wrong in [gates.as_str(), half, "made.up.token", "x"] {
        let answer = admit(&guard, wrong, here);
        assert!(is_unauthenticated(&answer), "{answer:?}");
    }
    let for_gate = as_gate(
        &stage,
        Settings {
            audiences: vec!["gate".to_owned()],
            ..forgetful()
        },
    );
    assert_eq!(admit(&for_gate, &gates, here), Ok(user(&stage, "frontend")));
    let answer = admit(&for_gate, &usual, here);
    assert!(is_unauthenticated(&answer), "{answer:?}");
}

fn a_gate_without_rights_says_which_it_needs() {
    let stage = Stage::new("callers-deprived");
    stage.kubectl(&["create", "serviceaccount", "gate"]);
    let guard = as_gate(&stage, forgetful());
    let refusal = admit(&guard, &token(&stage, "gate"), None).expect_err("it cannot be looked up");
    assert_eq!(refusal.status().as_u16(), 503);
    assert!(
        refusal
            .to_string()
            .contains("bind the ClusterRole system:auth-delegator to its ServiceAccount"),
        "{refusal}"
    );
}
