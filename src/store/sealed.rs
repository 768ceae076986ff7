//! All sealed values, wherever they lie: which key sealed them, and how they get to another one.
//!
//! A sealed column is a `bytea` whose name ends in `_sealed`, in a table whose key is `id uuid` ([`Place`]). They are
//! found in the catalogue, so that a new one is rotated like the rest. Names of tables and columns so come from Postgres
//! and are quoted by it; this is the one file whose SQL is not checked at compile time.

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use uuid::Uuid;

use super::{MAX_ATTEMPTS, Store, StoreError};
use crate::crypto::{Keyring, Place};

/// A column of sealed values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedColumn {
    pub table: String,
    pub column: String,
}

/// How many values of a column one key has sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedCount {
    pub column: SealedColumn,
    pub key_id: String,
    pub values: u64,
}

/// What one step of a rotation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Values that the active key has sealed now. One that somebody else changed meanwhile is not counted.
    pub resealed: usize,
    /// Where to go on; `None` at the end.
    pub next: Option<Uuid>,
    /// Rows whose value cannot be opened, and why. They stay as they are.
    pub broken: Vec<(Uuid, String)>,
}

impl Store {
    /// Every column of sealed values.
    pub async fn sealed_columns(&self) -> Result<Vec<SealedColumn>, StoreError> {
        self.run(async |mut connection| {
            sqlx::query_as!(
                SealedColumn,
                r#"SELECT c.relname::text AS "table!", a.attname::text AS "column!"
                   FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                   WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
                         AND a.atttypid = 'bytea'::regtype AND a.attname LIKE '%\_sealed' AND NOT a.attisdropped
                   ORDER BY 1, 2"#,
            )
            .fetch_all(&mut *connection)
            .await
        })
        .await
    }

    /// Which keys have sealed how much of a column. Reads the whole column.
    pub async fn sealed_counts(&self, of: &SealedColumn) -> Result<Vec<SealedCount>, StoreError> {
        let rows = self
            .run(async |mut connection| {
                let (table, column) = quoted(&mut connection, of).await?;
                let sql = format!(
                    "SELECT convert_from(substring({column} FROM 3 FOR get_byte({column}, 1)), 'UTF8') AS key_id,
                            count(*) AS n
                     FROM {table} WHERE octet_length({column}) > 2 GROUP BY 1 ORDER BY 1"
                );
                sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut *connection).await
            })
            .await?;
        rows.iter()
            .map(|row| {
                let values = super::unsigned(row.try_get("n")?)?;
                Ok(SealedCount { column: of.clone(), key_id: row.try_get("key_id")?, values })
            })
            .collect()
    }

    /// Seals the next values of a column anew that another than the active key has sealed, at most `limit`. Nothing is
    /// lost whenever it ends: what was sealed anew stays so, and the rest is found again.
    pub async fn reseal(&self, of: &SealedColumn, after: Uuid, limit: u32) -> Result<Resealed, StoreError> {
        let mut attempt = 1;
        loop {
            let step =
                self.run(async |mut connection| step(&mut connection, &self.keyring, of, after, limit).await);
            match step.await {
                Err(StoreError::Contended(_)) if attempt < MAX_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }
}

async fn step(
    connection: &mut PgConnection,
    keyring: &Keyring,
    of: &SealedColumn,
    after: Uuid,
    limit: u32,
) -> Result<Resealed, StoreError> {
    let (table, column) = quoted(connection, of).await?;
    let mut transaction = connection.begin().await?;
    let found = others(&mut transaction, keyring, (&table, &column), after, limit).await?;
    let next = found.last().filter(|_| found.len() == limit as usize).map(|(id, _)| *id);
    let (mut ids, mut new, mut broken) = (Vec::new(), Vec::new(), Vec::new());
    for (row, old) in found {
        let place = Place { table: &of.table, column: &of.column, row };
        match keyring.open(place, &old) {
            Ok(plain) => {
                ids.push(row);
                new.push(keyring.seal(place, &plain)?);
            }
            Err(error) => broken.push((row, error.to_string())),
        }
    }
    let sql = format!(
        "UPDATE {table} t SET {column} = s.new FROM UNNEST($1::uuid[], $2::bytea[]) AS s (id, new)
         WHERE t.id = s.id"
    );
    let done = sqlx::query(AssertSqlSafe(sql)).bind(&ids).bind(&new).execute(&mut *transaction).await?;
    transaction.commit().await.map_err(StoreError::from_commit)?;
    Ok(Resealed { resealed: usize::try_from(done.rows_affected()).unwrap_or(usize::MAX), next, broken })
}

/// Values that another key sealed, their rows locked in the order in which everybody locks them.
async fn others(
    connection: &mut PgConnection,
    keyring: &Keyring,
    (table, column): (&str, &str),
    after: Uuid,
    limit: u32,
) -> Result<Vec<(Uuid, Vec<u8>)>, sqlx::Error> {
    let head = keyring.active_head();
    let sql = format!(
        "SELECT id, {column} FROM {table}
         WHERE id > $1 AND {column} IS NOT NULL AND substring({column} FROM 1 FOR $2) <> $3
         ORDER BY id LIMIT $4 FOR NO KEY UPDATE"
    );
    let query = sqlx::query_as(AssertSqlSafe(sql)).bind(after).bind(head.len() as i32).bind(head);
    query.bind(i64::from(limit)).fetch_all(connection).await
}

/// The names as they may stand in SQL.
async fn quoted(connection: &mut PgConnection, of: &SealedColumn) -> Result<(String, String), sqlx::Error> {
    let names = sqlx::query!(
        r#"SELECT quote_ident($1) AS "table!", quote_ident($2) AS "column!""#,
        of.table,
        of.column,
    );
    let names = names.fetch_one(connection).await?;
    Ok((names.table, names.column))
}
