//! Any headers of a caller of the verify API, before a made-up API server that knows one token.

#![no_main]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use claviger::gate::callers::{Callers, Settings};
use claviger::gate::server::Peer;
use claviger_fuzz::{header_map, lines, wait};
use http::Response;
use kube::Client;
use kube::client::Body;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const TOKEN: &str = "ey.J-token_that.is~good";

/// The token that the API server was last asked about.
static SHOWN: Mutex<Option<String>> = Mutex::new(None);

static CALLERS: LazyLock<Callers> = LazyLock::new(|| {
    let client = wait(async {
        let service = tower::service_fn(|request: http::Request<Body>| async move {
            Ok::<_, Infallible>(answer(request).await)
        });
        Client::new(service, "default")
    });
    // Nothing is remembered for long: the API server is asked each time.
    Callers::new(
        client,
        Settings {
            cache: Duration::ZERO,
            remembered: 16,
            ..Settings::default()
        },
    )
    .expect("callers")
});

async fn answer(request: http::Request<Body>) -> Response<Body> {
    let of_token = request.uri().path().ends_with("tokenreviews");
    let body = request.into_body().collect_bytes().await.expect("a body");
    let mut review: Value = serde_json::from_slice(&body).expect("JSON");
    review["status"] = if of_token {
        let token = review["spec"]["token"]
            .as_str()
            .expect("a token")
            .to_owned();
        let known = token == TOKEN;
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        if known {
            json!({ "authenticated": true, "user": { "username": "frontend" } })
        } else {
            json!({ "user": {} })
        }
    } else {
        assert_eq!(review["spec"]["user"], "frontend");
        json!({ "allowed": review["spec"]["resourceAttributes"]["namespace"] == "team-a" })
    };
    let body = serde_json::to_vec(&review).expect("JSON");
    Response::builder()
        .status(201)
        .body(Body::from(body))
        .expect("an answer")
}

fuzz_target!(|data: &[u8]| {
    let (namespace, headers) = lines(data);
    let Ok(namespace) = std::str::from_utf8(namespace) else {
        return;
    };
    let namespace = (!namespace.is_empty()).then_some(namespace);
    let headers = header_map(&headers);
    let peer = Peer {
        address: SocketAddr::from(([127, 0, 0, 1], 1)),
        certified: false,
    };
    *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = None;
    // Made before anything else is waited for.
    let callers = &*CALLERS;
    let told = wait(async {
        let somebody = callers
            .identify(callers.credentials(&headers, &peer)?)
            .await?;
        callers.admit(&somebody, namespace).await
    });
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).take();
    let all: Vec<_> = headers.get_all("authorization").iter().collect();
    if let Some(shown) = &shown {
        assert_eq!(all.len(), 1, "of two headers none is picked");
        let value = all[0].to_str().expect("a token is text");
        assert!(
            value.ends_with(shown.as_str()) || value.trim_end().ends_with(shown.as_str()),
            "as it was shown"
        );
        assert!(value[..6].eq_ignore_ascii_case("bearer"));
        assert!(!shown.is_empty() && !shown.contains(char::is_whitespace));
    }
    match told {
        Ok(caller) => {
            assert_eq!((shown.as_deref(), namespace), (Some(TOKEN), Some("team-a")));
            assert_eq!(caller.to_string(), "frontend");
        }
        Err(refusal) => {
            assert!(
                matches!(refusal.status().as_u16(), 400 | 401 | 403),
                "{refusal}"
            );
            let said = format!("{refusal} {refusal:?}");
            assert!(!said.contains(TOKEN));
            assert!(
                shown.is_none_or(|shown| shown.len() < 20 || !said.contains(&shown)),
                "a token is not repeated"
            );
        }
    }
});
