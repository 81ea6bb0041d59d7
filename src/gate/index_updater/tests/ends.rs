//! Watches that end before their time, and how long a gate may then go on deciding.

use std::time::Duration;

use tokio::time::Instant;

use super::server::{TIMING, Watch, World};
use super::{at, revoked};
use crate::gate::freshness::Watched;

const BOUND: Duration = Duration::from_secs(40);

fn bounded() -> World {
    World::within(Watched::ApiKeys, None, Some(BOUND))
}

/// It breaks after that time.
async fn breaks(world: &World, watch: Watch, after: u64) {
    world.rest().await;
    tokio::time::advance(Duration::from_secs(after)).await;
    watch.cut();
}

/// etcd was restored, and a proxy before the API server has cut the connection as if all were well.
#[tokio::test(start_paused = true)]
async fn a_connection_that_was_cut_is_no_end_in_order_whatever_was_shown() {
    for shows in [true, false] {
        let mut world = World::new(Watched::ApiKeys);
        let watch = world.begin(&[at(1, "1")]).await;
        if shows {
            watch.added(&at(2, "11"));
        }
        world.rest().await;
        tokio::time::advance(Duration::from_secs(27)).await;
        watch.cut_quietly();
        let place = world.place().await;
        let told = world.updater.trouble().unwrap();
        assert!(told.contains("has ended before its time"), "{told}");
        place.page(&[], "5", "");
        world.list().await.page(&[revoked(1, "4")], "5", "");
        world.watch("5").await;
        assert_eq!(world.passing(), Vec::<usize>::new(), "{shows}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_at_its_time_is_begun_anew_without_a_question_or_a_pause() {
    let mut world = World::new(Watched::ApiKeys);
    world.place = None;
    let watch = world.begin(&[at(1, "1")]).await;
    watch.bookmark("20");
    world.rest().await;
    tokio::time::advance(Duration::from_millis(29_100)).await;
    watch.cut_quietly();
    let begun = Instant::now();
    world.watch("20").await;
    assert_eq!(
        (begun.elapsed(), world.updater.trouble()),
        (Duration::ZERO, None)
    );
}

/// A proxy that cuts whatever lasts: a small list for each watch, pauses as after any that broke, and never everything.
#[tokio::test(start_paused = true)]
async fn watches_that_always_end_early_are_begun_with_pauses_and_small_lists() {
    let mut world = World::new(Watched::ApiKeys);
    let mut watch = world.begin(&[at(1, "1")]).await;
    let begun = Instant::now();
    for _ in 0..30 {
        world.rest().await;
        tokio::time::advance(Duration::from_secs(2)).await;
        drop(watch);
        world.place().await.page(&[at(1, "1")], "12", "");
        watch = world.watch("10").await.stream();
    }
    let paused = begun.elapsed().saturating_sub(Duration::from_secs(60));
    assert!(paused > Duration::from_secs(30), "{paused:?}");
}

/// The API server was restarted, and is well: nobody is turned away.
#[tokio::test(start_paused = true)]
async fn a_watch_that_begins_is_a_sign_after_one_that_broke_and_a_place_that_was_confirmed() {
    let mut world = bounded();
    let watch = world.begin(&[at(1, "1")]).await;
    breaks(&world, watch, 28).await;
    let watch = world.watch("10").await.stream();
    world.rest().await;
    assert!(world.freshness.age(Watched::ApiKeys) < Some(Duration::from_secs(1)));
    tokio::time::advance(TIMING.watch).await;
    assert_eq!(
        (world.freshness.check(), world.updater.trouble()),
        (Ok(()), None)
    );
    drop(watch);
    world.watch("10").await;
}

/// Somebody takes watches, shows nothing, and cuts them. What was revoked is heard by a list, and before verdicts have to end.
#[tokio::test(start_paused = true)]
async fn watches_that_show_nothing_and_break_again_and_again_are_made_good_by_a_list_in_time() {
    let mut world = bounded();
    let watch = world.begin(&[at(1, "1"), at(2, "2")]).await;
    let mut watch = {
        breaks(&world, watch, 9).await;
        world.watch("10").await.stream()
    };
    let trusted = Instant::now();
    for _ in 0..4 {
        breaks(&world, watch, 9).await;
        watch = world.watch("10").await.stream();
    }
    let list = world.list().await;
    let waited = trusted.elapsed();
    assert!(
        waited > Duration::from_secs(37) && waited < Duration::from_secs(40),
        "{waited:?}"
    );
    assert!(watch.is_left());
    assert_eq!(world.freshness.check(), Ok(()));
    let told = world.updater.trouble().unwrap();
    assert!(told.contains("for almost --max-staleness"), "{told}");
    list.page(&[revoked(1, "5"), at(2, "2")], "12", "");
    let _watch = world.watch("12").await.stream();
    assert_eq!(
        (world.passing(), world.freshness.check()),
        (vec![2], Ok(()))
    );
}

/// Its connection died, and the next watch shows nothing, either.
#[tokio::test(start_paused = true)]
async fn a_gate_that_comes_near_its_bound_lists_and_does_not_wait_for_the_end_of_its_watch() {
    let mut world = bounded();
    let silent = world.begin(&[at(1, "1")]).await;
    let begun = Instant::now();
    let _watch = world.watch("10").await.stream();
    assert!(
        silent.is_left() && begun.elapsed() >= Duration::from_secs(35),
        "{:?}",
        begun.elapsed()
    );
    let list = world.list().await;
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    assert_eq!(world.freshness.check(), Ok(()));
    list.page(&[revoked(1, "5")], "12", "");
    let _watch = world.watch("12").await.stream();
    assert_eq!((world.passing(), world.freshness.check()), (vec![], Ok(())));
}
