//! Deleting users, and exporting what is kept of them.

use cota::quota::UserId;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::service::{Answer, Service, send};

async fn delete(service: &Service, user: UserId) -> Answer {
    send(service.request(Method::DELETE, &format!("/v1/users/{user}"), service.admin_jwt())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_reserves_nothing_settles_what_is_under_way_and_frees_its_address() {
    let service = Service::start().await;
    let id = UserId::generate();
    let new = json!({"id": id.to_string(), "email": "ana@b.co", "external_id": "crm:1"});
    service.admin_post("/v1/users", &new).await.is(201);
    service.credit(id, 100, "start").await.is(201);
    service.reserve(id, "a", 50).await.is(201);
    let answer = delete(&service, id).await.is(200);
    assert_eq!(answer, json!({"id": id.to_string(), "erased": true, "effective": true}));
    service.reserve(id, "b", 1).await.problem(403, "user_suspended");
    service.settle(id, "a", 20).await.is(200);
    for path in [format!("/v1/users/{id}"), format!("/v1/users/{id}/export")] {
        service.get_as(&path, service.admin_jwt()).await.problem(404, "user_not_found");
    }
    service.admin_post(&format!("/v1/users/{id}/resume"), &json!({})).await.problem(404, "user_not_found");
    service.credit(id, 1, "more").await.problem(404, "user_not_found");
    for query in ["", "?email=ana@b.co", "?external_id=crm:1", "?status=suspended"] {
        let page = service.get_as(&format!("/v1/users{query}"), service.admin_jwt()).await.is(200);
        assert_eq!(page["users"], json!([]), "{query}");
    }
    assert_eq!(delete(&service, id).await.is(200)["erased"], true, "again");
    delete(&service, UserId::generate()).await.problem(404, "user_not_found");
    service
        .admin_post("/v1/users", &json!({"id": id.to_string(), "email": "x@b.co"}))
        .await
        .problem(409, "user_id_taken");
    let again = json!({"email": "ANA@b.co", "external_id": "crm:1"});
    service.admin_post("/v1/users", &again).await.is(201);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_one_document_of_everything() {
    let service = Service::start().await;
    let user = service.user(100).await;
    service.post(&format!("/v1/users/{user}/debits"), &json!({"id": "d", "tokens": 7})).await.is(201);
    service.world.check().await;
    let path = format!("/v1/users/{user}/export");
    let export = service.get_as(&path, service.admin_jwt()).await.is(200);
    let shown = service.get_as(&format!("/v1/users/{user}"), service.admin_jwt()).await.is(200);
    assert_eq!(export["user"], shown["user"]);
    let rows = |table: &str| export["tables"][table].as_array().unwrap().clone();
    assert_eq!(rows("token_transactions")[0]["tokens_used"], 7);
    assert_eq!(rows("grants")[0]["tokens"], 100);
    assert_eq!(rows("audit_log").len(), 2);
    assert!(rows("token_transactions").iter().all(|row| row["user_id"] == user.to_string()));
    assert_eq!(export["exported_at"].as_str().map(|at| at.parse::<jiff::Timestamp>().is_ok()), Some(true));
    let nobody = format!("/v1/users/{}/export", UserId::generate());
    service.get_as(&nobody, service.admin_jwt()).await.problem(404, "user_not_found");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_found_by_their_status() {
    let service = Service::start().await;
    let (one, two) = (service.user(0).await, service.user(0).await);
    service.admin_post(&format!("/v1/users/{one}/suspend"), &json!({})).await.is(200);
    let ids = async |query: &str| -> Vec<Value> {
        let page = service.get_as(&format!("/v1/users{query}"), service.admin_jwt()).await.is(200);
        page["users"].as_array().unwrap().iter().map(|user| user["id"].clone()).collect()
    };
    assert_eq!(ids("?status=suspended").await, [json!(one.to_string())]);
    assert_eq!(ids("?status=active").await, [json!(two.to_string())]);
    assert_eq!(ids(&format!("?status=active&email={one}@cota.test")).await, Vec::<Value>::new());
    for word in ["deleted", "", "Active"] {
        let path = format!("/v1/users?status={word}");
        service.get_as(&path, service.admin_jwt()).await.problem(422, "invalid_query");
    }
    service.finish().await;
}
