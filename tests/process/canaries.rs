//! Secrets that are looked for everywhere they do not belong.

use std::{collections::BTreeMap, fs};

use cota::config::Secret;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use sqlx::Row;

use crate::{
    replica::{Replica, admin_jwt, gateway_jwt},
    support::{TempFolder, TestDatabase, world::World},
};

const SECRET: &str = "canary-secret-of-the-jwts-of-more-than-32-bytes";
const ADDRESS: &str = "Canary.Address@exemplo.com.br";
const OTHER_ADDRESS: &str = "other.canary.address@exemplo.com.br";

/// What must show up nowhere, by name; each in every spelling it could have.
fn canaries(world: &World, jwts: &[&str]) -> BTreeMap<String, String> {
    let mut canaries = BTreeMap::new();
    canaries.insert("the secret of the JWTs".to_owned(), SECRET.to_owned());
    for (name, address) in [("an address", ADDRESS), ("another address", OTHER_ADDRESS)] {
        canaries.insert(name.to_owned(), address.to_lowercase());
        // As a URL has it.
        canaries.insert(format!("{name}, encoded"), address.to_lowercase().replace('@', "%40"));
    }
    for jwt in jwts {
        canaries.insert(format!("a JWT, {:.12}", jwt.rsplit('.').next().unwrap()), (*jwt).to_owned());
    }
    canaries.insert("the index key".into(), world.config.keys.index_key.expose().to_owned());
    for key in &world.config.keys.ring {
        canaries.insert(format!("key {}", key.id), key.key.as_ref().unwrap().expose().to_owned());
    }
    canaries
}

/// Whether the bytes hold it, in any case: JSON and logs may have it in another one.
fn holds(place: &[u8], canary: &str) -> bool {
    let place = place.to_ascii_lowercase();
    let canary = canary.to_ascii_lowercase();
    place.windows(canary.len()).any(|window| window == canary.as_bytes())
}

struct Caller {
    client: Client,
    url: String,
    /// Everything that was answered, heads and bodies, but for what shows an address to those who may see it.
    answers: Vec<u8>,
}

impl Caller {
    async fn call(&mut self, method: Method, path: &str, jwt: &str, body: &str) -> (u16, Value) {
        // One key for each route.
        let name = path.rsplit('/').next().unwrap().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let request = self.client.request(method, format!("{}{path}", self.url)).bearer_auth(jwt);
        let request = request.header("content-type", "application/json").header("idempotency-key", name);
        let answer = request.header("if-match", "*").body(body.to_owned()).send().await.unwrap();
        let status = answer.status().as_u16();
        let head = format!("{:?}", answer.headers());
        let text = answer.text().await.unwrap();
        if status >= 400 {
            self.answers.extend_from_slice(head.as_bytes());
            self.answers.extend_from_slice(text.as_bytes());
        }
        (status, serde_json::from_str(&text).unwrap_or_default())
    }
}

/// Every row of every table, as text; what is sealed once more, since the text of `bytea` is hexadecimal.
async fn rows(database: &TestDatabase) -> Vec<u8> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I', relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    let mut all = Vec::new();
    for table in tables {
        let sql = format!("SELECT t::text AS row FROM {table} t");
        for row in sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(database.pool()).await.unwrap() {
            all.extend_from_slice(row.get::<String, _>("row").as_bytes());
            all.push(b'\n');
        }
    }
    let sealed: Vec<Vec<u8>> = sqlx::query_scalar("SELECT email_sealed FROM user_accounts")
        .fetch_all(database.pool())
        .await
        .unwrap();
    all.extend(sealed.concat());
    all
}

