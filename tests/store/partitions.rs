//! How a partition changes hands: epochs, steps, bases and the recovery lock.

use cota::{
    quota::{Kind, PartitionId, Partitions},
    store::{Booker, PartitionState, ReplicaId},
};

use crate::scratch::{P0, P1, RUN, database, entry};

#[tokio::test]
async fn the_count_in_postgres_wins() {
    let db = database().await;
    let ensure = async |n| db.store.ensure_partitions(Partitions::new(n).unwrap()).await.unwrap().count();
    assert_eq!((ensure(8).await, ensure(16).await, ensure(1).await), (8, 8, 8));
    let rows = db.store.partitions().await.unwrap();
    assert_eq!(rows.len(), 8);
    assert_eq!((rows[7].id, rows[7].epoch, rows[7].state), (PartitionId(7), 0, PartitionState::Recovering));
}

#[tokio::test]
async fn first_starts_at_once_agree_on_a_count() {
    let db = database().await;
    sqlx::query("DELETE FROM partitions").execute(&db.pool).await.unwrap();
    let calls: Vec<_> = (1..=10)
        .map(|n| {
            let store = db.store.clone();
            tokio::spawn(async move { store.ensure_partitions(Partitions::new(n).unwrap()).await.unwrap() })
        })
        .collect();
    let mut counts = Vec::new();
    for call in calls {
        counts.push(call.await.unwrap());
    }
    counts.dedup();
    assert_eq!(counts.len(), 1, "{counts:?}");
}

#[tokio::test]
async fn every_recovery_has_an_epoch_above_all_known() {
    let db = database().await;
    let begin = async |at_least| db.store.begin_recovery(P0, at_least, 0).await.unwrap().unwrap();
    assert_eq!(begin(0).await, 1);
    assert_eq!(begin(0).await, 2);
    assert_eq!(begin(10).await, 11);
    let replica = ReplicaId::generate();
    db.store.heartbeat(replica).await.unwrap();
    db.store.report(replica, P0, 40, 0).await.unwrap();
    assert_eq!(begin(0).await, 41);
    assert_eq!(db.store.begin_recovery(PartitionId(900), 0, 0).await.unwrap(), None);

    let calls: Vec<_> = (0..10)
        .map(|_| {
            let store = db.store.clone();
            tokio::spawn(async move { store.begin_recovery(P1, 5, 0).await.unwrap().unwrap() })
        })
        .collect();
    let mut epochs = Vec::new();
    for call in calls {
        epochs.push(call.await.unwrap());
    }
    epochs.sort_unstable();
    assert_eq!(epochs, (6..16).collect::<Vec<_>>(), "no two attempts share an epoch");
}

#[tokio::test]
async fn steps_go_up_in_the_recovery_that_runs_and_nowhere_else() {
    let db = database().await;
    let old = db.store.begin_recovery(P0, 0, 0).await.unwrap().unwrap();
    assert!(db.store.advance(P0, old, 2).await.unwrap());
    assert!(!db.store.advance(P0, old, 2).await.unwrap());
    assert!(!db.store.advance(P0, old, 1).await.unwrap());

    let epoch = db.store.begin_recovery(P0, 0, 0).await.unwrap().unwrap();
    let row = &db.store.partitions().await.unwrap()[0];
    assert_eq!((row.epoch, row.state, row.step), (epoch, PartitionState::Recovering, 0));
    assert!(!db.store.advance(P0, old, 3).await.unwrap(), "fenced by the epoch");
    assert!(!db.store.open(P0, old, RUN, 0).await.unwrap(), "fenced by the epoch");
    assert_eq!(db.store.set_base(P0, old, 0, 0).await.unwrap(), None, "fenced by the epoch");
    assert!(db.store.advance(P0, epoch, 1).await.unwrap());

    assert!(db.store.open(P0, epoch, RUN, 77).await.unwrap());
    let row = &db.store.partitions().await.unwrap()[0];
    assert_eq!((row.state, row.run_id.as_deref(), row.high_water), (PartitionState::Open, Some(RUN), 77));
    assert!(!db.store.open(P0, epoch, RUN, 77).await.unwrap(), "it is open already");
    assert!(!db.store.advance(P0, epoch, 7).await.unwrap(), "no recovery runs");
    assert_eq!(db.store.set_base(P0, epoch, 0, 0).await.unwrap(), None, "no recovery runs");
}

#[tokio::test]
async fn the_base_is_above_everything_known_and_never_repeats() {
    let db = database().await;
    let epoch = db.store.begin_recovery(P0, 0, 0).await.unwrap().unwrap();
    let base =
        async |sequence, outbox| db.store.set_base(P0, epoch, sequence, outbox).await.unwrap().unwrap();
    assert_eq!(base(0, 0).await, 1_000_000);
    assert_eq!(base(0, 0).await, 2_000_000);
    assert_eq!(base(5_000_000, 7).await, 6_000_000);
    assert_eq!(base(7, 8_000_000).await, 9_000_000);
    let replica = ReplicaId::generate();
    db.store.heartbeat(replica).await.unwrap();
    db.store.report(replica, P0, epoch, 20_000_000).await.unwrap();
    db.store.report(replica, P1, epoch, 90_000_000).await.unwrap();
    assert_eq!(base(0, 0).await, 21_000_000, "what another partition counts is not its business");
    let row = &db.store.partitions().await.unwrap()[0];
    assert_eq!((row.high_water, row.outbox_high_water), (21_000_000, 21_000_000));
}

#[tokio::test]
async fn the_base_is_above_every_booked_outbox_id() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    let booker = Booker::Flusher { run_id: RUN, acked_up_to: 0 };
    db.store.book(P0, epoch, booker, &[entry(user, "r", Kind::Settle, 1, 3_000_000)], 7).await.unwrap();
    let epoch = db.store.begin_recovery(P0, 0, 0).await.unwrap().unwrap();
    assert_eq!(db.store.set_base(P0, epoch, 0, 0).await.unwrap(), Some(4_000_000));
}

#[tokio::test]
async fn one_process_recovers_a_partition() {
    let db = database().await;
    let mut lock = db.store.try_lock_recovery(P0).await.unwrap().expect("free");
    assert!(lock.is_held().await);
    assert!(db.store.try_lock_recovery(P0).await.unwrap().is_none());
    let other = db.store.try_lock_recovery(P1).await.unwrap().expect("another partition is free");
    other.release().await;
    assert!(db.store.try_lock_recovery(P1).await.unwrap().is_some(), "released");

    drop(lock);
    // The server notices the closed socket in its own time.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while db.store.try_lock_recovery(P0).await.unwrap().is_none() {
        assert!(tokio::time::Instant::now() < deadline, "a dropped lock is free again");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_lock_whose_session_was_ended_is_not_held() {
    let db = database().await;
    let mut lock = db.store.try_lock_recovery(P0).await.unwrap().expect("free");
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_locks
         WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .execute(&db.pool)
    .await
    .unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while lock.is_held().await {
        assert!(tokio::time::Instant::now() < deadline, "the end of the session is seen");
    }
    assert!(db.store.try_lock_recovery(P0).await.unwrap().is_some());
}
