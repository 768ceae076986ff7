//! Addresses at rest: sealed, found, moved to a new key.

use std::sync::atomic::{AtomicBool, Ordering};

use cota::{
    config::{KeyConfig, KeysConfig},
    crypto::Keyring,
    quota::UserId,
    store::{
        Creation, Expected, NewUser, ProfileChange, SealedColumn, Store, StoreError, Update, UserFilter,
    },
};
use uuid::Uuid;

use crate::{
    scratch::{Database, config, database},
    servers::keys,
};

fn emails() -> SealedColumn {
    SealedColumn { table: "user_accounts".into(), column: "email_sealed".into() }
}

/// The keys of the tests, and a newer one that is active.
fn newer() -> KeysConfig {
    let mut keys = keys();
    let other: KeyConfig = Keyring::generate("newer").unwrap().ring.remove(0);
    keys.ring.push(other);
    keys.active = "newer".into();
    keys
}

async fn store_with(db: &Database, keys: &KeysConfig) -> Store {
    Store::connect(&config(&db.url), &Keyring::of(keys).unwrap()).await.unwrap()
}

async fn create(store: &Store, email: &str) -> UserId {
    match store.create_user(&NewUser { email: email.into(), ..NewUser::default() }).await.unwrap() {
        Creation::Created(user) => user.id,
        other => panic!("{other:?}"),
    }
}

/// An account as a version without seals made it.
async fn plain(db: &Database, email: &str) -> UserId {
    let id = UserId::generate();
    sqlx::query("INSERT INTO user_accounts (id, email) VALUES ($1, $2)")
        .bind(id.0)
        .bind(email)
        .execute(&db.pool)
        .await
        .unwrap();
    id
}

async fn email(store: &Store, user: UserId) -> String {
    store.user(user).await.unwrap().unwrap().email
}

async fn found(store: &Store, email: &str) -> Vec<UserId> {
    let filter = UserFilter { email: Some(email), ..UserFilter::default() };
    store.users(None, 10, filter).await.unwrap().into_iter().map(|user| user.id).collect()
}

async fn counts(store: &Store) -> Vec<(String, u64)> {
    let counts = store.sealed_counts(&emails()).await.unwrap();
    counts.into_iter().map(|count| (count.key_id, count.values)).collect()
}

#[tokio::test]
async fn an_address_lies_nowhere_in_the_clear_and_is_found_by_its_index() {
    let db = database().await;
    let user = create(&db.store, "Canary.Ana@Exemplo.com.br").await;
    let row: String =
        sqlx::query_scalar("SELECT a::text FROM user_accounts a").fetch_one(&db.pool).await.unwrap();
    let readable = row.to_lowercase();
    // As bytea shows it, too.
    let hex: String = "canary".bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(!readable.contains("canary") && !readable.contains(&hex), "{row}");
    assert_eq!(email(&db.store, user).await, "Canary.Ana@Exemplo.com.br");
    assert_eq!(found(&db.store, "canary.ana@exemplo.COM.br").await, [user]);
    assert_eq!(found(&db.store, "canary.ana@exemplo.com").await, []);
    let again = NewUser { email: "CANARY.ana@exemplo.com.br".into(), ..NewUser::default() };
    assert_eq!(db.store.create_user(&again).await.unwrap(), Creation::EmailTaken);
    let other = create(&db.store, "other@b.co").await;
    let change =
        ProfileChange { email: Some("canary.ANA@exemplo.com.br".into()), ..ProfileChange::default() };
    assert_eq!(db.store.update_user(other, &Expected::Any, &change).await.unwrap(), Update::EmailTaken);
    let change = ProfileChange { email: Some("new@b.co".into()), ..ProfileChange::default() };
    assert!(matches!(
        db.store.update_user(user, &Expected::Any, &change).await.unwrap(),
        Update::Updated(user) if user.email == "new@b.co"
    ));
    assert_eq!(found(&db.store, "canary.ana@exemplo.com.br").await, []);
    assert_eq!(found(&db.store, "NEW@b.co").await, [user]);
}

#[tokio::test]
async fn a_value_of_another_row_or_key_is_an_error_and_never_empty() {
    let db = database().await;
    let (one, two) = (create(&db.store, "one@b.co").await, create(&db.store, "two@b.co").await);
    let swap = "UPDATE user_accounts a SET email_sealed = b.email_sealed FROM user_accounts b WHERE a.id <> b.id AND $1 <> b.id";
    db.sql(swap, two).await;
    assert_eq!(email(&db.store, one).await, "one@b.co");
    assert!(matches!(db.store.user(two).await, Err(StoreError::Sealed(_))));
    let stranger = store_with(&db, &Keyring::generate("other").unwrap()).await;
    let error = stranger.user(one).await.unwrap_err();
    assert!(!error.is_retryable() && error.to_string().contains("\"test\""), "{error}");
    let of_same_name = store_with(&db, &Keyring::generate("test").unwrap()).await;
    assert!(matches!(of_same_name.user(one).await, Err(StoreError::Sealed(_))));
}

