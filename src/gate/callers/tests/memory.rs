//! How long an answer holds, and that one question at a time is asked.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::review::Silence;
use super::super::review_cache::ReviewCache;
use super::super::{Refusal, Settings};
use super::world::World;
use super::{ALL, admit, admit_with, bearer, forbidden, pass, peer, user};

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

/// A body may take ten seconds, and the answer about the token may be over by then.
#[tokio::test(start_paused = true)]
async fn identity_counts_for_the_whole_request() {
    let world = World::new(&["all"], &[("all", ALL)]);
    let callers = world.callers(Settings::default());
    let credentials = callers.credentials(&bearer("all"), &peer(false)).unwrap();
    let caller = callers.identify(credentials).await.unwrap();
    world.tokens.lock().unwrap().clear();
    pass(10).await;
    assert_eq!(callers.admit(&caller, None).await, Ok(user("all")));
    assert_eq!(world.asked(), (1, 1));
    assert!(matches!(
        admit(&callers, "all", None).await,
        Err(Refusal::Unauthenticated(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_an_answer_keep_no_token() {
    let known = ReviewCache::<_, ()>::new(10);
    let token = Arc::new("a token");
    let ask = || {
        let token = token.clone();
        Box::pin(known.ask("key", |_| async move {
            pending::<()>().await;
            Err(Silence::from(*token))
        }))
    };
    let mut waiting: Vec<_> = std::iter::repeat_with(ask).take(10).collect();
    for request in &mut waiting {
        assert!(futures::poll!(request).is_pending());
    }
    assert_eq!(
        Arc::strong_count(&token),
        2,
        "ours, and that of the question"
    );
}

/// Good callers are seen less often than there is room for tokens, and stay known.
#[tokio::test(start_paused = true)]
async fn made_up_tokens_do_not_evict_good_ones() {
    let names: Vec<String> = (0..20).map(|number| format!("good{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let rights: Vec<_> = names.iter().map(|name| (*name, ALL)).collect();
    let world = World::new(&names, &rights);
    let callers = world.callers(Settings {
        remembered: 100,
        ..Settings::default()
    });
    for round in 0..20 {
        for name in &names {
            admit(&callers, name, None).await.unwrap();
        }
        assert_eq!(world.asked(), (20 + 200 * round, 20), "no good one again");
        for number in 0..200 {
            let made_up = format!("made.up.{round}.{number}");
            assert!(admit(&callers, &made_up, None).await.is_err());
        }
        assert!(callers.users.len() <= 2 * 100);
    }
}
