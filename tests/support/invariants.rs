//! The invariants of the protocol, asserted after every test that moves tokens.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;

use cota::{
    ledger::{
        keys::{Keys, parse_member},
        wire::{Record, StoredBudget},
    },
    quota::{BudgetId, ReservationId, State, UserId},
    store::{Extent, Flaw},
};
use redis::aio::MultiplexedConnection;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use super::{
    sums,
    world::{World, until},
};

/// Waits until every outbox and every ring is empty (invariant 12).
pub async fn settle_down(world: &World) {
    let mut redis = connection(world).await;
    until("outbox and rings are empty", async || {
        let mut waiting = world.ledgers().iter().map(|ledger| ledger.witnessed() as u64).sum::<u64>();
        for partition in world.partitions.iter() {
            let key = Keys::of(partition, world.partitions).outbox();
            waiting += redis::cmd("XLEN").arg(key).query_async::<u64>(&mut redis).await.unwrap_or(1);
        }
        waiting == 0
    })
    .await;
}

/// Everything that can be checked at rest.
pub async fn check(world: &World) {
    let pool = world.database.pool();
    let rows = ledger_rows(pool).await;
    acked_is_booked_once(world, &rows);
    booked_was_asked(world, &rows);
    assert_eq!(world.store.drift().await.unwrap(), [], "3: used is the sum of the ledger");
    sums::usage_is_the_ledger(pool).await;
    grants_converge(pool).await;
    let audit = world.store.verify_audit(Extent::Whole, &[], &mut |_, _| {}).await.unwrap();
    let rewritten = audit.findings.iter().filter(|found| found.flaw == Flaw::Transactions).count();
    assert_eq!(rewritten > 0, world.is_rewritten(), "what was booked is as it was: {:?}", audit.findings);
    let flaws: Vec<_> = audit.findings.iter().filter(|found| found.flaw != Flaw::Transactions).collect();
    assert!(flaws.is_empty(), "every batch and grant is in the audit log as it is: {flaws:?}");
    stores_agree(world, pool).await;
}

async fn connection(world: &World) -> MultiplexedConnection {
    let client = redis::Client::open(&*world.redis_url).unwrap();
    let mut connection = None;
    until("Redis answers", async || {
        connection = client.get_multiplexed_async_connection().await.ok();
        connection.is_some()
    })
    .await;
    connection.unwrap()
}

/// Σ by user and reservation.
async fn ledger_rows(pool: &PgPool) -> BTreeMap<(UserId, ReservationId), i64> {
    let rows = sqlx::query(
        "SELECT user_id, reservation_id, sum(tokens_used)::bigint AS tokens
         FROM token_transactions GROUP BY user_id, reservation_id",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let key = |row: &sqlx::postgres::PgRow| {
        (UserId(row.get::<Uuid, _>("user_id")), ReservationId::new(row.get("reservation_id")).unwrap())
    };
    rows.iter().map(|row| (key(row), row.get("tokens"))).collect()
}

fn acked_is_booked_once(world: &World, rows: &BTreeMap<(UserId, ReservationId), i64>) {
    let journal = world.journal.lock().unwrap();
    for (name, tokens) in &journal.acked {
        assert_eq!(rows.get(name), Some(&(*tokens as i64)), "1: {name:?} was acked with {tokens}");
    }
}

fn booked_was_asked(world: &World, rows: &BTreeMap<(UserId, ReservationId), i64>) {
    let journal = world.journal.lock().unwrap();
    for name in rows.keys() {
        assert!(journal.asked.contains(name), "2: nobody asked for {name:?}");
    }
}

async fn grants_converge(pool: &PgPool) {
    let wrong: Vec<(Uuid,)> = sqlx::query_as(
        "SELECT a.id FROM user_accounts a
         WHERE a.total_tokens <> (SELECT coalesce(sum(tokens), 0) FROM grants g WHERE g.user_id = a.id)",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert_eq!(wrong, [], "13: total is the sum of the grants");
}

/// 4: per account, Redis spends what Postgres has, and holds what pending records hold.
async fn stores_agree(world: &World, pool: &PgPool) {
    let mut redis = connection(world).await;
    let accounts: Vec<(Uuid, i64, i64)> =
        sqlx::query_as("SELECT id, total_tokens, used_tokens FROM user_accounts")
            .fetch_all(pool)
            .await
            .unwrap();
    let mut held: BTreeMap<UserId, u64> = BTreeMap::new();
    for partition in world.partitions.iter() {
        let keys = Keys::of(partition, world.partitions);
        let members: Vec<Vec<u8>> =
            redis::cmd("ZRANGE").arg(keys.expiry()).arg(0).arg(-1).query_async(&mut redis).await.unwrap();
        for member in members {
            let (user, id) = parse_member(&member).unwrap();
            let bytes: Option<Vec<u8>> =
                redis::cmd("GET").arg(keys.record(user, &id)).query_async(&mut redis).await.unwrap();
            let record = Record::decode(&bytes.expect("an index member has its record")).unwrap();
            assert_eq!(record.state, State::Pending, "only pending reservations are in the index");
            *held.entry(user).or_default() += record.lines[0].amount as u64;
        }
    }
    let budgets = budgets(world, &mut redis, &accounts).await;
    for ((account, total, used), budget) in accounts.into_iter().zip(budgets) {
        let user = UserId(account);
        // A cold account has nothing in this life to disagree with.
        let Some(budget) = budget else {
            assert_eq!(held.get(&user), None, "a cold account holds nothing");
            continue;
        };
        let pending = held.get(&user).copied().unwrap_or(0);
        assert_eq!(
            i128::from(budget.spent),
            i128::from(used),
            "4: spent in Redis is used in Postgres, {user}"
        );
        assert_eq!(i128::from(budget.held), i128::from(pending), "4: held is the pending lines, {user}");
        assert!(
            i128::from(budget.granted) <= i128::from(total),
            "13: Redis never grants more than Postgres, {user}"
        );
    }
}

/// What Redis has of these accounts in its partitions' present epochs; `None` for the cold.
async fn budgets(
    world: &World,
    redis: &mut MultiplexedConnection,
    accounts: &[(Uuid, i64, i64)],
) -> Vec<Option<StoredBudget>> {
    let mut epochs = BTreeMap::new();
    for partition in world.partitions.iter() {
        let key = Keys::of(partition, world.partitions).meta();
        let epoch: Option<String> = redis::cmd("HGET").arg(key).arg("ep").query_async(redis).await.unwrap();
        epochs.insert(partition, epoch);
    }
    let mut found = Vec::with_capacity(accounts.len());
    for page in accounts.chunks(1_000) {
        let mut reads = redis::pipe();
        let partitions = page.iter().map(|account| world.partitions.of(UserId(account.0)));
        for ((account, ..), partition) in page.iter().zip(partitions.clone()) {
            reads.get(Keys::of(partition, world.partitions).budget(BudgetId::Balance(UserId(*account))));
        }
        let budgets: Vec<Option<Vec<u8>>> = reads.query_async(redis).await.unwrap();
        found.extend(budgets.into_iter().zip(partitions).map(|(bytes, partition)| {
            let budget = StoredBudget::decode(&bytes?).unwrap();
            (Some(budget.epoch.to_string()) == epochs[&partition]).then_some(budget)
        }));
    }
    found
}
