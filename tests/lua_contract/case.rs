//! A partition under test, and the short ways to ask it.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    time::{Duration, Instant},
};

use cota::{
    ledger::{
        keys::member,
        scripts::{self, Script},
        wire::{Answer, Operation, Record, Status, Verb},
    },
    quota::{BudgetId, Entry, UserId},
};
use redis::{FromRedisValue, Value};

use crate::{
    ops::{Tweak, extend, reserve},
    support::{
        TestRedis,
        partition::{Applied, Head, Partition, RUN_ID, rid, text, user},
    },
};

/// Long enough for any loaded machine; nothing waits for it when all is well.
const DEADLINE: Duration = Duration::from_secs(20);

/// Declares tests: each gets a [`Case`] and ends with its invariants.
macro_rules! contract {
    ($(fn $name:ident($case:ident) $body:block)+) => {
        $(
            #[tokio::test]
            async fn $name() {
                let mut case = $crate::case::Case::start().await;
                {
                    let $case = &mut case;
                    $body
                }
                case.check().await;
            }
        )+
    };
}

pub struct Case {
    partition: Partition,
    /// Per account: spend it was loaded with, and acked since, less what the outbox held at its load.
    pub flushed: BTreeMap<UserId, i64>,
    _server: TestRedis,
}

impl Deref for Case {
    type Target = Partition;

    fn deref(&self) -> &Partition {
        &self.partition
    }
}

impl DerefMut for Case {
    fn deref_mut(&mut self) -> &mut Partition {
        &mut self.partition
    }
}

impl Case {
    pub async fn start() -> Self {
        let server = crate::support::redis().await;
        let partition = Partition::open(&server.url()).await;
        Self { partition, flushed: BTreeMap::new(), _server: server }
    }

    pub async fn numbers(&mut self, script: &Script, keys: &[Vec<u8>], args: &[Vec<u8>]) -> Vec<i64> {
        let reply = self.call(script, keys, args).await;
        Vec::from_redis_value(reply).unwrap()
    }

    pub fn budget_keys(&self, n: usize) -> [Vec<u8>; 2] {
        [self.keys.meta(), self.keys.budget(BudgetId::Balance(user(n)))]
    }

    /// Loads user 0: granted, spent.
    pub async fn grant(&mut self, granted: u64, spent: u64) {
        self.load(0, granted, spent).await;
    }

    pub async fn load(&mut self, n: usize, granted: u64, spent: u64) {
        let args = self.load_args(granted, 1, 1, false, spent);
        let reply = self.load_with(n, &args).await;
        assert_eq!((reply[0], reply[2]), (0, 1), "the account was cold");
    }

    /// Like recovery: before the partition is open.
    pub async fn load_recovering(&mut self, n: usize, granted: u64, spent: u64) -> Vec<i64> {
        let mut args = self.load_args(granted, 1, 1, false, spent);
        args[2] = Vec::new();
        self.load_with(n, &args).await
    }

    pub async fn load_with(&mut self, n: usize, args: &[Vec<u8>]) -> Vec<i64> {
        let reply = self.numbers(&scripts::LOAD, &self.budget_keys(n), args).await;
        if reply[0] == 0 && reply[2] == 1 {
            let spent: i64 = std::str::from_utf8(&args[7]).unwrap().parse().unwrap();
            let entries = self.outbox().await;
            let lines = entries.iter().flat_map(|e| &e.lines).filter(|line| line.budget.owner() == user(n));
            self.flushed.insert(user(n), spent - lines.map(|line| line.amount).sum::<i64>());
        }
        reply
    }

    pub async fn sync(
        &mut self,
        n: usize,
        granted: u64,
        version: u64,
        policy: u64,
        suspended: bool,
    ) -> Vec<i64> {
        let args = self.sync_args(granted, version, policy, suspended);
        self.numbers(&scripts::SYNC, &self.budget_keys(n), &args).await
    }

    pub fn sync_args(&self, granted: u64, version: u64, policy: u64, suspended: bool) -> Vec<Vec<u8>> {
        let mut args = self.load_args(granted, version, policy, suspended, 0);
        args.truncate(7);
        args
    }

    /// Granted, spent, held of user 0; empty when there is no balance.
    pub async fn balance(&mut self) -> [String; 3] {
        self.balance_of(0).await
    }

