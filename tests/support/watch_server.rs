//! An API server for ApiKeys and roles alone, over a real socket: a hundred thousand ApiKeys that are made up as they are listed,
//! in pages, and watches that show what a story lets happen, or nothing.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use claviger::key::{Hash, Key, MintError, Prefix, RandomSource};
use futures::StreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

use super::cluster::runtime;

type Sender = mpsc::UnboundedSender<Option<Bytes>>;
type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A running server. It ends with the process.
pub(crate) struct WatchServer {
    shared: Arc<Shared>,
    address: std::net::SocketAddr,
}

/// How one ApiKey is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// It passes.
    Active,
    /// It was revoked.
    Revoked,
    /// Its end has come, and nobody has recorded it.
    Expired,
}

struct Shared {
    world: Mutex<World>,
    /// Pages that may be answered.
    pages: Semaphore,
}

#[derive(Default)]
struct World {
    /// ApiKeys 0 to this.
    keys: usize,
    gone: HashSet<usize>,
    changed: BTreeMap<usize, How>,
    resource_version: u64,
    /// What has happened, by resourceVersion.
    events: Vec<(u64, Bytes)>,
    /// Watches from before this are told 410.
    forgotten: u64,
    /// Watches are accepted and told nothing.
    silent: bool,
    /// `None` ends one.
    watches: BTreeMap<u64, Sender>,
    /// Those that nothing comes out of any more.
    dead: Vec<Sender>,
    begun: u64,
    listed: usize,
    lists: usize,
    /// What is gone in the lists that are under way, by where they stand.
    snapshots: BTreeMap<u64, HashSet<usize>>,
}

impl WatchServer {
    /// A server of so many ApiKeys; every tenth is revoked, and every tenth after those has expired.
    pub(crate) fn start(keys: usize) -> Self {
        let world = World {
            keys,
            resource_version: 1_000_000,
            ..World::default()
        };
        let shared = Arc::new(Shared {
            world: Mutex::new(world),
            pages: Semaphore::new(Semaphore::MAX_PERMITS),
        });
        let serving = shared.clone();
        let listener = runtime()
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let address = listener.local_addr().expect("its address");
        runtime().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(serving.clone(), stream));
            }
        });
        Self { shared, address }
    }

    /// A kubeconfig for it.
    pub(crate) fn kubeconfig(&self) -> String {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "watch",
            "clusters": [{ "name": "watch", "cluster": { "server": format!("http://{}", self.address) } }],
            "users": [{ "name": "watch", "user": {} }],
            "contexts": [{ "name": "watch", "context": { "cluster": "watch", "user": "watch" } }],
        });
        config.to_string()
    }

    /// From now on this many pages of ApiKeys are answered, and no more.
    pub(crate) fn allow_pages(&self, pages: usize) {
        self.shared.pages.forget_permits(Semaphore::MAX_PERMITS);
        self.shared.pages.add_permits(pages);
    }

    /// Pages are answered as they are asked for.
    pub(crate) fn allow_all_pages(&self) {
        self.shared.pages.forget_permits(Semaphore::MAX_PERMITS);
        self.shared.pages.add_permits(Semaphore::MAX_PERMITS);
    }

    /// How many ApiKeys it has listed so far, in all lists together.
    pub(crate) fn listed(&self) -> usize {
        self.shared.world().listed
    }

    /// How many lists of ApiKeys were read to their end.
    pub(crate) fn lists(&self) -> usize {
        self.shared.world().lists
    }

    /// How many watches of ApiKeys are open.
    pub(crate) fn watches(&self) -> usize {
        let mut world = self.shared.world();
        world.watches.retain(|_, watch| !watch.is_closed());
        world.watches.len()
    }

    /// An ApiKey becomes another.
    pub(crate) fn change(&self, number: usize, how: How) {
        let mut world = self.shared.world();
        world.changed.insert(number, how);
        world.happens("MODIFIED", number);
    }

    /// An ApiKey is deleted.
    pub(crate) fn delete(&self, number: usize) {
        let mut world = self.shared.world();
        world.happens("DELETED", number);
        world.gone.insert(number);
    }

    /// One more ApiKey. Returns its number.
    pub(crate) fn create(&self) -> usize {
        let mut world = self.shared.world();
        let number = world.keys;
        world.keys += 1;
        world.changed.insert(number, How::Active);
        world.happens("ADDED", number);
        number
    }

    /// While silent, watches are accepted and told nothing, not even their end. Those that are open then stay silent for ever.
    pub(crate) fn fall_silent(&self, silent: bool) {
        let mut world = self.shared.world();
        world.silent = silent;
        let open = std::mem::take(&mut world.watches);
        world.dead.extend(open.into_values());
    }

    /// Open watches end, and what has happened so far is forgotten: they have to list.
    pub(crate) fn forget(&self) {
        let mut world = self.shared.world();
        world.resource_version += 1;
        world.forgotten = world.resource_version;
        world.events.clear();
        for watch in world.watches.values().chain(&world.dead) {
            let _ = watch.send(None);
        }
        world.watches.clear();
        world.dead.clear();
    }

    /// How an ApiKey is; nothing where it is gone.
    pub(crate) fn how(&self, number: usize) -> Option<How> {
        let world = self.shared.world();
        (number < world.keys && !world.gone.contains(&number)).then(|| world.how(number))
    }

    /// How many ApiKeys there are.
    pub(crate) fn keys(&self) -> usize {
        let world = self.shared.world();
        world.keys - world.gone.len()
    }

    /// The key of an ApiKey.
    pub(crate) fn key(number: usize) -> String {
        Key::mint(&Prefix::default(), &mut Digits(number))
            .expect("digits are at hand")
            .expose()
            .to_owned()
    }
}

