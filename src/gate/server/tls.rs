//! Certificates that are read again while the server runs.
//!
//! Mounted Secrets change by a swap of symbolic links, which file notifications miss: the files are read every few seconds and
//! compared by their hash. The whole configuration is built anew, sessions included. Where certificates of clients are asked for,
//! there are no sessions to resume at all: every connection shows its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

/// The pause between two looks at the files, unless another is chosen.
pub const RELOAD: Duration = Duration::from_secs(15);

/// The files that a TLS listener works with, all of them PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate and those between it and its authority (`--tls-cert`).
    pub certificate: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1 (`--tls-key`).
    pub key: PathBuf,
    /// The authorities whose client certificates are believed (`--tls-client-ca`). `None`: clients are not asked for any.
    pub client_ca: Option<PathBuf>,
}

/// The files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{flag} {}: {source}", .file.display())]
    Read {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{flag} {}: {what}", .file.display())]
    Content {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong with it. Never a part of it.
        what: String,
    },
    /// Certificate and key do not belong together, or cannot be used.
    #[error("--tls-cert and --tls-key cannot be used together: {0}")]
    Pair(#[source] rustls::Error),
    /// The TLS library does not do what is asked of it.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[source] rustls::Error),
}

/// What handshakes are answered with now.
pub struct Certificates {
    files: TlsFiles,
    pub(super) loaded: [u8; 32],
    current: ArcSwap<Current>,
}

/// What was last read and could be used.
pub(super) struct Current {
    pub(super) config: Arc<ServerConfig>,
    /// Cancelled when clients are measured by other authorities.
    pub(super) authorities: CancellationToken,
    client_ca: Option<Vec<u8>>,
}

impl Certificates {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// [`TlsError`] names the flag and says what is wrong.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let contents = Contents::read(&files)?;
        let config = contents.configuration(&files)?;
        let loaded = contents.digest();
        let current = Current {
            config: Arc::new(config),
            authorities: CancellationToken::new(),
            client_ca: contents.client_ca,
        };
        Ok(Self {
            loaded,
            files,
            current: ArcSwap::from_pointee(current),
        })
    }

    /// What the next handshake goes by.
    pub(super) fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    /// Reads the files again every `pause` until `token` is cancelled. What cannot be used is logged, and the last that could stays.
    pub async fn keep_current(self: Arc<Self>, pause: Duration, token: CancellationToken) {
        let mut seen = Some(self.loaded);
        let paused = || token.run_until_cancelled(tokio::time::sleep(pause));
        while paused().await.is_some() {
            let same = self.clone();
            let Ok(now) = tokio::task::spawn_blocking(move || same.look(seen)).await else {
                return;
            };
            seen = now;
        }
    }

    /// Looks at the files, and takes them when they are not what was seen last and can be used.
    pub(super) fn look(&self, last: Seen) -> Seen {
        let read = Contents::read(&self.files);
        let now = read.as_ref().ok().map(Contents::digest);
        if now.is_some() && last == now {
            return now;
        }
        let usable = |contents: Contents| {
            let config = contents.configuration(&self.files)?;
            Ok((config, contents.client_ca))
        };
        match read.and_then(usable) {
            Ok((config, client_ca)) => {
                let old = self.current();
                let same = old.client_ca == client_ca;
                let authorities = same.then(|| old.authorities.clone());
                self.current.store(Arc::new(Current {
                    config: Arc::new(config),
                    authorities: authorities.unwrap_or_default(),
                    client_ca,
                }));
                if !same {
                    old.authorities.cancel();
                }
                tracing::info!(certificate = %self.files.certificate.display(), "the TLS files have changed and were read anew");
            }
            Err(error) if last == now => {
                tracing::debug!(%error, "the TLS files still cannot be used");
            }
            Err(error) => {
                tracing::warn!(%error, "the TLS files cannot be used; the certificate that was read before stays");
            }
        }
        now
    }
}

/// The hash of what the files held; `None` where they could not be read.
pub(super) type Seen = Option<[u8; 32]>;

struct Contents {
    certificate: Vec<u8>,
    key: zeroize::Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |flag, file: &Path| {
            std::fs::read(file).map_err(|source| TlsError::Read {
                flag,
                file: file.to_owned(),
                source,
            })
        };
        Ok(Self {
            certificate: read("--tls-cert", &files.certificate)?,
            key: read("--tls-key", &files.key)?.into(),
            client_ca: files
                .client_ca
                .as_deref()
                .map(|file| read("--tls-client-ca", file))
                .transpose()?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let (certificate, key) = (Some(&self.certificate), Some(&*self.key));
        let mut hash = Sha256::new();
        for part in [certificate, key, self.client_ca.as_ref()] {
            hash.update(part.map(Sha256::digest).unwrap_or_default());
        }
        hash.finalize().into()
    }

    fn configuration(&self, files: &TlsFiles) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = certificates("--tls-cert", &files.certificate, &self.certificate)?;
        // What the parser says may quote the file.
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| {
            content(
                "--tls-key",
                &files.key,
                "it holds no whole private key in PEM (PKCS#8, PKCS#1 or SEC1)".to_owned(),
            )
        })?;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?;
        let builder = match (&files.client_ca, &self.client_ca) {
            (Some(file), Some(pem)) => {
                let wrong = |error: &dyn std::fmt::Display| {
                    content("--tls-client-ca", file, error.to_string())
                };
                let mut roots = RootCertStore::empty();
                for root in certificates("--tls-client-ca", file, pem)? {
                    roots.add(root).map_err(|error| wrong(&error))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = verifier
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| wrong(&error))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(TlsError::Pair)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if self.client_ca.is_some() {
            // A session that is taken up again brings its certificate along unseen, and each one gives the next: an expired
            // certificate would go on to pass.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(config)
    }
}

fn certificates(
    flag: &'static str,
    file: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| content(flag, file, format!("it is not PEM: {error}")))?;
    if all.is_empty() {
        Err(content(flag, file, "it holds no certificate".to_owned()))
    } else {
        Ok(all)
    }
}

fn content(flag: &'static str, file: &Path, what: String) -> TlsError {
    TlsError::Content {
        flag,
        file: file.to_owned(),
        what,
    }
}
