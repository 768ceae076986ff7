//! Accounts.

use jiff::Timestamp;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{
    Store, StoreError,
    audit::{Act, Action, record},
    error::violates,
    secrets::{EMAIL_INDEX, SealedEmail, email_index, open_email},
    unsigned,
};
use crate::{
    crypto::Keyring,
    quota::{AlertThreshold, UserId},
};

/// An account as Postgres has it. What is reserved is in Redis only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub email: String,
    pub external_id: Option<String>,
    pub status: UserStatus,
    pub locale: Option<String>,
    pub time_zone: Option<String>,
    /// The share of the total at which the user is warned.
    pub alert_threshold: AlertThreshold,
    /// Granted tokens.
    pub total_tokens: u64,
    /// Settled tokens that have arrived in the ledger; Redis may be ahead by what is in the outbox.
    pub used_tokens: u64,
    /// Counts every change but those that a flush makes. Redis is told of each, also where it changes nothing there.
    pub version: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserStatus {
    Active,
    /// Reserves are refused; what is under way may still settle.
    Suspended,
}

impl UserStatus {
    /// The word in SQL and API answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }

    pub(super) fn from_sql(word: &str) -> Result<Self, StoreError> {
        match word {
            "active" => Ok(Self::Active),
            "suspended" => Ok(Self::Suspended),
            other => Err(StoreError::corrupt(format_args!("user status {other:?}"))),
        }
    }
}

/// What an account starts with. The caller has checked the address and the texts.
#[derive(Clone, Debug, Default)]
pub struct NewUser {
    /// A UUIDv7 when absent.
    pub id: Option<UserId>,
    /// 3–320 bytes.
    pub email: String,
    /// 1–255 bytes.
    pub external_id: Option<String>,
    pub locale: Option<String>,
    pub time_zone: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creation {
    Created(User),
    /// Another account has this address, in whatever case.
    EmailTaken,
    ExternalIdTaken,
    IdTaken,
}

/// Which accounts a list shows; absent parts do not filter.
#[derive(Clone, Copy, Debug, Default)]
pub struct UserFilter<'a> {
    /// The whole address, in any case.
    pub email: Option<&'a str>,
    /// The whole external id, exactly.
    pub external_id: Option<&'a str>,
    pub status: Option<UserStatus>,
}

pub(super) struct UserRow {
    pub(super) id: Uuid,
    pub(super) email: Option<String>,
    pub(super) email_sealed: Option<Vec<u8>>,
    pub(super) external_id: Option<String>,
    pub(super) status: String,
    pub(super) locale: Option<String>,
    pub(super) time_zone: Option<String>,
    pub(super) alert_threshold: i32,
    pub(super) total_tokens: i64,
    pub(super) used_tokens: i64,
    pub(super) version: i64,
    pub(super) created_at: jiff_sqlx::Timestamp,
    pub(super) updated_at: jiff_sqlx::Timestamp,
}

impl UserRow {
    /// The account, its address opened.
    pub(super) fn open(self, keyring: &Keyring) -> Result<User, StoreError> {
        let email = match (self.email, &self.email_sealed) {
            // An older replica may have written it after it was sealed: then it is the newer one.
            (Some(plain), _) => plain,
            (None, Some(sealed)) => open_email(keyring, self.id, sealed)?,
            (None, None) => return Err(StoreError::corrupt("an account without an address")),
        };
        Ok(User {
            id: UserId(self.id),
            email,
            external_id: self.external_id,
            status: UserStatus::from_sql(&self.status)?,
            locale: self.locale,
            time_zone: self.time_zone,
            alert_threshold: threshold(self.alert_threshold)?,
            total_tokens: unsigned(self.total_tokens)?,
            used_tokens: unsigned(self.used_tokens)?,
            version: unsigned(self.version)?,
            created_at: self.created_at.to_jiff(),
            updated_at: self.updated_at.to_jiff(),
        })
    }
}

/// From ten-thousandths, which the schema keeps above 0 and at most 10,000.
pub(super) fn threshold(n: i32) -> Result<AlertThreshold, StoreError> {
    let threshold = u16::try_from(n).ok().and_then(|n| AlertThreshold::from_ten_thousandths(n).ok());
    threshold.ok_or_else(|| StoreError::corrupt(format_args!("alert threshold {n}")))
}

