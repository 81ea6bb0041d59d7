//! What a peer cannot make the server do.

use std::time::Duration;

use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{H1, H2, TestServer, soon, until};
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
    let server = TestServer::plain(impatient()).await;
    let mut idle = H1::over(server.connect().await).await;
    idle.get("/").await.unwrap();
    let mut mean = server.raw().await;
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
    assert_eq!(server.counters.slow_heads.get(), 1);
    // It has been idle for longer than a head may take.
    assert_eq!(idle.get("/").await.unwrap().1, StatusCode::OK);
}

#[tokio::test]
async fn pipelined_requests_are_all_answered() {
    let server = TestServer::plain(Limits::default()).await;
    let mut hasty = server.raw().await;
    let last = "GET / HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\r\n";
    let first = "GET / HTTP/1.1\r\nhost: gate\r\n\r\n".repeat(3);
    hasty.say(&format!("{first}{last}")).await;
    assert_eq!(hasty.closed().await.matches("HTTP/1.1 200 ").count(), 4);
}

#[tokio::test]
async fn the_first_request_must_come_at_some_time() {
    let server = TestServer::plain(Limits {
        first_request: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    server.raw().await.closed().await;
    assert_eq!(server.counters.slow_heads.get(), 1);
    let mut begun = server.raw().await;
    begun.say("PRI * HTTP/2.0\r\n").await;
    begun.closed().await;
    assert_eq!(server.counters.slow_heads.get(), 2);
}

#[tokio::test]
async fn connections_that_were_idle_for_very_long_close_in_peace() {
    let server = TestServer::plain(Limits {
        idle: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    let mut h1 = server.raw().await;
    h1.say("GET / HTTP/1.1\r\nhost: gate\r\n\r\n").await;
    h1.closed().await;
    let mut h2 = H2::over(server.connect().await).await;
    h2.get("/").await.unwrap();
    until(|| server.counters.open.get() == 0).await;
    assert_eq!(
        (
            server.counters.slow_heads.get(),
            server.counters.stalled.get()
        ),
        (0, 0)
    );
}

#[tokio::test]
async fn an_http2_peer_that_answers_no_ping_is_cut_off() {
    let hour = Duration::from_secs(3600);
    let limits = Limits {
        ping: Duration::from_millis(50),
        ping_ack: Duration::from_secs(3),
        first_request: hour,
        ..Limits::default()
    };
    let server = TestServer::plain(limits).await;
    let mut alive = H2::over(server.connect().await).await;
    alive.get("/").await.unwrap();
    let mut dead = server.raw().await;
    dead.0.write_all(HELLO).await.unwrap();
    dead.closed().await;
    assert_eq!(alive.get("/").await.unwrap().1, StatusCode::OK);
    assert_eq!(server.counters.open.get(), 1);
}

/// What an HTTP/2 client says first: the preface and an empty SETTINGS frame.
pub(super) const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn an_http2_peer_is_told_its_bounds() {
    let server = TestServer::plain(Limits {
        streams: 17,
        ..Limits::default()
    })
    .await;
    let mut stream = server.connect().await;
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
        has(&[0, 6, 0, 0, 0x80, 0]),
        "MAX_HEADER_LIST_SIZE: {settings:?}"
    );
}

/// Over HTTP/2 one byte can stand for a header that takes a hundred.
#[tokio::test]
async fn a_request_has_no_more_headers_than_it_may() {
    let server = TestServer::plain(Limits {
        headers: 20,
        ..Limits::default()
    })
    .await;
    let mut h2 = H2::over(server.connect().await).await;
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
    let server = TestServer::plain(Limits::default()).await;
    let mut mean = server.connect().await;
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
    let mut h2 = H2::over(server.connect().await).await;
    assert_eq!(h2.get("/").await.unwrap().1, StatusCode::OK);
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let server = TestServer::plain(Limits::default()).await;
    let fits = "x".repeat(20_000);
    let long = "x".repeat(40_000);
    let mut h1 = server.raw().await;
    h1.say(&format!(
        "GET / HTTP/1.1\r\nhost: gate\r\nlong: {fits}\r\n\r\n"
    ))
    .await;
    assert!(h1.hear("false").await.starts_with("HTTP/1.1 200 "));
    h1.say(&format!("GET / HTTP/1.1\r\nhost: gate\r\nlong: {long}"))
        .await;
    assert!(h1.closed().await.starts_with("HTTP/1.1 431 "));
    let mut many = server.raw().await;
    many.say(&format!(
        "GET / HTTP/1.1\r\nhost: gate\r\n{}\r\n",
        "x: y\r\n".repeat(100)
    ))
    .await;
    assert!(many.closed().await.starts_with("HTTP/1.1 431 "));

    let mut h2 = H2::over(server.connect().await).await;
    let request = |text: &str| Request::get("http://gate/").header("long", text);
    assert_eq!(h2.send(request(&fits)).await.unwrap().1, StatusCode::OK);
    let refused = h2.send(request(&long)).await;
    assert!(refused.is_err() || refused.unwrap().1 == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[tokio::test]
async fn a_body_is_bounded_in_size_and_time() {
    let server = TestServer::plain(Limits::default()).await;
    let post = |path: &str, length: usize| {
        format!("POST {path} HTTP/1.1\r\nhost: gate\r\ncontent-length: {length}\r\n\r\n")
    };
    let mut h1 = server.raw().await;
    h1.say(&post("/echo", 16)).await;
    h1.say("sixteen bytes...").await;
    assert!(
        h1.hear("sixteen bytes...")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    h1.say(&post("/echo", 17)).await;
    assert!(h1.hear("at once").await.starts_with("HTTP/1.1 413 "));
    let server = TestServer::plain(Limits {
        body: Duration::from_millis(100),
        ..Limits::default()
    })
    .await;
    let mut slow = server.raw().await;
    slow.say(&post("/echo", 16)).await;
    slow.say("slow").await;
    assert!(slow.hear("at once").await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_no_slow_head() {
    let server = TestServer::plain(impatient()).await;
    let mut h1 = server.raw().await;
    h1.say("POST /ignore HTTP/1.1\r\nhost: gate\r\ncontent-length: 4\r\n\r\nbody")
        .await;
    h1.hear("ignored").await;
    // The next connection is cut off after this one would have been.
    let mut mean = server.raw().await;
    mean.say("G").await;
    mean.closed().await;
    h1.say("GET / HTTP/1.1\r\nhost: gate\r\n\r\n").await;
    h1.hear("false").await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_its_answer_is_cut_off() {
    let server = TestServer::plain(Limits {
        write: Duration::from_millis(100),
        ..Limits::default()
    })
    .await;
    let mut mean = server.raw().await;
    mean.say("GET /much HTTP/1.1\r\nhost: gate\r\n\r\n").await;
    until(|| server.counters.stalled.get() == 1 && server.counters.open.get() == 0).await;
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off() {
    let server = TestServer::plain(Limits {
        request: Duration::from_millis(100),
        ..Limits::default()
    })
    .await;
    let mut h1 = H1::over(server.connect().await).await;
    assert!(h1.get("/wait").await.is_err());
    assert_eq!(server.counters.stalled.get(), 1);
}

#[tokio::test]
async fn incomplete_http2_header_block_is_cut_off() {
    let server = TestServer::plain(impatient()).await;
    let mut alive = H2::over(server.connect().await).await;
    alive.get("/").await.unwrap();
    let mut mean = server.raw().await;
    mean.0.write_all(HELLO).await.unwrap();
    mean.0
        .write_all(&[0, 0, 1, 1, 1, 0, 0, 0, 1, 0x82])
        .await
        .unwrap();
    mean.closed().await;
    assert_eq!(server.counters.slow_heads.get(), 1);
    assert_eq!(alive.get("/").await.unwrap().1, StatusCode::OK);
}

#[tokio::test]
async fn old_http1_connection_closes_after_a_response() {
    let server = TestServer::plain(Limits {
        age: Duration::from_millis(20),
        ..Limits::default()
    })
    .await;
    let mut h1 = H1::over(server.connect().await).await;
    // It stays until a response says that it closes.
    let mut answered = 0;
    while let Ok(answer) = h1.get("/").await {
        assert_eq!(answer.1, StatusCode::OK);
        answered += 1;
    }
    assert!(answered > 0);
    let mut raw = server.raw().await;
    raw.say("GET / HTTP/1.1\r\nhost: gate\r\n\r\n").await;
    while !raw.hear("false").await.contains("connection: close") {
        raw.say("GET / HTTP/1.1\r\nhost: gate\r\n\r\n").await;
    }
    assert_eq!(raw.closed().await, "");
}

#[tokio::test]
async fn old_http2_connection_closes_after_its_requests() {
    let server = TestServer::plain(Limits {
        age: Duration::from_secs(2),
        ..Limits::default()
    })
    .await;
    let mut h2 = H2::over(server.connect().await).await;
    let mut again = h2.clone();
    let answer = tokio::spawn(async move { again.get("/wait").await });
    soon(server.waiting.acquire()).await.unwrap().forget();
    // A GOAWAY comes: the request is answered, and no other begins.
    let refused = async {
        while h2.get("/").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(refused).await;
    server.let_go.add_permits(1);
    assert_eq!(soon(answer).await.unwrap().unwrap().2, "done");
    until(|| server.counters.open.get() == 0).await;
    let counters = &server.counters;
    assert_eq!((counters.slow_heads.get(), counters.stalled.get()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_open_connections_leave_the_server_answering() {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let hour = Duration::from_secs(3600);
    let server = TestServer::plain(Limits {
        head: hour,
        first_request: hour,
        ..Limits::default()
    })
    .await;
    let mut crowd = Vec::new();
    for number in 0..1000 {
        let mut one = server.raw().await;
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
    until(|| server.counters.open.get() == 1000).await;
    let mut h1 = H1::over(server.connect().await).await;
    let mut h2 = H2::over(server.connect().await).await;
    for _ in 0..10 {
        assert_eq!(h1.get("/").await.unwrap().1, StatusCode::OK);
        assert_eq!(h2.get("/").await.unwrap().1, StatusCode::OK);
    }
}
