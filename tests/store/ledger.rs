//! Reading the ledger: rows of a reservation, what has arrived, drift.

use cota::{
    quota::{Kind, PartitionId, ReservationId},
    store::Drift,
};

use crate::scratch::{P0, RUN, database, entry};

#[tokio::test]
async fn what_the_ledger_has_of_one_id_comes_with_its_partition() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    let id = ReservationId::new("r").unwrap();
    let (rows, partition) = db.store.transactions_of(P0, user, &id).await.unwrap().unwrap();
    assert!(rows.is_empty(), "nothing is an answer too");
    assert_eq!((partition.epoch, partition.run_id.as_deref()), (epoch, Some(RUN)));
    assert_eq!(db.store.transactions_of(PartitionId(900), user, &id).await.unwrap(), None);

    db.flush(epoch, &[entry(user, "r", Kind::Expiry, 5, 1), entry(user, "r", Kind::Correction, -2, 2)]).await;
    assert_eq!(db.rows(user, "r").await, [(Kind::Expiry, 5, 1), (Kind::Correction, -2, 2)]);
}

#[tokio::test]
async fn many_ids_are_read_at_once() {
    let db = database().await;
    let (one, other) = (db.user().await, db.user().await);
    let epoch = db.open(P0).await;
    db.flush(
        epoch,
        &[
            entry(one, "a", Kind::Expiry, 5, 1),
            entry(one, "a", Kind::Correction, 1, 2),
            entry(one, "b", Kind::Settle, 7, 3),
            entry(other, "a", Kind::Settle, 9, 4),
        ],
    )
    .await;
    let ask = |user, name: &str| (user, ReservationId::new(name).unwrap());
    let wanted = [ask(one, "a"), ask(one, "a"), ask(other, "a"), ask(other, "b")];
    let mut rows: Vec<_> =
        db.store.rows_of_many(&wanted).await.unwrap().into_iter().map(|row| (row.user, row.tokens)).collect();
    rows.sort_by_key(|(_, tokens)| *tokens);
    assert_eq!(rows, [(one, 1), (one, 5), (other, 9)]);
    assert!(db.store.rows_of_many(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn drift_names_the_account_and_both_sums() {
    let db = database().await;
    let (one, other) = (db.user().await, db.user().await);
    let epoch = db.open(P0).await;
    db.flush(epoch, &[entry(one, "a", Kind::Settle, 5, 1), entry(other, "a", Kind::Settle, 5, 2)]).await;
    db.assert_no_drift().await;
    db.sql("UPDATE user_accounts SET used_tokens = used_tokens + 1 WHERE id = $1", one).await;
    assert_eq!(db.store.drift().await.unwrap(), [Drift { user: one, used_tokens: 6, booked_tokens: 5 }]);
}

/// Every flush changes `used_tokens`: it must touch no index (`heap-only`), or a hot account bloats them all.
#[tokio::test]
async fn adding_to_used_tokens_touches_no_index() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    for n in 1..=20 {
        db.flush(epoch, &[entry(user, &format!("r{n}"), Kind::Settle, 1, n)]).await;
    }
    sqlx::query("SELECT pg_stat_force_next_flush()").execute(&db.pool).await.unwrap();
    let counts = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'user_accounts'";
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        // Sessions report with a delay.
        let (all, hot): (i64, i64) = sqlx::query_as(counts).fetch_one(&db.pool).await.unwrap();
        assert_eq!(all, hot, "an update of user_accounts touched an index");
        if all > 0 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the updates are counted");
        tokio::task::yield_now().await;
    }
}
