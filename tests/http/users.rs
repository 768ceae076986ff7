//! Users: create, find, page through, suspend and resume.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::service::Service;
use cota::quota::UserId;

fn ids(page: &Value) -> Vec<String> {
    page["users"].as_array().unwrap().iter().map(|user| user["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_a_new_user_is_read_back_as_written() {
    let service = Service::start().await;
    let id = UserId::generate().to_string();
    let new = json!({"id": id, "email": "Ana@Exemplo.com.br", "external_id": "crm:{42} é\n😀", "locale": "pt-BR",
                     "time_zone": "America/Sao_Paulo"});
    let created = service.admin_post("/v1/users", &new).await;
    assert!(created.header("etag").is_some());
    let created = created.is(201);
    let user = &created["user"];
    for (name, value) in new.as_object().unwrap() {
        assert_eq!(&user[name], value, "case 96: {name}");
    }
    assert_eq!(
        (&user["status"], &user["total_tokens"], &user["used_tokens"]),
        (&json!("active"), &json!(0), &json!(0))
    );
    for prefix in ["/v1", "/api"] {
        let path = format!("{prefix}/users/{id}");
        for jwt in [service.admin_jwt(), &service.user_jwt(id.parse().unwrap())] {
            assert_eq!(service.get_as(&path, jwt).await.is(200), json!({"user": user}));
        }
    }
    let plain = service.admin_post("/api/users", &json!({"email": "b@b.co"})).await.is(201);
    assert_eq!(plain["user"]["external_id"], Value::Null);
    assert_eq!(plain["user"]["id"].as_str().unwrap().parse::<uuid::Uuid>().unwrap().get_version_num(), 7);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_user_has_is_taken() {
    let service = Service::start().await;
    let id = UserId::generate().to_string();
    let new = json!({"id": id, "email": "ana@b.co", "external_id": "x"});
    service.admin_post("/v1/users", &new).await.is(201);
    for (new, code, field) in [
        (json!({"email": "ANA@B.co"}), "email_taken", "email"),
        (json!({"email": "c@b.co", "external_id": "x"}), "external_id_taken", "external_id"),
        (json!({"email": "c@b.co", "id": id}), "user_id_taken", "id"),
    ] {
        assert_eq!(service.admin_post("/v1/users", &new).await.problem(409, code)["field"], field);
    }
    for (new, code) in [
        (json!({}), "missing_field"),
        (json!({"email": "nobody"}), "invalid_email"),
        (json!({"email": 7}), "invalid_body"),
        (json!({"email": "c@b.co", "budget": 5}), "unknown_field"),
        (json!({"email": "c@b.co", "id": "7"}), "invalid_user_id"),
        (json!({"email": "c@b.co", "external_id": ""}), "invalid_external_id"),
        (json!({"email": "c@b.co", "external_id": "x".repeat(256)}), "invalid_external_id"),
        (json!({"email": "c@b.co", "external_id": "a\u{0}"}), "invalid_external_id"),
        (json!({"email": "c@b.co", "locale": "pt_BR"}), "invalid_locale"),
        (json!({"email": "c@b.co", "time_zone": "Mars/Olympus"}), "invalid_time_zone"),
    ] {
        service.admin_post("/v1/users", &new).await.problem(422, code);
    }
    let page = service.get_as("/v1/users", service.admin_jwt()).await.is(200);
    assert_eq!(ids(&page), [id]);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_found_and_paged_through() {
    let service = Service::start().await;
    let admin = service.admin_jwt();
    let mut made = Vec::new();
    for n in 0..25 {
        let new = json!({"email": format!("u{n}+x@b.co"), "external_id": format!("a:{n}&b")});
        let answer = service.admin_post("/v1/users", &new).await.is(201);
        made.push(answer["user"]["id"].as_str().unwrap().to_owned());
    }
    made.sort_unstable();
    let (mut seen, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = service.get_as(&format!("/v1/users?limit=10{after}"), admin).await.is(200);
        seen.extend(ids(&page));
        pages += 1;
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!((seen, pages), (made, 3));
    for query in ["email=U7%2Bx@B.CO", "external_id=a:7%26b", "email=u7%2Bx@b.co&external_id=a:7%26b"] {
        let page = service.get_as(&format!("/v1/users?{query}"), admin).await.is(200);
        assert_eq!(page["users"].as_array().unwrap().len(), 1, "{query}");
        assert_eq!(page["users"][0]["email"], "u7+x@b.co");
        assert_eq!(page["next"], Value::Null);
    }
    let page = service.get_as("/v1/users?email=nobody@b.co", admin).await.is(200);
    assert_eq!(page, json!({"users": [], "next": null}));
    for query in ["limit=0", "limit=501", "limit=-1", "after=x", "email=%00", "q=ana", "email=a&email=b"] {
        service.get_as(&format!("/v1/users?{query}"), admin).await.problem(422, "invalid_query");
    }
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suspending_and_resuming_may_be_repeated_and_needs_an_account() {
    let service = Service::start().await;
    let user = service.user(10).await;
    for (verb, status) in [("suspend", "suspended"), ("resume", "active")] {
        for prefix in ["/v1", "/api"] {
            let path = format!("{prefix}/users/{user}/{verb}");
            let request = service.request(Method::POST, &path, service.admin_jwt());
            assert_eq!(service.send(request).await.is(200)["user"]["status"], status);
        }
        let nobody = UserId::generate();
        let path = format!("/v1/users/{nobody}/{verb}");
        service.admin_post(&path, &json!({})).await.problem(404, "user_not_found");
        let path = format!("/v1/users/{user}/{verb}");
        service.admin_post(&path, &json!({"reason": "x"})).await.problem(422, "unknown_field");
    }
    service.reserve(user, "a", 1).await.is(201);
    service
        .get_as(&format!("/v1/users/{}", UserId::generate()), service.admin_jwt())
        .await
        .problem(404, "user_not_found");
    service.finish().await;
}
