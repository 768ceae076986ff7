//! Reading the log, and writing down who was refused.

use jiff::Timestamp;
use serde_json::value::RawValue;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{
    ACTS, ChainHead,
    act::{Act, Action, Actor, record_all},
};
use crate::{
    quota::UserId,
    store::{Store, StoreError, signed, unsigned},
};

/// An act on record.
#[derive(Clone, Debug)]
pub struct AuditRow {
    /// Of the chain of acts.
    pub number: u64,
    pub hash: Vec<u8>,
    pub at: Timestamp,
    pub actor: String,
    pub actor_role: String,
    pub action: String,
    pub user: Option<UserId>,
    pub data: Box<RawValue>,
}

struct RawRow {
    number: i64,
    hash: Vec<u8>,
    at: jiff_sqlx::Timestamp,
    actor: String,
    actor_role: String,
    action: String,
    user_id: Option<Uuid>,
    data: String,
}

impl TryFrom<RawRow> for AuditRow {
    type Error = StoreError;

    fn try_from(row: RawRow) -> Result<Self, StoreError> {
        let data = RawValue::from_string(row.data);
        Ok(Self {
            number: unsigned(row.number)?,
            hash: row.hash,
            at: row.at.to_jiff(),
            actor: row.actor,
            actor_role: row.actor_role,
            action: row.action,
            user: row.user_id.map(UserId),
            data: data.map_err(|error| StoreError::corrupt(format_args!("audit data: {error}")))?,
        })
    }
}

/// Calls that were refused to one caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub actor: Actor,
    /// Whom the calls were about.
    pub user: Option<UserId>,
    /// Method and route.
    pub route: String,
    /// How many.
    pub calls: u64,
}

impl Store {
    /// What is on record about a user, newest first, before that number, at most `limit`.
    pub async fn audit_of(
        &self,
        user: UserId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let before = before.map_or(i64::MAX, signed);
        let rows = self
            .run_as(user, async |mut connection| {
                rows_of(&mut connection, user, before, i64::from(limit)).await
            })
            .await?;
        rows.into_iter().map(AuditRow::try_from).collect()
    }

    /// Where all chains end, in one snapshot.
    pub async fn audit_heads(&self) -> Result<Vec<ChainHead>, StoreError> {
        let rows = self
            .run(async |mut connection| {
                sqlx::query!("SELECT chain, number, hash FROM audit_chains ORDER BY chain")
                    .fetch_all(&mut *connection)
                    .await
            })
            .await?;
        rows.into_iter()
            .map(|row| Ok(ChainHead { chain: row.chain, number: unsigned(row.number)?, hash: row.hash }))
            .collect()
    }

    /// Puts refused calls on record.
    pub async fn record_refused(&self, refused: &[Refused]) -> Result<(), StoreError> {
        let act = |refused: &Refused| {
            let data = serde_json::json!({"route": refused.route, "calls": refused.calls});
            (refused.actor.clone(), Act { action: Action::AccessRefused, user: refused.user, data })
        };
        let acts: Vec<_> = refused.iter().map(act).collect();
        self.run(async |mut connection| {
            let mut transaction = connection.begin().await?;
            record_all(&mut transaction, &self.keyring, &acts).await?;
            transaction.commit().await.map_err(StoreError::from_commit)
        })
        .await
    }
}

async fn rows_of(
    connection: &mut PgConnection,
    user: UserId,
    before: i64,
    limit: i64,
) -> Result<Vec<RawRow>, sqlx::Error> {
    sqlx::query_as!(
        RawRow,
        r#"SELECT number, hash, at, actor, actor_role, action, user_id, data::text AS "data!"
           FROM audit_log WHERE user_id = $1 AND chain = $2 AND number < $3 ORDER BY number DESC LIMIT $4"#,
        user.0,
        ACTS,
        before,
        limit,
    )
    .fetch_all(connection)
    .await
}
