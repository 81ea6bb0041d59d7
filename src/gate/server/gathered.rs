//! What a connection writes, gathered until its turn is over, and then handed to the socket in one piece.
//!
//! HTTP/2 sends what is ready on several streams by turns, a frame each: the heads of all answers first, then their bodies. Left to
//! itself it gives each larger frame to the socket by itself. Were the process killed between two of them, a proxy would hold the
//! head of an answer whose rest never comes, and such an answer cannot be asked for again elsewhere: its client would see an error,
//! where nothing at all would have cost it nothing.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Once so many bytes are gathered, they are sent before there is room for more: more than all answers that one connection can be
/// given at once usually take.
const MOST: usize = 256 * 1024;

/// A stream that writes when it is told to send. Clones are the same stream.
pub(super) struct Gathered<S>(Arc<Mutex<Gathering<S>>>);

struct Gathering<S> {
    stream: S,
    bytes: Vec<u8>,
    /// How many of them were taken by the stream.
    sent: usize,
    /// The stream did not take them all: its peer does not read.
    blocked: bool,
    /// The stream holds something back that a flush brings on its way.
    flush: bool,
}

impl<S> Gathered<S> {
    pub(super) fn new(stream: S) -> Self {
        Self(Arc::new(Mutex::new(Gathering {
            stream,
            bytes: Vec::new(),
            sent: 0,
            blocked: false,
            flush: false,
        })))
    }

    /// One task works on a connection: nobody waits here.
    fn gathering(&self) -> MutexGuard<'_, Gathering<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Clone for Gathered<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    /// Sends what was gathered. To be called whenever the connection had its turn: it believes its bytes to be on their way.
    ///
    /// # Errors
    /// The stream's own: the connection is of no use any more.
    pub(super) fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.gathering().poll_send(context)
    }
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.stream).poll_write(context, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.sent += written;
                    self.flush = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.blocked = true;
                    return Poll::Pending;
                }
            }
        }
        // Idle connections, of which there are many, keep nothing.
        (self.bytes, self.sent, self.blocked) = (Vec::new(), 0, false);
        if self.flush {
            match Pin::new(&mut self.stream).poll_flush(context) {
                Poll::Ready(Ok(())) => self.flush = false,
                other => return other,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Of who does not read, nothing more is gathered.
        if self.bytes.len() < MOST && !self.blocked {
            Poll::Ready(Ok(()))
        } else {
            self.poll_send(context)
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.gathering().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    /// Whatever was written goes out when the turn is over.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.gathering();
        match gathering.poll_send(context) {
            Poll::Ready(Ok(())) => Pin::new(&mut gathering.stream).poll_shutdown(context),
            other => other,
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut gathering = self.gathering();
        match gathering.poll_room(context) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
        let mut taken = 0;
        for slice in slices {
            // Beyond the bound by one write at most.
            let piece = slice
                .get(..slice.len().min(MOST - taken))
                .unwrap_or_default();
            gathering.bytes.extend_from_slice(piece);
            taken += piece.len();
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
