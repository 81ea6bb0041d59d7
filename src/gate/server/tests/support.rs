//! A server, clients, and certificates.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::routing::{get, post};
use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::super::{Bodies, Certificates, Counters, Limits, Listener, Peer, TlsFiles, serve};

/// Long enough for a busy machine. Nothing asserts how long anything took.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for what must come.
pub(super) async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it comes")
}

/// Waits until something holds.
pub(super) async fn until(holds: impl Fn() -> bool) {
    let look = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(look).await;
}

/// A server that answers with the peer at `/`, echoes at `/echo`, and at `/wait` only when it is let to.
pub(super) struct TestServer {
    pub(super) address: SocketAddr,
    pub(super) counters: Arc<Counters>,
    pub(super) token: CancellationToken,
    pub(super) waiting: Arc<Semaphore>,
    pub(super) let_go: Arc<Semaphore>,
    pub(super) served: JoinHandle<()>,
}

impl TestServer {
    pub(super) async fn plain(limits: Limits) -> Self {
        Self::open(
            Listener::plain(([127, 0, 0, 1], 0).into()).await.unwrap(),
            limits,
        )
    }

    pub(super) async fn tls(certificates: Arc<Certificates>, limits: Limits) -> Self {
        Self::open(
            Listener::tls(([127, 0, 0, 1], 0).into(), certificates)
                .await
                .unwrap(),
            limits,
        )
    }

    fn open(listener: Listener, limits: Limits) -> Self {
        let address = listener.address().unwrap();
        let (counters, token) = (Arc::new(Counters::default()), CancellationToken::new());
        let (waiting, let_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (arrived, gate) = (waiting.clone(), let_go.clone());
        let wait = async move || {
            arrived.add_permits(1);
            gate.acquire().await.unwrap().forget();
            "done"
        };
        let router = Router::new()
            .route(
                "/",
                get(async |Extension(peer): Extension<Peer>| {
                    format!("{} {}", peer.address.ip(), peer.certified)
                }),
            )
            .route("/echo", post(echo))
            .route("/ignore", post(async || "ignored"))
            .route("/much", get(async || vec![b'm'; 16 << 20]))
            .route("/wait", get(wait));
        let served = tokio::spawn(serve(
            vec![listener],
            router,
            limits,
            counters.clone(),
            token.clone(),
        ));
        Self {
            address,
            counters,
            token,
            waiting,
            let_go,
            served,
        }
    }

    pub(super) async fn connect(&self) -> TcpStream {
        soon(TcpStream::connect(self.address))
            .await
            .expect("a connection")
    }

    /// A connection whose every byte the test writes itself.
    pub(super) async fn raw(&self) -> Raw {
        Raw(self.connect().await)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.served.abort();
    }
}

async fn echo(
    Extension(bodies): Extension<Bodies>,
    body: Body,
) -> Result<Bytes, (StatusCode, String)> {
    bodies
        .read(body, 16)
        .await
        .map(|whole| whole.bytes().clone())
        .map_err(|error| (error.status(), error.to_string()))
}

pub(super) struct Raw(pub(super) TcpStream);

impl Raw {
    /// Says something, to whoever still listens.
    pub(super) async fn say(&mut self, text: &str) {
        let _ = self.0.write_all(text.as_bytes()).await;
    }

    /// Reads one answer whose body ends with `end`.
    pub(super) async fn hear(&mut self, end: &str) -> String {
        let mut heard = String::new();
        while !heard.ends_with(end) {
            let mut piece = [0; 4096];
            let length = soon(self.0.read(&mut piece)).await.expect("an answer");
            assert!(length > 0, "closed after {heard:?}");
            heard.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
        heard
    }

    /// Waits until the server closes the connection, and returns what it said before.
    pub(super) async fn closed(&mut self) -> String {
        let mut heard = Vec::new();
        // A reset is an end, too.
        let _ = soon(self.0.read_to_end(&mut heard)).await;
        String::from_utf8_lossy(&heard).into_owned()
    }
}

/// What came back: version, status, text.
pub(super) type Answer = (Version, StatusCode, String);

async fn told(response: Response<Incoming>) -> Answer {
    let (version, status) = (response.version(), response.status());
    let body = soon(response.into_body().collect())
        .await
        .expect("a body")
        .to_bytes();
    (version, status, String::from_utf8_lossy(&body).into_owned())
}

/// A connection over HTTP/1.1.
pub(super) struct H1(http1::SendRequest<Full<Bytes>>);

impl H1 {
    pub(super) async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = soon(http1::handshake(TokioIo::new(stream)))
            .await
            .expect("a client");
        tokio::spawn(connection);
        Self(sender)
    }

    pub(super) async fn get(&mut self, path: &str) -> Result<Answer, hyper::Error> {
        self.0.ready().await?;
        let request = Request::get(path)
            .header("host", "gate")
            .body(Full::default())
            .unwrap();
        Ok(told(soon(self.0.send_request(request)).await?).await)
    }
}

/// A connection over HTTP/2.
#[derive(Clone)]
pub(super) struct H2(pub(super) http2::SendRequest<Empty<Bytes>>);

impl H2 {
    pub(super) async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = soon(handshake).await.expect("a client");
        tokio::spawn(connection);
        Self(sender)
    }

    pub(super) async fn get(&mut self, path: &str) -> Result<Answer, hyper::Error> {
        self.send(Request::get(format!("http://gate{path}"))).await
    }

    pub(super) async fn send(
        &mut self,
        request: http::request::Builder,
    ) -> Result<Answer, hyper::Error> {
        self.0.ready().await?;
        Ok(told(soon(self.0.send_request(request.body(Empty::new()).unwrap())).await?).await)
    }
}

/// An authority, and what it signed.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
        }
    }

    pub(super) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for this name, and its key, as PEM.
    pub(super) fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        (
            params.signed_by(&key, &self.issuer).unwrap().pem(),
            key.serialize_pem(),
        )
    }

    /// A TLS connection by somebody who believes this authority, and may have a certificate of their own.
    pub(super) async fn connect(
        &self,
        server: &TestServer,
        alpn: &str,
        own: Option<(String, String)>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        connect(&self.client(alpn, own), server).await
    }

    /// Such a somebody, who remembers earlier sessions.
    pub(super) fn client(&self, alpn: &str, own: Option<(String, String)>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.pem().as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            Some((certificate, key)) => {
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
                builder
                    .with_client_auth_cert(
                        vec![certificate],
                        PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                    )
                    .unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        Arc::new(config)
    }
}

pub(super) async fn connect(
    client: &Arc<ClientConfig>,
    server: &TestServer,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("gate").unwrap();
    soon(TlsConnector::from(client.clone()).connect(name, server.connect().await)).await
}

/// Writes certificate, key and client authority of a server.
pub(super) fn write(
    dir: &Path,
    (certificate, key): (&str, &str),
    client_ca: Option<&str>,
) -> TlsFiles {
    std::fs::write(dir.join("tls.crt"), certificate).unwrap();
    std::fs::write(dir.join("tls.key"), key).unwrap();
    let client_ca = client_ca.map(|pem| {
        std::fs::write(dir.join("ca.crt"), pem).unwrap();
        dir.join("ca.crt")
    });
    TlsFiles {
        certificate: dir.join("tls.crt"),
        key: dir.join("tls.key"),
        client_ca,
    }
}
