//! Deletion and export: every table of users is in both, and a person is gone while the ledger stays.

use std::collections::BTreeSet;

use cota::{
    quota::{Kind, Metadata, UserId},
    store::{
        Creation, Credit, CreditOutcome, Deletion, Expected, Extent, GrantKind, NewUser, ProfileChange,
        Store, Update, UserFilter, UserStatus,
    },
};
use futures_util::TryStreamExt;
use serde_json::Value;

use crate::scratch::{Database, P0, booked, database, entry};

#[tokio::test]
async fn every_table_of_users_is_exported_and_its_fate_decided() {
    let db = database().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attname = 'user_id'",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    let tables: BTreeSet<&str> = tables.iter().map(String::as_str).collect();
    let named: BTreeSet<&str> = Store::tables_of_users().collect();
    assert_eq!(named, tables, "src/store/personal.rs names the tables of users");
}

const CANARIES: [&str; 6] =
    ["Canary@b.co", "canary-external", "canary-reason", "canary-note", "pt-BR", "America/Sao_Paulo"];

/// A user with something in every table that has a text about it.
async fn somebody(db: &Database) -> (UserId, u64) {
    let new = NewUser {
        id: None,
        email: CANARIES[0].into(),
        external_id: Some(CANARIES[1].into()),
        locale: Some(CANARIES[4].into()),
        time_zone: Some(CANARIES[5].into()),
    };
    let Creation::Created(user) = db.store.create_user(&new).await.unwrap() else { panic!() };
    let reason = Some(CANARIES[2].into());
    let credit = Credit {
        kind: GrantKind::Bonus,
        tokens: 50,
        idempotency_key: "k".into(),
        reason,
        payment: None,
        transaction: None,
    };
    assert!(matches!(db.store.credit(user.id, &credit).await.unwrap(), CreditOutcome::Granted { .. }));
    let epoch = db.open(P0).await;
    let mut one = entry(user.id, "a", Kind::Debit, 5, 1);
    one.metadata = Some(Metadata::new(&format!("{{\"note\":\"{}\"}}", CANARIES[3])).unwrap());
    // A second one of the same name goes to the dead letters.
    let mut other = entry(user.id, "a", Kind::Debit, 6, 2);
    other.metadata = one.metadata.clone();
    assert_eq!(db.flush(epoch, &[one, other]).await, booked(1, 0, 1));
    (user.id, epoch)
}

/// Every row of every table, as text.
async fn rows(db: &Database) -> String {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    let mut all = String::new();
    for table in tables {
        let sql = format!("SELECT string_agg(t::text, E'\\n') FROM {table} t");
        let text: Option<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&db.pool).await.unwrap();
        all.push_str(&text.unwrap_or_default());
    }
    all
}

async fn erase(db: &Database, user: UserId) {
    while db.store.erase(user).await.unwrap() {}
}

#[tokio::test]
async fn a_deleted_person_is_gone_and_the_ledger_and_the_audit_log_stay_whole() {
    let db = database().await;
    let (user, epoch) = somebody(&db).await;
    let before = rows(&db).await;
    for canary in &CANARIES[1..] {
        assert!(before.contains(canary), "{canary}");
    }
    assert_eq!(db.store.delete_user(user).await.unwrap(), Deletion::Deleted);
    assert_eq!(db.store.to_erase().await.unwrap(), [user]);
    erase(&db, user).await;
    let after = rows(&db).await;
    for canary in CANARIES {
        assert!(!after.to_lowercase().contains(&canary.to_lowercase()), "{canary} is left");
    }
    assert_eq!(db.rows(user, "a").await.len(), 1, "the ledger stays");
    let heads = db.store.audit_heads().await.unwrap();
    let found = db.store.verify_audit(Extent::Whole, &heads, &mut |_, _| {}).await.unwrap();
    assert_eq!(found.findings, []);
    db.assert_no_drift().await;

    // Nobody's account is no account, but for what was under way.
    assert_eq!(db.store.user(user).await.unwrap(), None);
    assert_eq!(db.store.users(None, 10, UserFilter::default()).await.unwrap(), []);
    assert_eq!(db.store.delete_user(user).await.unwrap(), Deletion::Repeated);
    assert_eq!(db.store.delete_user(UserId::generate()).await.unwrap(), Deletion::UserNotFound);
    assert_eq!(db.store.set_status(user, UserStatus::Active).await.unwrap(), None);
    let change = ProfileChange { locale: Some(Some("en".into())), ..ProfileChange::default() };
    assert_eq!(db.store.update_user(user, &Expected::Any, &change).await.unwrap(), Update::UserNotFound);
    let credit = Credit {
        kind: GrantKind::Bonus,
        tokens: 1,
        idempotency_key: "new".into(),
        reason: None,
        payment: None,
        transaction: None,
    };
    assert_eq!(db.store.credit(user, &credit).await.unwrap(), CreditOutcome::UserNotFound);
    assert!(db.store.budget_state(user).await.unwrap().unwrap().suspended);
    let mut late = entry(user, "late", Kind::Settle, 5, 3);
    late.metadata = Some(Metadata::new("{\"note\":\"canary-late\"}").unwrap());
    assert_eq!(db.flush(epoch, &[late]).await, booked(1, 0, 0));
    assert_eq!(db.store.to_erase().await.unwrap(), [user], "it is looked for again");
    erase(&db, user).await;
    assert!(!rows(&db).await.contains("canary-late"));
    db.sql("UPDATE user_accounts SET deleted_at = now() - interval '50 hours' WHERE id = $1", user).await;
    erase(&db, user).await;
    assert_eq!(db.store.to_erase().await.unwrap(), []);

    // Address and external id are free.
    let new =
        NewUser { email: CANARIES[0].into(), external_id: Some(CANARIES[1].into()), ..NewUser::default() };
    let again = db.store.create_user(&new).await.unwrap();
    assert!(matches!(again, Creation::Created(user) if user.email == CANARIES[0]));
}

#[tokio::test]
async fn an_export_holds_every_row_of_the_user_and_none_of_others() {
    let db = database().await;
    let (user, epoch) = somebody(&db).await;
    let other = db.user().await;
    // More than one page.
    let entries: Vec<_> = (0..1_100).map(|n| entry(user, &format!("r{n}"), Kind::Debit, 1, 10 + n)).collect();
    db.flush(epoch, &entries).await;
    db.flush(epoch, &[entry(other, "theirs", Kind::Debit, 1, 5_000)]).await;
    let pieces: Vec<String> = db.store.export(user).await.unwrap().try_collect().await.unwrap();
    let export: Value = serde_json::from_str(&format!("{{{}}}", pieces.concat())).unwrap();
    let export = export.as_object().unwrap();
    let names: BTreeSet<&str> = export.keys().map(String::as_str).collect();
    assert_eq!(names, Store::tables_of_users().collect());
    assert_eq!(export["token_transactions"].as_array().unwrap().len(), 1_101);
    assert_eq!(export["grants"][0]["reason"], CANARIES[2]);
    assert_eq!(export["dead_letters"].as_array().unwrap().len(), 1);
    for row in export.values().flat_map(|rows| rows.as_array().unwrap()) {
        assert_eq!(row["user_id"], user.to_string());
    }
    let pieces: Vec<String> = db.store.export(other).await.unwrap().try_collect().await.unwrap();
    let export: Value = serde_json::from_str(&format!("{{{}}}", pieces.concat())).unwrap();
    assert_eq!(export["token_transactions"].as_array().unwrap().len(), 1);
    assert_eq!(export["grants"], serde_json::json!([]));
}