    pub async fn balance_of(&mut self, n: usize) -> [String; 3] {
        match self.budget(user(n)).await {
            Some(budget) => [budget.granted, budget.spent, budget.held].map(|number| number.to_string()),
            None => <[String; 3]>::default(),
        }
    }

    #[track_caller]
    pub fn assert_balance(answer: &Answer, total: u64, used: u64, reserved: u64) {
        let b = answer.balance;
        assert_eq!(
            (b.total, b.used, b.reserved),
            (total, used, reserved),
            "total, used, reserved: {answer:?}"
        );
    }

    pub async fn gives(&mut self, op: Operation, status: Status) -> Answer {
        let answer = self.one(op.clone()).await;
        assert_eq!(answer.status, status, "{op:?}: {answer:?}");
        answer
    }

    /// An answer of a reserve brings no record: then the one it has made stands in for it.
    pub async fn ok(&mut self, op: Operation) -> Answer {
        let (verb, user, id) = (op.verb, op.user, op.id.clone());
        let answer = self.gives(op, Status::Ok).await;
        assert_eq!(answer.record.is_none(), verb == Verb::Reserve, "{verb:?} {answer:?}");
        let record = match answer.record {
            Some(record) => Some(record),
            None => self.record(user, &id).await,
        };
        Answer { record, ..answer }
    }

    /// The answer, and that it changed nothing but the counts in the meta hash.
    pub async fn unchanged(&mut self, op: Operation, status: Status) -> Answer {
        let before = self.dump().await;
        let answer = self.gives(op, status).await;
        assert_eq!(self.dump().await, before, "{status:?} changes nothing");
        answer
    }

    /// The same under another head: full, another nonce.
    pub async fn unchanged_with(&mut self, head: &Head, op: Operation, status: Status) -> Answer {
        let before = self.dump().await;
        let answer = self.apply_with(head, &[op]).await.answers().remove(0);
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(self.dump().await, before, "{status:?} changes nothing");
        answer
    }

    pub async fn statuses(&mut self, operations: &[Operation]) -> Vec<Status> {
        self.apply(operations).await.answers().iter().map(|answer| answer.status).collect()
    }

    pub fn full(&self) -> Head {
        Head { full: true, ..self.head() }
    }

    /// The head's refusal: code, number; and that not even the meta hash changed.
    pub async fn refuses(&mut self, head: &Head, op: Operation) -> (i64, Option<i64>) {
        let (before, meta) = (self.dump().await, self.all_meta().await);
        let Applied::Refused(code, number) = self.apply_with(head, &[op]).await else {
            panic!("not refused")
        };
        assert_eq!((self.dump().await, self.all_meta().await), (before, meta), "a refusal changes nothing");
        (code, number)
    }

    pub async fn all_meta(&mut self) -> BTreeMap<String, String> {
        let key = self.keys.meta();
        redis::cmd("HGETALL").arg(key).query_async(&mut self.partition.redis).await.unwrap()
    }

    pub async fn set_meta(&mut self, field: &str, value: impl ToString) {
        let key = self.keys.meta();
        self.command(&[b"HSET", &key, field.as_bytes(), value.to_string().as_bytes()]).await;
    }

    /// Any command; its reply is not asked for.
    pub async fn command(&mut self, words: &[&[u8]]) {
        let mut command = redis::Cmd::new();
        words.iter().for_each(|word| {
            command.arg(*word);
        });
        let _: Value = command.query_async(&mut self.partition.redis).await.unwrap();
    }

    pub async fn rec(&mut self, id: usize) -> Record {
        self.record(user(0), &rid(id)).await.unwrap_or_else(|| panic!("no record r{id}"))
    }

    pub async fn ttl(&mut self, id: usize) -> i64 {
        self.record_ttl(user(0), &rid(id)).await
    }

    /// That the record ages, and started to with about this retention.
    pub async fn assert_ttl(&mut self, id: usize, retention_ms: i64) {
        let ttl = self.ttl(id).await;
        assert!(
            (retention_ms - 60_000..=retention_ms).contains(&ttl),
            "a ttl of {retention_ms} ms, not {ttl}"
        );
    }

