//! Reading a gRPC question before the framework does: the framework would keep the head, and what has
//! come of the message, for as long as the peer takes to send the rest.

use axum::Extension;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderName, Uri};
use tonic::Status;

use super::MAX_MESSAGE;
use crate::gate::server::{Bodies, BodyError, Peer, WholeBody};

/// What stands before each message: whether it is compressed, and its length in four bytes (the gRPC
/// protocol over HTTP/2).
const PREFIX: usize = 5;

/// Where questions over gRPC are asked.
pub const PATHS: [&str; 3] = [
    "/envoy.service.auth.v3.Authorization/Check",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
];

/// The longest value of a header that the framework needs. Its values are words and numbers.
const MAX_VALUE: usize = 64;

/// A question is longer than any that is looked at.
///
/// It is refused, and not failed: a client that makes its request long must not profit from a
/// `failure_mode_allow`.
#[derive(Clone, Copy)]
pub(super) struct TooLong;

impl TooLong {
    pub(super) const MESSAGE: &str =
        "the headers of the request are longer than the 128 KiB that the gate looks at";
}

/// Hands on questions that came whole, in time, and while there was memory for them.
pub async fn whole_question(
    Extension(bodies): Extension<Bodies>,
    request: Request,
    next: Next,
) -> Response {
    let (mut head, body) = request.into_parts();
    match read(&bodies, &mut head, body).await {
        // It counts among the bytes of all bodies until the response is there.
        Ok(whole) => {
            let body = Body::from(whole.bytes().clone());
            next.run(Request::from_parts(head, body)).await
        }
        Err(BodyError::TooLarge { .. }) => {
            head.extensions.insert(TooLong);
            let body = Body::from(&[0; PREFIX][..]);
            next.run(Request::from_parts(head, body)).await
        }
        Err(error) => {
            let message = error.to_string();
            let answer = match error {
                BodyError::Busy => Status::unavailable(message),
                BodyError::TooSlow { .. } => Status::deadline_exceeded(message),
                BodyError::Broken(_) | BodyError::TooLarge { .. } => Status::cancelled(message),
            };
            answer.into_http()
        }
    }
}

async fn read(bodies: &Bodies, head: &mut Parts, body: Body) -> Result<WholeBody, BodyError> {
    let mut reading = bodies.begin(body, PREFIX + MAX_MESSAGE)?;
    // Nearly always all of it is here.
    if reading.read_available()? {
        return Ok(reading.into_whole());
    }
    *head = needed(head);
    reading.finish().await
}

/// What the framework needs of a head, whose path is one of the routes'.
fn needed(head: &Parts) -> Parts {
    let (mut small, ()) = http::Request::new(()).into_parts();
    small.method = head.method.clone();
    small.version = head.version;
    let path = PATHS.iter().find(|path| **path == head.uri.path());
    small.uri = Uri::from_static(path.copied().unwrap_or("/"));
    for name in ["content-type", "te", "grpc-encoding", "grpc-timeout"] {
        let value = head
            .headers
            .get(name)
            .filter(|value| value.len() <= MAX_VALUE);
        small
            .headers
            .extend(value.map(|value| (HeaderName::from_static(name), value.clone())));
    }
    if let Some(peer) = head.extensions.get::<Peer>() {
        small.extensions.insert(*peer);
    }
    small
}
