//! A month, and the present, over all users.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use uuid::Uuid;

use super::ModelUse;
use crate::{
    quota::{UserId, period::Month},
    store::{Store, StoreError, UsageSums},
};

/// A month over all users: each by its own calendar; from its report where that is written, else from the sums of usage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consolidated {
    /// Users who used something.
    pub users: u64,
    /// Users whose report is not written yet; what they used may still grow.
    pub provisional_users: u64,
    pub sums: UsageSums,
    /// What had arrived of earlier months since their reports.
    pub late_tokens: i64,
    /// Most tokens first.
    pub models: Vec<ModelUse>,
    /// Those with the most tokens, in that order.
    pub top: Vec<ConsolidatedUser>,
}

/// A line of the query: of all users (level 0), of a model (1), or of a user (2).
struct Line {
    level: i32,
    model: Option<String>,
    user_id: Option<Uuid>,
    external_id: Option<String>,
    is_live: bool,
    users: i64,
    live_users: i64,
    late_tokens: i64,
    cost_usd: Option<String>,
    tokens: i64,
    requests: i64,
    input_tokens: i64,
    output_tokens: i64,
    cached_tokens: i64,
    overages: i64,
}

impl Consolidated {
    fn add(&mut self, line: Line) {
        match (line.level, line.user_id) {
            (0, _) => {
                self.users = line.users.unsigned_abs();
                self.provisional_users = line.live_users.unsigned_abs();
                self.late_tokens = line.late_tokens;
                self.sums = UsageSums {
                    tokens: line.tokens,
                    requests: line.requests,
                    input_tokens: line.input_tokens,
                    output_tokens: line.output_tokens,
                    cached_tokens: line.cached_tokens,
                    overages: line.overages,
                    cost_usd: line.cost_usd,
                };
            }
            (_, None) => self.models.push(ModelUse {
                model: line.model.filter(|model| !model.is_empty()),
                tokens: line.tokens,
                requests: line.requests,
                input_tokens: line.input_tokens,
                output_tokens: line.output_tokens,
                cached_tokens: line.cached_tokens,
                overages: line.overages,
            }),
            (_, Some(user)) => self.top.push(ConsolidatedUser {
                user: UserId(user),
                external_id: line.external_id,
                is_provisional: line.is_live,
                tokens: line.tokens,
                requests: line.requests,
                input_tokens: line.input_tokens,
                output_tokens: line.output_tokens,
                cached_tokens: line.cached_tokens,
                overages: line.overages,
            }),
        }
    }
}

/// What one user used in the month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsolidatedUser {
    pub user: UserId,
    pub external_id: Option<String>,
    /// Its report is not written yet.
    pub is_provisional: bool,
    pub tokens: i64,
    pub requests: i64,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cached_tokens: i64,
    pub overages: i64,
}

/// Where all users stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub active_users: u64,
    pub suspended_users: u64,
    /// Sum of all totals.
    pub total_tokens: u64,
    /// Sum of all that has arrived in the ledger.
    pub used_tokens: u64,
    /// Users whose total is used up, and who were granted something.
    pub exhausted_users: u64,
    /// Since 24 hours before, in whole quarter hours.
    pub day_users: u64,
    pub day_tokens: i64,
    pub day_requests: i64,
    pub day_anomalies: u64,
    /// Outbox entries that the ledger did not take and that wait for an operator.
    pub dead_letters: u64,
}

/// A month by the calendars of some zones.
struct Spans {
    names: Vec<String>,
    starts: Vec<jiff_sqlx::Timestamp>,
    ends: Vec<jiff_sqlx::Timestamp>,
}

impl Spans {
    fn new(zones: &[(String, Timestamp, Timestamp)]) -> Self {
        Self {
            names: zones.iter().map(|(name, ..)| name.clone()).collect(),
            starts: zones.iter().map(|(_, start, _)| start.to_sqlx()).collect(),
            ends: zones.iter().map(|(.., end)| end.to_sqlx()).collect(),
        }
    }
}

