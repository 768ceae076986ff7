//! One partition on a real Redis, driven by the scripts alone: what the Lua contract and the property tests stand on.
#![allow(dead_code, reason = "each test binary uses its own part")]

use cota::{
    ledger::{
        keys::Keys,
        scripts::{self, Script},
        wire::{Answer, Operation, Record, StoredBudget, decode_entry},
    },
    quota::{BudgetId, Entry, Line, PartitionId, Partitions, ReservationId, UserId},
};
use redis::{Value, aio::MultiplexedConnection};

/// Defaults of a partition under test: the first epoch, run id `run`, everything open.
pub const EPOCH: u64 = 1;
pub const RUN_ID: &str = "run";

pub fn user(n: usize) -> UserId {
    UserId(uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + n as u128))
}

pub fn rid(n: usize) -> ReservationId {
    ReservationId::new(&format!("r{n}")).unwrap()
}

pub fn balance_line(user: UserId, amount: u64) -> Vec<Line> {
    vec![Line { budget: BudgetId::Balance(user), amount: amount as i64 }]
}

/// What `apply` is told besides the operations.
#[derive(Clone, Debug)]
pub struct Head {
    pub epoch: u64,
    pub high_water: u64,
    pub run_id: String,
    pub nonce: u64,
    pub full: bool,
}

impl Default for Head {
    fn default() -> Self {
        Self { epoch: EPOCH, high_water: 0, run_id: RUN_ID.into(), nonce: 77, full: false }
    }
}

/// The reply of `apply`.
#[derive(Debug, PartialEq)]
pub enum Applied {
    Done {
        sq: u64,
        now_ms: u64,
        answers: Vec<Answer>,
    },
    /// The head's refusal: its code and its number.
    Refused(i64, Option<i64>),
}

impl Applied {
    /// The answers of a batch that ran.
    #[track_caller]
    pub fn answers(self) -> Vec<Answer> {
        match self {
            Self::Done { answers, .. } => answers,
            refused => panic!("the batch was refused: {refused:?}"),
        }
    }
}

pub struct Partition {
    pub redis: MultiplexedConnection,
    pub keys: Keys,
    pub epoch: u64,
}

pub fn text(n: impl ToString) -> Vec<u8> {
    n.to_string().into_bytes()
}

impl Partition {
    /// An open partition in an empty Redis.
    pub async fn open(url: &str) -> Self {
        let mut partition = Self::connect(url).await;
        partition.reset().await;
        partition
    }

    pub async fn connect(url: &str) -> Self {
        let client = redis::Client::open(url).unwrap();
        let redis = client.get_multiplexed_async_connection().await.unwrap();
        let keys = Keys::of(PartitionId(0), Partitions::new(1).unwrap());
        let mut partition = Self { redis, keys, epoch: EPOCH };
        partition.load_scripts().await;
        partition
    }

    pub async fn load_scripts(&mut self) {
        for script in scripts::all() {
            let _: String = redis::cmd("SCRIPT")
                .arg("LOAD")
                .arg(script.source)
                .query_async(&mut self.redis)
                .await
                .unwrap();
        }
    }

    /// Empties Redis and opens the partition in its first epoch.
    pub async fn reset(&mut self) {
        let () = redis::cmd("FLUSHALL").query_async(&mut self.redis).await.unwrap();
        self.epoch = EPOCH;
        let meta = self.keys.meta();
        let () = redis::cmd("HSET")
            .arg(meta)
            .arg(&["st", "open", "ep", "1", "sq", "0", "oq", "0", "ri", RUN_ID])
            .query_async(&mut self.redis)
            .await
            .unwrap();
    }

    pub async fn try_call(
        &mut self,
        script: &Script,
        keys: &[Vec<u8>],
        args: &[Vec<u8>],
    ) -> redis::RedisResult<Value> {
        let mut command = redis::cmd("EVALSHA");
        command.arg(script.sha()).arg(keys.len());
        for arg in keys.iter().chain(args) {
            command.arg(arg.as_slice());
        }
        command.query_async(&mut self.redis).await
    }

    pub async fn call(&mut self, script: &Script, keys: &[Vec<u8>], args: &[Vec<u8>]) -> Value {
        self.try_call(script, keys, args).await.unwrap_or_else(|e| panic!("{}: {e}", script.name))
    }

    pub fn head(&self) -> Head {
        Head { epoch: self.epoch, ..Head::default() }
    }

    pub async fn apply(&mut self, operations: &[Operation]) -> Applied {
        let head = self.head();
        self.apply_with(&head, operations).await
    }

    pub async fn one(&mut self, operation: Operation) -> Answer {
        self.apply(&[operation]).await.answers().remove(0)
    }

    pub fn apply_keys(&self, operations: &[Operation]) -> Vec<Vec<u8>> {
        let mut keys = vec![self.keys.meta(), self.keys.expiry(), self.keys.outbox()];
        for op in operations {
            keys.push(self.keys.record(op.user, &op.id));
            keys.extend(op.lines.iter().map(|line| self.keys.budget(line.budget)));
        }
        keys
    }

    pub fn apply_args(head: &Head, operations: &[Operation]) -> Vec<Vec<u8>> {
        let mut args = vec![
            text(head.epoch),
            text(head.high_water),
            text(&head.run_id),
            text(head.nonce),
            text(u8::from(head.full)),
            text(1_800_000),
            text(86_400_000),
            text(86_400_000),
        ];
        args.extend(operations.iter().map(Operation::encode));
        args
    }

