//! What goes to Redis: loads, pushes and the notes about both.

use std::time::Duration;

use cota::{
    quota::{Kind, UserId},
    store::{BudgetState, Credit, GrantKind, Loaded, Store, UserStatus},
};

use crate::scratch::{Database, P0, P1, database, entry};

async fn credit(store: &Store, user: UserId, tokens: i64, key: &str) {
    let credit = Credit::new(GrantKind::Bonus, tokens, key);
    store.credit(user, &credit).await.unwrap();
}

fn state(user: UserId, granted: u64, version: u64) -> BudgetState {
    BudgetState { user, granted, version, policy_version: 1, suspended: false }
}

/// One account loaded in partition 0: `None` when it is not open in that epoch.
async fn load(db: &Database, epoch: u64, user: UserId) -> Option<Vec<Loaded>> {
    db.store.load_cold(P0, epoch, &[user]).await.unwrap()
}

fn first(state: BudgetState, spent: u64) -> Loaded {
    Loaded { state, spent, handed_over: None }
}

#[tokio::test]
async fn a_load_sees_grants_and_spend_and_is_noted() {
    let db = database().await;
    let user = db.user().await;
    credit(&db.store, user, 1_000, "a").await;
    let epoch = db.open(P0).await;
    db.flush(epoch, &[entry(user, "r", Kind::Settle, 40, 1)]).await;

    let loaded = first(state(user, 1_000, 2), 40);
    assert_eq!(load(&db, epoch, user).await, Some(vec![loaded]));
    let again = load(&db, epoch, user).await.unwrap()[0];
    assert!(again.handed_over.is_some_and(|age| age < Duration::from_secs(60)), "{again:?}");
    sqlx::query("UPDATE user_accounts SET loaded_at = NULL").execute(&db.pool).await.unwrap();
    assert_eq!(load(&db, epoch, user).await.unwrap()[0].handed_over, Some(Duration::MAX), "long ago");

    let next = db.open(P0).await;
    assert_eq!(load(&db, next, user).await, Some(vec![loaded]), "each epoch loads anew");
    assert_eq!(db.store.budget_state(user).await.unwrap(), Some(loaded.state));
    assert_eq!(db.store.budget_state(UserId::generate()).await.unwrap(), None);
    assert_eq!(load(&db, next, UserId::generate()).await, Some(vec![]), "nobody is left out");
}

#[tokio::test]
async fn a_load_is_refused_unless_the_partition_is_open_in_that_epoch() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    assert_eq!(load(&db, epoch - 1, user).await, None);
    assert_eq!(load(&db, epoch + 1, user).await, None);
    assert_eq!(db.store.load_cold(P1, epoch, &[user]).await.unwrap(), None);
    let recovering = db.store.begin_recovery(P0, 0, 0).await.unwrap().unwrap();
    assert_eq!(load(&db, epoch, user).await, None);
    assert_eq!(load(&db, recovering, user).await, None);
    let Some(loaded) = db.store.load_for_recovery(P0, recovering, &[user]).await.unwrap() else { panic!() };
    assert_eq!(loaded[0].handed_over, None, "a refused load is not noted");
}

#[tokio::test]
async fn twenty_loads_and_a_purchase_at_once_agree() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let store = db.store.clone();
            tokio::spawn(async move {
                if n == 10 {
                    credit(&store, user, 500, "a").await;
                    return None;
                }
                store.load_cold(P0, epoch, &[user]).await.unwrap().unwrap().pop()
            })
        })
        .collect();
    let mut firsts = 0;
    for call in calls {
        if let Some(loaded) = call.await.unwrap() {
            assert!(
                [state(user, 0, 1), state(user, 500, 2)].contains(&loaded.state),
                "a total and its version belong together: {loaded:?}"
            );
            firsts += usize::from(loaded.handed_over.is_none());
        }
    }
    assert_eq!(firsts, 1, "loads that believe to be the first");
}

#[tokio::test]
async fn recovery_loads_many_while_it_runs() {
    let db = database().await;
    let (one, other) = (db.user().await, db.user().await);
    credit(&db.store, other, 9, "a").await;
    let epoch = db.store.begin_recovery(P0, 0, 0).await.unwrap().unwrap();
    let users = [other, one, UserId::generate(), one];
    let mut loaded = db.store.load_for_recovery(P0, epoch, &users).await.unwrap().unwrap();
    loaded.sort_by_key(|loaded| loaded.state.granted);
    assert_eq!(loaded, [first(state(one, 0, 1), 0), first(state(other, 9, 2), 0),]);
    let again = db.store.load_for_recovery(P0, epoch, &[one]).await.unwrap().unwrap();
    assert!(again[0].handed_over.is_some());
    assert_eq!(db.store.load_for_recovery(P0, epoch - 1, &users).await.unwrap(), None);
    let newer = db.store.begin_recovery(P0, 0, 0).await.unwrap().unwrap();
    assert_eq!(
        db.store.load_for_recovery(P0, epoch, &users).await.unwrap(),
        None,
        "another attempt has begun"
    );
    assert!(db.store.open(P0, newer, "run", 0).await.unwrap());
    assert_eq!(db.store.load_for_recovery(P0, newer, &users).await.unwrap(), None, "it is over");
}

#[tokio::test]
async fn an_account_is_unsynced_until_its_newest_version_is_noted() {
    let db = database().await;
    let user = db.user().await;
    assert_eq!(db.store.unsynced(10).await.unwrap(), [state(user, 0, 1)]);
    db.store.note_synced(&[(user, 1)]).await.unwrap();
    assert!(db.store.unsynced(10).await.unwrap().is_empty());

    credit(&db.store, user, 5, "a").await;
    db.store.note_synced(&[(user, 1), (UserId::generate(), 1)]).await.unwrap();
    assert_eq!(db.store.unsynced(10).await.unwrap(), [state(user, 5, 2)], "an older note does not count");
    db.store.set_status(user, UserStatus::Suspended).await.unwrap();
    let suspended = BudgetState { suspended: true, ..state(user, 5, 3) };
    assert_eq!(db.store.unsynced(10).await.unwrap(), [suspended]);

    // Redis may claim more than there is, after Postgres went back in time: the claim must not hide later grants.
    db.store.note_synced(&[(user, 99)]).await.unwrap();
    assert!(db.store.unsynced(10).await.unwrap().is_empty());
    credit(&db.store, user, 5, "b").await;
    assert_eq!(db.store.unsynced(10).await.unwrap().len(), 1);
    db.store.note_synced(&[(user, 4)]).await.unwrap();
    db.store.note_synced(&[(user, 2)]).await.unwrap();
    assert!(db.store.unsynced(10).await.unwrap().is_empty(), "notes do not step back");
    db.user().await;
    db.user().await;
    assert_eq!(db.store.unsynced(1).await.unwrap().len(), 1);
}
