use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::StreamExt as _;
use http_body_util::StreamBody;
use hyper::body::SizeHint;

use super::*;

fn bodies(body_bytes: u32) -> Bodies {
    Bodies::new(&Limits {
        body_bytes,
        ..Limits::default()
    })
}

async fn read_body(body: Body, limit: usize) -> Result<Bytes, BodyError> {
    Ok(bodies(1000).read(body, limit).await?.bytes().clone())
}

fn pieces(pieces: &'static [&'static str]) -> Body {
    let frames = pieces
        .iter()
        .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from_static(piece.as_bytes()))));
    Body::new(StreamBody::new(futures::stream::iter(
        frames.collect::<Vec<_>>(),
    )))
}

/// Begins, and never ends.
fn unfinished(piece: &'static str) -> Body {
    let first = futures::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(
        piece.as_bytes(),
    )))]);
    Body::new(StreamBody::new(first.chain(futures::stream::pending())))
}

#[tokio::test]
async fn body_is_read_whole_in_one_piece_or_many() {
    assert_eq!(read_body(pieces(&[]), 9).await.unwrap(), "");
    assert_eq!(
        read_body(pieces(&["", "whole", ""]), 9).await.unwrap(),
        "whole"
    );
    assert_eq!(
        read_body(pieces(&["in", "three", "pi"]), 9).await.unwrap(),
        "inthreepi"
    );
}

#[test]
fn available_body_takes_no_memory_from_others() {
    let bodies = bodies(3);
    let mut reading = bodies.begin(pieces(&["in", "pieces"]), 9).unwrap();
    assert!(reading.read_available().unwrap());
    assert_eq!(reading.into_whole().bytes(), "inpieces");
    let mut reading = bodies.begin(unfinished("be"), 9).unwrap();
    assert!(!reading.read_available().unwrap());
    let mut reading = bodies.begin(pieces(&["too", "much"]), 6).unwrap();
    let error = reading.read_available().unwrap_err();
    assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

/// Says how long it is, and must not be read.
struct Announced(u64);

impl hyper::body::Body for Announced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("it is read")
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}

#[tokio::test]
async fn body_that_is_too_long_is_refused_before_and_while_it_is_read() {
    let announced = read_body(Body::new(Announced(10)), 9).await.unwrap_err();
    assert_eq!(announced.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let not_announced = read_body(pieces(&["01234", "56789"]), 9).await.unwrap_err();
    assert_eq!(not_announced.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test(start_paused = true)]
async fn body_that_does_not_end_is_not_waited_for() {
    let error = read_body(unfinished("slow"), 9).await.unwrap_err();
    assert_eq!(error.status(), StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn bodies_together_take_no_more_memory_than_allowed() {
    let bodies = bodies(10);
    let first = bodies.read(pieces(&["four", "two"]), 9).await.unwrap();
    let busy = bodies.read(pieces(&["six", "six"]), 9).await.unwrap_err();
    assert_eq!(busy.status(), StatusCode::SERVICE_UNAVAILABLE);
    // The refused body holds nothing.
    bodies.read(pieces(&["six"]), 9).await.unwrap();
    drop(first);
    bodies.read(pieces(&["six", "six"]), 9).await.unwrap();
}
