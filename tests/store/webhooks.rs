//! Webhook endpoints: their number, their versions, their secrets.

use std::time::Duration;

use cota::{
    quota::UserId,
    store::{EndpointChange, EndpointCreation, EndpointUpdate, Expected, NewEndpoint},
};
use futures_util::future::join_all;
use serde_json::json;
use uuid::Uuid;

use crate::scratch::database;

fn new(url: &str) -> NewEndpoint {
    NewEndpoint {
        id: Uuid::now_v7(),
        url: url.into(),
        kinds: None,
        secret: b"hush-hush-hush-hush-hush-hush-32".to_vec(),
    }
}

#[tokio::test]
async fn a_user_has_at_most_as_many_as_it_may_however_many_ask_at_once() {
    let db = database().await;
    let user = db.user().await;
    let made = join_all((0..20).map(async |n| {
        db.store.create_webhook(user, &new(&format!("https://a.example/{n}")), 5).await.unwrap()
    }))
    .await;
    let count = |wanted: fn(&EndpointCreation) -> bool| made.iter().filter(|made| wanted(made)).count();
    assert_eq!(count(|made| matches!(made, EndpointCreation::Created(_))), 5);
    assert_eq!(count(|made| *made == EndpointCreation::TooMany), 15);
    let all = db.store.webhooks(user).await.unwrap();
    assert_eq!(all.len(), 5);
    // A repeat is told as one, also when there is no room.
    assert_eq!(
        db.store.create_webhook(user, &new(&all[0].url), 5).await.unwrap(),
        EndpointCreation::UrlTaken
    );
    let nobody = db.store.create_webhook(UserId::generate(), &new("https://a.example/"), 5).await.unwrap();
    assert_eq!(nobody, EndpointCreation::UserNotFound);
}

#[tokio::test]
async fn changes_are_made_to_the_version_that_was_read() {
    let db = database().await;
    let user = db.user().await;
    let EndpointCreation::Created(first) =
        db.store.create_webhook(user, &new("https://a.example/"), 5).await.unwrap()
    else {
        panic!()
    };
    db.store.create_webhook(user, &new("https://b.example/"), 5).await.unwrap();
    let update = async |version, change| {
        let expected = Expected::OneOf(vec![version]);
        db.store.update_webhook(user, first.id, &expected, &change).await.unwrap()
    };
    let off = EndpointChange { enabled: Some(false), ..EndpointChange::default() };
    let EndpointUpdate::Updated(second) = update(1, off.clone()).await else { panic!() };
    assert_eq!((second.version, second.disabled.is_some()), (2, true));
    assert_eq!(update(1, off.clone()).await, EndpointUpdate::Stale);
    let EndpointUpdate::Updated(third) = update(2, off.clone()).await else { panic!() };
    assert_eq!(third.disabled, second.disabled, "since when stays");
    let taken = EndpointChange { url: Some("https://b.example/".into()), ..EndpointChange::default() };
    assert_eq!(update(3, taken).await, EndpointUpdate::UrlTaken);
    let gone = db.store.update_webhook(db.user().await, first.id, &Expected::Any, &off).await.unwrap();
    assert_eq!(gone, EndpointUpdate::NotFound);
}

#[tokio::test]
async fn secrets_lie_sealed_and_two_sign_while_one_is_changed() {
    let db = database().await;
    let user = db.user().await;
    let endpoint = new("https://a.example/");
    db.store.create_webhook(user, &endpoint, 5).await.unwrap();
    let secrets = async || {
        sqlx::query("UPDATE user_events SET fanned_out_at = NULL").execute(&db.pool).await.unwrap();
        sqlx::query("INSERT INTO user_events (user_id, kind, data) VALUES ($1, 'alert.warning', $2)")
            .bind(user.0)
            .bind(json!({}))
            .execute(&db.pool)
            .await
            .unwrap();
        db.store.fan_out(10, false).await.unwrap();
        let claim = db.store.claim_webhooks(1, Duration::from_secs(60)).await.unwrap().pop().unwrap();
        claim.secrets.unwrap()
    };
    let rotate = async |secret: &[u8], overlap| {
        let rotated =
            db.store.rotate_webhook_secret(user, endpoint.id, secret, Duration::from_secs(overlap)).await;
        rotated.unwrap().unwrap()
    };
    assert_eq!(secrets().await, std::slice::from_ref(&endpoint.secret));
    let rotated = rotate(b"second", 600).await;
    assert!(rotated.previous_until.is_some());
    assert_eq!(secrets().await, [b"second".to_vec(), endpoint.secret.clone()]);
    rotate(b"third", 600).await;
    assert_eq!(secrets().await, [b"third".to_vec(), b"second".to_vec()]);
    sqlx::query("UPDATE webhook_endpoints SET previous_until = now()").execute(&db.pool).await.unwrap();
    assert_eq!(secrets().await, [b"third".to_vec()]);
    assert_eq!(rotate(b"fourth", 0).await.previous_until, None);
    let stored: Vec<u8> =
        sqlx::query_scalar("SELECT secret_sealed FROM webhook_endpoints").fetch_one(&db.pool).await.unwrap();
    assert!(!stored.windows(6).any(|bytes| bytes == b"fourth"));
    let nobody = db.store.rotate_webhook_secret(UserId::generate(), endpoint.id, b"x", Duration::ZERO).await;
    assert_eq!(nobody.unwrap(), None);
}
