//! Migrations: embedded, applied by `cota migrate`, checked at every start.

use sqlx::{
    Connection,
    migrate::{MigrateError, Migrator},
};

use super::{
    SchemaError, Store, StoreError,
    error::{Verdict, verdict_of},
};

static MIGRATOR: Migrator = sqlx::migrate!();

/// The newest migration that this program knows.
pub(super) fn newest_migration() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0)
}

impl Store {
    /// Applies the migrations that are missing; says how many. Two at once wait for each other. Refuses a schema that
    /// is newer than this program, or was changed.
    pub async fn migrate(&self) -> Result<usize, StoreError> {
        let mut connection = self.owner_session().await?;
        let before = applied(&mut connection).await?.len();
        MIGRATOR.run_direct(None, &mut connection, false).await.map_err(from_migrate)?;
        let after = applied(&mut connection).await?.len();
        connection.close().await?;
        Ok(after.saturating_sub(before))
    }

    /// Whether the schema is the one this program was built for; for the start of the server.
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        let applied = self.run(async |mut connection| applied(&mut connection).await).await?;
        for migration in &applied {
            match MIGRATOR.iter().find(|known| known.version == migration.version) {
                None => Err(SchemaError::Ahead(migration.version))?,
                Some(_) if !migration.success => Err(SchemaError::Dirty(migration.version))?,
                Some(known) if *known.checksum != migration.checksum => {
                    Err(SchemaError::Changed(migration.version))?;
                }
                Some(_) => {}
            }
        }
        match MIGRATOR.iter().find(|known| applied.iter().all(|done| done.version != known.version)) {
            Some(missing) => Err(SchemaError::Behind(missing.version).into()),
            None => Ok(()),
        }
    }
}

struct Applied {
    version: i64,
    success: bool,
    checksum: Vec<u8>,
}

/// Migrations the database has seen; none in an empty database.
async fn applied(connection: &mut sqlx::PgConnection) -> Result<Vec<Applied>, sqlx::Error> {
    let rows =
        sqlx::query_as!(Applied, "SELECT version, success, checksum FROM _sqlx_migrations ORDER BY version")
            .fetch_all(connection)
            .await;
    match rows {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => Ok(Vec::new()),
        rows => rows,
    }
}

fn from_migrate(error: MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(version) => SchemaError::Ahead(version).into(),
        MigrateError::VersionMismatch(version) => SchemaError::Changed(version).into(),
        MigrateError::Dirty(version) => SchemaError::Dirty(version).into(),
        MigrateError::Execute(error) if verdict_of(&error) != Some(Verdict::Failed) => error.into(),
        error => StoreError::Failed(error.to_string().into()),
    }
}
