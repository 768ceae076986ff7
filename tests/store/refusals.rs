//! Rows that Postgres does not take.

use cota::{
    quota::{Entry, Kind, Metadata, UserId},
    store::{Creation, DeadReason, NewUser},
};

use crate::scratch::{P0, booked, database, entry};

/// The model takes any text that looks like an object; the column takes JSON only. So this one gets as far as the
/// `INSERT`.
fn broken(entry: Entry) -> Entry {
    Entry { metadata: Some(Metadata::new("{broken").unwrap()), ..entry }
}

#[tokio::test]
async fn one_bad_row_among_five_hundred_is_found_and_the_rest_is_booked() {
    let db = database().await;
    let users = [db.user().await, db.user().await, db.user().await];
    let epoch = db.open(P0).await;
    for bad in [0, 250, 499] {
        let first = bad * 1_000 + 1;
        let batch: Vec<Entry> = (0..500)
            .map(|n| {
                let good = entry(users[n % 3], &format!("{bad}-{n}"), Kind::Settle, 2, (first + n) as u64);
                if n == bad { broken(good) } else { good }
            })
            .collect();
        assert_eq!(db.flush(epoch, &batch).await, booked(499, 0, 1), "bad row {bad}");
        assert_eq!(db.flush(epoch, &batch).await, booked(0, 500, 0), "the repeat");
    }
    let letters = db.store.dead_letters(0, 10).await.unwrap();
    assert_eq!(letters.len(), 3);
    for (letter, bad) in letters.iter().zip([0, 250, 499]) {
        assert_eq!(letter.reservation, format!("{bad}-{bad}"));
        assert_eq!((letter.reason, letter.tokens, letter.spend_epoch), (DeadReason::Refused, 2, Some(epoch)));
        assert!(letter.detail.as_deref().unwrap().contains("json"), "{letter:?}");
    }
    let mut used = 0;
    for user in users {
        used += db.used(user).await;
    }
    assert_eq!(used, 3 * 499 * 2);
    db.assert_no_drift().await;
}

#[tokio::test]
async fn a_batch_of_nothing_but_bad_rows_still_ends() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    let batch: Vec<Entry> =
        (1..=200).map(|n| broken(entry(user, &format!("r{n}"), Kind::Settle, 1, n))).collect();
    assert_eq!(db.flush(epoch, &batch).await, booked(0, 0, 200));
    assert_eq!((db.used(user).await, db.store.dead_letter_count().await.unwrap()), (0, 200));
}

#[tokio::test]
async fn an_account_that_is_gone_takes_only_its_own_entries_along() {
    let db = database().await;
    let (user, gone) = (db.user().await, UserId::generate());
    let epoch = db.open(P0).await;
    let batch: Vec<Entry> = (1..=100)
        .map(|n| entry(if n % 2 == 0 { gone } else { user }, &format!("r{n}"), Kind::Settle, 1, n))
        .collect();
    assert_eq!(db.flush(epoch, &batch).await, booked(50, 0, 50));
    assert_eq!(db.flush(epoch, &batch).await, booked(0, 100, 0));
    let letters = db.store.dead_letters(0, 100).await.unwrap();
    assert!(letters.iter().all(|letter| letter.user == gone && letter.reason == DeadReason::Refused));
    assert_eq!(db.used(user).await, 50);
}

#[tokio::test]
async fn used_tokens_stay_below_two_to_the_53() {
    let db = database().await;
    let (full, fresh) = (db.user().await, db.user().await);
    db.sql("UPDATE user_accounts SET used_tokens = 9007199254740981 WHERE id = $1", full).await;
    let epoch = db.open(P0).await;
    let batch = [
        entry(full, "fits", Kind::Settle, 10, 1),
        entry(full, "too-much", Kind::Settle, 1, 2),
        entry(fresh, "other", Kind::Settle, 1, 3),
    ];
    assert_eq!(db.flush(epoch, &batch).await, booked(2, 0, 1));
    assert_eq!((db.used(full).await, db.used(fresh).await), ((1 << 53) - 1, 1));
}

#[tokio::test]
async fn a_correction_never_takes_used_below_zero() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    assert_eq!(db.flush(epoch, &[entry(user, "r", Kind::Correction, -1, 1)]).await, booked(0, 0, 1));
    assert_eq!(db.used(user).await, 0);
}

#[tokio::test]
async fn entries_out_of_range_are_buried_whole() {
    let db = database().await;
    let user = db.user().await;
    let epoch = db.open(P0).await;
    let over = 1_000_000_000_001;
    let bad = |n: u64, change: fn(&mut Entry)| {
        let mut entry = entry(user, &format!("r{n}"), Kind::Settle, 1, n);
        change(&mut entry);
        entry
    };
    let batch = [
        entry(user, "r0", Kind::Settle, over, 1),
        entry(user, "r00", Kind::Correction, -over, 2),
        entry(user, "r000", Kind::Settle, i64::MAX, 3),
        bad(4, |entry| entry.tokens = -1),
        bad(5, |entry| entry.input_tokens = Some(u64::MAX)),
        bad(6, |entry| entry.at_ms = u64::MAX),
        bad(7, |entry| entry.at_ms = 253_402_207_200_001),
        bad(8, |entry| entry.outbox_id.sequence = u64::MAX),
        bad(9, |entry| entry.outbox_id.nonce = u64::MAX),
        entry(user, "good", Kind::Settle, 1_000_000_000_000, 10),
        Entry { at_ms: 253_402_207_200_000, ..entry(user, "last", Kind::Settle, 1, 11) },
    ];
    assert_eq!(db.flush(epoch, &batch).await, booked(2, 0, 9));
    assert_eq!(db.flush(epoch, &batch).await, booked(0, 11, 0));
    assert_eq!(db.used(user).await, 1_000_000_000_001);
    let row = &db.store.partitions().await.unwrap()[0];
    assert!(row.outbox_high_water < 1 << 53, "a broken id does not lift the high water: {row:?}");
    assert_eq!(db.store.dead_letters(0, 100).await.unwrap()[7].outbox_id.sequence, u64::MAX);
    // The last time that can be told can also be read.
    assert_eq!(db.rows(user, "last").await.len(), 1);
}

/// What was buried is not booked by a repeat for which the reason is gone: an operator may have dealt with it.
#[tokio::test]
async fn a_buried_entry_stays_buried() {
    let db = database().await;
    let user = UserId::generate();
    let epoch = db.open(P0).await;
    let batch = [entry(user, "r", Kind::Settle, 5, 1)];
    assert_eq!(db.flush(epoch, &batch).await, booked(0, 0, 1));
    let new = NewUser { id: Some(user), email: "late@example.com".into(), ..NewUser::default() };
    assert!(matches!(db.store.create_user(&new).await.unwrap(), Creation::Created(_)));
    assert_eq!(db.flush(epoch, &batch).await, booked(0, 1, 0));
    assert_eq!(db.used(user).await, 0);
}
