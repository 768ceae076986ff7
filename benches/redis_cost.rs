//! What a reserve and a settle cost Redis: CPU against one plain `SET … PX`, and memory.
//!
//! `cargo bench --bench redis_cost` starts a Redis as `cota dev` does, measures in interleaved rounds, prints, and
//! writes `target/bench-redis.json`. Only the CPU time of the Redis process counts, and only as a ratio of two readings
//! of one round: a busy machine and an unoptimised client change neither much.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]

use std::{collections::BTreeMap, fs, path::Path};

use cota::{
    devstack::{RedisOptions, RedisServer},
    ledger::{
        keys::Keys,
        scripts::{self, Script},
        wire::{Head, Operation, Verb, apply, fingerprint},
    },
    quota::{BudgetId, Line, Model, PartitionId, Partitions, ReservationId, UserId},
};
use redis::{Pipeline, Value, aio::MultiplexedConnection};
use serde_json::{Value as Json, json};
use uuid::Uuid;

const ROUNDS: usize = 5;
const ACCOUNTS: usize = 10_000;
const FULL_BATCH: usize = 64;
const BATCHES: [usize; 4] = [1, 4, 16, FULL_BATCH];
/// Operations of one reading; with small batches fewer, since each of them costs more.
const OPERATIONS: usize = 16_384;
const RESERVATIONS: usize = 100_000;
const RUN_ID: &str = "0123456789abcdef0123456789abcdef01234567";

struct Bench {
    redis: MultiplexedConnection,
    keys: Keys,
    model: Model,
}

/// One reservation to be: whose, and its id.
type Name = (UserId, ReservationId);

fn account(n: usize) -> UserId {
    UserId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + n as u128))
}

/// New ids, spread over the first `accounts` accounts.
fn names(count: usize, accounts: usize) -> Vec<Name> {
    let name = |_| {
        let id = ReservationId::new(&Uuid::now_v7().to_string()).unwrap();
        (account(rand::random_range(0..accounts)), id)
    };
    (0..count).map(name).collect()
}

impl Bench {
    async fn connect(url: &str) -> Self {
        let redis = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
        let keys = Keys::of(PartitionId(0), Partitions::new(1).unwrap());
        Self { redis, keys, model: Model::new("gpt-4o-mini").unwrap() }
    }

    async fn send(&mut self, pipe: &Pipeline) -> Vec<Value> {
        pipe.query_async(&mut self.redis).await.unwrap()
    }

    /// An empty, open partition.
    async fn reset(&mut self) {
        let mut pipe = Pipeline::new();
        pipe.cmd("FLUSHALL").cmd("HSET").arg(self.keys.meta());
        pipe.arg(&["st", "open", "ep", "1", "sq", "0", "oq", "0", "ri", RUN_ID]);
        for script in scripts::all() {
            pipe.cmd("SCRIPT").arg("LOAD").arg(script.source);
        }
        self.send(&pipe).await;
    }

    async fn load_accounts(&mut self) {
        for first in (0..ACCOUNTS).step_by(FULL_BATCH) {
            let mut pipe = Pipeline::new();
            for n in first..ACCOUNTS.min(first + FULL_BATCH) {
                let keys = [self.keys.meta(), self.keys.budget(BudgetId::Balance(account(n)))];
                let args = ["1", "0", RUN_ID, "1000000000000", "1", "1", "0", "0"]
                    .map(|arg| arg.as_bytes().to_vec());
                evalsha(&mut pipe, &scripts::LOAD, &keys, &args);
            }
            self.send(&pipe).await;
        }
    }

    /// As the service makes it, for one line on the account's balance.
    fn operation(&self, verb: Verb, (user, id): &Name) -> Operation {
        let tokens = if verb == Verb::Reserve { 1_000 } else { 600 };
        let lines = vec![Line { budget: BudgetId::Balance(*user), amount: tokens as i64 }];
        Operation {
            tokens,
            ttl_ms: 600_000,
            policy_version: 1,
            fingerprint: fingerprint(verb, &[Some(tokens)], Some(&self.model)),
            model: Some(self.model.clone()),
            ..Operation::new(verb, *user, id.clone(), lines)
        }
    }

    /// One `apply` call.
    fn apply(&self, operations: &[Operation]) -> Pipeline {
        let head = Head {
            epoch: 1,
            high_water: 0,
            run_id: RUN_ID,
            nonce: rand::random::<u64>() >> 2,
            full: false,
            retention_ms: 1_800_000,
            expired_retention_ms: 86_400_000,
        };
        let mut pipe = Pipeline::new();
        pipe.add_command(apply(&self.keys, head, &operations.iter().collect::<Vec<_>>()));
        pipe
    }

    async fn run(&mut self, operations: &[Operation], batch: usize) {
        for operations in operations.chunks(batch) {
            let replies = self.send(&self.apply(operations)).await;
            let [Value::Array(fields)] = replies.as_slice() else { panic!("{replies:?}") };
            let done = |field: &Value| matches!(field, Value::BulkString(answer) if answer[0] == 1);
            assert!(fields.len() == 4 + operations.len() && fields[4..].iter().all(done), "{fields:?}");
        }
    }

    /// Microseconds of Redis's CPU per `SET … PX`, in pipelines of 64, of a value as long as a record.
    async fn set_cost(&mut self) -> f64 {
        self.reset().await;
        let names = names(2 * OPERATIONS, ACCOUNTS);
        let before = self.cpu().await;
        for names in names.chunks(FULL_BATCH) {
            let mut pipe = Pipeline::new();
            for (user, id) in names {
                pipe.cmd("SET").arg(self.keys.record(*user, id)).arg(&[b'x'; 80]).arg("PX").arg(600_000);
            }
            self.send(&pipe).await;
        }
        (self.cpu().await - before) * 1e6 / names.len() as f64
    }

