//! What the stack is for: calls through nginx go on when a replica ends and when the Redis master dies, nothing that was acked is
//! lost, and those who watch see it.

use std::{process::Command, time::Duration};

use cota::{
    config::{AuthConfig, Secret},
    devstack::{PostgresOptions, PostgresServer},
    http::jwt::{Role, mint},
};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::{
    stack::Stack,
    support::{TempFolder, world::until},
};

/// A gateway that repeats with the same id until the answer is definite.
struct Gateway {
    client: Client,
    url: String,
    gateway: String,
    admin: String,
}

impl Gateway {
    fn new(stack: &Stack) -> Self {
        let secret = Secret::new(stack.secret("COTA_HS256_SECRET"));
        let auth = AuthConfig { hs256_secret: secret, ..AuthConfig::default() };
        let jwt = |role| mint(&auth, "test", role, 3_600).unwrap();
        Self {
            client: Client::builder().timeout(Duration::from_secs(8)).build().unwrap(),
            url: format!("http://{}:8080", stack.address("nginx")),
            gateway: jwt(Role::Gateway),
            admin: jwt(Role::Admin),
        }
    }

    async fn post(&self, jwt: &str, path: &str, body: &Value) -> Option<(StatusCode, Value)> {
        let call = self.client.post(format!("{}{path}", self.url)).bearer_auth(jwt).json(body);
        let answer = call.header("Idempotency-Key", "key").send().await.ok()?;
        let status = answer.status();
        (status != StatusCode::SERVICE_UNAVAILABLE).then_some((status, answer.json().await.ok()?))
    }

    async fn definite(&self, jwt: &str, path: &str, body: &Value) -> Value {
        let mut found = None;
        until("a definite answer", async || {
            found = self.post(jwt, path, body).await;
            found.is_some()
        })
        .await;
        let (status, body) = found.unwrap();
        assert!(status.is_success(), "{path}: {status} {body}");
        body
    }

    /// A user with a million tokens.
    async fn user(&self) -> String {
        let made = self.definite(&self.admin, "/v1/users", &json!({"email": "ana@example.com"})).await;
        let user = made["user"]["id"].as_str().unwrap().to_owned();
        self.definite(&self.admin, &format!("/v1/users/{user}/credits"), &json!({"tokens": 1_000_000})).await;
        user
    }

    /// Reserves and settles so many times; says what was used in the end.
    async fn calls(&self, user: &str, name: &str, count: u64) -> u64 {
        let mut used = 0;
        for n in 0..count {
            let path = format!("/v1/users/{user}/reservations");
            self.definite_without_key(&path, &json!({"id": format!("{name}-{n}"), "tokens": 100})).await;
            let settled =
                self.definite_without_key(&format!("{path}/{name}-{n}/settle"), &json!({"tokens": 10})).await;
            used = settled["balance"]["used"].as_u64().unwrap();
        }
        used
    }

    async fn definite_without_key(&self, path: &str, body: &Value) -> Value {
        let mut found = Value::Null;
        until("a definite answer", async || {
            let call = self.client.post(format!("{}{path}", self.url)).bearer_auth(&self.gateway).json(body);
            let Ok(answer) = call.send().await else { return false };
            let status = answer.status();
            let Ok(body) = answer.json().await else { return false };
            found = body;
            assert!(status.is_success() || status == StatusCode::SERVICE_UNAVAILABLE, "{status} {found}");
            // What the balance is after a late recovery, the last answer says.
            status.is_success()
        })
        .await;
        found
    }
}

/// Postgres with the settings of its container and the logins that it makes, its schema, and where it listens.
async fn postgres(stack: &Stack) -> (PostgresServer, String, TempFolder) {
    let folder = TempFolder::new();
    let mut options = PostgresOptions::new(folder.join("postgres"));
    options.password = Some(stack.secret("POSTGRES_PASSWORD").to_owned());
    options.extra_args = stack.postgres_command();
    let server = PostgresServer::start(options).await.unwrap();
    server.create_database("cota").await.unwrap();
    let mut script = Command::new("sh");
    script
        .arg("-e")
        .arg(stack.file("postgres/logins.sh"))
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", server.port().to_string())
        .env("PGPASSWORD", stack.secret("POSTGRES_PASSWORD"))
        .env("POSTGRES_USER", "cota")
        .env("POSTGRES_DB", "cota")
        .env("POSTGRES_SERVICE_PASSWORD", stack.secret("POSTGRES_SERVICE_PASSWORD"))
        .env("GRAFANA_POSTGRES_PASSWORD", stack.secret("GRAFANA_POSTGRES_PASSWORD"));
    let output = script.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let address = format!("127.0.0.1:{}", server.port());
    stack.migrate(&address);
    (server, address, folder)
}

