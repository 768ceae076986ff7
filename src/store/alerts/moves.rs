//! Bringing accounts' levels to where their numbers put them. A constant number of statements, however many accounts.

use sqlx::PgConnection;
use uuid::Uuid;

use super::in_order;
use crate::{
    quota::{EventKind, Level, Standing, Thresholds, UserId},
    store::{
        GrantKind, StoreError,
        events::{self, NewEvent},
        unsigned,
    },
};

/// The event that tells of a level.
fn fired(level: Level) -> EventKind {
    match level {
        Level::Warning => EventKind::AlertWarning,
        Level::Critical => EventKind::AlertCritical,
        Level::Blocked => EventKind::AlertBlocked,
    }
}

/// What has moved the numbers or the thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Rows were booked. Usage falls only by a correction.
    Usage,
    Grant(GrantKind),
    /// The user's own thresholds were changed.
    Thresholds,
}

impl Cause {
    /// The word in `resolved_by`.
    fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "correction",
            Self::Grant(kind) => kind.as_str(),
            Self::Thresholds => "thresholds",
        }
    }
}

/// An account that is not where its level says.
struct Moved {
    user: Uuid,
    used: u64,
    total: u64,
    thresholds: Thresholds,
    before: Standing,
    after: Standing,
}

/// Columns of `user_alerts`, all of one length.
#[derive(Default)]
struct AlertColumns {
    ids: Vec<Uuid>,
    users: Vec<Uuid>,
    levels: Vec<&'static str>,
    thresholds: Vec<i32>,
    used: Vec<i64>,
    totals: Vec<i64>,
}

/// Moves the levels of these accounts to where their numbers are now, stores and resolves alerts, and tells of both. The
/// caller holds the accounts' rows.
pub async fn settle(connection: &mut PgConnection, users: &[Uuid], cause: Cause) -> Result<(), StoreError> {
    let moved = moved(connection, users).await?;
    if moved.is_empty() {
        return Ok(());
    }
    write_levels(connection, &moved).await?;
    let mut told = resolve(connection, &moved, cause).await?;
    told.extend(fire(connection, &moved).await?);
    events::append(connection, &told).await?;
    Ok(())
}

/// The accounts whose level is another one by now. Those that never came near a threshold are left out by Postgres.
async fn moved(connection: &mut PgConnection, users: &[Uuid]) -> Result<Vec<Moved>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT id, used_tokens, total_tokens, alert_level,
                  greatest(1, round(alert_threshold * 10000))::int AS "warning!",
                  greatest(1, round(alert_critical * 10000))::int AS "critical!"
           FROM user_accounts
           WHERE id = ANY($1) AND (alert_level > 0 OR used_tokens >= total_tokens * alert_threshold)
           ORDER BY id"#,
        users,
    )
    .fetch_all(connection)
    .await?;
    let mut moved = Vec::new();
    for row in rows {
        let thresholds = in_order(row.warning, row.critical)?;
        let (used, total) = (unsigned(row.used_tokens)?, unsigned(row.total_tokens)?);
        let before = u8::try_from(row.alert_level).ok().and_then(Standing::from_rank);
        let before =
            before.ok_or_else(|| StoreError::corrupt(format_args!("alert level {}", row.alert_level)))?;
        let after = thresholds.standing(used, total);
        if after != before {
            moved.push(Moved { user: row.id, used, total, thresholds, before, after });
        }
    }
    Ok(moved)
}

async fn write_levels(connection: &mut PgConnection, moved: &[Moved]) -> Result<(), StoreError> {
    let users: Vec<Uuid> = moved.iter().map(|account| account.user).collect();
    let levels: Vec<i16> = moved.iter().map(|account| i16::from(account.after.rank())).collect();
    let changed = sqlx::query!(
        "UPDATE user_accounts a SET alert_level = m.level
         FROM UNNEST($1::uuid[], $2::smallint[]) AS m (id, level) WHERE a.id = m.id",
        &users,
        &levels,
    )
    .execute(connection)
    .await?
    .rows_affected();
    if changed == moved.len() as u64 { Ok(()) } else { Err(StoreError::corrupt("a locked account is gone")) }
}