/// Every key of Redis and its value as Redis writes it to disk.
async fn redis(world: &World) -> Vec<u8> {
    let mut connection = world.redis_connection().await;
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    let mut all = Vec::new();
    for key in keys {
        let value: Vec<u8> = redis::cmd("DUMP").arg(&key).query_async(&mut connection).await.unwrap();
        all.extend(key);
        all.extend(value);
    }
    assert!(!all.is_empty());
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_logs_metrics_errors_redis_or_rows() {
    let world = World::with(0, |config| config.auth.hs256_secret = Secret::new(SECRET)).await;
    let folder = TempFolder::new();
    let log = folder.join("log");
    let mut replica = Replica::start_logging(&world.config, &log, "debug").await;
    let (admin, gateway) = (admin_jwt(&world.config), gateway_jwt(&world.config));
    let forged = format!("{}x", &admin[..admin.len() - 2]);
    let mut canaries = canaries(&world, &[&admin, &gateway, &forged]);
    let mut caller = Caller { client: Client::new(), url: replica.url.clone(), answers: Vec::new() };

    let new = json!({"email": ADDRESS}).to_string();
    let (status, created) = caller.call(Method::POST, "/v1/users", &admin, &new).await;
    assert_eq!((status, &created["user"]["email"]), (201, &json!(ADDRESS)));
    let user = format!("/v1/users/{}", created["user"]["id"].as_str().unwrap());
    let webhook = json!({"url": "https://receiver.example/"}).to_string();
    let (status, made) = caller.call(Method::POST, &format!("{user}/webhooks"), &admin, &webhook).await;
    assert_eq!(status, 201, "{made}");
    canaries.insert("the secret of a webhook".into(), made["secret"].as_str().unwrap().to_owned());
    let change = json!({"email": OTHER_ADDRESS}).to_string();
    for (method, path, jwt, body, expected) in [
        (Method::POST, "/v1/users".to_owned(), &admin, new.clone(), 409),
        (Method::POST, "/v1/users".to_owned(), &admin, new.replace('@', "@@"), 422),
        (Method::POST, "/v1/users".to_owned(), &admin, format!("{new}{new}"), 400),
        (Method::POST, "/v1/users".to_owned(), &forged, new.clone(), 401),
        (Method::POST, "/v1/users".to_owned(), &gateway, new.clone(), 403),
        (Method::GET, format!("/v1/users?email={}", ADDRESS.replace('@', "%40")), &admin, String::new(), 200),
        (Method::GET, format!("/v1/users?mail={}", ADDRESS.replace('@', "%40")), &admin, String::new(), 422),
        (Method::GET, format!("/v1/{}", ADDRESS.replace('@', "%40")), &admin, String::new(), 404),
        (Method::PATCH, user.clone(), &admin, change, 200),
        (Method::POST, format!("{user}/credits"), &admin, json!({"tokens": 100}).to_string(), 201),
        (Method::POST, format!("{user}/credits"), &admin, json!({"tokens": 101}).to_string(), 409),
        (Method::POST, format!("{user}/reservations"), &gateway, json!({"tokens": 60}).to_string(), 201),
        (Method::POST, format!("{user}/debits"), &gateway, json!({"tokens": 5}).to_string(), 201),
        (Method::POST, format!("{user}/suspend"), &admin, "{}".to_owned(), 200),
        (Method::POST, format!("{user}/debits"), &forged, json!({"tokens": 5}).to_string(), 401),
        (Method::GET, format!("{user}/audit"), &admin, String::new(), 200),
    ] {
        let (status, answer) = caller.call(method.clone(), &path, jwt, &body).await;
        assert_eq!(status, expected, "{method} {path}: {answer}");
    }
    let metrics = reqwest::get(&replica.metrics_url).await.unwrap().text().await.unwrap();
    let redis = redis(&world).await;
    replica.signal("TERM");
    assert!(replica.ended().await);
    let logged = fs::read(&log).unwrap();
    assert!(holds(&logged, "listening"), "there is a log");
    // That one is not allowed to be there: the search finds what it looks for.
    assert!(holds(&logged, "127.0.0.1"));
    let rows = rows(&world.database).await;
    for (place, bytes) in [
        ("the log", &logged),
        ("an error", &caller.answers),
        ("the metrics", &metrics.into_bytes()),
        ("Redis", &redis),
        ("a row", &rows),
    ] {
        for (name, canary) in &canaries {
            assert!(!holds(bytes, canary), "{name} is in {place}");
        }
    }
}
