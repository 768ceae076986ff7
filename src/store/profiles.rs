//! Changing what describes an account, under the version its caller has seen.

use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::{
    Store, StoreError, User, alerts,
    audit::{Act, Action, record},
    error::violates,
    secrets::{EMAIL_INDEX, SealedEmail},
    signed,
    users::{UserRow, select_user},
};
use crate::quota::{AlertThreshold, UserId};

/// The versions of a row that a change may be made to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Whichever it has.
    Any,
    /// One of these; none of them means none.
    OneOf(Vec<u64>),
}

/// New values; what is `None` stays. The caller has checked the texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProfileChange {
    pub email: Option<String>,
    /// Inside, `None` clears it.
    pub external_id: Option<Option<String>>,
    /// Inside, `None` clears it.
    pub locale: Option<Option<String>>,
    /// Inside, `None` clears it.
    pub time_zone: Option<Option<String>>,
    pub alert_threshold: Option<AlertThreshold>,
}

impl ProfileChange {
    /// What is changed, by name.
    fn names(&self) -> Vec<&'static str> {
        [
            ("email", self.email.is_some()),
            ("external_id", self.external_id.is_some()),
            ("locale", self.locale.is_some()),
            ("time_zone", self.time_zone.is_some()),
            ("alert_threshold", self.alert_threshold.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is_changed)| is_changed.then_some(name))
        .collect()
    }
}

/// What came of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    Updated(User),
    /// Its version is another one; nothing was changed.
    Stale,
    UserNotFound,
    /// Another account has this address, in whatever case.
    EmailTaken,
    ExternalIdTaken,
}

impl Store {
    /// Changes an account and raises its version by one, if its version is still as expected. Of two changes that
    /// expect the same version at most one is made: each judges and raises it under the row's lock. Another threshold
    /// moves the account's alerts at once, and one above the critical threshold takes that along.
    pub async fn update_user(
        &self,
        id: UserId,
        expected: &Expected,
        change: &ProfileChange,
    ) -> Result<Update, StoreError> {
        let email = change.email.as_deref().map(|email| SealedEmail::new(&self.keyring, id.0, email));
        let email = email.transpose()?;
        let done = self
            .run(async |mut connection| {
                let mut transaction = connection.begin().await?;
                let row = match update(&mut transaction, id, expected, &email, change).await {
                    Ok(Some(row)) => row,
                    Ok(None) => {
                        return Ok(Err(match select_user(&mut transaction, id).await? {
                            Some(_) => Update::Stale,
                            None => Update::UserNotFound,
                        }));
                    }
                    Err(error) if violates(&error, EMAIL_INDEX) => return Ok(Err(Update::EmailTaken)),
                    Err(error) if violates(&error, "user_accounts_external_id_key") => {
                        return Ok(Err(Update::ExternalIdTaken));
                    }
                    Err(error) => return Err(error.into()),
                };
                if change.alert_threshold.is_some() {
                    alerts::settle(&mut transaction, &[id.0], alerts::Cause::Thresholds).await?;
                }
                let data = json!({"changed": change.names()});
                let act = Act { action: Action::UserChanged, user: Some(id), data };
                record(&mut transaction, &self.keyring, act).await?;
                transaction.commit().await.map_err(StoreError::from_commit)?;
                Ok::<_, StoreError>(Ok(row))
            })
            .await?;
        match done {
            Ok(row) => Ok(Update::Updated(row.open(&self.keyring)?)),
            Err(refused) => Ok(refused),
        }
    }
}

async fn update(
    connection: &mut PgConnection,
    id: UserId,
    expected: &Expected,
    email: &Option<SealedEmail>,
    change: &ProfileChange,
) -> Result<Option<UserRow>, sqlx::Error> {
    let versions: Option<Vec<i64>> = match expected {
        Expected::Any => None,
        Expected::OneOf(versions) => Some(versions.iter().map(|version| signed(*version)).collect()),
    };
    let ProfileChange { email: _, external_id, locale, time_zone, alert_threshold } = change;
    sqlx::query_as!(
        UserRow,
        r#"UPDATE user_accounts
         SET email = CASE WHEN $3::bytea IS NULL THEN email END,
             email_sealed = coalesce($3, email_sealed),
             email_index = coalesce($11, email_index),
             external_id = CASE WHEN $4 THEN $5 ELSE external_id END,
             locale = CASE WHEN $6 THEN $7 ELSE locale END,
             time_zone = CASE WHEN $8 THEN $9 ELSE time_zone END,
             alert_threshold = coalesce($10::int::numeric / 10000, alert_threshold),
             alert_critical = greatest(alert_critical, $10::int::numeric / 10000),
             version = version + 1, updated_at = now()
         WHERE id = $1 AND status <> 'deleted' AND ($2::bigint[] IS NULL OR version = ANY($2))
         RETURNING id, email, email_sealed, external_id, status, locale, time_zone, total_tokens, used_tokens, version,
                   created_at, updated_at, greatest(1, round(alert_threshold * 10000))::int AS "alert_threshold!""#,
        id.0,
        versions.as_deref(),
        email.as_ref().map(|email| &email.sealed[..]),
        external_id.is_some(),
        external_id.as_ref().and_then(Option::as_deref),
        locale.is_some(),
        locale.as_ref().and_then(Option::as_deref),
        time_zone.is_some(),
        time_zone.as_ref().and_then(Option::as_deref),
        alert_threshold.map(|threshold| i32::from(threshold.ten_thousandths())),
        email.as_ref().map(|email| &email.index[..]),
    )
    .fetch_optional(connection)
    .await
}
