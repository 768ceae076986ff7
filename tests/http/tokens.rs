//! Balances, and who may see them; what a suspension stops.

use serde_json::json;

use crate::support::service::Service;

#[tokio::test(flavor = "multi_thread")]
async fn the_user_its_gateways_and_admins_see_the_live_balance() {
    let service = Service::start().await;
    let user = service.user(100).await;
    service.reserve(user, "a", 60).await.is(201);
    service.settle(user, "a", 20).await.is(200);
    service.reserve(user, "b", 5).await.is(201);
    let balance = json!({"total": 100, "used": 20, "reserved": 5, "available": 75});
    let shown = json!({"user_id": user.to_string(), "status": "active", "balance": balance, "stale": false});
    let own = service.user_jwt(user);
    for prefix in ["/v1", "/api"] {
        for jwt in [&own, service.gateway_jwt(), service.admin_jwt()] {
            let answer = service.get_as(&format!("{prefix}/users/{user}/tokens"), jwt).await;
            assert_eq!(answer.is(200), shown);
        }
        // As the first clients send it: a bare JWT.
        let path = format!("{prefix}/users/{user}/tokens");
        let bare = service.bare(reqwest::Method::GET, &path).header("authorization", &own);
        assert_eq!(service.send(bare).await.is(200), shown);
    }
    service.get(&format!("/v1/users/{user}/tokens?at=now")).await.problem(422, "invalid_query");
    let nobody = cota::quota::UserId::generate();
    service.get(&format!("/v1/users/{nobody}/tokens")).await.problem(404, "user_not_found");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_user_reserves_nothing_and_settles_what_runs() {
    let service = Service::start().await;
    let user = service.user(100).await;
    service.reserve(user, "a", 60).await.is(201);
    let path = |verb: &str| format!("/v1/users/{user}/{verb}");
    let suspended = service.admin_post(&path("suspend"), &json!({})).await.is(200);
    assert_eq!((&suspended["user"]["status"], &suspended["effective"]), (&json!("suspended"), &json!(true)));
    service.reserve(user, "b", 1).await.problem(403, "user_suspended");
    service.reserve(user, "free", 0).await.problem(403, "user_suspended");
    assert_eq!(service.get(&path("tokens")).await.is(200)["status"], "suspended");
    // A repeat of what was admitted before is the first answer.
    assert!(service.reserve(user, "a", 60).await.replayed());
    service.settle(user, "a", 20).await.is(200);
    let resumed = service.admin_post(&path("resume"), &json!({})).await.is(200);
    assert_eq!((&resumed["user"]["status"], &resumed["effective"]), (&json!("active"), &json!(true)));
    service.reserve(user, "b", 1).await.is(201);
    service.finish().await;
}
