//! The description of the API against the service that it describes: its examples are sent, and what comes back looks as
//! it says. That all answers of all tests do is seen to by `support/contract.rs`.

use cota::quota::UserId;
use reqwest::{Method, header};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    contract::{examples, relaxed, shape, validator},
    service::{Answer, Service, send},
};

/// What the ids in a path are in this call.
struct Subject {
    user: UserId,
    reservation: &'static str,
    webhook: String,
    delivery: String,
    renewal: Uuid,
}

impl Subject {
    /// A user with tokens, something pending, a credit, an alert of the past, a renewal to be paid, and a webhook with a
    /// delivery; for each example its own.
    async fn of(service: &Service) -> Self {
        let user = service.user(100_000).await;
        let (webhook, delivery) = webhook(service, user).await;
        let subject = Self { user, reservation: "call-6", webhook, delivery, renewal: Uuid::now_v7() };
        service.reserve(subject.user, subject.reservation, 2_000).await.is(201);
        sqlx::query(
            "INSERT INTO user_alerts (id, user_id, level, threshold, used_tokens, total_tokens, resolved_at, resolved_by)
             VALUES (gen_random_uuid(), $1, 'warning', 0.8, 80, 100, now(), 'bonus')",
        )
        .bind(subject.user.0)
        .execute(service.world.database.pool())
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO renewals (id, user_id, mode, state, tokens, used_tokens, total_tokens, month, expires_at)
             VALUES ($1, $2, 'on_payment', 'pending', 20000, 90, 100, '2026-01', now() + interval '1 day')",
        )
        .bind(subject.renewal)
        .bind(subject.user.0)
        .execute(service.world.database.pool())
        .await
        .unwrap();
        subject
    }

    fn path(&self, template: &str) -> String {
        let path = template.replace("{id}", &self.user.to_string()).replace("{rid}", self.reservation);
        let path = path.replace("{renewal}", &self.renewal.to_string());
        let path = path.replace("{month}", &jiff::Timestamp::now().strftime("%Y-%m").to_string());
        path.replace("{wid}", &self.webhook).replace("{did}", &self.delivery)
    }

    /// The operations of a batch name their user; in the example it is somebody else.
    fn body(&self, example: &Value) -> Value {
        let mut body = example.clone();
        for operation in body.get_mut("operations").and_then(Value::as_array_mut).into_iter().flatten() {
            operation["user_id"] = self.user.to_string().into();
        }
        body
    }
}

/// An endpoint that is at no address of the examples, and what is to be sent to it.
async fn webhook(service: &Service, user: UserId) -> (String, String) {
    let new = json!({"url": "https://hooks.example.com/before", "events": ["alert.warning"]});
    let made = service.admin_post(&format!("/v1/users/{user}/webhooks"), &new).await.is(201);
    let id = made["webhook"]["id"].as_str().unwrap().to_owned();
    let delivery: i64 = sqlx::query_scalar(
        "WITH event AS (
             INSERT INTO user_events (user_id, kind, data, fanned_out_at) VALUES ($1, 'alert.warning', '{}', now())
             RETURNING id
         )
         INSERT INTO notifications (event_id, user_id, channel, endpoint_id, next_attempt_at)
         SELECT id, $1, 'webhook', $2, now() + interval '1 day' FROM event RETURNING id",
    )
    .bind(user.0)
    .bind(id.parse::<uuid::Uuid>().unwrap())
    .fetch_one(service.world.database.pool())
    .await
    .unwrap();
    (id, delivery.to_string())
}

/// The operations of a description: method, path, and what is said of them.
fn operations(description: &Value) -> Vec<(Method, String, Value)> {
    let paths = description["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| {
            let operations = item.as_object().unwrap().iter();
            operations.map(|(method, operation)| {
                (method.to_uppercase().parse().unwrap(), path.clone(), operation.clone())
            })
        })
        .collect()
}

async fn call(service: &Service, method: &Method, path: &str, body: Option<&Value>) -> Answer {
    let mut request = service.request(method.clone(), path, service.admin_jwt());
    if (path.ends_with("/credits") || path.ends_with("/adjustments")) && *method == Method::POST {
        request = request.header("idempotency-key", "invoice-1017");
    }
    if [Method::PATCH, Method::PUT].contains(method) {
        request = request.header("if-match", "*");
    }
    service
        .send(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
}

/// Takes out what is described as any object: what is in it differs from row to row.
fn close(shown: &mut Value) {
    if let Some(tables) = shown.get_mut("tables") {
        *tables = Value::Null;
    }
    for row in shown.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
        row["data"] = Value::Null;
    }
}

