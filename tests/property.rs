//! State-machine property test: random batches, clocks and faults against the model, on a real Redis.
//!
//! A failing case is printed, shrunk, and kept in `property.proptest-regressions`. `COTA_TEST_PROPERTY_CASES` runs more.

mod model;
mod support;

use std::collections::BTreeMap;

use cota::{
    ledger::{
        keys::member,
        scripts,
        wire::{Operation, Options, Record, Status, Verb},
    },
    quota::{BudgetId, Kind, State},
};
use model::{Booked, Budget, Expected, Model, Name, Op, Rec};
use proptest::{
    prelude::*,
    test_runner::{Config, FileFailurePersistence, TestRunner},
};
use support::partition::{Applied, Head, Partition, RUN_ID, balance_line, rid, text, user};

const USERS: usize = 2;
const STEPS: usize = 40;
const DEFAULT_CASES: u32 = 2_000;

#[derive(Clone, Debug)]
enum Step {
    Batch(Vec<Op>),
    /// Postgres's state of an account arrives, newer or older.
    Sync {
        user: usize,
        granted: u64,
        newer: bool,
        policy: u64,
        suspended: bool,
    },
    /// The flusher takes the first entries.
    Flush(usize),
    Full(bool),
    ScriptFlush,
    /// Redis restarts with all it had.
    Recover,
    /// Redis loses everything; what was acked is in the ledger, through the witnesses.
    Lose,
    /// A late call of the epoch before, of another server, or of a caller who has seen more than Redis counts.
    Stranger(u8, Vec<Op>),
}