impl Store {
    /// A month over all users, with the `top` of them. `zones` has every zone that users are in ([`Store::time_zones`])
    /// with the first instant of the month there, and of the month after.
    pub async fn consolidated(
        &self,
        month: Month,
        zones: &[(String, Timestamp, Timestamp)],
        top: u32,
    ) -> Result<Consolidated, StoreError> {
        let spans = Spans::new(zones);
        let rows = self
            .run(async |mut connection| {
                sqlx::query_as!(
                    Line,
                    r#"WITH live AS MATERIALIZED (
                           SELECT a.id, coalesce(p.period_end, z.starts) AS starts, z.ends
                           FROM user_accounts a
                           JOIN UNNEST($2::text[], $3::timestamptz[], $4::timestamptz[]) AS z (name, starts, ends)
                             ON z.name = coalesce(a.time_zone, 'UTC')
                           LEFT JOIN monthly_reports p
                             ON p.user_id = a.id AND p.month = ($1::date - interval '1 month')::date
                           WHERE a.reported_month < $1 AND a.created_at < z.ends
                       ),
                       used AS MATERIALIZED (
                           SELECT u.user_id, u.model, true AS is_live, u.tokens, u.requests, u.input_tokens,
                                  u.output_tokens, u.cached_tokens, u.overages
                           FROM (
                               SELECT array_agg(id) AS users, array_agg(starts) AS starts, array_agg(ends) AS ends
                               FROM live
                           ) l
                           CROSS JOIN LATERAL cota_usage_of(l.users, l.starts, l.ends) u
                           UNION ALL
                           SELECT r.user_id, coalesce(m.model, ''), false, m.tokens, m.requests, m.input_tokens,
                                  m.output_tokens, m.cached_tokens, m.overages
                           FROM monthly_reports r
                           CROSS JOIN jsonb_to_recordset(r.models) AS m (
                               model text, tokens bigint, requests bigint, input_tokens bigint, output_tokens bigint,
                               cached_tokens bigint, overages bigint
                           )
                           WHERE r.month = $1
                       ),
                       by_user AS (
                           SELECT user_id, bool_or(is_live) AS is_live, sum(tokens) AS tokens,
                                  sum(requests) AS requests, sum(input_tokens) AS input_tokens,
                                  sum(output_tokens) AS output_tokens, sum(cached_tokens) AS cached_tokens,
                                  sum(overages) AS overages
                           FROM used GROUP BY user_id
                       )
                       SELECT 0 AS "level!", NULL AS model, NULL::uuid AS "user_id?", NULL AS "external_id?",
                              false AS "is_live!", count(DISTINCT user_id) AS "users!",
                              (SELECT count(*) FROM live) AS "live_users!",
                              (SELECT coalesce(sum(late_tokens), 0)::bigint FROM monthly_reports WHERE month = $1)
                                  AS "late_tokens!",
                              (SELECT sum(cost_usd)::text FROM monthly_reports WHERE month = $1) AS cost_usd,
                              coalesce(sum(tokens), 0)::bigint AS "tokens!",
                              coalesce(sum(requests), 0)::bigint AS "requests!",
                              coalesce(sum(input_tokens), 0)::bigint AS "input_tokens!",
                              coalesce(sum(output_tokens), 0)::bigint AS "output_tokens!",
                              coalesce(sum(cached_tokens), 0)::bigint AS "cached_tokens!",
                              coalesce(sum(overages), 0)::bigint AS "overages!"
                       FROM used
                       UNION ALL
                       SELECT 1, model, NULL, NULL, false, 0, 0, 0, NULL, sum(tokens)::bigint, sum(requests)::bigint,
                              sum(input_tokens)::bigint, sum(output_tokens)::bigint, sum(cached_tokens)::bigint,
                              sum(overages)::bigint
                       FROM used GROUP BY model
                       UNION ALL
                       (SELECT 2, NULL, u.user_id, a.external_id, u.is_live, 0, 0, 0, NULL, u.tokens::bigint,
                               u.requests::bigint, u.input_tokens::bigint, u.output_tokens::bigint,
                               u.cached_tokens::bigint, u.overages::bigint
                        FROM by_user u JOIN user_accounts a ON a.id = u.user_id
                        ORDER BY u.tokens DESC, u.user_id
                        LIMIT $5)
                       ORDER BY 1, 10 DESC, 2, 3"#,
                    month.first_day().to_sqlx() as jiff_sqlx::Date,
                    &spans.names,
                    &spans.starts as &[jiff_sqlx::Timestamp],
                    &spans.ends as &[jiff_sqlx::Timestamp],
                    i64::from(top),
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        let mut report = Consolidated::default();
        rows.into_iter().for_each(|line| report.add(line));
        Ok(report)
    }

    /// What each user used in a month, also nothing: by id, after `after`, at most `limit`. As for
    /// [`Store::consolidated`].
    pub async fn consolidated_users(
        &self,
        month: Month,
        zones: &[(String, Timestamp, Timestamp)],
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<ConsolidatedUser>, StoreError> {
        let spans = Spans::new(zones);
        let rows = self
            .run(async |mut connection| {
                sqlx::query!(
                    r#"SELECT a.id, a.external_id, r.user_id IS NULL AS "is_live!",
                              coalesce(r.tokens, q.tokens, 0)::bigint AS "tokens!",
                              coalesce(r.requests, q.requests, 0)::bigint AS "requests!",
                              coalesce(r.input_tokens, q.input_tokens, 0)::bigint AS "input_tokens!",
                              coalesce(r.output_tokens, q.output_tokens, 0)::bigint AS "output_tokens!",
                              coalesce(r.cached_tokens, q.cached_tokens, 0)::bigint AS "cached_tokens!",
                              coalesce(r.overages, q.overages, 0)::bigint AS "overages!"
                       FROM (SELECT * FROM user_accounts WHERE id > $5 ORDER BY id LIMIT $6) a
                       JOIN UNNEST($2::text[], $3::timestamptz[], $4::timestamptz[]) AS z (name, starts, ends)
                         ON z.name = coalesce(a.time_zone, 'UTC')
                       LEFT JOIN monthly_reports r ON r.user_id = a.id AND r.month = $1
                       LEFT JOIN monthly_reports p
                         ON p.user_id = a.id AND p.month = ($1::date - interval '1 month')::date
                       LEFT JOIN LATERAL (
                           SELECT sum(tokens) AS tokens, sum(requests) AS requests, sum(input_tokens) AS input_tokens,
                                  sum(output_tokens) AS output_tokens, sum(cached_tokens) AS cached_tokens,
                                  sum(overages) AS overages
                           FROM cota_usage(a.id, coalesce(p.period_end, z.starts), z.ends)
                           WHERE a.reported_month < $1
                       ) q ON true
                       ORDER BY a.id"#,
                    month.first_day().to_sqlx() as jiff_sqlx::Date,
                    &spans.names,
                    &spans.starts as &[jiff_sqlx::Timestamp],
                    &spans.ends as &[jiff_sqlx::Timestamp],
                    after.map_or(Uuid::nil(), |user| user.0),
                    i64::from(limit),
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        Ok(rows
            .into_iter()
            .map(|row| ConsolidatedUser {
                user: UserId(row.id),
                external_id: row.external_id,
                is_provisional: row.is_live,
                tokens: row.tokens,
                requests: row.requests,
                input_tokens: row.input_tokens,
                output_tokens: row.output_tokens,
                cached_tokens: row.cached_tokens,
                overages: row.overages,
            })
            .collect())
    }

    /// Where all users stand.
    pub async fn summary(&self, now: Timestamp) -> Result<Summary, StoreError> {
        let day_ago = now.checked_sub(jiff::SignedDuration::from_hours(24)).unwrap_or(now);
        let row = self
            .run(async |mut connection| {
                sqlx::query!(
                    r#"SELECT a.active AS "active!", a.suspended AS "suspended!", a.total AS "total!", a.used AS "used!",
                              a.exhausted AS "exhausted!", q.users AS "users!", q.tokens AS "tokens!",
                              q.requests AS "requests!",
                              (SELECT count(*) FROM anomalies WHERE detected_at >= $1) AS "anomalies!",
                              (SELECT count(*) FROM dead_letters WHERE resolved_at IS NULL) AS "dead_letters!"
                       FROM (
                           SELECT count(*) FILTER (WHERE status = 'active') AS active,
                                  count(*) FILTER (WHERE status = 'suspended') AS suspended,
                                  coalesce(sum(total_tokens), 0)::bigint AS total,
                                  coalesce(sum(used_tokens), 0)::bigint AS used,
                                  count(*) FILTER (WHERE total_tokens > 0 AND remaining_tokens <= 0) AS exhausted
                           FROM user_accounts
                       ) a, (
                           SELECT count(DISTINCT user_id) AS users, coalesce(sum(tokens), 0)::bigint AS tokens,
                                  coalesce(sum(requests), 0)::bigint AS requests
                           FROM usage_quarters WHERE quarter >= $1
                       ) q"#,
                    day_ago.to_sqlx() as jiff_sqlx::Timestamp,
                )
                .fetch_one(&mut *connection)
                .await
            })
            .await?;
        let count = i64::unsigned_abs;
        Ok(Summary {
            active_users: count(row.active),
            suspended_users: count(row.suspended),
            total_tokens: count(row.total),
            used_tokens: count(row.used),
            exhausted_users: count(row.exhausted),
            day_users: count(row.users),
            day_tokens: row.tokens,
            day_requests: row.requests,
            day_anomalies: count(row.anomalies),
            dead_letters: count(row.dead_letters),
        })
    }
}