    /// Microseconds of Redis's CPU per reserve, and per settle of what was reserved.
    async fn verb_costs(&mut self, batch: usize, accounts: usize) -> [f64; 2] {
        self.reset().await;
        self.load_accounts().await;
        let names = names(if batch < 16 { OPERATIONS / 4 } else { OPERATIONS }, accounts);
        let mut costs = [0.0; 2];
        for (verb, cost) in [Verb::Reserve, Verb::Settle].into_iter().zip(&mut costs) {
            let operations: Vec<_> = names.iter().map(|name| self.operation(verb, name)).collect();
            let before = self.cpu().await;
            self.run(&operations, batch).await;
            *cost = (self.cpu().await - before) * 1e6 / names.len() as f64;
        }
        costs
    }

    /// Bytes of memory per account, per pending reservation of one line, and per further line.
    async fn memory_costs(&mut self) -> [f64; 3] {
        self.reset().await;
        let empty = self.info("memory", "used_memory").await;
        self.load_accounts().await;
        let loaded = self.info("memory", "used_memory").await;
        let names = names(RESERVATIONS, ACCOUNTS);
        let mut held = Vec::new();
        for lines in 1..=2 {
            self.reset().await;
            self.load_accounts().await;
            let before = self.info("memory", "used_memory").await;
            let with_lines = |name| {
                let mut operation = self.operation(Verb::Reserve, name);
                // On the balance next to it: a script treats all lines alike.
                let next = account((name.0.0.as_u128() as usize + 1) % ACCOUNTS);
                operation
                    .lines
                    .extend((1..lines).map(|_| Line { budget: BudgetId::Balance(next), amount: 1 }));
                operation
            };
            let operations: Vec<_> = names.iter().map(with_lines).collect();
            self.run(&operations, FULL_BATCH).await;
            held.push((self.info("memory", "used_memory").await - before) / RESERVATIONS as f64);
        }
        [(loaded - empty) / ACCOUNTS as f64, held[0], held[1] - held[0]]
    }

    /// Seconds of CPU the Redis process has used.
    async fn cpu(&mut self) -> f64 {
        self.info("cpu", "used_cpu_user").await + self.info("cpu", "used_cpu_sys").await
    }

    async fn info(&mut self, section: &str, field: &str) -> f64 {
        let text: String = redis::cmd("INFO").arg(section).query_async(&mut self.redis).await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap().trim().parse().unwrap()
    }
}

fn evalsha(pipe: &mut Pipeline, script: &Script, keys: &[Vec<u8>], args: &[Vec<u8>]) {
    let command = pipe.cmd("EVALSHA").arg(script.sha()).arg(keys.len());
    keys.iter().chain(args).for_each(|arg| {
        command.arg(arg.as_slice());
    });
}

/// Readings by name.
#[derive(Default)]
struct Readings(BTreeMap<String, Vec<f64>>);

impl Readings {
    fn add(&mut self, name: &str, value: f64) {
        self.0.entry(name.to_owned()).or_default().push(value);
    }

    /// `{name: {min, median, max}}`.
    fn summary(mut self) -> BTreeMap<String, Json> {
        let summarise = |values: &mut Vec<f64>| {
            values.sort_by(f64::total_cmp);
            let rounded = |value: f64| (value * 100.0).round() / 100.0;
            let (min, max) = (values[0], values[values.len() - 1]);
            json!({"min": rounded(min), "median": rounded(values[values.len() / 2]), "max": rounded(max)})
        };
        self.0.iter_mut().map(|(name, values)| (name.clone(), summarise(values))).collect()
    }
}

async fn round(bench: &mut Bench, readings: &mut Readings) {
    let set = bench.set_cost().await;
    readings.add("redis_cpu_set_us", set);
    for accounts in [ACCOUNTS, 1] {
        for batch in BATCHES {
            let [reserve, settle] = bench.verb_costs(batch, accounts).await;
            let case = match (batch, accounts) {
                (FULL_BATCH, ACCOUNTS) => String::new(),
                (_, ACCOUNTS) => format!("_batch_{batch}"),
                _ => format!("_batch_{batch}_one_account"),
            };
            readings.add(&format!("redis_cpu_vs_set{case}"), reserve / set);
            readings.add(&format!("redis_cpu_settle_vs_set{case}"), settle / set);
        }
    }
    let [account, reservation, line] = bench.memory_costs().await;
    readings.add("bytes_per_account", account);
    readings.add("bytes_per_reservation", reservation);
    readings.add("bytes_per_further_line", line);
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let folder = std::env::temp_dir().join(format!("cota-bench-{}", Uuid::new_v4().simple()));
    let server = RedisServer::start(RedisOptions::new(&folder)).await.expect("a Redis of our own");
    let mut bench = Bench::connect(&server.url()).await;
    let mut readings = Readings::default();
    for _ in 0..ROUNDS {
        round(&mut bench, &mut readings).await;
    }
    drop(server);
    let _ = fs::remove_dir_all(&folder);

    let summary = readings.summary();
    for (name, figure) in &summary {
        println!("{name:48} {figure}");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-redis.json");
    fs::create_dir_all(path.parent().expect("a file in a folder")).unwrap();
    fs::write(&path, serde_json::to_vec_pretty(&summary).unwrap()).unwrap();
    println!("written to {}", path.display());
}
