//! The server under measurement, in a process of its own: gates, and a server that decides nothing.

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{any, post};
use axum::{Extension, Router};
use claviger::gate::callers::{Callers, Method, Settings};
use claviger::gate::server::{Bodies, Counters, Limits, Listener, Peer, serve};
use claviger::gate::{Desk, ProxyCallers, router};
use envoy_types::pb::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use envoy_types::pb::google::rpc;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use kube::Client;
use prost::Message as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::keys::{self, Case, Numbers};
use crate::questions::{Asked, Protocol, segment};

/// A running server.
pub(crate) struct Server {
    process: Child,
    /// It ends with this.
    _lifeline: ChildStdin,
    /// How many keys it knows.
    pub(crate) keys: u64,
    gate: SocketAddr,
    gate_by_token: SocketAddr,
    noop: SocketAddr,
}

impl Server {
    /// Starts one on a processor.
    pub(crate) fn start(keys: u64, cpu: usize) -> Self {
        let mut process = Command::new("taskset")
            .args(["-c", &cpu.to_string()])
            .arg(std::env::current_exe().expect("a file"))
            .args(["--bench", "serve", &keys.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("taskset runs");
        let mut told = BufReader::new(process.stdout.take().expect("its output"));
        let mut address = || {
            let mut line = String::new();
            told.read_line(&mut line).expect("a line");
            line.trim().parse().expect("an address")
        };
        let (gate, gate_by_token, noop) = (address(), address(), address());
        Self {
            _lifeline: process.stdin.take().expect("its input"),
            process,
            keys,
            gate,
            gate_by_token,
            noop,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Where a protocol is served.
    pub(crate) fn address(&self, protocol: Protocol, asked: Asked) -> SocketAddr {
        match (asked, protocol) {
            (Asked::Noop | Asked::Empty, _) => self.noop,
            (Asked::Gate, Protocol::VerifyByToken) => self.gate_by_token,
            (Asked::Gate, _) => self.gate,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the child does: says where it serves, and serves until its input ends.
pub(crate) async fn run(keys: u64) {
    let writer = keys::writer(keys);
    let desk = keys::desk(&writer);
    let gate = |method| {
        let ready = Arc::new(|| Ok(()));
        router(desk.clone(), callers(method), ProxyCallers::None, ready)
    };
    let (gate, gate_by_token) = (gate(Method::None), gate(Method::Token));
    let noop = noop(&gate, keys).await;
    let token = CancellationToken::new();
    for router in [gate, gate_by_token, noop] {
        let listener = Listener::plain(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .expect("a port");
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", listener.address().expect("an address")).expect("a reader");
        tokio::spawn(serve(
            vec![listener],
            router,
            Limits::default(),
            Arc::new(Counters::default()),
            token.clone(),
        ));
    }
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await;
}

/// Callers whose API server knows everybody. What it says is kept for ten seconds, as it is by default.
fn callers(method: Method) -> Callers {
    let service = tower::service_fn(|request: http::Request<kube::client::Body>| async move {
        let of_token = request.uri().path().ends_with("tokenreviews");
        let body = request.into_body().collect_bytes().await.expect("a body");
        let mut review: Value = serde_json::from_slice(&body).expect("JSON");
        review["status"] = if of_token {
            json!({ "authenticated": true, "user": { "username": "system:serviceaccount:shop:frontend" } })
        } else {
            json!({ "allowed": true })
        };
        let body = kube::client::Body::from(serde_json::to_vec(&review).expect("JSON"));
        Ok::<_, Infallible>(
            http::Response::builder()
                .status(201)
                .body(body)
                .expect("an answer"),
        )
    });
    let settings = Settings {
        methods: vec![method],
        ..Settings::default()
    };
    Callers::new(Client::new(service, "default"), settings).expect("callers")
}

/// A recorded answer.
#[derive(Clone)]
struct Recorded {
    status: StatusCode,
    headers: HeaderMap,
    body: bytes::Bytes,
}

impl Recorded {
    fn again(&self) -> Response {
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        response
    }
}

/// A server that decides nothing. It is the library's own server with a router of the same kind, in the same process; each
/// route gives an answer that the gate gave once, byte for byte, so that what goes over the wire, and what reads and writes it,
/// is the same, and the difference is what it takes to find the key, decide and say so. A gRPC message is decoded and
/// encoded by the framework in both; the no-op copies the message that it sends, which the framework wants to own.
async fn noop(gate: &Router, keys: u64) -> Router {
    let mut forwards = Router::new();
    let mut verifies = Router::new();
    let mut checks = Vec::new();
    for case in Case::ALL {
        let segment_of = |own| segment(Asked::Noop, case, own);
        let recorded = record(gate, Protocol::Forward, case, keys).await;
        forwards = forwards.route(
            &format!("/v1/{}/{{*route}}", segment_of("auth")),
            any(async move |_: Path<String>, request: Request| {
                drop(request);
                recorded.again()
            }),
        );
        let recorded = record(gate, Protocol::Verify, case, keys).await;
        verifies = verifies.route(
            &format!("/v1/{}", segment_of("verify")),
            post(
                async move |State(()): State<()>,
                            Extension(bodies): Extension<Bodies>,
                            request: Request| {
                    let body = bodies.read(request.into_body(), 1 << 18).await;
                    body.map(|_| recorded.again()).expect("a body")
                },
            ),
        );
        let recorded = record(gate, Protocol::Grpc, case, keys).await;
        let message = CheckResponse::decode(&recorded.body[5..]).expect("an answer");
        checks.push((segment_of("auth"), message));
    }
    let ok = rpc::Status {
        code: 0,
        ..rpc::Status::default()
    };
    checks.push((
        "none",
        CheckResponse {
            status: Some(ok),
            ..CheckResponse::default()
        },
    ));
    let empty = any(async |request: Request| {
        drop(request);
        Response::new(Body::empty())
    });
    forwards
        .merge(verifies)
        .route("/v1/none/{*route}", empty)
        .route_service(
            "/envoy.service.auth.v3.Authorization/{method}",
            AuthorizationServer::new(Noop { checks }),
        )
}

/// What the gate answers.
async fn record(gate: &Router, protocol: Protocol, case: Case, keys: u64) -> Recorded {
    let question = protocol.question(Asked::Gate, case, keys, &mut Numbers(0));
    let request = if protocol == Protocol::Grpc {
        http::Request::post("/envoy.service.auth.v3.Authorization/Check")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Body::from(question))
    } else {
        let text = std::str::from_utf8(&question).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let mut lines = head.lines();
        let mut first = lines.next().expect("a line").split(' ');
        let request = http::Request::builder()
            .method(first.next().expect("a method"))
            .uri(first.next().expect("a path"));
        let headers = lines.filter_map(|line| line.split_once(": "));
        headers
            .fold(request, |request, (name, value)| {
                request.header(name, value)
            })
            .extension(Peer {
                address: SocketAddr::from(([127, 0, 0, 1], 1)),
                certified: false,
            })
            .body(Body::from(body.to_owned()))
    };
    let mut request = request.expect("a request");
    // As the server adds it to every request.
    request
        .extensions_mut()
        .insert(Bodies::new(&Limits::default()));
    let response = gate.clone().oneshot(request).await.expect("an answer");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let expected = if protocol == Protocol::Forward && case != Case::Hit {
        401
    } else {
        200
    };
    assert_eq!(
        head.status.as_u16(),
        expected,
        "{protocol:?} {case:?}: {body:?}"
    );
    Recorded {
        status: head.status,
        headers: head.headers,
        body,
    }
}

struct Noop {
    checks: Vec<(&'static str, CheckResponse)>,
}

#[tonic::async_trait]
impl Authorization for Noop {
    async fn check(
        &self,
        request: tonic::Request<CheckRequest>,
    ) -> Result<tonic::Response<CheckResponse>, tonic::Status> {
        let check = request.into_inner();
        let wanted = check
            .attributes
            .as_ref()
            .and_then(|attributes| attributes.source.as_ref())
            .map(|source| &*source.service);
        // A real Envoy asks for none of them: its requests pass.
        let named = self.checks.iter().find(|(name, _)| Some(*name) == wanted);
        let (_, answer) = named.or(self.checks.first()).expect("a recorded answer");
        Ok(tonic::Response::new(answer.clone()))
    }
}

/// The same for a part that wants gates and no processes.
pub(crate) fn in_process(keys: u64) -> Arc<Desk> {
    keys::desk(&keys::writer(keys))
}
