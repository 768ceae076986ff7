//! Both stores and any number of replicas in one process, each on a runtime of its own, so that one can be killed.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cota::{
    accounts::{Accounts, renewals::Renewer},
    config::{Config, Secret},
    crypto::Keyring,
    flusher::{Flusher, RunningFlusher},
    ledger::{Ledger, Receipt, Refusal, Running, keys::Keys},
    quota::{
        Charge, Debit, MAX_TTL_SECONDS, Partitions, Reservation, ReservationId, Reserve, Settle, Tokens,
        Transaction, UserId,
    },
    store::{Creation, Credit, CreditOutcome, GrantKind, NewUser, Store},
};
use tokio::{runtime::Runtime, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{TestDatabase, TestPostgres, TestRedis, database, invariants, keys, postgres, redis, sums};

/// Bound of anything a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

pub fn tokens(n: u64) -> Tokens {
    Tokens::new(n).unwrap()
}

pub fn id(text: &str) -> ReservationId {
    ReservationId::new(text).unwrap()
}

/// One replica of the service, without its HTTP.
pub struct Replica {
    pub ledger: Ledger,
    running: Option<(Running, RunningFlusher)>,
    /// Ends the renewer.
    stop: CancellationToken,
    runtime: Option<Runtime>,
}

impl Replica {
    pub fn start(config: &Config, partitions: Partitions) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _entered = runtime.enter();
        let store = Store::lazy(&config.postgres, &Keyring::of(&config.keys).unwrap()).unwrap();
        let (ledger, background) = Ledger::new(config, store.clone(), partitions).unwrap();
        let running = background.start();
        let accounts = Accounts::new(store.clone(), ledger.clone());
        let flusher = Flusher::new(ledger.outbox().clone(), store, partitions, config.flusher.clone());
        let stop = CancellationToken::new();
        runtime.spawn(Renewer::new(accounts, flusher.renewals()).run(stop.clone()));
        let flusher = flusher.start();
        drop(_entered);
        Self { ledger, running: Some((running, flusher)), stop, runtime: Some(runtime) }
    }

    /// As SIGTERM does: the outbox drained, every task ended.
    pub async fn stop(mut self) {
        let (running, flusher) = self.running.take().unwrap();
        self.stop.cancel();
        flusher.stop().await;
        running.stop().await;
    }

    /// As SIGKILL does: every task gone in the middle of what it did, the ring with it.
    pub fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What was asked and answered, for the invariants.
#[derive(Default)]
pub struct Journal {
    /// Settles and debits that were acked, with their amount.
    pub acked: BTreeMap<(UserId, ReservationId), u64>,
    /// Every id something was asked for.
    pub asked: BTreeSet<(UserId, ReservationId)>,
}

pub struct World {
    /// Behind a lock, so that a fault can be made while calls go on.
    pub redis: tokio::sync::Mutex<TestRedis>,
    pub redis_url: String,
    /// A Postgres of this world's own, when it is to be stopped.
    pub postgres: Option<tokio::sync::Mutex<TestPostgres>>,
    pub database: TestDatabase,
    pub store: Store,
    pub config: Config,
    pub partitions: Partitions,
    pub replicas: RwLock<Vec<Replica>>,
    pub journal: Mutex<Journal>,
    rewritten: AtomicBool,
}

impl World {
    /// Both stores and so many replicas, all gates open.
    pub async fn start(replicas: usize) -> Self {
        Self::with(replicas, |_| {}).await
    }

    pub async fn with(replicas: usize, change: impl FnOnce(&mut Config)) -> Self {
        Self::build(replicas, None, change).await
    }

    /// With a Postgres of its own, which may be stopped.
    pub async fn with_own_postgres(replicas: usize) -> Self {
        Self::build(replicas, Some(postgres().await), |_| {}).await
    }

    async fn build(replicas: usize, own: Option<TestPostgres>, change: impl FnOnce(&mut Config)) -> Self {
        let database = match &own {
            Some(postgres) => postgres.database().await,
            None => database().await,
        };
        let redis = redis().await;
        let mut config = Config::default();
        config.redis.url = Secret::new(redis.url());
        config.postgres.url = Secret::new(database.url());
        config.postgres.max_connections = 8;
        config.ledger.partitions = 2;
        config.keys = keys();
        change(&mut config);
        let store = Store::connect(&config.postgres, &Keyring::of(&config.keys).unwrap()).await.unwrap();
        let wanted = Partitions::new(config.ledger.partitions).unwrap();
        let partitions = store.ensure_partitions(wanted).await.unwrap();
        let world = Self {
            redis_url: redis.url(),
            redis: tokio::sync::Mutex::new(redis),
            postgres: own.map(tokio::sync::Mutex::new),
            database,
            store,
            config,
            partitions,
            replicas: RwLock::default(),
            journal: Mutex::default(),
            rewritten: AtomicBool::default(),
        };
        for _ in 0..replicas {
            world.add_replica();
        }
        world.all_open().await;
        world
    }

    pub fn add_replica(&self) {
        self.replicas.write().unwrap().push(Replica::start(&self.config, self.partitions));
    }

    /// Kills the first replica.
    pub fn kill_replica(&self) {
        self.replicas.write().unwrap().remove(0).kill();
    }

    pub fn ledger(&self) -> Ledger {
        self.ledger_at(0)
    }

    /// The ledger of a replica, counted round.
    pub fn ledger_at(&self, turn: usize) -> Ledger {
        let replicas = self.replicas.read().unwrap();
        replicas[turn % replicas.len()].ledger.clone()
    }

    pub fn ledgers(&self) -> Vec<Ledger> {
        self.replicas.read().unwrap().iter().map(|replica| replica.ledger.clone()).collect()
    }

    /// Waits until every gate of every replica is open.
    pub async fn all_open(&self) {
        until("every gate is open", async || {
            self.ledgers().iter().all(|ledger| ledger.closed_partitions().is_empty())
        })
        .await;
    }

    /// A user with so many tokens.
    pub async fn user(&self, total: u64) -> UserId {
        let id = UserId::generate();
        let new = NewUser {
            id: Some(id),
            email: format!("{id}@cota.test"),
            external_id: None,
            locale: None,
            time_zone: None,
        };
        assert!(matches!(self.store.create_user(&new).await.unwrap(), Creation::Created(_)));
        if total > 0 {
            self.credit(id, total, "start").await;
        }
        id
    }

    /// Credits without waiting for Redis to hear of it.
    pub async fn credit(&self, user: UserId, tokens: u64, key: &str) {
        let tokens = i64::try_from(tokens).unwrap();
        let credit = Credit::new(GrantKind::Bonus, tokens, key);
        let outcome = self.store.credit(user, &credit).await.unwrap();
        assert!(
            matches!(outcome, CreditOutcome::Granted { .. } | CreditOutcome::Replayed { .. }),
            "{outcome:?}"
        );
    }

    pub async fn reserve(&self, user: UserId, name: &str, n: u64) -> Result<Receipt<Reservation>, Refusal> {
        self.reserve_on(0, user, name, n, MAX_TTL_SECONDS).await
    }

    pub async fn reserve_on(
        &self,
        replica: usize,
        user: UserId,
        name: &str,
        n: u64,
        ttl_seconds: u32,
    ) -> Result<Receipt<Reservation>, Refusal> {
        self.journal.lock().unwrap().asked.insert((user, id(name)));
        let ask = Reserve { id: id(name), tokens: tokens(n), model: None, ttl_seconds, metadata: None };
        self.ledger_at(replica).reserve(user, ask, deadline()).await
    }

    pub async fn settle(&self, user: UserId, name: &str, n: u64) -> Result<Receipt<Transaction>, Refusal> {
        self.settle_on(0, user, name, Charge::Tokens(tokens(n))).await
    }

    pub async fn settle_on(
        &self,
        replica: usize,
        user: UserId,
        name: &str,
        charge: Charge,
    ) -> Result<Receipt<Transaction>, Refusal> {
        let ask = Settle { id: id(name), charge, model: None, request_id: None };
        let answer = self.ledger_at(replica).settle(user, ask, deadline()).await;
        self.note(user, name, &answer);
        answer
    }

    pub async fn debit(&self, user: UserId, name: &str, n: u64) -> Result<Receipt<Transaction>, Refusal> {
        let ask = Debit { id: id(name), charge: Charge::Tokens(tokens(n)), model: None, request_id: None };
        let answer = self.ledger().debit(user, ask, deadline()).await;
        self.note(user, name, &answer);
        answer
    }

    fn note(&self, user: UserId, name: &str, answer: &Result<Receipt<Transaction>, Refusal>) {
        let mut journal = self.journal.lock().unwrap();
        journal.asked.insert((user, id(name)));
        if let Ok(receipt) = answer {
            let before = journal.acked.insert((user, id(name)), receipt.subject.tokens);
            assert!(
                before.is_none_or(|before| before == receipt.subject.tokens),
                "{name} was acked with two amounts"
            );
        }
    }

    pub async fn release(&self, user: UserId, name: &str) -> Result<Receipt<Reservation>, Refusal> {
        self.ledger().release(user, id(name), deadline()).await
    }

    /// A connection to Redis for looking and for breaking things.
    pub async fn redis_connection(&self) -> redis::aio::MultiplexedConnection {
        redis::Client::open(&*self.redis_url).unwrap().get_multiplexed_async_connection().await.unwrap()
    }

    /// The key names of an account's partition.
    pub fn keys(&self, user: UserId) -> Keys {
        Keys::of(self.partitions.of(user), self.partitions)
    }

    /// The epoch of an account's partition, as Postgres has it.
    pub async fn epoch(&self, user: UserId) -> u64 {
        let rows = self.store.partitions().await.unwrap();
        rows.into_iter().find(|row| row.id == self.partitions.of(user)).unwrap().epoch
    }

    /// Something done to Postgres behind the service's back.
    pub async fn sql(&self, statement: &'static str) {
        sqlx::query(statement).execute(self.database.pool()).await.unwrap();
    }

    /// The same to what is booked: to make a past. The audit log must find it out.
    pub async fn rewrite(&self, statement: &'static str) {
        self.sql(statement).await;
        self.rewritten.store(true, Ordering::Relaxed);
    }

    /// Makes the sums of usage anew, after the ledger was changed by hand.
    pub async fn sum_up_anew(&self) {
        for (table, column, time) in sums::TABLES {
            let columns = "tokens, requests, input_tokens, output_tokens, cached_tokens, overages";
            let sql = format!(
                "TRUNCATE {table};
                 INSERT INTO {table} (user_id, {column}, model, {columns})
                 SELECT user_id, time, model, {columns} FROM ({}) s",
                sums::of_the_ledger(time)
            );
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(self.database.pool()).await.unwrap();
        }
    }

    pub fn is_rewritten(&self) -> bool {
        self.rewritten.load(Ordering::Relaxed)
    }

    /// (available, reserved, used)
    pub async fn balance(&self, user: UserId) -> (i64, u64, u64) {
        let balance = self.ledger().account(user, deadline()).await.unwrap().balance;
        (balance.available(), balance.reserved, balance.used)
    }

    /// Waits for the outbox and the rings to empty, then holds everything against the invariants.
    pub async fn check(&self) {
        self.all_open().await;
        invariants::settle_down(self).await;
        invariants::check(self).await;
    }
}

/// Waits for a condition, without a fixed pause; fails the test when it does not come.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        ticks.tick().await;
    }
}
