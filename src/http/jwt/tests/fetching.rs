//! Where key sets are read from, and from where they are not.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    super::fetch::{Document, FetchError, Origin},
    forge::TempFile,
    identity::{JwksServer, P256_1, RSA_1, Reply, jwks},
};

async fn read(url: &str) -> Result<Document, FetchError> {
    Origin::Url(url.parse().unwrap()).read().await
}

#[tokio::test]
async fn a_set_comes_with_its_age() {
    let server = JwksServer::start(&[P256_1]).await;
    let mut reply = Reply::keys(&[P256_1]);
    reply.header = ("cache-control", "public, max-age=420".into());
    server.answer(reply);
    for url in [server.url.clone(), server.url.replace("127.0.0.1", "localhost")] {
        let document = read(&url).await.unwrap();
        assert_eq!(document.body, jwks(&[P256_1]).into_bytes());
        assert_eq!(document.max_age, Some(Duration::from_secs(420)));
    }
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let (server, elsewhere) = (JwksServer::start(&[P256_1]).await, JwksServer::start(&[RSA_1]).await);
    for status in [301, 302, 303, 307, 308] {
        let mut reply = Reply::text(status, "");
        reply.header = ("location", elsewhere.url.clone());
        server.answer(reply);
        let error = read(&server.url).await.unwrap_err();
        assert!(matches!(error, FetchError::Status(found) if found == status), "{error}");
    }
    assert_eq!((server.hits(), elsewhere.hits()), (5, 0));
}

#[tokio::test]
async fn a_set_that_is_too_long_is_not_read_to_its_end() {
    let server = JwksServer::start(&[]).await;
    server.answer(Reply::text(200, " ".repeat(64 * 1024)));
    assert!(read(&server.url).await.is_ok());
    server.answer(Reply::text(200, " ".repeat(64 * 1024 + 1)));
    assert!(matches!(read(&server.url).await, Err(FetchError::TooLong)));
    let mut reply = Reply::text(200, "");
    reply.endless = true;
    server.answer(reply);
    assert!(matches!(read(&server.url).await, Err(FetchError::TooLong)));
}

#[tokio::test]
async fn nobody_there_is_an_error_that_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let error = read(&url).await.unwrap_err().to_string();
    assert!(error.contains(&url) && error.contains("refused"), "{error}");
}

/// Answers over TLS with an empty key set. Its certificate is trusted by nobody.
struct TlsServer {
    url: String,
    /// In PEM.
    certificate: String,
    served: Arc<AtomicUsize>,
    _running: AbortOnDropHandle<()>,
}

impl TlsServer {
    async fn start() -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into();
        let config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key);
        let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        let served = Arc::new(AtomicUsize::new(0));
        let count = served.clone();
        let running = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = [0; 1024];
                if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    count.fetch_add(1, Ordering::SeqCst);
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"keys\":[]}";
                    stream.write_all(answer).await.unwrap();
                    stream.flush().await.unwrap();
                }
            }
        });
        let running = AbortOnDropHandle::new(running);
        Self { url, certificate: cert.pem(), served, _running: running }
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_trusts_is_asked_for_nothing() {
    let server = TlsServer::start().await;
    let error = read(&server.url).await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    assert_eq!(server.served(), 0);
}

/// The URL, for the child process of the next test.
const CHILD: &str = "COTA_TEST_FETCH_URL";

/// The environment says which certificates are trusted, but not which way to go. It is the process's, so the test runs
/// itself in another.
#[tokio::test]
async fn the_environment_names_trusted_certificates_and_no_proxy() {
    if let Ok(url) = std::env::var(CHILD) {
        assert_eq!(read(&url).await.unwrap().body, b"{\"keys\":[]}");
        return;
    }
    let server = TlsServer::start().await;
    let trusted = TempFile::new(&server.certificate);
    let nobody = "http://127.0.0.1:1";
    let name = "http::jwt::tests::fetching::the_environment_names_trusted_certificates_and_no_proxy";
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, &server.url)
        .env("SSL_CERT_FILE", &trusted.0)
        .envs(["http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"].map(|proxy| (proxy, nobody)))
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(server.served(), 1);
}
