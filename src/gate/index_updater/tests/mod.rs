mod ends;
mod restored;
mod server;
mod trouble;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::gate::freshness::Watched;
use crate::gate::report::{Noted, Subject};
use crate::gate::testing::{apikey, key, uid};
use crate::key::Hash;
use server::{TIMING, World};

/// An ApiKey as it is at a resourceVersion.
fn at(number: usize, resource_version: &str) -> Value {
    apikey(
        number,
        json!({ "metadata": { "resourceVersion": resource_version } }),
    )
}

/// One that was revoked.
fn revoked(number: usize, resource_version: &str) -> Value {
    apikey(
        number,
        json!({ "metadata": { "resourceVersion": resource_version }, "spec": { "revoked": true } }),
    )
}

fn role(name: &str, permissions: &[&str]) -> Value {
    role_at(name, permissions, "7")
}

fn role_at(name: &str, permissions: &[&str], resource_version: &str) -> Value {
    let metadata = json!({ "name": name, "uid": name, "resourceVersion": resource_version });
    json!({ "metadata": metadata, "spec": { "permissions": permissions } })
}

impl World {
    /// Which of the keys 1 to 6 pass.
    fn passing(&self) -> Vec<usize> {
        let index = self.index.load();
        let passes = |number: &usize| {
            let holder = index.find(&Hash::of(key(*number).as_bytes()));
            holder.is_some_and(|holder| holder.entry().ended(0).is_none())
        };
        (1..=6).filter(passes).collect()
    }