/// Resolves the alerts of the levels that were left, and gives what is to be told of it: one recovery per account.
async fn resolve(
    connection: &mut PgConnection,
    moved: &[Moved],
    cause: Cause,
) -> Result<Vec<NewEvent>, StoreError> {
    let left: Vec<(Uuid, &'static str)> = moved
        .iter()
        .flat_map(|account| {
            account.before.left_by(account.after).iter().map(|level| (account.user, level.as_str()))
        })
        .collect();
    if left.is_empty() {
        return Ok(Vec::new());
    }
    let (users, levels): (Vec<Uuid>, Vec<&str>) = left.into_iter().unzip();
    let resolved = sqlx::query!(
        "UPDATE user_alerts a SET resolved_at = now(), resolved_by = $3
         FROM UNNEST($1::uuid[], $2::text[]) AS l (user_id, level)
         WHERE a.user_id = l.user_id AND a.level = l.level AND a.resolved_at IS NULL
         RETURNING a.id, a.user_id",
        &users,
        &levels as &[&str],
        cause.as_str(),
    )
    .fetch_all(connection)
    .await?;
    let recovered = moved.iter().filter(|account| account.after < account.before);
    Ok(recovered
        // With nothing granted at all nobody has recovered: there is no alert, and nothing good to tell.
        .filter(|account| account.total > 0)
        .map(|account| {
            let mut data = account.facts();
            let alerts = resolved.iter().filter(|row| row.user_id == account.user);
            data["from"] = account.before.level().map(Level::as_str).into();
            data["level"] = account.after.level().map(Level::as_str).into();
            data["resolved_by"] = cause.as_str().into();
            data["alert_ids"] = alerts.map(|row| row.id.to_string()).collect();
            NewEvent { user: UserId(account.user), kind: EventKind::AlertRecovered, data }
        })
        .collect())
}

/// Stores an alert for each level that was reached, lowest first, and gives what is to be told of it.
async fn fire(connection: &mut PgConnection, moved: &[Moved]) -> Result<Vec<NewEvent>, StoreError> {
    let (mut columns, mut told) = (AlertColumns::default(), Vec::new());
    for account in moved {
        for level in account.before.reached_by(account.after) {
            let id = Uuid::now_v7();
            let threshold = account.thresholds.of(*level);
            columns.ids.push(id);
            columns.users.push(account.user);
            columns.levels.push(level.as_str());
            columns.thresholds.push(i32::from(threshold.ten_thousandths()));
            columns.used.push(account.used.cast_signed());
            columns.totals.push(account.total.cast_signed());
            let mut data = account.facts();
            data["alert_id"] = id.to_string().into();
            data["level"] = level.as_str().into();
            data["threshold"] = threshold.as_f64().into();
            told.push(NewEvent { user: UserId(account.user), kind: fired(*level), data });
        }
    }
    if columns.ids.is_empty() {
        return Ok(told);
    }
    sqlx::query!(
        "INSERT INTO user_alerts (id, user_id, level, threshold, used_tokens, total_tokens)
         SELECT id, user_id, level, threshold::numeric / 10000, used, total
         FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::int[], $5::bigint[], $6::bigint[])
              AS a (id, user_id, level, threshold, used, total)",
        &columns.ids,
        &columns.users,
        &columns.levels as &[&str],
        &columns.thresholds,
        &columns.used,
        &columns.totals,
    )
    .execute(connection)
    .await?;
    Ok(told)
}

impl Moved {
    /// What every event about the account's level says. The percentage is rounded down, so that it never names a
    /// threshold that is not reached.
    fn facts(&self) -> serde_json::Value {
        let hundredths = match u128::from(self.total) {
            0 => 0,
            total => u128::from(self.used) * 10_000 / total,
        };
        serde_json::json!({
            "spent": self.used,
            "limit": self.total,
            "remaining": self.total.cast_signed() - self.used.cast_signed(),
            "percent": hundredths as f64 / 100.0,
        })
    }
}
