//! HTTP/1.1, HTTP/2, and the end of a server.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::{StatusCode, Version};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::support::{H1, H2, TestServer, soon, until};
use crate::gate::server::{Counters, Limits, Listener, serve};

#[tokio::test]
async fn http1_and_http2_are_spoken_at_one_address() {
    let server = TestServer::plain(Limits::default()).await;
    let expected = |version| (version, StatusCode::OK, "127.0.0.1 false".to_owned());
    let mut h1 = H1::over(server.connect().await).await;
    let mut h2 = H2::over(server.connect().await).await;
    for _ in 0..3 {
        assert_eq!(h1.get("/").await.unwrap(), expected(Version::HTTP_11));
        assert_eq!(h2.get("/").await.unwrap(), expected(Version::HTTP_2));
    }
    assert_eq!(server.counters.accepted.get(), 2, "connections are kept");
    assert_eq!(server.counters.open.get(), 2);
    drop((h1, h2));
    until(|| server.counters.open.get() == 0).await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_with_its_flag() {
    let first = Listener::plain(([127, 0, 0, 1], 0).into()).await.unwrap();
    let error = Listener::plain(first.address().unwrap())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.starts_with(&format!(
            "cannot listen on --listen {}",
            first.address().unwrap()
        )),
        "{error}"
    );
}

#[tokio::test]
async fn an_address_that_nobody_uses_takes_no_room_from_another() {
    let any = ([127, 0, 0, 1], 0).into();
    let listeners = vec![
        Listener::plain(any).await.unwrap(),
        Listener::plain(any).await.unwrap(),
    ];
    let addresses: Vec<_> = listeners
        .iter()
        .map(|listener| listener.address().unwrap())
        .collect();
    let (counters, token) = (Arc::new(Counters::default()), CancellationToken::new());
    let router = Router::new().route("/", get(async || "here"));
    let served = tokio::spawn(serve(
        listeners,
        router,
        Limits {
            connections: 1,
            ..Limits::default()
        },
        counters,
        token.clone(),
    ));
    for address in [addresses[0], addresses[0], addresses[1], addresses[1]] {
        let mut h1 = H1::over(soon(TcpStream::connect(address)).await.unwrap()).await;
        assert_eq!(h1.get("/").await.unwrap().2, "here");
    }
    token.cancel();
    soon(served).await.unwrap();
}

#[tokio::test]
async fn who_is_being_answered_when_the_server_stops_gets_the_answer_and_nobody_else_gets_in() {
    let mut server = TestServer::plain(Limits::default()).await;
    let mut idle = H1::over(server.connect().await).await;
    idle.get("/").await.unwrap();
    let mut h1 = H1::over(server.connect().await).await;
    let h2 = H2::over(server.connect().await).await;
    let (h1_answer, mut h2_again) = (
        tokio::spawn(async move { (h1.get("/wait").await, h1) }),
        h2.clone(),
    );
    let h2_answer = tokio::spawn(async move { h2_again.get("/wait").await });
    soon(server.waiting.acquire_many(2)).await.unwrap().forget();

    server.token.cancel();
    until(|| server.counters.open.get() == 2).await;
    assert!(idle.get("/").await.is_err(), "an idle connection is closed");
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "the door is shut"
    );
    assert!(!server.served.is_finished(), "two are still being answered");

    server.let_go.add_permits(2);
    let (answer, mut h1) = h1_answer.await.unwrap();
    assert_eq!(answer.unwrap().2, "done");
    assert_eq!(h2_answer.await.unwrap().unwrap().2, "done");
    soon(&mut server.served).await.unwrap();
    assert!(h1.get("/").await.is_err());
    assert!(h2.clone().get("/").await.is_err());
    assert_eq!(server.counters.open.get(), 0);
}

#[tokio::test]
async fn a_request_that_does_not_end_does_not_keep_the_server_from_stopping() {
    let mut server = TestServer::plain(Limits {
        drain: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    let mut h1 = H1::over(server.connect().await).await;
    let answer = tokio::spawn(async move { h1.get("/wait").await });
    soon(server.waiting.acquire()).await.unwrap().forget();
    server.token.cancel();
    soon(&mut server.served).await.unwrap();
    assert!(answer.await.unwrap().is_err());
}
