//! TLS of the listener: HTTP/2 or HTTP/1.1 over TLS 1.2 or 1.3, with a certificate that may be renewed at any time.
//!
//! The two files are read again every few seconds. A pair is taken when certificate and key belong together; until then
//! the one before stays, so that it does not matter in which order a renewal writes them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
    server::TlsStream,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{HttpConfig, millis},
    crypto, metrics,
};

/// Why a certificate was not taken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, io::Error),
    #[error("{0} holds no certificate")]
    NoCertificate(PathBuf),
    #[error("{0} is no PEM that can be used: {1}")]
    Pem(PathBuf, rustls::pki_types::pem::Error),
    #[error("the certificate or its key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// Speaks TLS on accepted connections; cheap to clone.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    identity: Arc<Identity>,
    reload_interval: Duration,
}

impl Tls {
    /// TLS as configured; `None` when no certificate is.
    ///
    /// # Errors
    /// When the files cannot be read or do not belong together.
    pub fn of(config: &HttpConfig) -> Result<Option<Self>, TlsError> {
        let (Some(cert_file), Some(key_file)) = (&config.tls_cert_file, &config.tls_key_file) else {
            return Ok(None);
        };
        crypto::install();
        let identity = Arc::new(Identity::load(cert_file.clone(), key_file.clone())?);
        let versions = &[&rustls::version::TLS13, &rustls::version::TLS12];
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&identity) as _;
        let mut server = ServerConfig::builder_with_protocol_versions(versions)
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(server));
        Ok(Some(Self { acceptor, identity, reload_interval: millis(config.tls_reload_interval_ms) }))
    }

    /// The handshake of one connection.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await
    }

    /// Takes renewed certificates, until `stop`.
    pub async fn renew(self, stop: CancellationToken) {
        let mut ticks = interval(self.reload_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            match self.identity.reload() {
                Ok(false) => failing = false,
                Ok(true) => {
                    failing = false;
                    metrics::certificate("renewed");
                    tracing::info!("the certificate was renewed");
                }
                Err(error) => {
                    metrics::certificate("refused");
                    // Once, not every few seconds: the one before is still in use.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(%error, "the renewed certificate was not taken");
                    }
                }
            }
        }
    }
}

/// The certificate in use, and where the next one will be.
struct Identity {
    cert_file: PathBuf,
    key_file: PathBuf,
    current: RwLock<Current>,
}

struct Current {
    /// What the files held, to tell when they change.
    cert_pem: Vec<u8>,
    key_pem: Vec<u8>,
    certified: Arc<CertifiedKey>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("cert_file", &self.cert_file).finish_non_exhaustive()
    }
}

impl Identity {
    fn load(cert_file: PathBuf, key_file: PathBuf) -> Result<Self, TlsError> {
        let (cert_pem, key_pem) = (read(&cert_file)?, read(&key_file)?);
        let certified = certified(&cert_file, &cert_pem, &key_file, &key_pem)?;
        let current = RwLock::new(Current { cert_pem, key_pem, certified });
        Ok(Self { cert_file, key_file, current })
    }

    /// Takes what the files hold, if that has changed; says whether it had.
    fn reload(&self) -> Result<bool, TlsError> {
        let (cert_pem, key_pem) = (read(&self.cert_file)?, read(&self.key_file)?);
        {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if current.cert_pem == cert_pem && current.key_pem == key_pem {
                return Ok(false);
            }
        }
        let certified = certified(&self.cert_file, &cert_pem, &self.key_file, &key_pem)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) =
            Current { cert_pem, key_pem, certified };
        Ok(true)
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&current.certified))
    }
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|error| TlsError::Read(file.into(), error))
}

fn certified(
    cert_file: &Path,
    cert_pem: &[u8],
    key_file: &Path,
    key_pem: &[u8],
) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(cert_pem)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Pem(cert_file.into(), error))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(cert_file.into()));
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|e| TlsError::Pem(key_file.into(), e))?;
    // Refuses a key that is another certificate's.
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &provider)?))
}
