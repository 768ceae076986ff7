//! Replicas: heartbeats, witness reports, and those that died without a word.

use std::{collections::HashSet, time::Duration};

use cota::store::{Booker, ReplicaId};

use crate::scratch::{P0, database};

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_replica_lives_while_it_is_heard_of() {
    let db = database().await;
    let (one, other) = (ReplicaId::generate(), ReplicaId::generate());
    for replica in [one, other, one] {
        db.store.heartbeat(replica).await.unwrap();
    }
    assert_eq!(db.store.live_replicas(LONG).await.unwrap(), HashSet::from([one, other]));

    sqlx::query("UPDATE replicas SET seen_at = now() - interval '1 minute' WHERE id = $1")
        .bind(other.0)
        .execute(&db.pool)
        .await
        .unwrap();
    let half = Duration::from_secs(30);
    assert_eq!(db.store.live_replicas(half).await.unwrap(), HashSet::from([one]));
    assert_eq!(db.store.remove_dead_replicas(LONG).await.unwrap(), 0);
    assert_eq!(db.store.remove_dead_replicas(half).await.unwrap(), 1);
    assert_eq!(db.store.live_replicas(LONG).await.unwrap(), HashSet::from([one]));
    db.store.retire_replica(one).await.unwrap();
    assert!(db.store.live_replicas(LONG).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_a_replica_has_seen_outlives_it() {
    let db = database().await;
    let replica = ReplicaId::generate();
    db.store.heartbeat(replica).await.unwrap();
    db.store.report(replica, P0, 1, 500).await.unwrap();
    db.store.report(replica, P0, 1, 300).await.unwrap();
    db.store.retire_replica(replica).await.unwrap();
    assert_eq!(db.store.partitions().await.unwrap()[0].high_water, 500);
}

/// A heartbeat that names the new epoch must not pass for a ring that was written: recovery would not wait for it.
#[tokio::test]
async fn only_the_end_of_a_ring_is_a_witness_report() {
    let db = database().await;
    let replica = ReplicaId::generate();
    db.store.heartbeat(replica).await.unwrap();
    let epoch = db.store.begin_recovery(P0, 0, 0).await.unwrap().unwrap();
    db.store.report(replica, P0, epoch, 10).await.unwrap();
    assert!(db.store.witness_reports(P0, epoch).await.unwrap().is_empty());

    let part = Booker::Witness { replica, last: false };
    db.store.book(P0, epoch, part, &[], 10).await.unwrap();
    assert!(db.store.witness_reports(P0, epoch).await.unwrap().is_empty(), "more is to come");

    let end = Booker::Witness { replica, last: true };
    db.store.book(P0, epoch, end, &[], 10).await.unwrap();
    assert_eq!(db.store.witness_reports(P0, epoch).await.unwrap(), HashSet::from([replica]));
    assert!(db.store.witness_reports(P0, epoch + 1).await.unwrap().is_empty());
}
