//! What is on record: who did it, who was refused, and that it is whole.

use cota::quota::UserId;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::service::{Service, send};

fn told(page: &Value) -> Vec<(String, String)> {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    page["rows"].as_array().unwrap().iter().map(|row| (text(row, "actor"), text(row, "action"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_tells_who_did_what_to_it_newest_first() {
    let service = Service::start().await;
    let user = service.user(100).await;
    let path = format!("/v1/users/{user}");
    let change = service.request(Method::PATCH, &path, service.admin_jwt()).header("if-match", "*");
    send(change.json(&json!({"locale": "pt-BR", "email": "canary@b.co"}))).await.is(200);
    service.admin_post(&format!("{path}/suspend"), &json!({})).await.is(200);
    service.admin_post(&format!("{path}/resume"), &json!({})).await.is(200);
    let own = service.user_jwt(user);
    let page = service.get_as(&format!("{path}/audit"), &own).await.is(200);
    let admin = |action: &str| ("test".to_owned(), action.to_owned());
    let all = ["user.resumed", "user.suspended", "user.changed", "grant.made", "user.created"].map(admin);
    assert_eq!(told(&page), all);
    assert_eq!(page["rows"][2]["data"], json!({"changed": ["email", "locale"]}));
    assert_eq!(page["rows"][3]["data"]["tokens"], 100);
    assert!(!page.to_string().contains("canary"));
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = service.get_as(&format!("/api/users/{user}/audit?limit=2{after}"), &own).await.is(200);
        seen.extend(told(&page));
        match page["next"].as_u64() {
            Some(next) => after = format!("&before={next}"),
            None => break,
        }
    }
    assert_eq!(seen, all);
    let nobody = format!("/v1/users/{}/audit", UserId::generate());
    service.get_as(&nobody, service.admin_jwt()).await.problem(404, "user_not_found");
    for query in ["before=x", "before=-1", "limit=0", "after=1"] {
        service.get_as(&format!("{path}/audit?{query}"), &own).await.problem(422, "invalid_query");
    }
    service.settle(user, "late", 1).await.problem(404, "reservation_not_found");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_calls_are_counted_and_put_on_record_once() {
    let service = Service::start().await;
    let (user, other) = (service.user(10).await, service.user(10).await);
    let own = service.user_jwt(other);
    for _ in 0..30 {
        service.get_as(&format!("/v1/users/{user}/credits"), &own).await.problem(403, "forbidden");
    }
    service.get_as("/v1/users", &own).await.problem(403, "forbidden");
    // Nobody is known who could be on record.
    send(service.bare(Method::GET, &format!("/v1/users/{user}"))).await.problem(401, "unauthenticated");
    let world = service.stop().await;
    let rows: Vec<(String, String, Option<uuid::Uuid>, String)> = sqlx::query_as(
        "SELECT actor, actor_role, user_id, data::text FROM audit_log WHERE action = 'access.refused' ORDER BY user_id",
    )
    .fetch_all(world.database.pool())
    .await
    .unwrap();
    let row = |user: Option<UserId>, data: &str| {
        (other.to_string(), "user".to_owned(), user.map(|user| user.0), data.to_owned())
    };
    assert_eq!(
        rows,
        [
            row(Some(user), r#"{"calls":30,"route":"GET /v1/users/{id}/credits"}"#),
            row(None, r#"{"calls":1,"route":"GET /v1/users"}"#),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_sees_whether_the_newest_rows_are_whole() {
    let service = Service::start().await;
    let user = service.user(100).await;
    for n in 0..5 {
        service
            .post(&format!("/v1/users/{user}/debits"), &json!({"id": format!("d{n}"), "tokens": 1}))
            .await
            .is(201);
    }
    service.world.check().await;
    let verify = async || service.get_as("/v1/audit/verify", service.admin_jwt()).await.is(200);
    let found = verify().await;
    assert_eq!((&found["sound"], &found["transactions"]), (&json!(true), &json!(5)), "{found}");
    let pool = service.world.database.pool();
    sqlx::query("UPDATE token_transactions SET tokens_used = 2 WHERE reservation_id = 'd3'")
        .execute(pool)
        .await
        .unwrap();
    let found = verify().await;
    assert_eq!(found["sound"], false);
    assert_eq!(found["findings"].as_array().unwrap().len(), 1, "{found}");
    sqlx::query("UPDATE token_transactions SET tokens_used = 1").execute(pool).await.unwrap();
    assert_eq!(verify().await["sound"], true);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_are_written_while_it_runs_and_at_its_end() {
    let folder = crate::support::TempFolder::new();
    let service = Service::with(|config| config.audit.checkpoint_dir = Some(folder.join("points"))).await;
    service.user(100).await;
    let world = service.stop().await;
    let keyring = crate::support::keyring();
    let trusted = cota::accounts::checkpoints::read(&folder.join("points"), &keyring).unwrap();
    assert_eq!(trusted.heads, world.store.audit_heads().await.unwrap());
    assert!(trusted.checkpoints >= 2 && trusted.broken.is_empty(), "{trusted:?}");
}
