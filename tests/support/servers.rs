//! Real servers for a test: a Redis of its own, and a database of its own in a Postgres that tests share.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    fs,
    ops::Deref,
    path::{Path, PathBuf},
    time::Duration,
};

use cota::{
    config::{KeyConfig, KeysConfig, PostgresConfig, Secret},
    crypto::Keyring,
    devstack::{PostgresOptions, PostgresServer, RedisOptions, RedisServer},
    store::Store,
};
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection, PgPool, postgres::PgPoolOptions};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// Set by `script/test`: the URL of a Postgres that all test processes share.
const POSTGRES_VARIABLE: &str = "COTA_TEST_POSTGRES_URL";

/// A folder that goes when the test does. Unlike the usual private ones it lets the `postgres` user pass.
pub struct TempFolder(PathBuf);

impl TempFolder {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("cota-test-{}", Uuid::new_v4().simple()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Deref for TempFolder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A Redis of the test's own. Dropped before its folder, as the order of the fields says.
pub struct TestRedis {
    server: RedisServer,
    _folder: TempFolder,
}

impl Deref for TestRedis {
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

/// Starts a Redis for one test, with DEBUG allowed.
pub async fn redis() -> TestRedis {
    redis_with(&[]).await
}

/// Starts a Redis for one test with more arguments, each word by itself.
pub async fn redis_with(extra_args: &[&str]) -> TestRedis {
    let folder = TempFolder::new();
    let mut options = RedisOptions::new(&*folder).arg("--enable-debug-command", "yes");
    options.extra_args.extend(extra_args.iter().map(|arg| (*arg).to_owned()));
    TestRedis { server: RedisServer::start(options).await.unwrap(), _folder: folder }
}

/// A Postgres of the test's own, for tests that stop or kill it.
pub struct TestPostgres {
    server: PostgresServer,
    _folder: TempFolder,
}

impl Deref for TestPostgres {
    type Target = PostgresServer;

    fn deref(&self) -> &PostgresServer {
        &self.server
    }
}

impl std::ops::DerefMut for TestPostgres {
    fn deref_mut(&mut self) -> &mut PostgresServer {
        &mut self.server
    }
}

impl TestPostgres {
    /// A migrated database in this server.
    pub async fn database(&self) -> TestDatabase {
        TestDatabase::create(&self.url("postgres")).await
    }
}

/// Starts a Postgres for one test, which takes about a second: prefer [`database`]. Its writes are safe in a crash
/// of Postgres, not in one of the machine.
pub async fn postgres() -> TestPostgres {
    let folder = TempFolder::new();
    let mut options = PostgresOptions::new(&*folder);
    options.fast = true;
    options.max_connections = 200;
    TestPostgres { server: PostgresServer::start(options).await.unwrap(), _folder: folder }
}

/// An empty, migrated database of the test's own in the shared Postgres; dropped with the value.
pub async fn database() -> TestDatabase {
    TestDatabase::create(&shared_postgres().await).await
}

/// As [`database`], with nothing in it: for a restore.
pub async fn empty_database() -> TestDatabase {
    TestDatabase::make(&shared_postgres().await, "template0").await
}

/// The Postgres that `script/test` started, else one for this process: on a thread that lives as long as the process
/// does, since the kernel stops a server when the thread that started it ends. Its folder is found and removed by the
/// next to start.
async fn shared_postgres() -> String {
    static OWN: OnceCell<String> = OnceCell::const_new();
    if let Ok(url) = std::env::var(POSTGRES_VARIABLE) {
        return url;
    }
    let start = || async {
        let (started, url) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let root = std::env::temp_dir().join("cota-test-postgres");
                remove_abandoned(&root);
                let mut options = PostgresOptions::new(root.join(std::process::id().to_string()));
                options.fast = true;
                options.max_connections = 400;
                let server = PostgresServer::start(options).await.unwrap();
                started.send(server.url("postgres")).unwrap();
                std::future::pending::<()>().await
            });
        });
        url.await.unwrap()
    };
    OWN.get_or_init(start).await.clone()
}

