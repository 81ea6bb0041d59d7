//! Reading the body of a request, with an end to how much and to how long.

use std::error::Error;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::Body;

/// A body was not read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is longer than allowed.
    #[error("the body is longer than the {limit} bytes that are taken: send fewer requests at once")]
    TooLarge {
        /// The bytes that would have been read.
        limit: usize,
    },
    /// It did not come to its end in time.
    #[error("the body did not come within {} ms: send it at once", .limit.as_millis())]
    TooSlow {
        /// The time that it had.
        limit: Duration,
    },
    /// The peer or the connection failed.
    #[error("the body ended before its end")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
}

impl BodyError {
    /// The status to answer with: 413, 408 or 400 (RFC 9110, 15.5).
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads a body of at most `limit` bytes, which must have come within `time`.
///
/// A body that says beforehand that it is longer is not read at all.
///
/// # Errors
/// [`BodyError`], with the status to answer with.
pub async fn read_body<B>(body: B, limit: usize, time: Duration) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(BodyError::TooLarge { limit });
    }
    tokio::time::timeout(time, read(body, limit)).await.unwrap_or(Err(BodyError::TooSlow { limit: time }))
}

async fn read<B>(body: B, limit: usize) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut body = std::pin::pin!(body);
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| BodyError::Broken(error.into()))?.into_data() else { continue };
        if first.len() + all.len() + data.len() > limit {
            return Err(BodyError::TooLarge { limit });
        }
        // Most bodies are one piece, which is not copied.
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        all.extend_from_slice(&std::mem::take(&mut first));
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use futures::StreamExt as _;
    use http_body_util::StreamBody;
    use hyper::body::{Frame, SizeHint};

    use super::*;

    const TIME: Duration = Duration::from_secs(1);

    fn pieces(pieces: &'static [&'static str]) -> impl Body<Data = Bytes, Error = Infallible> {
        let frames = pieces.iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
        StreamBody::new(futures::stream::iter(frames.collect::<Vec<_>>()))
    }

    #[tokio::test]
    async fn a_body_is_read_whole_in_one_piece_or_many() {
        assert_eq!(read_body(pieces(&[]), 9, TIME).await.unwrap(), "");
        assert_eq!(read_body(pieces(&["", "whole", ""]), 9, TIME).await.unwrap(), "whole");
        assert_eq!(read_body(pieces(&["in", "three", "pi"]), 9, TIME).await.unwrap(), "inthreepi");
    }

    /// Says how long it is, and must not be read.
    struct Told(u64);

    impl Body for Told {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            panic!("nobody reads it")
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.0)
        }
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_is_refused_before_and_while_it_is_read() {
        let told = read_body(Told(10), 9, TIME).await.unwrap_err();
        assert_eq!(told.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let untold = read_body(pieces(&["01234", "56789"]), 9, TIME).await.unwrap_err();
        assert_eq!(untold.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let first = futures::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"slow")))]);
        let error = read_body(StreamBody::new(first.chain(futures::stream::pending())), 9, TIME).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::REQUEST_TIMEOUT);
    }
}
