//! Grants: once by key, never past the limits.

use cota::{
    quota::{EventKind, UserId},
    store::{Credit, CreditOutcome, GrantKind},
};
use serde_json::json;

use crate::scratch::database;

fn purchase(tokens: i64, key: &str) -> Credit {
    Credit::new(GrantKind::Purchase, tokens, key)
}

fn adjustment(tokens: i64, key: &str) -> Credit {
    Credit { kind: GrantKind::Adjustment, reason: Some("refund".into()), ..purchase(tokens, key) }
}

#[tokio::test]
async fn a_grant_raises_total_and_version_once_per_key() {
    let db = database().await;
    let id = db.user().await;
    let CreditOutcome::Granted { grant, user } = db.store.credit(id, &purchase(100, "a")).await.unwrap()
    else {
        panic!()
    };
    assert_eq!((user.total_tokens, user.version, grant.tokens, grant.user), (100, 2, 100, id));

    let CreditOutcome::Granted { user, .. } = db.store.credit(id, &adjustment(-30, "b")).await.unwrap()
    else {
        panic!()
    };
    assert_eq!((user.total_tokens, user.version), (70, 3));

    let CreditOutcome::Replayed { grant: first, user } =
        db.store.credit(id, &purchase(100, "a")).await.unwrap()
    else {
        panic!()
    };
    assert_eq!(first, grant);
    assert_eq!((user.total_tokens, user.version), (70, 3));

    assert_eq!(db.store.credit(id, &purchase(101, "a")).await.unwrap(), CreditOutcome::Mismatch);
    assert_eq!(db.store.credit(id, &adjustment(100, "a")).await.unwrap(), CreditOutcome::Mismatch);
    let nobody = UserId::generate();
    assert_eq!(db.store.credit(nobody, &purchase(1, "a")).await.unwrap(), CreditOutcome::UserNotFound);

    let list = db.store.grants(id, None, 10).await.unwrap();
    assert_eq!(list.iter().map(|grant| grant.tokens).collect::<Vec<_>>(), [-30, 100]);
    assert_eq!(list[0].reason.as_deref(), Some("refund"));
    assert_eq!(db.store.grants(id, Some(list[0].id), 10).await.unwrap(), [grant]);
    assert_eq!(db.store.grants(id, None, 1).await.unwrap().len(), 1);

    // Each grant, and no repeat or refusal, has told of itself, in order.
    let events = db.store.events_after(id, 0, 10).await.unwrap();
    let told: Vec<_> =
        events.iter().map(|event| (event.kind, &event.data["tokens"], &event.data["total"])).collect();
    assert_eq!(
        told,
        [
            (EventKind::CreditGranted, &json!(100), &json!(100)),
            (EventKind::CreditGranted, &json!(-30), &json!(70))
        ]
    );
    assert_eq!(db.store.events_after(id, events[0].id, 10).await.unwrap(), events[1..]);
    assert!(db.store.events_after(nobody, 0, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn keys_are_scoped_to_the_user() {
    let db = database().await;
    let (one, other) = (db.user().await, db.user().await);
    for id in [one, other] {
        assert!(matches!(
            db.store.credit(id, &purchase(5, "key")).await.unwrap(),
            CreditOutcome::Granted { .. }
        ));
    }
}

#[tokio::test]
async fn twenty_credits_with_one_key_at_once_grant_once() {
    let db = database().await;
    let id = db.user().await;
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let store = db.store.clone();
            tokio::spawn(async move { store.credit(id, &purchase(1_000, "same")).await.unwrap() })
        })
        .collect();
    let (mut granted, mut replayed) = (0, 0);
    for call in calls {
        match call.await.unwrap() {
            CreditOutcome::Granted { .. } => granted += 1,
            CreditOutcome::Replayed { .. } => replayed += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((granted, replayed), (1, 19));
    assert_eq!(db.store.user(id).await.unwrap().unwrap().total_tokens, 1_000);
    assert_eq!(db.store.grants(id, None, 100).await.unwrap().len(), 1);
}

#[tokio::test]
async fn twenty_credits_with_keys_of_their_own_at_once_all_count() {
    let db = database().await;
    let id = db.user().await;
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let store = db.store.clone();
            tokio::spawn(async move { store.credit(id, &purchase(1_000, &n.to_string())).await.unwrap() })
        })
        .collect();
    for call in calls {
        assert!(matches!(call.await.unwrap(), CreditOutcome::Granted { .. }));
    }
    let user = db.store.user(id).await.unwrap().unwrap();
    assert_eq!((user.total_tokens, user.version), (20_000, 21));
}

#[tokio::test]
async fn no_grant_takes_the_total_out_of_its_range() {
    let db = database().await;
    let id = db.user().await;
    let refused = async |credit: Credit| {
        assert_eq!(db.store.credit(id, &credit).await.unwrap(), CreditOutcome::OutOfRange, "{credit:?}");
    };
    refused(purchase(0, "k")).await;
    refused(purchase(-1, "k")).await;
    refused(purchase(1_000_000_000_001, "k")).await;
    refused(purchase(i64::MAX, "k")).await;
    refused(adjustment(i64::MIN, "k")).await;
    let below = db.store.credit(id, &adjustment(-1, "k")).await.unwrap();
    assert_eq!(below, CreditOutcome::Exceeds { limit: 0 });

    db.sql("UPDATE user_accounts SET total_tokens = 9007199254740990 WHERE id = $1", id).await;
    refused(purchase(2, "k")).await;
    let CreditOutcome::Granted { user, .. } = db.store.credit(id, &purchase(1, "k")).await.unwrap() else {
        panic!()
    };
    assert_eq!(user.total_tokens, (1 << 53) - 1);
    refused(purchase(1, "l")).await;
    assert_eq!(db.store.grants(id, None, 10).await.unwrap().len(), 1, "a refusal leaves nothing");
}
