//! What an operator sets for a user.

use jiff::Timestamp;
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::{RenewalState, Renewed, evaluate, mode};
use crate::{
    crypto::Keyring,
    quota::{AlertThreshold, RenewalMode, RenewalRule, Tokens, UserId},
    store::{
        MAX_ATTEMPTS, Store, StoreError,
        audit::{Act, Action, record_together},
        grants::lock_account,
        profiles::Expected,
        unsigned,
        users::threshold,
    },
};

/// When and how a user's tokens are renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoRenewal {
    pub enabled: bool,
    pub rule: RenewalRule,
    pub mode: RenewalMode,
    /// 0 while nobody has set anything; every change raises it by one.
    pub version: u64,
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoRenewalUpdate {
    /// And what it led to at once.
    Updated(AutoRenewal, Renewed),
    /// Its version is another one; nothing was changed.
    Stale,
    UserNotFound,
}

/// Of the seed document: off, and when on, 1,000 tokens at 10 %, three times a month.
const USUAL: (u16, u64, u32) = (1_000, 1_000, 3);

impl Store {
    /// How a user's tokens are renewed; `None` if there is no such user.
    pub async fn auto_renewal(&self, user: UserId) -> Result<Option<AutoRenewal>, StoreError> {
        self.run_as(user, async |mut connection| {
            let exists = sqlx::query_scalar!(
                r#"SELECT EXISTS (SELECT FROM user_accounts WHERE id = $1) AS "exists!""#,
                user.0
            );
            if exists.fetch_one(&mut *connection).await? {
                select(&mut connection, user).await.map(Some)
            } else {
                Ok(None)
            }
        })
        .await
    }

    /// Sets how a user's tokens are renewed, if its version is still as expected. Adds nothing by itself: only what is
    /// due by the new rule, and has not been renewed yet, is renewed at once. A request that waits for its payment is
    /// cancelled when renewal is switched off, or no longer waits for payments.
    pub async fn set_auto_renewal(
        &self,
        user: UserId,
        expected: &Expected,
        enabled: bool,
        rule: RenewalRule,
        mode: RenewalMode,
    ) -> Result<AutoRenewalUpdate, StoreError> {
        let mut attempt = 1;
        loop {
            let done = self.run(async |mut connection| {
                let new = AutoRenewal { enabled, rule, mode, version: 0 };
                set_once(&mut connection, &self.keyring, user, expected, new).await
            });
            match done.await {
                Err(StoreError::Contended(_)) if attempt < MAX_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }
}

/// What is set, or what stands in for it.
pub(super) async fn select(connection: &mut PgConnection, user: UserId) -> Result<AutoRenewal, StoreError> {
    let row = sqlx::query!(
        r#"SELECT enabled, greatest(1, round(threshold * 10000))::int AS "threshold!", tokens, max_renewals, mode,
                  version
           FROM auto_renewals WHERE user_id = $1"#,
        user.0,
    )
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else {
        let (threshold, tokens, max_renewals) = USUAL;
        let threshold = AlertThreshold::from_ten_thousandths(threshold).map_err(StoreError::corrupt)?;
        return Ok(AutoRenewal {
            enabled: false,
            rule: checked(threshold, tokens, max_renewals)?,
            mode: RenewalMode::Immediate,
            version: 0,
        });
    };
    let max_renewals = u32::try_from(row.max_renewals).map_err(StoreError::corrupt)?;
    Ok(AutoRenewal {
        enabled: row.enabled,
        rule: checked(threshold(row.threshold)?, unsigned(row.tokens)?, max_renewals)?,
        mode: mode(&row.mode)?,
        version: unsigned(row.version)?,
    })
}

fn checked(threshold: AlertThreshold, tokens: u64, max_renewals: u32) -> Result<RenewalRule, StoreError> {
    let tokens = Tokens::new(tokens).map_err(StoreError::corrupt)?;
    RenewalRule::new(threshold, tokens, max_renewals).map_err(StoreError::corrupt)
}

async fn set_once(
    connection: &mut PgConnection,
    keyring: &Keyring,
    user: UserId,
    expected: &Expected,
    new: AutoRenewal,
) -> Result<AutoRenewalUpdate, StoreError> {
    let mut transaction = connection.begin().await?;
    // Under the account's lock nobody else changes or looks.
    if lock_account(&mut transaction, user).await?.is_none() {
        return Ok(AutoRenewalUpdate::UserNotFound);
    }
    let present = select(&mut transaction, user).await?;
    if let Expected::OneOf(versions) = expected
        && !versions.contains(&present.version)
    {
        return Ok(AutoRenewalUpdate::Stale);
    }
    upsert(&mut transaction, user, &new).await?;
    if !new.enabled || new.mode != RenewalMode::OnPayment {
        evaluate::end_request(&mut transaction, user, RenewalState::Cancelled).await?;
    }
    let (renewed, made) = evaluate::look(&mut transaction, user).await?;
    let mut acts = vec![changed(user, &new)];
    acts.extend(made);
    record_together(&mut transaction, keyring, acts).await?;
    transaction.commit().await.map_err(StoreError::from_commit)?;
    let set = AutoRenewal { version: present.version + 1, ..new };
    Ok(AutoRenewalUpdate::Updated(set, renewed))
}

/// What goes on record of a change.
fn changed(user: UserId, new: &AutoRenewal) -> Act {
    let data = json!({
        "what": "auto_renewal",
        "enabled": new.enabled,
        "threshold": new.rule.threshold().as_f64(),
        "tokens": new.rule.tokens().get(),
        "max_renewals": new.rule.max_renewals(),
        "mode": new.mode.as_str(),
    });
    Act { action: Action::ConfigurationChanged, user: Some(user), data }
}

async fn upsert(connection: &mut PgConnection, user: UserId, new: &AutoRenewal) -> Result<(), StoreError> {
    // With another cap its end may be told of once more.
    sqlx::query!(
        "INSERT INTO auto_renewals AS r (user_id, enabled, threshold, tokens, max_renewals, mode)
         VALUES ($1, $2, $3::int::numeric / 10000, $4, $5, $6)
         ON CONFLICT (user_id) DO UPDATE
         SET enabled = excluded.enabled, threshold = excluded.threshold, tokens = excluded.tokens,
             max_renewals = excluded.max_renewals, mode = excluded.mode, version = r.version + 1,
             capped_month = CASE WHEN r.max_renewals = excluded.max_renewals THEN r.capped_month END,
             updated_at = now()",
        user.0,
        new.enabled,
        i32::from(new.rule.threshold().ten_thousandths()),
        new.rule.tokens().get().cast_signed(),
        new.rule.max_renewals().cast_signed(),
        new.mode.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Until when a request waits for its payment.
pub(super) fn request_ends(at: Timestamp) -> Timestamp {
    at.checked_add(jiff::SignedDuration::from_hours(24 * 7)).unwrap_or(Timestamp::MAX)
}
