//! Hours out of a user's ordinary: what is looked at to find them, and those that were found.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{NewEvent, Store, StoreError, booking::lock_accounts, events, raw_ids};
use crate::quota::{EventKind, UserId, anomaly::Baseline};

/// A user who used something lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusyUser {
    pub user: UserId,
    /// IANA name.
    pub time_zone: Option<String>,
    /// Tokens by the first instant of the quarter hour, in order.
    pub quarters: Vec<(Timestamp, i64)>,
}

/// An hour that is to be flagged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAnomaly {
    pub user: UserId,
    /// IANA name of the zone by whose clock it is an hour.
    pub time_zone: String,
    /// Its first instant.
    pub hour: Timestamp,
    /// More than `threshold`.
    pub tokens: i64,
    pub threshold: i64,
    pub baseline: Baseline,
}

/// An hour that was flagged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    pub id: Uuid,
    pub user: UserId,
    pub time_zone: String,
    pub hour: Timestamp,
    /// What was used in it when it was found.
    pub tokens: i64,
    pub threshold: i64,
    pub median: i64,
    pub mad: i64,
    pub typical: i64,
    pub samples: i32,
    pub detected_at: Timestamp,
}

struct AnomalyRow {
    id: Uuid,
    user_id: Uuid,
    hour: jiff_sqlx::Timestamp,
    time_zone: String,
    tokens: i64,
    threshold_tokens: i64,
    median_tokens: i64,
    mad_tokens: i64,
    typical_tokens: i64,
    samples: i32,
    detected_at: jiff_sqlx::Timestamp,
}

impl From<AnomalyRow> for Anomaly {
    fn from(row: AnomalyRow) -> Self {
        Self {
            id: row.id,
            user: UserId(row.user_id),
            time_zone: row.time_zone,
            hour: row.hour.to_jiff(),
            tokens: row.tokens,
            threshold: row.threshold_tokens,
            median: row.median_tokens,
            mad: row.mad_tokens,
            typical: row.typical_tokens,
            samples: row.samples,
            detected_at: row.detected_at.to_jiff(),
        }
    }
}

