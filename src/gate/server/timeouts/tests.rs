use std::time::Duration;

use tokio::sync::Semaphore;

use super::super::head_tracker::PREFACE;
use super::*;

const HEAD: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

fn limits() -> Limits {
    let seconds = Duration::from_secs;
    Limits {
        first_request: seconds(3),
        head: seconds(1),
        idle: seconds(1000),
        age: seconds(100_000),
        request: seconds(100),
        write: seconds(10),
        ..Limits::default()
    }
}

fn new() -> ConnectionTimeouts {
    ConnectionTimeouts::new(limits())
}

fn begin(timeouts: &ConnectionTimeouts) -> RequestInFlight {
    timeouts.begin(Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap())
}

/// After how many seconds what runs out, if nothing happens any more.
async fn expires(timeouts: &ConnectionTimeouts) -> (u64, Expired) {
    let begun = Instant::now();
    let mut timer = Timer::new(timeouts.clone());
    let what = std::future::poll_fn(|context| timer.poll(context)).await;
    (begun.elapsed().as_secs(), what)
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn silent_peer_is_not_waited_for() {
    assert_eq!(expires(&new()).await, (3, Expired::Head));
}

#[tokio::test(start_paused = true)]
async fn head_has_its_time_from_its_first_byte_on() {
    let timeouts = new();
    pass(1).await;
    timeouts.read(b"G");
    timeouts.read(b"E");
    assert_eq!(expires(&timeouts).await, (1, Expired::Head));
    let late = new();
    pass(2).await;
    late.read(b"P");
    pass(1).await;
    late.read(b"O");
    let expired = expires(&late).await;
    assert_eq!(expired, (0, Expired::Head), "a second byte buys no time");
}

#[tokio::test(start_paused = true)]
async fn idle_connection_stays_and_its_next_head_has_its_time() {
    let timeouts = new();
    timeouts.read(HEAD);
    drop(begin(&timeouts));
    assert_eq!(expires(&timeouts).await, (1000, Expired::Use));
    timeouts.read(b"G");
    assert_eq!(timeouts.next(), (Instant::now(), Expired::Use));
    drop(begin(&timeouts));
    pass(500).await;
    timeouts.read(b"G");
    assert_eq!(expires(&timeouts).await, (1, Expired::Head));
}

#[tokio::test(start_paused = true)]
async fn body_of_a_request_is_no_head() {
    let timeouts = new();
    timeouts.read(b"POST / HTTP/1.1\r\n\r\n");
    let request = begin(&timeouts);
    timeouts.read(b"body");
    assert_eq!(expires(&timeouts).await, (100, Expired::Progress));
    drop(request);
    assert_eq!(expires(&timeouts).await, (1000, Expired::Use));
}

#[tokio::test(start_paused = true)]
async fn http2_header_block_has_the_time_of_a_head() {
    let timeouts = new();
    timeouts.read(&PREFACE[..10]);
    assert_eq!(
        expires(&timeouts).await,
        (1, Expired::Head),
        "the preface, too"
    );
    let timeouts = new();
    timeouts.read(PREFACE);
    drop(begin(&timeouts));
    let (begins, ends) = (
        [0, 0, 1, 1, 0, 0, 0, 0, 3, 0x82],
        [0, 0, 0, 9, 4, 0, 0, 0, 3],
    );
    timeouts.read(&begins);
    assert_eq!(expires(&timeouts).await, (1, Expired::Head));
    // Requests that end meanwhile give it no more time, and its own end does.
    drop(begin(&timeouts));
    assert_eq!(timeouts.next(), (Instant::now(), Expired::Head));
    timeouts.read(&ends);
    assert_eq!(expires(&timeouts).await, (1000, Expired::Use));
    // Each block has its own time, also where one read ends one and begins the next.
    let timeouts = new();
    timeouts.read(PREFACE);
    timeouts.read(&begins);
    tokio::time::advance(Duration::from_millis(900)).await;
    timeouts.read(&[&ends[..], &begins].concat());
    assert_eq!(expires(&timeouts).await, (1, Expired::Head));
}

#[tokio::test(start_paused = true)]
async fn http2_requests_each_have_their_time() {
    let timeouts = new();
    timeouts.read(PREFACE);
    timeouts.read(&[0, 0, 8, 6, 0, 0, 0, 0, 0]);
    assert_eq!(
        expires(&timeouts).await,
        (3, Expired::Head),
        "a ping is no request"
    );
    let first = begin(&timeouts);
    pass(30).await;
    let second = begin(&timeouts);
    pass(20).await;
    assert_eq!(expires(&timeouts).await, (50, Expired::Progress));
    drop(first);
    pass(10).await;
    drop(begin(&timeouts));
    let expired = expires(&timeouts).await;
    assert_eq!(
        expired,
        (20, Expired::Progress),
        "others that end gain it no time"
    );
    drop(second);
    assert_eq!(expires(&timeouts).await, (1000, Expired::Use));
}

#[tokio::test(start_paused = true)]
async fn peer_that_does_not_read_is_cut_off() {
    let timeouts = new();
    let _request = begin(&timeouts);
    timeouts.wrote(true, true);
    pass(5).await;
    timeouts.wrote(false, true);
    assert_eq!(expires(&timeouts).await, (5, Expired::Progress));
    // One that reads slowly is waited for.
    timeouts.wrote(true, true);
    assert_eq!(expires(&timeouts).await, (10, Expired::Progress));
    timeouts.wrote(true, false);
    assert_eq!(timeouts.next().0, Instant::now() + Duration::from_secs(80));
}

#[tokio::test(start_paused = true)]
async fn closing_connection_has_the_time_to_drain() {
    let timeouts = new();
    drop(begin(&timeouts));
    timeouts.close();
    pass(5).await;
    timeouts.close();
    assert_eq!(expires(&timeouts).await, (15, Expired::Progress));
    let busy = new();
    busy.close();
    let _request = begin(&busy);
    assert_eq!(expires(&busy).await, (20, Expired::Progress));
}

#[tokio::test(start_paused = true)]
async fn old_connection_closes_within_twice_its_age() {
    let limits = Limits {
        age: Duration::from_secs(300),
        ..limits()
    };
    let mut ages = Vec::new();
    for _ in 0..20 {
        let timeouts = ConnectionTimeouts::new(limits);
        timeouts.read(PREFACE);
        let (age, expired) = {
            let request = begin(&timeouts);
            assert!(!request.is_last());
            drop(request);
            expires(&timeouts).await
        };
        assert_eq!(expired, Expired::Use);
        assert!(begin(&timeouts).is_last());
        ages.push(age);
        timeouts.close();
        assert_eq!(expires(&timeouts).await, (20, Expired::Progress));
    }
    assert!(ages.iter().all(|age| (300..=600).contains(age)), "{ages:?}");
    assert!(
        ages.iter().any(|age| *age != ages[0]),
        "not all at once: {ages:?}"
    );
    // Over HTTP/1 an idle connection stays: its peer may just send a request.
    let timeouts = ConnectionTimeouts::new(limits);
    timeouts.read(HEAD);
    drop(begin(&timeouts));
    assert_eq!(expires(&timeouts).await, (1000, Expired::Use));
}

#[tokio::test(start_paused = true)]
async fn server_waits_for_the_oldest_request_or_the_next() {
    let timeouts = new();
    let begun = Instant::now();
    assert_eq!(
        (timeouts.waits_since(), timeouts.busy_since()),
        (begun, None)
    );
    pass(1).await;
    let first = begin(&timeouts);
    let second_later = begun + Duration::from_secs(1);
    pass(1).await;
    let second = begin(&timeouts);
    assert_eq!(timeouts.waits_since(), second_later);
    assert_eq!(timeouts.busy_since(), Some(second_later));
    drop((first, second));
    assert_eq!(timeouts.waits_since(), begun + Duration::from_secs(2));
    assert_eq!(timeouts.busy_since(), None);
}
