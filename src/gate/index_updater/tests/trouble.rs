//! What cannot be read, what may not be read, and who must not be asked too fast.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tokio::time::Instant;

use super::server::{TIMING, World};
use super::{at, role};
use crate::gate::answer::Unable;
use crate::gate::freshness::Watched;
use crate::gate::testing::apikey;

/// An ApiKey of which nobody can say whether it was revoked.
fn broken(number: usize, resource_version: &str) -> serde_json::Value {
    apikey(
        number,
        json!({ "metadata": { "resourceVersion": resource_version }, "spec": { "revoked": "s3cret-value" } }),
    )
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_counts_for_nothing_and_hides_no_other() {
    let mut world = World::new(Watched::ApiKeys);
    let watch = world
        .begin(&[broken(1, "1"), at(2, "2"), at(3, "3"), at(4, "4")])
        .await;
    world.rest().await;
    assert_eq!(world.passing(), [2, 3, 4]);
    watch.modified(&broken(2, "11")).modified(&at(3, "12"));
    // One whose metadata are odd, too.
    watch.modified(&apikey(
        4,
        json!({ "metadata": { "resourceVersion": "13", "creationTimestamp": "yesterday" } }),
    ));
    world.rest().await;
    assert_eq!(
        world.passing(),
        [3],
        "its old state counts for nothing, either"
    );
    assert_eq!(world.metric("claviger_gate_undecodable_objects_total"), "3");
    assert_eq!(world.reached(), "13", "it is not shown again and again");
    watch.modified(&at(2, "14"));
    world.rest().await;
    assert_eq!(
        world.passing(),
        [2, 3],
        "and comes back when it can be read"
    );
    assert!(!format!("{:?}", world.updater.trouble()).contains("s3cret"));
}

#[tokio::test(start_paused = true)]
async fn object_without_uid_in_a_list_hides_no_other() {
    let mut world = World::new(Watched::ApiKeys);
    let unknown = json!({ "metadata": { "name": 5 } });
    let _watch = world.begin(&[at(1, "1"), unknown, at(2, "2")]).await;
    assert_eq!(world.passing(), [1, 2]);
    assert_eq!(world.freshness.check(), Ok(()));
    assert_eq!(world.metric("claviger_gate_undecodable_objects_total"), "1");
}

#[tokio::test(start_paused = true)]
async fn page_that_is_too_large_is_asked_for_with_fewer_objects() {
    let mut world = World::new(Watched::ApiKeys);
    world.list().await.page(&[at(1, "1")], "10", "second");
    let large = " ".repeat(17 << 20);
    world.page("second").await.text(StatusCode::OK, &large);
    let smaller = world.page("second").await;
    assert_eq!(smaller.query["limit"], "62");
    smaller.page(&[at(2, "2")], "10", "third");
    let next = world.page("third").await;
    assert_eq!(next.query["limit"], "124", "and grows again");
    next.page(&[], "10", "");
    world.watch("10").await;
    assert_eq!(world.passing(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_role_that_cannot_be_read_grants_nothing() {
    let mut world = World::new(Watched::Roles);
    let watch = world
        .begin(&[role("viewer", &["see"]), role("editor", &["see"])])
        .await;
    world.rest().await;
    assert_eq!(world.index.load().roles(), 2);
    let mut odd = role("viewer", &[]);
    odd["spec"]["permissions"] = json!({ "see": true });
    watch.modified(&odd);
    world.rest().await;
    assert_eq!(world.index.load().roles(), 1);
    assert_eq!(world.metric("claviger_gate_undecodable_objects_total"), "1");
}

/// Nobody knows which entry it is about, so that all of them are looked at.
#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_told_from_others_makes_it_list_everything() {
    for odd in [
        "{\"type\":\"MODIFIED\",\"object\":{\"metadata\":{\"uid\":7}}}",
        "{\"type\":\"RENAMED\",\"object\":{}}",
        "not JSON",
    ] {
        let mut world = World::new(Watched::ApiKeys);
        let watch = world.begin(&[at(1, "1"), at(2, "2")]).await;
        watch.added(&at(3, "11")).line(odd).added(&at(4, "13"));
        let list = world.list().await;
        assert_eq!(world.passing(), [1, 2, 3], "{odd}");
        list.page(&[at(2, "2")], "20", "");
        world.watch("20").await;
        assert_eq!(world.passing(), [2], "{odd}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_none_is_no_empty_cluster() {
    let mut world = World::new(Watched::ApiKeys);
    let watch = world.begin(&[at(1, "1")]).await;
    watch.error(410, "too old");
    world
        .list()
        .await
        .text(StatusCode::OK, "<html>It works!</html>");
    world
        .list()
        .await
        .json(&json!({ "kind": "ApiKeyList", "items": [] }));
    world.list().await.page(&[], "", "");
    world.list().await.refuse(503, "etcd is away");
    world.list().await.page(&[at(1, "1")], "20", "");
    world.watch("20").await;
    assert_eq!(world.passing(), [1]);
}

/// A server that ends every watch at once is not asked as fast as it answers.
#[tokio::test(start_paused = true)]
async fn watches_that_end_at_once_are_not_begun_in_a_hot_loop() {
    let mut world = World::new(Watched::ApiKeys);
    drop(world.begin(&[at(1, "1")]).await);
    let begun = Instant::now();
    for _ in 0..50 {
        drop(world.watch("10").await.stream());
    }
    let took = begun.elapsed();
    assert!(
        took > Duration::from_secs(60) && took < Duration::from_secs(200),
        "{took:?} for 50 watches"
    );
    assert_eq!(world.freshness.check(), Ok(()));

    // One that shows something is worth going on with.
    drop({
        let watch = world.watch("10").await.stream();
        watch.added(&at(2, "11"));
        watch
    });
    let begun = Instant::now();
    let watch = world.watch("11").await.stream();
    assert!(
        begun.elapsed() < Duration::from_millis(100),
        "{:?}",
        begun.elapsed()
    );
    // And one that lasts has no pause behind it at all.
    world.rest().await;
    tokio::time::advance(TIMING.watch).await;
    drop(watch);
    let begun = Instant::now();
    world.watch("11").await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_is_asked_every_few_seconds_and_at_once_after_it_was_back() {
    let mut world = World::new(Watched::ApiKeys);
    let begun = Instant::now();
    drop(world.list().await);
    drop(world.list().await);
    // The pause is shorter, and the timer rounds up.
    assert!(
        begun.elapsed() <= Duration::from_millis(50),
        "{:?}",
        begun.elapsed()
    );
    for _ in 0..10 {
        drop(world.list().await);
    }
    for _ in 0..10 {
        let begun = Instant::now();
        drop(world.list().await);
        assert!(
            begun.elapsed() <= Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
    }
    assert!(
        world
            .updater
            .trouble()
            .unwrap()
            .contains("the connection broke"),
        "{:?}",
        world.updater.trouble()
    );
    let watch = world.begin(&[at(1, "1")]).await;
    world.rest().await;
    tokio::time::advance(TIMING.watch).await;
    drop(watch);
    drop(world.watch("10").await);
    let begun = Instant::now();
    world.watch("10").await;
    // The timer rounds up.
    assert!(
        begun.elapsed() <= Duration::from_millis(50),
        "what was long ago does not count: {:?}",
        begun.elapsed()
    );
}

/// Lists work, watches do not: lists of everything must not be read in a hot loop, either.
#[tokio::test(start_paused = true)]
async fn a_list_that_works_does_not_hide_that_watches_do_not() {
    let mut world = World::new(Watched::ApiKeys);
    let begun = Instant::now();
    for _ in 0..20 {
        world.list().await.page(&[at(1, "1")], "10", "");
        world.watch("10").await.refuse(410, "Expired");
    }
    assert!(
        begun.elapsed() > Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
}

/// A hundred thousand objects that every gate reads again, from the first, as soon as the API server has given up.
#[tokio::test(start_paused = true)]
async fn a_list_that_fails_late_is_not_begun_anew_at_once() {
    let mut world = World::new(Watched::ApiKeys);
    let begun = Instant::now();
    for _ in 0..10 {
        world.list().await.page(&[at(1, "1")], "10", "second");
        let second = world.page("second").await;
        tokio::time::advance(Duration::from_secs(6)).await;
        second.refuse(500, "etcd is away");
    }
    world.list().await;
    let paused = begun.elapsed().saturating_sub(Duration::from_secs(60));
    assert!(paused > Duration::from_secs(6), "{paused:?}");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_has_too_much_to_do_is_left_in_peace() {
    let mut world = World::new(Watched::ApiKeys);
    let details = json!({ "retryAfterSeconds": 9 });
    for (details, shortest, longest) in [(details, 9_000, 13_500), (json!({}), 1_500, 3_000)] {
        let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "later", "code": 429, "details": details });
        world
            .list()
            .await
            .text(StatusCode::TOO_MANY_REQUESTS, &status.to_string());
        let begun = Instant::now();
        world.list().await.text(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many requests, please try again later.",
        );
        let paused = begun.elapsed().as_millis();
        assert!((shortest..=longest + 1).contains(&paused), "{paused} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_may_be_no_older_knows_how_old_it_is() {
    let mut world = World::within(Watched::ApiKeys, None, Some(Duration::from_secs(40)));
    assert_eq!(world.freshness.check(), Err(Unable::Loading));
    let watch = world.begin(&[at(1, "1")]).await;
    tokio::time::advance(Duration::from_secs(29)).await;
    watch.bookmark("50");
    world.rest().await;
    tokio::time::advance(Duration::from_secs(34)).await;
    watch.cut();
    for _ in 0..3 {
        drop(world.watch("50").await);
    }
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(world.freshness.check(), Ok(()));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(world.freshness.check(), Err(Unable::Stale));
    world.list().await.page(&[], "60", "more");
    let last = world.page("more").await;
    assert_eq!(
        world.freshness.check(),
        Err(Unable::Stale),
        "what happened meanwhile is not yet known"
    );
    last.page(&[], "60", "");
    world.watch("60").await;
    assert_eq!((world.freshness.check(), world.passing()), (Ok(()), vec![]));
}

/// A server that takes watches and shows nothing of what changes is not heard of, however often it answers.
#[tokio::test(start_paused = true)]
async fn watches_that_are_answered_and_then_break_are_no_sign_of_life() {
    let mut world = World::within(Watched::ApiKeys, None, Some(Duration::from_secs(60)));
    let silent = world.begin(&[at(1, "1")]).await;
    let again = world.watch("10").await;
    assert!(silent.is_left());
    again.stream().error(500, "etcd is away");
    world.rest().await;
    assert!(
        world.updater.trouble().unwrap().contains("etcd is away"),
        "{:?}",
        world.updater.trouble()
    );
    let (again, age) = (
        world.watch("10").await,
        world.freshness.age(Watched::ApiKeys),
    );
    assert!(age > Some(Duration::from_secs(35)), "{age:?}");
    let watch = again.stream();
    world.rest().await;
    assert!(world.updater.trouble().is_some());
    watch.bookmark("11");
    world.rest().await;
    assert_eq!(
        (world.freshness.check(), world.updater.trouble()),
        (Ok(()), None),
        "this one lives"
    );
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_and_a_missing_definition_are_told_with_what_to_do() {
    let forbidden =
        "apikeys.claviger.dev is forbidden: User \"gate\" cannot list resource \"apikeys\"";
    for (watched, code, message, words) in [
        (
            Watched::ApiKeys,
            403,
            forbidden,
            [
                "cannot list",
                "grant this right with RBAC",
                "list and watch on apikeys",
                "--namespace",
            ],
        ),
        (
            Watched::Roles,
            403,
            "no",
            [
                "no",
                "list and watch on apikeyroles",
                "--cluster-objects=false",
                "no roles are used",
            ],
        ),
        (
            Watched::Roles,
            404,
            "404 page not found",
            [
                "apikeyroles.claviger.dev",
                "CustomResourceDefinition",
                "claviger manifests",
                "kubectl apply",
            ],
        ),
    ] {
        let mut world = World::new(watched);
        world.list().await.refuse(code, message);
        let _list = world.list().await;
        let told = world.updater.trouble().unwrap();
        for word in words {
            assert!(told.contains(word), "{word:?} is missing in {told:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_trouble_of_one_watch_is_told_however_well_the_other_does() {
    let world = World::new(Watched::ApiKeys);
    world.freshness.listed(Watched::ApiKeys);
    world.freshness.listed(Watched::Roles);
    world.updater.interrupted(Watched::ApiKeys, "not allowed");
    assert!(world.updater.alive(Watched::Roles));
    assert_eq!(world.updater.trouble().unwrap(), "apikeys: not allowed");
    world.updater.interrupted(Watched::Roles, "gone");
    assert_eq!(
        world.updater.trouble().unwrap(),
        "apikeys: not allowed; apikeyroles: gone"
    );
    assert!(world.updater.alive(Watched::ApiKeys));
    assert_eq!(world.updater.trouble().unwrap(), "apikeyroles: gone");
}
