//! What is kept of a user, table by table: for the export of everything, and for deletion.
//!
//! [`TABLES`] names every table with a `user_id`, and a test holds it against the catalogue: a new table is exported, and
//! somebody has decided what becomes of it. Names in SQL come from this list alone; it is therefore not checked at compile
//! time.

use futures_util::{Stream, stream};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use uuid::Uuid;

use super::{
    Store, StoreError,
    audit::{Act, Action, record},
};
use crate::quota::UserId;

/// What becomes of a user's rows when the user is deleted.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// They say nothing of who it was.
    Kept,
    /// They stay without this: what is set, and where it is still to be done.
    Blanked {
        set: &'static str,
        still: &'static str,
    },
    Deleted,
}

/// Every table of users but `user_accounts` itself, in the order in which rows go: first what refers to others.
const TABLES: &[(&str, Fate)] = &[
    ("anomalies", Fate::Kept),
    ("audit_log", Fate::Kept),
    ("auto_renewals", Fate::Deleted),
    ("credit_purchases", Fate::Kept),
    // The gateway's own note on a call may be anything.
    ("dead_letters", Fate::Blanked { set: "entry = entry - 'metadata'", still: "entry ? 'metadata'" }),
    ("grants", Fate::Blanked { set: "reason = NULL", still: "reason IS NOT NULL" }),
    ("monthly_reports", Fate::Kept),
    ("renewals", Fate::Kept),
    ("user_alerts", Fate::Kept),
    ("event_tickets", Fate::Deleted),
    ("notification_settings", Fate::Deleted),
    ("notifications", Fate::Deleted),
    ("token_transactions", Fate::Blanked { set: "metadata = NULL", still: "metadata IS NOT NULL" }),
    ("usage_days", Fate::Kept),
    ("usage_quarters", Fate::Kept),
    ("user_events", Fate::Deleted),
    ("webhook_endpoints", Fate::Deleted),
];

/// Rows of one step of an erasure.
const STEP: i64 = 1_000;

/// Rows that an export reads at once.
const PAGE: usize = 500;

/// How long an export may wait for its reader.
const PATIENCE: &str = "60s";

/// What came of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    Deleted,
    /// It was deleted before.
    Repeated,
    UserNotFound,
}

