//! Where key sets are read from, and from where they are not.

use std::{sync::Arc, time::Duration};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::{io::AsyncReadExt, net::TcpListener};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer},
};

use super::{
    super::fetch::{Document, FetchError, Origin},
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

/// A certificate that nobody trusts: the key set is not even asked for.
#[tokio::test]
async fn tls_asks_for_a_certificate_that_is_trusted() {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into();
    let config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key);
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        match acceptor.accept(stream).await {
            Ok(mut stream) => stream.read_u8().await.is_ok(),
            Err(_) => false,
        }
    });
    let error = read(&url).await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    assert!(!server.await.unwrap(), "the request was sent");
}
