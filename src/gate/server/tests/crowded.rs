//! What all connections share: which of them makes way, and which request is refused.

use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::bounds::HELLO;
use super::support::{H1, H2, TestServer, soon, until};
use crate::gate::server::Limits;

#[tokio::test]
async fn slow_connection_makes_way_where_none_is_idle() {
    let server = TestServer::plain(Limits {
        connections: 2,
        ..Limits::default()
    })
    .await;
    let mut answers = Vec::new();
    for _ in 0..2 {
        let mut busy = H1::over(server.connect().await).await;
        answers.push(tokio::spawn(async move { busy.get("/wait").await }));
        soon(server.waiting.acquire()).await.unwrap().forget();
    }
    let mut outside = server.raw().await;
    outside
        .say("GET / HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\r\n")
        .await;
    assert!(outside.closed().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(
        (server.counters.waited.get(), server.counters.evicted.get()),
        (1, 1)
    );
    server.let_go.add_permits(1);
    let [first, second] = answers.try_into().unwrap();
    assert!(
        soon(first).await.unwrap().is_err(),
        "its request was in flight for longest"
    );
    assert_eq!(soon(second).await.unwrap().unwrap().2, "done");
}

#[tokio::test]
async fn longest_idle_connection_makes_way_for_a_new_one() {
    let limits = Limits {
        connections: 3,
        ..Limits::default()
    };
    let server = TestServer::plain(limits).await;
    let mut idle = Vec::new();
    for number in 0..3 {
        let mut one = H1::over(server.connect().await).await;
        one.get("/").await.unwrap();
        idle.push((number, one));
    }
    // The first one is used again.
    idle[0].1.get("/").await.unwrap();
    let mut new = H1::over(server.connect().await).await;
    new.get("/").await.unwrap();
    assert_eq!(server.counters.evicted.get(), 1);
    let mut left = Vec::new();
    for (number, mut one) in idle {
        if one.get("/").await.is_ok() {
            left.push(number);
        }
    }
    assert_eq!(left, [0, 2]);
}

#[tokio::test]
async fn requests_that_wait_beyond_the_bound_are_refused() {
    let server = TestServer::plain(Limits {
        waiting: 2,
        ..Limits::default()
    })
    .await;
    let mut first = H1::over(server.connect().await).await;
    let first = tokio::spawn(async move { first.get("/wait").await });
    soon(server.waiting.acquire()).await.unwrap().forget();
    let second = H2::over(server.connect().await).await;
    let mut again = second.clone();
    let second = tokio::spawn(async move { again.get("/wait").await });
    soon(server.waiting.acquire()).await.unwrap().forget();

    // What needs no waiting is answered, and what does is refused.
    let mut other = H1::over(server.connect().await).await;
    assert_eq!(other.get("/").await.unwrap().1, StatusCode::OK);
    assert_eq!(server.counters.refused_requests.get(), 0);
    let mut refused = server.raw().await;
    refused
        .say("GET /wait HTTP/1.1\r\nhost: gate\r\n\r\n")
        .await;
    let said = refused.hear("\r\n\r\n").await;
    assert!(
        said.starts_with("HTTP/1.1 503 ") && said.contains("retry-after: 1"),
        "{said}"
    );
    assert_eq!(server.counters.refused_requests.get(), 1);
    // The connection whose request is in flight for longest was cut off, so that there is room.
    assert!(soon(first).await.unwrap().is_err());
    soon(server.waiting.acquire()).await.unwrap().forget();
    let third = tokio::spawn(async move { other.get("/wait").await });
    soon(server.waiting.acquire()).await.unwrap().forget();
    server.let_go.add_permits(2);
    assert_eq!(soon(second).await.unwrap().unwrap().2, "done");
    assert_eq!(soon(third).await.unwrap().unwrap().2, "done");
}

/// An HTTP/2 peer whose window is zero takes no response.
#[tokio::test]
async fn responses_that_are_not_taken_are_bounded() {
    let server = TestServer::plain(Limits {
        requests: 10,
        ..Limits::default()
    })
    .await;
    let mut mean = server.connect().await;
    // SETTINGS_INITIAL_WINDOW_SIZE is zero; then ten requests.
    let mut asked = [&HELLO[..24], &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]].concat();
    for number in 0..10_u8 {
        asked.extend([0, 0, 3, 1, 5, 0, 0, 0, 2 * number + 1, 0x82, 0x86, 0x84]);
    }
    mean.write_all(&asked).await.unwrap();
    let mut honest = H1::over(server.connect().await).await;
    let refused = async {
        while honest.get("/").await.unwrap().1 != StatusCode::SERVICE_UNAVAILABLE {
            tokio::task::yield_now().await;
        }
    };
    soon(refused).await;
    let _ = soon(mean.read_to_end(&mut Vec::new())).await;
    assert_eq!(server.counters.evicted.get(), 1, "it makes room");
    assert_eq!(honest.get("/").await.unwrap().1, StatusCode::OK);
}

#[tokio::test]
async fn bytes_of_responses_that_are_not_taken_are_bounded() {
    let server = TestServer::plain(Limits {
        body_bytes: 20 << 20,
        ..Limits::default()
    })
    .await;
    let mut mean = server.raw().await;
    mean.say("GET /much HTTP/1.1\r\nhost: gate\r\n\r\n").await;
    mean.hear("m").await;
    let mut other = H1::over(server.connect().await).await;
    let refused = other.get("/much").await.unwrap();
    assert_eq!(refused.1, StatusCode::SERVICE_UNAVAILABLE);
    until(|| server.counters.open.get() == 1).await;
    assert_eq!(other.get("/much").await.unwrap().1, StatusCode::OK);
}
