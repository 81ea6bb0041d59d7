//! An API server with one Lease, and a network that can fail.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower::BoxError;

/// What befalls one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fate {
    Served,
    /// Milliseconds before and after the commit.
    Slow(u64, u64),
    /// Applied, but the answer is lost.
    LostAnswer,
    Failed(u16),
    /// Never served, never answered.
    Hung,
}

/// One Lease with optimistic concurrency.
#[derive(Default)]
pub(super) struct Server {
    pub(super) lease: Option<Value>,
    version: u64,
    pub(super) log: Vec<(Method, u16)>,
}

#[derive(Clone, Default)]
pub(super) struct Cluster(pub(super) Arc<Mutex<Server>>);

impl Cluster {
    fn serve(&self, method: &Method, body: Option<Value>) -> (u16, Value) {
        let mut server = self.0.lock().unwrap();
        let stored = server.lease.clone();
        let (code, reply) = match (method.as_str(), stored, body) {
            ("GET" | "PUT", None, _) => (404, Value::Null),
            ("GET", Some(lease), _) => (200, lease),
            ("POST", Some(_), _) => (409, Value::Null),
            ("PUT", Some(lease), Some(new))
                if lease["metadata"]["resourceVersion"] != new["metadata"]["resourceVersion"] =>
            {
                (409, Value::Null)
            }
            ("PUT" | "POST", _, Some(mut new)) => {
                server.version += 1;
                new["metadata"]["resourceVersion"] = json!(server.version.to_string());
                server.lease = Some(new.clone());
                (200, new)
            }
            other => panic!("unexpected {other:?}"),
        };
        server.log.push((method.clone(), code));
        (code, reply)
    }

    /// A client whose n-th request (from 0) meets the fate given.
    pub(super) fn client(
        &self,
        fate: impl Fn(usize, &Method) -> Fate + Send + Sync + 'static,
    ) -> Client {
        let (cluster, count) = (self.clone(), Arc::new(AtomicUsize::new(0)));
        let fate = Arc::new(fate);
        let service = tower::service_fn(move |request: Request<Body>| {
            let (cluster, count, fate) = (cluster.clone(), count.clone(), fate.clone());
            async move {
                let n = count.fetch_add(1, Ordering::SeqCst);
                let method = request.method().clone();
                let sent = request.into_body().collect().await?.to_bytes();
                let sent = serde_json::from_slice(&sent).ok();
                let (before, after) = match fate(n, &method) {
                    Fate::Slow(before, after) => (before, after),
                    Fate::Failed(code) => return Ok(answer(code, Value::Null)),
                    Fate::Hung => std::future::pending().await,
                    Fate::LostAnswer => {
                        cluster.serve(&method, sent);
                        return Err(BoxError::from("connection reset"));
                    }
                    Fate::Served => (0, 0),
                };
                // As on a wire: a caller who goes away does not stop the request.
                let served = tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(before)).await;
                    cluster.serve(&method, sent)
                });
                let (code, reply) = served.await?;
                tokio::time::sleep(Duration::from_millis(after)).await;
                Ok(answer(code, reply))
            }
        });
        Client::new(service, "claviger")
    }

    pub(super) fn spec(&self) -> Value {
        self.0
            .lock()
            .unwrap()
            .lease
            .as_ref()
            .map_or(Value::Null, |lease| lease["spec"].clone())
    }

    pub(super) fn edit(&self, edit: impl FnOnce(&mut Value)) {
        let mut server = self.0.lock().unwrap();
        server.version += 1;
        let version = server.version.to_string();
        let lease = server.lease.as_mut().unwrap();
        edit(lease);
        lease["metadata"]["resourceVersion"] = json!(version);
    }

    pub(super) fn count(&self, method: &Method) -> usize {
        self.0
            .lock()
            .unwrap()
            .log
            .iter()
            .filter(|(m, _)| m == method)
            .count()
    }
}

fn answer(
    code: u16,
    reply: Value,
) -> Response<impl hyper::body::Body<Data = Bytes, Error = std::io::Error>> {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        _ => "InternalError",
    };
    let reply = match code {
        200 => reply,
        _ => {
            json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "told so"})
        }
    };
    let body = Full::new(Bytes::from(reply.to_string())).map_err(std::io::Error::other);
    Response::builder().status(code).body(body).unwrap()
}
