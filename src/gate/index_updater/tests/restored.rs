//! An API server that counts from lower again, and one that has nothing to show: both answer a watch and are silent.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::server::{TIMING, Watch, World};
use super::{at, revoked};
use crate::gate::answer::Unable;
use crate::gate::freshness::Watched;

const BOUND: Duration = Duration::from_secs(40);

/// It ends at its time, in order.
async fn ends(world: &World, watch: Watch) {
    world.rest().await;
    tokio::time::advance(TIMING.watch).await;
    drop(watch);
}

/// etcd came back from a backup. What was revoked since is shown by no watch from where the gate stood.
#[tokio::test(start_paused = true)]
async fn an_api_server_that_was_restored_is_found_out_when_a_watch_has_shown_nothing() {
    let mut world = World::within(Watched::ApiKeys, None, Some(BOUND));
    let watch = world.begin(&[at(1, "1"), at(2, "2")]).await;
    ends(&world, watch).await;
    let place = world.place().await;
    assert!(
        world.freshness.age(Watched::ApiKeys) >= Some(TIMING.watch),
        "that it ends in order is no sign"
    );
    place.page(&[at(1, "1")], "9", "more");
    let list = world.list().await;
    let told = world.updater.trouble().unwrap();
    assert!(
        told.contains("stands at resourceVersion 9, before 10, as after a restore"),
        "{told}"
    );
    list.page(&[revoked(1, "8"), at(3, "3")], "9", "");
    world.watch("9").await;
    assert_eq!(
        (world.passing(), world.freshness.check()),
        (vec![3], Ok(()))
    );
}

#[tokio::test(start_paused = true)]
async fn numbers_are_compared_not_their_digits() {
    let mut world = World::new(Watched::ApiKeys);
    world.list().await.page(&[at(1, "1")], "9", "");
    let watch = world.watch("9").await.stream();
    ends(&world, watch).await;
    world.place().await.page(&[], "10", "");
    let watch = world.watch("9").await.stream();
    watch.bookmark("1000");
    watch.cut();
    world.place().await.page(&[], "999", "");
    world.list().await;
}

/// The connection broke because the API server was restored: that is known before it has counted up again.
#[tokio::test(start_paused = true)]
async fn a_watch_that_broke_goes_on_once_the_api_server_stands_where_it_did() {
    let mut world = World::within(Watched::ApiKeys, None, Some(BOUND));
    let watch = world.begin(&[at(1, "1")]).await;
    watch.added(&at(2, "11"));
    watch.cut();
    world.place().await.page(&[], "11", "");
    world.watch("11").await.stream().cut();
    world.place().await.page(&[], "5", "");
    world.list().await.page(&[at(1, "1")], "5", "");
    world.watch("5").await;
    assert_eq!(world.passing(), [1]);
}

/// A server, or a proxy, that sends no bookmarks: a small list for each watch, and never everything.
#[tokio::test(start_paused = true)]
async fn a_quiet_cluster_without_bookmarks_is_not_listed_again_and_again() {
    let mut world = World::within(Watched::ApiKeys, None, Some(BOUND));
    let mut watch = world.begin(&[at(1, "1")]).await;
    for _ in 0..20 {
        ends(&world, watch).await;
        world.place().await.page(&[at(1, "1")], "12", "");
        watch = world.watch("10").await.stream();
        assert_eq!(
            (world.freshness.check(), world.updater.trouble()),
            (Ok(()), None)
        );
    }
    watch.bookmark("12");
    ends(&world, watch).await;
    world.watch("12").await;
}

