//! The configuration: the example says what is true, and what is wrong is refused by name.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use cota::config::{Config, ConfigError, IssuerConfig, PublicKeyAlgorithm, Role, Secret};
use serde_json::Value;

const EXAMPLE: &str = include_str!("../config.example.toml");

fn example_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config.example.toml")
}

fn keys(config: &Config) -> BTreeSet<String> {
    let Value::Object(sections) = serde_json::to_value(config).unwrap() else { panic!("no sections") };
    sections
        .iter()
        .flat_map(|(section, keys)| {
            keys.as_object().unwrap().keys().map(move |key| format!("{section}.{key}"))
        })
        .collect()
}

/// Keys of the example in their sections, those that are commented out included.
fn example_keys() -> Vec<String> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in EXAMPLE.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.clone_into(&mut section);
        }
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some((key, _)) = line.split_once(" = ")
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        {
            found.push(format!("{section}.{key}"));
        }
    }
    found
}

/// Runs the program with this environment and nothing else of ours.
fn check_config(environment: &[(&str, &str)]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_cota"))
        .arg("check-config")
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

const SECRET: (&str, &str) = ("COTA_AUTH__HS256_SECRET", "hush-hush-hush-hush-hush-hush-hush");

#[test]
fn the_example_holds_the_defaults() {
    let example = Config::read(Some(&example_path())).unwrap();
    assert_eq!(serde_json::to_value(example).unwrap(), serde_json::to_value(Config::default()).unwrap());
}

#[test]
fn the_example_misses_no_key_and_has_none_twice() {
    let found = example_keys();
    let unique: BTreeSet<String> = found.iter().cloned().collect();
    assert_eq!(unique.len(), found.len());
    assert_eq!(unique, keys(&Config::default()));
}

#[test]
fn every_key_of_the_example_is_explained() {
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    for pair in lines.windows(2) {
        let is_key = pair[1].contains(" = ") && !pair[1].starts_with('#');
        let explained = pair[0].starts_with("# ") || pair[1].starts_with("url = ");
        assert!(!is_key || explained, "{}", pair[1]);
    }
}

#[test]
fn the_example_lacks_the_secret_alone() {
    let mut example = Config::read(Some(&example_path())).unwrap();
    assert!(matches!(example.check(), Err(ConfigError::Invalid(rule)) if rule.contains("auth.hs256_secret")));
    example.auth.hs256_secret = Secret::new("x".repeat(32));
    example.check().unwrap();
}

#[test]
fn what_is_out_of_range_is_refused_by_name() {
    type Break = fn(&mut Config);
    let broken: [(&str, Break); 16] = [
        ("auth.hs256_secret", |c| c.auth.hs256_secret = Secret::new("x".repeat(31))),
        ("auth.hs256_secret", |c| c.auth.hs256_secret = Secret::default()),
        ("auth.issuer", |c| c.auth.issuer.clear()),
        ("auth.audience", |c| c.auth.audience.clear()),
        ("auth.leeway_seconds", |c| c.auth.leeway_seconds = 61),
        ("ledger.partitions", |c| c.ledger.partitions = 0),
        ("ledger.partitions", |c| c.ledger.partitions = 1025),
        ("ledger.max_batch", |c| c.ledger.max_batch = 65),
        ("ledger.lanes", |c| c.ledger.lanes = 0),
        ("ledger.outbox_soft_limit", |c| c.ledger.outbox_soft_limit = c.ledger.outbox_hard_limit),
        ("ledger.witness_capacity", |c| c.ledger.witness_capacity = 199_999),
        ("flusher.batch_rows", |c| c.flusher.batch_rows = 0),
        ("postgres.max_connections", |c| c.postgres.max_connections = 3),
        ("tracing.endpoint", |c| c.tracing.endpoint = Some("http://me:hush@otel.example".into())),
        ("tracing.sampling_ratio", |c| c.tracing.sampling_ratio = 1.5),
        ("tracing.timeout_ms", |c| c.tracing.timeout_ms = 99),
    ];
    for (key, change) in broken {
        let mut config = Config::default();
        config.auth.hs256_secret = Secret::new("x".repeat(32));
        change(&mut config);
        let error = config.check().unwrap_err().to_string();
        assert!(error.starts_with(key), "{key}: {error}");
    }
}

fn issuer(change: impl FnOnce(&mut IssuerConfig)) -> Config {
    let mut issuer = IssuerConfig {
        issuer: "https://login.example/".into(),
        audience: "cota".into(),
        jwks_file: Some("jwks.json".into()),
        jwks_url: None,
        algorithms: vec![PublicKeyAlgorithm::ES256],
        roles: vec![Role::User],
    };
    change(&mut issuer);
    let mut config = Config::default();
    config.auth.issuers = vec![issuer];
    config
}

#[test]
fn an_issuer_stands_in_for_the_secret_and_is_whole() {
    issuer(|_| {}).check().unwrap();
    type Break = fn(&mut IssuerConfig);
    let broken: [(&str, Break); 6] = [
        ("issuer", |i| i.issuer.clear()),
        ("audience", |i| i.audience.clear()),
        ("jwks_file", |i| i.jwks_file = None),
        ("jwks_file", |i| i.jwks_url = "https://login.example/jwks".to_owned().try_into().ok()),
        ("algorithms", |i| i.algorithms.clear()),
        ("roles", |i| i.roles.clear()),
    ];
    for (key, change) in broken {
        let error = issuer(change).check().unwrap_err().to_string();
        assert!(error.starts_with("auth.issuers") && error.contains(key), "{key}: {error}");
    }
    let mut twice = issuer(|_| {});
    twice.auth.issuers.push(twice.auth.issuers[0].clone());
    assert!(twice.check().is_err());
    // The secret's own name is taken only where there is a secret.
    let mut own_name = issuer(|i| i.issuer = "cota".into());
    own_name.check().unwrap();
    own_name.auth.hs256_secret = Secret::new("x".repeat(32));
    assert!(own_name.check().unwrap_err().to_string().contains("\"cota\""));
}

#[test]
fn issuers_come_from_the_file_or_the_environment() {
    let one =
        r#"[{issuer="https://login.example/", audience="cota", jwks_url="https://login.example/jwks"}]"#;
    let (sound, text) = check_config(&[("COTA_AUTH__ISSUERS", one)]);
    assert!(sound && text.contains("\"jwks_url\": \"https://login.example/jwks\""), "{text}");
    assert!(text.contains("RS256") && text.contains("gateway"), "{text}");
    for (from, to) in [
        ("https://login.example/jwks", "http://login.example/jwks"),
        ("https://login.example/jwks", "https://me:hush@login.example/jwks"),
        ("audience=", "audiense="),
        (", audience", ", roles=[\"root\"], audience"),
        (", audience", ", algorithms=[\"HS256\"], audience"),
        (", audience", ", algorithms=[\"none\"], audience"),
    ] {
        let (sound, text) = check_config(&[("COTA_AUTH__ISSUERS", &one.replace(from, to))]);
        assert!(!sound && text.contains("configuration") && !text.contains("hush"), "{to}: {text}");
    }
}

#[test]
fn unknown_keys_are_refused_by_name() {
    let folder = std::env::temp_dir().join(format!("cota-config-{}", uuid::Uuid::new_v4().simple()));
    fs::create_dir(&folder).unwrap();
    let file = folder.join("cota.toml");
    for text in ["[http]\nlissten = \"127.0.0.1:1\"\n", "[htttp]\n", "[ledger]\npartitions = -1\n"] {
        fs::write(&file, text).unwrap();
        let error = Config::read(Some(&file)).unwrap_err().to_string();
        assert!(["lissten", "htttp", "partitions"].iter().any(|key| error.contains(key)), "{error}");
    }
    fs::remove_dir_all(&folder).unwrap();
    let missing = Config::read(Some(&file)).unwrap_err();
    assert!(matches!(missing, ConfigError::Missing(_)), "{missing}");
}

#[test]
fn the_environment_goes_first_and_its_typing_errors_are_refused() {
    let example = example_path();
    let file = ("COTA_CONFIG", example.to_str().unwrap());
    let (sound, text) = check_config(&[SECRET, file, ("COTA_LEDGER__PARTITIONS", "64")]);
    assert!(sound && text.contains("\"partitions\": 64"), "{text}");
    let (sound, text) = check_config(&[SECRET, ("COTA_TRACING__ENDPOINT", "http://otel.example:4318")]);
    assert!(sound && text.contains("\"endpoint\": \"http://otel.example:4318\""), "{text}");
    // The test suite's own variables are none of the program's business.
    assert!(check_config(&[SECRET, ("COTA_TEST_POSTGRES_URL", "postgres://elsewhere")]).0);
    for typing_error in ["COTA_LEDGER_PARTITIONS", "COTA_LEDGER__PARTITION", "COTA_LEGDER__PARTITIONS"] {
        let (sound, text) = check_config(&[SECRET, (typing_error, "64")]);
        assert!(!sound && text.contains("configuration"), "{typing_error}: {text}");
    }
}

#[test]
fn nothing_secret_is_shown() {
    let (sound, text) = check_config(&[
        SECRET,
        ("COTA_REDIS__URL", "redis://me:hush@redis.example:6380"),
        ("COTA_POSTGRES__URL", "postgres://cota:hush@db.example/cota"),
    ]);
    assert!(sound && text.contains("db.example/cota") && !text.contains("hush"), "{text}");
    let debug = format!("{:?}", Secret::new("hush"));
    assert!(!debug.contains("hush"));
}
