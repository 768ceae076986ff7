//! Against real sockets on loopback addresses, of which some stand for the public internet and some for what is inside.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::quota::{EventKind, UserId};

const OUTSIDE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));
const INSIDE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

/// A server that counts connections, and sends each the same bytes once a request has come.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Server {
    async fn start(ip: IpAddr, port: u16, answer: &'static str, endless: bool) -> Self {
        let listener = TcpListener::bind((ip, port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let mut request = vec![0; 4_096];
                    let _ = stream.read(&mut request).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                    while endless && stream.write_all(&[b'x'; 1_024]).await.is_ok() {}
                    let _ = stream.read(&mut request).await;
                });
            }
        });
        Self { address, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Answers look-ups one after the other.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<VecDeque<Vec<IpAddr>>>>, Arc<AtomicUsize>);

impl Names {
    fn of(answers: &[&[IpAddr]]) -> Self {
        let answers = answers.iter().map(|answer| answer.to_vec()).collect();
        Self(Arc::new(Mutex::new(answers)), Arc::default())
    }

    fn asked(&self) -> usize {
        self.1.load(Ordering::Relaxed)
    }
}

impl Lookup for Names {
    fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let answer = self.0.lock().unwrap().pop_front();
        Box::pin(async { answer.ok_or_else(|| io::ErrorKind::NotFound.into()) })
    }
}

/// Only [`OUTSIDE`] may be reached.
fn sender(names: &Names) -> Sender {
    crate::crypto::install();
    let config = NotifyConfig {
        webhook_timeout_ms: 500,
        webhook_ports: Vec::new(),
        webhook_allow_http: true,
        webhook_allowed_networks: vec![OUTSIDE.into()],
        ..NotifyConfig::default()
    };
    Sender::with_lookup(&config, names.clone()).unwrap()
}

async fn send(sender: &Sender, url: &str) -> Result<Said, Fault> {
    let event = Event {
        id: 7,
        user: UserId::generate(),
        kind: EventKind::AlertWarning,
        data: json!({}),
        created_at: Timestamp::now(),
    };
    sender.send(url, &[vec![1; 32]], &event, Timestamp::now()).await
}

const OK: &str = "HTTP/1.1 204 No Content\r\n\r\n";

#[tokio::test]
async fn a_name_that_turns_inward_is_never_followed() {
    let outside = Server::start(OUTSIDE, 0, OK, false).await;
    let port = outside.address.port();
    let inside = Server::start(INSIDE, port, OK, false).await;
    let names = Names::of(&[&[OUTSIDE], &[INSIDE], &[OUTSIDE, INSIDE], &[]]);
    let sender = sender(&names);
    let url = format!("http://hooks.example:{port}/");
    // The connection goes where the one look-up of this sending led, though the next would lead inside.
    assert_eq!(send(&sender, &url).await.unwrap().status, 204);
    assert_eq!(names.asked(), 1);
    // Each sending looks again: no connection of the one before is taken.
    for asked in 2..=4 {
        assert_eq!(send(&sender, &url).await, Err(Fault::Refused));
        assert_eq!(names.asked(), asked);
    }
    assert_eq!(send(&sender, &url).await, Err(Fault::Unknown));
    assert_eq!((outside.connections(), inside.connections()), (1, 0));
}

#[tokio::test]
async fn an_address_that_is_no_name_is_judged_too() {
    let inside = Server::start(INSIDE, 0, OK, false).await;
    let sender = sender(&Names::default());
    let port = inside.address.port();
    for host in
        ["127.0.0.2", "2130706434", "0x7f000002", "017700000002", "[::ffff:127.0.0.2]", "[::ffff:7f00:2]"]
    {
        assert_eq!(send(&sender, &format!("http://{host}:{port}/")).await, Err(Fault::Refused), "{host}");
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn redirects_are_answers_and_nothing_more() {
    let inside = Server::start(INSIDE, 0, OK, false).await;
    let location =
        format!("HTTP/1.1 307 X\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n", inside.address);
    let outside = Server::start(OUTSIDE, 0, location.leak(), false).await;
    let said = send(&sender(&Names::default()), &format!("http://{}/", outside.address)).await.unwrap();
    assert_eq!((said.status, inside.connections()), (307, 0));
}

#[tokio::test]
async fn a_receiver_cannot_hold_us_up() {
    let sender = sender(&Names::default());
    let silent = Server::start(OUTSIDE, 0, "", false).await;
    let url = format!("http://{}/", silent.address);
    assert_eq!(send(&sender, &url).await, Err(Fault::Timeout));
    let head = "HTTP/1.1 200 OK\r\nRetry-After: 7\r\nContent-Length: 999999999999\r\n\r\n";
    let endless = Server::start(OUTSIDE, 0, head, true).await;
    let started = Instant::now();
    let said = send(&sender, &format!("http://{}/", endless.address)).await.unwrap();
    assert_eq!(said, Said { status: 200, wait: Some(Duration::from_secs(7)) });
    assert!(started.elapsed() < Duration::from_secs(2), "the body of an answer is not waited for");
    let nobody = TcpListener::bind((OUTSIDE, 0)).await.unwrap().local_addr().unwrap();
    assert_eq!(send(&sender, &format!("http://{nobody}/")).await, Err(Fault::Connect));
    let no_tls = Server::start(OUTSIDE, 0, "hello", false).await;
    assert_eq!(send(&sender, &format!("https://{}/", no_tls.address)).await, Err(Fault::Tls));
    let broken = Server::start(OUTSIDE, 0, "no HTTP at all\r\n\r\n", false).await;
    assert_eq!(send(&sender, &format!("http://{}/", broken.address)).await, Err(Fault::Broken));
}