    fn reached(&self) -> String {
        self.updater.reached().apikeys
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_comes_in_pages_and_no_verdict_before_the_last() {
    let mut world = World::new(Watched::ApiKeys);
    world
        .list()
        .await
        .page(&[at(1, "1"), at(2, "2")], "10", "second");
    let second = world.page("second").await;
    assert_eq!(second.path, "/apis/claviger.dev/v1alpha1/apikeys");
    assert_eq!(world.passing(), [1, 2]);
    assert!(
        world.freshness.check().is_err(),
        "a key of the second page would be refused"
    );
    second.page(&[at(3, "3")], "10", "third");
    world.page("third").await.page(&[], "10", "");
    let _watch = world.watch("10").await.stream();
    assert_eq!(world.passing(), [1, 2, 3]);
    assert_eq!(world.freshness.check(), Ok(()));
    assert_eq!(world.reached(), "10");
}

#[tokio::test(start_paused = true)]
async fn one_namespace_is_all_that_is_asked_for_where_it_is_named() {
    let mut world = World::within(Watched::ApiKeys, Some("team-a"), None);
    assert_eq!(
        world.list().await.path,
        "/apis/claviger.dev/v1alpha1/namespaces/team-a/apikeys"
    );
    let mut world = World::within(Watched::Roles, Some("team-a"), None);
    assert_eq!(
        world.list().await.path,
        "/apis/claviger.dev/v1alpha1/apikeyroles",
        "roles have no namespace"
    );
}

#[tokio::test(start_paused = true)]
async fn what_changes_is_taken_in_and_a_watch_goes_on_where_the_last_one_ended() {
    let mut world = World::new(Watched::ApiKeys);
    let watch = world.begin(&[at(1, "1"), at(2, "2")]).await;
    watch
        .added(&at(3, "11"))
        .modified(&revoked(1, "12"))
        .deleted(&at(2, "13"));
    world.rest().await;
    assert_eq!(world.passing(), [3]);
    assert_eq!(world.reached(), "13");
    tokio::time::advance(TIMING.watch).await;
    drop(watch);
    world.watch("13").await;
    assert_eq!(
        world.metric(r#"claviger_gate_changes_total{resource="apikeys"}"#),
        "3"
    );
    assert_eq!(
        world.metric("claviger_gate_index_lag_seconds_count"),
        "1",
        "they came together and were published together"
    );
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_says_up_to_where_everything_is_known() {
    let mut world = World::new(Watched::ApiKeys);
    let watch = world.begin(&[at(1, "1")]).await;
    watch.added(&at(2, "11")).bookmark("99");
    world.rest().await;
    assert_eq!(world.reached(), "99");
    watch.bookmark("");
    world.rest().await;
    assert_eq!(
        world.reached(),
        "99",
        "a bookmark without a resourceVersion says nothing"
    );
    watch.cut();
    world.watch("99").await;
}

/// What went while no watch ran.
#[tokio::test(start_paused = true)]
async fn what_the_next_list_does_not_show_is_gone() {
    let mut world = World::new(Watched::ApiKeys);
    let watch = world.begin(&[at(1, "1"), at(2, "2"), at(3, "3")]).await;
    let subject = || Subject {
        namespace: "team-a".to_owned(),
        name: "key-2".to_owned(),
        uid: uid(2),
    };
    world.uses.record(&Noted::new(None), 1_800_000_000, subject);
    watch.error(410, "too old resource version: 10 (20)");
    let list = world.list().await;
    assert_eq!(world.passing(), [1, 2, 3], "until it is known better");
    list.page(&[revoked(1, "21")], "30", "more");
    let second = world.page("more").await;
    assert_eq!(
        world.passing(),
        [2, 3],
        "what is revoked is refused at once"
    );
    second.page(&[at(3, "3"), at(4, "22")], "30", "");
    world.watch("30").await;
    assert_eq!(world.passing(), [3, 4]);
    assert_eq!(
        world.uses.pending(),
        0,
        "nobody waits for the last use of a key that is gone"
    );
}

/// The controller passes its uses over, and a gate tells its oldest first: they would stand before everybody's.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_the_last_use_of_a_key_that_is_being_deleted() {
    let mut world = World::new(Watched::ApiKeys);
    let watch = world.begin(&[at(1, "1"), at(2, "2")]).await;
    for number in [1, 2] {
        let subject = || Subject {
            namespace: "team-a".to_owned(),
            name: format!("key-{number}"),
            uid: uid(number),
        };
        world.uses.record(&Noted::new(None), 1_800_000_000, subject);
    }
    assert_eq!(world.uses.pending(), 2);
    let mut going = at(1, "11");
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    going["metadata"]["finalizers"] = ["example.com/slow"].into();
    watch.event("MODIFIED", &going);
    world.rest().await;
    assert_eq!(world.uses.pending(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_role_that_the_next_list_does_not_show_grants_nothing() {
    let mut world = World::new(Watched::Roles);
    let watch = world
        .begin(&[role("viewer", &["see"]), role("editor", &["see"])])
        .await;
    world.rest().await;
    assert_eq!(world.index.load().roles(), 2);
    watch.error(410, "too old resource version");
    world
        .list()
        .await
        .page(&[role("editor", &["see"])], "20", "");
    world
        .watch("20")
        .await
        .stream()
        .deleted(&role_at("editor", &[], "21"));
    world.rest().await;
    assert_eq!(world.index.load().roles(), 0);
}

#[tokio::test(start_paused = true)]
async fn forgotten_changes_are_made_good_by_a_list_however_that_is_told() {
    let mut world = World::new(Watched::ApiKeys);
    let watch = world.begin(&[at(1, "1")]).await;
    watch
        .added(&at(2, "11"))
        .error(410, "too old resource version: 11 (20)");
    let list = world.list().await;
    assert_eq!(world.passing(), [1, 2]);
    assert!(
        world
            .updater
            .trouble()
            .unwrap()
            .contains("since resourceVersion 11"),
        "{:?}",
        world.updater.trouble()
    );
    list.page(&[at(2, "11")], "20", "");
    // As a status, which aggregated API servers answer.
    world.watch("20").await.refuse(410, "Expired");
    world.list().await.page(&[at(3, "25")], "30", "");
    world.watch("30").await;
    assert_eq!(world.passing(), [3]);
}

/// The pages of a list are of one moment; when that is forgotten, what was read cannot be completed.
#[tokio::test(start_paused = true)]
async fn a_list_that_expires_between_its_pages_begins_from_its_start() {
    let mut world = World::new(Watched::ApiKeys);
    world
        .list()
        .await
        .page(&[at(1, "1"), at(2, "2")], "10", "second");
    world
        .page("second")
        .await
        .refuse(410, "The provided continue parameter is too old");
    world
        .list()
        .await
        .page(&[at(2, "2"), at(3, "11")], "20", "");
    world.watch("20").await;
    assert_eq!(
        world.passing(),
        [2, 3],
        "what only the first try has shown was deleted since"
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_passed_over_when_an_error_stands_between_events() {
    let mut world = World::new(Watched::ApiKeys);
    let watch = world.begin(&[at(1, "1")]).await;
    watch
        .added(&at(2, "11"))
        .error(500, "etcd is away")
        .added(&at(3, "12"))
        .bookmark("40");
    let again = world.watch("11").await;
    assert_eq!(world.passing(), [1, 2]);
    let watch = again.stream();
    watch.added(&at(3, "12"));
    // A line that breaks off, as the connection does.
    let _ = watch.line(r#"{"type":"ADDED","object":{"metadata":{"name":"key-4","#);
    watch.cut();
    world.watch("12").await;
    assert_eq!(world.passing(), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_says_nothing_is_begun_anew_when_it_should_have_ended() {
    let mut world = World::new(Watched::ApiKeys);
    let silent = world.begin(&[at(1, "1")]).await;
    let begun = Instant::now();
    let again = world.watch("10").await;
    let waited = begun.elapsed();
    assert!(
        waited >= Duration::from_secs(35) && waited < Duration::from_secs(36),
        "{waited:?}"
    );
    assert!(silent.is_left());
    assert_eq!(
        world.updater.trouble().unwrap(),
        "apikeys: nothing was heard for 35 s"
    );
    let watch = again.stream();
    watch.modified(&revoked(1, "11"));
    world.rest().await;
    assert_eq!((world.passing(), world.updater.trouble()), (vec![], None));
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_is_made_again() {
    let mut world = World::new(Watched::ApiKeys);
    let (hanging, begun) = (world.list().await, Instant::now());
    let list = world.list().await;
    assert!(
        begun.elapsed() >= TIMING.request
            && begun.elapsed() < TIMING.request + Duration::from_secs(1)
    );
    assert_eq!(
        world.updater.trouble().unwrap(),
        "apikeys: no answer within 10 s"
    );
    drop(hanging);
    list.page(&[at(1, "1")], "10", "");
    let (_hanging, begun) = (world.watch("10").await, Instant::now());
    world.watch("10").await;
    assert!(
        begun.elapsed() >= TIMING.request
            && begun.elapsed() < TIMING.request + Duration::from_secs(1)
    );
}