impl Store {
    /// Users by id, after `after`, at most `limit`, who may have used at least `min_tokens` in one hour since `since`.
    pub async fn busy_users(
        &self,
        since: Timestamp,
        min_tokens: i64,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<BusyUser>, StoreError> {
        let rows = self
            .run(async |mut connection| {
                sqlx::query!(
                    r#"WITH busy AS (
                           SELECT user_id FROM usage_quarters
                           WHERE quarter >= $1 AND user_id > $2
                           GROUP BY user_id
                           HAVING sum(greatest(tokens, 0)) >= $3::bigint
                           ORDER BY user_id
                           LIMIT $4
                       )
                       SELECT a.id, a.time_zone, q.quarter, sum(q.tokens)::bigint AS "tokens!"
                       FROM busy
                       JOIN user_accounts a ON a.id = busy.user_id
                       JOIN usage_quarters q ON q.user_id = a.id AND q.quarter >= $1
                       GROUP BY a.id, q.quarter
                       ORDER BY a.id, q.quarter"#,
                    since.to_sqlx() as jiff_sqlx::Timestamp,
                    after.map_or(Uuid::nil(), |user| user.0),
                    min_tokens,
                    i64::from(limit),
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        let mut users: Vec<BusyUser> = Vec::new();
        for row in rows {
            let quarter = (row.quarter.to_jiff(), row.tokens);
            match users.last_mut() {
                Some(last) if last.user.0 == row.id => last.quarters.push(quarter),
                _ => users.push(BusyUser {
                    user: UserId(row.id),
                    time_zone: row.time_zone,
                    quarters: vec![quarter],
                }),
            }
        }
        Ok(users)
    }

    /// Tokens of these users by the first instant of the quarter hour, in order; from `from` on and before `to`.
    pub async fn usage_by_quarter(
        &self,
        users: &[UserId],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<BTreeMap<UserId, Vec<(Timestamp, i64)>>, StoreError> {
        let rows = self
            .run(async |mut connection| {
                sqlx::query!(
                    r#"SELECT user_id, quarter, sum(tokens)::bigint AS "tokens!" FROM usage_quarters
                       WHERE user_id = ANY($1) AND quarter >= $2 AND quarter < $3
                       GROUP BY user_id, quarter
                       ORDER BY user_id, quarter"#,
                    &raw_ids(users),
                    from.to_sqlx() as jiff_sqlx::Timestamp,
                    to.to_sqlx() as jiff_sqlx::Timestamp,
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        let mut usage = BTreeMap::<UserId, Vec<(Timestamp, i64)>>::new();
        for row in rows {
            usage.entry(UserId(row.user_id)).or_default().push((row.quarter.to_jiff(), row.tokens));
        }
        Ok(usage)
    }

    /// Flags hours, each once, and tells their users; says how many were new.
    pub async fn flag_anomalies(&self, found: &[NewAnomaly]) -> Result<usize, StoreError> {
        if found.is_empty() {
            return Ok(0);
        }
        self.run(async |mut connection| {
            let mut transaction = connection.begin().await?;
            let mut users = raw_ids(&found.iter().map(|anomaly| anomaly.user).collect::<Vec<_>>());
            users.sort_unstable();
            lock_accounts(&mut transaction, &users).await?;
            let new = insert(&mut transaction, found).await?;
            events::append(&mut transaction, &new.iter().map(event).collect::<Vec<_>>()).await?;
            transaction.commit().await.map_err(StoreError::from_commit)?;
            Ok::<_, StoreError>(new.len())
        })
        .await
    }

    /// A user's anomalies newest first, before `before`, at most `limit`.
    pub async fn anomalies_of(
        &self,
        user: UserId,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Anomaly>, StoreError> {
        let rows = self
            .run_as(user, async |mut connection| {
                sqlx::query_as!(
                    AnomalyRow,
                    "SELECT id, user_id, hour, time_zone, tokens, threshold_tokens, median_tokens, mad_tokens,
                            typical_tokens, samples, detected_at
                     FROM anomalies WHERE user_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
                    user.0,
                    before.unwrap_or(Uuid::max()),
                    i64::from(limit),
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        Ok(rows.into_iter().map(Anomaly::from).collect())
    }

    /// Anomalies of all users, as [`Store::anomalies_of`].
    pub async fn anomalies(&self, before: Option<Uuid>, limit: u32) -> Result<Vec<Anomaly>, StoreError> {
        let rows = self
            .run(async |mut connection| {
                sqlx::query_as!(
                    AnomalyRow,
                    "SELECT id, user_id, hour, time_zone, tokens, threshold_tokens, median_tokens, mad_tokens,
                            typical_tokens, samples, detected_at
                     FROM anomalies WHERE id < $1 ORDER BY id DESC LIMIT $2",
                    before.unwrap_or(Uuid::max()),
                    i64::from(limit),
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        Ok(rows.into_iter().map(Anomaly::from).collect())
    }
}

async fn insert(connection: &mut PgConnection, found: &[NewAnomaly]) -> Result<Vec<Anomaly>, sqlx::Error> {
    let column = |value: fn(&NewAnomaly) -> i64| found.iter().map(value).collect::<Vec<_>>();
    let hours: Vec<_> = found.iter().map(|anomaly| anomaly.hour.to_sqlx()).collect();
    let samples: Vec<i32> =
        found.iter().map(|anomaly| i32::try_from(anomaly.baseline.samples).unwrap_or(i32::MAX)).collect();
    let rows = sqlx::query_as!(
        AnomalyRow,
        "INSERT INTO anomalies (
             id, user_id, hour, time_zone, tokens, threshold_tokens, median_tokens, mad_tokens, typical_tokens, samples
         )
         SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[], $5::bigint[], $6::bigint[],
                              $7::bigint[], $8::bigint[], $9::bigint[], $10::int[])
         ON CONFLICT DO NOTHING
         RETURNING id, user_id, hour, time_zone, tokens, threshold_tokens, median_tokens, mad_tokens, typical_tokens,
                   samples, detected_at",
        &found.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>(),
        &found.iter().map(|anomaly| anomaly.user.0).collect::<Vec<_>>(),
        &hours as &[jiff_sqlx::Timestamp],
        &found.iter().map(|anomaly| anomaly.time_zone.clone()).collect::<Vec<_>>(),
        &column(|anomaly| anomaly.tokens),
        &column(|anomaly| anomaly.threshold),
        &column(|anomaly| anomaly.baseline.median),
        &column(|anomaly| anomaly.baseline.mad),
        &column(|anomaly| anomaly.baseline.typical),
        &samples,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Anomaly::from).collect())
}

/// What the user is told.
fn event(anomaly: &Anomaly) -> NewEvent {
    let data = json!({
        "id": anomaly.id,
        "hour": format!("{:.3}", anomaly.hour),
        "time_zone": anomaly.time_zone,
        "tokens": anomaly.tokens,
        "threshold_tokens": anomaly.threshold,
        "median_tokens": anomaly.median,
        "mad_tokens": anomaly.mad,
        "typical_tokens": anomaly.typical,
        "samples": anomaly.samples,
    });
    NewEvent { user: anomaly.user, kind: EventKind::AnomalyDetected, data }
}
