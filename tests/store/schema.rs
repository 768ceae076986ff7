//! The schema: migrations, and which schemas are refused.

use cota::store::{SchemaError, StoreError};

use crate::scratch::database;

fn schema_error(result: Result<(), StoreError>) -> SchemaError {
    match result {
        Err(StoreError::Schema(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn migrating_twice_and_at_once_is_harmless() {
    let db = database().await;
    sqlx::raw_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public").execute(&db.pool).await.unwrap();
    let store = &db.store;
    assert_eq!(schema_error(store.check_schema().await), SchemaError::Behind(1));
    let (one, other) = tokio::join!(store.migrate(), store.migrate());
    assert!(one.unwrap() + other.unwrap() >= 1);
    assert_eq!(store.migrate().await.unwrap(), 0);
    store.check_schema().await.unwrap();
}

#[tokio::test]
async fn a_newer_changed_or_broken_schema_is_refused() {
    let db = database().await;
    db.store.check_schema().await.unwrap();
    let run = async |sql: &'static str| {
        sqlx::query(sql).execute(&db.pool).await.unwrap();
    };
    run("UPDATE _sqlx_migrations SET success = false WHERE version = 1").await;
    assert_eq!(schema_error(db.store.check_schema().await), SchemaError::Dirty(1));
    assert_eq!(schema_error(db.store.migrate().await.map(drop)), SchemaError::Dirty(1));

    run("UPDATE _sqlx_migrations SET success = true, checksum = '\\x00' WHERE version = 1").await;
    assert_eq!(schema_error(db.store.check_schema().await), SchemaError::Changed(1));
    assert_eq!(schema_error(db.store.migrate().await.map(drop)), SchemaError::Changed(1));

    run("UPDATE _sqlx_migrations SET version = 999 WHERE version = 1").await;
    assert_eq!(schema_error(db.store.check_schema().await), SchemaError::Ahead(999));
    assert_eq!(schema_error(db.store.migrate().await.map(drop)), SchemaError::Ahead(999));
}
