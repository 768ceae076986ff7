//! Every route, called by everybody: one table says what each of them is told.

use std::collections::BTreeSet;

use cota::quota::UserId;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::service::Service;

/// What the user itself, another user, an admin, a gateway and nobody are told.
struct Line {
    /// Method and path as the description has it; the reservation is always the pending `a`.
    route: &'static str,
    own: u16,
    other: u16,
    admin: u16,
    gateway: u16,
    nobody: u16,
    body: Value,
}

/// Method and path, then the answers to the user itself, another user, an admin, a gateway, and nobody.
fn line(route: &'static str, [own, other, admin, gateway, nobody]: [u16; 5], body: Value) -> Line {
    Line { route, own, other, admin, gateway, nobody, body }
}

fn table() -> Vec<Line> {
    let none = Value::Null;
    vec![
        // Gateways work for all users.
        line("post /v1/users/{id}/reservations", [403, 403, 201, 201, 401], json!({"id": "b", "tokens": 1})),
        line("get /v1/users/{id}/reservations", [200, 403, 200, 200, 401], none.clone()),
        line("get /v1/users/{id}/reservations/{rid}", [200, 403, 200, 200, 401], none.clone()),
        line(
            "post /v1/users/{id}/reservations/{rid}/settle",
            [403, 403, 200, 200, 401],
            json!({"tokens": 1}),
        ),
        line("post /v1/users/{id}/reservations/{rid}/release", [403, 403, 200, 200, 401], json!({})),
        line(
            "post /v1/users/{id}/reservations/{rid}/extend",
            [403, 403, 200, 200, 401],
            json!({"tokens": 60}),
        ),
        line("post /v1/users/{id}/debits", [403, 403, 201, 201, 401], json!({"id": "c", "tokens": 1})),
        line(
            "post /v1/batch",
            [403, 403, 200, 200, 401],
            json!({"operations": [{"op": "debit", "user_id": "$user", "id": "d", "tokens": 1}]}),
        ),
        line("get /v1/users/{id}/tokens", [200, 403, 200, 200, 401], none.clone()),
        // Users read what is theirs.
        line("get /v1/users/{id}", [200, 403, 200, 403, 401], none.clone()),
        line("get /v1/users/{id}/credits", [200, 403, 200, 403, 401], none.clone()),
        line("get /v1/users/{id}/health", [200, 403, 200, 403, 401], none.clone()),
        line("get /v1/users/{id}/audit", [200, 403, 200, 403, 401], none.clone()),
        line("get /v1/users/{id}/metrics", [200, 403, 200, 403, 401], none.clone()),
        line("get /v1/users/{id}/history", [200, 403, 200, 403, 401], none.clone()),
        line("get /v1/users/{id}/anomalies", [200, 403, 200, 403, 401], none.clone()),
        line("get /v1/users/{id}/reports", [200, 403, 200, 403, 401], none.clone()),
        line("get /v1/users/{id}/reports/{month}", [200, 403, 200, 403, 401], none.clone()),
        // Users decide what they are told, and how.
        line("get /v1/users/{id}/notification-settings", [200, 403, 200, 403, 401], none.clone()),
        line("get /v1/users/{id}/events", [200, 403, 200, 403, 401], none.clone()),
        line("post /v1/users/{id}/events/ticket", [201, 403, 201, 403, 401], none.clone()),
        line("get /v1/users/{id}/webhooks", [200, 403, 200, 403, 401], none.clone()),
        line(
            "put /v1/users/{id}/notification-settings",
            [200, 403, 200, 403, 401],
            json!({"email_enabled": true, "email_events": null, "webhooks_enabled": true}),
        ),
        line(
            "post /v1/users/{id}/webhooks",
            [201, 403, 201, 403, 401],
            json!({"url": "https://hooks.example.com/cota"}),
        ),
        line("get /v1/users/{id}/webhooks/{wid}", [404, 403, 404, 403, 401], none.clone()),
        line("patch /v1/users/{id}/webhooks/{wid}", [404, 403, 404, 403, 401], json!({"enabled": false})),
        line("post /v1/users/{id}/webhooks/{wid}/rotate-secret", [404, 403, 404, 403, 401], json!({})),
        line("delete /v1/users/{id}/webhooks/{wid}", [404, 403, 404, 403, 401], none.clone()),
        line("get /v1/users/{id}/webhooks/{wid}/deliveries", [404, 403, 404, 403, 401], none.clone()),
        line(
            "post /v1/users/{id}/webhooks/{wid}/deliveries/{did}/resend",
            [404, 403, 404, 403, 401],
            none.clone(),
        ),
        line("get /v1/users/{id}/alert-config", [200, 403, 200, 403, 401], none.clone()),
        line(
            "put /v1/users/{id}/alert-config",
            [200, 403, 200, 403, 401],
            json!({"warning": 0.5, "critical": 0.9}),
        ),
        line("get /v1/users/{id}/alerts", [200, 403, 200, 403, 401], none.clone()),
        line("get /v1/users/{id}/auto-renewal", [200, 403, 200, 403, 401], none.clone()),
        line(
            "put /v1/users/{id}/auto-renewal",
            [403, 403, 200, 403, 401],
            json!({"enabled": true, "threshold": 0.1, "tokens": 20_000, "max_renewals": 3, "mode": "on_payment"}),
        ),
        line("get /v1/users/{id}/renewals", [200, 403, 200, 403, 401], none.clone()),
        line("post /v1/users/{id}/renewals/{renewal}/confirm", [403, 403, 404, 403, 401], json!({})),
        line(
            "post /v1/users/{id}/adjustments",
            [403, 403, 201, 403, 401],
            json!({"direction": "up", "tokens": 1, "reason": "walk"}),
        ),
        // Admins see all users at once.
        line("get /v1/reports/consolidated", [403, 403, 200, 403, 401], none.clone()),
        line("get /v1/summary", [403, 403, 200, 403, 401], none.clone()),
        line("get /v1/anomalies", [403, 403, 200, 403, 401], none.clone()),
        // Admins run the user base.
        line("post /v1/users", [403, 403, 201, 403, 401], json!({"email": "new@b.co"})),
        line("get /v1/users", [403, 403, 200, 403, 401], none.clone()),
        line("patch /v1/users/{id}", [403, 403, 200, 403, 401], json!({"locale": "en"})),
        line("post /v1/users/{id}/suspend", [403, 403, 200, 403, 401], json!({})),
        line("post /v1/users/{id}/resume", [403, 403, 200, 403, 401], json!({})),
        line("post /v1/users/{id}/credits", [403, 403, 201, 403, 401], json!({"tokens": 1})),
        line("delete /v1/users/{id}", [403, 403, 200, 403, 401], json!({})),
        line("get /v1/users/{id}/export", [403, 403, 200, 403, 401], none.clone()),
        line("get /v1/audit/verify", [403, 403, 200, 403, 401], none.clone()),
        // Probes and tools come without a JWT.
        line("get /healthz", [200; 5], none.clone()),
        line("get /readyz", [200; 5], none.clone()),
        line("get /openapi.json", [200; 5], none),
    ]
}

