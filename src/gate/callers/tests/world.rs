//! An API server that is made up.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;
use http::Response;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::super::{Callers, Settings};

/// What the made-up API server knows, and what it was asked.
#[derive(Default)]
pub(super) struct World {
    /// Names in tokens that are good. Each is its user's, too.
    pub(super) tokens: Mutex<BTreeSet<String>>,
    /// Users with the namespace they may verify in; an empty one is all.
    pub(super) rights: Mutex<BTreeSet<(String, String)>>,
    /// The audiences that tokens are found to have.
    pub(super) audiences: Mutex<Option<Vec<String>>>,
    /// Answers with this instead.
    pub(super) failure: Mutex<Option<(u16, &'static str)>>,
    /// Answers only as often as it is let to, if it is held up.
    pub(super) held: Mutex<Option<Arc<Semaphore>>>,
    pub(super) reviews: AtomicUsize,
    pub(super) accesses: AtomicUsize,
    pub(super) under_way: AtomicUsize,
    pub(super) most: AtomicUsize,
    pub(super) last: Mutex<Value>,
}

impl World {
    pub(super) fn new(tokens: &[&str], rights: &[(&str, &str)]) -> Arc<Self> {
        let world = Self::default();
        *world.tokens.lock().unwrap() = tokens.iter().map(|token| (*token).to_owned()).collect();
        *world.rights.lock().unwrap() = rights
            .iter()
            .map(|(user, namespace)| ((*user).to_owned(), (*namespace).to_owned()))
            .collect();
        Arc::new(world)
    }

    pub(super) fn callers(self: &Arc<Self>, settings: Settings) -> Arc<Callers> {
        let world = self.clone();
        let service = tower::service_fn(move |request| {
            let world = world.clone();
            async move { Ok::<_, io::Error>(world.answer(request).await) }
        });
        Arc::new(Callers::new(Client::new(service, "default"), settings).unwrap())
    }

    pub(super) fn asked(&self) -> (usize, usize) {
        (
            self.reviews.load(Ordering::Relaxed),
            self.accesses.load(Ordering::Relaxed),
        )
    }

    pub(super) fn hold(&self) -> Arc<Semaphore> {
        let held = Arc::new(Semaphore::new(0));
        *self.held.lock().unwrap() = Some(held.clone());
        held
    }

    async fn answer(&self, request: http::Request<Body>) -> Response<Body> {
        let (count, access) = match request.uri().path() {
            "/apis/authentication.k8s.io/v1/tokenreviews" => (&self.reviews, false),
            "/apis/authorization.k8s.io/v1/subjectaccessreviews" => (&self.accesses, true),
            other => panic!("asked for {other}"),
        };
        count.fetch_add(1, Ordering::Relaxed);
        let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        let _under_way = Leaving(&self.under_way);
        let mut review: Value =
            serde_json::from_slice(&request.into_body().collect_bytes().await.unwrap()).unwrap();
        *self.last.lock().unwrap() = review.clone();
        let held = self.held.lock().unwrap().clone();
        if let Some(held) = held {
            held.acquire().await.unwrap().forget();
        }
        if let Some((status, text)) = *self.failure.lock().unwrap() {
            return Response::builder()
                .status(status)
                .body(Body::from(text.as_bytes().to_vec()))
                .unwrap();
        }
        review["status"] = if access {
            self.access(&review["spec"])
        } else {
            self.review(&review["spec"])
        };
        Response::builder()
            .status(201)
            .body(Body::from(serde_json::to_vec(&review).unwrap()))
            .unwrap()
    }

    fn review(&self, spec: &Value) -> Value {
        let token = name_in(spec["token"].as_str().unwrap());
        let token = token.as_str();
        if !self.tokens.lock().unwrap().contains(token) {
            return json!({"user": {}, "error": format!("no such token: {token}")});
        }
        let user = json!({"username": token, "uid": "1", "groups": ["accounts"], "extra": {"pod": ["a", "b"]}});
        json!({"authenticated": true, "user": user, "audiences": *self.audiences.lock().unwrap()})
    }

    fn access(&self, spec: &Value) -> Value {
        let asked = &spec["resourceAttributes"];
        assert_eq!(
            (&asked["group"], &asked["resource"], &asked["verb"]),
            (&json!("claviger.dev"), &json!("apikeys"), &json!("verify"))
        );
        assert_eq!(
            (&spec["uid"], &spec["groups"], &spec["extra"]),
            (
                &json!("1"),
                &json!(["accounts"]),
                &json!({"pod": ["a", "b"]})
            )
        );
        let namespace = asked["namespace"].as_str().unwrap_or_default();
        let rights = self.rights.lock().unwrap();
        let user = spec["user"].as_str().unwrap();
        let may = |namespace: &str| rights.contains(&(user.to_owned(), namespace.to_owned()));
        json!({"allowed": may("") || may(namespace)})
    }
}

/// A token that holds this name, as the claims of a JWT do. None has an end.
pub(super) fn token(name: &str) -> String {
    format!(
        "e30.{}.top-secret",
        URL_SAFE_NO_PAD.encode(json!({ "sub": name }).to_string())
    )
}

fn name_in(token: &str) -> String {
    let claims = URL_SAFE_NO_PAD
        .decode(token.split('.').nth(1).unwrap())
        .unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()["sub"]
        .as_str()
        .unwrap()
        .to_owned()
}

struct Leaving<'a>(&'a AtomicUsize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
