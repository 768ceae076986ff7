//! Requests per second: reserves and settles against the no-op handler, batches against single calls, and how far
//! the flusher falls behind meanwhile.

use std::time::Duration;

use tokio::time::sleep;

use crate::{AnyError, accounts, figures::Figures, noop::Noop, stack::Stack, wrk::Script};

const ROUNDS: u32 = 3;
const SECONDS: u32 = 5;
/// A settle finds what the reserves before it left; it is run for less long than they were, so that it does not run out.
const SETTLE_SECONDS: u32 = 3;

const RESERVE: &str = r#"local id = "b-" .. salt .. "-" .. number
  return post(user(number) .. "/reservations", '{"id":"' .. id .. '","tokens":1,"model":"gpt-5"}')"#;
const SETTLE: &str = r#"local id = "b-" .. salt .. "-" .. number
  return post(user(number) .. "/reservations/" .. id .. "/settle", '{"tokens":1}')"#;
/// Settles what was reserved 128 calls before: it has been answered by then. wrk makes the first request and does not
/// send it.
const BOTH: &str = r#"local n = math.floor((number + 1) / 2)
  if number % 2 == 1 or n <= 129 then
    local id = "b-" .. salt .. "-" .. number
    return post(user(n) .. "/reservations", '{"id":"' .. id .. '","tokens":1,"model":"gpt-5"}')
  end
  n = n - 128
  local id = "b-" .. salt .. "-" .. (2 * n - 1)
  return post(user(n) .. "/reservations/" .. id .. "/settle", '{"tokens":1}')"#;
const BATCH: &str = r#"local operations = {}
  for n = 1, 64 do
    operations[n] = '{"op":"reserve","user_id":"' .. users[(number * 64 + n) % accounts] .. '","id":"b-' .. salt .. "-"
      .. number .. "-" .. n .. '","tokens":1,"model":"gpt-5"}'
  end
  return post("/v1/batch", '{"operations":[' .. table.concat(operations, ",") .. "]}")"#;

/// The processes and requests of these figures.
struct Bench {
    noop: Noop,
    stack: Stack,
    reserve: Script,
    settle: Script,
    both: Script,
    batch: Script,
}

pub async fn measure(figures: &mut Figures, batches: bool) -> Result<(), AnyError> {
    let stack = Stack::start().await?;
    accounts::create(&stack).await?;
    let script = |name, request| Script::new(name, &stack.facts.gateway_jwt, request);
    let (reserve, settle) = (script("reserve", RESERVE)?, script("settle", SETTLE)?);
    let (both, batch) = (script("both", BOTH)?, script("batch", BATCH)?);
    let bench = Bench { noop: Noop::start().await?, stack, reserve, settle, both, batch };
    // What is only slow at first (page faults, caches, batches of the load) is no part of any figure.
    bench.reserve.run(&bench.stack.facts.url, "warm", 32, 2).await?;
    bench.reserve.run(&bench.noop.url, "warm", 32, 2).await?;
    for round in 0..ROUNDS {
        eprintln!("throughput, round {} of {ROUNDS}", round + 1);
        bench.round(figures, round, batches).await?;
    }
    bench.stack.stop().await
}

impl Bench {
    async fn round(&self, figures: &mut Figures, round: u32, batches: bool) -> Result<(), AnyError> {
        let url = &self.stack.facts.url;
        let salt = |kind: &str| format!("{kind}{round}");
        let noop = self.reserve.run(&self.noop.url, "n", 32, SECONDS).await?.per_second;
        let reserve = self.reserve.run(url, &salt("r"), 32, SECONDS).await?.per_second;
        let settle = self.settle.run(url, &salt("r"), 32, SETTLE_SECONDS).await?.per_second;
        let noop_128 = self.reserve.run(&self.noop.url, "n", 128, SECONDS).await?.per_second;
        let reserve_128 = self.reserve.run(url, &salt("s"), 128, SECONDS).await?.per_second;
        figures.add("noop_per_s", noop);
        figures.add("reserve_per_s", reserve);
        figures.add("reserve_vs_noop", reserve / noop);
        figures.add("reserve_vs_noop_128", reserve_128 / noop_128);
        figures.add("settle_vs_noop", settle / noop);
        figures.add("lag_at_full_speed_seconds", self.lag(&salt("l")).await?);
        if batches {
            let batch = 64.0 * self.batch.run(url, &salt("b"), 32, SECONDS).await?.per_second;
            let single = self.reserve.run(url, &salt("t"), 32, SECONDS).await?.per_second;
            figures.add("batch_vs_single", batch / single);
        }
        Ok(())
    }

    /// The greatest age of an outbox entry while reserves and settles run at full speed, in seconds.
    async fn lag(&self, salt: &str) -> Result<f64, AnyError> {
        let load = self.both.run(&self.stack.facts.url, salt, 32, SECONDS);
        tokio::pin!(load);
        let mut worst = 0_f64;
        loop {
            tokio::select! {
                seen = &mut load => return seen.map(|_| worst),
                () = sleep(Duration::from_millis(100)) => {
                    worst = worst.max(self.stack.gauge("cota_outbox_age_seconds").await?);
                }
            }
        }
    }
}
