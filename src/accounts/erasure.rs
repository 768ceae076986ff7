//! Deleting users: the account at once, and what is left of it elsewhere in small steps.

use std::time::Duration;

use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use super::{Accounts, users::UserError};
use crate::{
    quota::UserId,
    store::{Deletion, StoreError},
};

/// How often it is looked for what is left: a call that was under way may still bring something.
const INTERVAL: Duration = Duration::from_secs(3_600);

/// A deleted user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Whether all is gone that is to go; if not, it will be within the hour.
    pub erased: bool,
    /// Whether Redis refuses reserves already.
    pub effective: bool,
}

impl Accounts {
    /// Deletes a user, and erases as much as there is time for. May be repeated.
    pub async fn delete_user(&self, id: UserId, until: Instant) -> Result<Deleted, UserError> {
        if self.store.delete_user(id).await? == Deletion::UserNotFound {
            return Err(UserError::NotFound);
        }
        let effective = self.effective(id).await;
        let mut erased = false;
        while !erased && Instant::now() < until {
            erased = !self.store.erase(id).await?;
        }
        Ok(Deleted { erased, effective })
    }

    /// Erases what is left of deleted users, now and then.
    pub async fn keep_erasing(&self, stop: CancellationToken) {
        let mut ticks = interval(INTERVAL);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = self.erase_all(&stop).await {
                tracing::warn!(%error, "what is left of deleted users is erased later");
            }
        }
    }

    async fn erase_all(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        for user in self.store.to_erase().await? {
            while !stop.is_cancelled() && self.store.erase(user).await? {}
        }
        Ok(())
    }
}