/// Removes the folders of processes that are no more.
fn remove_abandoned(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if !Path::new("/proc").join(entry.file_name()).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Keys of all tests: a store opens what another one sealed.
pub fn keys() -> KeysConfig {
    let key = |letter: &str| Secret::new(letter.repeat(43) + "=");
    let ring = vec![KeyConfig { id: "test".into(), key: Some(key("A")), key_file: None }];
    KeysConfig { active: "test".into(), index_key: key("E"), ring }
}

/// The keys as the environment of `cota` takes them.
pub fn keys_environment(keys: &KeysConfig) -> [(&'static str, String); 3] {
    let table = |entry: &KeyConfig| {
        format!("{{id=\"{}\",key=\"{}\"}}", entry.id, entry.key.as_ref().unwrap().expose())
    };
    let ring: Vec<String> = keys.ring.iter().map(table).collect();
    [
        ("COTA_KEYS__ACTIVE", keys.active.clone()),
        ("COTA_KEYS__INDEX_KEY", keys.index_key.expose().to_owned()),
        ("COTA_KEYS__RING", format!("[{}]", ring.join(","))),
    ]
}

pub fn keyring() -> Keyring {
    Keyring::of(&keys()).unwrap()
}

/// A database of one test.
pub struct TestDatabase {
    name: String,
    server_url: String,
    url: String,
    pool: PgPool,
}

impl TestDatabase {
    async fn create(server_url: &str) -> Self {
        let template = template(server_url).await;
        Self::make(server_url, &template).await
    }

    async fn make(server_url: &str, template: &str) -> Self {
        let name = format!("cota_test_{}", Uuid::new_v4().simple());
        let mut connection = PgConnection::connect(server_url).await.unwrap();
        execute(&mut connection, &format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        connection.close().await.unwrap();
        let url = with_database(server_url, &name);
        let pool = PgPoolOptions::new().max_connections(4).connect_lazy(&url).unwrap();
        Self { name, server_url: server_url.to_owned(), url, pool }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// For looking behind the service's back.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// How the service is to reach it: a small pool, so that many tests fit into one server.
    pub fn config(&self) -> PostgresConfig {
        PostgresConfig {
            url: Secret::new(&self.url),
            max_connections: 8,
            acquire_timeout_ms: 5_000,
            ..PostgresConfig::default()
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let url = self.server_url.clone();
        // The test's own runtime may be blocked by this very drop. The server goes soon anyway, hence no errors.
        let _ = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let work = async {
                    let mut connection = PgConnection::connect(&url).await?;
                    sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await
                };
                let _ = tokio::time::timeout(Duration::from_secs(5), work).await;
            });
            Ok::<_, std::io::Error>(())
        })
        .join();
    }
}

/// The name of a migrated database to copy, made by the first who needs it. The name tells the migrations, so a server
/// that outlives a change of them does no harm.
async fn template(server_url: &str) -> String {
    // Any number that nobody else locks by.
    const LOCK: i64 = 0x636f_7461;
    let mut digest = Sha256::new();
    for migration in sqlx::migrate!().iter() {
        digest.update(&migration.checksum);
    }
    let hash: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let name = format!("cota_template_{hash}");
    let mut connection = PgConnection::connect(server_url).await.unwrap();
    sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK).execute(&mut connection).await.unwrap();
    let found: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1")
        .bind(&name)
        .fetch_optional(&mut connection)
        .await
        .unwrap();
    if found.is_none() {
        // Renamed when whole: one that was cut short has no chance to be copied.
        let draft = format!("{name}_draft");
        execute(&mut connection, &format!("DROP DATABASE IF EXISTS {draft} WITH (FORCE)")).await;
        execute(&mut connection, &format!("CREATE DATABASE {draft}")).await;
        let config = PostgresConfig {
            url: Secret::new(with_database(server_url, &draft)),
            ..PostgresConfig::default()
        };
        let store = Store::lazy(&config, &keyring()).unwrap();
        store.migrate().await.unwrap();
        store.close().await;
        execute(&mut connection, &format!("ALTER DATABASE {draft} RENAME TO {name}")).await;
    }
    connection.close().await.unwrap();
    name
}

async fn execute(connection: &mut PgConnection, sql: &str) {
    sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(connection).await.unwrap();
}

/// The same server, another database.
fn with_database(url: &str, name: &str) -> String {
    let (server, rest) = url.rsplit_once('/').unwrap();
    let query = rest.split_once('?').map(|(_, query)| format!("?{query}")).unwrap_or_default();
    format!("{server}/{name}{query}")
}
