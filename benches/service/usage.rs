//! What users and operators read, over millions of transactions: each call over HTTP, one after the other.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, sleep};

use crate::{AnyError, accounts, figures::Figures, stack::Stack};

const ROUNDS: u32 = 3;
/// Calls of a round, each for another user.
const CALLS: u64 = 100;
const USERS: u64 = 1_000;
/// Transactions, a third of them in the running month; fewer by `COTA_BENCH_TRANSACTIONS`.
const TRANSACTIONS: u64 = 5_000_000;
const PATIENCE: Duration = Duration::from_secs(600);

pub async fn measure(figures: &mut Figures) -> Result<(), AnyError> {
    let stack = Stack::start().await?;
    let transactions = match std::env::var("COTA_BENCH_TRANSACTIONS") {
        Ok(number) => number.parse()?,
        Err(_) => TRANSACTIONS,
    };
    let mut postgres = PgConnection::connect(&stack.facts.postgres_url).await?;
    eprintln!("usage: {transactions} transactions of {USERS} users");
    fill(&mut postgres, i64::try_from(transactions)?).await?;
    told(&mut postgres).await?;
    let caller = Caller { client: reqwest::Client::new(), stack: &stack };
    for round in 0..=ROUNDS {
        // The first round fills caches.
        let mut add = |name: &str, value: f64| {
            if round > 0 {
                figures.add(name, value)
            }
        };
        eprintln!("usage, round {round} of {ROUNDS}");
        add("history_page_ms", caller.slow(CALLS, history).await?);
        add(
            "user_metrics_ms",
            caller.slow(CALLS, |n| format!("/users/{}/metrics", accounts::user(n))).await?,
        );
        add("month_report_ms", caller.slow(CALLS, report).await?);
        add("consolidated_report_ms", caller.slow(5, |_| "/reports/consolidated".into()).await?);
    }
    stack.stop().await
}

/// The first page, a page of the middle, and the first of one model, in turns.
fn history(n: u64) -> String {
    let query = match n % 3 {
        0 => String::new(),
        1 => {
            let month_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * 30);
            format!("?to={month_ago:.3}")
        }
        _ => "?model=model-2".into(),
    };
    format!("/users/{}/history{query}", accounts::user(n))
}

/// The running month, which is summed up as it is asked for.
fn report(n: u64) -> String {
    let month = jiff::Timestamp::now().strftime("%Y-%m");
    format!("/users/{}/reports/{month}", accounts::user(n))
}

/// Users with what they used in the running month and the two before, evenly in each of the three.
async fn fill(postgres: &mut PgConnection, transactions: i64) -> Result<(), AnyError> {
    accounts::insert(postgres, USERS).await?;
    for statement in [
        "UPDATE user_accounts SET created_at = date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - interval '70 days',
                reported_month = (date_trunc('month', now() AT TIME ZONE 'UTC') - interval '3 months')::date",
        "SET work_mem = '256MB'",
    ] {
        sqlx::query(statement).execute(&mut *postgres).await?;
    }
    let mut done = 0;
    for third in [2, 1, 0] {
        let rows = (transactions - done) / (third + 1);
        sqlx::query(
            "INSERT INTO token_transactions (id, user_id, reservation_id, kind, tokens_used, model_used, input_tokens,
                 output_tokens, timestamp, outbox_sequence, outbox_nonce, partition)
             SELECT gen_random_uuid(),
                    ('00000000-0000-4000-8000-' || lpad(to_hex((random() * ($2 - 1))::int), 12, '0'))::uuid, 'b-' || n,
                    'settle', 100 + n % 900, 'model-' || n % 4, 60, 40, starts + (ends - starts) * (n - $3) / $1, n, 0, 0
             FROM generate_series($3, $3 + $1 - 1) AS n,
                  (SELECT month AT TIME ZONE 'UTC' AS starts,
                          least(now(), (month + interval '1 month') AT TIME ZONE 'UTC') AS ends
                   FROM (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month' * $4 AS month) m) span",
        )
        .bind(rows)
        .bind(i64::try_from(USERS)?)
        .bind(done)
        .bind(i32::try_from(third)?)
        .execute(&mut *postgres)
        .await?;
        done += rows;
    }
    for statement in [
        "INSERT INTO usage_quarters (user_id, quarter, model, tokens, requests, input_tokens, output_tokens)
         SELECT user_id, date_bin('15 minutes', timestamp, 'epoch'), model_used, sum(tokens_used), count(*),
                sum(input_tokens), sum(output_tokens)
         FROM token_transactions GROUP BY 1, 2, 3 ORDER BY 2",
        "INSERT INTO usage_days (user_id, day, model, tokens, requests, input_tokens, output_tokens)
         SELECT user_id, (quarter AT TIME ZONE 'UTC')::date, model, sum(tokens), sum(requests), sum(input_tokens),
                sum(output_tokens)
         FROM usage_quarters GROUP BY 1, 2, 3",
        "UPDATE user_accounts a SET used_tokens = t.tokens
         FROM (SELECT user_id, sum(tokens) AS tokens FROM usage_quarters GROUP BY 1) t WHERE t.user_id = a.id",
        "VACUUM ANALYZE",
    ] {
        sqlx::query(statement).execute(&mut *postgres).await?;
    }
    Ok(())
}

/// Waits until the months that are over are told, which is no part of any figure.
async fn told(postgres: &mut PgConnection) -> Result<(), AnyError> {
    let end = Instant::now() + PATIENCE;
    loop {
        let due: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM user_accounts
             WHERE reported_month < date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month'",
        )
        .fetch_one(&mut *postgres)
        .await?;
        if due == 0 {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("{due} reports were not written").into());
        }
        sleep(Duration::from_secs(1)).await;
    }
}

struct Caller<'a> {
    client: reqwest::Client,
    stack: &'a Stack,
}

impl Caller<'_> {
    /// What 95 of 100 such calls take at most, in milliseconds.
    async fn slow(&self, calls: u64, path: impl Fn(u64) -> String) -> Result<f64, AnyError> {
        let mut took = Vec::new();
        for call in 0..calls {
            let url = format!("{}/v1{}", self.stack.facts.url, path(call * USERS / calls));
            let request = self.client.get(url).bearer_auth(&self.stack.facts.admin_jwt);
            let started = Instant::now();
            request.send().await?.error_for_status()?.bytes().await?;
            took.push(started.elapsed().as_secs_f64() * 1e3);
        }
        took.sort_by(f64::total_cmp);
        let place = (took.len() * 95).div_ceil(100).saturating_sub(1);
        took.get(place).copied().ok_or_else(|| "no calls".into())
    }
}
