//! What goes to Redis: loads, pushes and the notes about both.

use cota::{
    quota::{Kind, UserId},
    store::{BudgetState, Credit, GrantKind, Loaded, Loading, Store, UserStatus},
};

use crate::scratch::{Database, P0, P1, database, entry};

async fn credit(store: &Store, user: UserId, tokens: i64, key: &str) {
    let credit = Credit { kind: GrantKind::Purchase, tokens, idempotency_key: key.into(), reason: None };
    store.credit(user, &credit).await.unwrap();
}

fn state(user: UserId, granted: u64, version: u64) -> BudgetState {
    BudgetState { user, granted, version, policy_version: 1, suspended: false }
}

async fn load(db: &Database, epoch: u64, user: UserId) -> Loading {
    db.store.load_snapshot(P0, epoch, user).await.unwrap()
}

#[tokio::test]
async fn a_load_sees_grants_and_spend_and_is_noted() {
    let db = database().await;
    let user = db.user().await;
    credit(&db.store, user, 1_000, "a").await;
    let epoch = db.open(P0).await;
    db.flush(epoch, &[entry(user, "r", Kind::Settle, 40, 1)]).await;

    let first = Loaded { state: state(user, 1_000, 2), spent: 40, already_loaded: false };
    assert_eq!(load(&db, epoch, user).await, Loading::Loaded(first));
    let again = Loaded { already_loaded: true, ..first };
    assert_eq!(load(&db, epoch, user).await, Loading::Loaded(again));

    let next = db.open(P0).await;
    assert_eq!(load(&db, next, user).await, Loading::Loaded(first), "each epoch loads anew");
    assert_eq!(db.store.budget_state(user).await.unwrap(), Some(first.state));
    assert_eq!(db.store.budget_state(UserId::generate()).await.unwrap(), None);
    assert_eq!(load(&db, next, UserId::generate()).await, Loading::UnknownUser);
}

#[tokio::test]
async fn a_load_is_refused_unless_the_partition_is_open_in_that_epoch() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    assert_eq!(load(&db, epoch - 1, user).await, Loading::Busy);
    assert_eq!(load(&db, epoch + 1, user).await, Loading::Busy);
    assert_eq!(db.store.load_snapshot(P1, epoch, user).await.unwrap(), Loading::Busy);
    let recovering = db.store.begin_recovery(P0, 0).await.unwrap().unwrap();
    assert_eq!(load(&db, epoch, user).await, Loading::Busy);
    assert_eq!(load(&db, recovering, user).await, Loading::Busy);
    let Some(loaded) = db.store.load_for_recovery(P0, recovering, &[user]).await.unwrap() else { panic!() };
    assert!(!loaded[0].already_loaded, "a refused load is not noted");
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
                match store.load_snapshot(P0, epoch, user).await.unwrap() {
                    Loading::Loaded(loaded) => Some(loaded),
                    Loading::Busy => None,
                    Loading::UnknownUser => panic!("the user exists"),
                }
            })
        })
        .collect();
    let mut first = 0;
    for call in calls {
        if let Some(loaded) = call.await.unwrap() {
            assert!(
                [state(user, 0, 1), state(user, 500, 2)].contains(&loaded.state),
                "a total and its version belong together: {loaded:?}"
            );
            first += usize::from(!loaded.already_loaded);
        }
    }
    assert!(first <= 1, "{first} loads believe to be the first");
}

#[tokio::test]
async fn recovery_loads_many_while_it_runs() {
    let db = database().await;
    let (one, other) = (db.user().await, db.user().await);
    credit(&db.store, other, 9, "a").await;
    let epoch = db.store.begin_recovery(P0, 0).await.unwrap().unwrap();
    let users = [other, one, UserId::generate(), one];
    let mut loaded = db.store.load_for_recovery(P0, epoch, &users).await.unwrap().unwrap();
    loaded.sort_by_key(|loaded| loaded.state.granted);
    assert_eq!(
        loaded,
        [
            Loaded { state: state(one, 0, 1), spent: 0, already_loaded: false },
            Loaded { state: state(other, 9, 2), spent: 0, already_loaded: false },
        ]
    );
    let again = db.store.load_for_recovery(P0, epoch, &[one]).await.unwrap().unwrap();
    assert!(again[0].already_loaded);
    assert_eq!(db.store.load_for_recovery(P0, epoch - 1, &users).await.unwrap(), None);
    let newer = db.store.begin_recovery(P0, 0).await.unwrap().unwrap();
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
