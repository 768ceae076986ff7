//! A user's transactions, newest first, in keyset pages.
//!
//! The key is (time, id): rows that arrive meanwhile go before or between the pages that were read, and no row is shown
//! twice or left out for them.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::quota::{Flags, Kind, UserId};

/// Which rows; absent parts do not filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryFilter {
    /// The first instant.
    pub from: Option<Timestamp>,
    /// The first instant after.
    pub to: Option<Timestamp>,
    pub model: Option<String>,
    pub kind: Option<Kind>,
}

/// Where a row stands among those of its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryKey {
    pub at: Timestamp,
    pub id: Uuid,
}

/// A transaction as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRow {
    pub id: Uuid,
    pub reservation: String,
    pub kind: Kind,
    /// Negative only in a correction.
    pub tokens: i64,
    pub model: Option<String>,
    pub request_id: Option<String>,
    pub input_tokens: Option<i64>,
    pub output_tokens: Option<i64>,
    pub cached_tokens: Option<i64>,
    /// USD with up to nine decimals.
    pub cost_usd: Option<String>,
    pub flags: Flags,
    /// By the clock of Redis.
    pub at: Timestamp,
}

impl HistoryRow {
    pub fn key(&self) -> HistoryKey {
        HistoryKey { at: self.at, id: self.id }
    }
}

struct RawRow {
    id: Uuid,
    reservation_id: String,
    kind: String,
    tokens_used: i64,
    model_used: Option<String>,
    request_id: Option<String>,
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
    cached_tokens: Option<i64>,
    cost_usd: Option<String>,
    flags: i16,
    timestamp: jiff_sqlx::Timestamp,
}

impl TryFrom<RawRow> for HistoryRow {
    type Error = StoreError;

    fn try_from(row: RawRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            reservation: row.reservation_id,
            kind: Kind::from_name(&row.kind)
                .ok_or_else(|| StoreError::corrupt(format_args!("transaction kind {:?}", row.kind)))?,
            tokens: row.tokens_used,
            model: row.model_used,
            request_id: row.request_id,
            input_tokens: row.input_tokens,
            output_tokens: row.output_tokens,
            cached_tokens: row.cached_tokens,
            cost_usd: row.cost_usd,
            flags: u8::try_from(row.flags)
                .map(Flags)
                .map_err(|_| StoreError::corrupt(format_args!("flags {}", row.flags)))?,
            at: row.timestamp.to_jiff(),
        })
    }
}

/// The bounds of a page as SQL takes them.
struct Bounds {
    from: jiff_sqlx::Timestamp,
    to: jiff_sqlx::Timestamp,
    /// Rows at this time come after the page before only by their id.
    last_at: jiff_sqlx::Timestamp,
    last_id: Uuid,
    limit: i64,
}

impl Store {
    /// Rows after `after`, newest first and by id where times are equal; at most `limit`.
    pub async fn history(
        &self,
        user: UserId,
        filter: &HistoryFilter,
        after: Option<HistoryKey>,
        limit: u32,
    ) -> Result<Vec<HistoryRow>, StoreError> {
        let bounds = Bounds {
            from: filter.from.unwrap_or(Timestamp::UNIX_EPOCH).to_sqlx(),
            to: filter.to.unwrap_or(Timestamp::MAX).to_sqlx(),
            last_at: after.map_or(Timestamp::MAX, |key| key.at).to_sqlx(),
            last_id: after.map_or(Uuid::nil(), |key| key.id),
            limit: i64::from(limit),
        };
        let rows = self
            .run_as(user, async |mut connection| match &filter.model {
                None => page(&mut connection, user, &bounds, filter.kind).await,
                Some(model) => page_of_model(&mut connection, user, &bounds, filter.kind, model).await,
            })
            .await?;
        rows.into_iter().map(HistoryRow::try_from).collect()
    }
}

async fn page(
    connection: &mut PgConnection,
    user: UserId,
    bounds: &Bounds,
    kind: Option<Kind>,
) -> Result<Vec<RawRow>, sqlx::Error> {
    sqlx::query_as!(
        RawRow,
        r#"SELECT id, reservation_id, kind, tokens_used, model_used, request_id, input_tokens, output_tokens,
                  cached_tokens, cost_usd::text, flags, "timestamp"
           FROM token_transactions
           WHERE user_id = $1 AND "timestamp" >= $2 AND "timestamp" < $3
             AND "timestamp" <= $4 AND ("timestamp" < $4 OR id > $5)
             AND ($6::text IS NULL OR kind = $6)
           ORDER BY "timestamp" DESC, id
           LIMIT $7"#,
        user.0,
        bounds.from as jiff_sqlx::Timestamp,
        bounds.to as jiff_sqlx::Timestamp,
        bounds.last_at as jiff_sqlx::Timestamp,
        bounds.last_id,
        kind.map(Kind::as_str),
        bounds.limit,
    )
    .fetch_all(connection)
    .await
}

/// Goes only through the quarter hours in which the model was used, so that a model among millions of other rows is
/// found without reading those.
async fn page_of_model(
    connection: &mut PgConnection,
    user: UserId,
    bounds: &Bounds,
    kind: Option<Kind>,
    model: &str,
) -> Result<Vec<RawRow>, sqlx::Error> {
    sqlx::query_as!(
        RawRow,
        r#"SELECT t.id, t.reservation_id, t.kind, t.tokens_used, t.model_used, t.request_id, t.input_tokens,
                  t.output_tokens, t.cached_tokens, t.cost_usd::text, t.flags, t."timestamp"
           FROM usage_quarters q
           CROSS JOIN LATERAL (
               SELECT * FROM token_transactions
               WHERE user_id = $1 AND "timestamp" >= q.quarter AND "timestamp" < q.quarter + interval '15 minutes'
                 AND "timestamp" >= $2 AND "timestamp" < $3
                 AND "timestamp" <= $4 AND ("timestamp" < $4 OR id > $5)
                 AND ($6::text IS NULL OR kind = $6) AND model_used = $8
               ORDER BY "timestamp" DESC, id
               LIMIT $7
           ) t
           WHERE q.user_id = $1 AND q.model = $8
             AND q.quarter > $2::timestamptz - interval '15 minutes' AND q.quarter < $3 AND q.quarter <= $4
           ORDER BY q.quarter DESC, t."timestamp" DESC, t.id
           LIMIT $7"#,
        user.0,
        bounds.from as jiff_sqlx::Timestamp,
        bounds.to as jiff_sqlx::Timestamp,
        bounds.last_at as jiff_sqlx::Timestamp,
        bounds.last_id,
        kind.map(Kind::as_str),
        bounds.limit,
        model,
    )
    .fetch_all(connection)
    .await
}
