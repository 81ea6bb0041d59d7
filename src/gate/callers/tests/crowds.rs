//! Made-up tokens keep no good caller out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;

use super::super::{Caller, Callers, Refusal, Settings};
use super::world::World;
use super::{ALL, admit, admit_with, bearer, pass, user};
use crate::gate::server::Peer;

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
    // A failure does not make it a stranger.
    *world.failure.lock().unwrap() = Some((500, "sorry"));
    assert!(admit(&callers, "all", None).await.is_err());
    *world.failure.lock().unwrap() = None;
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
