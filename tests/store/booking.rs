//! Booking: entries become ledger rows exactly once, whoever books them and however often.

use cota::{
    quota::{Entry, Flags, Kind, Metadata, Model, OutboxId, PartitionId, RequestId, ReservationId, UserId},
    store::{Booker, Booking, DeadReason, ReplicaId},
};
use sqlx::Row;

use crate::scratch::{Database, P0, P1, RUN, booked, database, entry};

async fn reasons(db: &Database) -> Vec<(DeadReason, i64)> {
    let letters = db.store.dead_letters(0, 100).await.unwrap();
    letters.into_iter().map(|letter| (letter.reason, letter.tokens)).collect()
}

#[tokio::test]
async fn an_entry_arrives_with_all_its_facts() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    // Valid JSON that `jsonb` would refuse.
    let metadata = r#"{"a":"\u0000","n":1e999999}"#;
    let full = Entry {
        flags: Flags::OVERAGE.union(Flags::LATE),
        model: Some(Model::new("modelo-ç").unwrap()),
        request_id: Some(RequestId::new("req 1").unwrap()),
        input_tokens: Some(30),
        output_tokens: Some(12),
        cached_input_tokens: Some(7),
        metadata: Some(Metadata::new(metadata).unwrap()),
        ..entry(user, "full", Kind::Settle, 42, 9)
    };
    assert_eq!(db.flush(epoch, std::slice::from_ref(&full)).await, booked(1, 0, 0));

    let (rows, partition) = db.store.transactions_of(P0, user, &full.reservation).await.unwrap().unwrap();
    let row = &rows[0];
    assert_eq!(
        (row.user, &row.reservation, row.kind, row.tokens),
        (user, &full.reservation, Kind::Settle, 42)
    );
    assert_eq!((row.flags, &row.model, row.outbox_id), (full.flags, &full.model, full.outbox_id));
    assert_eq!(row.at.as_millisecond(), 1_700_000_000_123);
    assert_eq!((partition.epoch, partition.high_water, partition.outbox_high_water), (epoch, 9, 9));
    assert_eq!(db.used(user).await, 42);

    let raw = sqlx::query("SELECT *, metadata::text AS words FROM token_transactions")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(raw.get::<uuid::Uuid, _>("id"), full.transaction_id());
    assert_eq!(raw.get::<String, _>("words"), metadata);
    assert_eq!(raw.get::<String, _>("request_id"), "req 1");
    assert_eq!(
        (
            raw.get::<i64, _>("input_tokens"),
            raw.get::<i64, _>("output_tokens"),
            raw.get::<i64, _>("cached_tokens")
        ),
        (30, 12, 7)
    );
    assert_eq!(raw.get::<i16, _>("partition"), 0);
}

#[tokio::test]
async fn a_repeated_batch_changes_nothing() {
    let db = database().await;
    let (one, other) = (db.user().await, db.user().await);
    let epoch = db.open(P0).await;
    let batch = [
        entry(one, "a", Kind::Settle, 10, 1),
        entry(other, "a", Kind::Debit, 20, 2),
        entry(one, "b", Kind::Settle, 0, 3),
        entry(one, "c", Kind::Expiry, 5, 4),
        entry(one, "c", Kind::Settle, 8, 5),
        entry(one, "a", Kind::Settle, 10, 6),
    ];
    assert_eq!(db.flush(epoch, &batch).await, booked(5, 0, 1));
    for _ in 0..2 {
        assert_eq!(db.flush(epoch, &batch).await, booked(0, 6, 0));
    }
    assert_eq!(db.flush(epoch, &[]).await, booked(0, 0, 0));
    assert_eq!((db.used(one).await, db.used(other).await), (18, 20));
    assert_eq!(db.store.dead_letter_count().await.unwrap(), 2);
    db.assert_no_drift().await;
}