    pub async fn apply_with(&mut self, head: &Head, operations: &[Operation]) -> Applied {
        let reply = self
            .call(&scripts::APPLY, &self.apply_keys(operations), &Self::apply_args(head, operations))
            .await;
        let Value::Array(fields) = reply else { panic!("no array: {reply:?}") };
        let number = |i: usize| match fields.get(i) {
            Some(Value::Int(n)) => Some(*n),
            _ => None,
        };
        if number(0) != Some(0) {
            return Applied::Refused(number(0).unwrap(), number(1));
        }
        assert_eq!(fields[3], Value::BulkString(text(head.nonce)), "the nonce is echoed");
        let decode = |field: &Value| match field {
            Value::BulkString(bytes) => Answer::decode(bytes).unwrap(),
            other => panic!("no answer: {other:?}"),
        };
        Applied::Done {
            sq: number(1).unwrap() as u64,
            now_ms: number(2).unwrap() as u64,
            answers: fields[4..].iter().map(decode).collect(),
        }
    }

    /// Gives Redis an account: granted, spent; version and policy version 1.
    pub async fn load(&mut self, user: UserId, granted: u64, spent: u64) {
        let args = self.load_args(granted, 1, 1, false, spent);
        let keys = [self.keys.meta(), self.keys.budget(BudgetId::Balance(user))];
        self.call(&scripts::LOAD, &keys, &args).await;
    }

    pub fn load_args(
        &self,
        granted: u64,
        version: u64,
        policy: u64,
        suspended: bool,
        spent: u64,
    ) -> Vec<Vec<u8>> {
        vec![
            text(self.epoch),
            text(0),
            text(RUN_ID),
            text(granted),
            text(version),
            text(policy),
            text(u8::from(suspended)),
            text(spent),
        ]
    }

    /// An account's balance as it is stored, of whatever life.
    pub async fn budget(&mut self, user: UserId) -> Option<StoredBudget> {
        let key = self.keys.budget(BudgetId::Balance(user));
        let bytes: Option<Vec<u8>> = redis::cmd("GET").arg(key).query_async(&mut self.redis).await.unwrap();
        bytes.map(|bytes| StoredBudget::decode(&bytes).unwrap())
    }

    /// Puts a balance there by hand.
    pub async fn set_budget(&mut self, user: UserId, budget: &StoredBudget) {
        let mut bytes = vec![1, u8::from(budget.suspended)];
        bytes.extend_from_slice(&budget.epoch.to_be_bytes()[4..]);
        for number in [budget.granted, budget.version, budget.policy_version, budget.spent, budget.held] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        let key = self.keys.budget(BudgetId::Balance(user));
        let () = redis::cmd("SET").arg(key).arg(bytes).query_async(&mut self.redis).await.unwrap();
    }

    pub async fn record(&mut self, user: UserId, id: &ReservationId) -> Option<Record> {
        let key = self.keys.record(user, id);
        let bytes: Option<Vec<u8>> = redis::cmd("GET").arg(key).query_async(&mut self.redis).await.unwrap();
        bytes.map(|bytes| Record::decode(&bytes).unwrap())
    }

    /// Milliseconds left, -1 without a TTL, -2 without a record.
    pub async fn record_ttl(&mut self, user: UserId, id: &ReservationId) -> i64 {
        let key = self.keys.record(user, id);
        redis::cmd("PTTL").arg(key).query_async(&mut self.redis).await.unwrap()
    }

    /// Everything in the outbox.
    pub async fn outbox(&mut self) -> Vec<Entry> {
        let keys = [self.keys.meta(), self.keys.outbox()];
        let Value::Array(fields) = self.call(&scripts::OUTBOX, &keys, &[text(10_000), text("-")]).await
        else {
            panic!()
        };
        let entry = |pair: &[Value]| match pair {
            [Value::BulkString(id), Value::BulkString(payload)] => {
                let id = std::str::from_utf8(id).unwrap().parse().unwrap();
                decode_entry(id, payload).unwrap()
            }
            other => panic!("no entry: {other:?}"),
        };
        fields[7..].chunks(2).map(entry).collect()
    }

    /// Acks entries as the flusher does; says how many were deleted.
    pub async fn ack(&mut self, entries: &[Entry]) -> i64 {
        let records = entries.iter().map(|e| self.keys.record(e.user, &e.reservation));
        let keys: Vec<_> = std::iter::once(self.keys.outbox()).chain(records).collect();
        let ids = entries.iter().map(|e| text(e.outbox_id));
        let args: Vec<_> = [text(1_800_000), text(86_400_000)].into_iter().chain(ids).collect();
        match self.call(&scripts::ACK, &keys, &args).await {
            Value::Int(deleted) => deleted,
            other => panic!("{other:?}"),
        }
    }

    /// Members of the expiry index.
    pub async fn index(&mut self) -> Vec<Vec<u8>> {
        let key = self.keys.expiry();
        redis::cmd("ZRANGE").arg(key).arg(0).arg(-1).query_async(&mut self.redis).await.unwrap()
    }

    /// Every key and its serialized value, but the meta hash: equal dumps mean nothing changed.
    pub async fn dump(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query_async(&mut self.redis).await.unwrap();
        keys.retain(|key| *key != self.keys.meta());
        keys.sort();
        let mut dump = Vec::new();
        for key in keys {
            let value: Vec<u8> = redis::cmd("DUMP").arg(&key).query_async(&mut self.redis).await.unwrap();
            dump.push((key, value));
        }
        dump
    }

    pub async fn meta(&mut self, field: &str) -> Option<String> {
        redis::cmd("HGET").arg(self.keys.meta()).arg(field).query_async(&mut self.redis).await.unwrap()
    }
}
