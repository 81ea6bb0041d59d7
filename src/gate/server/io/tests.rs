//! What reaches the socket, piece by piece.

use std::collections::BTreeMap;
use std::future::poll_fn;

use axum::Router;
use axum::routing::get;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::gate::server::connection::Server;
use crate::gate::server::{Counters, Limits, Peer};

fn timeouts() -> ConnectionTimeouts {
    ConnectionTimeouts::new(Limits::default())
}

/// The pieces that a stream was given.
#[derive(Clone, Default)]
struct Pieces(Arc<Mutex<Vec<Vec<u8>>>>);

/// A stream that notes them, and takes at most `most` bytes of each.
struct Noting {
    stream: DuplexStream,
    pieces: Pieces,
    most: usize,
}

impl AsyncRead for Noting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Noting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let bytes = &bytes[..bytes.len().min(self.most)];
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.pieces.0.lock().unwrap().push(bytes[..count].to_vec());
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// An answer as gRPC has it: a head, a message of a kilobyte, and trailers.
async fn answer() -> axum::body::Body {
    let trailers = HeaderMap::from_iter([(http::header::WARNING, HeaderValue::from_static("0"))]);
    let frames = [
        Frame::data(Bytes::from(vec![b'm'; 1024])),
        Frame::trailers(trailers),
    ];
    axum::body::Body::new(StreamBody::new(futures::stream::iter(
        frames.map(Ok::<_, io::Error>),
    )))
}

/// By stream: whether its head is in a piece of HTTP/2, and whether its end is (RFC 9113, 4.1).
fn streams(mut piece: &[u8]) -> BTreeMap<u32, (bool, bool)> {
    let mut seen = BTreeMap::new();
    while let Some((head, rest)) = piece.split_first_chunk::<9>() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, ends) = (head[3], head[4] & 1 == 1);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        if matches!(kind, 0 | 1) {
            let entry: &mut (bool, bool) = seen.entry(stream).or_default();
            entry.0 |= kind == 1;
            entry.1 |= ends;
        }
        piece = rest.get(length..).expect("whole frames");
    }
    seen
}

/// A gate is killed at any instant: what a proxy has of an answer is all of it or nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_leaves_in_parts_however_many_are_given_at_once() {
    const ANSWERS: usize = 100;
    let (ours, theirs) = duplex(1 << 20);
    let pieces = Pieces::default();
    let noting = Noting {
        stream: theirs,
        pieces: pieces.clone(),
        most: usize::MAX,
    };
    let limits = Limits::default();
    tokio::spawn(async move {
        let server = Server::new(
            Router::new().route("/", get(answer)),
            limits,
            Arc::new(Counters::default()),
            CancellationToken::new(),
        );
        let peer = Peer {
            address: ([127, 0, 0, 1], 1).into(),
            certified: false,
        };
        let (timeouts, retire) = (timeouts(), CancellationToken::new());
        server.serve(noting, peer, timeouts, retire).await;
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .initial_connection_window_size(1 << 20)
        .initial_max_send_streams(ANSWERS);
    let (asker, connection) = builder
        .handshake::<_, Empty<Bytes>>(TokioIo::new(ours))
        .await
        .unwrap();
    tokio::spawn(connection);
    let asking = (0..ANSWERS).map(|_| {
        let mut asker = asker.clone();
        async move {
            asker.ready().await.unwrap();
            let request = http::Request::get("http://gate/")
                .body(Empty::new())
                .unwrap();
            let whole = asker
                .send_request(request)
                .await
                .unwrap()
                .into_body()
                .collect()
                .await
                .unwrap();
            assert!(whole.trailers().is_some());
            assert_eq!(whole.to_bytes().len(), 1024);
        }
    });
    futures::future::join_all(asking).await;
    let pieces = pieces.0.lock().unwrap();
    let seen: Vec<_> = pieces
        .iter()
        .map(|piece| streams(piece))
        .filter(|seen| !seen.is_empty())
        .collect();
    assert_eq!(
        seen.iter().map(BTreeMap::len).sum::<usize>(),
        ANSWERS,
        "each is in one piece"
    );
    assert!(
        seen.iter()
            .flat_map(BTreeMap::values)
            .all(|whole| *whole == (true, true)),
        "{seen:?}"
    );
    assert!(seen.len() < ANSWERS, "and many share one");
}

#[tokio::test]
async fn nothing_is_sent_before_its_turn_and_everything_then() {
    let (mut ours, stream) = duplex(1 << 20);
    let pieces = Pieces::default();
    let noting = Noting {
        stream,
        pieces: pieces.clone(),
        most: 5,
    };
    let mut corked = CorkedIo::new(noting, timeouts());
    corked.write_all(b"head").await.unwrap();
    corked.flush().await.unwrap();
    let slices = [io::IoSlice::new(b" bo"), io::IoSlice::new(b"dy")];
    assert_eq!(
        poll_fn(|context| Pin::new(&mut corked).poll_write_vectored(context, &slices))
            .await
            .unwrap(),
        5
    );
    assert!(pieces.0.lock().unwrap().is_empty(), "it waits for its turn");
    poll_fn(|context| corked.poll_send(context)).await.unwrap();
    assert_eq!(
        *pieces.0.lock().unwrap(),
        [b"head ".to_vec(), b"body".to_vec()],
        "as much as the stream takes at once"
    );
    assert_eq!(corked.corked().bytes.capacity(), 0, "and nothing is kept");
    corked.write_all(b"!").await.unwrap();
    corked.shutdown().await.unwrap();
    let mut heard = String::new();
    ours.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "head body!");
}

