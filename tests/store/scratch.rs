//! A database per test, and the words the tests speak in.

use std::sync::atomic::{AtomicU32, Ordering};

use cota::{
    config::{PostgresConfig, Secret},
    quota::{BudgetId, Entry, Flags, Kind, Line, OutboxId, PartitionId, Partitions, ReservationId, UserId},
    store::{Booked, Booker, Booking, Creation, NewUser, Store},
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tokio::sync::OnceCell;

pub const P0: PartitionId = PartitionId(0);
pub const P1: PartitionId = PartitionId(1);
pub const RUN: &str = "0123456789abcdef0123456789abcdef01234567";

static TEMPLATE: OnceCell<String> = OnceCell::const_new();
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A migrated database of this test's own.
pub struct Database {
    pub store: Store,
    /// For what no method of the store would do.
    pub pool: PgPool,
    pub url: String,
}

fn server_url() -> String {
    std::env::var("COTA_TEST_POSTGRES_URL").expect("COTA_TEST_POSTGRES_URL names the server for tests")
}

fn url_of(database: &str) -> String {
    let server = server_url();
    let (base, _) = server.rsplit_once('/').expect("the URL names a database");
    format!("{base}/{database}")
}

async fn on_server(sql: String) {
    let mut connection = PgConnection::connect(&server_url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

pub async fn empty_database() -> String {
    let name = format!("store_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    on_server(format!("DROP DATABASE IF EXISTS {name}")).await;
    on_server(format!("CREATE DATABASE {name}")).await;
    url_of(&name)
}

pub fn config(url: &str) -> PostgresConfig {
    PostgresConfig {
        url: Secret::new(url),
        acquire_timeout_ms: 10_000,
        statement_timeout_ms: 20_000,
        ..PostgresConfig::default()
    }
}

pub async fn database() -> Database {
    let template = TEMPLATE
        .get_or_init(|| async {
            let url = empty_database().await;
            let store = Store::connect(&config(&url)).await.unwrap();
            store.migrate().await.unwrap();
            store.close().await;
            url.rsplit_once('/').unwrap().1.to_owned()
        })
        .await;
    let name = format!("{template}_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    on_server(format!("DROP DATABASE IF EXISTS {name}")).await;
    on_server(format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
    let url = url_of(&name);
    let store = Store::connect(&config(&url)).await.unwrap();
    store.ensure_partitions(Partitions::new(8).unwrap()).await.unwrap();
    Database { store, pool: PgPool::connect_lazy(&url).unwrap(), url }
}

impl Database {
    pub async fn user(&self) -> UserId {
        let id = UserId::generate();
        let new = NewUser { id: Some(id), email: format!("{id}@example.com"), ..NewUser::default() };
        match self.store.create_user(&new).await.unwrap() {
            Creation::Created(user) => user.id,
            other => panic!("{other:?}"),
        }
    }

    /// Opens a partition under its next epoch.
    pub async fn open(&self, partition: PartitionId) -> u64 {
        let epoch = self.store.begin_recovery(partition, 0).await.unwrap().unwrap();
        assert!(self.store.open(partition, epoch, RUN, 0).await.unwrap());
        epoch
    }

    /// Books as the flusher, which must be let.
    pub async fn flush(&self, epoch: u64, entries: &[Entry]) -> Booked {
        let sequence = entries.iter().map(|entry| entry.outbox_id.sequence).max().unwrap_or(0);
        let booking = self.store.book(P0, epoch, Booker::Flusher { run_id: RUN }, entries, sequence).await;
        match booking.unwrap() {
            Booking::Booked(booked) => booked,
            other => panic!("{other:?}"),
        }
    }

    pub async fn used(&self, user: UserId) -> u64 {
        self.store.user(user).await.unwrap().unwrap().used_tokens
    }

    pub async fn sql(&self, sql: &'static str, user: UserId) {
        sqlx::query(sql).bind(user.0).execute(&self.pool).await.unwrap();
    }

    /// Rows of the ledger as (kind, tokens, outbox sequence), by kind.
    pub async fn rows(&self, user: UserId, reservation: &str) -> Vec<(Kind, i64, u64)> {
        let id = ReservationId::new(reservation).unwrap();
        let (rows, _) = self.store.transactions_of(P0, user, &id).await.unwrap().unwrap();
        let mut rows: Vec<_> =
            rows.into_iter().map(|row| (row.kind, row.tokens, row.outbox_id.sequence)).collect();
        rows.sort();
        rows
    }

    pub async fn assert_no_drift(&self) {
        assert_eq!(self.store.drift().await.unwrap(), []);
    }
}

pub fn entry(user: UserId, reservation: &str, kind: Kind, tokens: i64, sequence: u64) -> Entry {
    Entry {
        outbox_id: OutboxId { sequence, nonce: 4_611_686_018_427_387_903 },
        user,
        reservation: ReservationId::new(reservation).unwrap(),
        kind,
        tokens,
        flags: Flags::default(),
        at_ms: 1_700_000_000_123,
        model: None,
        request_id: None,
        input_tokens: None,
        output_tokens: None,
        cached_input_tokens: None,
        metadata: None,
        lines: vec![Line { budget: BudgetId::Balance(user), amount: tokens }],
    }
}

pub fn booked(inserted: usize, replayed: usize, dead: usize) -> Booked {
    Booked { inserted, replayed, dead }
}
