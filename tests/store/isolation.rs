//! Row-level security: which tables have it, and what a session sees that says whom it works for, or does not.

use cota::{
    quota::{Kind, UserId},
    store::{Credit, CreditOutcome, GrantKind},
};
use sqlx::{Connection, PgConnection, PgPool};

use crate::scratch::{Database, P0, database, entry};

/// Tables that name a user, with the column that does; from the catalogue, so that a new one is among them.
async fn tables_of_users(pool: &PgPool) -> Vec<(String, String)> {
    let tables = sqlx::query_as(
        "SELECT c.relname::text, a.attname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
               AND (a.attname = 'user_id' OR c.relname = 'user_accounts' AND a.attname = 'id')
         ORDER BY 1",
    );
    tables.fetch_all(pool).await.unwrap()
}

#[tokio::test]
async fn every_table_of_users_is_isolated() {
    let db = database().await;
    let tables = tables_of_users(&db.pool).await;
    for known in ["audit_log", "dead_letters", "grants", "token_transactions", "user_accounts", "user_events"]
    {
        assert!(tables.iter().any(|(table, _)| table == known), "{known}");
    }
    for (table, column) in tables {
        let (enabled, forced, policy): (bool, bool, Option<String>) = sqlx::query_as(
            "SELECT relrowsecurity, relforcerowsecurity,
                    (SELECT qual || ' AND ' || with_check FROM pg_policies
                     WHERE schemaname = 'public' AND tablename = relname AND cmd = 'ALL')
             FROM pg_class WHERE oid = $1::text::regclass",
        )
        .bind(&table)
        .fetch_one(&db.pool)
        .await
        .unwrap();
        let policy = policy.unwrap_or_default();
        assert!(enabled && forced, "{table}: SELECT cota_isolate('{table}') in its migration");
        // Once where rows are read, and once where they are written.
        assert_eq!(policy.matches(&format!("{column} = ")).count(), 2, "{table}: {policy}");
        assert_eq!(policy.matches("cota.user_id").count(), 2, "{table}: {policy}");
        let policies: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_policies WHERE tablename = $1")
            .bind(&table)
            .fetch_one(&db.pool)
            .await
            .unwrap();
        assert_eq!(policies, 1, "{table}: a second policy would open it further");
    }
}

/// A session as the service's role that has said nothing yet.
async fn session(db: &Database) -> PgConnection {
    let mut connection = PgConnection::connect(&db.url).await.unwrap();
    run(&mut connection, "SET ROLE cota_api").await.unwrap();
    connection
}

async fn run(connection: &mut PgConnection, sql: &str) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(connection).await;
    done.map(|done| done.rows_affected())
}

async fn count(connection: &mut PgConnection, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(connection).await.unwrap()
}

/// Two users with a grant and a transaction each.
async fn filled() -> (Database, UserId, UserId) {
    let db = database().await;
    let (one, two) = (db.user().await, db.user().await);
    for user in [one, two] {
        let credit = Credit {
            kind: GrantKind::Bonus,
            tokens: 5,
            idempotency_key: "k".into(),
            reason: None,
            payment: None,
            transaction: None,
        };
        assert!(matches!(db.store.credit(user, &credit).await.unwrap(), CreditOutcome::Granted { .. }));
    }
    let epoch = db.open(P0).await;
    db.flush(epoch, &[entry(one, "a", Kind::Debit, 1, 1), entry(two, "b", Kind::Debit, 1, 2)]).await;
    (db, one, two)
}

