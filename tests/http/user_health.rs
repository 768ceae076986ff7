//! How an account is doing, asked of both stores.

use cota::quota::UserId;
use serde_json::{Value, json};

use crate::support::service::Service;

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_cold_then_hot_and_a_drift_shows() {
    let service = Service::start().await;
    let user = service.user(100).await;
    let health = async |user: UserId| -> Value {
        service.get_as(&format!("/v1/users/{user}/health"), &service.user_jwt(user)).await.is(200)
    };
    let cold = health(user).await;
    assert_eq!(
        (&cold["state"], &cold["balance"], &cold["drift_tokens"]),
        (&json!("cold"), &Value::Null, &Value::Null)
    );
    assert_eq!((&cold["last_flush_at"], &cold["pending_reservations"]), (&Value::Null, &Value::Null));
    assert_eq!(health(user).await["state"], "cold", "to be asked does not warm it");

    service.reserve(user, "a", 30).await.is(201);
    service.reserve(user, "b", 10).await.is(201);
    service.settle(user, "b", 7).await.is(200);
    service.world.check().await;
    let hot = health(user).await;
    assert_eq!(hot["state"], "hot");
    assert_eq!(hot["balance"], json!({"total": 100, "used": 7, "reserved": 30, "available": 63}));
    assert_eq!(
        (&hot["booked_tokens"], &hot["drift_tokens"], &hot["waiting_transactions"], &hot["synced"]),
        (&json!(7), &json!(0), &json!(0), &json!(true))
    );
    assert_eq!((&hot["pending_reservations"], &hot["open_alerts"]), (&json!(1), &json!([])));
    for at in ["last_flush_at", "last_transaction_at", "oldest_reservation_at"] {
        assert!(hot[at].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{at}");
    }
    service.post(&format!("/v1/users/{user}/debits"), &json!({"id": "c", "tokens": 91})).await.is(201);
    service.world.check().await;
    assert_eq!(health(user).await["open_alerts"], json!(["warning", "critical"]));
    let sql = "UPDATE user_accounts SET used_tokens = used_tokens - 2 WHERE id = $1";
    let pool = service.world.database.pool();
    sqlx::query(sql).bind(user.0).execute(pool).await.unwrap();
    assert_eq!(health(user).await["drift_tokens"], 2);
    sqlx::query("UPDATE user_accounts SET used_tokens = used_tokens + 2").execute(pool).await.unwrap();
    service.admin_post(&format!("/v1/users/{user}/suspend"), &json!({})).await.is(200);
    assert_eq!(health(user).await["status"], "suspended");
    let nobody = format!("/v1/users/{}/health", UserId::generate());
    service.get_as(&nobody, service.admin_jwt()).await.problem(404, "user_not_found");
    service.finish().await;
}
