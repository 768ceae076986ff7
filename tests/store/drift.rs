//! Looking for accounts whose used tokens are not what was booked.

use cota::{
    accounts::drift::{DriftWatch, Pace},
    quota::Kind,
    store::Drift,
};

use crate::scratch::{P0, database, entry};

#[tokio::test]
async fn a_drift_is_found_a_page_at_a_time_and_shows_until_a_round_without_it() {
    let db = database().await;
    let mut users = Vec::new();
    for _ in 0..5 {
        users.push(db.user().await);
    }
    users.sort();
    let epoch = db.open(P0).await;
    let entries = [
        entry(users[0], "a", Kind::Expiry, 5, 1),
        entry(users[0], "a", Kind::Correction, -2, 2),
        entry(users[3], "a", Kind::Settle, 7, 3),
    ];
    db.flush(epoch, &entries).await;
    let mut watch = DriftWatch::new(db.store.clone(), Pace { page: 2, ..Pace::default() });
    for is_done in [false, false, true] {
        assert_eq!(watch.look().await.unwrap(), is_done, "five accounts are two pages and a rest");
        assert_eq!(watch.known(), 0);
    }

    db.sql("UPDATE user_accounts SET used_tokens = used_tokens + 1 WHERE id = $1", users[3]).await;
    for (is_done, known) in [(false, 0), (false, 1), (true, 1)] {
        assert_eq!((watch.look().await.unwrap(), watch.known()), (is_done, known), "it shows at once");
    }
    let page = db.store.drift_page(Some(users[1]), 2).await.unwrap();
    assert_eq!((page.accounts, page.last), (2, Some(users[3])));
    assert_eq!(page.found, [Drift { user: users[3], used_tokens: 8, booked_tokens: 7 }]);

    db.sql("UPDATE user_accounts SET used_tokens = used_tokens - 1 WHERE id = $1", users[3]).await;
    for (is_done, known) in [(false, 1), (false, 1), (true, 0)] {
        assert_eq!((watch.look().await.unwrap(), watch.known()), (is_done, known), "until the round is done");
    }
}

#[tokio::test]
async fn sums_that_were_lost_are_a_drift_too() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    db.flush(epoch, &[entry(user, "a", Kind::Settle, 5, 1)]).await;
    assert_eq!(db.store.drift_page(None, 10).await.unwrap().found, []);
    db.sql("DELETE FROM usage_quarters WHERE user_id = $1", user).await;
    let found = db.store.drift_page(None, 10).await.unwrap().found;
    assert_eq!(found, [Drift { user, used_tokens: 5, booked_tokens: 0 }]);
}
