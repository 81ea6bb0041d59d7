mod cluster;

use http::Method;
use serde_json::json;
use tokio::task::JoinHandle;

use cluster::{Cluster, Fate};

use super::*;

/// A running candidate.
struct Runner {
    task: JoinHandle<Result<(), LeadershipError>>,
    state: watch::Receiver<Leadership>,
    shutdown: Shutdown,
    fence: Fence,
}

fn start(client: Client, identity: &str) -> Runner {
    let elector = Elector::new(
        client,
        "claviger",
        "claviger-leader",
        identity,
        Timing::default(),
    );
    let (fence, shutdown) = (elector.fence(), Shutdown::default());
    let (sender, state) = watch::channel(Leadership::Standby);
    let task = tokio::spawn(elector.run(shutdown.clone(), sender));
    Runner {
        task,
        state,
        shutdown,
        fence,
    }
}

impl Runner {
    async fn leads(&mut self) {
        let wait = self.state.wait_for(|state| *state == Leadership::Leading);
        timeout(Duration::from_secs(3600), wait)
            .await
            .expect("leads at some time")
            .unwrap();
    }

    async fn lost(self) -> String {
        let outcome = timeout(Duration::from_secs(3600), self.task)
            .await
            .expect("ends at some time")
            .unwrap();
        assert_eq!(*self.state.borrow(), Leadership::Lost);
        assert!(self.fence.check().is_err());
        match outcome.unwrap_err() {
            LeadershipError::LeadershipLost { lease, reason }
                if lease == "claviger/claviger-leader" =>
            {
                reason
            }
            other => panic!("{other}"),
        }
    }
}

