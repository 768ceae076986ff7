//! The API over TLS.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use cota::{
    app,
    config::{Config, Secret},
};
use reqwest::{Certificate, Client};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
        pki_types::{CertificateDer, pem::PemObject},
        version,
    },
};

use crate::support::{
    TempFolder,
    certificates::Certificates,
    world::{PATIENCE, World, until},
};

/// A service that speaks TLS, and what it shows.
struct Https {
    address: SocketAddr,
    certificates: Certificates,
    folder: TempFolder,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), app::AppError>>,
    _world: World,
}

impl Https {
    async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let folder = TempFolder::new();
        let certificates = Certificates::write(&folder, &["localhost", "127.0.0.1"]);
        let world = World::start(0).await;
        let mut config = world.config.clone();
        config.http.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.http.metrics_listen = config.http.listen;
        config.auth.hs256_secret = Secret::new("a secret of the tests, of more than 32 bytes");
        config.http.tls_cert_file = Some(certificates.cert.clone());
        config.http.tls_key_file = Some(certificates.key.clone());
        config.http.tls_reload_interval_ms = 20;
        change(&mut config);
        let (stop, stopped) = oneshot::channel::<()>();
        let (started, addresses) = oneshot::channel();
        let shutdown = async { drop(stopped.await) };
        let running = tokio::spawn(app::run(config, shutdown, started));
        let address = addresses.await.unwrap().http;
        Self { address, certificates, folder, stop, running, _world: world }
    }

    /// Asks with a client that trusts this authority alone.
    async fn ask(&self, ca: &[u8]) -> reqwest::Result<u16> {
        let ca = Certificate::from_pem(ca).unwrap();
        let client = Client::builder().tls_certs_only([ca]).pool_max_idle_per_host(0).build().unwrap();
        let response = client.get(format!("https://{}/healthz", self.address)).send().await?;
        Ok(response.status().as_u16())
    }

    fn ca(&self) -> Vec<u8> {
        std::fs::read(&self.certificates.ca).unwrap()
    }

    /// A handshake with these versions and protocols; what was agreed on.
    async fn handshake(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&[u8]],
    ) -> (ProtocolVersion, Vec<u8>) {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&self.ca()).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_protocol_versions(versions)
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let (_, session) = stream.get_ref();
        (session.protocol_version().unwrap(), session.alpn_protocol().unwrap_or_default().to_vec())
    }

    async fn finish(self) {
        self.stop.send(()).unwrap();
        self.running.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_speaks_tls_1_2_and_1_3_and_lets_the_client_choose_its_http() {
    let https = Https::start(|_| {}).await;
    assert_eq!(https.ask(&https.ca()).await.unwrap(), 200);
    for (version, agreed) in
        [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        assert_eq!(https.handshake(&[version], &[b"h2", b"http/1.1"]).await, (agreed, b"h2".to_vec()));
        assert_eq!(https.handshake(&[version], &[b"http/1.1"]).await, (agreed, b"http/1.1".to_vec()));
        assert_eq!(https.handshake(&[version], &[]).await, (agreed, Vec::new()));
    }
    https.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_and_handshakes_that_do_not_end_are_cut_off() {
    let https = Https::start(|config| config.http.header_timeout_ms = 300).await;
    for bytes in [&b""[..], b"\x16\x03\x01", b"GET /healthz HTTP/1.1\r\nhost: cota\r\n\r\n"] {
        let started = Instant::now();
        let heard = super::say(https.address, bytes).await;
        assert!(!heard.contains("200"), "{heard}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }
    https.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_count_as_connections() {
    let https = Https::start(|config| config.http.max_connections = 1).await;
    let mut silent = TcpStream::connect(https.address).await.unwrap();
    let ca = https.ca();
    {
        let ask = https.ask(&ca);
        tokio::pin!(ask);
        let early = timeout(Duration::from_millis(300), &mut ask).await;
        assert!(early.is_err(), "served beyond the cap");
        assert_eq!(ask.await.unwrap(), 200, "once the handshake is given up");
    }
    assert_eq!(timeout(PATIENCE, silent.read(&mut [0])).await.unwrap().unwrap(), 0);
    https.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
    let https = Https::start(|_| {}).await;
    let first = https.ca();
    // Half a renewal: a key that is not the certificate's.
    let aside = TempFolder::new();
    let other = Certificates::write(&aside, &["127.0.0.1"]);
    std::fs::copy(&other.key, &https.certificates.key).unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..10 {
        ticks.tick().await;
        assert_eq!(https.ask(&first).await.unwrap(), 200, "the one before stays");
    }
    std::fs::write(&https.certificates.key, "no key at all").unwrap();
    ticks.tick().await;
    assert_eq!(https.ask(&first).await.unwrap(), 200);
    let renewed = Certificates::write(&https.folder, &["127.0.0.1"]);
    let second = std::fs::read(&renewed.ca).unwrap();
    until("the renewed one is shown", async || https.ask(&second).await.is_ok()).await;
    assert!(https.ask(&first).await.is_err(), "the old one is still shown");
    https.finish().await;
}