/// What was revoked before the restore is shown by no watch. Once it has counted up again, events look as if all were well.
#[tokio::test(start_paused = true)]
async fn nothing_is_watched_before_the_api_server_has_said_where_it_stands() {
    let mut world = World::within(Watched::ApiKeys, None, Some(Duration::from_secs(70)));
    let watch = world.begin(&[at(1, "1")]).await;
    watch.added(&at(2, "11"));
    watch.cut();
    let begun = Instant::now();
    for _ in 0..8 {
        world.place().await.refuse(503, "etcd is away");
    }
    let waited = begun.elapsed();
    assert!(
        waited > Duration::from_secs(2) && waited < Duration::from_secs(12),
        "{waited:?} for 8 tries"
    );
    assert!(
        world.updater.trouble().unwrap().contains("etcd is away"),
        "{:?}",
        world.updater.trouble()
    );
    world.place().await.page(&[], "5", "");
    world.list().await.page(&[revoked(1, "4")], "5", "");
    world.watch("5").await;
    assert_eq!(world.passing(), Vec::<usize>::new());
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_confirmed_late_does_not_say_how_the_last_watch_ended() {
    let mut world = World::within(Watched::ApiKeys, None, Some(Duration::from_secs(70)));
    let watch = world.begin(&[at(1, "1")]).await;
    ends(&world, watch).await;
    world.place().await.refuse(503, "etcd is away");
    world.place().await.page(&[], "12", "");
    let watch = world.watch("10").await;
    assert!(
        world.freshness.age(Watched::ApiKeys) >= Some(TIMING.watch),
        "somebody may have been revoked since"
    );
    let _watch = watch.stream();
    world.rest().await;
    assert!(
        world.freshness.age(Watched::ApiKeys) < Some(Duration::from_secs(1)),
        "this one would show it"
    );
}

/// It came back while the connection lived on, as through a proxy.
#[tokio::test(start_paused = true)]
async fn what_stands_before_what_came_before_makes_it_list_everything() {
    let mut world = World::new(Watched::ApiKeys);
    let watch = world.begin(&[at(1, "1")]).await;
    watch.bookmark("20").bookmark("20").bookmark("9");
    let list = world.list().await;
    let told = world.updater.trouble().unwrap();
    assert!(
        told.contains("stands at resourceVersion 9, before 20, as after a restore"),
        "{told}"
    );
    list.page(&[at(1, "1")], "12", "");
    let watch = world.watch("12").await.stream();
    watch
        .added(&at(2, "13"))
        .added(&at(3, "11"))
        .added(&at(4, "14"));
    let list = world.list().await;
    assert_eq!(
        (world.reached().as_str(), world.passing().contains(&4)),
        ("13", false)
    );
    list.page(&[at(3, "11")], "11", "");
    world.watch("11").await;
    assert_eq!(world.passing(), [3]);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_does_not_compare_is_none() {
    let mut world = World::new(Watched::ApiKeys);
    world.list().await.page(&[at(1, "1")], "ten", "");
    let watch = world.watch("ten").await.stream();
    ends(&world, watch).await;
    world
        .place()
        .await
        .json(&json!({ "metadata": { "resourceVersion": "eleven" }, "items": [] }));
    world.list().await;
}

/// Nothing passes again before everything that happened is known: what comes first does not say what comes next.
#[tokio::test(start_paused = true)]
async fn a_backlog_that_comes_too_late_is_made_good_by_a_list() {
    let mut world = World::within(Watched::ApiKeys, None, Some(BOUND));
    world.begin(&[at(1, "1"), at(2, "2")]).await.cut();
    let watch = world.watch("10").await.stream();
    world.rest().await;
    watch.added(&at(3, "11"));
    tokio::time::advance(BOUND + Duration::from_secs(1)).await;
    world.rest().await;
    assert_eq!(
        world.freshness.check(),
        Err(Unable::Stale),
        "key 1 was revoked, and that comes with the next events"
    );
    let list = world.list().await;
    assert!(watch.is_left());
    list.page(&[revoked(1, "12"), at(2, "2"), at(3, "11")], "12", "");
    world.watch("12").await;
    assert_eq!(
        (world.passing(), world.freshness.check()),
        (vec![2, 3], Ok(()))
    );
}

/// It may have been answered after that time, too.
#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_too_late_is_no_sign() {
    let mut world = World::within(Watched::ApiKeys, None, Some(BOUND));
    let watch = world.begin(&[at(1, "1")]).await;
    watch.bookmark("20");
    world.rest().await;
    tokio::time::advance(Duration::from_secs(38)).await;
    watch.cut();
    let late = world.watch("20").await;
    tokio::time::advance(Duration::from_secs(5)).await;
    let _watch = late.stream();
    world.list().await;
    assert_eq!(world.freshness.check(), Err(Unable::Stale));
}
