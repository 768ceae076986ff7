//! Tokens that are added by themselves: what operators set, what became of it, and the renewer that does it.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Accounts,
    credits::{CreditError, check_payment},
};
use crate::{
    metrics,
    quota::{RenewalMode, RenewalRule, UserId},
    store::{
        AutoRenewal, AutoRenewalUpdate, Confirmation, Expected, Grant, Payment, Renewal, RenewalState,
        StoreError, User,
    },
};

/// Accounts that are looked at before the next reading of the list.
const PAGE: u32 = 100;

/// How often the renewer looks by itself, for what other replicas flushed, and for what only time makes due.
const INTERVAL: Duration = Duration::from_secs(1);

/// A request that was confirmed, now or before.
#[derive(Clone, Debug)]
pub struct Confirmed {
    pub renewal: Renewal,
    pub grant: Grant,
    pub user: User,
    pub replayed: bool,
    /// Whether Redis has the new total already.
    pub effective: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    #[error("there is no such user")]
    NotFound,
    #[error("the user has no such renewal")]
    RenewalNotFound,
    /// Nothing was changed.
    #[error("the settings have changed since the caller read them")]
    Stale,
    #[error("the renewal is {}", .0.as_str())]
    Finished(RenewalState),
    /// As when a credit is made with this payment.
    #[error(transparent)]
    Payment(#[from] CreditError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Accounts {
    /// How a user's tokens are renewed.
    pub async fn auto_renewal(&self, id: UserId) -> Result<AutoRenewal, RenewalError> {
        self.store.auto_renewal(id).await?.ok_or(RenewalError::NotFound)
    }

    /// Sets how a user's tokens are renewed, if its version is still one the caller expects; what is due by the new rule
    /// is renewed at once.
    pub async fn set_auto_renewal(
        &self,
        id: UserId,
        expected: &Expected,
        enabled: bool,
        rule: RenewalRule,
        mode: RenewalMode,
    ) -> Result<AutoRenewal, RenewalError> {
        match self.store.set_auto_renewal(id, expected, enabled, rule, mode).await? {
            AutoRenewalUpdate::Updated(set, renewed) => {
                if renewed.granted > 0 {
                    self.effective(id).await;
                }
                Ok(set)
            }
            AutoRenewalUpdate::Stale => Err(RenewalError::Stale),
            AutoRenewalUpdate::UserNotFound => Err(RenewalError::NotFound),
        }
    }

    /// A user's renewals, newest first, those before `before`, at most `limit`; with `state` only those.
    pub async fn renewals(
        &self,
        id: UserId,
        state: Option<RenewalState>,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Renewal>, RenewalError> {
        let renewals = self.store.renewals(id, state, before, limit).await?;
        // No rows may also mean no user.
        if renewals.is_empty() && self.store.user(id).await?.is_none() {
            return Err(RenewalError::NotFound);
        }
        Ok(renewals)
    }

    /// Grants a requested renewal, once, and waits a moment for Redis to have it.
    pub async fn confirm_renewal(
        &self,
        id: UserId,
        renewal: Uuid,
        payment: Option<Payment>,
    ) -> Result<Confirmed, RenewalError> {
        if let Some(payment) = &payment {
            check_payment(payment)?;
        }
        let (renewal, grant, user, replayed) =
            match self.store.confirm_renewal(id, renewal, payment.as_ref()).await? {
                Confirmation::Granted { renewal, grant, user } => (renewal, grant, user, false),
                Confirmation::Replayed { renewal, grant, user } => (renewal, grant, user, true),
                Confirmation::Mismatch => return Err(CreditError::Mismatch.into()),
                Confirmation::PaymentUsed => return Err(CreditError::PaymentUsed.into()),
                Confirmation::OutOfRange => return Err(CreditError::OutOfRange.into()),
                Confirmation::Finished(state) => return Err(RenewalError::Finished(state)),
                Confirmation::NotFound => return Err(RenewalError::RenewalNotFound),
            };
        Ok(Confirmed { renewal, grant, user, replayed, effective: self.effective(id).await })
    }

    /// Looks at one account's renewal, and hands what it granted to Redis.
    async fn renew(&self, id: UserId) -> Result<(), StoreError> {
        let renewed = self.store.renew(id).await?;
        metrics::renewals("granted", renewed.granted.into());
        metrics::renewals("requested", renewed.requested.into());
        metrics::renewals("capped", renewed.capped.into());
        if renewed.granted > 0 {
            tracing::info!(user = %id, renewals = renewed.granted, "tokens were renewed");
            // Should it fail, the sync worker brings them there.
            self.effective(id).await;
        }
        Ok(())
    }
}

/// Looks at every account that a flush has marked, as soon as it is told of one. Any number of replicas may run one: each
/// look holds the account's row, and one that finds nothing to do does nothing.
pub struct Renewer {
    accounts: Accounts,
    wake: Arc<Notify>,
}

impl Renewer {
    /// `wake` is told when there is something to look at.
    pub fn new(accounts: Accounts, wake: Arc<Notify>) -> Self {
        Self { accounts, wake }
    }

    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.round(&stop).await {
                tracing::warn!(%error, "renewals cannot be looked at");
            }
        }
    }

    /// Until nothing is left to look at, or something goes wrong: then after a pause.
    async fn round(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        loop {
            let users = self.accounts.store.renewals_to_check(PAGE).await?;
            for user in &users {
                if stop.is_cancelled() {
                    return Ok(());
                }
                match self.accounts.renew(*user).await {
                    Err(error) if !error.is_retryable() => {
                        metrics::renewals("failed", 1);
                        tracing::error!(%user, %error, "a renewal cannot be looked at; it is put off");
                        self.accounts.store.put_off_renewal(*user).await?;
                    }
                    looked => looked?,
                }
            }
            if users.len() < PAGE as usize {
                return Ok(());
            }
        }
    }
}
