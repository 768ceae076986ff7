//! How one account is doing, as far as Postgres knows.

use jiff::Timestamp;

use super::{Store, StoreError, UserStatus, alerts, unsigned};
use crate::quota::{Level, UserId};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountHealth {
    pub status: UserStatus,
    /// Settled tokens that have arrived.
    pub used_tokens: u64,
    /// Whether Redis is known to have the account's newest state, or to need none.
    pub synced: bool,
    /// The newest of its transactions that have arrived.
    pub last_transaction_at: Option<Timestamp>,
    /// When its partition's transactions last arrived; `None` while it has none itself.
    pub last_flush_at: Option<Timestamp>,
    /// Levels of the alerts that are open, in the order in which they were reached.
    pub open_alerts: Vec<Level>,
}

impl Store {
    /// How an account is doing; `None` if there is no such account.
    pub async fn account_health(&self, user: UserId) -> Result<Option<AccountHealth>, StoreError> {
        let row = self
            .run_as(user, async |mut connection| {
                sqlx::query!(
                    r#"SELECT a.status, a.used_tokens, a.synced_version >= a.version AS "synced!",
                              t."timestamp" AS "last_at?", t.partition AS "partition?",
                              ARRAY(
                                  SELECT level FROM user_alerts
                                  WHERE user_id = a.id AND resolved_at IS NULL ORDER BY id
                              ) AS "open_alerts!"
                       FROM user_accounts a
                       LEFT JOIN LATERAL (
                           SELECT "timestamp", partition FROM token_transactions
                           WHERE user_id = a.id ORDER BY "timestamp" DESC LIMIT 1
                       ) t ON true
                       WHERE a.id = $1 AND a.status <> 'deleted'"#,
                    user.0,
                )
                .fetch_optional(&mut *connection)
                .await
            })
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(AccountHealth {
            status: UserStatus::from_sql(&row.status)?,
            used_tokens: unsigned(row.used_tokens)?,
            synced: row.synced,
            last_transaction_at: row.last_at.map(|at| at.to_jiff()),
            last_flush_at: match row.partition {
                Some(partition) => self.last_flush_at(partition).await?,
                None => None,
            },
            open_alerts: row.open_alerts.iter().map(|name| alerts::level(name)).collect::<Result<_, _>>()?,
        }))
    }

    /// When a batch of the partition was last booked. No user's row, hence not in a user's scope.
    async fn last_flush_at(&self, partition: i16) -> Result<Option<Timestamp>, StoreError> {
        let at = self
            .run(async |mut connection| {
                sqlx::query_scalar!(
                    "SELECT at FROM audit_log WHERE chain = $1 ORDER BY number DESC LIMIT 1",
                    partition,
                )
                .fetch_optional(&mut *connection)
                .await
            })
            .await?;
        Ok(at.map(|at| at.to_jiff()))
    }
}