#[tokio::test]
async fn a_settle_after_an_expiry_is_the_correction_of_the_difference() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    db.flush(epoch, &[entry(user, "up", Kind::Expiry, 20, 1), entry(user, "down", Kind::Expiry, 20, 2)])
        .await;
    let settles = [entry(user, "up", Kind::Settle, 50, 3), entry(user, "down", Kind::Settle, 5, 4)];
    assert_eq!(db.flush(epoch, &settles).await, booked(2, 0, 0));
    assert_eq!(db.rows(user, "up").await, [(Kind::Expiry, 20, 1), (Kind::Correction, 30, 3)]);
    assert_eq!(db.rows(user, "down").await, [(Kind::Expiry, 20, 2), (Kind::Correction, -15, 4)]);
    assert_eq!(db.used(user).await, 55);
    // Redis charged expiry and settle: what it counts too much waits for the reconciler.
    assert_eq!(reasons(&db).await, [(DeadReason::Converted, 20), (DeadReason::Converted, 20)]);
    assert_eq!(db.store.dead_letters(0, 1).await.unwrap()[0].spend_epoch, Some(epoch));
    // Converted rows keep their outbox ids, so that the repeat is a replay.
    assert_eq!(db.flush(epoch, &settles).await, booked(0, 2, 0));
    db.assert_no_drift().await;
}

#[tokio::test]
async fn what_would_charge_twice_goes_to_the_dead_letters() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    db.flush(epoch, &[entry(user, "r", Kind::Settle, 50, 1)]).await;
    let late = [
        entry(user, "r", Kind::Settle, 50, 2),
        entry(user, "r", Kind::Settle, 51, 3),
        entry(user, "r", Kind::Expiry, 20, 4),
        entry(user, "r", Kind::Correction, 30, 5),
        entry(user, "fresh", Kind::Settle, 1, 6),
    ];
    assert_eq!(db.flush(epoch, &late).await, booked(1, 0, 4));
    assert_eq!(
        reasons(&db).await,
        [
            (DeadReason::LateReplay, 50),
            (DeadReason::IdReused, 51),
            (DeadReason::AfterSettle, 20),
            (DeadReason::AfterSettle, 30)
        ]
    );
    assert_eq!(db.used(user).await, 51);
    assert_eq!(db.store.dead_letters(0, 2).await.unwrap().len(), 2);
    let second = db.store.dead_letters(0, 2).await.unwrap()[1].id;
    assert_eq!(db.store.dead_letters(second, 10).await.unwrap().len(), 2);
    db.assert_no_drift().await;
}

#[tokio::test]
async fn the_flusher_is_fenced_by_epoch_run_id_and_state() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    let batch = [entry(user, "r", Kind::Settle, 50, 1)];
    let book = async |partition, epoch, by| db.store.book(partition, epoch, by, &batch, 1).await.unwrap();
    let flusher = Booker::Flusher { run_id: RUN, acked_up_to: 0 };
    assert_eq!(book(P0, epoch - 1, flusher).await, Booking::Fenced);
    assert_eq!(book(P0, epoch + 1, flusher).await, Booking::Fenced);
    assert_eq!(book(P0, epoch, Booker::Flusher { run_id: "another", acked_up_to: 0 }).await, Booking::Fenced);
    assert_eq!(book(P0, epoch, Booker::Recovery).await, Booking::Fenced, "no recovery runs");
    assert_eq!(book(P1, epoch, flusher).await, Booking::Fenced, "never opened");
    assert_eq!(book(PartitionId(900), epoch, flusher).await, Booking::Fenced, "no such partition");
    let recovering = db.store.begin_recovery(P0, 0, 0).await.unwrap().unwrap();
    assert_eq!(book(P0, epoch, flusher).await, Booking::Fenced, "a zombie");
    assert_eq!(book(P0, recovering, flusher).await, Booking::Fenced, "it is not open");
    assert_eq!(db.used(user).await, 0);
    assert_eq!(db.store.partitions().await.unwrap()[0].high_water, 0, "a fenced booking leaves nothing");
}

#[tokio::test]
async fn a_postgres_that_lacks_what_was_acked_is_marked_and_nothing_is_booked() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    db.flush(epoch, &[entry(user, "before", Kind::Settle, 50, 5)]).await;
    let flush = async |acked_up_to| {
        let flusher = Booker::Flusher { run_id: RUN, acked_up_to };
        db.store.book(P0, epoch, flusher, &[entry(user, "r", Kind::Settle, 7, 9)], 9).await.unwrap()
    };
    let went_back = async || db.store.partitions().await.unwrap()[0].went_back;
    assert_eq!(flush(6).await, Booking::Fenced);
    assert!(went_back().await);
    assert_eq!(db.used(user).await, 50);
    sqlx::query("UPDATE partitions SET restored_at = NULL").execute(&db.pool).await.unwrap();
    assert_eq!(flush(5).await, Booking::Booked(booked(1, 0, 0)), "all that was acked is here");
    assert!(!went_back().await);
    for (acked_up_to, marked) in [(9, false), (10, true)] {
        db.store.begin_recovery(P0, 0, acked_up_to).await.unwrap();
        assert_eq!(went_back().await, marked, "{acked_up_to}");
    }
}