#[tokio::test]
async fn a_session_sees_what_it_says_it_works_for_and_nothing_before_and_after() {
    let (db, one, two) = filled().await;
    let mut session = session(&db).await;
    let tables = ["user_accounts", "grants", "token_transactions", "user_events", "audit_log"];
    for table in tables {
        assert_eq!(count(&mut session, table).await, 0, "{table}, unsaid");
    }
    for (user, other) in [(one, two), (two, one)] {
        run(&mut session, "BEGIN").await.unwrap();
        run(&mut session, "SET LOCAL cota.scope = 'user'").await.unwrap();
        for table in tables {
            assert_eq!(count(&mut session, table).await, 0, "{table}, of nobody");
        }
        run(&mut session, &format!("SET LOCAL cota.user_id = '{user}'")).await.unwrap();
        for table in ["user_accounts", "grants", "token_transactions"] {
            assert_eq!(count(&mut session, table).await, 1, "{table}");
        }
        assert_eq!(count(&mut session, "audit_log").await, 2);
        let elsewhere = format!("UPDATE user_accounts SET locale = 'en' WHERE id = '{other}'");
        assert_eq!(run(&mut session, &elsewhere).await.unwrap(), 0);
        run(&mut session, "ROLLBACK").await.unwrap();
        for table in tables {
            assert_eq!(count(&mut session, table).await, 0, "{table}, afterwards");
        }
    }
    run(&mut session, "SET cota.scope = 'service'").await.unwrap();
    assert_eq!(count(&mut session, "user_accounts").await, 2);
}

#[tokio::test]
async fn a_session_of_one_user_writes_no_row_of_another() {
    let (db, one, two) = filled().await;
    let mut session = session(&db).await;
    run(&mut session, &format!("SET cota.user_id = '{one}'")).await.unwrap();
    run(&mut session, "SET cota.scope = 'user'").await.unwrap();
    let event = |user: UserId| {
        format!(
            "INSERT INTO user_events (user_id, kind, data) VALUES ('{user}', 'account.suspended', '{{}}')"
        )
    };
    run(&mut session, &event(one)).await.unwrap();
    let error = run(&mut session, &event(two)).await.unwrap_err().to_string();
    assert!(error.contains("row-level security"), "{error}");
    let stolen = format!("UPDATE user_events SET user_id = '{two}'");
    let error = run(&mut session, &stolen).await.unwrap_err().to_string();
    assert!(error.contains("row-level security"), "{error}");
}

#[tokio::test]
async fn the_services_role_owns_nothing_and_cannot_rewrite_what_is_kept() {
    let (db, ..) = filled().await;
    let owned: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace
                AND pg_get_userbyid(relowner) = 'cota_api'",
    )
    .fetch_one(&db.pool)
    .await
    .unwrap();
    assert_eq!(owned, 0);
    let (superuser, bypasses): (bool, bool) =
        sqlx::query_as("SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = 'cota_api'")
            .fetch_one(&db.pool)
            .await
            .unwrap();
    assert!(!superuser && !bypasses);
    let mut session = session(&db).await;
    run(&mut session, "SET cota.scope = 'service'").await.unwrap();
    for sql in [
        "UPDATE audit_log SET actor = 'nobody'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "DELETE FROM audit_chains",
        "UPDATE token_transactions SET tokens_used = 0",
        "DELETE FROM token_transactions",
        "UPDATE grants SET tokens = 1",
        "DELETE FROM grants",
        "ALTER TABLE grants NO FORCE ROW LEVEL SECURITY",
        "DROP POLICY cota_own_rows ON grants",
        "DELETE FROM _sqlx_migrations",
        "CREATE TABLE mine (id int)",
    ] {
        let error = run(&mut session, sql).await.unwrap_err();
        let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
        assert_eq!(code, "42501", "{sql}: {error}");
    }
}

#[tokio::test]
async fn reads_about_a_user_go_without_the_rights_of_the_service() {
    let (db, one, _) = filled().await;
    // Without the arm of the service only the user's own scope is left.
    for (table, column) in tables_of_users(&db.pool).await {
        let mine = format!("{column} = nullif(current_setting('cota.user_id', true), '')::uuid");
        let sql = format!("ALTER POLICY cota_own_rows ON {table} USING ({mine})");
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&db.pool).await.unwrap();
    }
    assert_eq!(db.store.user(one).await.unwrap().unwrap().id, one);
    assert_eq!(db.store.grants(one, None, 10).await.unwrap().len(), 1);
    assert_eq!(db.store.audit_of(one, None, 10).await.unwrap().len(), 2);
    assert_eq!(db.store.events_after(one, 0, 10).await.unwrap().len(), 1);
    assert_eq!(db.store.users(None, 10, Default::default()).await.unwrap(), [], "nobody's list");
}
