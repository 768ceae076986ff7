//! Both stores over TLS, with an authority of the tests' own.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
};

use cota::{
    config::{PostgresConfig, Secret},
    ledger::Refusal,
    store::Store,
};

use crate::support::{
    TempFolder,
    certificates::Certificates,
    keyring,
    world::{World, until},
};

/// Lets the running Redis listen with TLS on one more port, asking for certificates or not.
async fn listen_with_tls(world: &World, certificates: &Certificates, asks: &str) -> u16 {
    let mut redis = world.redis_connection().await;
    for (name, value) in [
        ("tls-cert-file", certificates.cert.to_str().unwrap()),
        ("tls-key-file", certificates.key.to_str().unwrap()),
        ("tls-ca-cert-file", certificates.ca.to_str().unwrap()),
        ("tls-auth-clients", asks),
    ] {
        let () = redis::cmd("CONFIG").arg("SET").arg(name).arg(value).query_async(&mut redis).await.unwrap();
    }
    // Another may take a port that was free a moment ago.
    loop {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let set = redis::cmd("CONFIG").arg("SET").arg("tls-port").arg(free).query_async(&mut redis).await;
        if let Ok(()) = set {
            return free;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_reached_over_tls_and_only_the_right_one() {
    let folder = TempFolder::new();
    let certificates = Certificates::write(&folder, &["127.0.0.1"]);
    let mut world = World::start(0).await;
    let port = listen_with_tls(&world, &certificates, "yes").await;
    world.config.redis.url = Secret::new(format!("rediss://127.0.0.1:{port}"));
    // A stranger's authority; no certificate to show; both right.
    let aside = TempFolder::new();
    let stranger = Certificates::write(&aside, &["127.0.0.1"]);
    let user = world.user(100).await;
    for (ca, shows, works) in
        [(&stranger.ca, true, false), (&certificates.ca, false, false), (&certificates.ca, true, true)]
    {
        world.config.redis.ca_file = Some(ca.clone());
        world.config.redis.client_cert_file = shows.then(|| certificates.cert.clone());
        world.config.redis.client_key_file = shows.then(|| certificates.key.clone());
        world.add_replica();
        if works {
            break;
        }
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(2);
        assert!(!world.ledger().redis_answers(deadline).await, "connected without what it takes");
        let refused = world.reserve(user, "a", 10).await.unwrap_err();
        assert!(matches!(refused, Refusal::Unavailable { .. }), "{refused:?}");
        world.kill_replica();
    }
    world.all_open().await;
    world.reserve(user, "a", 10).await.unwrap();
    world.settle(user, "a", 7).await.unwrap();
    world.check().await;
}

/// Gives a file to whoever runs Postgres, which refuses a key that others can read.
fn give(file: &Path, pid: u32) {
    let owner = fs::metadata(format!("/proc/{pid}")).unwrap();
    chown(file, Some(owner.uid()), Some(owner.gid())).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_reached_over_tls_and_only_the_right_one() {
    let folder = TempFolder::new();
    let certificates = Certificates::write(&folder, &["127.0.0.1"]);
    let world = World::with_own_postgres(0).await;
    let pid = world.postgres.as_ref().unwrap().lock().await.pid().unwrap();
    give(&certificates.cert, pid);
    give(&certificates.key, pid);
    for (name, value) in [
        ("ssl_cert_file", certificates.cert.to_str().unwrap()),
        ("ssl_key_file", certificates.key.to_str().unwrap()),
        ("ssl", "on"),
    ] {
        let set = format!("ALTER SYSTEM SET {name} = '{value}'");
        sqlx::query(sqlx::AssertSqlSafe(set)).execute(world.database.pool()).await.unwrap();
    }
    world.sql("SELECT pg_reload_conf()").await;
    // The URL would do without encryption; the authority goes first.
    assert!(world.database.url().ends_with("sslmode=disable"));
    let config = |ca: &Path, url: &str| PostgresConfig {
        ca_file: Some(ca.to_owned()),
        url: Secret::new(url),
        ..world.config.postgres.clone()
    };
    let mut store = None;
    until("Postgres speaks TLS", async || {
        store = Store::connect(&config(&certificates.ca, world.database.url()), &keyring()).await.ok();
        store.is_some()
    })
    .await;
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE ssl AND application_name = 'cota'";
    let sessions: i64 = sqlx::query_scalar(encrypted).fetch_one(world.database.pool()).await.unwrap();
    assert_eq!(sessions, 1);
    store.unwrap().partitions().await.unwrap();
    let aside = TempFolder::new();
    let stranger = Certificates::write(&aside, &["127.0.0.1"]);
    let elsewhere = world.database.url().replace("127.0.0.1", "localhost");
    for (ca, url) in [(&stranger.ca, world.database.url()), (&certificates.ca, &*elsewhere)] {
        let error = Store::connect(&config(ca, url), &keyring()).await.unwrap_err().to_string();
        assert!(error.contains("certificate"), "{error}");
    }
    let missing =
        Store::lazy(&config(&folder.join("nowhere.pem"), world.database.url()), &keyring()).unwrap_err();
    assert!(missing.to_string().contains("postgres.ca_file"), "{missing}");
    assert!(!missing.is_retryable(), "a start must not wait for it");
}
