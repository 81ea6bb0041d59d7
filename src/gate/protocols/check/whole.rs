//! Reading a question before anything is made of it. Left to itself, the framework keeps what came of a message for as long as the
//! peer takes to send the rest.

use axum::Extension;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderName};
use tonic::Status;

use super::MAX_MESSAGE;
use crate::gate::server::{Bodies, BodyError};

/// What stands before each message: whether it is compressed, and its length in four bytes (the gRPC protocol over HTTP/2).
const PREFIX: usize = 5;

/// A question is longer than any that is looked at.
///
/// It is refused, and not failed: whoever makes their request long must not profit from a `failure_mode_allow`.
#[derive(Clone, Copy)]
pub(super) struct TooLong;

impl TooLong {
    pub(super) const MESSAGE: &str =
        "the headers of the request are longer than the 128 KiB that the gate looks at";
}

/// The headers that the framework reads.
fn of_grpc(headers: &mut HeaderMap) -> HeaderMap {
    let read = [
        "content-type",
        "te",
        "grpc-encoding",
        "grpc-accept-encoding",
        "grpc-timeout",
    ];
    read.iter()
        .filter_map(|name| Some((HeaderName::from_static(name), headers.remove(*name)?)))
        .collect()
}

/// Hands on questions that came whole, in time, and while there was room for them.
pub async fn whole_question(
    Extension(bodies): Extension<Bodies>,
    request: Request,
    next: Next,
) -> Response {
    let (mut head, question) = request.into_parts();
    // What it says besides is not kept while the question comes.
    head.headers = of_grpc(&mut head.headers);
    match bodies.read(question, PREFIX + MAX_MESSAGE).await {
        // Trailers, of which a question has none, are gone. The room is given back when the question is answered.
        Ok(whole) => {
            next.run(Request::from_parts(head, Body::from(whole.bytes().clone())))
                .await
        }
        Err(BodyError::TooLarge { .. }) => {
            head.extensions.insert(TooLong);
            next.run(Request::from_parts(head, Body::from(&[0; PREFIX][..])))
                .await
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
