//! Reading the bodies of requests, with an end to how much and to how long, for each and for all together.

use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::Body;

use super::limits::Limits;
use super::room::{Room, Taken};

/// How long a body waits for room while others take all of it.
const PATIENCE: Duration = Duration::from_secs(1);

/// A body was not read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is longer than allowed.
    #[error(
        "the body is longer than the {limit} bytes that are taken: send fewer requests at once"
    )]
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
    /// Bodies of other requests take all the room there is.
    #[error("the gate is busy with other requests: ask again in a second")]
    Busy,
    /// The peer or the connection failed.
    #[error("the body ended before its end")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
}

impl BodyError {
    /// The status to answer with: 413, 408, 503 or 400 (RFC 9110, 15.5).
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads the bodies of requests. All that read with the same one, or a clone, share the room for them, of which one peer gets no
/// more than a quarter.
#[derive(Clone, Debug)]
pub struct Bodies {
    room: Room,
    time: Duration,
}

/// A body that was read. It takes its room until it is dropped.
#[derive(Debug)]
pub struct Held {
    bytes: Bytes,
    room: Option<Taken>,
}

impl Held {
    /// The body. What is cloned from it should not outlive it: its room is given away then.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Bodies {
    /// Reads within [`Limits::body`] and [`Limits::body_bytes`].
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            room: Room::new(limits.body_bytes),
            time: limits.body,
        }
    }

    /// The same for the bodies of one peer, which do not take everybody's room.
    #[must_use]
    pub fn of(&self, peer: IpAddr) -> Self {
        Self {
            room: self.room.of(peer),
            time: self.time,
        }
    }

    /// Reads a body of at most `limit` bytes.
    ///
    /// A body that says beforehand that it is longer is not read at all.
    ///
    /// # Errors
    /// [`BodyError`], with the status to answer with.
    pub async fn read<B>(&self, body: B, limit: usize) -> Result<Held, BodyError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
            return Err(BodyError::TooLarge { limit });
        }
        tokio::time::timeout(self.time, self.collect(body, limit))
            .await
            .unwrap_or(Err(BodyError::TooSlow { limit: self.time }))
    }

    async fn collect<B>(&self, body: B, limit: usize) -> Result<Held, BodyError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut body = std::pin::pin!(body);
        let mut held = Held {
            bytes: Bytes::new(),
            room: None,
        };
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame
                .map_err(|error| BodyError::Broken(error.into()))?
                .into_data()
            else {
                continue;
            };
            if held.bytes.len() + all.len() + data.len() > limit {
                return Err(BodyError::TooLarge { limit });
            }
            self.make_room(&mut held, data.len()).await?;
            // Most bodies are one piece, which is not copied.
            if held.bytes.is_empty() && all.is_empty() {
                held.bytes = data;
                continue;
            }
            all.extend_from_slice(&std::mem::take(&mut held.bytes));
            all.extend_from_slice(&data);
        }
        if !all.is_empty() {
            held.bytes = all.freeze();
        }
        Ok(held)
    }

    /// Room is taken as bytes come: who only says that much will come takes none.
    async fn make_room(&self, held: &mut Held, length: usize) -> Result<(), BodyError> {
        let wanted = u32::try_from(length).map_err(|_| BodyError::Busy)?;
        let more = if let Some(more) = self.room.now(wanted) {
            more
        } else {
            // A rare wait, which stands apart: each request has room for what it awaits in place.
            let more = Box::pin(tokio::time::timeout(PATIENCE, self.room.later(wanted)));
            more.await.ok().flatten().ok_or(BodyError::Busy)?
        };
        match &mut held.room {
            Some(room) => room.merge(more),
            None => held.room = Some(more),
        }
        Ok(())
    }
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

    fn bodies(body_bytes: u32) -> Bodies {
        Bodies::new(&Limits {
            body_bytes,
            ..Limits::default()
        })
    }

    async fn read_body<B: Body<Data = Bytes, Error = Infallible>>(
        body: B,
        limit: usize,
    ) -> Result<Bytes, BodyError> {
        Ok(bodies(1000).read(body, limit).await?.bytes().clone())
    }

    fn pieces(pieces: &'static [&'static str]) -> impl Body<Data = Bytes, Error = Infallible> {
        let frames = pieces
            .iter()
            .map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
        StreamBody::new(futures::stream::iter(frames.collect::<Vec<_>>()))
    }

    #[tokio::test]
    async fn a_body_is_read_whole_in_one_piece_or_many() {
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

    /// Says how long it is, and must not be read.
    struct Told(u64);

    impl Body for Told {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            panic!("nobody reads it")
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.0)
        }
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_is_refused_before_and_while_it_is_read() {
        let told = read_body(Told(10), 9).await.unwrap_err();
        assert_eq!(told.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let untold = read_body(pieces(&["01234", "56789"]), 9).await.unwrap_err();
        assert_eq!(untold.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let first = futures::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(
            b"slow",
        )))]);
        let error = read_body(StreamBody::new(first.chain(futures::stream::pending())), 9)
            .await
            .unwrap_err();
        assert_eq!(error.status(), StatusCode::REQUEST_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn all_bodies_together_take_no_more_room_than_there_is() {
        let bodies = bodies(10);
        let first = bodies.read(pieces(&["four", "two"]), 9).await.unwrap();
        let busy = bodies.read(pieces(&["six", "six"]), 9).await.unwrap_err();
        assert_eq!(busy.status(), StatusCode::SERVICE_UNAVAILABLE);
        // Who was turned away keeps nothing, and who waits a little gets what others give back.
        bodies.read(pieces(&["six"]), 9).await.unwrap();
        let later = tokio::spawn({
            let bodies = bodies.clone();
            async move { bodies.read(pieces(&["six", "six"]), 9).await }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert_eq!(later.await.unwrap().unwrap().bytes(), "sixsix");
    }

    #[tokio::test(start_paused = true)]
    async fn one_peer_takes_no_more_than_its_portion() {
        let bodies = bodies(40);
        let (greedy, modest) = (
            bodies.of([192, 0, 2, 1].into()),
            bodies.of([192, 0, 2, 2].into()),
        );
        let first = greedy.read(pieces(&["four", "two"]), 9).await.unwrap();
        // On another connection it is the same one.
        let again = bodies.of([192, 0, 2, 1].into());
        let busy = again.read(pieces(&["six", "six"]), 9).await.unwrap_err();
        assert_eq!(busy.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            modest
                .read(pieces(&["six", "six"]), 9)
                .await
                .unwrap()
                .bytes(),
            "sixsix"
        );
        drop(first);
        assert_eq!(
            again
                .read(pieces(&["six", "six"]), 9)
                .await
                .unwrap()
                .bytes(),
            "sixsix"
        );
    }
}
