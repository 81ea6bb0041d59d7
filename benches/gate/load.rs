//! The load generator: a closed loop with a fixed number of requests, which are written beforehand. Runs on one thread.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

/// Connections of HTTP/1.1, each with one request at a time.
const CONNECTIONS: usize = 32;
/// Connections of HTTP/2, as a few proxies hold them.
const H2_CONNECTIONS: usize = 2;
/// Requests at once on each of them.
const STREAMS: usize = 16;

/// Kept connections to one address.
pub(crate) enum Load {
    Http1(Vec<TcpStream>),
    Grpc(Vec<SendRequest<Full<Bytes>>>, http::Uri),
}

impl Load {
    /// Connects.
    pub(crate) async fn connect(address: SocketAddr, grpc: bool) -> Self {
        if !grpc {
            let mut streams = Vec::new();
            for _ in 0..CONNECTIONS {
                let stream = TcpStream::connect(address).await.expect("a connection");
                stream.set_nodelay(true).expect("no delay");
                streams.push(stream);
            }
            return Self::Http1(streams);
        }
        let mut senders = Vec::new();
        for _ in 0..H2_CONNECTIONS {
            let stream = TcpStream::connect(address).await.expect("a connection");
            stream.set_nodelay(true).expect("no delay");
            let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("a handshake");
            tokio::spawn(connection);
            senders.push(sender);
        }
        let uri = format!("http://{address}/envoy.service.auth.v3.Authorization/Check");
        Self::Grpc(senders, uri.parse().expect("an address"))
    }

    /// Asks all of these, and sees to it that each answer has this status.
    pub(crate) async fn ask(&mut self, questions: Vec<Bytes>, status: u16) {
        let tasks = LocalSet::new();
        match self {
            Self::Http1(streams) => {
                let shares = shares(questions, streams.len());
                let running: Vec<_> = std::mem::take(streams)
                    .into_iter()
                    .zip(shares)
                    .map(|(stream, share)| tasks.spawn_local(http1(stream, share, status)))
                    .collect();
                tasks.await;
                for task in running {
                    streams.push(task.await.expect("no panic"));
                }
            }
            Self::Grpc(senders, uri) => {
                let shares = shares(questions, senders.len() * STREAMS);
                let senders = (0..senders.len() * STREAMS)
                    .map(|number| senders[number % senders.len()].clone());
                let running: Vec<_> = senders
                    .zip(shares)
                    .map(|(sender, share)| tasks.spawn_local(grpc(sender, uri.clone(), share)))
                    .collect();
                tasks.await;
                for task in running {
                    task.await.expect("no panic");
                }
            }
        }
    }
}

fn shares(questions: Vec<Bytes>, count: usize) -> Vec<Vec<Bytes>> {
    let mut shares = vec![Vec::new(); count];
    for (number, question) in questions.into_iter().enumerate() {
        shares[number % count].push(question);
    }
    shares
}

async fn http1(mut stream: TcpStream, questions: Vec<Bytes>, status: u16) -> TcpStream {
    let expected = format!("HTTP/1.1 {status} ");
    let mut buffer = vec![0; 16 * 1024];
    for question in questions {
        stream.write_all(&question).await.expect("a server");
        let mut filled = 0;
        loop {
            let read = stream.read(&mut buffer[filled..]).await.expect("an answer");
            assert!(read > 0, "the server hung up");
            filled += read;
            if is_whole(&buffer[..filled]) {
                break;
            }
        }
        assert!(
            buffer.starts_with(expected.as_bytes()),
            "{}",
            String::from_utf8_lossy(&buffer[..filled])
        );
    }
    stream
}

fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return false;
    };
    let text = std::str::from_utf8(&answer[..head]).expect("text");
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().expect("a number"));
    answer.len() >= head + 4 + length
}

async fn grpc(mut sender: SendRequest<Full<Bytes>>, uri: http::Uri, questions: Vec<Bytes>) {
    for question in questions {
        let request = http::Request::post(uri.clone())
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(question))
            .expect("a request");
        sender.ready().await.expect("a connection");
        let response = sender.send_request(request).await.expect("an answer");
        let body = response.into_body().collect().await.expect("a body");
        let trailers = body.trailers().expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
    }
}
