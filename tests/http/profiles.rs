//! Changing users without losing another's change: `ETag`, `If-Match`, `If-None-Match`.

use cota::quota::UserId;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    service::{Answer, Service, send},
    world::until,
};

fn path(user: UserId) -> String {
    format!("/v1/users/{user}")
}

async fn read(service: &Service, user: UserId) -> (Value, String) {
    let answer = service.get_as(&path(user), service.admin_jwt()).await;
    let tag = answer.header("etag").unwrap().to_owned();
    (answer.is(200)["user"].take(), tag)
}

async fn patch(service: &Service, user: UserId, tag: Option<&str>, change: &Value) -> Answer {
    let mut request = service.request(Method::PATCH, &path(user), service.admin_jwt()).json(change);
    if let Some(tag) = tag {
        request = request.header("if-match", tag);
    }
    send(request).await
}

/// The version of the row, which the API shows as part of the tag alone.
async fn version(service: &Service, user: UserId) -> i64 {
    let row = sqlx::query_scalar("SELECT version FROM user_accounts WHERE id = $1").bind(user.0);
    row.fetch_one(service.world.database.pool()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_changes_and_everything_else_stays() {
    let service = Service::start().await;
    let user = service.user(100).await;
    let (mut shown, mut tag) = read(&service, user).await;
    assert_eq!(shown["alert_threshold"], 0.8);
    for change in [
        json!({"email": "Ana@Exemplo.com.br"}),
        json!({"external_id": "crm:{42} é", "locale": "pt-BR", "time_zone": "America/Sao_Paulo"}),
        json!({"alert_threshold": 0.95}),
        json!({"alert_threshold": 1}),
        json!({"alert_threshold": 0.0001, "locale": "en"}),
        json!({"external_id": null, "time_zone": null}),
        json!({"locale": null, "email": "ana@exemplo.com.br"}),
        // Nothing new is a change like any other.
        json!({"locale": null}),
    ] {
        let before = version(&service, user).await;
        let answer = patch(&service, user, Some(&tag), &change).await;
        let answered = answer.header("etag").unwrap().to_owned();
        let answer = answer.is(200);
        let (now, next) = read(&service, user).await;
        assert_eq!((&answer, &answered), (&json!({"user": now}), &next), "{change}");
        assert_eq!(version(&service, user).await, before + 1, "{change}");
        assert_ne!(next, tag);
        for (name, value) in now.as_object().unwrap() {
            let expected = change.get(name).unwrap_or(&shown[name]);
            // 1 and 1.0 are one number.
            let same = value == expected || value.as_f64().is_some_and(|n| expected.as_f64() == Some(n));
            assert!(same || name == "updated_at", "{change}: {name} is {value}");
        }
        (shown, tag) = (now, next);
    }
    // Redis hears of each version, and nothing changes there.
    until("Redis has the version", async || service.world.store.unsynced(10).await.unwrap().is_empty()).await;
    assert_eq!(
        service.balance(user).await,
        json!({"total": 100, "used": 0, "reserved": 0, "available": 100})
    );
    service.reserve(user, "a", 100).await.is(201);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_a_rule_changes_nothing() {
    let service = Service::start().await;
    let user = service.user(0).await;
    let other = json!({"email": "taken@b.co", "external_id": "taken"});
    service.admin_post("/v1/users", &other).await.is(201);
    let before = read(&service, user).await;
    for (change, status, code, field) in [
        (json!({}), 422, "missing_field", None),
        (json!([]), 422, "invalid_body", None),
        (json!({"status": "active"}), 422, "unknown_field", Some("status")),
        (json!({"total_tokens": 5}), 422, "unknown_field", Some("total_tokens")),
        (json!({"locale": "en", "version": 1}), 422, "unknown_field", Some("version")),
        (json!({"email": null}), 422, "invalid_body", Some("email")),
        (json!({"email": "nobody"}), 422, "invalid_email", Some("email")),
        (json!({"email": "a@b.co", "external_id": ""}), 422, "invalid_external_id", Some("external_id")),
        (json!({"external_id": "a\u{0}"}), 422, "invalid_external_id", Some("external_id")),
        (json!({"external_id": 7}), 422, "invalid_body", Some("external_id")),
        (json!({"locale": "pt_BR"}), 422, "invalid_locale", Some("locale")),
        (json!({"time_zone": "Mars/Olympus"}), 422, "invalid_time_zone", Some("time_zone")),
        (json!({"alert_threshold": null}), 422, "invalid_body", Some("alert_threshold")),
        (json!({"alert_threshold": "0.8"}), 422, "invalid_body", Some("alert_threshold")),
        (json!({"alert_threshold": 0}), 422, "invalid_alert_threshold", Some("alert_threshold")),
        (json!({"alert_threshold": -0.5}), 422, "invalid_alert_threshold", Some("alert_threshold")),
        (json!({"alert_threshold": 1.01}), 422, "invalid_alert_threshold", Some("alert_threshold")),
        (json!({"alert_threshold": 0.12345}), 422, "invalid_alert_threshold", Some("alert_threshold")),
        (json!({"email": "TAKEN@b.co"}), 409, "email_taken", Some("email")),
        (json!({"locale": "en", "external_id": "taken"}), 409, "external_id_taken", Some("external_id")),
    ] {
        let answer = patch(&service, user, Some(&before.1), &change).await.problem(status, code);
        assert_eq!(answer["field"].as_str(), field, "{change}");
    }
    assert_eq!(read(&service, user).await, before);
    let nobody = patch(&service, UserId::generate(), Some("*"), &json!({"locale": "en"})).await;
    nobody.problem(404, "user_not_found");
    for jwt in [service.gateway_jwt(), &service.user_jwt(user)] {
        let request = service.request(Method::PATCH, &path(user), jwt).header("if-match", "*");
        send(request.json(&json!({"locale": "en"}))).await.problem(403, "forbidden");
    }
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_made_to_what_its_caller_has_read_or_not_at_all() {
    let service = Service::start().await;
    let user = service.user(0).await;
    let change = json!({"locale": "en"});
    let (_, old) = read(&service, user).await;
    let missing = patch(&service, user, None, &change).await.problem(428, "precondition_required");
    assert_eq!(missing["field"], "If-Match");
    // What is wrong in itself is told before what is wrong at this moment.
    patch(&service, user, None, &json!({"locale": 7})).await.problem(422, "invalid_body");
    patch(&service, user, Some("7"), &change).await.problem(422, "invalid_entity_tag");
    patch(&service, user, Some(&old), &change).await.is(200);
    let before = read(&service, user).await;
    let weak = format!("W/{}", before.1);
    for tag in [&*old, &weak, "\"\"", "\"x\"", &format!("{old}, {weak}")] {
        let stale = patch(&service, user, Some(tag), &json!({"locale": "pt-BR"})).await;
        assert_eq!(stale.problem(412, "precondition_failed")["field"], "If-Match", "{tag}");
    }
    assert_eq!(read(&service, user).await, before);
    patch(&service, user, Some(&format!("{old}, {}", before.1)), &json!({"locale": "pt-BR"})).await.is(200);
    patch(&service, user, Some("*"), &json!({"locale": "es"})).await.is(200);
    // Every change by an operator counts: one who read before it has to look again.
    for verb in ["suspend", "resume"] {
        let (_, tag) = read(&service, user).await;
        let request = service.request(Method::POST, &format!("{}/{verb}", path(user)), service.admin_jwt());
        let changed = send(request).await;
        let (_, now) = read(&service, user).await;
        assert_eq!(changed.header("etag"), Some(&*now), "{verb}");
        patch(&service, user, Some(&tag), &change).await.problem(412, "precondition_failed");
    }
    let (_, tag) = read(&service, user).await;
    service.credit(user, 5, "k").await.is(201);
    patch(&service, user, Some(&tag), &change).await.problem(412, "precondition_failed");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_changes_to_one_version_exactly_one_is_made() {
    let service = Service::start().await;
    let user = service.user(0).await;
    for round in 0..10 {
        let (_, tag) = read(&service, user).await;
        let before = version(&service, user).await;
        let changes: Vec<Value> = (0..8).map(|n| json!({"external_id": format!("{round}-{n}")})).collect();
        let answers = join_all(changes.iter().map(|change| patch(&service, user, Some(&tag), change))).await;
        let made: Vec<usize> = (0..8).filter(|n| answers[*n].status == 200).collect();
        assert_eq!(made.len(), 1, "{answers:?}");
        assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 412)), "{answers:?}");
        assert_eq!(read(&service, user).await.0["external_id"], changes[made[0]]["external_id"]);
        assert_eq!(version(&service, user).await, before + 1);
    }
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_is_spared_while_nothing_it_would_show_has_changed() {
    let service = Service::start().await;
    let user = service.user(100).await;
    let (_, tag) = read(&service, user).await;
    let again = |tag: String| {
        let jwt = service.user_jwt(user);
        send(service.request(Method::GET, &path(user), &jwt).header("if-none-match", tag))
    };
    for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".into()] {
        let answer = again(known).await;
        assert_eq!((answer.status, &*answer.text, answer.header("etag")), (304, "", Some(&*tag)));
    }
    again("\"x\"".into()).await.is(200);
    service.post(&format!("{}/debits", path(user)), &json!({"id": "d", "tokens": 7})).await.is(201);
    service.world.check().await;
    // Usage is shown, so it is read again; it is no change that a change of the address could undo.
    assert_eq!(again(tag.clone()).await.is(200)["user"]["used_tokens"], 7);
    patch(&service, user, Some(&tag), &json!({"locale": "en"})).await.is(200);
    again(tag).await.is(200);
    service.finish().await;
}
