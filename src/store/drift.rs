//! Looking for drift a page at a time, beside the service's work.
//!
//! Compared is with `usage_quarters`, which grows in the SQL transaction of the ledger's own rows: an account has some
//! thousand of its rows where the ledger has millions, so that a page costs little, however much its users use.

use uuid::Uuid;

use super::{Drift, Store, StoreError, unsigned};
use crate::quota::UserId;

/// What a look at some accounts found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriftPage {
    /// Accounts looked at; fewer than were asked for at the end of all.
    pub accounts: usize,
    /// The last of them, after which the next page begins.
    pub last: Option<UserId>,
    pub found: Vec<Drift>,
}

impl Store {
    /// Up to `limit` accounts by id, after `after`: those whose used tokens are not the sum of what was booked. Each
    /// is judged in one snapshot, in which a booking is whole or not there.
    pub async fn drift_page(&self, after: Option<UserId>, limit: u32) -> Result<DriftPage, StoreError> {
        let after = after.map_or(Uuid::nil(), |user| user.0);
        let rows = self
            .run(async |mut connection| {
                sqlx::query!(
                    r#"SELECT a.id, a.used_tokens, q.tokens AS "booked!"
                       FROM (
                           SELECT id, used_tokens FROM user_accounts WHERE id > $1 ORDER BY id LIMIT $2
                       ) a
                       CROSS JOIN LATERAL (
                           SELECT coalesce(sum(tokens), 0)::bigint AS tokens FROM usage_quarters WHERE user_id = a.id
                       ) q
                       ORDER BY a.id"#,
                    after,
                    i64::from(limit),
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        let (accounts, last) = (rows.len(), rows.last().map(|row| UserId(row.id)));
        let mut found = Vec::new();
        for row in rows.into_iter().filter(|row| row.used_tokens != row.booked) {
            let used_tokens = unsigned(row.used_tokens)?;
            found.push(Drift { user: UserId(row.id), used_tokens, booked_tokens: row.booked });
        }
        Ok(DriftPage { accounts, last, found })
    }
}