    /// Acks entries, and remembers what has left.
    pub async fn flush(&mut self, entries: &[Entry]) -> i64 {
        let before = self.outbox().await;
        let deleted = self.ack(entries).await;
        let after = self.outbox().await;
        for entry in before.iter().filter(|entry| !after.contains(entry)) {
            for line in &entry.lines {
                *self.flushed.entry(line.budget.owner()).or_default() += line.amount;
            }
        }
        deleted
    }

    pub async fn flush_all(&mut self) -> i64 {
        let entries = self.outbox().await;
        self.flush(&entries).await
    }

    /// The only entry of the outbox.
    pub async fn entry(&mut self) -> Entry {
        let entries = self.outbox().await;
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries.into_iter().next().unwrap()
    }

    /// `{now, oldest, members}` of the `due` script.
    pub async fn due(&mut self, most: usize) -> (i64, i64, Vec<Vec<u8>>) {
        let keys = [self.keys.expiry()];
        let Value::Array(fields) = self.call(&scripts::DUE, &keys, &[text(most)]).await else { panic!() };
        let mut fields = fields.into_iter();
        let mut number = || i64::from_redis_value(fields.next().unwrap()).unwrap();
        let (now, oldest) = (number(), number());
        (now, oldest, fields.map(|field| Vec::from_redis_value(field).unwrap()).collect())
    }

    /// Reserves with progress reported, and waits until it is due; nobody has swept it.
    pub async fn overdue(&mut self, id: usize, tokens: u64, progress: u64) {
        let mut operations = vec![reserve(id, tokens).ttl(1)];
        if progress > 0 {
            operations.push(extend(id, tokens).second(progress));
        }
        let statuses = self.statuses(&operations).await;
        assert!(statuses.iter().all(|status| *status == Status::Ok), "{statuses:?}");
        self.wait_due(id).await;
    }

    pub async fn wait_due(&mut self, id: usize) {
        let (deadline, member) = (Instant::now() + DEADLINE, member(user(0), &rid(id)));
        while !self.due(64).await.2.contains(&member) {
            assert!(Instant::now() < deadline, "r{id} never comes due");
            tokio::task::yield_now().await;
        }
    }

    pub async fn fence(&mut self, epoch: u64) -> Vec<i64> {
        let keys = [self.keys.meta(), self.keys.outbox()];
        self.numbers(&scripts::FENCE, &keys, &[text(epoch)]).await
    }

    /// Fences and from then on speaks in that epoch.
    pub async fn begin_recovery(&mut self, epoch: u64) {
        assert_eq!(self.fence(epoch).await[0], 0);
        self.partition.epoch = epoch;
    }

    /// `carry` of user 0's reservations: verdict, charged, id.
    pub async fn carry(&mut self, verdicts: &[(u8, u64, usize)]) -> Vec<i64> {
        let (keys, args) = self.carry_call(verdicts);
        self.numbers(&scripts::CARRY, &keys, &args).await
    }

    /// Its keys and arguments.
    pub fn carry_call(&self, verdicts: &[(u8, u64, usize)]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let mut keys = vec![self.keys.meta(), self.keys.expiry()];
        let mut args = vec![text(self.epoch), text(1_800_000), text(86_400_000)];
        for (verdict, charged, id) in verdicts {
            keys.push(self.keys.record(user(0), &rid(*id)));
            keys.push(self.keys.budget(BudgetId::Balance(user(0))));
            let name = member(user(0), &rid(*id));
            args.push([&[*verdict][..], &charged.to_be_bytes(), &[1, name.len() as u8], &name].concat());
        }
        (keys, args)
    }

    pub async fn open(&mut self, epoch: u64, base: u64, recovered: bool) -> Vec<i64> {
        let args = [text(epoch), text(base), text(RUN_ID), text(u8::from(recovered))];
        self.numbers(&scripts::OPEN, &[self.keys.meta()], &args).await
    }

    /// A whole recovery without loss: drained, nothing carried.
    pub async fn recover(&mut self, epoch: u64) {
        self.begin_recovery(epoch).await;
        self.flush_all().await;
        assert_eq!(self.open(epoch, 1_000_000 * epoch, true).await[0], 0);
    }

    /// Puts a record of a format nobody knows yet in the place of a reservation.
    pub async fn plant_unknown_format(&mut self, id: usize) {
        let key = self.keys.record(user(0), &rid(id));
        self.command(&[b"SET", &key, b"\x02what a later version writes"]).await;
    }
}
