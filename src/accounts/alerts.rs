//! What users are told about their usage, and from where on.

use uuid::Uuid;

use super::Accounts;
use crate::{
    quota::{Thresholds, UserId},
    store::{Alert, AlertConfig, AlertConfigUpdate, Expected, StoreError},
};

#[derive(Debug, thiserror::Error)]
pub enum AlertError {
    #[error("there is no such user")]
    NotFound,
    /// Nothing was changed.
    #[error("the user has changed since the caller read it")]
    Stale,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Accounts {
    /// A user's thresholds.
    pub async fn alert_config(&self, id: UserId) -> Result<AlertConfig, AlertError> {
        self.store.alert_config(id).await?.ok_or(AlertError::NotFound)
    }

    /// Sets a user's thresholds, if its version is still one the caller expects.
    pub async fn set_alert_config(
        &self,
        id: UserId,
        expected: &Expected,
        thresholds: Thresholds,
    ) -> Result<AlertConfig, AlertError> {
        match self.store.set_thresholds(id, expected, thresholds).await? {
            AlertConfigUpdate::Updated(config) => Ok(config),
            AlertConfigUpdate::Stale => Err(AlertError::Stale),
            AlertConfigUpdate::UserNotFound => Err(AlertError::NotFound),
        }
    }

    /// A user's alerts, newest first, those before `before`, at most `limit`; `open` filters.
    pub async fn alerts(
        &self,
        id: UserId,
        open: Option<bool>,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Alert>, AlertError> {
        let alerts = self.store.alerts(id, open, before, limit).await?;
        // No rows may also mean no user.
        if alerts.is_empty() && self.store.user(id).await?.is_none() {
            return Err(AlertError::NotFound);
        }
        Ok(alerts)
    }
}
