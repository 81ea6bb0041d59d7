//! A plain HTTP client, as users of an API have one.

use http::{HeaderMap, HeaderName, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::cluster::runtime;
use super::upstream::{WEBSOCKET_ACCEPT, WEBSOCKET_KEY};
use super::wait::LIMIT;

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// The one value of a header, if it is there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().expect("text");
        assert!(values.next().is_none(), "more than one {name}: {self:?}");
        Some(value)
    }

    /// The body, which is JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("no JSON: {error}: {self:?}"))
    }
}

/// How to ask; a connection of its own for each question.
#[derive(Debug)]
pub(crate) struct Question {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Question {
    /// A GET of this path, with its query, in exactly this spelling.
    pub(crate) fn get(path: &str) -> Self {
        Self {
            method: "GET",
            path: path.to_owned(),
            headers: Vec::new(),
            body: String::new(),
        }
    }

    /// A POST of JSON, or of what only calls itself so.
    pub(crate) fn post(path: &str, body: &(impl ToString + ?Sized)) -> Self {
        let question = Self {
            method: "POST",
            path: path.to_owned(),
            headers: Vec::new(),
            body: body.to_string(),
        };
        question.header("content-type", "application/json")
    }

    /// Another method, with a body.
    pub(crate) fn method(mut self, method: &'static str, body: &str) -> Self {
        (self.method, self.body) = (method, body.to_owned());
        self
    }

    /// One more header, even if there is one of that name.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A key where most clients put it.
    pub(crate) fn bearer(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    /// Asks over HTTP/1.1. An error says why nobody answered.
    pub(crate) fn ask(self, address: SocketAddr) -> Result<Answer, String> {
        self.within_limit(address, false)
    }

    /// Asks over HTTP/2, without TLS.
    pub(crate) fn ask_h2(self, address: SocketAddr) -> Result<Answer, String> {
        self.within_limit(address, true)
    }

    /// Opens a WebSocket: what it speaks is the caller's. The answer is another one where the server does not switch.
    pub(crate) fn open_websocket(self, address: SocketAddr) -> Result<WebSocket, Box<Answer>> {
        let question = self
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", WEBSOCKET_KEY);
        let opened = async { tokio::time::timeout(LIMIT, question.upgraded(address)).await };
        runtime()
            .block_on(opened)
            .expect("an answer in time")
            .expect("an answer")
    }

    async fn upgraded(self, address: SocketAddr) -> Result<Result<WebSocket, Box<Answer>>, String> {
        let said = |error: hyper::Error| format!("{error:?}");
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| error.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(said)?;
        tokio::spawn(connection.with_upgrades());
        let response = sender
            .send_request(self.request("", false))
            .await
            .map_err(said)?;
        if response.status() != 101 {
            return Ok(Err(Box::new(whole(response).await?)));
        }
        let accept = response.headers().get("sec-websocket-accept");
        if accept.is_none_or(|accept| accept != WEBSOCKET_ACCEPT) {
            return Err(format!("no WebSocket: {:?}", response.headers()));
        }
        let stream = hyper::upgrade::on(response).await.map_err(said)?;
        Ok(Ok(WebSocket(TokioIo::new(stream))))
    }

    fn within_limit(self, address: SocketAddr, h2: bool) -> Result<Answer, String> {
        let answer = async { tokio::time::timeout(LIMIT, self.asked(address, h2)).await };
        runtime()
            .block_on(answer)
            .unwrap_or_else(|_| Err(format!("no answer within {LIMIT:?}")))
    }

    async fn asked(self, address: SocketAddr, h2: bool) -> Result<Answer, String> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| error.to_string())?;
        self.over(stream, &address.to_string(), h2).await
    }

    /// Asks over a connection that is there.
    pub(crate) async fn over<S>(
        self,
        stream: S,
        authority: &str,
        h2: bool,
    ) -> Result<Answer, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let said = |error: hyper::Error| format!("{error:?}");
        let io = TokioIo::new(stream);
        let request = self.request(authority, h2);
        let response = if h2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                    .await
                    .map_err(said)?;
            tokio::spawn(connection);
            sender.send_request(request).await.map_err(said)?
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
                .await
                .map_err(said)?;
            tokio::spawn(connection);
            sender.send_request(request).await.map_err(said)?
        };
        whole(response).await
    }

    fn request(self, authority: &str, h2: bool) -> Request<Full<Bytes>> {
        // HTTP/2 wants the whole URI, HTTP/1.1 the path alone and a Host.
        let uri = if h2 {
            format!("http://{authority}{}", self.path)
        } else {
            self.path.clone()
        };
        let mut request = Request::builder()
            .method(self.method)
            .uri(uri.parse::<Uri>().expect("a path"));
        if !h2 {
            request = request.header("host", "api.example");
        }
        for (name, value) in &self.headers {
            request = request.header(name.parse::<HeaderName>().expect("a header's name"), value);
        }
        request
            .body(Full::new(Bytes::from(self.body)))
            .expect("a request")
    }
}

async fn whole(response: Response<Incoming>) -> Result<Answer, String> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| format!("{error:?}"))?;
    let body = String::from_utf8(body.to_bytes().to_vec()).map_err(|error| error.to_string())?;
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
    })
}

/// An open WebSocket.
#[derive(Debug)]
pub(crate) struct WebSocket(TokioIo<Upgraded>);

impl WebSocket {
    /// Sends a text, and returns what comes back of the same length.
    pub(crate) fn echo(&mut self, text: &str) -> String {
        let mut back = vec![0; text.len()];
        let exchange = async {
            self.0.write_all(text.as_bytes()).await?;
            self.0.read_exact(&mut back).await
        };
        runtime()
            .block_on(async { tokio::time::timeout(LIMIT, exchange).await })
            .expect("an echo in time")
            .expect("an echo");
        String::from_utf8(back).expect("text")
    }

    /// Waits until the other side ends it.
    pub(crate) fn wait_closed(mut self) {
        let end = async { tokio::time::timeout(LIMIT, self.0.read(&mut [0; 1])).await };
        let read = runtime().block_on(end).expect("an end in time");
        assert!(matches!(read, Ok(0) | Err(_)), "nothing more is said");
    }
}
