//! Grants: immutable, signed changes of what an account has in all.

use jiff::Timestamp;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{
    MAX_ATTEMPTS, Store, StoreError, User,
    audit::{Act, Action, record},
    events::{self, NewEvent},
    users::select_user,
};
use crate::{
    crypto::Keyring,
    quota::{EventKind, MAX_OPERATION_TOKENS, MAX_TOTAL_TOKENS, UserId},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub id: Uuid,
    pub user: UserId,
    pub kind: GrantKind,
    /// Signed, never 0; negative only for an adjustment.
    pub tokens: i64,
    pub idempotency_key: String,
    pub reason: Option<String>,
    pub created_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantKind {
    Purchase,
    Bonus,
    Renewal,
    /// The only kind that may take away.
    Adjustment,
}

impl GrantKind {
    pub const ALL: [Self; 4] = [Self::Purchase, Self::Bonus, Self::Renewal, Self::Adjustment];

    /// The word in SQL and API answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Purchase => "purchase",
            Self::Bonus => "bonus",
            Self::Renewal => "renewal",
            Self::Adjustment => "adjustment",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// A grant to be made. The caller has checked the texts: key 1–255 bytes, reason at most 1,000.
#[derive(Clone, Debug)]
pub struct Credit {
    pub kind: GrantKind,
    /// Signed, ±10^12 at most, not 0, negative only for an adjustment; else [`CreditOutcome::OutOfRange`].
    pub tokens: i64,
    /// Scoped to the user.
    pub idempotency_key: String,
    pub reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreditOutcome {
    /// Granted now; `user` is as the grant left it.
    Granted {
        grant: Grant,
        user: User,
    },
    /// Granted before under this key; `user` is as it is now.
    Replayed {
        grant: Grant,
        user: User,
    },
    /// The key was used for another kind or amount; nothing changed.
    Mismatch,
    UserNotFound,
    /// The amount is none a grant may carry, or the total would fall below 0 or reach 2^53; nothing changed.
    OutOfRange,
}

struct GrantRow {
    id: Uuid,
    user_id: Uuid,
    kind: String,
    tokens: i64,
    idempotency_key: String,
    reason: Option<String>,
    created_at: jiff_sqlx::Timestamp,
}

impl TryFrom<GrantRow> for Grant {
    type Error = StoreError;

    fn try_from(row: GrantRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            user: UserId(row.user_id),
            kind: GrantKind::from_name(&row.kind)
                .ok_or_else(|| StoreError::corrupt(format_args!("grant kind {:?}", row.kind)))?,
            tokens: row.tokens,
            idempotency_key: row.idempotency_key,
            reason: row.reason,
            created_at: row.created_at.to_jiff(),
        })
    }
}

impl Store {
    /// Makes a grant, once per key, in one SQL transaction that holds the account's row: calls with the same key
    /// queue up there and all but the first find the grant. Raises the account's version, so that the sync
    /// worker hands the new total to Redis.
    pub async fn credit(&self, user: UserId, credit: &Credit) -> Result<CreditOutcome, StoreError> {
        let mut attempt = 1;
        loop {
            match self
                .run(async |mut connection| credit_once(&mut connection, &self.keyring, user, credit).await)
                .await
            {
                Err(StoreError::Contended(_)) if attempt < MAX_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    /// A user's grants, newest first, those before `before`, at most `limit`.
    pub async fn grants(
        &self,
        user: UserId,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Grant>, StoreError> {
        let rows = self
            .run_as(user, async |mut connection| {
                sqlx::query_as!(
                    GrantRow,
                    "SELECT id, user_id, kind, tokens, idempotency_key, reason, created_at
                     FROM grants WHERE user_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
                    user.0,
                    before.unwrap_or(Uuid::max()),
                    i64::from(limit),
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        rows.into_iter().map(Grant::try_from).collect()
    }
}

async fn credit_once(
    connection: &mut PgConnection,
    keyring: &Keyring,
    user: UserId,
    credit: &Credit,
) -> Result<CreditOutcome, StoreError> {
    let mut transaction = connection.begin().await?;
    let Some(total) = lock_account(&mut transaction, user).await? else {
        return Ok(CreditOutcome::UserNotFound);
    };
    if let Some(earlier) = find(&mut transaction, user, &credit.idempotency_key).await? {
        if earlier.kind != credit.kind || earlier.tokens != credit.tokens {
            return Ok(CreditOutcome::Mismatch);
        }
        let user = account(&mut transaction, keyring, user).await?;
        return Ok(CreditOutcome::Replayed { grant: earlier, user });
    }
    let total = total.saturating_add(credit.tokens);
    if !may_grant(credit) || !(0..=MAX_TOTAL_TOKENS as i64).contains(&total) {
        return Ok(CreditOutcome::OutOfRange);
    }
    let grant = insert(&mut transaction, user, credit).await?;
    events::append(&mut transaction, &[granted(&grant, total)]).await?;
    let user = account(&mut transaction, keyring, user).await?;
    let data = json!({"grant_id": grant.id, "kind": grant.kind.as_str(), "tokens": grant.tokens});
    record(&mut transaction, keyring, Act { action: Action::GrantMade, user: Some(grant.user), data })
        .await?;
    transaction.commit().await.map_err(StoreError::from_commit)?;
    Ok(CreditOutcome::Granted { grant, user })
}

/// The event of a grant that left the account with `total`.
fn granted(grant: &Grant, total: i64) -> NewEvent {
    let data = serde_json::json!({
        "grant_id": grant.id, "kind": grant.kind.as_str(), "tokens": grant.tokens, "total": total,
    });
    NewEvent { user: grant.user, kind: EventKind::CreditGranted, data }
}

fn may_grant(credit: &Credit) -> bool {
    credit.tokens != 0
        && credit.tokens.unsigned_abs() <= MAX_OPERATION_TOKENS
        && (credit.tokens > 0 || credit.kind == GrantKind::Adjustment)
}

/// Locks the account and says what it has been granted so far. `NO KEY`: bookings only refer to the row.
async fn lock_account(connection: &mut PgConnection, user: UserId) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT total_tokens FROM user_accounts WHERE id = $1 AND status <> 'deleted' FOR NO KEY UPDATE",
        user.0,
    )
    .fetch_optional(connection)
    .await
}

async fn find(connection: &mut PgConnection, user: UserId, key: &str) -> Result<Option<Grant>, StoreError> {
    sqlx::query_as!(
        GrantRow,
        "SELECT id, user_id, kind, tokens, idempotency_key, reason, created_at
         FROM grants WHERE user_id = $1 AND idempotency_key = $2",
        user.0,
        key,
    )
    .fetch_optional(connection)
    .await?
    .map(Grant::try_from)
    .transpose()
}

async fn insert(connection: &mut PgConnection, user: UserId, credit: &Credit) -> Result<Grant, StoreError> {
    let row = sqlx::query_as!(
        GrantRow,
        "INSERT INTO grants (id, user_id, kind, tokens, idempotency_key, reason) VALUES ($1, $2, $3, $4, $5, $6)
         RETURNING id, user_id, kind, tokens, idempotency_key, reason, created_at",
        Uuid::now_v7(),
        user.0,
        credit.kind.as_str(),
        credit.tokens,
        credit.idempotency_key,
        credit.reason,
    )
    .fetch_one(&mut *connection)
    .await?;
    let changed = sqlx::query!(
        "UPDATE user_accounts SET total_tokens = total_tokens + $2, version = version + 1, updated_at = now()
         WHERE id = $1",
        user.0,
        credit.tokens,
    )
    .execute(connection)
    .await?
    .rows_affected();
    if changed != 1 {
        return Err(StoreError::corrupt(format_args!("{changed} accounts have the id {user}")));
    }
    row.try_into()
}

async fn account(connection: &mut PgConnection, keyring: &Keyring, user: UserId) -> Result<User, StoreError> {
    let row = select_user(connection, user).await?;
    row.ok_or(StoreError::Corrupt("a locked account is gone".into()))?.open(keyring)
}
