//! A TCP proxy that cuts where it hurts: between a request and its reply.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Everything goes through.
    Pass = 0,
    /// Requests arrive; the reply to the next one is dropped and the connection closed.
    CutReply = 1,
    /// Nothing arrives, nothing closes.
    BlackHole = 2,
    /// Connections are closed at once.
    Refuse = 3,
}

struct Shared {
    mode: AtomicU8,
    changed: watch::Sender<()>,
    upstream: Mutex<SocketAddr>,
    cuts: AtomicU64,
}

impl Shared {
    fn upstream(&self) -> SocketAddr {
        *self.upstream.lock().unwrap()
    }

    fn is(&self, mode: Mode) -> bool {
        self.mode.load(Ordering::SeqCst) == mode as u8
    }
}

pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            mode: AtomicU8::new(Mode::Pass as u8),
            changed: watch::Sender::new(()),
            upstream: Mutex::new(upstream),
            cuts: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { shared, address, accepting }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes effect on running connections too.
    pub fn set(&self, mode: Mode) {
        self.shared.mode.store(mode as u8, Ordering::SeqCst);
        self.shared.changed.send_replace(());
    }

    /// Where new connections lead from now on; running ones stay where they are, as after a failover.
    pub fn lead_to(&self, upstream: SocketAddr) {
        *self.shared.upstream.lock().unwrap() = upstream;
    }

    /// Replies dropped so far.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(relay(client, Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

async fn relay(client: TcpStream, shared: Arc<Shared>) {
    if shared.is(Mode::Refuse) {
        return;
    }
    let Ok(server) = TcpStream::connect(shared.upstream()).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut changed = shared.changed.subscribe();
    let requests = async {
        let mut buffer = vec![0; 65_536];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            pause_while_black(&shared).await;
            if to_server.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    let replies = async {
        let mut buffer = vec![0; 65_536];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            pause_while_black(&shared).await;
            if shared.is(Mode::CutReply) {
                shared.cuts.fetch_add(1, Ordering::SeqCst);
                return;
            }
            if to_client.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    let refused = async {
        while changed.changed().await.is_ok() {
            if shared.is(Mode::Refuse) {
                return;
            }
        }
    };
    tokio::select! { () = requests => {}, () = replies => {}, () = refused => {} }
}

async fn pause_while_black(shared: &Shared) {
    let mut changed = shared.changed.subscribe();
    while shared.is(Mode::BlackHole) {
        if changed.changed().await.is_err() {
            return;
        }
    }
}
