//! Auto-renewal: what is configured, what was renewed, and what waits to be looked at.
//!
//! A flush that leaves an account with few tokens marks it (`mark_due`, one statement, in the SQL transaction of the
//! rows). The renewer then looks at it under the account's row lock (`evaluate`), where the pure rule
//! ([`crate::quota::RenewalRule`]) decides on the truth: so a renewal is made once however many replicas look, and a
//! purchase that came first is seen. A look is never lost, since the mark is in the table; and a renewal that cannot be
//! made holds up no flush.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `config` | what an operator sets |
//! | `evaluate` | one look at one account |
//! | `confirm` | a request that is paid |

mod config;
mod confirm;
mod evaluate;

use jiff::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

pub use config::{AutoRenewal, AutoRenewalUpdate};
pub use confirm::Confirmation;

use super::{Store, StoreError, unsigned};
use crate::quota::{RenewalMode, UserId};

/// One renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    pub id: Uuid,
    pub user: UserId,
    pub mode: RenewalMode,
    pub state: RenewalState,
    pub tokens: u64,
    /// The numbers that made it due.
    pub used_tokens: u64,
    pub total_tokens: u64,
    /// The calendar month it counts in, as `YYYY-MM`, in the user's time zone.
    pub month: String,
    pub requested_at: Timestamp,
    /// When a request that is not paid is over.
    pub expires_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub grant: Option<Uuid>,
}

/// What has become of a renewal; all but `Pending` are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalState {
    /// Requested, and not yet paid.
    Pending,
    Granted,
    /// Renewal was switched off, or no longer waits for payments.
    Cancelled,
    /// Not paid in time.
    Expired,
}

impl RenewalState {
    pub const ALL: [Self; 4] = [Self::Pending, Self::Granted, Self::Cancelled, Self::Expired];

    /// The word in SQL and API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Granted => "granted",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// What one look at an account did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Renewed {
    /// Renewals granted: the account has a new total.
    pub granted: u32,
    /// A payment was asked for.
    pub requested: bool,
    /// It was told that the month has no renewal left.
    pub capped: bool,
}

struct RenewalRow {
    id: Uuid,
    user_id: Uuid,
    mode: String,
    state: String,
    tokens: i64,
    used_tokens: i64,
    total_tokens: i64,
    month: String,
    requested_at: jiff_sqlx::Timestamp,
    expires_at: Option<jiff_sqlx::Timestamp>,
    finished_at: Option<jiff_sqlx::Timestamp>,
    grant_id: Option<Uuid>,
}

impl TryFrom<RenewalRow> for Renewal {
    type Error = StoreError;

    fn try_from(row: RenewalRow) -> Result<Self, StoreError> {
        let state = RenewalState::from_name(&row.state);
        Ok(Self {
            id: row.id,
            user: UserId(row.user_id),
            mode: mode(&row.mode)?,
            state: state.ok_or_else(|| StoreError::corrupt(format_args!("renewal state {:?}", row.state)))?,
            tokens: unsigned(row.tokens)?,
            used_tokens: unsigned(row.used_tokens)?,
            total_tokens: unsigned(row.total_tokens)?,
            month: row.month,
            requested_at: row.requested_at.to_jiff(),
            expires_at: row.expires_at.map(|at| at.to_jiff()),
            finished_at: row.finished_at.map(|at| at.to_jiff()),
            grant: row.grant_id,
        })
    }
}

fn mode(word: &str) -> Result<RenewalMode, StoreError> {
    RenewalMode::from_name(word).ok_or_else(|| StoreError::corrupt(format_args!("renewal mode {word:?}")))
}

impl Store {
    /// A user's renewals, newest first, those before `before`, at most `limit`; with `state` only those.
    pub async fn renewals(
        &self,
        user: UserId,
        state: Option<RenewalState>,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Renewal>, StoreError> {
        let rows = self
            .run_as(user, async |mut connection| {
                sqlx::query_as!(
                    RenewalRow,
                    "SELECT id, user_id, mode, state, tokens, used_tokens, total_tokens, month, requested_at,
                            expires_at, finished_at, grant_id
                     FROM renewals
                     WHERE user_id = $1 AND id < $2 AND ($3::text IS NULL OR state = $3)
                     ORDER BY id DESC LIMIT $4",
                    user.0,
                    before.unwrap_or(Uuid::max()),
                    state.map(RenewalState::as_str),
                    i64::from(limit),
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        rows.into_iter().map(Renewal::try_from).collect()
    }

    /// Accounts whose renewal is to be looked at by now, the longest waiting first, at most `limit`.
    pub async fn renewals_to_check(&self, limit: u32) -> Result<Vec<UserId>, StoreError> {
        let users = self
            .run(async |mut connection| {
                sqlx::query_scalar!(
                    "SELECT user_id FROM auto_renewals WHERE check_at <= now() ORDER BY check_at LIMIT $1",
                    i64::from(limit),
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        Ok(users.into_iter().map(UserId).collect())
    }

    /// Puts the next look at an account off by a minute, so that one that fails holds up no other.
    pub async fn put_off_renewal(&self, user: UserId) -> Result<(), StoreError> {
        self.run(async |mut connection| {
            sqlx::query!(
                "UPDATE auto_renewals SET check_at = now() + interval '1 minute' WHERE user_id = $1",
                user.0,
            )
            .execute(&mut *connection)
            .await
        })
        .await?;
        Ok(())
    }
}

/// Marks those of these accounts that have few tokens left, for the renewer; says how many. The caller holds the
/// accounts' rows.
pub(super) async fn mark_due(connection: &mut PgConnection, users: &[Uuid]) -> Result<usize, StoreError> {
    // The rule of `RenewalRule::is_due`; should the two ever differ, the renewer's look changes nothing.
    let marked = sqlx::query!(
        "UPDATE auto_renewals r SET check_at = now()
         FROM user_accounts a
         WHERE r.user_id = ANY($1) AND a.id = r.user_id AND r.enabled AND r.check_at IS NULL
               AND a.total_tokens - a.used_tokens <= a.total_tokens * r.threshold",
        users,
    )
    .execute(connection)
    .await?
    .rows_affected();
    Ok(marked as usize)
}
