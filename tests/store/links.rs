//! Calls whose link to Postgres dies.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cota::{
    config::PostgresConfig,
    quota::Kind,
    store::{Booker, Booking, Store, StoreError},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::{
    scratch::{Database, P0, RUN, booked, config, database, entry},
    servers::keyring,
};

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Pass,
    /// Swallows what either side says, without closing.
    Frozen,
    /// Hands COMMIT to the server and hangs up on the client.
    CutAfterCommit,
}

/// Stands between a store and Postgres.
struct Proxy {
    url: String,
    mode: watch::Sender<Mode>,
    accept: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn proxy(db: &Database) -> Proxy {
    let rest = db.url.strip_prefix("postgres://").unwrap();
    let (authority, name) = rest.split_once('/').unwrap();
    let (user, server) = authority.split_once('@').unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://{user}@{}/{name}", listener.local_addr().unwrap());
    let mode = watch::Sender::new(Mode::Pass);
    let (modes, server) = (mode.subscribe(), Arc::new(server.to_owned()));
    let accept = tokio::spawn(async move {
        let mut links = tokio::task::JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            links.spawn(link(client, server.clone(), modes.clone()));
        }
    });
    Proxy { url, mode, accept }
}

async fn link(client: TcpStream, server: Arc<String>, modes: watch::Receiver<Mode>) {
    let server = TcpStream::connect(server.as_str()).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        let mut buffer = vec![0; 65_536];
        while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
            let mode = *modes.borrow();
            if mode != Mode::Frozen && to_server.write_all(&buffer[..n]).await.is_err() {
                break;
            }
            if mode == Mode::CutAfterCommit && buffer[..n].windows(6).any(|word| word == b"COMMIT") {
                break;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 65_536];
        while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
            if *modes.borrow() != Mode::Frozen && to_client.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! { () = up => {} () = down => {} }
}

fn hasty(url: &str) -> PostgresConfig {
    PostgresConfig { max_connections: 1, acquire_timeout_ms: 300, statement_timeout_ms: 300, ..config(url) }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_unknown_and_may_be_repeated() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    let proxy = proxy(&db).await;
    let store = Store::connect(&config(&proxy.url), &keyring()).await.unwrap();
    let batch = [entry(user, "r", Kind::Settle, 5, 1)];
    let book =
        async || store.book(P0, epoch, Booker::Flusher { run_id: RUN, acked_up_to: 0 }, &batch, 1).await;

    proxy.mode.send_replace(Mode::CutAfterCommit);
    let error = book().await.unwrap_err();
    assert!(matches!(error, StoreError::Unknown(_)) && error.is_retryable(), "{error:?}");

    proxy.mode.send_replace(Mode::Pass);
    let repeated = loop {
        // The first session may still hold the lock.
        match book().await.unwrap() {
            Booking::Booked(booked) => break booked,
            Booking::Busy => tokio::task::yield_now().await,
            Booking::Fenced => panic!("fenced"),
        }
    };
    assert_eq!(repeated, booked(0, 1, 0), "it had been done");
    assert_eq!(db.used(user).await, 5);
}

/// More calls than the pool has connections, the only one of them on a dead link: each call ends in time, and the pool
/// has its room back.
#[tokio::test]
async fn calls_on_a_dead_link_end_and_do_not_use_up_the_pool() {
    let db = database().await;
    let user = db.user().await;
    let proxy = proxy(&db).await;
    let store = Store::connect(&hasty(&proxy.url), &keyring()).await.unwrap();
    store.user(user).await.unwrap();
    proxy.mode.send_replace(Mode::Frozen);
    let started = Instant::now();
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.user(user).await })
        })
        .collect();
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());

    proxy.mode.send_replace(Mode::Pass);
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(error) = store.user(user).await {
        assert!(Instant::now() < deadline, "the pool has room again: {error}");
    }
}

#[tokio::test]
async fn a_server_that_never_speaks_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://cota@{}/cota", listener.local_addr().unwrap());
    let started = Instant::now();
    let error = Store::connect(&hasty(&url), &keyring()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(matches!(Store::lazy(&hasty("nonsense"), &keyring()), Err(StoreError::Failed(_))));
}

#[tokio::test]
async fn a_wait_for_a_lock_ends_with_a_definite_answer() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    let store = Store::connect(&hasty(&db.url), &keyring()).await.unwrap();
    let mut stranger = db.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM user_accounts FOR UPDATE").execute(&mut *stranger).await.unwrap();
    let batch = [entry(user, "r", Kind::Settle, 5, 1)];
    let book =
        async || store.book(P0, epoch, Booker::Flusher { run_id: RUN, acked_up_to: 0 }, &batch, 1).await;
    let error = book().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "nothing was changed: {error:?}");
    stranger.rollback().await.unwrap();
    assert_eq!(book().await.unwrap(), Booking::Booked(booked(1, 0, 0)));
}