impl Store {
    /// The tables that an export holds.
    pub fn tables_of_users() -> impl Iterator<Item = &'static str> {
        TABLES.iter().map(|(table, _)| *table)
    }

    /// Makes an account nobody's: its address, external id, locale and zone are gone with the commit, and its next
    /// reserve is refused. What is to go of other tables goes by [`Store::erase`].
    pub async fn delete_user(&self, id: UserId) -> Result<Deletion, StoreError> {
        self.run(async |mut connection| {
            let mut transaction = connection.begin().await?;
            let status =
                sqlx::query_scalar!("SELECT status FROM user_accounts WHERE id = $1 FOR NO KEY UPDATE", id.0)
                    .fetch_optional(&mut *transaction)
                    .await?;
            match status.as_deref() {
                None => return Ok(Deletion::UserNotFound),
                Some("deleted") => return Ok(Deletion::Repeated),
                Some(_) => {}
            }
            sqlx::query!(
                "UPDATE user_accounts
                 SET status = 'deleted', deleted_at = now(), email = NULL, email_sealed = NULL, email_index = NULL,
                     external_id = NULL, locale = NULL, time_zone = NULL, version = version + 1, updated_at = now()
                 WHERE id = $1",
                id.0,
            )
            .execute(&mut *transaction)
            .await?;
            let act = Act { action: Action::UserDeleted, user: Some(id), data: serde_json::json!({}) };
            record(&mut transaction, &self.keyring, act).await?;
            transaction.commit().await.map_err(StoreError::from_commit)?;
            Ok::<_, StoreError>(Deletion::Deleted)
        })
        .await
    }

    /// Lets go of what is left of a deleted user, up to 1,000 rows; whether there may be more. When nothing is
    /// left and no call of the user can be under way any more, that is noted.
    pub async fn erase(&self, id: UserId) -> Result<bool, StoreError> {
        self.run(async |mut connection| {
            for (table, fate) in TABLES {
                let rows = format!("SELECT ctid FROM {table} WHERE user_id = $1");
                let sql = match fate {
                    Fate::Kept => continue,
                    Fate::Deleted => format!("DELETE FROM {table} WHERE ctid = ANY(ARRAY({rows} LIMIT $2))"),
                    Fate::Blanked { set, still } => format!(
                        "UPDATE {table} SET {set} WHERE ctid = ANY(ARRAY({rows} AND {still} LIMIT $2))"
                    ),
                };
                let step = sqlx::query(AssertSqlSafe(sql)).bind(id.0).bind(STEP);
                if step.execute(&mut *connection).await?.rows_affected() > 0 {
                    return Ok(true);
                }
            }
            // A reservation lives a day at most, and may be settled for another one.
            sqlx::query!(
                "UPDATE user_accounts SET erased_at = now()
                 WHERE id = $1 AND status = 'deleted' AND erased_at IS NULL AND deleted_at < now() - interval '49 hours'",
                id.0,
            )
            .execute(&mut *connection)
            .await?;
            Ok::<_, StoreError>(false)
        })
        .await
    }

    /// Deleted users of whom something may be left.
    pub async fn to_erase(&self) -> Result<Vec<UserId>, StoreError> {
        let ids = self
            .run(async |mut connection| {
                sqlx::query_scalar!(
                    "SELECT id FROM user_accounts WHERE status = 'deleted' AND erased_at IS NULL ORDER BY id"
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        Ok(ids.into_iter().map(UserId).collect())
    }

    /// Everything that the tables of users hold of one, as the members of a JSON object: a name, and a list of rows. In
    /// one snapshot, on a connection of its own, piece by piece as the reader takes it. What is sealed is left out.
    ///
    /// # Errors
    /// When there is no connection; the stream ends with an error when that breaks, or its reader takes too long.
    pub async fn export(
        &self,
        id: UserId,
    ) -> Result<impl Stream<Item = Result<String, StoreError>> + Send + use<>, StoreError> {
        let options = (*self.options).clone().options([("idle_in_transaction_session_timeout", PATIENCE)]);
        let mut connection = options.connect().await.map_err(StoreError::from_acquire)?;
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL cota.scope = 'user';
             SET LOCAL cota.user_id = '{0}'",
            id.0.hyphenated()
        );
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut connection).await?;
        let export = Export { connection, user: id.0, table: 0, rows: None };
        Ok(stream::try_unfold(export, |mut export| async move {
            let piece = export.next().await?;
            Ok(piece.map(|piece| (piece, export)))
        }))
    }
}

/// Where an export is.
struct Export {
    connection: PgConnection,
    user: Uuid,
    table: usize,
    /// Rows read of the open cursor; `None` before it is opened.
    rows: Option<usize>,
}

impl Export {
    async fn next(&mut self) -> Result<Option<String>, StoreError> {
        let Some((table, _)) = TABLES.get(self.table) else { return Ok(None) };
        let mut piece = String::new();
        if self.rows.is_none() {
            let comma = if self.table == 0 { "" } else { "," };
            piece = format!("{comma}\"{table}\":[");
            let sql = declare(table, self.user);
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection).await?;
        }
        let before = self.rows.unwrap_or(0);
        let fetch = format!("FETCH {PAGE} FROM export");
        let rows: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(fetch)).fetch_all(&mut self.connection).await?;
        if before > 0 && !rows.is_empty() {
            piece.push(',');
        }
        piece.push_str(&rows.join(","));
        if rows.len() < PAGE {
            sqlx::raw_sql("CLOSE export").execute(&mut self.connection).await?;
            piece.push(']');
            (self.table, self.rows) = (self.table + 1, None);
        } else {
            self.rows = Some(before + rows.len());
        }
        Ok(Some(piece))
    }
}

/// A cursor over the user's rows as JSON, without columns of bytes: hashes, and what is sealed.
fn declare(table: &str, user: Uuid) -> String {
    format!(
        "DECLARE export NO SCROLL CURSOR FOR
         SELECT (to_jsonb(t) - ARRAY(SELECT attname::text FROM pg_attribute
                                     WHERE attrelid = '{table}'::regclass AND atttypid = 'bytea'::regtype))::text
         FROM {table} t WHERE user_id = '{}'",
        user.hyphenated()
    )
}