/// An answer has the shape of the example at its status.
#[track_caller]
fn assert_as_shown(answer: &Answer, shown: &[(u16, Value)], about: &str) {
    if answer.status == 204 {
        return assert_eq!(answer.text, "", "{about}");
    }
    let of_status = shown.iter().find(|(status, _)| *status == answer.status);
    let (_, example) = of_status.unwrap_or_else(|| panic!("{about}: {} {}", answer.status, answer.text));
    let mut body = answer.body.clone();
    // What a batch says of each operation, a single call says in its head.
    for result in body.get_mut("results").and_then(Value::as_array_mut).into_iter().flatten() {
        result.as_object_mut().unwrap().remove("replayed");
    }
    let mut example = example.clone();
    close(&mut body);
    close(&mut example);
    let mut found = shape(&body);
    let expected = shape(&example);
    // What was sent, and what was charged so far, are there when they are.
    let found_in = found.get_mut("reservation").and_then(Value::as_object_mut);
    if let (Some(found), Some(expected)) = (found_in, expected["reservation"].as_object()) {
        found.retain(|name, _| name != "metadata" || expected.contains_key(name));
        found.insert("charged_tokens".into(), expected["charged_tokens"].clone());
    }
    // A receiver has answered with a status, or not at all.
    for status in ["/delivery/last_status", "/deliveries/0/last_status"] {
        if let (Some(found), Some(expected)) = (found.pointer_mut(status), expected.pointer(status)) {
            found.clone_from(expected);
        }
    }
    assert_eq!(found, relaxed(&expected, &found), "{about}: {}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_taken_and_answered_as_shown() {
    let service = Service::start().await;
    let description = send(service.bare(Method::GET, "/openapi.json")).await.is(200);
    let mut sent = 0;
    for (method, template, operation) in operations(&description) {
        let about = format!("{method} {template}");
        let (requests, answers) = examples(&operation);
        let has_body = operation.get("requestBody").is_some();
        assert_eq!(has_body, !requests.is_empty(), "{about}: a body has examples");
        for request in requests.iter().map(Some).chain((!has_body).then_some(None)) {
            let subject = Subject::of(&service).await;
            let path = subject.path(&template);
            // A stream has no end to be waited for; `tests/http/events.rs` reads some.
            if template == "/openapi.json" || template.ends_with("/events") {
                continue;
            }
            let body = request.map(|example| subject.body(example));
            let first = call(&service, &method, &path, body.as_ref()).await;
            assert!(first.status < 300, "{about}: {request:?} is answered {}", first.text);
            assert_as_shown(&first, &answers, &about);
            // A call with an id may be repeated, and then has the other success that is described.
            if answers.iter().any(|(status, _)| *status == 200) {
                let again = call(&service, &method, &path, body.as_ref()).await;
                assert_eq!(again.status, 200, "{about}: {}", again.text);
                assert_as_shown(&again, &answers, &about);
            }
            sent += 1;
        }
    }
    assert!(sent > 20, "{sent}");
    service.finish().await;
}

/// What readers see as examples has to be what the schemas allow.
#[tokio::test(flavor = "multi_thread")]
async fn every_example_fits_its_schema() {
    let service = Service::start().await;
    let description = send(service.bare(Method::GET, "/openapi.json")).await.is(200);
    let fits = |schema: &Value, example: &Value, about: &str| {
        let faults: Vec<String> =
            validator(&description, schema).iter_errors(example).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{about}: {faults:?}");
    };
    for (method, path, operation) in operations(&description) {
        let about = format!("{method} {path}");
        let (requests, answers) = examples(&operation);
        for request in requests {
            fits(&operation["requestBody"]["content"]["application/json"]["schema"], &request, &about);
        }
        for (status, answer) in answers {
            let response = &operation["responses"][status.to_string()];
            fits(&response["content"]["application/json"]["schema"], &answer, &about);
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            let problem = &response["content"]["application/problem+json"];
            for (code, _) in problem["examples"].as_object().into_iter().flatten() {
                let example = &description["components"]["examples"][code]["value"];
                fits(&problem["schema"], example, &format!("{about} {status} {code}"));
            }
        }
    }
    for (name, schema) in description["components"]["schemas"].as_object().unwrap() {
        for example in schema["examples"].as_array().into_iter().flatten() {
            fits(schema, example, name);
        }
    }
    service.finish().await;
}

/// What the guide shows are the examples of the description, which are sent and compared above.
#[tokio::test(flavor = "multi_thread")]
async fn the_guide_shows_the_same_examples() {
    let service = Service::start().await;
    let description = send(service.bare(Method::GET, "/openapi.json")).await.is(200);
    let mut known = Vec::new();
    for (_, _, operation) in operations(&description) {
        let (requests, answers) = examples(&operation);
        known.extend(requests.into_iter().chain(answers.into_iter().map(|(_, answer)| answer)));
    }
    let blocks = include_str!("../../docs/API.md").split("```json").skip(1);
    let mut shown = 0;
    for block in blocks.map(|rest| rest.split("```").next().unwrap()) {
        let block: Value = serde_json::from_str(block).unwrap_or_else(|error| panic!("{error}: {block}"));
        assert!(known.contains(&block), "no example: {block}");
        shown += 1;
    }
    assert!(shown > 5, "{shown}");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_and_all_it_loads_come_from_here() {
    let service = Service::start().await;
    let page = send(service.bare(Method::GET, "/docs")).await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe") && !policy.contains("http"));
    assert!(!page.text.contains("//") && !page.text.contains("<style") && !page.text.contains("style="));
    let links = page.text.split(['"', ' ']).filter(|word| word.starts_with("docs/"));
    let links: Vec<&str> = links.collect();
    assert_eq!(links.len(), 5, "{links:?}");
    for link in links {
        let asset = service.bare(Method::GET, &format!("/{link}")).send().await.unwrap();
        assert_eq!(asset.status(), 200, "{link}");
        let of_a_kind = asset.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        let expected = match link.rsplit_once('.').unwrap().1 {
            "js" => "text/javascript",
            "css" => "text/css",
            _ => "image/png",
        };
        assert!(of_a_kind.starts_with(expected), "{link}: {of_a_kind}");
        // Read to its end: a connection that is not would hold up the end of the service.
        assert!(!asset.bytes().await.unwrap().is_empty(), "{link}");
    }
    send(service.bare(Method::GET, "/docs/index.html")).await.problem(404, "route_not_found");
    let redirected = send(service.bare(Method::GET, "/docs/")).await;
    assert_eq!((redirected.status, redirected.text), (200, page.text), "the client follows it");
    service.finish().await;
}
