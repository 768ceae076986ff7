//! Accounts to load the service with. Their ids are numbered, so that the load generator can count them up.

use cota::{
    ledger::keys::Keys,
    quota::{BudgetId, Partitions, UserId},
};
use futures_util::{StreamExt, stream};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::{AnyError, stack::Stack};

/// Accounts of the throughput figures.
pub const MANY: u64 = 10_000;

pub fn user(number: u64) -> UserId {
    UserId(Uuid::from_u64_pair(0x4000, 0x8000_0000_0000_0000 | number))
}

/// Makes accounts 0 … `count`-1 with plenty of tokens, in Postgres.
pub async fn insert(postgres: &mut PgConnection, count: u64) -> Result<(), AnyError> {
    sqlx::query(
        "INSERT INTO user_accounts (id, email, total_tokens, synced_version)
         SELECT ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'u' || n || '@example.com',
                1000000000000, 1
         FROM generate_series(0, $1 - 1) AS n",
    )
    .bind(count as i64)
    .execute(postgres)
    .await?;
    Ok(())
}

/// Makes `MANY` accounts and has the service load each of them.
pub async fn create(stack: &Stack) -> Result<(), AnyError> {
    insert(&mut PgConnection::connect(&stack.facts.postgres_url).await?, MANY).await?;
    let client = reqwest::Client::new();
    let loaded = stream::iter(0..MANY).map(|number| {
        let url = format!("{}/v1/users/{}/tokens", stack.facts.url, user(number));
        let request = client.get(url).bearer_auth(&stack.facts.gateway_jwt);
        async move { request.send().await?.error_for_status() }
    });
    let mut loaded = loaded.buffer_unordered(32);
    while let Some(answer) = loaded.next().await {
        answer?;
    }
    Ok(())
}

/// Puts accounts up to `count` straight into Redis, as copies of account 0: loading a million through Postgres would
/// take longer than everything else here, and the latency of a reserve depends on Redis alone.
pub async fn fill_redis(stack: &Stack, count: u64) -> Result<(), AnyError> {
    let client = redis::Client::open(stack.facts.redis_url.as_str())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut postgres = PgConnection::connect(&stack.facts.postgres_url).await?;
    let partitions: i64 =
        sqlx::query_scalar("SELECT count(*) FROM partitions").fetch_one(&mut postgres).await?;
    let partitions = Partitions::new(u16::try_from(partitions)?).ok_or("no partitions")?;
    let key = |number: u64| {
        let user = user(number);
        Keys::of(partitions.of(user), partitions).budget(BudgetId::Balance(user))
    };
    // One template per partition: epochs may differ.
    let mut templates = vec![None; usize::from(partitions.count())];
    for number in 0..MANY {
        let template = &mut templates[usize::from(partitions.of(user(number)).0)];
        if template.is_none() {
            *template = Some(key(number));
        }
    }
    for chunk in (MANY..count).collect::<Vec<_>>().chunks(1_000) {
        let mut pipe = redis::pipe();
        for &number in chunk {
            let template = templates[usize::from(partitions.of(user(number)).0)].as_ref();
            pipe.cmd("COPY").arg(template.ok_or("an empty partition")?).arg(key(number)).ignore();
        }
        pipe.query_async::<()>(&mut connection).await?;
    }
    wait_for_rewrite(&mut connection).await
}

/// So many new keys make Redis rewrite its file, which takes a core for a while and is no part of any figure.
async fn wait_for_rewrite(connection: &mut redis::aio::MultiplexedConnection) -> Result<(), AnyError> {
    loop {
        let info: String = redis::cmd("INFO").arg("persistence").query_async(connection).await?;
        let is_at_rest = ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0", "rdb_bgsave_in_progress:0"];
        if is_at_rest.iter().all(|field| info.contains(field)) {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}
