//! What a user wants to be told, and how.

use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::{
    Expected, Store, StoreError,
    audit::{Act, Action, record},
    signed, unsigned,
};
use crate::{
    crypto::Keyring,
    quota::{EventKind, UserId},
};

/// The settings of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotificationSettings {
    pub email_enabled: bool,
    /// Kinds of events that are told by e-mail; all when absent.
    pub email_kinds: Option<Vec<EventKind>>,
    pub webhooks_enabled: bool,
    /// Counts the changes; 0 before the first.
    pub version: u64,
}

impl Default for NotificationSettings {
    /// Everything, by every way.
    fn default() -> Self {
        Self { email_enabled: true, email_kinds: None, webhooks_enabled: true, version: 0 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingsUpdate {
    Updated(NotificationSettings),
    /// Their version is another one; nothing was changed.
    Stale,
    UserNotFound,
}

struct Row {
    email_enabled: Option<bool>,
    email_kinds: Option<Vec<String>>,
    webhooks_enabled: Option<bool>,
    version: Option<i64>,
}

impl TryFrom<Row> for NotificationSettings {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        // A kind that a newer version has written is unknown here, and stays in the row.
        let known = |kinds: Vec<String>| kinds.iter().filter_map(|kind| EventKind::from_name(kind)).collect();
        Ok(Self {
            email_enabled: row.email_enabled.unwrap_or(true),
            email_kinds: row.email_kinds.map(known),
            webhooks_enabled: row.webhooks_enabled.unwrap_or(true),
            version: unsigned(row.version.unwrap_or(0))?,
        })
    }
}

impl Store {
    /// A user's settings; `None` when there is no such user.
    pub async fn notification_settings(
        &self,
        user: UserId,
    ) -> Result<Option<NotificationSettings>, StoreError> {
        self.run_as(user, async |mut connection| select(&mut connection, user).await)
            .await?
            .map(NotificationSettings::try_from)
            .transpose()
    }

    /// Replaces a user's settings, if their version is still as expected; that of `new` does not matter.
    pub async fn set_notification_settings(
        &self,
        user: UserId,
        expected: &Expected,
        new: &NotificationSettings,
    ) -> Result<SettingsUpdate, StoreError> {
        self.run(async |mut connection| set(&mut connection, &self.keyring, user, expected, new).await).await
    }
}

async fn select(connection: &mut PgConnection, user: UserId) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT s.email_enabled AS "email_enabled?", s.email_kinds, s.webhooks_enabled AS "webhooks_enabled?",
                  s.version AS "version?"
         FROM user_accounts u LEFT JOIN notification_settings s ON s.user_id = u.id WHERE u.id = $1"#,
        user.0,
    )
    .fetch_optional(connection)
    .await
}

async fn set(
    connection: &mut PgConnection,
    keyring: &Keyring,
    user: UserId,
    expected: &Expected,
    new: &NotificationSettings,
) -> Result<SettingsUpdate, StoreError> {
    let mut transaction = connection.begin().await?;
    // Changes of one user queue up here, the first one too, which has no row of its own to lock.
    let locked = sqlx::query_scalar!("SELECT id FROM user_accounts WHERE id = $1 FOR NO KEY UPDATE", user.0)
        .fetch_optional(&mut *transaction)
        .await?;
    if locked.is_none() {
        return Ok(SettingsUpdate::UserNotFound);
    }
    let Some(row) = select(&mut transaction, user).await? else { return Ok(SettingsUpdate::UserNotFound) };
    let before = NotificationSettings::try_from(row)?;
    if matches!(expected, Expected::OneOf(versions) if !versions.contains(&before.version)) {
        return Ok(SettingsUpdate::Stale);
    }
    let version = before.version + 1;
    let kinds = new.email_kinds.as_deref();
    let kinds: Option<Vec<String>> =
        kinds.map(|kinds| kinds.iter().map(|kind| kind.as_str().to_owned()).collect());
    sqlx::query!(
        "INSERT INTO notification_settings (user_id, email_enabled, email_kinds, webhooks_enabled, version)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (user_id) DO UPDATE
         SET email_enabled = $2, email_kinds = $3, webhooks_enabled = $4, version = $5, updated_at = now()",
        user.0,
        new.email_enabled,
        kinds.as_deref(),
        new.webhooks_enabled,
        signed(version),
    )
    .execute(&mut *transaction)
    .await?;
    let data = json!({"what": "notification_settings.changed"});
    record(&mut transaction, keyring, Act { action: Action::ConfigurationChanged, user: Some(user), data })
        .await?;
    transaction.commit().await.map_err(StoreError::from_commit)?;
    Ok(SettingsUpdate::Updated(NotificationSettings { version, ..new.clone() }))
}