/// Replicas log in as one that owns nothing, and Grafana sees the users and changes none.
async fn logins_may_what_they_need(stack: &Stack, postgres: &PostgresServer) {
    let mut owner = PgConnection::connect(&postgres.url("cota")).await.unwrap();
    let sessions = "SELECT DISTINCT usename::text FROM pg_stat_activity WHERE application_name = 'cota'";
    let logins: Vec<String> = sqlx::query_scalar(sessions).fetch_all(&mut owner).await.unwrap();
    assert_eq!(logins, ["cota_service"]);
    let password = stack.secret("GRAFANA_POSTGRES_PASSWORD");
    let url = format!("postgres://grafana:{password}@127.0.0.1:{}/cota?sslmode=disable", postgres.port());
    let mut grafana = PgConnection::connect(&url).await.unwrap();
    let users: i64 =
        sqlx::query_scalar("SELECT count(*) FROM user_accounts").fetch_one(&mut grafana).await.unwrap();
    assert_eq!(users, 1);
    for change in ["SET default_transaction_read_only = off", "DELETE FROM user_accounts"] {
        let changed = sqlx::query(change).execute(&mut grafana).await;
        assert_eq!(changed.is_ok(), change.starts_with("SET"), "it may switch that off, and has no right");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stack_survives_the_end_of_a_replica_and_of_the_redis_master() {
    let stack = Stack::new();
    let (postgres, address, _folder) = postgres(&stack).await;
    let mut master = stack.redis("redis-a").await;
    let _replica = stack.redis("redis-b").await;
    let mut sentinels = Vec::new();
    for name in ["sentinel-1", "sentinel-2", "sentinel-3"] {
        sentinels.push(stack.redis(name).await);
    }
    until("the Sentinels know one another and the replica", async || {
        stack
            .redis_says("sentinel-1", 26379, &["SENTINEL", "CKQUORUM", "cota-master"])
            .await
            .starts_with("OK 3")
            && stack
                .redis_says("sentinel-1", 26379, &["INFO", "sentinel"])
                .await
                .contains("slaves=1,sentinels=3")
    })
    .await;
    until("the replica has everything", async || {
        stack.redis_says("redis-b", 6379, &["INFO", "replication"]).await.contains("master_link_status:up")
    })
    .await;
    let _haproxy = stack.haproxy().await;
    let mut first = stack.replica("cota-1", &address).await;
    let _second = stack.replica("cota-2", &address).await;
    let _nginx = stack.nginx().await;
    let gateway = Gateway::new(&stack);
    let user = gateway.user().await;
    assert_eq!(gateway.calls(&user, "calm", 20).await, 200);
    logins_may_what_they_need(&stack, &postgres).await;

    first.signal("TERM");
    assert_eq!(gateway.calls(&user, "one-replica", 20).await, 400);
    first.ended().await;
    assert_eq!(gateway.calls(&user, "without", 20).await, 600);
    let _first = stack.replica("cota-1", &address).await;

    master.signal("KILL");
    master.ended().await;
    assert_eq!(gateway.calls(&user, "failover", 20).await, 800, "nothing lost, nothing twice");
    let says =
        stack.redis_says("sentinel-2", 26379, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "cota-master"]).await;
    assert!(says.contains(&stack.address("redis-b")), "{says}");

    // The old master comes back, follows, and gets no calls.
    let _back = stack.redis("redis-a").await;
    until("it follows", async || stack.redis_says("redis-a", 6379, &["ROLE"]).await.starts_with("slave"))
        .await;
    assert_eq!(gateway.calls(&user, "after", 20).await, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_says_in_the_shape_of_the_api_that_nobody_answered() {
    let stack = Stack::new();
    let _nginx = stack.nginx().await;
    let answer = reqwest::get(format!("http://{}:8080/v1/users", stack.address("nginx"))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()["retry-after"], "1");
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let problem: Value = answer.json().await.unwrap();
    assert_eq!((&problem["status"], &problem["outcome"]), (&json!(503), &json!("unknown")));
}

#[tokio::test(flavor = "multi_thread")]
async fn alertmanager_takes_its_configuration_and_starts() {
    let stack = Stack::new();
    let mut check = Command::new("amtool");
    check.arg("check-config").arg(stack.file("alertmanager/alertmanager.yml"));
    let output = check.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let _alertmanager = stack.with_web("alertmanager", "prometheus-alertmanager", 9093).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_takes_its_configuration_and_looks_for_both_replicas() {
    let stack = Stack::new();
    let _prometheus = stack.with_web("prometheus", "prometheus", 9090).await;
    let url = format!("http://{}:9090/api/v1/targets", stack.address("prometheus"));
    until("it knows its targets", async || {
        let targets = reqwest::get(&url).await.unwrap().text().await.unwrap();
        ["cota-1", "cota-2"].iter().all(|name| {
            let at = format!("http://{}:9464/metrics", stack.address(name));
            targets.contains(&format!("\"{at}\"")) && targets.contains(&format!("\"{at}/users\""))
        })
    })
    .await;
}