/// Makes a key of a number. Nobody else has it: it opens nothing.
struct Digits(usize);

impl RandomSource for Digits {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), MintError> {
        let mut rest = self.0;
        for byte in bytes {
            *byte = u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
        }
        Ok(())
    }
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no story panicked here")
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let query: BTreeMap<String, String> =
            form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        let watched = query.get("watch").is_some_and(|watch| watch == "true");
        Ok(match (request.uri().path(), watched) {
            ("/apis/claviger.dev/v1alpha1/apikeys", true) => self.watch(&query),
            ("/apis/claviger.dev/v1alpha1/apikeys", false) => self.list(&query).await,
            ("/apis/claviger.dev/v1alpha1/apikeyroles", true) => {
                let (sender, receiver) = mpsc::unbounded_channel();
                after(&query, move || drop(sender));
                stream(receiver)
            }
            ("/apis/claviger.dev/v1alpha1/apikeyroles", false) => text(
                200,
                r#"{"metadata":{"resourceVersion":"7"},"items":[]}"#.to_owned(),
            ),
            _ => text(404, status(404, "not found")),
        })
    }

    /// A page, as of when the list began.
    async fn list(&self, query: &BTreeMap<String, String>) -> Answer {
        self.pages
            .acquire()
            .await
            .expect("it is never closed")
            .forget();
        let limit: usize = query
            .get("limit")
            .and_then(|limit| limit.parse().ok())
            .unwrap_or(usize::MAX);
        let mut world = self.world();
        let (start, resource_version) = if let Some(next) = query.get("continue") {
            let (start, resource_version) = next.split_once('@').expect("a token of ours");
            (
                start.parse().expect("a number"),
                resource_version.parse().expect("a number"),
            )
        } else {
            let (now, gone) = (world.resource_version, world.gone.clone());
            world.snapshots.insert(now, gone);
            (0, now)
        };
        if resource_version < world.forgotten {
            return text(
                410,
                status(410, "The provided continue parameter is too old"),
            );
        }
        let gone = &world.snapshots[&resource_version];
        let numbers = (start..world.keys)
            .filter(|number| !gone.contains(number))
            .take(limit);
        let numbers: Vec<usize> = numbers.collect();
        let items: Vec<String> = numbers
            .iter()
            .map(|number| world.object(*number, resource_version))
            .collect();
        let end = numbers.last().map_or(world.keys, |last| last + 1);
        world.listed += items.len();
        let next = if end < world.keys {
            format!("{end}@{resource_version}")
        } else {
            String::new()
        };
        world.lists += usize::from(next.is_empty());
        drop(world);
        let meta = json!({ "resourceVersion": resource_version.to_string(), "continue": next });
        text(
            200,
            format!(
                r#"{{"kind":"ApiKeyList","metadata":{meta},"items":[{}]}}"#,
                items.join(",")
            ),
        )
    }

    fn watch(self: &Arc<Self>, query: &BTreeMap<String, String>) -> Answer {
        let mut world = self.world();
        let since: u64 = query
            .get("resourceVersion")
            .and_then(|since| since.parse().ok())
            .expect("from where");
        let (sender, receiver) = mpsc::unbounded_channel();
        if since < world.forgotten {
            let _ = sender.send(Some(line(
                "ERROR",
                &status(410, &format!("too old resource version: {since}")),
            )));
            return stream(receiver);
        }
        if world.silent {
            world.dead.push(sender);
            return stream(receiver);
        }
        for (_, event) in world.events.iter().filter(|(at, _)| *at > since) {
            let _ = sender.send(Some(event.clone()));
        }
        world.begun += 1;
        let number = world.begun;
        world.watches.insert(number, sender);
        let shared = self.clone();
        after(query, move || {
            let mut world = shared.world();
            let bookmark = json!({ "kind": "ApiKey", "apiVersion": "claviger.dev/v1alpha1",
                "metadata": { "resourceVersion": world.resource_version.to_string() } });
            if let Some(watch) = world.watches.remove(&number) {
                let _ = watch.send(Some(line("BOOKMARK", &bookmark.to_string())));
            }
        });
        stream(receiver)
    }
}

