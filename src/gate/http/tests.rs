//! What is done before a question is understood.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::HeaderMap;
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use kube::Client;
use serde_json::json;
use tower::ServiceExt as _;

use super::*;
use crate::gate::callers::{Method, Settings};
use crate::gate::server::Limits;
use crate::gate::testing;

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

fn house(method: Method, limits: Limits) -> Router {
    let api = tower::service_fn(async |_: http::Request<kube::client::Body>| {
        Err::<http::Response<kube::client::Body>, _>(io::Error::other("nobody is there"))
    });
    let callers = Callers::new(
        Client::new(api, "x"),
        Settings {
            methods: vec![method],
            ..Settings::default()
        },
    )
    .unwrap();
    let peer = Peer {
        address: ([192, 0, 2, 1], 4711).into(),
        certified: false,
    };
    router(
        testing::desk([], &[]),
        callers,
        ProxyCallers::None,
        Arc::new(|| Ok(())),
    )
    .layer(Extension(peer))
    .layer(Extension(Bodies::new(&limits)))
}

async fn ask(house: &Router, path: &str, body: Body) -> (StatusCode, HeaderMap, Bytes) {
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap();
    let (head, body) = house.clone().oneshot(request).await.unwrap().into_parts();
    (
        head.status,
        head.headers,
        body.collect().await.unwrap().to_bytes(),
    )
}

/// A body that begins, and never ends.
fn endless(begin: Vec<u8>) -> Body {
    Body::from_stream(
        stream::iter([Ok::<_, Infallible>(Bytes::from(begin))]).chain(stream::pending()),
    )
}

