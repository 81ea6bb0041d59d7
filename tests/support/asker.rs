//! Asks one server again and again over one connection, as a proxy or a busy client does.

use std::net::SocketAddr;

use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A kept connection.
pub(crate) struct Asker {
    address: SocketAddr,
    sender: SendRequest<Empty<Bytes>>,
}

impl Asker {
    /// Connects.
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| error.to_string())?;
        stream
            .set_nodelay(true)
            .map_err(|error| error.to_string())?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(said)?;
        tokio::spawn(connection);
        Ok(Self { address, sender })
    }

    /// The status of a request with this key, and the gate's code, where there is one.
    pub(crate) async fn ask(&mut self, path: &str, key: &str) -> Result<(u16, String), String> {
        let request = Request::get(path)
            .header("host", self.address.to_string())
            .header("authorization", format!("Bearer {key}"))
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        self.sender.ready().await.map_err(said)?;
        let response: Response<Incoming> = self.sender.send_request(request).await.map_err(said)?;
        let code = response
            .headers()
            .get("x-claviger-code")
            .and_then(|code| code.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let status = response.status().as_u16();
        response.into_body().collect().await.map_err(said)?;
        Ok((status, code))
    }

    /// The gate's code for a key at a route with these settings; the gate is there.
    pub(crate) async fn code(&mut self, settings: &str, key: &str) -> String {
        self.ask(&format!("/v1/auth/envoy/{settings}/-/"), key)
            .await
            .expect("the gate answers")
            .1
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn said(error: hyper::Error) -> String {
    format!("{error:?}")
}
