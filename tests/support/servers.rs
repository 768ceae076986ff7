//! A Redis of its own and a database of its own for every test.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{path::PathBuf, time::Duration};

use cota::devstack::{PostgresOptions, PostgresServer, RedisOptions, RedisServer};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, migrate::Migrator};
use tokio::sync::OnceCell;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// A folder that goes away with the test, where the servers' users can get to it.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(what: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cota-test-{what}-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A Redis of this test's own.
pub struct TestRedis {
    pub server: RedisServer,
    _folder: Folder,
}

impl std::ops::Deref for TestRedis {
    type Target = RedisServer;

    fn deref(&self) -> &RedisServer {
        &self.server
    }
}

impl std::ops::DerefMut for TestRedis {
    fn deref_mut(&mut self) -> &mut RedisServer {
        &mut self.server
    }
}

pub async fn redis() -> TestRedis {
    let folder = Folder::new("redis");
    let options = RedisOptions {
        dir: folder.0.clone(),
        extra_args: ["--enable-debug-command", "yes"].map(String::from).to_vec(),
        ..RedisOptions::default()
    };
    TestRedis { server: RedisServer::start(options).await.unwrap(), _folder: folder }
}

/// A Postgres for one test alone, for those that stop it.
pub struct TestPostgres {
    pub server: PostgresServer,
    _folder: Folder,
}

pub async fn postgres() -> TestPostgres {
    let folder = Folder::new("postgres");
    std::fs::set_permissions(&folder.0, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let options =
        PostgresOptions { dir: folder.0.join("data"), volatile: true, ..PostgresOptions::default() };
    TestPostgres { server: PostgresServer::start(options).await.unwrap(), _folder: folder }
}

/// The server databases are made on: the one `script/test` has started, or one of this process.
async fn shared_server() -> &'static str {
    static URL: OnceCell<String> = OnceCell::const_new();
    URL.get_or_init(|| async {
        match std::env::var("COTA_TEST_POSTGRES_URL") {
            Ok(url) => url,
            Err(_) => {
                let postgres = postgres().await;
                let url = postgres.server.url("postgres");
                // It lives as long as the process, and ends with it.
                std::mem::forget(postgres);
                url
            }
        }
    })
    .await
}

/// A migrated database of this test's own.
pub struct TestDatabase {
    name: String,
    server: String,
}

impl TestDatabase {
    pub fn url(&self) -> String {
        with_database(&self.server, &self.name)
    }

    pub async fn pool(&self) -> PgPool {
        PgPool::connect(&self.url()).await.unwrap()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // On a thread of its own: the test's runtime may be ending.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let drop = async {
                    let mut connection = PgConnection::connect(&server).await?;
                    let statement = format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)");
                    sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await
                };
                let _ = tokio::time::timeout(Duration::from_secs(10), drop).await;
            });
        });
        let _ = dropped.join();
    }
}

fn with_database(server: &str, name: &str) -> String {
    let (base, _) = server.rsplit_once('/').unwrap();
    format!("{base}/{name}")
}

/// A database copied from a template that is migrated once for each state of `migrations/`.
pub async fn database() -> TestDatabase {
    database_on(shared_server().await).await
}

/// The same on a server of the test's own.
pub async fn database_on(server: &str) -> TestDatabase {
    let sums: Vec<u8> = MIGRATIONS.iter().flat_map(|m| m.checksum.iter().copied()).collect();
    let template =
        format!("cota_template_{}", uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, &sums).simple());
    let name = format!("cota_test_{}", uuid::Uuid::new_v4().simple());
    let mut connection = PgConnection::connect(server).await.unwrap();
    // One at a time: a template that is being copied may not be connected to.
    sqlx::query("SELECT pg_advisory_lock(6502)").execute(&mut connection).await.unwrap();
    let known: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1")
        .bind(&template)
        .fetch_optional(&mut connection)
        .await
        .unwrap();
    if known.is_none() {
        make_template(&mut connection, server, &template).await;
    }
    let statement = format!("CREATE DATABASE \"{name}\" TEMPLATE \"{template}\"");
    sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    TestDatabase { name, server: server.to_owned() }
}

/// Migrated under another name and renamed, so that a test that dies half way leaves no half template.
async fn make_template(connection: &mut PgConnection, server: &str, template: &str) {
    let draft = format!("cota_draft_{}", uuid::Uuid::new_v4().simple());
    let create = format!("CREATE DATABASE \"{draft}\"");
    sqlx::query(AssertSqlSafe(create)).execute(&mut *connection).await.unwrap();
    let mut inside = PgConnection::connect(&with_database(server, &draft)).await.unwrap();
    MIGRATIONS.run(&mut inside).await.unwrap();
    inside.close().await.unwrap();
    let rename = format!("ALTER DATABASE \"{draft}\" RENAME TO \"{template}\"");
    sqlx::query(AssertSqlSafe(rename)).execute(connection).await.unwrap();
}
