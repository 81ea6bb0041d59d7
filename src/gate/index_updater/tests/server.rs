//! An API server of which every answer is said by the test, and a gate that follows it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::super::{IndexHandler, IndexUpdater, apikeys, roles};
use crate::gate::freshness::{Freshness, Watched};
use crate::gate::index::{Index, Writer};
use crate::gate::metrics::{Metrics, Present};
use crate::gate::report::Uses;
use crate::gate::shown::{ShownApiKey, ShownRole};
use crate::watch::{Timing, Watcher};

pub(super) const TIMING: Timing = Timing {
    watch: Duration::from_secs(30),
    request: Duration::from_secs(10),
};

type Answer = UnsyncBoxBody<Bytes, std::io::Error>;

/// A feed, what it has taken down, and the API server it asks.
pub(super) struct World {
    asked: mpsc::UnboundedReceiver<Call>,
    pub(super) updater: Arc<IndexUpdater>,
    pub(super) freshness: Arc<Freshness>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) uses: Arc<Uses>,
    pub(super) index: Arc<ArcSwap<Index>>,
    /// Where the API server says that it stands, when that is all it is asked; `None` leaves the answer to the test.
    pub(super) place: Option<&'static str>,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A request that waits for its answer. One that is dropped breaks the connection.
pub(super) struct Call {
    pub(super) path: String,
    pub(super) query: BTreeMap<String, String>,
    answer: oneshot::Sender<Response<Answer>>,
}

/// A watch that was answered. Dropping it ends it in order.
pub(super) struct Watch(mpsc::UnboundedSender<Result<Bytes, std::io::Error>>);

impl World {
    pub(super) fn new(watched: Watched) -> Self {
        Self::within(watched, None, None)
    }

    pub(super) fn within(
        watched: Watched,
        namespace: Option<&str>,
        max_staleness: Option<Duration>,
    ) -> Self {
        let (told, asked) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (answer, answered) = oneshot::channel();
            let query = request.uri().query().unwrap_or_default();
            let query = form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect();
            let _ = told.send(Call {
                path: request.uri().path().to_owned(),
                query,
                answer,
            });
            async move {
                answered
                    .await
                    .map_err(|_| std::io::Error::other("the connection broke"))
            }
        });
        let client = Client::new(service, "default");
        let (metrics, uses) = (Arc::<Metrics>::default(), Arc::<Uses>::default());
        let freshness = Arc::new(Freshness::new(watched == Watched::Roles, max_staleness));
        let writer = Writer::default();
        let index = writer.published();
        let updater = Arc::new(IndexUpdater::new(
            writer,
            freshness.clone(),
            metrics.clone(),
            uses.clone(),
        ));
        let stop = CancellationToken::new();
        match watched {
            Watched::ApiKeys => {
                let handler = IndexHandler::<ShownApiKey>::new(updater.clone());
                let apikeys = Watcher::new(client, apikeys(namespace), handler, TIMING);
                tokio::spawn(apikeys.run(stop.clone()));
            }
            Watched::Roles => {
                let handler = IndexHandler::<ShownRole>::new(updater.clone());
                let roles = Watcher::new(client, roles(), handler, TIMING);
                tokio::spawn(roles.run(stop.clone()));
            }
        }
        Self {
            asked,
            updater,
            freshness,
            metrics,
            uses,
            index,
            place: Some("1000000"),
            stop,
        }
    }

    /// The next request, which comes sooner or later: the clock runs ahead where everybody waits.
    pub(super) async fn next(&mut self) -> Call {
        loop {
            let call = self.asked.recv().await.unwrap();
            match self.place {
                Some(place) if call.query.get("limit").is_some_and(|limit| limit == "1") => {
                    call.page(&[], place, "more");
                }
                _ => return call,
            }
        }
    }

    /// The next request, which asks where the API server stands.
    pub(super) async fn place(&mut self) -> Call {
        self.place = None;
        let call = self.next().await;
        assert_eq!(
            call.query.get("limit").map(String::as_str),
            Some("1"),
            "{:?}",
            call.query
        );
        assert!(
            !call.query.contains_key("resourceVersion"),
            "it is consistent: {:?}",
            call.query
        );
        call
    }

    /// The next request, which is a list from its start.
    pub(super) async fn list(&mut self) -> Call {
        let call = self.next().await;
        assert!(
            !call.query.contains_key("watch") && !call.query.contains_key("continue"),
            "{:?}",
            call.query
        );
        assert!(
            !call.query.contains_key("resourceVersion"),
            "it is consistent: {:?}",
            call.query
        );
        assert_eq!(call.query["limit"], "500");
        call
    }

    /// The next request, which goes on with a list.
    pub(super) async fn page(&mut self, next: &str) -> Call {
        let call = self.next().await;
        assert_eq!(
            call.query.get("continue").map(String::as_str),
            Some(next),
            "{:?}",
            call.query
        );
        call
    }

    /// The next request, which watches from a resourceVersion on.
    pub(super) async fn watch(&mut self, since: &str) -> Call {
        let call = self.next().await;
        let said = |name: &str| call.query.get(name).map(String::as_str);
        assert_eq!(
            (said("watch"), said("resourceVersion")),
            (Some("true"), Some(since)),
            "{:?}",
            call.query
        );
        assert_eq!(
            (said("allowWatchBookmarks"), said("timeoutSeconds")),
            (Some("true"), Some("30"))
        );
        call
    }

    /// A list of these, whole, at resourceVersion 10, and a watch from there.
    pub(super) async fn begin(&mut self, objects: &[Value]) -> Watch {
        self.list().await.page(objects, "10", "");
        self.watch("10").await.stream()
    }

    /// Waits until everything that was sent is taken in: nobody does anything but wait when this clock moves.
    pub(super) async fn rest(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    pub(super) fn metric(&self, name: &str) -> String {
        let text = self.metrics.render(&Present::default());
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
            .to_owned()
    }
}

