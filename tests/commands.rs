//! The program as people start it: `cota dev` through its whole life, `cota migrate`, `cota jwt`.

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use cota::{
    config::{AuthConfig, Config, Secret},
    crypto::Keyring,
    http::jwt::{Role, Verifier},
    store::{Creation, NewUser, Store},
};
use serde_json::Value;
use support::{
    identity::{ED25519_1, P256_1, RSA_1, jwks},
    servers::TempFolder,
};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(120);
const SECRET: &str = "a secret of more than thirty-two bytes";

fn cota() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cota"));
    // Nothing of the developer's own configuration.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("COTA_") {
            command.env_remove(name);
        }
    }
    command
}

fn text(output: &Output) -> String {
    String::from_utf8([&*output.stdout, &*output.stderr].concat()).unwrap()
}

fn wait_for<T>(what: &str, mut get: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = get() {
            return value;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// A `cota dev` that runs.
struct Dev {
    child: Child,
    facts: Value,
}

impl Dev {
    fn start(folder: &Path) -> Self {
        let output = fs::File::create(folder.join("out.txt")).unwrap();
        let mut child = Self::command(folder).stdout(output).spawn().unwrap();
        let facts = wait_for("dev.json", || {
            assert!(child.try_wait().unwrap().is_none(), "cota dev ended");
            serde_json::from_slice(&fs::read(folder.join("data/dev.json")).ok()?).ok()
        });
        Self { child, facts }
    }

    fn command(folder: &Path) -> Command {
        let mut command = cota();
        command.args(["dev", "--http-port", "0", "--metrics-port", "0", "--data"]).arg(folder.join("data"));
        command
    }

    fn fact(&self, name: &str) -> &str {
        self.facts[name].as_str().unwrap()
    }

    /// Sends a signal and waits; says how it ended.
    fn end(mut self, signal: &str) -> bool {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        self.child.wait().unwrap().success()
    }

    /// What the printed lines say when pasted into a shell.
    fn paste_lines(folder: &Path) -> Vec<Value> {
        let lines = wait_for("the printed lines", || {
            let out = fs::read_to_string(folder.join("out.txt")).ok()?;
            let lines: Vec<String> =
                out.lines().filter(|l| l.starts_with("curl ")).map(str::to_owned).collect();
            (lines.len() == 3 && out.contains("Ctrl-C")).then_some(lines)
        });
        let paste = |line: String| Command::new("sh").args(["-c", &line]).output().unwrap().stdout;
        lines.into_iter().map(|line| serde_json::from_slice(&paste(line)).unwrap()).collect()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_free(url: &str) -> bool {
    let host = url.split("://").nth(1).unwrap().rsplit('@').next().unwrap().split('/').next().unwrap();
    std::net::TcpStream::connect(host).is_err()
}

fn used(answer: &Value) -> u64 {
    answer["balance"]["used"].as_u64().unwrap()
}

/// One life after the other, since each takes some seconds: works as printed, refuses a second, stops in order,
/// finds its data, survives its own murder.
#[test]
fn dev_lives_and_its_data_outlives_it() {
    let folder = TempFolder::new();
    let dev = Dev::start(&folder);
    let mode = fs::metadata(folder.join("data/dev.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(dev.facts["pid"], dev.child.id());
    let answers = Dev::paste_lines(&folder);
    assert_eq!(answers[0]["reservation"]["state"], "pending", "{answers:?}");
    assert_eq!(answers[0]["balance"]["total"], 100_000);
    assert_eq!(answers[1]["balance"]["reserved"], 0);
    let spent = used(&answers[1]);
    assert!(spent > 0 && used(&answers[2]) == spent, "{answers:?}");

    let second = Dev::command(&folder).output().unwrap();
    let said = text(&second);
    assert!(!second.status.success() && said.contains("already"), "{said}");
    assert!(said.contains(dev.fact("url")) && said.contains(&dev.child.id().to_string()), "{said}");

    let urls = ["url", "metrics_url", "redis_url", "postgres_url"].map(|name| dev.fact(name).to_owned());
    let user = dev.fact("user_id").to_owned();
    assert!(dev.end("-TERM"));
    assert!(!folder.join("data/dev.json").exists());
    assert!(urls.iter().all(|url| is_free(url)), "{urls:?}");

    let dev = Dev::start(&folder);
    assert_eq!(dev.fact("user_id"), user);
    let answers = Dev::paste_lines(&folder);
    assert_eq!(answers[0]["balance"]["total"], 100_000, "granted once");
    assert_eq!(used(&answers[2]), 2 * spent);
    assert!(!dev.end("-KILL"));
    assert!(folder.join("data/dev.json").exists());

    fs::remove_file(folder.join("data/dev.json")).unwrap();
    let dev = Dev::start(&folder);
    assert_eq!(used(&Dev::paste_lines(&folder)[2]), 3 * spent);
    assert!(dev.end("-INT"));
}

#[test]
fn dev_that_is_stopped_while_it_starts_leaves_nothing_running() {
    let folder = TempFolder::new();
    let mut child = Dev::command(&folder).stdout(Stdio::null()).spawn().unwrap();
    // Redis is there, Postgres is still being made.
    let pid = wait_for("the pid of Redis", || {
        fs::read_to_string(folder.join("data/redis/redis.pid")).ok().filter(|pid| pid.ends_with('\n'))
    });
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    wait_for("the end of Redis", || (!Path::new("/proc").join(pid.trim()).exists()).then_some(()));
    assert!(!folder.join("data/dev.json").exists());
}

#[tokio::test]
async fn migrate_brings_an_empty_database_up_to_date_and_repeats() {
    let database = support::database().await;
    sqlx::query("DROP SCHEMA public CASCADE").execute(database.pool()).await.unwrap();
    sqlx::query("CREATE SCHEMA public").execute(database.pool()).await.unwrap();
    let migrate = || {
        let mut command = cota();
        command
            .arg("migrate")
            .env("COTA_POSTGRES__URL", database.url())
            .envs(support::servers::keys_environment(&support::keys()))
            .env("COTA_AUTH__HS256_SECRET", SECRET);
        command.output().unwrap()
    };
    let first = migrate();
    assert!(first.status.success() && text(&first).contains("Applied"), "{}", text(&first));
    let users: i64 =
        sqlx::query_scalar("SELECT count(*) FROM user_accounts").fetch_one(database.pool()).await.unwrap();
    assert_eq!(users, 0);
    let again = migrate();
    assert!(again.status.success() && text(&again).contains("up to date"), "{}", text(&again));
}

#[test]
fn migrate_without_postgres_says_so_and_fails() {
    let output = cota()
        .arg("migrate")
        .env("COTA_POSTGRES__URL", "postgres://cota:hush@127.0.0.1:1/cota")
        .envs(support::servers::keys_environment(&support::keys()))
        .env("COTA_AUTH__HS256_SECRET", SECRET)
        .output()
        .unwrap();
    let said = text(&output);
    assert!(!output.status.success() && said.contains("Postgres") && !said.contains("hush"), "{said}");
}

#[test]
fn keys_are_made_and_taken_and_without_them_nothing_touches_the_database() {
    let folder = TempFolder::new();
    let file = folder.join("cota.toml");
    let generate = |arguments: &[&str]| {
        let output = cota().args(["keys", "generate"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let run = |command: &str| {
        let mut cota = cota();
        cota.arg(command).arg("--config").arg(&file).env("COTA_AUTH__HS256_SECRET", SECRET);
        cota.env("COTA_POSTGRES__URL", "postgres://cota@127.0.0.1:1/cota").output().unwrap()
    };
    let made = generate(&["--id", "one"]) + &generate(&["--id", "two", "--add"]);
    fs::write(&file, &made).unwrap();
    let shown = run("check-config");
    assert!(shown.status.success() && text(&shown).contains("two"), "{}", text(&shown));
    for line in made.lines().filter(|line| line.contains("key = ")) {
        assert!(!text(&shown).contains(line.split('"').nth(1).unwrap()), "a key is shown");
    }
    fs::write(&file, made.replace("active = \"one\"", "active = \"three\"")).unwrap();
    for command in ["check-config", "migrate", "serve"] {
        let refused = run(command);
        assert!(!refused.status.success() && text(&refused).contains("three"), "{}", text(&refused));
    }
    fs::write(&file, "").unwrap();
    for command in ["migrate", "serve"] {
        let refused = run(command);
        assert!(
            !refused.status.success() && text(&refused).contains("cota keys generate"),
            "{}",
            text(&refused)
        );
    }
}

#[tokio::test]
async fn keys_rotate_moves_what_is_sealed_and_status_says_when_a_key_has_nothing_left() {
    let database = support::database().await;
    let store = Store::connect(&database.config(), &support::keyring()).await.unwrap();
    for n in 0..5 {
        let new = NewUser { email: format!("u{n}@b.co"), ..NewUser::default() };
        assert!(matches!(store.create_user(&new).await.unwrap(), Creation::Created(_)));
    }
    let mut keys = support::keys();
    keys.ring.extend(Keyring::generate("newer").unwrap().ring);
    keys.active = "newer".into();
    let run = |arguments: &[&str]| {
        let mut command = cota();
        command.arg("keys").args(arguments).envs(support::servers::keys_environment(&keys));
        command.env("COTA_POSTGRES__URL", database.url()).env("COTA_AUTH__HS256_SECRET", SECRET);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    assert!(run(&["status"]).contains("user_accounts.email_sealed: 5 by \"test\""));
    let said = run(&["rotate", "--batch", "2", "--pause-ms", "1"]);
    assert!(said.contains("user_accounts.email_sealed: 5 values sealed with the key \"newer\""), "{said}");
    let said = run(&["status"]);
    assert!(said.contains("5 by \"newer\"") && !said.contains("\"test\""), "{said}");
}

#[test]
fn jwt_prints_one_that_the_service_takes() {
    let jwt = |arguments: &[&str]| {
        cota().arg("jwt").args(arguments).env("COTA_AUTH__HS256_SECRET", SECRET).output().unwrap()
    };
    let auth = AuthConfig { hs256_secret: Secret::new(SECRET), ..AuthConfig::default() };
    let output = jwt(&["--role", "gateway", "--sub", "gw-1", "--ttl", "30d"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    let principal = Verifier::new(&auth).verify(printed.trim()).unwrap();
    assert_eq!((principal.role, &*principal.subject), (Role::Gateway, "gw-1"));
    for wrong in [
        &["--role", "user"][..],
        &["--role", "user", "--sub", "someone"],
        &["--role", "root"],
        &["--role", "admin", "--ttl", "32d"],
        &["--role", "admin", "--ttl", "soon"],
    ] {
        let output = jwt(wrong);
        assert!(!output.status.success() && output.stdout.is_empty(), "{wrong:?}");
    }
}

/// A configuration with an identity provider and no secret of its own; its key set is `jwks.json` beside it.
fn provider(folder: &Path, key_set: &str) -> std::path::PathBuf {
    fs::write(folder.join("jwks.json"), key_set).unwrap();
    let file = folder.join("cota.toml");
    let text = format!(
        "[[auth.issuers]]\nissuer = \"https://login.example/\"\naudience = \"cota\"\njwks_file = {:?}\n",
        folder.join("jwks.json")
    );
    fs::write(&file, text).unwrap();
    file
}

#[tokio::test]
async fn jwt_signs_with_a_private_key_as_the_provider_would() {
    let folder = TempFolder::new();
    let config = provider(&folder, &jwks(&[RSA_1, P256_1, ED25519_1]));
    let verifier = Verifier::new(&Config::load(Some(&config)).unwrap().auth);
    let stop = CancellationToken::new();
    let keeping = tokio::spawn(verifier.keep_keys_fresh(stop.clone()));
    let jwt = |arguments: &[&str]| {
        let mut command = cota();
        command.args(["jwt", "--role", "gateway", "--config"]).arg(&config).args(arguments);
        command.output().unwrap()
    };
    for key in [RSA_1, P256_1, ED25519_1] {
        let pem = folder.join(key.kid);
        fs::write(&pem, key.pem).unwrap();
        let pem = pem.to_str().unwrap();
        for arguments in
            [&["--key", pem, "--kid", key.kid][..], &["--key", pem, "--iss", "https://login.example/"]]
        {
            let output = jwt(arguments);
            let printed = String::from_utf8(output.stdout).unwrap();
            let principal = verifier.authenticate(printed.trim(), PATIENCE).await.unwrap();
            assert_eq!((principal.role, &*principal.subject), (Role::Gateway, "gateway"));
        }
    }
    let pem = folder.join(RSA_1.kid);
    let pem = pem.to_str().unwrap();
    let toml = folder.join("cota.toml");
    for (wrong, said) in [
        (&[][..], "hs256_secret"),
        (&["--key", "nowhere.pem"], "nowhere.pem"),
        (&["--key", toml.to_str().unwrap()], "PEM"),
        (&["--key", pem, "--iss", "https://other.example/"], "--iss"),
        (&["--kid", "rsa-1"], "--key"),
    ] {
        let output = jwt(wrong);
        assert!(!output.status.success() && output.stdout.is_empty(), "{wrong:?}");
        assert!(text(&output).contains(said), "{wrong:?}: {}", text(&output));
    }
    stop.cancel();
    keeping.await.unwrap();
}

#[test]
fn check_config_reads_the_key_sets_it_names() {
    let folder = TempFolder::new();
    let check = |key_set: &str| {
        let config = provider(&folder, key_set);
        let output = cota().arg("check-config").arg("--config").arg(config).output().unwrap();
        (output.status.success(), text(&output))
    };
    let (sound, shown) = check(&jwks(&[P256_1]));
    assert!(sound && shown.contains("https://login.example/"), "{shown}");
    for bad in ["{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#] {
        let (sound, said) = check(bad);
        assert!(!sound && said.contains("jwks.json"), "{bad}: {said}");
    }
}