/// Whoever takes nothing is not corked for without end.
#[tokio::test]
async fn a_peer_that_does_not_read_is_waited_for() {
    let (mut ours, stream) = duplex(16);
    let corked = CorkedIo::new(stream, timeouts());
    let mut writing = corked.clone();
    let much = vec![b'm'; 4 * CORK];
    let written = tokio::spawn(async move {
        writing.write_all(&much).await.unwrap();
        writing.shutdown().await
    });
    let mut piece = vec![0; 16];
    ours.read_exact(&mut piece).await.unwrap();
    assert!(corked.corked().bytes.len() <= 2 * CORK);
    let mut rest = Vec::new();
    ours.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest.len(), 4 * CORK - 16);
    written.await.unwrap().unwrap();
}

/// Who asks and asks and never reads costs one turn's answers.
#[tokio::test]
async fn nothing_more_is_corked_for_a_peer_that_did_not_take_the_last() {
    let (mut ours, stream) = duplex(16);
    let mut corked = CorkedIo::new(stream, timeouts());
    corked.write_all(&[b'm'; 64]).await.unwrap();
    let mut context = Context::from_waker(futures::task::noop_waker_ref());
    assert!(corked.poll_send(&mut context).is_pending());
    assert!(
        Pin::new(&mut corked)
            .poll_write(&mut context, b"more")
            .is_pending()
    );
    assert_eq!(corked.corked().bytes.len(), 64);
    let (mut writing, mut heard) = (corked.clone(), vec![0; 68]);
    let written = tokio::spawn(async move {
        writing.write_all(b"more").await?;
        poll_fn(|context| writing.poll_send(context)).await
    });
    ours.read_exact(&mut heard).await.unwrap();
    written.await.unwrap().unwrap();
    assert!(heard.ends_with(b"mmmore"));
}

#[tokio::test]
async fn a_stream_that_takes_nothing_any_more_ends_the_connection() {
    let (ours, stream) = duplex(16);
    drop(ours);
    let mut corked = CorkedIo::new(stream, timeouts());
    corked.write_all(b"gone").await.unwrap();
    let error = poll_fn(|context| corked.poll_send(context))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}
