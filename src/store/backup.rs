//! What backups and restores ask of Postgres itself; the data goes through pg_dump and pg_restore.

use sqlx::{ConnectOptions, Connection, PgConnection};

use super::{Store, StoreError};

impl Store {
    /// A session of the login that owns the tables, outside of the pool and without time-outs: for what may take long,
    /// and dies with its process.
    pub(super) async fn owner_session(&self) -> Result<PgConnection, StoreError> {
        let options = (*self.owner).clone().options([
            ("statement_timeout", "0"),
            ("lock_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
        ]);
        options.connect().await.map_err(StoreError::from_acquire)
    }

    /// The server's major version.
    pub async fn server_version(&self) -> Result<u32, StoreError> {
        let mut connection = self.owner_session().await?;
        let number = sqlx::query_scalar!(r#"SELECT current_setting('server_version_num')::int AS "number!""#)
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        Ok(number.unsigned_abs() / 10_000)
    }

    /// Every table with rows, as `schema name`.
    pub async fn tables(&self) -> Result<Vec<String>, StoreError> {
        let mut connection = self.owner_session().await?;
        let tables = sqlx::query_scalar!(
            r#"SELECT n.nspname || ' ' || c.relname AS "name!"
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE c.relkind = 'r' AND c.relpersistence = 'p'
                     AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
               ORDER BY 1"#
        )
        .fetch_all(&mut connection)
        .await?;
        connection.close().await?;
        Ok(tables)
    }

    /// Makes the role that the schema names, which no backup holds, unless it is there.
    pub async fn ensure_role(&self) -> Result<(), StoreError> {
        let mut connection = self.owner_session().await?;
        sqlx::query(include_str!("backup/role.sql")).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// What a backup holds in the name of its owner then: which privileges later tables get.
    pub async fn set_default_privileges(&self) -> Result<(), StoreError> {
        let mut connection = self.owner_session().await?;
        sqlx::query(include_str!("backup/default_privileges.sql")).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }
}
