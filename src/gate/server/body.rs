//! Reading request bodies, with a bound on bytes and time for each, and on the bytes of all of them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame};
use tokio::sync::OwnedSemaphorePermit;

use super::capacity::Capacity;
use super::limits::Limits;

/// A body was not read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is longer than allowed.
    #[error(
        "the body is longer than the {limit} bytes that are taken: send fewer requests at once"
    )]
    TooLarge {
        /// The most bytes that are read.
        limit: usize,
    },
    /// It did not come to its end in time.
    #[error("the body did not come within {} ms: send it at once", .limit.as_millis())]
    TooSlow {
        /// The time that it had.
        limit: Duration,
    },
    /// The bodies of other requests take all memory that there is for bodies.
    #[error("the gate is busy with other requests: ask again in a second")]
    Busy,
    /// The peer or the connection failed.
    #[error("the body ended before its end")]
    Broken(#[source] axum::Error),
}

impl BodyError {
    /// The status to answer with: 413, 408, 503 or 400 (RFC 9110, section 15.5).
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

/// Reads request bodies within [`super::Limits`]: an extension of every request.
#[derive(Clone)]
pub struct Bodies {
    capacity: Arc<Capacity>,
    time: Duration,
}

/// A body that is being read.
pub struct ReadingBody {
    bodies: Bodies,
    body: Body,
    limit: usize,
    /// Most bodies are one piece, which is not copied.
    first: Bytes,
    all: BytesMut,
    permit: Option<OwnedSemaphorePermit>,
}

/// A body that was read. It counts among the bytes of all bodies until it is dropped.
#[derive(Debug)]
pub struct WholeBody {
    bytes: Bytes,
    _permit: Option<OwnedSemaphorePermit>,
}

impl WholeBody {
    /// The body.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Bodies {
    /// Reads within these limits, apart from the bodies of any server.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self::within(Capacity::new(limits, Arc::default()), limits.body)
    }

    pub(super) fn within(capacity: Arc<Capacity>, time: Duration) -> Self {
        Self { capacity, time }
    }

    /// Reads a body of at most `limit` bytes. The request's head should be dropped before, for the
    /// body may take its time.
    ///
    /// # Errors
    /// [`BodyError`], with the status to answer with.
    pub async fn read(&self, body: Body, limit: usize) -> Result<WholeBody, BodyError> {
        self.begin(body, limit)?.finish().await
    }

    /// Begins to read a body of at most `limit` bytes.
    ///
    /// # Errors
    /// [`BodyError::TooLarge`] where the request says beforehand that the body is longer.
    pub fn begin(&self, body: Body, limit: usize) -> Result<ReadingBody, BodyError> {
        if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
            return Err(BodyError::TooLarge { limit });
        }
        let (first, all) = (Bytes::new(), BytesMut::new());
        Ok(ReadingBody {
            bodies: self.clone(),
            body,
            limit,
            first,
            all,
            permit: None,
        })
    }
}

impl ReadingBody {
    /// Reads what is here already, and tells whether that is all of it. Such a body does not count
    /// among the bytes of all: it was received within the window of its connection.
    ///
    /// # Errors
    /// [`BodyError`], with the status to answer with.
    pub fn read_available(&mut self) -> Result<bool, BodyError> {
        while let Some(frame) = self.body.frame().now_or_never() {
            let Some(frame) = frame else { return Ok(true) };
            self.add(frame)?;
        }
        Ok(false)
    }

    /// Waits for the rest.
    ///
    /// # Errors
    /// [`BodyError`], with the status to answer with.
    pub async fn finish(mut self) -> Result<WholeBody, BodyError> {
        self.reserve(self.length())?;
        let time = self.bodies.time;
        let rest = async {
            while let Some(frame) = self.body.frame().await {
                let added = self.add(frame)?;
                self.reserve(added)?;
            }
            Ok(())
        };
        let rest = tokio::time::timeout(time, rest).await;
        rest.unwrap_or(Err(BodyError::TooSlow { limit: time }))?;
        Ok(self.into_whole())
    }

    /// What was read.
    #[must_use]
    pub fn into_whole(self) -> WholeBody {
        let bytes = if self.all.is_empty() {
            self.first
        } else {
            self.all.freeze()
        };
        WholeBody {
            bytes,
            _permit: self.permit,
        }
    }

    fn length(&self) -> usize {
        self.first.len() + self.all.len()
    }

    fn add(&mut self, frame: Result<Frame<Bytes>, axum::Error>) -> Result<usize, BodyError> {
        let frame = frame.map_err(BodyError::Broken)?;
        // Trailers, of which no request here has any, are passed over.
        let Ok(data) = frame.into_data() else {
            return Ok(0);
        };
        let added = data.len();
        if self.length() + added > self.limit {
            return Err(BodyError::TooLarge { limit: self.limit });
        }
        if self.length() == 0 {
            self.first = data;
        } else {
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
            self.all.extend_from_slice(&data);
        }
        Ok(added)
    }

    /// Bytes are counted as they come: a request that only says that many will come takes nothing
    /// from others.
    fn reserve(&mut self, bytes: usize) -> Result<(), BodyError> {
        let more = self.bodies.capacity.body_bytes(bytes);
        let more = more.ok_or(BodyError::Busy)?;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
