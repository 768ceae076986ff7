//! What is on record, and the checkpoints that are kept outside of Postgres.

use super::{Accounts, users::UserError};
use crate::{
    quota::UserId,
    store::{AuditRow, Extent, StoreError, Verification},
};

/// Rows of each chain that a check over HTTP looks at; the whole log is for `cota audit verify`.
pub const NEWEST_ROWS: u32 = 1_000;

impl Accounts {
    /// What is on record about a user, newest first, before that number, at most `limit`.
    pub async fn audit_of(
        &self,
        id: UserId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AuditRow>, UserError> {
        let rows = self.store.audit_of(id, before, limit).await?;
        // No rows may also mean no user.
        if rows.is_empty() && self.store.user(id).await?.is_none() {
            return Err(UserError::NotFound);
        }
        Ok(rows)
    }

    /// Checks the newest [`NEWEST_ROWS`] rows of each chain and their transactions.
    pub async fn verify_newest_audit(&self) -> Result<Verification, StoreError> {
        self.store.verify_audit(Extent::Newest(NEWEST_ROWS), &[], &mut |_, _| {}).await
    }
}
