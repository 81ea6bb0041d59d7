//! What a peer cannot make the server do.

use std::time::Duration;

use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{H1, H2, House, soon, until};
use crate::gate::server::Limits;

/// Short where a test waits for the end of it, long where it must not come.
fn impatient() -> Limits {
    Limits {
        head: Duration::from_millis(200),
        ..Limits::default()
    }
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_cut_off_and_an_idle_connection_stays() {
    let house = House::plain(impatient()).await;
    let mut idle = H1::over(house.connect().await).await;
    idle.get("/").await.unwrap();
    let mut mean = house.raw().await;
    mean.say("GET / HTTP/1.1\r\nhost: gate\r\n\r\n").await;
    mean.hear("false").await;

    let (mut reading, mut writing) = mean.0.into_split();
    let drip = tokio::spawn(async move {
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut left = Vec::new();
    let _ = soon(reading.read_to_end(&mut left)).await;
    soon(drip).await.unwrap();
    assert_eq!(house.counters.slow_heads(), 1);
    // It has been idle for longer than a head may take.
    assert_eq!(idle.get("/").await.unwrap().1, StatusCode::OK);
}

#[tokio::test]
async fn a_head_that_comes_together_with_a_request_is_not_kept_like_an_idle_connection() {
    let house = House::plain(impatient()).await;
    let mut mean = house.raw().await;
    let begun = "x".repeat(4000);
    mean.say(&format!(
        "GET / HTTP/1.1\r\nhost: gate\r\n\r\nGET / HTTP/1.1\r\nslow: {begun}"
    ))
    .await;
    assert!(mean.closed().await.ends_with("false"));
    // Whoever sends requests ahead, all of them whole, gets all of their answers.
    let mut hasty = house.raw().await;
    hasty
        .say(&"GET / HTTP/1.1\r\nhost: gate\r\n\r\n".repeat(3))
        .await;
    assert_eq!(hasty.closed().await.matches("HTTP/1.1 200 ").count(), 3);
    assert_eq!(house.counters.slow_heads(), 0, "both close in peace");
}

#[tokio::test]
async fn the_first_request_must_come_at_some_time() {
    let house = House::plain(Limits {
        first_request: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    house.raw().await.closed().await;
    assert_eq!(house.counters.slow_heads(), 1);
    let mut begun = house.raw().await;
    begun.say("PRI * HTTP/2.0\r\n").await;
    begun.closed().await;
    assert_eq!(house.counters.slow_heads(), 2);
}

#[tokio::test]
async fn connections_that_were_idle_for_very_long_close_in_peace() {
    let house = House::plain(Limits {
        idle: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    let mut h1 = house.raw().await;
    h1.say("GET / HTTP/1.1\r\nhost: gate\r\n\r\n").await;
    h1.closed().await;
    let mut h2 = H2::over(house.connect().await).await;
    h2.get("/").await.unwrap();
    until(|| house.counters.open() == 0).await;
    assert_eq!(
        (house.counters.slow_heads(), house.counters.stalled()),
        (0, 0)
    );
}

#[tokio::test]
async fn an_http2_peer_that_answers_no_ping_is_cut_off() {
    let hour = Duration::from_secs(3600);
    let limits = Limits {
        ping: Duration::from_millis(50),
        ping_answer: Duration::from_secs(3),
        first_request: hour,
        ..Limits::default()
    };
    let house = House::plain(limits).await;
    let mut alive = H2::over(house.connect().await).await;
    alive.get("/").await.unwrap();
    let mut dead = house.raw().await;
    dead.0.write_all(HELLO).await.unwrap();
    dead.closed().await;
    assert_eq!(alive.get("/").await.unwrap().1, StatusCode::OK);
    assert_eq!(house.counters.open(), 1);
}

/// What an HTTP/2 client says first: the preface and an empty SETTINGS frame.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn an_http2_peer_is_told_its_bounds() {
    let house = House::plain(Limits {
        streams: 17,
        ..Limits::default()
    })
    .await;
    let mut stream = house.connect().await;
    stream.write_all(HELLO).await.unwrap();
    let mut head = [0; 9];
    soon(stream.read_exact(&mut head)).await.unwrap();
    assert_eq!(head[3], 4, "SETTINGS come first");
    let mut settings = vec![0; usize::from(head[2])];
    soon(stream.read_exact(&mut settings)).await.unwrap();
    let has = |setting: &[u8]| settings.chunks(6).any(|one| one == setting);
    assert!(
        has(&[0, 3, 0, 0, 0, 17]),
        "MAX_CONCURRENT_STREAMS: {settings:?}"
    );
    assert!(
        has(&[0, 6, 0, 1, 0, 0]),
        "MAX_HEADER_LIST_SIZE: {settings:?}"
    );
}

/// Over HTTP/2 one byte can stand for a header that takes a hundred.
#[tokio::test]
async fn a_request_has_no_more_headers_than_it_may() {
    let house = House::plain(Limits {
        headers: 20,
        ..Limits::default()
    })
    .await;
    let mut h2 = H2::over(house.connect().await).await;
    for (headers, expected) in [
        (20, StatusCode::OK),
        (21, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
    ] {
        let request = (0..headers).fold(Request::get("http://gate/"), |request, _| {
            request.header("x-again", "x")
        });
        assert_eq!(
            h2.send(request).await.unwrap().1,
            expected,
            "{headers} headers"
        );
    }
    assert_eq!(
        h2.get("/").await.unwrap().1,
        StatusCode::OK,
        "the connection goes on"
    );
}

#[tokio::test]
async fn a_peer_that_opens_requests_only_to_drop_them_is_cut_off() {
    let house = House::plain(Limits::default()).await;
    let mut mean = house.connect().await;
    let mut flood = HELLO.to_vec();
    for number in 0..2000_u32 {
        let stream = (2 * number + 1).to_be_bytes();
        // HEADERS (GET http /), END_STREAM and END_HEADERS; then RST_STREAM with CANCEL.
        flood.extend([&[0, 0, 3, 1, 5], &stream[..], &[0x82, 0x86, 0x84]].concat());
        flood.extend([&[0, 0, 4, 3, 0], &stream[..], &[0, 0, 0, 8]].concat());
    }
    let _ = mean.write_all(&flood).await;
    let mut heard = Vec::new();
    let _ = soon(mean.read_to_end(&mut heard)).await;
    assert!(
        heard.ends_with(b"too_many_resets"),
        "{}",
        heard.escape_ascii()
    );
    let mut h2 = H2::over(house.connect().await).await;
    assert_eq!(h2.get("/").await.unwrap().1, StatusCode::OK);
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let house = House::plain(Limits::default()).await;
    let fits = "x".repeat(40_000);
    let long = "x".repeat(70_000);
    let mut h1 = house.raw().await;
    h1.say(&format!(
        "GET / HTTP/1.1\r\nhost: gate\r\nlong: {fits}\r\n\r\n"
    ))
    .await;
    assert!(h1.hear("false").await.starts_with("HTTP/1.1 200 "));
    h1.say(&format!("GET / HTTP/1.1\r\nhost: gate\r\nlong: {long}"))
        .await;
    assert!(h1.closed().await.starts_with("HTTP/1.1 431 "));
    let mut many = house.raw().await;
    many.say(&format!(
        "GET / HTTP/1.1\r\nhost: gate\r\n{}\r\n",
        "x: y\r\n".repeat(100)
    ))
    .await;
    assert!(many.closed().await.starts_with("HTTP/1.1 431 "));

    let mut h2 = H2::over(house.connect().await).await;
    let request = |text: &str| Request::get("http://gate/").header("long", text);
    assert_eq!(h2.send(request(&fits)).await.unwrap().1, StatusCode::OK);
    let refused = h2.send(request(&long)).await;
    assert!(refused.is_err() || refused.unwrap().1 == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[tokio::test]
async fn a_body_is_bounded_in_size_and_time() {
    let house = House::plain(Limits::default()).await;
    let post = |path: &str, length: usize| {
        format!("POST {path} HTTP/1.1\r\nhost: gate\r\ncontent-length: {length}\r\n\r\n")
    };
    let mut h1 = house.raw().await;
    h1.say(&post("/echo", 16)).await;
    h1.say("sixteen bytes...").await;
    assert!(
        h1.hear("sixteen bytes...")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    h1.say(&post("/echo", 17)).await;
    assert!(h1.hear("at once").await.starts_with("HTTP/1.1 413 "));
    let house = House::plain(Limits {
        body: Duration::from_millis(100),
        ..Limits::default()
    })
    .await;
    let mut slow = house.raw().await;
    slow.say(&post("/echo", 16)).await;
    slow.say("slow").await;
    assert!(slow.hear("at once").await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_no_slow_head() {
    let house = House::plain(impatient()).await;
    let mut h1 = house.raw().await;
    h1.say("POST /ignore HTTP/1.1\r\nhost: gate\r\ncontent-length: 4\r\n\r\nbody")
        .await;
    h1.hear("ignored").await;
    // The next connection is cut off after this one would have been.
    let mut mean = house.raw().await;
    mean.say("G").await;
    mean.closed().await;
    h1.say("GET / HTTP/1.1\r\nhost: gate\r\n\r\n").await;
    h1.hear("false").await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_its_answer_is_cut_off() {
    let house = House::plain(Limits {
        write: Duration::from_millis(100),
        ..Limits::default()
    })
    .await;
    let mut mean = house.raw().await;
    mean.say("GET /much HTTP/1.1\r\nhost: gate\r\n\r\n").await;
    until(|| house.counters.stalled() == 1 && house.counters.open() == 0).await;
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off() {
    let house = House::plain(Limits {
        request: Duration::from_millis(100),
        ..Limits::default()
    })
    .await;
    let mut h1 = H1::over(house.connect().await).await;
    assert!(h1.get("/wait").await.is_err());
    assert_eq!(house.counters.stalled(), 1);
}

#[tokio::test]
async fn more_connections_than_allowed_wait_and_are_served_then() {
    let house = House::plain(Limits {
        connections: 2,
        ..Limits::default()
    })
    .await;
    let mut inside = (
        H1::over(house.connect().await).await,
        H1::over(house.connect().await).await,
    );
    inside.0.get("/").await.unwrap();
    inside.1.get("/").await.unwrap();
    let mut outside = Vec::new();
    for _ in 0..5 {
        let mut one = house.raw().await;
        one.say("GET / HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\r\n")
            .await;
        outside.push(one);
    }
    until(|| house.counters.waited() == 5).await;
    assert_eq!((house.counters.accepted(), house.counters.open()), (2, 2));
    inside.0.get("/").await.unwrap();
    drop(inside.0);
    for mut one in outside {
        assert!(one.closed().await.starts_with("HTTP/1.1 200 "));
    }
    inside.1.get("/").await.unwrap();
}

/// All of 127.0.0.0/8 is this machine on Linux only.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn one_peer_does_not_keep_all_room_to_itself() {
    let house = House::plain(Limits {
        connections: 8,
        ..Limits::default()
    })
    .await;
    let mut greedy = Vec::new();
    for _ in 0..8 {
        let mut one = H1::over(house.connect().await).await;
        one.get("/").await.unwrap();
        greedy.push(one);
    }
    // More of them wait, before anybody else comes.
    let mut more = Vec::new();
    for _ in 0..100 {
        more.push(house.raw().await);
    }
    until(|| house.counters.waited() == 100).await;
    assert_eq!(house.counters.open(), 8, "alone it may have everything");
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let mut modest = H1::over(socket.connect(house.address).await.unwrap()).await;
    assert_eq!(modest.get("/").await.unwrap().2, "127.0.0.2 false");
    let mut left = 0;
    for mut one in greedy {
        left += usize::from(one.get("/").await.is_ok());
    }
    assert_eq!(left, 2, "a quarter, the oldest ones");
}

#[tokio::test]
async fn who_does_nothing_makes_way_when_others_wait() {
    let limits = Limits {
        connections: 1,
        crowded_idle: Duration::from_millis(50),
        ..Limits::default()
    };
    let house = House::plain(limits).await;
    let mut idle = house.raw().await;
    idle.say("GET / HTTP/1.1\r\nhost: gate\r\n\r\n").await;
    idle.hear("false").await;
    let mut other = house.raw().await;
    other.say("GET / HTTP/1.1\r\nhost: gate\r\n\r\n").await;
    other.hear("false").await;
    idle.closed().await;
    assert_eq!(house.counters.stalled(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_open_connections_leave_the_server_answering() {
    let _ = crate::gate::server::raise_open_files();
    let hour = Duration::from_secs(3600);
    let house = House::plain(Limits {
        head: hour,
        first_request: hour,
        ..Limits::default()
    })
    .await;
    let mut crowd = Vec::new();
    for number in 0..1000 {
        let mut one = house.raw().await;
        match number % 3 {
            0 => one.say("GET / HT").await,
            1 => {
                one.say("GET / HTTP/1.1\r\nhost: gate\r\n\r\n").await;
                one.hear("false").await;
            }
            _ => {}
        }
        crowd.push(one);
    }
    until(|| house.counters.open() == 1000).await;
    let mut h1 = H1::over(house.connect().await).await;
    let mut h2 = H2::over(house.connect().await).await;
    for _ in 0..10 {
        assert_eq!(h1.get("/").await.unwrap().1, StatusCode::OK);
        assert_eq!(h2.get("/").await.unwrap().1, StatusCode::OK);
    }
}