impl World {
    fn how(&self, number: usize) -> How {
        self.changed
            .get(&number)
            .copied()
            .unwrap_or(match number % 10 {
                3 => How::Revoked,
                7 => How::Expired,
                _ => How::Active,
            })
    }

    fn happens(&mut self, kind: &str, number: usize) {
        self.resource_version += 1;
        let event = line(kind, &self.object(number, self.resource_version));
        self.events.push((self.resource_version, event.clone()));
        self.watches
            .retain(|_, watch| watch.send(Some(event.clone())).is_ok());
    }

    /// An ApiKey of several kilobytes, as kubectl and a controller leave it.
    fn object(&self, number: usize, resource_version: u64) -> String {
        let how = self.how(number);
        let hash = Hash::of(WatchServer::key(number).as_bytes());
        let (spec, status, phase) = match how {
            How::Active => ("", r#""expiresAt":"2099-01-01T00:00:00Z","#, "Active"),
            How::Revoked => (
                r#""revoked":true,"#,
                r#""revokedAt":"2026-02-01T00:00:00Z","#,
                "Revoked",
            ),
            How::Expired => ("", r#""expiresAt":"2026-02-01T00:00:00Z","#, "Active"),
        };
        let team = number % 100;
        format!(
            r#"{{"apiVersion":"claviger.dev/v1alpha1","kind":"ApiKey","metadata":{{"name":"customer-{number:06}","namespace":"team-{team:02}","uid":"00000000-0000-4000-8000-{number:012x}","resourceVersion":"{resource_version}","generation":2,"creationTimestamp":"2026-01-01T00:00:00Z","labels":{{"app.kubernetes.io/managed-by":"argocd","team":"team-{team:02}"}},"annotations":{{"argocd.argoproj.io/tracking-id":"keys:claviger.dev/ApiKey:team-{team:02}/customer-{number:06}"}},"finalizers":["claviger.dev/key"],"managedFields":{MANAGED}}},"spec":{{{spec}"audiences":["invoices-api"],"roles":["invoices-reader"],"owner":"team-{team:02}@example.com","description":"for customer {number}"}},"status":{{"phase":"{phase}",{status}"keyId":"{number:032x}","principal":"{number:032x}@team-{team:02}.claviger.local","hash":"{hash}","tail":"000000","version":1,"observedGeneration":2,"versions":[{{"version":1,"hash":"{hash}","tail":"000000","phase":"Current","announcedAt":"2026-01-01T00:00:00Z","activatedAt":"2026-01-01T00:00:01Z"}}],"conditions":{CONDITIONS}}}}}"#
        )
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| shared.clone().answer(request));
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Does something when a watch has lasted as long as it was asked for.
fn after(query: &BTreeMap<String, String>, end: impl FnOnce() + Send + 'static) {
    let seconds = query
        .get("timeoutSeconds")
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(1_800);
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
        end();
    });
}

fn line(kind: &str, object: &str) -> Bytes {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into()
}

fn status(code: u16, message: &str) -> String {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": "Expired", "code": code })
        .to_string()
}

fn text(code: u16, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
    *response.status_mut() = hyper::StatusCode::from_u16(code).expect("a status");
    response
}

fn stream(mut receiver: mpsc::UnboundedReceiver<Option<Bytes>>) -> Answer {
    let chunks =
        futures::stream::poll_fn(move |context| receiver.poll_recv(context).map(Option::flatten));
    Response::new(StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk)))).boxed_unsync())
}