#[tokio::test]
async fn a_witness_is_too_late_after_step_two() {
    let db = database().await;
    let user = db.user().await;
    let replica = ReplicaId::generate();
    db.store.heartbeat(replica).await.unwrap();
    let epoch = db.store.begin_recovery(P0, 0, 0).await.unwrap().unwrap();
    let witness = Booker::Witness { replica, last: true };
    let book = async |epoch, by, sequence| {
        let batch = [entry(user, &format!("r{sequence}"), Kind::Settle, 1, sequence)];
        db.store.book(P0, epoch, by, &batch, sequence).await.unwrap()
    };
    let done = Booking::Booked(booked(1, 0, 0));
    assert_eq!(book(epoch, witness, 1).await, done);
    db.store.advance(P0, epoch, 2).await.unwrap();
    assert_eq!(book(epoch, witness, 2).await, done);
    assert_eq!(book(epoch - 1, witness, 3).await, Booking::Fenced);
    db.store.advance(P0, epoch, 3).await.unwrap();
    assert_eq!(book(epoch, witness, 3).await, Booking::Fenced);
    assert_eq!(book(epoch, Booker::Recovery, 4).await, done);
    assert_eq!(book(epoch - 1, Booker::Recovery, 5).await, Booking::Fenced);
    db.store.open(P0, epoch, RUN, 0).await.unwrap();
    assert_eq!(book(epoch, witness, 5).await, Booking::Fenced);
    assert_eq!(book(epoch, Booker::Recovery, 5).await, Booking::Fenced);
    assert_eq!(db.used(user).await, 3);
}

#[tokio::test]
async fn recovery_leaves_no_spend_for_the_reconciler() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.store.begin_recovery(P0, 0, 0).await.unwrap().unwrap();
    let batch = [entry(user, "r", Kind::Settle, 5, 1), entry(user, "r", Kind::Settle, 5, 2)];
    db.store.book(P0, epoch, Booker::Recovery, &batch, 2).await.unwrap();
    assert_eq!(db.store.dead_letters(0, 10).await.unwrap()[0].spend_epoch, None);
}

#[tokio::test]
async fn a_flusher_does_not_wait_for_another() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    let mut other = db.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM partitions WHERE id = 0 FOR UPDATE").execute(&mut *other).await.unwrap();
    let batch = [entry(user, "r", Kind::Settle, 5, 1)];
    let flusher = Booker::Flusher { run_id: RUN, acked_up_to: 0 };
    assert_eq!(db.store.book(P0, epoch, flusher, &batch, 1).await.unwrap(), Booking::Busy);
    other.rollback().await.unwrap();
    assert_eq!(db.flush(epoch, &batch).await, booked(1, 0, 0));
}

/// Ten tasks book the same entries; whoever is busy tries again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_flushers_of_one_partition_book_each_entry_once() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    let batch: Vec<Entry> = (1..=200).map(|n| entry(user, &format!("r{n}"), Kind::Settle, 1, n)).collect();
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let (store, batch) = (db.store.clone(), batch.clone());
            tokio::spawn(async move {
                loop {
                    let flusher = Booker::Flusher { run_id: RUN, acked_up_to: 0 };
                    match store.book(P0, epoch, flusher, &batch, 200).await.unwrap() {
                        Booking::Booked(booked) => return booked.inserted,
                        Booking::Busy => tokio::task::yield_now().await,
                        Booking::Fenced => panic!("fenced"),
                    }
                }
            })
        })
        .collect();
    let mut inserted = 0;
    for task in tasks {
        inserted += task.await.unwrap();
    }
    assert_eq!((inserted, db.used(user).await), (200, 200));
    db.assert_no_drift().await;
}

