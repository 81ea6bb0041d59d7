//! The guard before an API server that is made up, with time that stands still.

mod world;

use std::fmt::Write as _;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use http::{Response, header};
use kube::client::Body;
use serde_json::json;
use tokio::task::JoinSet;

use self::world::World;
use super::*;

const ALL: &str = "";

fn peer(certified: bool) -> Peer {
    Peer {
        address: ([192, 0, 2, 1], 4711).into(),
        certified,
    }
}

fn bearer(token: &str) -> HeaderMap {
    HeaderMap::from_iter([(
        header::AUTHORIZATION,
        format!("Bearer {}", world::token(token)).parse().unwrap(),
    )])
}

async fn admit(callers: &Callers, token: &str, namespace: Option<&str>) -> Result<Caller, Refusal> {
    admit_with(callers, &bearer(token), &peer(false), namespace).await
}

async fn admit_with(
    callers: &Callers,
    headers: &HeaderMap,
    peer: &Peer,
    namespace: Option<&str>,
) -> Result<Caller, Refusal> {
    callers
        .admit(&callers.identify(headers, peer).await?, namespace)
        .await
}

fn user(name: &str) -> Caller {
    Caller::User(name.into())
}

fn forbidden(name: &str, namespace: Option<&str>) -> Result<Caller, Refusal> {
    Err(Refusal::Forbidden {
        user: name.into(),
        namespace: namespace.map(Into::into),
    })
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

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
        .identify(&HeaderMap::new(), &peer(true))
        .await
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
async fn a_good_answer_holds_for_a_while_and_then_is_asked_for_again() {
    let world = World::new(&["all"], &[("all", ALL)]);
    let callers = world.callers(Settings::default());
    admit(&callers, "all", None).await.unwrap();
    pass(9).await;
    admit(&callers, "all", None).await.unwrap();
    assert_eq!(world.asked(), (1, 1));
    world.rights.lock().unwrap().clear();
    pass(1).await;
    assert_eq!(admit(&callers, "all", None).await, forbidden("all", None));
    assert_eq!(world.asked(), (2, 2));
    world.tokens.lock().unwrap().clear();
    pass(10).await;
    assert!(matches!(
        admit(&callers, "all", None).await,
        Err(Refusal::Unauthenticated(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_right_is_taken_for_granted_no_longer_than_the_token_it_was_asked_for() {
    let world = World::new(&["all"], &[("all", ALL)]);
    let callers = world.callers(Settings::default());
    admit(&callers, "all", None).await.unwrap();
    pass(8).await;
    admit(&callers, "all", Some("shop")).await.unwrap();
    assert_eq!(world.asked(), (1, 2));
    pass(2).await;
    admit(&callers, "all", Some("shop")).await.unwrap();
    assert_eq!(world.asked(), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_bad_answer_holds_for_a_shorter_while() {
    let world = World::new(&["idle"], &[]);
    let callers = world.callers(Settings::default());
    let made_up = admit(&callers, "made.up", None).await;
    pass(1).await;
    assert_eq!(admit(&callers, "made.up", None).await, made_up);
    assert_eq!(admit(&callers, "idle", None).await, forbidden("idle", None));
    assert_eq!(world.asked(), (2, 1));
    world.tokens.lock().unwrap().insert("made.up".to_owned());
    world.rights.lock().unwrap().extend([
        ("made.up".to_owned(), String::new()),
        ("idle".to_owned(), String::new()),
    ]);
    pass(2).await;
    assert_eq!(admit(&callers, "made.up", None).await, Ok(user("made.up")));
    assert_eq!(admit(&callers, "idle", None).await, Ok(user("idle")));
    assert_eq!(world.asked(), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_burst_with_one_token_asks_once() {
    let world = World::new(&["all"], &[("all", ALL)]);
    let callers = world.callers(Settings::default());
    let held = world.hold();
    let mut burst = JoinSet::new();
    for _ in 0..100 {
        let callers = callers.clone();
        burst.spawn(async move { admit(&callers, "all", None).await });
    }
    held.add_permits(2);
    for admitted in burst.join_all().await {
        assert_eq!(admitted, Ok(user("all")));
    }
    assert_eq!(world.asked(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_after_asking_leaves_the_answer_to_others() {
    let world = World::new(&["all"], &[("all", ALL)]);
    let callers = world.callers(Settings {
        at_once: 1,
        ..Settings::default()
    });
    let held = world.hold();
    let (asking, headers) = (callers.clone(), bearer("all"));
    assert!(
        tokio::time::timeout(
            Duration::from_secs(1),
            admit_with(&asking, &headers, &peer(false), None)
        )
        .await
        .is_err()
    );
    held.add_permits(2);
    assert_eq!(admit(&callers, "all", None).await, Ok(user("all")));
    assert_eq!(world.asked(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_fails_is_asked_again_and_one_that_is_silent_is_not_waited_for() {
    let world = World::new(&["all"], &[("all", ALL)]);
    let callers = world.callers(Settings::default());
    for failure in [
        (500, "sorry"),
        (429, "slower"),
        (201, "no JSON"),
        (201, "{}"),
        (401, "who are you?"),
    ] {
        *world.failure.lock().unwrap() = Some(failure);
        assert!(
            matches!(
                admit(&callers, "all", None).await,
                Err(Refusal::Unavailable(_))
            ),
            "{failure:?}"
        );
    }
    *world.failure.lock().unwrap() = None;
    assert_eq!(admit(&callers, "all", None).await, Ok(user("all")));
    pass(10).await;
    let held = world.hold();
    let begun = Instant::now();
    assert!(matches!(
        admit(&callers, "all", None).await,
        Err(Refusal::Unavailable(_))
    ));
    assert_eq!(
        begun.elapsed().as_secs(),
        3,
        "of the time that stands still"
    );
    held.add_permits(2);
    assert_eq!(admit(&callers, "all", None).await, Ok(user("all")));
}

/// One peer asks with a thousand made-up tokens. Returns when so many of them are asked about.
async fn flood(
    world: &World,
    callers: &Arc<Callers>,
    at_once: usize,
) -> JoinSet<Result<Caller, Refusal>> {
    let mut flood = JoinSet::new();
    for number in 0..1000 {
        let callers = callers.clone();
        flood.spawn(async move { admit(&callers, &format!("made.up.{number}"), None).await });
    }
    while world.under_way.load(Ordering::Relaxed) < at_once {
        tokio::task::yield_now().await;
    }
    flood
}

#[tokio::test(start_paused = true)]
async fn made_up_tokens_neither_flood_the_api_server_nor_keep_good_callers_out() {
    let world = World::new(&["all"], &[("all", ALL)]);
    let settings = Settings {
        remembered: 50,
        at_once: 4,
        ..Settings::default()
    };
    let callers = world.callers(settings);
    admit(&callers, "all", None).await.unwrap();
    let held = world.hold();
    let flood = flood(&world, &callers, 4).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.most.load(Ordering::Relaxed), 4);
    assert_eq!(
        admit(&callers, "all", None).await,
        Ok(user("all")),
        "it is still remembered"
    );
    assert_eq!(world.asked().1, 1);
    let turned_away = Err(Refusal::Unavailable(
        "too many unknown callers ask at once".into(),
    ));
    assert_eq!(admit(&callers, "one.too.many", None).await, turned_away);
    // Its answer is too old now, and the flood still waits.
    let again = callers.clone();
    *world.held.lock().unwrap() = None;
    pass(10).await;
    assert_eq!(admit(&again, "all", None).await, Ok(user("all")));
    held.add_permits(1000);
    for refused in flood.join_all().await {
        assert!(refused.is_err());
    }
    assert_eq!(
        world.most.load(Ordering::Relaxed).max(5),
        5,
        "four unknown ones and the good one at most"
    );
}

#[tokio::test(start_paused = true)]
async fn one_peer_with_made_up_tokens_keeps_no_other_peer_out() {
    let world = World::new(&["new"], &[("new", ALL)]);
    let callers = world.callers(Settings {
        at_once: 4,
        ..Settings::default()
    });
    let held = world.hold();
    let _flood = flood(&world, &callers, 4).await;
    let somebody = callers.clone();
    let somebody = tokio::spawn(async move {
        let other = Peer {
            address: ([192, 0, 2, 2], 4711).into(),
            certified: false,
        };
        admit_with(&somebody, &bearer("new"), &other, None).await
    });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(
        !somebody.is_finished(),
        "it waits for its turn, and is not turned away"
    );
    held.add_permits(1000);
    assert_eq!(somebody.await.unwrap(), Ok(user("new")));
}

#[tokio::test(start_paused = true)]
async fn a_good_caller_is_asked_about_beside_the_flood() {
    let world = World::new(&["all"], &[("all", ALL)]);
    let callers = world.callers(Settings {
        at_once: 1,
        cache: Duration::from_secs(1),
        ..Settings::default()
    });
    admit(&callers, "all", None).await.unwrap();
    pass(1).await;
    let held = world.hold();
    let stranger = callers.clone();
    let stranger = tokio::spawn(async move { admit(&stranger, "made.up", None).await });
    while world.under_way.load(Ordering::Relaxed) < 1 {
        tokio::task::yield_now().await;
    }
    *world.held.lock().unwrap() = None;
    assert_eq!(admit(&callers, "all", None).await, Ok(user("all")));
    assert!(
        !stranger.is_finished(),
        "the stranger's question is still under way"
    );
    held.add_permits(1);
    assert!(stranger.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn the_rights_of_known_users_do_not_wait_for_unknown_tokens() {
    let world = World::new(&["all"], &[("all", ALL)]);
    let callers = world.callers(Settings {
        at_once: 1,
        ..Settings::default()
    });
    admit(&callers, "all", None).await.unwrap();
    let held = world.hold();
    let stranger = callers.clone();
    let stranger = tokio::spawn(async move { admit(&stranger, "made.up", None).await });
    while world.under_way.load(Ordering::Relaxed) < 1 {
        tokio::task::yield_now().await;
    }
    *world.held.lock().unwrap() = None;
    assert_eq!(
        admit(&callers, "all", Some("shop")).await,
        Ok(user("all")),
        "a namespace that it never asked about"
    );
    assert!(
        !stranger.is_finished(),
        "the stranger's question is still under way"
    );
    held.add_permits(1);
    assert!(stranger.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn who_takes_longer_to_ask_than_an_answer_holds_is_looked_at_anew() {
    let world = World::new(&["all"], &[("all", ALL)]);
    let callers = world.callers(Settings::default());
    let (headers, peer) = (bearer("all"), peer(false));
    let somebody = callers.identify(&headers, &peer).await.unwrap();
    pass(9).await;
    assert_eq!(callers.admit(&somebody, None).await, Ok(user("all")));
    assert_eq!(world.asked(), (1, 1), "known still");
    pass(1).await;
    assert_eq!(callers.admit(&somebody, None).await, Ok(user("all")));
    assert_eq!(world.asked(), (2, 2));
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
        let refusal = callers
            .identify(&headers, &peer(false))
            .await
            .err()
            .unwrap();
        assert!(
            matches!(refusal, Refusal::Unauthenticated(_)),
            "{junk}: {refusal}"
        );
    }
    assert_eq!(world.asked(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_memory_is_bounded_and_good_callers_are_forgotten_last() {
    let names: Vec<String> = (0..5).map(|number| format!("good{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let rights: Vec<_> = names.iter().map(|name| (*name, ALL)).collect();
    let world = World::new(&names, &rights);
    let callers = world.callers(Settings {
        remembered: 5,
        ..Settings::default()
    });
    for name in &names[..4] {
        admit(&callers, name, None).await.unwrap();
    }
    for number in 0..100 {
        let _ = admit(&callers, &format!("made.up.{number}"), None).await;
    }
    assert_eq!(callers.users.sizes().0, 5);
    let before = world.asked();
    for name in &names[..4] {
        admit(&callers, name, None).await.unwrap();
    }
    assert_eq!(world.asked(), before, "all four are remembered");
    // Callers that come and go, again and again.
    for round in 0..50 {
        for name in &names {
            if round % 2 == 0 {
                world.tokens.lock().unwrap().remove(*name);
            } else {
                world.tokens.lock().unwrap().insert((*name).to_owned());
            }
            let _ = admit(&callers, name, None).await;
        }
        pass(10).await;
    }
    let (entries, queued) = callers.users.sizes();
    assert!(
        entries == 5 && queued <= 4 * 5,
        "{entries} entries, {queued} queued"
    );
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