#[tokio::test(start_paused = true)]
async fn the_body_of_a_stranger_is_not_read() {
    let polled = Arc::new(AtomicUsize::new(0));
    for path in ["/v1/verify", "/v1/verify/batch"] {
        let polls = polled.clone();
        let body = Body::from_stream(stream::poll_fn(move |_| {
            polls.fetch_add(1, Ordering::Relaxed);
            std::task::Poll::<Option<Result<Bytes, Infallible>>>::Pending
        }));
        let (status, headers, _) = ask(&house(Method::Token, Limits::default()), path, body).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(headers.contains_key("www-authenticate"));
    }
    assert_eq!(polled.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_question_over_grpc_has_ten_seconds_to_come() {
    let house = house(Method::None, Limits::default());
    let asked = tokio::time::timeout(
        Duration::from_secs(11),
        ask(&house, CHECK, endless(vec![0, 0, 0, 1, 0])),
    );
    let (status, headers, _) = asked.await.expect("an end");
    assert_eq!(
        (status, &headers["grpc-status"]),
        (StatusCode::OK, &HeaderValue::from_static("4"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_question_over_grpc_that_is_too_long_is_refused_and_not_failed() {
    let house = house(Method::None, Limits::default());
    for body in [Body::from(vec![0; 200_000]), endless(vec![0; 200_000])] {
        let (status, headers, answer) = ask(&house, CHECK, body).await;
        assert_eq!(status, StatusCode::OK);
        assert!(headers.get("grpc-status").is_none(), "{headers:?}");
        assert!(
            answer.windows(9).any(|part| part == b"MALFORMED"),
            "{}",
            answer.escape_ascii()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn questions_that_find_no_room_are_told_to_come_again() {
    let house = house(
        Method::None,
        Limits {
            body_bytes: 100,
            ..Limits::default()
        },
    );
    let slow = house.clone();
    let slow = tokio::spawn(async move { ask(&slow, CHECK, endless(vec![0; 90])).await });
    tokio::task::yield_now().await;
    let question = json!({ "key": "x", "audience": "invoices-api" }).to_string();
    let (status, headers, _) = ask(&house, "/v1/verify", Body::from(question.clone())).await;
    assert_eq!(
        (status, &headers["retry-after"]),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            &HeaderValue::from_static("1")
        )
    );
    let (_, headers, _) = ask(&house, CHECK, endless(vec![0; 20])).await;
    assert_eq!(headers["grpc-status"], "14");
    // A question that is here whole takes nothing from others, and is answered.
    let (_, headers, _) = ask(&house, CHECK, Body::from(vec![0; 5])).await;
    assert!(!headers.contains_key("grpc-status"), "{headers:?}");
    slow.await.unwrap();
    assert_eq!(
        ask(&house, "/v1/verify", Body::from(question)).await.0,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_question_over_grpc_with_trailers_is_answered_with_trailers() {
    let frames = [
        Frame::data(Bytes::from_static(&[0; 5])),
        Frame::trailers(HeaderMap::new()),
    ];
    let body = Body::new(http_body_util::StreamBody::new(stream::iter(
        frames.map(Ok::<_, Infallible>),
    )));
    let request = http::Request::post(CHECK)
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap();
    let answer = house(Method::None, Limits::default())
        .oneshot(request)
        .await
        .unwrap();
    let trailers = answer
        .into_body()
        .collect()
        .await
        .unwrap()
        .trailers()
        .cloned()
        .unwrap();
    assert_eq!(trailers["grpc-status"], "0");
}

/// Callers log what they are told.
#[tokio::test]
async fn a_key_in_the_wrong_place_is_not_repeated() {
    let house = house(Method::None, Limits::default());
    let key = testing::key(1);
    for body in [
        format!("{key:?}"),
        format!("{{{key:?}: 1}}"),
        format!("{{\"key\": {{{key:?}: 1}}}}"),
        format!("{{\"requests\": {key:?}}}"),
    ] {
        for path in ["/v1/verify", "/v1/verify/batch"] {
            let (status, _, told) = ask(&house, path, Body::from(body.clone())).await;
            let told = String::from_utf8(told.to_vec()).unwrap();
            assert_eq!(status, StatusCode::BAD_REQUEST, "{told}");
            assert!(
                !told.contains(&key) && told.contains("not understood"),
                "{told}"
            );
        }
    }
}

#[tokio::test]
async fn a_batch_that_is_not_understood_says_which_question_it_is() {
    let house = house(Method::None, Limits::default());
    let good = json!({ "key": "x", "audience": "invoices-api" });
    let bad = json!({ "key": "x", "audience": "invoices-api", "permissions": "a AND" });
    let (status, _, told) = ask(
        &house,
        "/v1/verify/batch",
        Body::from(json!({ "requests": [good, bad] }).to_string()),
    )
    .await;
    let told = String::from_utf8(told.to_vec()).unwrap();
    assert_eq!(status, StatusCode::BAD_REQUEST, "{told}");
    assert!(told.contains("requests[1]: "), "{told}");
}

#[tokio::test]
async fn health_is_told_over_http_and_grpc() {
    let ready = Arc::new(AtomicBool::new(true));
    let asked = ready.clone();
    let client = Client::new(
        tower::service_fn(async |_: http::Request<kube::client::Body>| {
            Err::<http::Response<kube::client::Body>, _>(io::Error::other("nobody is there"))
        }),
        "x",
    );
    let settings = Settings {
        methods: vec![Method::None],
        ..Settings::default()
    };
    let callers = Callers::new(client, settings).unwrap();
    // Without a client certificate, which proxies would need.
    let router = router(
        testing::desk([], &[]),
        callers,
        ProxyCallers::Mtls,
        Arc::new(move || {
            if asked.load(Ordering::Relaxed) {
                Ok(())
            } else {
                Err("loading".to_owned())
            }
        }),
    )
    .layer(Extension(Bodies::new(&Limits::default())));
    for (is_ready, status, serving) in [
        (true, StatusCode::OK, 1),
        (false, StatusCode::SERVICE_UNAVAILABLE, 2),
    ] {
        ready.store(is_ready, Ordering::Relaxed);
        let request = http::Request::get("/healthz").body(Body::empty()).unwrap();
        assert_eq!(
            router.clone().oneshot(request).await.unwrap().status(),
            status
        );
        // A message without a service's name, and the status as its answer's first field.
        let check = "/grpc.health.v1.Health/Check";
        let (_, _, answer) = ask(&router, check, Body::from(vec![0; 5])).await;
        assert_eq!(answer[..], [0, 0, 0, 0, 2, 8, serving]);
    }
    let other = [&[0, 0, 0, 0, 7, 10, 5][..], b"other"].concat();
    for (method, body, code) in [("Check", other, "5"), ("Watch", vec![0; 5], "12")] {
        let path = format!("/grpc.health.v1.Health/{method}");
        assert_eq!(
            ask(&router, &path, Body::from(body)).await.1["grpc-status"],
            code
        );
    }
}

#[tokio::test]
async fn unknown_field_is_named_where_that_is_safe() {
    let house = house(Method::None, Limits::default());
    for (field, said) in [
        ("namspace", "unknown field `namspace`"),
        ("maxAge", "unknown field at line 1 column "),
        ("clv_0123456789", "unknown field at line 1 column "),
        ("a `quoted` name", "unknown field at line 1 column "),
        ("", "unknown field at line 1 column "),
    ] {
        let body = json!({ "key": "x", field: 1 }).to_string();
        let (status, _, told) = ask(&house, "/v1/verify", Body::from(body)).await;
        let told = String::from_utf8(told.to_vec()).unwrap();
        assert_eq!(status, StatusCode::BAD_REQUEST, "{told}");
        assert!(told.contains(said), "{field}: {told}");
        let named = !field.is_empty() && told.contains(field);
        assert_eq!(named, said.contains('`'), "{field}: {told}");
    }
}