/// Case 78 of the collection: increments were dropped to deadlocks between replicas.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bookers_over_the_same_users_in_opposite_order_do_not_deadlock() {
    let db = database().await;
    let mut users = Vec::new();
    for _ in 0..40 {
        users.push(db.user().await);
    }
    let mut tasks = Vec::new();
    for partition in [P0, P1] {
        let epoch = db.open(partition).await;
        let mut order = users.clone();
        if partition == P1 {
            order.reverse();
        }
        let store = db.store.clone();
        tasks.push(tokio::spawn(async move {
            for round in 0..60 {
                let name = |n: usize| format!("p{}-{round}-{n}", partition.0);
                let sequence = |n: usize| (round * 100 + n) as u64;
                let batch: Vec<Entry> = (0..order.len())
                    .map(|n| entry(order[n], &name(n), Kind::Settle, 1, sequence(n)))
                    .collect();
                let flusher = Booker::Flusher { run_id: RUN, acked_up_to: 0 };
                let booking = store.book(partition, epoch, flusher, &batch, 0).await.unwrap();
                assert_eq!(booking, Booking::Booked(booked(batch.len(), 0, 0)));
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    for user in users {
        assert_eq!(db.used(user).await, 120);
    }
    db.assert_no_drift().await;
    assert_eq!(deadlocks(&db).await, 0, "none for the retries to hide");
}

/// Deadlocks in the life of the database. Sessions report theirs when they end, so this ends the store's.
async fn deadlocks(db: &Database) -> i64 {
    db.store.close().await;
    let others = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cota' AND datname = current_database()";
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while sqlx::query_scalar::<_, i64>(others).fetch_one(&db.pool).await.unwrap() > 0 {
        assert!(tokio::time::Instant::now() < deadline, "the sessions end");
    }
    sqlx::query_scalar("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        .fetch_one(&db.pool)
        .await
        .unwrap()
}

/// A deadlock that others cause is retried, not handed to the caller.
#[tokio::test]
async fn a_deadlock_with_a_stranger_is_retried() {
    let db = database().await;
    let mut users = [db.user().await, db.user().await];
    users.sort();
    let [low, high] = users;
    let epoch = db.open(P0).await;
    let lock = "SELECT FROM user_accounts WHERE id = $1 FOR UPDATE";
    let mut stranger = db.pool.begin().await.unwrap();
    sqlx::query("SET LOCAL deadlock_timeout = '60s'").execute(&mut *stranger).await.unwrap();
    sqlx::query(lock).bind(high.0).execute(&mut *stranger).await.unwrap();

    let store = db.store.clone();
    let batch = [entry(low, "r", Kind::Settle, 1, 1), entry(high, "r", Kind::Settle, 1, 2)];
    let booking = tokio::spawn(async move {
        store.book(P0, epoch, Booker::Flusher { run_id: RUN, acked_up_to: 0 }, &batch, 2).await.unwrap()
    });
    // The booking holds the lower account and waits for the higher; now the stranger wants the lower one.
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&db.pool).await.unwrap() == 0 {
        assert!(tokio::time::Instant::now() < deadline, "the booking waits");
    }
    sqlx::query(lock).bind(low.0).execute(&mut *stranger).await.unwrap();
    stranger.rollback().await.unwrap();
    assert_eq!(booking.await.unwrap(), Booking::Booked(booked(2, 0, 0)));
    db.assert_no_drift().await;
}

#[tokio::test]
async fn a_witness_learns_what_has_arrived() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    db.flush(
        epoch,
        &[
            entry(user, "plain", Kind::Settle, 1, 1),
            entry(user, "expired", Kind::Expiry, 5, 2),
            entry(user, "expired", Kind::Settle, 9, 3),
            entry(user, "plain", Kind::Settle, 1, 4),
            entry(user, "debit", Kind::Debit, 1, 5),
        ],
    )
    .await;
    let id = |sequence| entry(user, "x", Kind::Settle, 0, sequence).outbox_id;
    let ask =
        |user: UserId, name: &str, kind, id: OutboxId| (user, ReservationId::new(name).unwrap(), kind, id);
    let wanted = [
        ask(user, "plain", Kind::Settle, id(1)),
        ask(user, "expired", Kind::Expiry, id(2)),
        ask(user, "expired", Kind::Settle, id(3)),
        ask(user, "plain", Kind::Settle, id(4)),
        ask(user, "debit", Kind::Debit, id(5)),
        // Not there: another outbox id, another kind, another user, another nonce.
        ask(user, "plain", Kind::Settle, id(6)),
        ask(user, "plain", Kind::Correction, id(7)),
        ask(UserId::generate(), "plain", Kind::Settle, id(8)),
        ask(user, "plain", Kind::Settle, OutboxId { nonce: 1, ..id(1) }),
    ];
    let arrived = db.store.booked(P0, &wanted).await.unwrap();
    assert_eq!(arrived, (1..=5).map(id).collect::<Vec<_>>());
    assert!(db.store.booked(P0, &[]).await.unwrap().is_empty());
}
