//! A user's numbers.

use cota::quota::UserId;
use serde_json::{Value, json};

use crate::support::{invariants::settle_down, service::Service, world::until};

async fn numbers(service: &Service, user: UserId) -> Value {
    let path = format!("/v1/users/{user}/metrics");
    service.get_as(&path, &service.user_jwt(user)).await.is(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_known_is_null_with_its_reason() {
    let service = Service::start().await;
    let user = service.user(0).await;
    let fresh = numbers(&service, user).await;
    assert_eq!((&fresh["total"], &fresh["used"], &fresh["remaining"]), (&json!(0), &json!(0), &json!(0)));
    let unknown = |body: &Value| -> Vec<(String, String)> {
        let list = body["unknown"].as_array().unwrap().iter();
        list.map(|one| (one["name"].as_str().unwrap().into(), one["reason"].as_str().unwrap().into()))
            .collect()
    };
    let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        list.iter().map(|(name, reason)| ((*name).into(), (*reason).into())).collect()
    };
    let too_early = [
        ("daily_average", "not_enough_data"),
        ("monthly_projection", "not_enough_data"),
        ("days_left", "not_enough_data"),
    ];
    let nothing = [("usage_percentage", "nothing_granted")];
    let never = [("last_activity", "no_usage")];
    assert_eq!(unknown(&fresh), pairs(&[&nothing[..], &too_early, &never].concat()));
    for (name, _) in unknown(&fresh) {
        assert!(fresh[&name].is_null(), "{name}");
    }
    // Used for the first time today: no complete day yet.
    service.credit(user, 1_000, "k").await.is(201);
    service.reserve(user, "r", 600).await.is(201);
    service.settle(user, "r", 425).await.is(200);
    settle_down(&service.world).await;
    let used = numbers(&service, user).await;
    assert_eq!(unknown(&used), pairs(&too_early));
    assert_eq!((&used["remaining"], &used["usage_percentage"]), (&json!(575), &json!(42.5)));
    assert_eq!(used["month"]["tokens"], 425);
    assert!(used["last_activity"].is_string() && used["as_of"].is_null());
    assert_eq!((&used["basis"]["time_zone"], &used["basis"]["days"]), (&json!("UTC"), &json!(0)));
    let path = format!("/v1/users/{}/metrics", UserId::generate());
    service.get_as(&path, service.admin_jwt()).await.problem(404, "user_not_found");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn days_are_those_of_the_users_zone() {
    let service = Service::start().await;
    let user = service.user(10_000).await;
    for n in 0..10 {
        let body = json!({"id": format!("d{n}"), "tokens": 100});
        service.post(&format!("/v1/users/{user}/debits"), &body).await.is(201);
    }
    settle_down(&service.world).await;
    // One a day, at half past midnight in Nepal, which is 18:45 in UTC: ten days ago to yesterday.
    let shift = "UPDATE token_transactions SET timestamp =
                     (date_trunc('day', now() AT TIME ZONE 'Asia/Kathmandu') + interval '30 minutes')
                     AT TIME ZONE 'Asia/Kathmandu' - interval '1 day' * (10 - substr(reservation_id, 2)::int)";
    service.world.rewrite(shift).await;
    service.world.sum_up_anew().await;
    // The first day was not used from its beginning, so it does not count: nine days of 100.
    service.world.sql("UPDATE user_accounts SET time_zone = 'Asia/Kathmandu'").await;
    let nepal = numbers(&service, user).await;
    assert_eq!((&nepal["basis"]["days"], &nepal["basis"]["tokens"]), (&json!(9), &json!(900)));
    assert_eq!((&nepal["daily_average"], &nepal["days_left"]), (&json!(100), &json!(90.0)));
    let start = nepal["basis"]["start"].as_str().unwrap();
    assert!(start.ends_with("T18:15:00.000Z"), "{start}");
    assert!(nepal["monthly_projection"].as_i64() >= nepal["month"]["tokens"].as_i64());
    assert_eq!(nepal["unknown"], json!([]));
    // The same use in another zone, without a change to any row.
    service.world.sql("UPDATE user_accounts SET time_zone = 'America/Los_Angeles'").await;
    let angeles = numbers(&service, user).await;
    assert_eq!(angeles["basis"]["time_zone"], "America/Los_Angeles");
    let (days, tokens) =
        (angeles["basis"]["days"].as_i64().unwrap(), angeles["basis"]["tokens"].as_i64().unwrap());
    assert!((days - 9).abs() <= 1 && (tokens - 900).abs() <= 100, "{angeles}");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_they_are_the_last_that_the_ledger_heard() {
    let service = Service::start().await;
    let user = service.user(1_000).await;
    service.reserve(user, "r", 10).await.is(201);
    service.settle(user, "r", 10).await.is(200);
    settle_down(&service.world).await;
    service.world.redis.lock().await.kill().await.unwrap();
    until("they are stale", async || numbers(&service, user).await["stale"] == true).await;
    let stale = numbers(&service, user).await;
    assert_eq!((&stale["total"], &stale["used"]), (&json!(1_000), &json!(10)));
    assert!(stale["as_of"].is_string());
    service.stop().await;
}
