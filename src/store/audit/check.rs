//! What a check reads: one snapshot, on connections of its own that may take their time.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use sqlx::{ConnectOptions, Connection, PgConnection};

use super::{
    ACTS, ChainHead, Extent, Flaw, Verification,
    verify::{LedgerRow, LogRow, Start, Walk, first_number},
};
use crate::store::{Store, StoreError};

impl Store {
    /// Checks the audit log, and the ledger against it. `checkpoints` are heads of an earlier time that are known to have
    /// been true. `progress` hears now and then how many rows of the log and transactions have been read.
    pub async fn verify_audit(
        &self,
        extent: Extent,
        checkpoints: &[ChainHead],
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<Verification, StoreError> {
        let options = match extent {
            Extent::Whole => (*self.options).clone().options([
                ("statement_timeout", "0"),
                ("lock_timeout", "0"),
                ("idle_in_transaction_session_timeout", "0"),
            ]),
            Extent::Newest(_) => (*self.options).clone(),
        };
        let mut first = options.connect().await.map_err(StoreError::from_acquire)?;
        let mut second = options.connect().await.map_err(StoreError::from_acquire)?;
        let found = verify((&mut first, &mut second), extent, checkpoints, progress).await?;
        first.close().await?;
        second.close().await?;
        Ok(found)
    }
}

const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

async fn verify(
    (first, second): (&mut PgConnection, &mut PgConnection),
    extent: Extent,
    checkpoints: &[ChainHead],
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Verification, StoreError> {
    let mut log_side = first.begin_with(SNAPSHOT).await?;
    let snapshot = sqlx::query_scalar!(r#"SELECT pg_export_snapshot() AS "id!""#).fetch_one(&mut *log_side);
    let snapshot = snapshot.await?;
    let mut ledger_side = second.begin_with(SNAPSHOT).await?;
    // The name is of Postgres's own making, and SET takes no parameter.
    let import = format!("SET TRANSACTION SNAPSHOT '{snapshot}'");
    sqlx::query(sqlx::AssertSqlSafe(import)).execute(&mut *ledger_side).await?;

    let heads = heads(&mut log_side).await?;
    let mut starts = BTreeMap::new();
    for head in &heads {
        let number = first_number(head, extent);
        let previous = before(&mut log_side, head.chain, number).await?;
        starts.insert(head.chain, Start { number, previous });
    }
    let (chains, numbers): (Vec<i16>, Vec<i64>) = starts.iter().map(|(c, start)| (*c, start.number)).unzip();
    let mut walk = Walk {
        found: Verification::default(),
        starts,
        heads: heads.into_iter().map(|head| (head.chain, head)).collect(),
        checkpoints: newest(checkpoints),
        progress,
    };
    {
        let log = log_rows(&mut log_side, extent, &chains, &numbers);
        let ledger = ledger_rows(&mut ledger_side, extent, &chains, &numbers);
        walk.run(log, ledger).await?;
    }
    let mut found = walk.found;
    if extent == Extent::Whole {
        grants(&mut ledger_side, &mut found).await?;
    }
    Ok(found)
}

/// Of each chain the checkpoint that knows most: it holds all rows before it.
fn newest(checkpoints: &[ChainHead]) -> BTreeMap<i16, ChainHead> {
    let mut newest = BTreeMap::<i16, ChainHead>::new();
    for point in checkpoints {
        let known = newest.entry(point.chain).or_insert_with(|| point.clone());
        if point.number > known.number {
            known.clone_from(point);
        }
    }
    newest
}

async fn heads(connection: &mut PgConnection) -> Result<Vec<ChainHead>, StoreError> {
    let rows = sqlx::query!("SELECT chain, number, hash FROM audit_chains").fetch_all(connection).await?;
    let head = |chain, number: i64, hash| {
        let number = u64::try_from(number).map_err(|_| StoreError::corrupt("a chain of negative length"))?;
        Ok(ChainHead { chain, number, hash })
    };
    rows.into_iter().map(|row| head(row.chain, row.number, row.hash)).collect()
}

/// The hash that the first row to be checked has to follow. `None` when the row before it is missing, which only a check
/// of the whole log can judge.
async fn before(
    connection: &mut PgConnection,
    chain: i16,
    number: i64,
) -> Result<Option<Vec<u8>>, sqlx::Error> {
    if number == 1 {
        return Ok(Some(super::chain::NOTHING.to_vec()));
    }
    sqlx::query_scalar!("SELECT hash FROM audit_log WHERE chain = $1 AND number = $2", chain, number - 1)
        .fetch_optional(connection)
        .await
}

fn log_rows<'c>(
    connection: &'c mut PgConnection,
    extent: Extent,
    chains: &'c [i16],
    numbers: &'c [i64],
) -> futures_util::stream::BoxStream<'c, Result<LogRow, sqlx::Error>> {
    match extent {
        Extent::Whole => sqlx::query_as!(
            LogRow,
            r#"SELECT chain, number, previous, hash, (extract(epoch FROM at) * 1000000)::bigint AS "at_us!",
                      actor, actor_role, action, user_id, data::text AS "data!"
               FROM audit_log ORDER BY chain, number"#,
        )
        .fetch(connection)
        .boxed(),
        Extent::Newest(_) => sqlx::query_as!(
            LogRow,
            r#"SELECT l.chain, l.number, l.previous, l.hash,
                      (extract(epoch FROM l.at) * 1000000)::bigint AS "at_us!",
                      l.actor, l.actor_role, l.action, l.user_id, l.data::text AS "data!"
               FROM UNNEST($1::smallint[], $2::bigint[]) AS s (chain, first)
               JOIN audit_log l ON l.chain = s.chain AND l.number >= s.first
               ORDER BY l.chain, l.number"#,
            chains,
            numbers,
        )
        .fetch(connection)
        .boxed(),
    }
}

fn ledger_rows<'c>(
    connection: &'c mut PgConnection,
    extent: Extent,
    chains: &'c [i16],
    numbers: &'c [i64],
) -> futures_util::stream::BoxStream<'c, Result<LedgerRow, sqlx::Error>> {
    match extent {
        Extent::Whole => sqlx::query_as!(
            LedgerRow,
            r#"SELECT partition, audit_number, id, user_id, reservation_id, kind, tokens_used, model_used, request_id,
                      input_tokens, output_tokens, cached_tokens, cost_usd::text AS cost_usd, flags,
                      (extract(epoch FROM "timestamp") * 1000)::bigint AS "at_ms!", outbox_sequence, outbox_nonce
               FROM token_transactions ORDER BY partition, audit_number NULLS FIRST, id"#,
        )
        .fetch(connection)
        .boxed(),
        Extent::Newest(_) => sqlx::query_as!(
            LedgerRow,
            r#"SELECT t.partition, t.audit_number, t.id, t.user_id, t.reservation_id, t.kind, t.tokens_used,
                      t.model_used, t.request_id, t.input_tokens, t.output_tokens, t.cached_tokens,
                      t.cost_usd::text AS cost_usd, t.flags,
                      (extract(epoch FROM t."timestamp") * 1000)::bigint AS "at_ms!",
                      t.outbox_sequence, t.outbox_nonce
               FROM UNNEST($1::smallint[], $2::bigint[]) AS s (chain, first)
               JOIN token_transactions t ON t.partition = s.chain AND t.audit_number >= s.first
               ORDER BY t.partition, t.audit_number, t.id"#,
            chains,
            numbers,
        )
        .fetch(connection)
        .boxed(),
    }
}

/// Every grant has an act that says the same of it, and every such act its grant.
async fn grants(connection: &mut PgConnection, found: &mut Verification) -> Result<(), StoreError> {
    // Compared as texts: what an act says may be anything once somebody has been at it.
    let mut rows = sqlx::query!(
        r#"SELECT g.id AS "grant_id?", a.number AS "number?", a.grant_id AS "named?"
           FROM grants g
           FULL JOIN (
               SELECT number, user_id, data ->> 'grant_id' AS grant_id, data ->> 'kind' AS kind,
                      data ->> 'tokens' AS tokens
               FROM audit_log WHERE chain = $1 AND action = 'grant.made'
           ) AS a ON a.grant_id = g.id::text AND a.user_id = g.user_id AND a.kind = g.kind
                     AND a.tokens = g.tokens::text
           WHERE g.id IS NULL OR a.number IS NULL"#,
        ACTS,
    )
    .fetch(connection);
    while let Some(row) = rows.next().await.transpose()? {
        match row.grant_id {
            Some(grant) => found.found(ACTS, None, Flaw::Grant(grant)),
            None => found.found(ACTS, row.number, Flaw::NoGrant(row.named.unwrap_or_default())),
        }
    }
    Ok(())
}
