//! Who may ask, and what the others are told.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Response, header};
use kube::Client;
use kube::client::Body;
use serde_json::json;

use super::super::{Caller, Callers, CallersError, Method, Refusal, Settings};
use super::world::World;
use super::{ALL, admit, admit_with, bearer, forbidden, pass, peer, user};

#[tokio::test(start_paused = true)]
async fn who_may_verify_in_one_namespace_may_not_elsewhere_and_who_may_everywhere_may() {
    let world = World::new(&["one", "all", "idle"], &[("one", "shop"), ("all", ALL)]);
    let callers = world.callers(Settings::default());
    assert_eq!(admit(&callers, "one", Some("shop")).await, Ok(user("one")));
    assert_eq!(
        admit(&callers, "one", Some("bank")).await,
        forbidden("one", Some("bank"))
    );
    assert_eq!(admit(&callers, "one", None).await, forbidden("one", None));
    for namespace in [None, Some("shop"), Some("bank")] {
        assert_eq!(admit(&callers, "all", namespace).await, Ok(user("all")));
        assert_eq!(
            admit(&callers, "idle", namespace).await,
            forbidden("idle", namespace)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_what_to_do_and_with_which_status() {
    let world = World::new(&["idle"], &[]);
    let callers = world.callers(Settings::default());
    let refusal = admit(&callers, "idle", Some("shop")).await.unwrap_err();
    assert_eq!(
        (refusal.status().as_u16(), refusal.challenge()),
        (403, None)
    );
    assert_eq!(
        refusal.to_string(),
        "idle may not verify keys in namespace shop: it needs the verb verify on apikeys.claviger.dev there"
    );
    let refusal = admit(&callers, "idle", None).await.unwrap_err().to_string();
    assert!(refusal.contains("in the whole cluster"), "{refusal}");
    let refusal = admit(&callers, "made.up", None).await.unwrap_err();
    assert_eq!(
        (refusal.status().as_u16(), refusal.challenge()),
        (401, Some("Bearer realm=\"claviger\""))
    );
    let refusal = callers
        .credentials(&HeaderMap::new(), &peer(true))
        .err()
        .unwrap();
    assert_eq!(refusal.status().as_u16(), 401);
    assert!(
        refusal.to_string().contains("Authorization: Bearer"),
        "{refusal}"
    );
    for wrong in ["", "Shop", "a/b", "-a", "a-", &"a".repeat(64)] {
        let before = world.asked();
        assert_eq!(
            admit(&callers, "idle", Some(wrong)).await,
            Err(Refusal::NoNamespace)
        );
        assert_eq!(world.asked(), before);
    }
    *world.failure.lock().unwrap() = Some((500, "sorry"));
    let refusal = admit(&callers, "other", None).await.unwrap_err();
    assert_eq!(
        (refusal.status().as_u16(), refusal.challenge()),
        (503, None)
    );
    *world.failure.lock().unwrap() = Some((403, "{}"));
    let refusal = admit(&callers, "other", None)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refusal.contains("may not create tokenreviews: bind the ClusterRole system:auth-delegator"),
        "{refusal}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_a_token_is_not_asked_about() {
    let world = World::new(&[], &[]);
    let callers = world.callers(Settings::default());
    for junk in ["opaque", "made.up.token", "e30.eyJleHAiOjF9.eA"] {
        let headers = HeaderMap::from_iter([(
            header::AUTHORIZATION,
            format!("Bearer {junk}").parse().unwrap(),
        )]);
        let refusal = callers.credentials(&headers, &peer(false)).err().unwrap();
        assert!(
            matches!(refusal, Refusal::Unauthenticated(_)),
            "{junk}: {refusal}"
        );
    }
    assert_eq!(world.asked(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_token_for_another_audience_is_none() {
    let world = World::new(&["all"], &[("all", ALL)]);
    let callers = world.callers(Settings {
        audiences: vec!["gate".to_owned(), "keys".to_owned()],
        ..Settings::default()
    });
    // An API server that knows nothing of audiences lets every token through.
    assert!(matches!(
        admit(&callers, "all", None).await,
        Err(Refusal::Unauthenticated(_))
    ));
    assert_eq!(
        world.last.lock().unwrap()["spec"]["audiences"],
        json!(["gate", "keys"])
    );
    for (audiences, good) in [(&["other"][..], false), (&["other", "keys"], true)] {
        *world.audiences.lock().unwrap() = Some(
            audiences
                .iter()
                .map(|audience| (*audience).to_owned())
                .collect(),
        );
        pass(10).await;
        assert_eq!(
            admit(&callers, "all", None).await.is_ok(),
            good,
            "{audiences:?}"
        );
    }
}

#[tokio::test]
async fn each_method_stands_for_itself() {
    let world = World::new(&["all"], &[("all", ALL)]);
    let with = |methods: &[Method]| {
        world.callers(Settings {
            methods: methods.to_vec(),
            ..Settings::default()
        })
    };
    let (nothing, token) = (HeaderMap::new(), bearer("all"));

    let mtls = with(&[Method::Mtls]);
    assert_eq!(
        admit_with(&mtls, &nothing, &peer(true), None).await,
        Ok(Caller::Certified)
    );
    assert!(matches!(
        admit_with(&mtls, &token, &peer(false), None).await,
        Err(Refusal::Unauthenticated(_))
    ));
    let none = with(&[Method::None]);
    assert_eq!(
        admit_with(&none, &nothing, &peer(false), Some("shop")).await,
        Ok(Caller::Anyone)
    );
    assert_eq!(world.asked(), (0, 0));
    let both = with(&[Method::Token, Method::Mtls]);
    assert_eq!(
        admit_with(&both, &nothing, &peer(true), None).await,
        Ok(Caller::Certified)
    );
    assert_eq!(
        admit_with(&both, &token, &peer(false), None).await,
        Ok(user("all"))
    );
    assert!(
        admit_with(&both, &nothing, &peer(false), None)
            .await
            .is_err()
    );

    let client = || {
        Client::new(
            tower::service_fn(async |_: http::Request<Body>| {
                Err::<Response<Body>, _>(io::Error::other("no"))
            }),
            "x",
        )
    };
    let refused = |methods: &[Method]| {
        Callers::new(
            client(),
            Settings {
                methods: methods.to_vec(),
                ..Settings::default()
            },
        )
        .unwrap_err()
    };
    assert!(matches!(refused(&[]), CallersError::NoMethod));
    assert!(matches!(
        refused(&[Method::Token, Method::None]),
        CallersError::NoneAmongOthers
    ));
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .map_err(|_| io::ErrorKind::Other)?
            .write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn no_token_is_logged_or_told_whatever_the_api_server_answers() {
    let lines = Lines::default();
    let written = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || written.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let world = World::new(&[], &[]);
    let callers = world.callers(Settings::default());
    let mut told = format!("{callers:?}");
    for failure in [
        None,
        Some((
            201,
            r#"{"spec": {"token": "ey.top-secret.token"}, "status": 1}"#,
        )),
        Some((
            400,
            r#"{"message": "what is ey.top-secret.token?", "kind": "Status", "status": "Failure"}"#,
        )),
        Some((502, "bad token ey.top-secret.token")),
    ] {
        *world.failure.lock().unwrap() = failure;
        let refusal = admit(&callers, "all", None).await.unwrap_err();
        let _ = write!(told, "{refusal} {refusal:?}");
        pass(10).await;
    }
    told += &String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(
        told.contains("callers of /v1/verify cannot be looked up"),
        "{told}"
    );
    assert!(!told.contains("top-secret"), "{told}");
}
