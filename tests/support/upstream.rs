//! The API behind a proxy. It answers every request with what it saw, and remembers it. A WebSocket
//! gets an echo.
//!
//! Its reports are at `/reports`, in every spelling that some framework takes for that: see [`Seen::is_report`].

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::cluster::runtime;

/// The key of a handshake, and the answer to it (RFC 6455, section 1.3).
pub(crate) const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const WEBSOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A request as it came through.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Seen {
    /// The one value of a header, if it is there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().expect("text");
        assert!(values.next().is_none(), "more than one {name}: {self:?}");
        Some(value)
    }

    /// Whether an API would serve a report: this one is as lenient as all frameworks together. It ignores case and extensions,
    /// decodes as often as it can, takes a backslash for a slash, and cuts off what follows a semicolon and trailing dots and
    /// white space. Some resolve `..` and others do not: either way counts.
    pub(crate) fn is_report(&self) -> bool {
        let path = self.path.split(['?', '#']).next().unwrap_or_default();
        let mut decoded = path.to_owned();
        loop {
            let next = decode(&decoded);
            if next == decoded {
                break;
            }
            decoded = next;
        }
        let plain = decoded.to_lowercase().replace('\\', "/");
        let segments: Vec<&str> = plain
            .split('/')
            .map(|part| part.split(';').next().unwrap_or_default())
            .map(|part| part.trim_matches(|c: char| c.is_whitespace() || c.is_control()))
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        let mut resolved = Vec::new();
        for part in &segments {
            if *part == ".." {
                resolved.pop();
            } else {
                resolved.push(*part);
            }
        }
        [segments.first(), resolved.first()]
            .into_iter()
            .flatten()
            .any(|part| part.split('.').next() == Some("reports"))
    }
}

fn decode(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = path
            .get(at + 1..at + 3)
            .filter(|_| bytes[at] == b'%')
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(hex.unwrap_or(bytes[at]));
        at += if hex.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// A running API. It ends when dropped.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Upstream {
    /// Starts one on a free port.
    pub(crate) fn start() -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let listener = runtime()
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let task = runtime().spawn(serve(listener, seen.clone()));
        Self {
            address,
            seen,
            task,
        }
    }

    /// All that it saw since it was asked last.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().expect("no story panicked here"))
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, seen: Arc<Mutex<Vec<Seen>>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let seen = seen.clone();
        let service = service_fn(move |request| answer(request, seen.clone()));
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades(),
        );
    }
}

async fn answer(
    mut request: Request<Incoming>,
    all: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let upgraded = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let seen = Seen {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let headers: Vec<_> = seen
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
        .collect();
    let said =
        json!({ "method": seen.method, "path": seen.path, "headers": headers, "body": seen.body });
    let answer = Response::builder()
        .header("content-type", "application/json")
        .body(Full::new(said.to_string().into()));
    let wants_websocket = seen.header("sec-websocket-key") == Some(WEBSOCKET_KEY)
        && seen
            .header("upgrade")
            .is_some_and(|to| to.eq_ignore_ascii_case("websocket"));
    all.lock().expect("no story panicked here").push(seen);
    if wants_websocket {
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded.await?));
            tokio::io::copy(&mut read, &mut write).await.ok();
            Ok::<_, hyper::Error>(())
        });
        let answer = Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-accept", WEBSOCKET_ACCEPT);
        return Ok(answer.body(Full::default()).expect("a response"));
    }
    Ok(answer.expect("a response"))
}
