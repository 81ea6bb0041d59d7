//! The way to the API server, and the bodies that come back from it.

use futures::stream;
use http::header::{self, HeaderMap, HeaderName};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{self, Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use std::sync::Arc;
use tokio::sync::mpsc;

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(super) type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

/// Headers that concern one connection, not the message (RFC 9110, section 7.6.1), and those
/// that the proxy decides itself.
const NOT_FORWARDED: [HeaderName; 8] = [
    header::HOST,
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::ACCEPT_ENCODING, // recorded bodies and watch lines are to be readable
];

/// A client for one API server.
#[derive(Debug)]
pub(super) struct Upstream {
    base: Uri,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Upstream {
    pub(super) fn new(url: &str, ca_pem: Option<&str>) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.unwrap_or_default().as_bytes()) {
            let certificate = certificate.expect("a PEM certificate");
            roots.add(certificate).expect("a CA certificate");
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs has the default protocol versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        Self {
            base: url.parse().expect("the upstream's URL"),
            client: Client::builder(TokioExecutor::new()).build(connector),
        }
    }

    /// Passes a request on.
    pub(super) async fn send(
        &self,
        mut parts: http::request::Parts,
        body: Bytes,
    ) -> Result<Response<Incoming>, legacy::Error> {
        let mut uri = self.base.clone().into_parts();
        uri.path_and_query = parts.uri.path_and_query().cloned();
        parts.uri = Uri::from_parts(uri).expect("the upstream's URL with the request's path");
        parts.extensions.clear();
        scrub(&mut parts.headers);
        let request = Request::from_parts(parts, Full::new(body));
        self.client.request(request).await
    }
}

/// Removes what must not cross a proxy.
pub(super) fn scrub(headers: &mut HeaderMap) {
    for name in &NOT_FORWARDED {
        headers.remove(name);
    }
}

pub(super) fn full(body: impl Into<Bytes>) -> UnsyncBoxBody<Bytes, BoxError> {
    Full::new(body.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body that goes out chunk by chunk as it is sent into the channel.
pub(super) fn channel(
    mut receiver: mpsc::UnboundedReceiver<Result<Bytes, BoxError>>,
) -> UnsyncBoxBody<Bytes, BoxError> {
    let chunks = stream::poll_fn(move |context| receiver.poll_recv(context));
    let frames = futures::StreamExt::map(chunks, |chunk| chunk.map(Frame::data));
    StreamBody::new(frames).boxed_unsync()
}
