//! A database per test, and the words the tests speak in.

use cota::{
    config::{PostgresConfig, Secret},
    quota::{BudgetId, Entry, Flags, Kind, Line, OutboxId, PartitionId, Partitions, ReservationId, UserId},
    store::{Booked, Booker, Booking, Creation, NewUser, Store},
};
use sqlx::PgPool;

use crate::{
    servers::{self, TestDatabase},
    sums,
};

pub const P0: PartitionId = PartitionId(0);
pub const P1: PartitionId = PartitionId(1);
pub const RUN: &str = "0123456789abcdef0123456789abcdef01234567";

/// A migrated database of this test's own; it goes away with the test.
pub struct Database {
    pub store: Store,
    /// For what no method of the store would do.
    pub pool: PgPool,
    pub url: String,
    _database: TestDatabase,
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
    let database = servers::database().await;
    let url = database.url().to_owned();
    let store = Store::connect(&config(&url), &servers::keyring()).await.unwrap();
    store.ensure_partitions(Partitions::new(8).unwrap()).await.unwrap();
    Database { store, pool: PgPool::connect_lazy(&url).unwrap(), url, _database: database }
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
        let epoch = self.store.begin_recovery(partition, 0, 0).await.unwrap().unwrap();
        assert!(self.store.open(partition, epoch, RUN, 0).await.unwrap());
        epoch
    }

    /// Books as the flusher, which must be let.
    pub async fn flush(&self, epoch: u64, entries: &[Entry]) -> Booked {
        let sequence = entries.iter().map(|entry| entry.outbox_id.sequence).max().unwrap_or(0);
        let booking = self
            .store
            .book(P0, epoch, Booker::Flusher { run_id: RUN, acked_up_to: 0 }, entries, sequence)
            .await;
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
        sums::usage_is_the_ledger(&self.pool).await;
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
    Booked { inserted, replayed, dead, to_renew: 0 }
}
