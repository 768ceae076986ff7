//! Alerts: how far a user's usage has come, told once per level.
//!
//! An account's row says how many levels are reached (`alert_level`). Whatever moves its numbers or its thresholds holds
//! that row, and brings the level to where they put it, in the same SQL transaction ([`moves`]): each level that is newly
//! reached is told of once, in order; each that is left is resolved, told as a recovery, and may be reached again. So
//! an alert is there if and only if its cause is, however many replicas flush.

mod moves;

use jiff::Timestamp;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

pub(super) use moves::{Cause, settle};

use super::{
    MAX_ATTEMPTS, Store, StoreError,
    audit::{Act, Action, record},
    profiles::Expected,
    signed, unsigned,
    users::threshold,
};
use crate::{
    crypto::Keyring,
    quota::{AlertThreshold, Level, Thresholds, UserId},
};

/// That usage had come to a level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    pub id: Uuid,
    pub user: UserId,
    pub level: Level,
    /// Where the level began.
    pub threshold: AlertThreshold,
    /// The numbers that reached it.
    pub used_tokens: u64,
    pub total_tokens: u64,
    pub fired_at: Timestamp,
    /// When usage was below the level again, and what led there.
    pub resolved: Option<(Timestamp, String)>,
}

/// At which shares of the total a user is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertConfig {
    pub thresholds: Thresholds,
    /// The account's: every change through the API raises it.
    pub version: u64,
}

/// What came of a change of thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertConfigUpdate {
    Updated(AlertConfig),
    /// Its version is another one; nothing was changed.
    Stale,
    UserNotFound,
}

struct AlertRow {
    id: Uuid,
    user_id: Uuid,
    level: String,
    threshold: i32,
    used_tokens: i64,
    total_tokens: i64,
    fired_at: jiff_sqlx::Timestamp,
    resolved_at: Option<jiff_sqlx::Timestamp>,
    resolved_by: Option<String>,
}

/// From the column `level`, which the schema keeps to the names there are.
pub(super) fn level(name: &str) -> Result<Level, StoreError> {
    Level::from_name(name).ok_or_else(|| StoreError::corrupt(format_args!("alert level {name:?}")))
}

impl TryFrom<AlertRow> for Alert {
    type Error = StoreError;

    fn try_from(row: AlertRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            user: UserId(row.user_id),
            level: level(&row.level)?,
            threshold: threshold(row.threshold)?,
            used_tokens: unsigned(row.used_tokens)?,
            total_tokens: unsigned(row.total_tokens)?,
            fired_at: row.fired_at.to_jiff(),
            resolved: row.resolved_at.map(|at| at.to_jiff()).zip(row.resolved_by),
        })
    }
}

impl Store {
    /// A user's alerts, newest first, those before `before`, at most `limit`; with `open` only those that are (`true`)
    /// or are not (`false`) open.
    pub async fn alerts(
        &self,
        user: UserId,
        open: Option<bool>,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Alert>, StoreError> {
        let rows = self
            .run_as(user, async |mut connection| {
                sqlx::query_as!(
                    AlertRow,
                    r#"SELECT id, user_id, level, greatest(1, round(threshold * 10000))::int AS "threshold!",
                              used_tokens, total_tokens, fired_at, resolved_at, resolved_by
                       FROM user_alerts
                       WHERE user_id = $1 AND id < $2 AND ($3::bool IS NULL OR $3 = (resolved_at IS NULL))
                       ORDER BY id DESC LIMIT $4"#,
                    user.0,
                    before.unwrap_or(Uuid::max()),
                    open,
                    i64::from(limit),
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        rows.into_iter().map(Alert::try_from).collect()
    }

    /// A user's thresholds; `None` if there is no such user.
    pub async fn alert_config(&self, user: UserId) -> Result<Option<AlertConfig>, StoreError> {
        self.run_as(user, async |mut connection| select_config(&mut connection, user).await).await
    }

    /// Sets a user's thresholds and raises the account's version by one, if its version is still as expected. Levels
    /// move at once to where usage stands by the new thresholds; what was told of and still holds is not told again.
    pub async fn set_thresholds(
        &self,
        user: UserId,
        expected: &Expected,
        thresholds: Thresholds,
    ) -> Result<AlertConfigUpdate, StoreError> {
        let mut attempt = 1;
        loop {
            let done = self.run(async |mut connection| {
                set_once(&mut connection, &self.keyring, user, expected, thresholds).await
            });
            match done.await {
                Err(StoreError::Contended(_)) if attempt < MAX_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }
}

async fn select_config(
    connection: &mut PgConnection,
    user: UserId,
) -> Result<Option<AlertConfig>, StoreError> {
    let row = sqlx::query!(
        r#"SELECT greatest(1, round(alert_threshold * 10000))::int AS "warning!",
                  greatest(1, round(alert_critical * 10000))::int AS "critical!", version
           FROM user_accounts WHERE id = $1"#,
        user.0,
    )
    .fetch_optional(connection)
    .await?;
    row.map(|row| {
        Ok(AlertConfig { thresholds: in_order(row.warning, row.critical)?, version: unsigned(row.version)? })
    })
    .transpose()
}

/// From ten-thousandths, which the schema keeps in order.
fn in_order(warning: i32, critical: i32) -> Result<Thresholds, StoreError> {
    Thresholds::new(threshold(warning)?, threshold(critical)?).map_err(StoreError::corrupt)
}

async fn set_once(
    connection: &mut PgConnection,
    keyring: &Keyring,
    user: UserId,
    expected: &Expected,
    thresholds: Thresholds,
) -> Result<AlertConfigUpdate, StoreError> {
    let mut transaction = connection.begin().await?;
    let versions: Option<Vec<i64>> = match expected {
        Expected::Any => None,
        Expected::OneOf(versions) => Some(versions.iter().map(|version| signed(*version)).collect()),
    };
    let ten_thousandths = |level| i32::from(thresholds.of(level).ten_thousandths());
    let version = sqlx::query_scalar!(
        "UPDATE user_accounts
         SET alert_threshold = $3::int::numeric / 10000, alert_critical = $4::int::numeric / 10000,
             version = version + 1, updated_at = now()
         WHERE id = $1 AND ($2::bigint[] IS NULL OR version = ANY($2))
         RETURNING version",
        user.0,
        versions.as_deref(),
        ten_thousandths(Level::Warning),
        ten_thousandths(Level::Critical),
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(version) = version else {
        return Ok(match select_config(&mut transaction, user).await? {
            Some(_) => AlertConfigUpdate::Stale,
            None => AlertConfigUpdate::UserNotFound,
        });
    };
    settle(&mut transaction, &[user.0], Cause::Thresholds).await?;
    let share = |level| thresholds.of(level).as_f64();
    let data = json!({
        "what": "alert_config", "warning": share(Level::Warning), "critical": share(Level::Critical),
    });
    let act = Act { action: Action::ConfigurationChanged, user: Some(user), data };
    record(&mut transaction, keyring, act).await?;
    transaction.commit().await.map_err(StoreError::from_commit)?;
    Ok(AlertConfigUpdate::Updated(AlertConfig { thresholds, version: unsigned(version)? }))
}