fn op() -> impl Strategy<Value = Op> {
    let verb = prop_oneof![
        6 => Just(Verb::Reserve), 6 => Just(Verb::Settle), 2 => Just(Verb::Debit),
        3 => Just(Verb::Release), 4 => Just(Verb::Extend), 4 => Just(Verb::Expire),
    ];
    let tokens = prop_oneof![8 => 0..40u64, 1 => Just(0), 1 => Just(1_000_000_000_000)];
    let ttl = prop_oneof![3 => Just(60_000u64), 2 => 1..4u64];
    let second = prop_oneof![3 => Just(0u64), 1 => 1..50u64];
    let options = prop_oneof![6 => Just(0u8), 1 => Just(1), 1 => Just(2), 1 => Just(4)];
    let policy = prop_oneof![9 => Just(1u64), 1 => Just(2)];
    let follows = prop_oneof![2 => Just(0u8), 1 => Just(Options::FOLLOWS.0)];
    (verb, (0..USERS, 0..5usize), tokens, ttl, second, (options, follows), policy).prop_map(
        |(verb, name, tokens, ttl_ms, second, (options, follows), policy)| {
            let options = if verb == Verb::Settle { options } else { 0 };
            // Settles name an expiry's charge only when Postgres was asked; the harness fills it in.
            let second = if verb == Verb::Extend { second } else { 0 };
            let print = (tokens % 7) as u8 + 1 + options;
            let options = options | follows;
            Op { verb, name, tokens, ttl_ms, second, options, policy, print }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let batch = prop::collection::vec(op(), 1..6);
    let sync = (0..USERS, 0..200u64, any::<bool>(), 1..3u64, prop::bool::weighted(0.1)).prop_map(
        |(user, granted, newer, policy, suspended)| Step::Sync { user, granted, newer, policy, suspended },
    );
    prop_oneof![
        20 => batch.prop_map(Step::Batch),
        4 => sync,
        4 => (0..8usize).prop_map(Step::Flush),
        1 => prop::bool::weighted(0.2).prop_map(Step::Full),
        1 => Just(Step::ScriptFlush),
        1 => Just(Step::Recover),
        1 => Just(Step::Lose),
        1 => (0..3u8, prop::collection::vec(op(), 1..3)).prop_map(|(kind, ops)| Step::Stranger(kind, ops)),
    ]
}

/// Postgres, as far as the partition needs it.
#[derive(Default)]
struct Ledger {
    states: BTreeMap<usize, Budget>,
    rows: BTreeMap<Name, Vec<Booked>>,
}

impl Ledger {
    fn book(&mut self, entries: impl IntoIterator<Item = Booked>) {
        for entry in entries {
            self.rows.entry(entry.name).or_default().push(entry);
        }
    }

    fn spent(&self, user: usize) -> u64 {
        let rows = self.rows.iter().filter(|(name, _)| name.0 == user).flat_map(|(_, rows)| rows);
        rows.map(|row| row.tokens).sum::<i64>() as u64
    }

    fn with_spend(&self) -> BTreeMap<usize, (Budget, u64)> {
        self.states.iter().map(|(user, state)| (*user, (state.clone(), self.spent(*user)))).collect()
    }
}

struct Harness {
    partition: Partition,
    model: Model,
    ledger: Ledger,
    sq: u64,
    oq: u64,
    nonce: u64,
}

impl Harness {
    async fn new(mut partition: Partition) -> Self {
        partition.reset().await;
        let fresh = Budget { granted: 100, version: 1, policy: 1, ..Budget::default() };
        let states = (0..USERS).map(|user| (user, fresh.clone())).collect();
        let ledger = Ledger { states, rows: BTreeMap::new() };
        Self { partition, model: Model::default(), ledger, sq: 0, oq: 0, nonce: 1 }
    }

    async fn run(&mut self, step: &Step) {
        match step {
            Step::Batch(ops) => self.batch(ops).await,
            Step::Sync { user, granted, newer, policy, suspended } => {
                self.sync(*user, *granted, *newer, *policy, *suspended).await;
            }
            Step::Flush(count) => self.flush(*count).await,
            Step::Full(full) => self.model.full = *full,
            Step::ScriptFlush => {
                let () =
                    redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut self.partition.redis).await.unwrap();
                self.partition.load_scripts().await;
            }
            Step::Recover => self.recover().await,
            Step::Lose => {
                self.ledger.book(std::mem::take(&mut self.model.outbox));
                let () = redis::cmd("FLUSHALL").query_async(&mut self.partition.redis).await.unwrap();
                self.model.records.clear();
                self.recover().await;
            }
            Step::Stranger(kind, ops) => self.stranger(*kind, ops).await,
        }
        self.check().await;
    }

    fn head(&mut self) -> Head {
        self.nonce += 1;
        Head { high_water: self.sq, nonce: self.nonce, full: self.model.full, ..self.partition.head() }
    }

    async fn batch(&mut self, ops: &[Op]) {
        let ops: Vec<Op> = ops.iter().map(|op| self.informed(op)).collect();
        let sent: Vec<Operation> = ops.iter().map(operation).collect();
        let head = self.head();
        let before = self.model.outbox.len();
        let Applied::Done { sq, now_ms, answers } = self.partition.apply_with(&head, &sent).await else {
            panic!("an open partition refused {ops:?}")
        };
        assert_eq!(sq, self.sq + ops.len() as u64, "sq counts every operation");
        self.sq = sq;
        self.oq += ops.len() as u64;
        let mut cold = Vec::new();
        for ((op, answer), expected) in ops.iter().zip(&answers).zip(self.model.call(&ops, now_ms)) {
            assert_eq!(answer.status, expected.status, "{op:?} in {ops:?}");
            assert!(answer.due == expected.due || expected.status != Status::Denied, "{op:?} in {ops:?}");
            compare(op, answer, &expected);
            self.compare_stored(op, &expected).await;
            if expected.status == Status::Cold {
                cold.push(op.name.0);
            }
        }
        let written = self.partition.outbox().await;
        for (entry, booked) in
            written.iter().rev().zip(self.model.outbox.iter().rev()).take(self.model.outbox.len() - before)
        {
            assert_eq!(entry.outbox_id.nonce, self.nonce, "{booked:?}");
        }
        for user in cold {
            self.load(user).await;
        }
    }

    /// A reserve leaves its record out of its answer: what it has made is looked up, as the call has left it.
    async fn compare_stored(&mut self, op: &Op, expected: &Expected) {
        if (op.verb, expected.status) == (Verb::Reserve, Status::Ok) {
            let stored = self.partition.record(user(op.name.0), &rid(op.name.1)).await;
            compare_record(op, stored.as_ref(), &self.model.records[&op.name]);
        }
    }

    /// As the service does after UNKNOWN: what Postgres has charged at expiry goes along.
    fn informed(&self, op: &Op) -> Op {
        let rows = self.ledger.rows.get(&op.name);
        let known_to_redis = self.model.records.contains_key(&op.name);
        match rows {
            Some(rows) if op.verb == Verb::Settle && !known_to_redis => {
                let only_expiry = rows.iter().all(|row| row.kind == Kind::Expiry);
                let second = if only_expiry { rows[0].tokens as u64 } else { 0 };
                // A settled id is answered by Postgres and never sent again as unknown.
                let options = if only_expiry { op.options } else { op.options & Options::FOLLOWS.0 };
                Op { second, options, ..op.clone() }
            }
            // An id that was lost and is used again would be a second transaction; the flusher's business.
            Some(_) if !known_to_redis => Op { verb: Verb::Expire, ..op.clone() },
            _ => op.clone(),
        }
    }

    async fn load(&mut self, n: usize) {
        let state = self.ledger.states[&n].clone();
        let spent = self.ledger.spent(n);
        let args =
            self.partition.load_args(state.granted, state.version, state.policy, state.suspended, spent);
        let keys = [self.partition.keys.meta(), self.partition.keys.budget(BudgetId::Balance(user(n)))];
        self.partition.call(&scripts::LOAD, &keys, &args).await;
        if !self.model.budgets.contains_key(&n) {
            self.sq += 1;
            self.model.budgets.insert(n, Budget { spent, held: 0, ..state });
        }
    }

    async fn sync(&mut self, n: usize, granted: u64, newer: bool, policy: u64, suspended: bool) {
        let known = self.ledger.states[&n].version;
        let version = if newer { known + 1 } else { known };
        let state = Budget { granted, version, policy, suspended, ..Budget::default() };
        if newer {
            self.ledger.states.insert(n, state);
        }
        let args = [
            text(self.partition.epoch),
            text(self.sq),
            text(RUN_ID),
            text(granted),
            text(version),
            text(policy),
            text(u8::from(suspended)),
        ];
        let keys = [self.partition.keys.meta(), self.partition.keys.budget(BudgetId::Balance(user(n)))];
        let reply = self.partition.call(&scripts::SYNC, &keys, &args).await;
        let expected = match self.model.budgets.get_mut(&n) {
            None => 3,
            Some(budget) if budget.version >= version => 2,
            Some(budget) => {
                (budget.granted, budget.version, budget.policy, budget.suspended) =
                    (granted, version, policy, suspended);
                self.sq += 1;
                1
            }
        };
        let numbers: Vec<i64> = redis::from_redis_value(reply).unwrap();
        assert_eq!(numbers, [0, self.sq as i64, expected]);
    }

    async fn flush(&mut self, count: usize) {
        let mut entries = self.partition.outbox().await;
        entries.truncate(count);
        assert_eq!(self.partition.ack(&entries).await, entries.len() as i64);
        assert_eq!(self.partition.ack(&entries).await, 0, "an entry leaves once");
        let flushed: Vec<Booked> = self.model.outbox.drain(..entries.len()).collect();
        self.ledger.book(flushed);
    }

    async fn recover(&mut self) {
        self.ledger.book(std::mem::take(&mut self.model.outbox));
        let epoch = self.partition.epoch + 1;
        let (meta, outbox) = (self.partition.keys.meta(), self.partition.keys.outbox());
        let fenced = self.partition.call(&scripts::FENCE, &[meta.clone(), outbox], &[text(epoch)]).await;
        let fenced: Vec<i64> = redis::from_redis_value(fenced).unwrap();
        assert_eq!(fenced[0], 0);
        let entries = self.partition.outbox().await;
        self.partition.ack(&entries).await;
        self.partition.epoch = epoch;
        self.carry().await;
        let base = self.sq.max(self.oq) + 1_000_000;
        let args = [text(epoch), text(base), text(RUN_ID), text(1)];
        let opened: Vec<i64> =
            redis::from_redis_value(self.partition.call(&scripts::OPEN, &[meta], &args).await).unwrap();
        (self.sq, self.oq) = (base, base);
        self.model.recover(opened[1] as u64, &self.ledger.with_spend());
    }

    async fn carry(&mut self) {
        let pending: Vec<Name> =
            self.model.records.iter().filter(|(_, r)| r.state == State::Pending).map(|(n, _)| *n).collect();
        for n in 0..USERS {
            if pending.iter().any(|name| name.0 == n) {
                let (state, spent) = self.ledger.with_spend()[&n].clone();
                let mut args = self.partition.load_args(
                    state.granted,
                    state.version,
                    state.policy,
                    state.suspended,
                    spent,
                );
                args[2] = Vec::new();
                let keys =
                    [self.partition.keys.meta(), self.partition.keys.budget(BudgetId::Balance(user(n)))];
                self.partition.call(&scripts::LOAD, &keys, &args).await;
            }
        }
        let mut keys = vec![self.partition.keys.meta(), self.partition.keys.expiry()];
        let mut args = vec![text(self.partition.epoch), text(1_800_000), text(86_400_000)];
        for (u, r) in pending {
            keys.push(self.partition.keys.record(user(u), &rid(r)));
            keys.push(self.partition.keys.budget(BudgetId::Balance(user(u))));
            let name = member(user(u), &rid(r));
            args.push([&[0u8; 9][..], &[1, name.len() as u8], &name].concat());
        }
        // Twice: a repeated call must not count a hold again.
        self.partition.call(&scripts::CARRY, &keys, &args).await;
        self.partition.call(&scripts::CARRY, &keys, &args).await;
    }

    async fn stranger(&mut self, kind: u8, ops: &[Op]) {
        let sent: Vec<Operation> = ops.iter().map(operation).collect();
        let head = self.head();
        let (head, code) = match kind {
            0 => (Head { epoch: head.epoch - 1, ..head }, 3),
            1 => (Head { run_id: "another".into(), ..head }, 3),
            _ => (Head { high_water: self.sq + 1, ..head }, 4),
        };
        let before = self.partition.dump().await;
        let reply = self.partition.apply_with(&head, &sent).await;
        assert!(matches!(reply, Applied::Refused(c, _) if c == code), "{reply:?}");
        assert_eq!(self.partition.dump().await, before, "a refused call changes nothing");
    }

    /// Redis and the model hold the same, and both keep the invariants.
    async fn check(&mut self) {
        for n in 0..USERS {
            let Some(budget) = self.model.budgets.get(&n).cloned() else { continue };
            let stored = self.partition.budget(user(n)).await.unwrap();
            let numbers = [stored.granted, stored.spent, stored.held].map(|number| number.to_string());
            let expected = [budget.granted.to_string(), budget.spent.to_string(), budget.held.to_string()];
            assert_eq!(numbers, expected, "granted, spent and held of {n}");
            assert_eq!(budget.held, self.model.held_by_records(n), "held is the sum of the pending lines");
            let unflushed = self.model.outbox.iter().filter(|b| b.name.0 == n).map(|b| b.tokens).sum::<i64>();
            assert_eq!(
                budget.spent as i64,
                self.ledger.spent(n) as i64 + unflushed,
                "spent is ledger and outbox"
            );
        }
        let outbox: Vec<(String, Kind, i64, u8)> = self
            .partition
            .outbox()
            .await
            .into_iter()
            .map(|e| (format!("{}{}", e.user, e.reservation), e.kind, e.tokens, e.flags.0))
            .collect();
        let expected: Vec<_> = (self.model.outbox.iter())
            .map(|b| (format!("{}{}", user(b.name.0), rid(b.name.1)), b.kind, b.tokens, b.flags))
            .collect();
        assert_eq!(outbox, expected);
        let mut index = self.partition.index().await;
        index.sort();
        let pending = self.model.records.iter().filter(|(_, record)| record.state == State::Pending);
        let mut expected: Vec<Vec<u8>> =
            pending.map(|(name, _)| member(user(name.0), &rid(name.1))).collect();
        expected.sort();
        assert_eq!(index, expected, "the expiry index lists what is pending");
    }
}

fn operation(op: &Op) -> Operation {
    let (user, id) = (user(op.name.0), rid(op.name.1));
    let mut operation = Operation::new(op.verb, user, id, balance_line(user, op.tokens));
    operation.tokens = op.tokens;
    operation.ttl_ms = op.ttl_ms;
    operation.second = op.second;
    operation.options = Options(op.options);
    operation.policy_version = op.policy;
    operation.fingerprint = [op.print, op.verb as u8, 0, 0, 0, 0, 0, 1];
    operation
}

fn compare(op: &Op, answer: &cota::ledger::wire::Answer, expected: &Expected) {
    if let Some(budget) = expected.budget.as_ref().filter(|_| expected.status != Status::Cold) {
        let balance = answer.balance;
        let numbers = (balance.total, balance.used, balance.reserved, answer.suspended);
        assert_eq!(numbers, (budget.granted, budget.spent, budget.held, budget.suspended), "{op:?}");
    }
    if let Some(expected) = &expected.record {
        compare_record(op, answer.record.as_ref(), expected);
    }
}

fn compare_record(op: &Op, record: Option<&Record>, expected: &Rec) {
    let Rec { state, hold, progress, charged, flags, expires_at, print, .. } = expected;
    let record = record.unwrap_or_else(|| panic!("no record for {op:?}"));
    assert_eq!((record.state, record.progress, record.charged), (*state, *progress, *charged), "{op:?}");
    if print.is_some() {
        assert_eq!(record.lines[0].amount as u64, *hold, "{op:?}");
        assert_eq!(record.expires_at_ms, *expires_at, "{op:?}");
    }
    if matches!(state, State::Settled | State::Expired) {
        assert_eq!(record.flags.0, *flags, "{op:?}");
    }
}

#[test]
fn redis_agrees_with_the_model() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let redis = runtime.block_on(support::redis());
    let partition = runtime.block_on(Partition::connect(&redis.url()));
    let (connection, keys) = (partition.redis, partition.keys);
    let cases =
        std::env::var("COTA_TEST_PROPERTY_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(DEFAULT_CASES);
    let persistence = FileFailurePersistence::WithSource("proptest-regressions");
    let config = Config { cases, failure_persistence: Some(Box::new(persistence)), ..Config::default() };
    let mut runner = TestRunner::new(config);
    let result = runner.run(&prop::collection::vec(step(), STEPS), |steps| {
        runtime.block_on(async {
            let partition = Partition { redis: connection.clone(), keys: keys.clone(), epoch: 1 };
            let mut harness = Harness::new(partition).await;
            for step in &steps {
                harness.run(step).await;
            }
        });
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
