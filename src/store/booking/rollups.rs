//! What the rows of a batch add to `usage_quarters` and `usage_days`, in the same SQL transaction: the sums are those of
//! the ledger at every moment.
//!
//! The accounts of the batch are locked, so that nobody else changes sums of theirs; and they are changed in the order
//! of their keys, so that no two could deadlock even without.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    quota::{Entry, Flags, Kind, MAX_OPERATION_TOKENS},
    store::StoreError,
};

/// Length of a quarter hour.
const QUARTER_MS: u64 = 15 * 60 * 1_000;

/// What some rows add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    tokens: i64,
    requests: i64,
    input_tokens: i64,
    output_tokens: i64,
    cached_tokens: i64,
    overages: i64,
}

impl Sums {
    /// No sum of one quarter hour comes near the end of an `i64`: no operation carries more than 10^12.
    fn add(&mut self, entry: &Entry) {
        let part = |tokens: Option<u64>| tokens.unwrap_or(0).min(MAX_OPERATION_TOKENS).cast_signed();
        self.tokens += entry.tokens;
        self.requests += i64::from(entry.kind != Kind::Correction);
        self.input_tokens += part(entry.input_tokens);
        self.output_tokens += part(entry.output_tokens);
        self.cached_tokens += part(entry.cached_input_tokens);
        self.overages += i64::from(entry.flags.contains(Flags::OVERAGE));
    }
}

/// By user, start of the quarter hour in Unix milliseconds, and model.
fn sums<'a>(rows: &[&'a Entry]) -> BTreeMap<(Uuid, i64, &'a str), Sums> {
    let mut sums = BTreeMap::<_, Sums>::new();
    for row in rows {
        let quarter = (row.at_ms - row.at_ms % QUARTER_MS).cast_signed();
        let model = row.model.as_ref().map_or("", |model| model.as_str());
        sums.entry((row.user.0, quarter, model)).or_default().add(row);
    }
    sums
}

/// Adds rows that were really inserted.
pub(super) async fn add(connection: &mut PgConnection, rows: &[&Entry]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let sums = sums(rows);
    let column = |value: fn(&Sums) -> i64| sums.values().map(value).collect::<Vec<_>>();
    let changed = sqlx::query!(
        r#"WITH s AS MATERIALIZED (
               SELECT *, 'epoch'::timestamptz + quarter_ms * interval '1 millisecond' AS quarter
               FROM UNNEST($1::uuid[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[],
                           $7::bigint[], $8::bigint[], $9::bigint[])
                    AS s (user_id, quarter_ms, model, tokens, requests, input_tokens, output_tokens, cached_tokens,
                          overages)
           ),
           quarters AS (
               INSERT INTO usage_quarters AS u (
                   user_id, quarter, model, tokens, requests, input_tokens, output_tokens, cached_tokens, overages
               )
               SELECT user_id, quarter, model, tokens, requests, input_tokens, output_tokens, cached_tokens, overages
               FROM s
               ON CONFLICT (user_id, quarter, model) DO UPDATE
               SET tokens = u.tokens + excluded.tokens, requests = u.requests + excluded.requests,
                   input_tokens = u.input_tokens + excluded.input_tokens,
                   output_tokens = u.output_tokens + excluded.output_tokens,
                   cached_tokens = u.cached_tokens + excluded.cached_tokens, overages = u.overages + excluded.overages
               RETURNING tokens
           ),
           days AS (
               INSERT INTO usage_days AS u (
                   user_id, day, model, tokens, requests, input_tokens, output_tokens, cached_tokens, overages
               )
               SELECT user_id, (quarter AT TIME ZONE 'UTC')::date, model, sum(tokens), sum(requests),
                      sum(input_tokens), sum(output_tokens), sum(cached_tokens), sum(overages)
               FROM s GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
               ON CONFLICT (user_id, day, model) DO UPDATE
               SET tokens = u.tokens + excluded.tokens, requests = u.requests + excluded.requests,
                   input_tokens = u.input_tokens + excluded.input_tokens,
                   output_tokens = u.output_tokens + excluded.output_tokens,
                   cached_tokens = u.cached_tokens + excluded.cached_tokens, overages = u.overages + excluded.overages
           )
           SELECT count(*) AS "count!" FROM quarters"#,
        &sums.keys().map(|(user, ..)| *user).collect::<Vec<_>>(),
        &sums.keys().map(|(_, quarter, _)| *quarter).collect::<Vec<_>>(),
        &sums.keys().map(|(.., model)| *model).collect::<Vec<_>>() as &[&str],
        &column(|sums| sums.tokens),
        &column(|sums| sums.requests),
        &column(|sums| sums.input_tokens),
        &column(|sums| sums.output_tokens),
        &column(|sums| sums.cached_tokens),
        &column(|sums| sums.overages),
    )
    .fetch_one(connection)
    .await?
    .count;
    if changed.unsigned_abs() == sums.len() as u64 {
        Ok(())
    } else {
        Err(StoreError::corrupt("sums of usage were not all kept"))
    }
}
