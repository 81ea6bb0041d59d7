//! Certificates, the files that hold them, and clients that believe them.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client::{Answer, Question};
use super::cluster::runtime;
use super::wait::LIMIT;

/// The name that a gate's certificate is for.
const NAME: &str = "gate.example";

/// A certificate and its private key, as PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Pair {
    /// The certificate as it travels.
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("a certificate")
    }
}

/// Signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate of the gate, or of a client.
    pub(crate) fn sign(&self) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([NAME.to_owned()]).expect("a name");
        let signed = params.signed_by(&key, &self.0).expect("a certificate");
        Pair {
            certificate: signed.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A client that believes this authority, and may have a certificate of its own.
    pub(crate) fn client(&self, own: Option<&Pair>) -> TlsClient {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.pem().as_bytes()).expect("a certificate"))
            .expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match own {
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
                builder
                    .with_client_auth_cert(vec![pair.der()], key)
                    .expect("a pair")
            }
            None => builder.with_no_client_auth(),
        };
        TlsClient(config)
    }
}

/// Makes a TLS connection of its own for each question.
pub(crate) struct TlsClient(ClientConfig);

impl TlsClient {
    /// Connects. `protocol` is what is asked for by ALPN: `h2` or `http/1.1`.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        protocol: &str,
    ) -> Result<TlsStream<TcpStream>, String> {
        let mut config = self.0.clone();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| error.to_string())?;
        let name = ServerName::try_from(NAME).expect("a name");
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|error| error.to_string())
    }

    /// Asks, and tells what was answered and which certificate was shown.
    pub(crate) fn ask(
        &self,
        address: SocketAddr,
        protocol: &str,
        question: Question,
    ) -> Result<(Answer, CertificateDer<'static>), String> {
        let asked = async {
            let stream = self.connect(address, protocol).await?;
            let connection = stream.get_ref().1;
            assert_eq!(
                connection.alpn_protocol(),
                Some(protocol.as_bytes()),
                "what was asked for is spoken"
            );
            let shown = connection.peer_certificates().expect("a certificate")[0]
                .clone()
                .into_owned();
            Ok((question.over(stream, NAME, protocol == "h2").await?, shown))
        };
        runtime()
            .block_on(async { tokio::time::timeout(LIMIT, asked).await })
            .unwrap_or_else(|_| Err("no answer".to_owned()))
    }
}

/// A folder of files as the kubelet mounts a Secret: what it shows are links into a folder that is exchanged as a whole.
pub(crate) struct Mounted {
    dir: TempDir,
    number: AtomicU32,
}

impl Mounted {
    /// Shows these files.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let mounted = Self {
            dir: tempfile::tempdir().expect("a folder"),
            number: AtomicU32::new(0),
        };
        mounted.exchange(files);
        for (name, _) in files {
            symlink(PathBuf::from("..data").join(name), mounted.file(name)).expect("a link");
        }
        mounted
    }

    /// Shows these files instead, all at once.
    pub(crate) fn exchange(&self, files: &[(&str, &str)]) {
        let name = format!("..{}", self.number.fetch_add(1, Ordering::Relaxed));
        let folder = self.dir.path().join(&name);
        fs::create_dir(&folder).expect("a folder");
        for (file, text) in files {
            fs::write(folder.join(file), text).expect("a file");
        }
        let (new, data) = (
            self.dir.path().join("..data_tmp"),
            self.dir.path().join("..data"),
        );
        let old = fs::read_link(&data).ok();
        symlink(&name, &new).expect("a link");
        fs::rename(&new, &data).expect("the swap");
        if let Some(old) = old {
            fs::remove_dir_all(self.dir.path().join(old)).expect("the old folder goes");
        }
    }

    /// Where a file is.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `--flag=FILE`.
    pub(crate) fn flag(&self, flag: &str, name: &str) -> String {
        format!("{flag}={}", self.file(name).display())
    }
}