/// The operations of the service's own description, as the table names them.
async fn described(service: &Service) -> BTreeSet<String> {
    let description = service.get("/openapi.json").await.is(200);
    let paths = description["paths"].as_object().unwrap();
    let methods = ["get", "post", "put", "patch", "delete"];
    paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = methods.into_iter().filter(|method| item.get(method).is_some());
            methods.map(move |method| format!("{method} {path}"))
        })
        .collect()
}

/// A user with tokens and the pending reservation `a`.
async fn user(service: &Service) -> UserId {
    let user = service.user(1_000).await;
    service.reserve(user, "a", 50).await.is(201);
    user
}

/// Calls a route below `prefix` about this user, and gives the status alone: an answer that never ends is one, too.
async fn call(service: &Service, prefix: &str, line: &Line, about: UserId, jwt: Option<&str>) -> u16 {
    let (method, path) = line.route.split_once(' ').unwrap();
    let path = path.replace("{id}", &about.to_string()).replace("{rid}", "a").replacen("/v1", prefix, 1);
    // An endpoint that nobody has.
    let path = path.replace("{wid}", &UserId::generate().to_string()).replace("{did}", "1");
    let path = path.replace("{renewal}", &UserId::generate().to_string());
    let path = path.replace("{month}", &jiff::Timestamp::now().strftime("%Y-%m").to_string());
    let method: Method = method.to_uppercase().parse().unwrap();
    let mut request = service.bare(method, &path).header("idempotency-key", "walk").header("if-match", "*");
    if let Some(jwt) = jwt {
        request = request.bearer_auth(jwt);
    }
    if !line.body.is_null() {
        // What names its reservation in the body names it there alone.
        let body = line.body.to_string().replace("$user", &about.to_string());
        request = request.header("content-type", "application/json").body(body);
    }
    if line.body.get("id").is_some() || line.route == "post /v1/batch" {
        let (client, request) = request.build_split();
        let mut request = request.unwrap();
        request.headers_mut().remove("idempotency-key");
        return client.execute(request).await.unwrap().status().as_u16();
    }
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_tells_everybody_what_the_table_says() {
    let service = Service::start().await;
    let table = table();
    let lines: BTreeSet<String> = table.iter().map(|line| line.route.to_owned()).collect();
    assert_eq!(lines, described(&service).await, "a route without a line, or a line without a route");
    assert_eq!(lines.len(), table.len(), "a route has two lines");
    let mut wrong = Vec::new();
    for prefix in ["/v1", "/api"] {
        for line in &table {
            if prefix == "/api" && !line.route.contains("/v1") {
                continue;
            }
            let stranger = service.user_jwt(service.user(0).await);
            for (who, expected) in [
                ("own", line.own),
                ("other", line.other),
                ("admin", line.admin),
                ("gateway", line.gateway),
                ("nobody", line.nobody),
            ] {
                // One of its own for each, so that no call changes what the next one meets.
                let about = user(&service).await;
                let own = service.user_jwt(about);
                let jwt = match who {
                    "own" => Some(&*own),
                    "other" => Some(&*stranger),
                    "admin" => Some(service.admin_jwt()),
                    "gateway" => Some(service.gateway_jwt()),
                    _ => None,
                };
                if line.route == "post /v1/users" && who == "admin" && prefix == "/api" {
                    // The address is taken by then.
                    continue;
                }
                let status = call(&service, prefix, line, about, jwt).await;
                if status != expected {
                    wrong.push(format!("{} {prefix}, {who}: {status} and not {expected}", line.route));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    service.stop().await;
}

/// Kinds and sizes, and the texts that are no times: what of an answer stays the same from one call to the next.
fn shape(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::Number(_) => json!("a number"),
        Value::String(text) if text.parse::<jiff::Timestamp>().is_ok() => json!("a time"),
        other => other.clone(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_reads_is_read_in_its_own_scope() {
    let service = Service::start().await;
    let about = user(&service).await;
    service.settle(about, "a", 20).await.is(200);
    service.reserve(about, "a2", 5).await.is(201);
    service.world.check().await;
    let own = service.user_jwt(about);
    let read = async |line: &Line| {
        let path = line.route.strip_prefix("get ").unwrap();
        let path = path.replace("{id}", &about.to_string()).replace("{rid}", "a2");
        let path = path.replace("{month}", &jiff::Timestamp::now().strftime("%Y-%m").to_string());
        let answer = service.get_as(&path, &own).await;
        (answer.status, shape(&answer.body))
    };
    let reads: Vec<Line> = table()
        .into_iter()
        .filter(|line| line.route.starts_with("get ") && line.own == 200 && line.nobody == 401)
        .filter(|line| !STREAMS.contains(&line.route))
        .collect();
    let mut before = Vec::new();
    for line in &reads {
        before.push(read(line).await);
    }
    // From now on the scope of the service sees no row of any user, but those that are nobody's.
    let pool = service.world.database.pool();
    let tables: Vec<(String, String)> = sqlx::query_as(
        "SELECT tablename::text, CASE WHEN tablename = 'user_accounts' THEN 'id' ELSE 'user_id' END FROM pg_policies",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert!(tables.len() >= 6);
    for (table, column) in tables {
        let own = "nullif(current_setting('cota.user_id', true), '')::uuid";
        let mine = format!("{column} IS NULL OR {column} = {own}");
        let sql = format!("ALTER POLICY cota_own_rows ON {table} USING ({mine})");
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(pool).await.unwrap();
    }
    for (line, before) in reads.iter().zip(before) {
        assert_eq!(read(line).await, before, "{} does not read by Store::run_as", line.route);
    }
    service.stop().await;
}

/// Reads that do not end.
const STREAMS: [&str; 1] = ["get /v1/users/{id}/events"];
