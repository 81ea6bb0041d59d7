//! An API server of a few lines for the proxy's own tests, and a client.

use super::super::call::Call;
use super::super::upstream::{Answer, BoxError, channel, full};
use super::super::{Proxy, Verb};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// Long enough for a loaded machine, since only failures wait for it.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
/// How long something must not happen to count as not happening.
pub(super) const MOMENT: Duration = Duration::from_millis(150);

type Watchers = Arc<Mutex<Vec<mpsc::UnboundedSender<Result<Bytes, BoxError>>>>>;

/// A fake API server, the proxy in front of it and a runtime for the test's own client.
pub(super) struct Stage {
    pub(super) proxy: Proxy,
    pub(super) runtime: Runtime,
    seen: Arc<Mutex<Vec<String>>>,
    watchers: Watchers,
}

/// What the client got; `None` if the connection ended without an answer.
pub(super) type Outcome = Option<Response<Incoming>>;

impl Stage {
    pub(super) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let watchers = Watchers::default();
        let bind = tokio::net::TcpListener::bind("127.0.0.1:0");
        let listener = runtime.block_on(bind).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (log, open) = (seen.clone(), watchers.clone());
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, open) = (log.clone(), open.clone());
                let service = service_fn(move |request| answer(request, log.clone(), open.clone()));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self {
            proxy: Proxy::start(&format!("http://{address}"), None),
            runtime,
            seen,
            watchers,
        }
    }

    /// What reached the API server: `PUT /path`.
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("seen").clone()
    }

    /// Sends a line, or part of one, to every open watch.
    pub(super) fn emit(&self, chunk: &str) {
        let mut watchers = self.watchers.lock().expect("watchers");
        watchers.retain(|watcher| watcher.send(Ok(Bytes::from(chunk.to_owned()))).is_ok());
    }

    /// Sends a request without waiting for what becomes of it.
    pub(super) fn send(
        &self,
        method: Method,
        path: &str,
        body: &str,
    ) -> tokio::task::JoinHandle<Outcome> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.proxy.url()))
            .header("authorization", "Bearer token")
            .body(Full::<Bytes>::from(body.to_owned()))
            .expect("a request");
        // A connection of its own each time: no reuse to confuse a dropped one with.
        let client = Client::builder(TokioExecutor::new()).build_http();
        self.runtime
            .spawn(async move { client.request(request).await.ok() })
    }

    pub(super) fn request(&self, method: Method, path: &str, body: &str) -> Outcome {
        let outcome = self.send(method, path, body);
        let outcome = self
            .runtime
            .block_on(async { tokio::time::timeout(LIMIT, outcome).await });
        outcome.expect("an outcome in time").expect("no panic")
    }

    /// The status code of a request's answer.
    pub(super) fn code(&self, method: Method, path: &str) -> Option<u16> {
        let outcome = self.request(method, path, "{}");
        outcome.map(|response| response.status().as_u16())
    }

    pub(super) fn text(&self, response: Response<Incoming>) -> String {
        let body = self.runtime.block_on(response.into_body().collect());
        let body = body.expect("a body").to_bytes();
        String::from_utf8(body.to_vec()).expect("text")
    }

    /// Opens a watch and waits until the API server has it.
    pub(super) fn watch(&self, path: &str) -> Response<Incoming> {
        let response = self.request(Method::GET, path, "");
        response.expect("a watch")
    }

    /// What a watch brings next.
    pub(super) fn next(&self, watch: &mut Response<Incoming>, limit: Duration) -> Next {
        let frame = async { tokio::time::timeout(limit, watch.frame()).await };
        match self.runtime.block_on(frame) {
            Err(_) => Next::Silence,
            Ok(None) => Next::End,
            Ok(Some(frame)) => {
                let data = frame.expect("an unbroken watch").into_data().expect("data");
                Next::Chunk(String::from_utf8(data.to_vec()).expect("text"))
            }
        }
    }
}

/// What a watch brings.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Chunk(String),
    End,
    Silence,
}

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<String>>>,
    watchers: Watchers,
) -> Result<Answer, hyper::Error> {
    assert_eq!(request.headers()["authorization"], "Bearer token");
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let line = format!("{} {}", parts.method, parts.uri.path());
    seen.lock().expect("seen").push(line);
    let call = Call::parse(&parts.method, &parts.uri, &body);
    let body = match call.verb {
        Verb::Watch => {
            let (sender, receiver) = mpsc::unbounded_channel();
            watchers.lock().expect("watchers").push(sender);
            channel(receiver)
        }
        Verb::List => full(
            r#"{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[]}"#,
        ),
        _ => full(body),
    };
    let response = Response::builder()
        .header("date", "Tue, 01 Jan 2030 00:00:00 GMT")
        .header("content-type", "application/json");
    Ok(response.body(body).expect("an answer"))
}