async fn after(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn served(_: usize, _: &Method) -> Fate {
    Fate::Served
}

#[tokio::test(start_paused = true)]
async fn acquires_and_renews() {
    let cluster = Cluster::default();
    let mut a = start(cluster.client(served), "a");
    a.leads().await;
    assert_eq!(a.fence.check(), Ok(()));
    let first = cluster.spec();
    assert_eq!(
        (&first["holderIdentity"], &first["leaseDurationSeconds"]),
        (&json!("a"), &json!(15))
    );
    assert_eq!(
        (&first["leaseTransitions"], &first["acquireTime"]),
        (&json!(0), &first["renewTime"])
    );
    after(600).await;
    assert_eq!(
        (*a.state.borrow(), a.fence.check()),
        (Leadership::Leading, Ok(()))
    );
    let renewals = cluster.count(&Method::PUT);
    assert!(
        (250..=300).contains(&renewals),
        "{renewals} renewals in 600 s"
    );
    assert_eq!(
        cluster.count(&Method::GET),
        1,
        "an undisturbed leader only writes"
    );
    assert_eq!(cluster.spec()["leaseTransitions"], 0);
    assert_ne!(cluster.spec()["renewTime"], first["renewTime"]);
}

#[tokio::test(start_paused = true)]
async fn the_slower_of_two_loses_by_conflict() {
    let cluster = Cluster::default();
    // Both see no lease; b's create arrives second.
    let mut a = start(cluster.client(|_, _| Fate::Slow(100, 0)), "a");
    let b = start(cluster.client(|_, _| Fate::Slow(101, 0)), "b");
    a.leads().await;
    after(60).await;
    assert_eq!(
        (*b.state.borrow(), b.fence.check().is_err()),
        (Leadership::Standby, true)
    );
    assert_eq!(cluster.spec()["holderIdentity"], "a");
    assert!(cluster.0.lock().unwrap().log.contains(&(Method::POST, 409)));
}

#[tokio::test(start_paused = true)]
async fn the_slower_of_two_takeovers_loses_by_conflict() {
    let cluster = Cluster::default();
    let mut gone = start(cluster.client(served), "gone");
    gone.leads().await;
    gone.task.abort();
    let mut a = start(cluster.client(|_, _| Fate::Slow(100, 0)), "a");
    let mut b = start(cluster.client(|_, _| Fate::Slow(100, 0)), "b");
    tokio::select! { () = a.leads() => {}, () = b.leads() => {} }
    after(60).await;
    let leading = [&a, &b].map(|r| *r.state.borrow() == Leadership::Leading);
    assert_ne!(leading[0], leading[1]);
    assert_eq!(cluster.spec()["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_answer_is_lost_is_read_back() {
    let cluster = Cluster::default();
    let mut a = start(
        cluster.client(|n, m| {
            if m == Method::PUT && n % 3 == 0 {
                Fate::LostAnswer
            } else {
                Fate::Served
            }
        }),
        "a",
    );
    a.leads().await;
    after(300).await;
    assert_eq!(
        (*a.state.borrow(), a.fence.check()),
        (Leadership::Leading, Ok(()))
    );
    assert!(cluster.count(&Method::GET) > 10, "read back each time");
    assert_eq!(cluster.spec()["leaseTransitions"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_label_on_the_lease_does_not_unseat_the_leader_and_survives() {
    let cluster = Cluster::default();
    let mut a = start(cluster.client(served), "a");
    a.leads().await;
    cluster.edit(|lease| lease["metadata"]["labels"] = json!({"x": "y"}));
    after(30).await;
    assert_eq!(*a.state.borrow(), Leadership::Leading);
    assert_eq!(
        cluster.0.lock().unwrap().lease.as_ref().unwrap()["metadata"]["labels"]["x"],
        "y"
    );
}

#[tokio::test(start_paused = true)]
async fn stops_at_once_when_the_lease_names_another_or_is_gone() {
    type Edit = (&'static str, fn(&Cluster));
    let edits: [Edit; 3] = [
        ("held by b", |c| {
            c.edit(|lease| lease["spec"]["holderIdentity"] = json!("b"));
        }),
        ("emptied", |c| {
            c.edit(|lease| lease["spec"]["holderIdentity"] = json!(""));
        }),
        ("deleted", |c| c.0.lock().unwrap().lease = None),
    ];
    for (why, edit) in edits {
        let cluster = Cluster::default();
        let mut a = start(cluster.client(served), "a");
        a.leads().await;
        let began = Instant::now();
        edit(&cluster);
        let reason = a.lost().await;
        assert!(reason.contains(why), "{reason}");
        assert!(
            began.elapsed() <= Duration::from_millis(2_400),
            "{why}: {:?}",
            began.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_hung_server_ends_the_reign_before_another_takes_over() {
    let cluster = Cluster::default();
    let began = Instant::now();
    let mut a = start(
        cluster.client(|n, _| if n < 5 { Fate::Served } else { Fate::Hung }),
        "a",
    );
    let mut b = start(cluster.client(served), "b");
    a.leads().await;
    let fence = a.fence.clone();
    let reason = a.lost().await;
    assert!(reason.contains("not renewed in time"), "{reason}");
    let lost = began.elapsed();
    assert!(
        lost >= Duration::from_secs(10) && lost < Duration::from_secs(20),
        "{lost:?}"
    );
    assert_eq!(*b.state.borrow(), Leadership::Standby, "nobody else before");
    b.leads().await;
    let waited = began.elapsed().checked_sub(lost).unwrap();
    assert!(
        waited >= Duration::from_millis(4_900),
        "others waited {waited:?} longer"
    );
    assert!(fence.check().is_err());
    assert_eq!(
        (
            &cluster.spec()["holderIdentity"],
            &cluster.spec()["leaseTransitions"]
        ),
        (&json!("b"), &json!(1))
    );
}

#[tokio::test(start_paused = true)]
async fn the_term_counts_from_before_the_request_was_sent() {
    let cluster = Cluster::default();
    // The claim is applied at once, its answer comes 4 s later, and then nothing.
    let mut a = start(
        cluster.client(|n, _| {
            [Fate::Served, Fate::Slow(0, 4_000)]
                .get(n)
                .copied()
                .unwrap_or(Fate::Hung)
        }),
        "a",
    );
    let began = Instant::now();
    a.leads().await;
    assert_eq!(began.elapsed().as_secs(), 4);
    a.lost().await;
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn releases_only_after_the_work_has_stopped() {
    let cluster = Cluster::default();
    let mut a = start(cluster.client(served), "a");
    a.leads().await;
    let mut b = start(cluster.client(served), "b");
    a.shutdown.requested.cancel();
    after(60).await;
    assert_eq!(
        (*a.state.borrow(), a.fence.check()),
        (Leadership::Leading, Ok(())),
        "renews while draining"
    );
    let began = Instant::now();
    a.shutdown.drained.cancel();
    a.task.await.unwrap().unwrap();
    assert!(a.fence.check().is_err());
    assert_eq!(
        (
            &cluster.spec()["holderIdentity"],
            &cluster.spec()["leaseDurationSeconds"]
        ),
        (&json!(""), &json!(1))
    );
    b.leads().await;
    assert!(
        began.elapsed() < Duration::from_millis(2_500),
        "a released lease is taken at the next look"
    );
    assert_eq!(cluster.spec()["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_release_is_tried_again_but_never_of_anothers_lease() {
    let cluster = Cluster::default();
    let mut a = start(cluster.client(served), "a");
    a.leads().await;
    cluster.edit(|lease| lease["metadata"]["labels"] = json!({"x": "y"}));
    a.shutdown.drained.cancel();
    a.task.await.unwrap().unwrap();
    assert_eq!(cluster.spec()["holderIdentity"], "");

    let mut a = start(cluster.client(served), "a2");
    a.leads().await;
    cluster.edit(|lease| lease["spec"]["holderIdentity"] = json!("b"));
    a.shutdown.drained.cancel();
    a.task.await.unwrap().unwrap();
    assert_eq!(cluster.spec()["holderIdentity"], "b");
}

#[tokio::test(start_paused = true)]
async fn the_fence_is_closed_before_the_lease_is_given_back() {
    let cluster = Cluster::default();
    let mut a = start(cluster.client(|_, _| Fate::Slow(0, 1_000)), "a");
    a.leads().await;
    a.shutdown.drained.cancel();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(cluster.spec()["holderIdentity"], "");
    assert!(!a.task.is_finished() && a.fence.check().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_standby_leaves_when_asked_and_touches_nothing() {
    let cluster = Cluster::default();
    let mut a = start(cluster.client(served), "a");
    a.leads().await;
    let b = start(cluster.client(served), "b");
    after(5).await;
    let began = Instant::now();
    b.shutdown.requested.cancel();
    b.task.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_millis(100));
    assert_eq!(cluster.spec()["holderIdentity"], "a");

    let empty = Cluster::default();
    let c = start(empty.client(served), "c");
    c.shutdown.requested.cancel();
    c.task.await.unwrap().unwrap();
    assert_eq!(empty.0.lock().unwrap().log, []);
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_replaced_when_its_term_ends_and_not_at_some_later_look() {
    let cluster = Cluster::default();
    let mut dead = start(cluster.client(served), "dead");
    dead.leads().await;
    dead.task.abort();
    let began = Instant::now();
    let mut b = start(cluster.client(served), "b");
    b.leads().await;
    let waited = began.elapsed();
    assert!(
        waited >= Duration::from_secs(15) && waited < Duration::from_millis(15_010),
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_leader_frozen_past_its_term_writes_nothing_when_it_thaws() {
    let cluster = Cluster::default();
    let mut a = start(cluster.client(served), "a");
    a.leads().await;
    after(1).await;
    let (before, fence) = (cluster.0.lock().unwrap().log.len(), a.fence.clone());
    tokio::time::advance(Duration::from_secs(30)).await;
    assert!(fence.check().is_err());
    a.lost().await;
    assert_eq!(cluster.0.lock().unwrap().log.len(), before);
}

#[tokio::test(start_paused = true)]
async fn a_candidate_frozen_while_it_acquires_does_not_announce_a_term_that_is_over() {
    let cluster = Cluster::default();
    let mut a = start(
        cluster.client(|n, _| {
            if n == 1 {
                Fate::Slow(0, 1_000)
            } else {
                Fate::Served
            }
        }),
        "a",
    );
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        cluster.spec()["holderIdentity"],
        "a",
        "applied, not yet answered"
    );
    tokio::time::advance(Duration::from_secs(30)).await;
    a.leads().await;
    assert_eq!(a.fence.check(), Ok(()));
    after(60).await;
    assert_eq!(*a.state.borrow(), Leadership::Leading);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_lease_is_not_taken_before_its_last_holders_term() {
    let cluster = Cluster::default();
    let mut a = start(
        cluster.client(|n, _| if n < 2 { Fate::Served } else { Fate::Hung }),
        "a",
    );
    a.leads().await;
    let mut b = start(cluster.client(served), "b");
    after(1).await;
    cluster.0.lock().unwrap().lease = None;
    b.leads().await;
    assert!(a.fence.check().is_err(), "a could still write");
}

#[tokio::test(start_paused = true)]
async fn dropping_the_election_closes_the_fence() {
    let cluster = Cluster::default();
    let mut a = start(cluster.client(served), "a");
    a.leads().await;
    a.task.abort();
    assert!(a.task.await.unwrap_err().is_cancelled());
    assert!(a.fence.check().is_err());
}

#[tokio::test(start_paused = true)]
async fn missing_permission_is_named_and_survived_by_a_standby() {
    let cluster = Cluster::default();
    let mut elector = Elector::new(
        cluster.client(|_, _| Fate::Failed(403)),
        "claviger",
        "lock",
        "a",
        Timing::default(),
    );
    let message = elector.attempt().await.unwrap_err().to_string();
    for part in [
        "get leases.coordination.k8s.io lock",
        "namespace claviger",
        "create and update",
        "told so",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let mut late = start(
        cluster.client(|n, _| {
            if n < 20 {
                Fate::Failed(403)
            } else {
                Fate::Served
            }
        }),
        "b",
    );
    late.leads().await;

    let mut barred = start(
        cluster.client(|_, m| {
            if m == Method::PUT {
                Fate::Failed(403)
            } else {
                Fate::Served
            }
        }),
        "b",
    );
    after(30).await;
    assert_eq!(*barred.state.borrow_and_update(), Leadership::Standby);
    late.task.abort();
}

/// Many pairs on bad networks: the two fences never pass at the same instant.
#[tokio::test(start_paused = true)]
async fn two_fences_never_pass_together() {
    let (mut led, mut ended) = ([0, 0], 0);
    for seed in 0..60_u64 {
        let cluster = Cluster::default();
        let bad = move |who: u64| {
            move |n: usize, _: &Method| {
                let mut hasher = DefaultHasher::new();
                (seed, who, n).hash(&mut hasher);
                let dice = hasher.finish();
                match dice % 16 {
                    0 => Fate::LostAnswer,
                    1 => Fate::Hung,
                    2 | 3 => Fate::Failed(503),
                    4 | 5 => Fate::Slow(dice >> 8 & 0x3fff, 0),
                    6 | 7 => Fate::Slow(0, dice >> 8 & 0x1fff),
                    _ => Fate::Slow(dice >> 8 & 0xff, dice >> 16 & 0xff),
                }
            }
        };
        let mut pair = [0, 1].map(|who| start(cluster.client(bad(who)), &format!("{who}-0")));
        for tick in 0..6_000_u64 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let passes = [&pair[0], &pair[1]].map(|r| r.fence.check().is_ok());
            assert_ne!(passes, [true, true], "seed {seed}, tick {tick}");
            for who in [0, 1] {
                led[who] += usize::from(passes[who]);
                if pair[who].task.is_finished() {
                    ended += 1;
                    pair[who] = start(
                        cluster.client(bad(who as u64 + 2 * tick)),
                        &format!("{who}-{tick}"),
                    );
                }
            }
        }
        for runner in &pair {
            runner.task.abort();
        }
    }
    assert!(
        led[0] > 50_000 && led[1] > 50_000 && ended > 50,
        "led {led:?}, ended {ended}"
    );
}
