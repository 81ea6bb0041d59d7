//! The stream of a connection: what it reads and writes is noted in its [`ConnectionTimeouts`], and
//! what it writes is corked until the turn of the connection is over, then handed to the socket in
//! one piece.
//!
//! HTTP/2 sends what is ready on several streams by turns, a frame each: the heads of all responses
//! first, then their bodies. Left to itself it gives each larger frame to the socket by itself. A
//! gate that is killed between two of them leaves a proxy with the head of a response whose rest
//! never comes. A proxy cannot retry such a request, but it can retry one without any response.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::timeouts::ConnectionTimeouts;

/// Bytes that are corked before they are sent: more than the responses to all requests that one
/// HTTP/2 connection may have in flight usually take.
const CORK: usize = 128 * 1024;

/// A stream that writes when it is told to send. Clones are the same stream.
pub(super) struct CorkedIo<S>(Arc<Mutex<Corked<S>>>);

struct Corked<S> {
    stream: S,
    timeouts: ConnectionTimeouts,
    bytes: Vec<u8>,
    /// How many of them the stream has taken.
    sent: usize,
    /// The stream did not take them all: its peer does not read.
    blocked: bool,
    /// The stream may hold bytes back until it is flushed.
    flush: bool,
}

impl<S> CorkedIo<S> {
    pub(super) fn new(stream: S, timeouts: ConnectionTimeouts) -> Self {
        let (bytes, sent, blocked, flush) = (Vec::new(), 0, false, false);
        Self(Arc::new(Mutex::new(Corked {
            stream,
            timeouts,
            bytes,
            sent,
            blocked,
            flush,
        })))
    }

    /// One task works on a connection: nothing waits here.
    fn corked(&self) -> MutexGuard<'_, Corked<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Clone for CorkedIo<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: AsyncWrite + Unpin> CorkedIo<S> {
    /// Sends what was corked. To be called whenever the connection had its turn: it takes its bytes
    /// for sent.
    ///
    /// # Errors
    /// The stream's own: the connection is of no use any more.
    pub(super) fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.corked().poll_send(context)
    }
}

impl<S: AsyncWrite + Unpin> Corked<S> {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let before = self.sent;
        let written = self.poll_write_all(context);
        self.timeouts
            .wrote(self.sent != before, written.is_pending());
        written
    }

    fn poll_write_all(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            self.blocked = true;
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sent += written,
            }
            self.flush = true;
        }
        // Idle connections, of which there are many, keep no buffer.
        (self.bytes, self.sent, self.blocked) = (Vec::new(), 0, false);
        if self.flush {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.flush = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CorkedIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut corked = self.corked();
        let before = buffer.filled().len();
        let read = Pin::new(&mut corked.stream).poll_read(context, buffer);
        corked
            .timeouts
            .read(buffer.filled().get(before..).unwrap_or_default());
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CorkedIo<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut corked = self.corked();
        // Of a peer that does not read, nothing more is corked.
        if corked.blocked || corked.bytes.len() >= CORK {
            ready!(corked.poll_send(context))?;
        }
        let mut taken = 0;
        for slice in slices {
            let piece = slice
                .get(..slice.len().min(CORK - taken))
                .unwrap_or_default();
            corked.bytes.extend_from_slice(piece);
            taken += piece.len();
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What was written is sent when the turn is over.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut corked = self.corked();
        ready!(corked.poll_send(context))?;
        Pin::new(&mut corked.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