impl Store {
    /// Creates an account with nothing granted.
    pub async fn create_user(&self, new: &NewUser) -> Result<Creation, StoreError> {
        let id = new.id.unwrap_or_else(UserId::generate);
        let email = SealedEmail::new(&self.keyring, id.0, &new.email)?;
        let inserted = self
            .run(async |mut connection| {
                let mut transaction = connection.begin().await?;
                let row = match insert_user(&mut transaction, id, &email, new).await {
                    Ok(row) => row,
                    Err(error) if violates(&error, EMAIL_INDEX) => return Ok(Err(Creation::EmailTaken)),
                    Err(error) if violates(&error, "user_accounts_external_id_key") => {
                        return Ok(Err(Creation::ExternalIdTaken));
                    }
                    Err(error) if violates(&error, "user_accounts_pkey") => {
                        return Ok(Err(Creation::IdTaken));
                    }
                    Err(error) => return Err(error.into()),
                };
                let act = Act { action: Action::UserCreated, user: Some(id), data: json!({}) };
                record(&mut transaction, &self.keyring, act).await?;
                transaction.commit().await.map_err(StoreError::from_commit)?;
                Ok::<_, StoreError>(Ok(row))
            })
            .await?;
        match inserted {
            Ok(row) => Ok(Creation::Created(row.open(&self.keyring)?)),
            Err(taken) => Ok(taken),
        }
    }

    pub async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        self.run_as(id, async |mut connection| select_user(&mut connection, id).await)
            .await?
            .map(|row| row.open(&self.keyring))
            .transpose()
    }

    /// Accounts by id, after `after`, at most `limit`. An address or external id names at most one account.
    pub async fn users(
        &self,
        after: Option<UserId>,
        limit: u32,
        filter: UserFilter<'_>,
    ) -> Result<Vec<User>, StoreError> {
        let after = after.map_or(Uuid::nil(), |user| user.0);
        let rows = self
            .run(async |mut connection| match filter {
                UserFilter { email: None, external_id: None, status } => {
                    let status = status.map(UserStatus::as_str);
                    page(&mut connection, after, i64::from(limit), status).await
                }
                UserFilter { external_id: Some(external_id), .. } => {
                    by_external_id(&mut connection, external_id).await
                }
                UserFilter { email: Some(email), .. } => {
                    let index = email_index(&self.keyring, email);
                    let mut rows = by_email_index(&mut connection, &index).await?;
                    rows.extend(by_plain_email(&mut connection, email).await?);
                    rows.dedup_by_key(|row| row.id);
                    Ok(rows)
                }
            })
            .await?;
        let users: Vec<User> =
            rows.into_iter().map(|row| row.open(&self.keyring)).collect::<Result<_, _>>()?;
        Ok(users
            .into_iter()
            .filter(|user| user.id.0 > after)
            .filter(|user| filter.status.is_none_or(|status| user.status == status))
            .filter(|user| filter.email.is_none_or(|email| user.email.to_lowercase() == email.to_lowercase()))
            .take(limit as usize)
            .collect())
    }

    /// Suspends or resumes an account; `None` if there is no such account. Setting what is already so changes
    /// nothing, so that Redis is told of real changes only.
    pub async fn set_status(&self, id: UserId, status: UserStatus) -> Result<Option<User>, StoreError> {
        let action = match status {
            UserStatus::Active => Action::UserResumed,
            UserStatus::Suspended => Action::UserSuspended,
        };
        let row = self
            .run(async |mut connection| {
                let mut transaction = connection.begin().await?;
                let changed = sqlx::query!(
                    "UPDATE user_accounts SET status = $2, version = version + 1, updated_at = now()
                     WHERE id = $1 AND status <> $2 AND status <> 'deleted'",
                    id.0,
                    status.as_str(),
                )
                .execute(&mut *transaction)
                .await?
                .rows_affected();
                let row = select_user(&mut transaction, id).await?;
                if changed > 0 {
                    let act = Act { action, user: Some(id), data: json!({}) };
                    record(&mut transaction, &self.keyring, act).await?;
                }
                transaction.commit().await.map_err(StoreError::from_commit)?;
                Ok::<_, StoreError>(row)
            })
            .await?;
        row.map(|row| row.open(&self.keyring)).transpose()
    }
}