impl Call {
    /// A page of a list; `next` is empty where it is the last.
    pub(super) fn page(self, items: &[Value], resource_version: &str, next: &str) {
        self.json(&json!({ "metadata": { "resourceVersion": resource_version, "continue": next }, "items": items }));
    }

    pub(super) fn json(self, body: &Value) {
        self.text(StatusCode::OK, &body.to_string());
    }

    pub(super) fn text(self, status: StatusCode, body: &str) {
        let body = Full::new(Bytes::from(body.to_owned()))
            .map_err(|never: Infallible| match never {})
            .boxed_unsync();
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let _ = self.answer.send(response);
    }

    /// As the API server says no.
    pub(super) fn refuse(self, code: u16, message: &str) {
        self.text(
            StatusCode::from_u16(code).unwrap(),
            &status(code, message).to_string(),
        );
    }

    /// Begins a watch.
    pub(super) fn stream(self) -> Watch {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let chunks = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
        let body = StreamBody::new(chunks.map(|chunk: Result<Bytes, _>| chunk.map(Frame::data)))
            .boxed_unsync();
        let _ = self.answer.send(Response::new(body));
        Watch(sender)
    }
}

impl Watch {
    pub(super) fn added(&self, object: &Value) -> &Self {
        self.event("ADDED", object)
    }

    pub(super) fn modified(&self, object: &Value) -> &Self {
        self.event("MODIFIED", object)
    }

    pub(super) fn deleted(&self, object: &Value) -> &Self {
        self.event("DELETED", object)
    }

    pub(super) fn bookmark(&self, resource_version: &str) -> &Self {
        let types = json!({ "apiVersion": "claviger.dev/v1alpha1", "kind": "ApiKey" });
        let mut object = types;
        object["metadata"] =
            json!({ "resourceVersion": resource_version, "creationTimestamp": null });
        self.event("BOOKMARK", &object)
    }

    pub(super) fn error(&self, code: u16, message: &str) -> &Self {
        self.event("ERROR", &status(code, message))
    }

    pub(super) fn event(&self, kind: &str, object: &Value) -> &Self {
        // The API server says the kind first.
        self.line(&format!(r#"{{"type":"{kind}","object":{object}}}"#))
    }

    pub(super) fn line(&self, line: &str) -> &Self {
        let _ = self.0.send(Ok(format!("{line}\n").into()));
        self
    }

    /// The connection breaks.
    pub(super) fn cut(self) {
        let _ = self
            .0
            .send(Err(std::io::Error::other("the connection broke")));
    }

    /// The connection breaks in a way that kube takes for an end in order.
    pub(super) fn cut_quietly(self) {
        let _ = self.0.send(Err(std::io::ErrorKind::UnexpectedEof.into()));
    }

    pub(super) fn is_left(&self) -> bool {
        self.0.is_closed()
    }
}

fn status(code: u16, message: &str) -> Value {
    let reason = if code == 403 { "Forbidden" } else { "" };
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code })
}