#[tokio::test]
async fn what_an_older_version_left_is_sealed_and_a_taken_address_holds_up_its_own_row_alone() {
    let db = database().await;
    let taken = create(&db.store, "Taken@b.co").await;
    let mut plain_ones = Vec::new();
    for n in 0..25 {
        plain_ones.push(plain(&db, &format!("Old{n}@b.co")).await);
    }
    let conflict = plain(&db, "taken@B.co").await;
    assert_eq!(email(&db.store, plain_ones[3]).await, "Old3@b.co", "readable before");
    assert_eq!(found(&db.store, "OLD3@b.co").await, [plain_ones[3]]);
    for keep in [true, false, false] {
        let (mut after, mut conflicts) = (None, Vec::new());
        loop {
            let step = db.store.seal_emails(after, 10, keep).await.unwrap();
            conflicts.extend(step.conflicts);
            after = step.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(conflicts, [conflict]);
        let left: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM user_accounts WHERE email IS NOT NULL")
            .fetch_all(&db.pool)
            .await
            .unwrap();
        assert_eq!(left.len(), if keep { 26 } else { 1 });
        for (n, user) in plain_ones.iter().enumerate() {
            assert_eq!(email(&db.store, *user).await, format!("Old{n}@b.co"));
            assert_eq!(found(&db.store, &format!("oLD{n}@b.co")).await, [*user]);
        }
    }
    assert_eq!(email(&db.store, taken).await, "Taken@b.co");
    assert_eq!(email(&db.store, conflict).await, "taken@B.co");
}

#[tokio::test]
async fn replicas_of_an_older_version_are_counted() {
    let db = database().await;
    let minute = std::time::Duration::from_secs(60);
    db.store.heartbeat(cota::store::ReplicaId::generate()).await.unwrap();
    assert_eq!(db.store.replicas_without_seals(minute).await.unwrap(), 0);
    db.sql("INSERT INTO replicas (id) VALUES ($1)", UserId::generate()).await;
    db.sql(
        "INSERT INTO replicas (id, seen_at) VALUES ($1, now() - interval '2 minutes')",
        UserId::generate(),
    )
    .await;
    assert_eq!(db.store.replicas_without_seals(minute).await.unwrap(), 1);
}

/// Steps of a rotation from here to the end; how many values it sealed anew.
async fn rotate(store: &Store, limit: u32) -> usize {
    let (mut after, mut resealed) = (Uuid::nil(), 0);
    loop {
        let step = store.reseal(&emails(), after, limit).await.unwrap();
        assert_eq!(step.broken, []);
        resealed += step.resealed;
        let Some(next) = step.next else { return resealed };
        after = next;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_while_accounts_are_made_changed_and_read() {
    let db = database().await;
    for n in 0..120 {
        create(&db.store, &format!("u{n}@b.co")).await;
    }
    assert!(db.store.sealed_columns().await.unwrap().contains(&emails()));
    let keys = newer();
    let rotating = store_with(&db, &keys).await;
    // A replica that was not restarted yet cannot open what the rotation has done; both of these know both keys.
    let serving = store_with(&db, &KeysConfig { active: "test".into(), ..keys.clone() }).await;
    let done = AtomicBool::new(false);
    let traffic = async {
        let mut n = 0;
        while !done.load(Ordering::Relaxed) {
            let user = create(&serving, &format!("new{n}@b.co")).await;
            let change =
                ProfileChange { email: Some(format!("changed{n}@b.co")), ..ProfileChange::default() };
            let update = serving.update_user(user, &Expected::Any, &change).await.unwrap();
            assert!(matches!(update, Update::Updated(_)));
            assert_eq!(found(&serving, &format!("CHANGED{n}@b.co")).await, [user]);
            serving.users(None, 500, UserFilter::default()).await.unwrap();
            n += 1;
        }
        n
    };
    let rotation = async {
        // Cut off after two steps, as a killed command is: what is done stays done, and a new one finds the rest.
        let first = rotating.reseal(&emails(), Uuid::nil(), 40).await.unwrap();
        assert_eq!((first.resealed, first.next.is_some()), (40, true));
        let before = counts(&rotating).await;
        assert!(before.contains(&("newer".into(), 40)), "{before:?}");
        let resealed = rotate(&rotating, 7).await;
        done.store(true, Ordering::Relaxed);
        resealed
    };
    let (made, resealed) = tokio::join!(traffic, rotation);
    assert!(resealed >= 80 && made > 0, "{resealed}, {made}");
    // What the old active key sealed after the rotation had passed.
    rotate(&rotating, 1_000).await;
    assert_eq!(counts(&rotating).await, [("newer".to_owned(), 120 + made as u64)]);
    assert_eq!(rotate(&rotating, 1_000).await, 0);
    let without_old = KeysConfig { ring: vec![keys.ring[1].clone()], ..keys };
    let after = store_with(&db, &without_old).await;
    let users = after.users(None, 10_000, UserFilter::default()).await.unwrap();
    assert_eq!(users.len(), 120 + made);
    assert_eq!(found(&after, "U7@b.co").await.len(), 1, "the index outlives the key");
}

#[tokio::test]
async fn a_rotation_names_what_it_cannot_open_and_does_the_rest() {
    let db = database().await;
    let (good, bad) = (create(&db.store, "good@b.co").await, create(&db.store, "bad@b.co").await);
    db.sql("UPDATE user_accounts SET email_sealed = email_sealed || '\\x00'::bytea WHERE id = $1", bad).await;
    let rotating = store_with(&db, &newer()).await;
    let step = rotating.reseal(&emails(), Uuid::nil(), 10).await.unwrap();
    assert_eq!((step.resealed, step.next, step.broken.len()), (1, None, 1));
    assert_eq!(step.broken[0].0, bad.0);
    assert_eq!(email(&rotating, good).await, "good@b.co");
}