/// Left by kubectl and by a controller.
const MANAGED: &str = concat!(
    r##"[{"apiVersion":"claviger.dev/v1alpha1","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:annotations":{"f:argocd.argoproj.io/tracking-id":{}},"f:labels":{"f:app.kubernetes.io/managed-by":{},"f:team":{}}},"f:spec":{"f:audiences":{},"f:description":{},"f:owner":{},"f:roles":{}}},"manager":"argocd-controller","operation":"Apply","time":"2026-01-01T00:00:00Z"}"##,
    r##",{"apiVersion":"claviger.dev/v1alpha1","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:finalizers":{".":{},"v:\"claviger.dev/key\"":{}}}},"manager":"claviger","operation":"Update","time":"2026-01-01T00:00:00Z"}"##,
    r##",{"apiVersion":"claviger.dev/v1alpha1","fieldsType":"FieldsV1","fieldsV1":{"f:status":{".":{},"f:conditions":{".":{},"k:{\"type\":\"Delivered\"}":{".":{},"f:lastTransitionTime":{},"f:message":{},"f:observedGeneration":{},"f:reason":{},"f:status":{},"f:type":{}},"k:{\"type\":\"Ready\"}":{".":{},"f:lastTransitionTime":{},"f:message":{},"f:observedGeneration":{},"f:reason":{},"f:status":{},"f:type":{}},"k:{\"type\":\"Usable\"}":{".":{},"f:lastTransitionTime":{},"f:message":{},"f:observedGeneration":{},"f:reason":{},"f:status":{},"f:type":{}}},"f:expiresAt":{},"f:hash":{},"f:keyId":{},"f:observedGeneration":{},"f:phase":{},"f:principal":{},"f:tail":{},"f:version":{},"f:versions":{}}},"manager":"claviger","operation":"Update","time":"2026-01-01T00:00:01Z","subresource":"status"}"##,
    "]"
);
const CONDITIONS: &str = concat!(
    r#"[{"type":"Ready","status":"True","reason":"Issued","message":"the key is issued","observedGeneration":2,"lastTransitionTime":"2026-01-01T00:00:01Z"}"#,
    r#",{"type":"Delivered","status":"True","reason":"Delivered","message":"the key is in its Secret","observedGeneration":2,"lastTransitionTime":"2026-01-01T00:00:01Z"}"#,
    r#",{"type":"Usable","status":"True","reason":"Usable","message":"the key passes","observedGeneration":2,"lastTransitionTime":"2026-01-01T00:00:01Z"}"#,
    "]"
);