async fn insert_user(
    connection: &mut PgConnection,
    id: UserId,
    email: &SealedEmail,
    new: &NewUser,
) -> Result<UserRow, sqlx::Error> {
    sqlx::query_as!(
        UserRow,
        r#"INSERT INTO user_accounts (id, email_sealed, email_index, external_id, locale, time_zone)
         VALUES ($1, $2, $3, $4, $5, $6)
         RETURNING id, email, email_sealed, external_id, status, locale, time_zone, total_tokens, used_tokens, version,
                   created_at, updated_at, greatest(1, round(alert_threshold * 10000))::int AS "alert_threshold!""#,
        id.0,
        email.sealed,
        email.index,
        new.external_id,
        new.locale,
        new.time_zone,
    )
    .fetch_one(connection)
    .await
}

pub(super) async fn select_user(
    connection: &mut PgConnection,
    id: UserId,
) -> Result<Option<UserRow>, sqlx::Error> {
    sqlx::query_as!(
        UserRow,
        r#"SELECT id, email, email_sealed, external_id, status, locale, time_zone, total_tokens, used_tokens, version,
                created_at, updated_at, greatest(1, round(alert_threshold * 10000))::int AS "alert_threshold!"
         FROM user_accounts WHERE id = $1 AND status <> 'deleted'"#,
        id.0,
    )
    .fetch_optional(connection)
    .await
}

async fn page(
    connection: &mut PgConnection,
    after: Uuid,
    limit: i64,
    status: Option<&str>,
) -> Result<Vec<UserRow>, sqlx::Error> {
    sqlx::query_as!(
        UserRow,
        r#"SELECT id, email, email_sealed, external_id, status, locale, time_zone, total_tokens, used_tokens, version,
                created_at, updated_at, greatest(1, round(alert_threshold * 10000))::int AS "alert_threshold!"
         FROM user_accounts
         WHERE id > $1 AND status <> 'deleted' AND ($3::text IS NULL OR status = $3) ORDER BY id LIMIT $2"#,
        after,
        limit,
        status,
    )
    .fetch_all(connection)
    .await
}

async fn by_email_index(connection: &mut PgConnection, index: &[u8]) -> Result<Vec<UserRow>, sqlx::Error> {
    sqlx::query_as!(
        UserRow,
        r#"SELECT id, email, email_sealed, external_id, status, locale, time_zone, total_tokens, used_tokens, version,
                created_at, updated_at, greatest(1, round(alert_threshold * 10000))::int AS "alert_threshold!"
         FROM user_accounts WHERE email_index = $1"#,
        index,
    )
    .fetch_all(connection)
    .await
}

/// Among the accounts that `cota migrate` has not sealed yet. A statement of its own: row-level security lets `lower`
/// see no row before its policy has, so that it never finds by an index.
async fn by_plain_email(connection: &mut PgConnection, email: &str) -> Result<Vec<UserRow>, sqlx::Error> {
    sqlx::query_as!(
        UserRow,
        r#"SELECT id, email, email_sealed, external_id, status, locale, time_zone, total_tokens, used_tokens, version,
                created_at, updated_at, greatest(1, round(alert_threshold * 10000))::int AS "alert_threshold!"
         FROM user_accounts WHERE email IS NOT NULL AND lower(email) = lower($1)"#,
        email,
    )
    .fetch_all(connection)
    .await
}

async fn by_external_id(
    connection: &mut PgConnection,
    external_id: &str,
) -> Result<Vec<UserRow>, sqlx::Error> {
    sqlx::query_as!(
        UserRow,
        r#"SELECT id, email, email_sealed, external_id, status, locale, time_zone, total_tokens, used_tokens, version,
                created_at, updated_at, greatest(1, round(alert_threshold * 10000))::int AS "alert_threshold!"
         FROM user_accounts WHERE external_id = $1"#,
        external_id,
    )
    .fetch_all(connection)
    .await
}
