//! `deploy/compose.yaml` and what it mounts.

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::{Map, Value};

use crate::{
    files::{copy_of_deploy, document, documents, filled_in, make_secrets, objections, path, read, words},
    support::TempFolder,
};

const COMPOSE: &str = "deploy/compose.yaml";

/// Runs once and ends.
const ONE_SHOT: &str = "migrate";

pub fn services() -> Map<String, Value> {
    document(COMPOSE)["services"].as_object().unwrap().clone()
}

/// Members of a value, as a number of seconds.
fn seconds(value: &Value) -> u64 {
    value.as_str().unwrap().strip_suffix('s').unwrap().parse().unwrap()
}

#[test]
fn compose_takes_it() {
    let schema: Value = serde_json::from_str(&read("tests/data/schemas/compose-spec.json")).unwrap();
    let compose = document(COMPOSE);
    assert_eq!(objections(&schema, &compose), [""; 0]);
    let mut wrong = compose;
    wrong["services"]["nginx"]["helthcheck"] = "none".into();
    assert!(!objections(&schema, &wrong).is_empty(), "the schema finds a slip of the pen");
}

/// Exact versions, nothing that can be reached from outside, a way to see that it runs, and bounds.
#[test]
fn every_service_is_pinned_closed_watched_and_bounded() {
    for (name, service) in services() {
        let image = service["image"].as_str().unwrap();
        let (_, tag) = image.rsplit_once(':').unwrap();
        let pinned = tag.split('.').filter(|part| part.contains(|c: char| c.is_ascii_digit())).count() >= 2;
        assert!(pinned || image == "cota:local", "{name}: {image} is no exact version");
        for port in service["ports"].as_array().into_iter().flatten() {
            let port = port.as_str().unwrap();
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port} is open to others");
        }
        let watched = service["healthcheck"]["test"].is_array() || service["build"].is_object();
        assert!(watched || name == ONE_SHOT, "{name} has no health check");
        assert!(service["deploy"]["resources"]["limits"]["memory"].is_string(), "{name} has no bound");
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"][0], "ALL", "{name}");
        assert_eq!(service["restart"], if name == ONE_SHOT { "no" } else { "unless-stopped" }, "{name}");
        for (needed, _) in service["depends_on"].as_object().into_iter().flatten() {
            assert!(services().contains_key(needed), "{name} needs {needed}");
        }
    }
}

/// No password stands in the file or has a default, and `make-secrets` makes each one that is asked for.
#[test]
fn secrets_come_from_one_place() {
    let folder = TempFolder::new();
    let deploy = copy_of_deploy(&folder);
    let made = make_secrets(&deploy);
    let text = read(COMPOSE);
    let mut asked = BTreeSet::new();
    for part in text.split("${").skip(1) {
        let (inside, _) = part.split_once('}').unwrap();
        let name = inside.split(':').next().unwrap();
        match inside.strip_prefix(name).unwrap() {
            ":?run deploy/make-secrets first" => _ = asked.insert(name.to_owned()),
            default => assert!(name.ends_with("_PORT") && default.starts_with(":-"), "{inside}"),
        }
    }
    assert_eq!(asked, made.keys().cloned().collect::<BTreeSet<_>>());
    assert!(made.values().all(|secret| secret.len() >= 44), "random, and long");
    assert_eq!(made.values().collect::<BTreeSet<_>>().len(), made.len(), "each its own");
    for (name, service) in services() {
        for (key, value) in service["environment"].as_object().into_iter().flatten() {
            let secret = [
                "PASSWORD",
                "SECRET",
                "AUTH",
                "COTA_POSTGRES__URL",
                "COTA_POSTGRES__OWNER_URL",
                "COTA_REDIS__URL",
            ];
            let secret = secret.iter().any(|word| key.contains(word)) && !key.starts_with("POSTGRES_INITDB");
            assert!(!secret || value.as_str().unwrap().contains("${"), "{name}: {key} stands in the file");
        }
    }

    let before = fs::read(deploy.join(".env")).unwrap();
    assert_eq!(make_secrets(&deploy), made);
    assert_eq!(fs::read(deploy.join(".env")).unwrap(), before, "made once");
    use std::os::unix::fs::PermissionsExt;
    let mode = |name: &str| fs::metadata(deploy.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(".env"), mode("secrets")), (0o600, 0o700));
}

#[test]
fn what_is_mounted_is_there() {
    let folder = TempFolder::new();
    let deploy = copy_of_deploy(&folder);
    make_secrets(&deploy);
    let compose = document(COMPOSE);
    let secrets = compose["secrets"].as_object().unwrap();
    for (name, secret) in secrets {
        assert!(deploy.join(secret["file"].as_str().unwrap()).is_file(), "{name}");
    }
    for (name, service) in services() {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let volume = volume.as_str().unwrap();
            let source = volume.split(':').next().unwrap();
            if source.starts_with('.') {
                assert!(path("deploy").join(source).exists(), "{name}: {source} is not there");
                assert!(volume.ends_with(":ro"), "{name}: {source} could be written");
            } else {
                assert!(compose["volumes"].as_object().unwrap().contains_key(source), "{name}: {source}");
            }
        }
        for secret in service["secrets"].as_array().into_iter().flatten() {
            assert!(secrets.contains_key(secret.as_str().unwrap()), "{name}: {secret}");
        }
    }
}

/// The service reads what the file gives it, and its drains fit into the time it gets.
#[test]
fn cota_takes_its_environment() {
    let folder = TempFolder::new();
    let made = make_secrets(&copy_of_deploy(&folder));
    let config = cota::config::Config::default();
    let drains = (config.http.drain_timeout_ms + config.flusher.drain_timeout_ms) / 1000;
    for name in ["cota-1", "cota-2", "migrate"] {
        let service = &services()[name];
        let mut check = Command::new(env!("CARGO_BIN_EXE_cota"));
        check.arg("check-config").env_clear();
        for (key, value) in service["environment"].as_object().unwrap() {
            check.env(key, filled_in(value.as_str().unwrap(), &made));
        }
        let output = check.output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(shown.contains(services()["nginx"]["networks"]["inside"]["ipv4_address"].as_str().unwrap()));
        assert!(seconds(&service["stop_grace_period"]) >= drains + 5, "{name}");
    }
}

/// The value of a directive of nginx.conf, the first there is.
fn directive(name: &str) -> String {
    let text = read("deploy/nginx/nginx.conf");
    let found =
        text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(' ')?.strip_suffix(';'));
    found.unwrap_or_else(|| panic!("nginx.conf lacks {name}")).to_owned()
}

/// nginx waits at least as long as Cota takes, and lets idle connections go before Cota does.
#[test]
fn timeouts_of_nginx_fit_to_those_of_cota() {
    let config = cota::config::HttpConfig::default();
    let ms = |name: &str| directive(name).strip_suffix('s').unwrap().parse::<u64>().unwrap() * 1000;
    assert!(ms("proxy_read_timeout") > config.request_deadline_ms);
    assert_eq!(ms("client_body_timeout"), config.body_timeout_ms);
    assert_eq!(ms("client_header_timeout"), config.header_timeout_ms);
    assert_eq!(ms("keepalive_timeout"), config.idle_timeout_ms, "towards callers");
    let upstream = read("deploy/nginx/nginx.conf");
    let (_, upstream) = upstream.split_once("upstream cota {").unwrap();
    let (upstream, _) = upstream.split_once('}').unwrap();
    let kept =
        upstream.lines().find_map(|line| line.trim().strip_prefix("keepalive_timeout ")?.strip_suffix("s;"));
    assert!(kept.unwrap().parse::<u64>().unwrap() * 1000 < config.idle_timeout_ms, "towards Cota");
    assert_eq!(directive("client_max_body_size"), "1m", "more than the largest batch");
}

/// Prometheus and Alertmanager know each other, the replicas and the mail catcher by the names of the services.
#[test]
fn names_in_configurations_are_services() {
    let services = services();
    let mail = document("deploy/alertmanager/alertmanager.yml");
    let host = mail["global"]["smtp_smarthost"].as_str().unwrap().split(':').next().unwrap().to_owned();
    assert!(services.contains_key(&host), "{host}");
    let host = services["cota-1"]["environment"]["COTA_EMAIL__HOST"].as_str().unwrap();
    assert!(services.contains_key(host), "{host}");
    let prometheus = document("deploy/prometheus/prometheus.yml");
    let alertmanagers = prometheus["alerting"]["alertmanagers"].as_array().unwrap();
    let mut blocks: Vec<&Value> = alertmanagers.iter().collect();
    blocks.extend(prometheus["scrape_configs"].as_array().unwrap());
    for target in blocks.iter().flat_map(|block| words(&block["static_configs"][0]["targets"])) {
        let host = target.split(':').next().unwrap();
        assert!(host == "localhost" || services.contains_key(host), "{target}");
    }
    for path in ["/metrics", "/metrics/users"] {
        let of_path = |job: &&Value| job["metrics_path"].as_str().unwrap_or("/metrics") == path;
        let jobs = prometheus["scrape_configs"].as_array().unwrap().iter().filter(of_path);
        let targets: Vec<String> = jobs.flat_map(|job| words(&job["static_configs"][0]["targets"])).collect();
        assert!(["cota-1:9464", "cota-2:9464"].iter().all(|at| targets.iter().any(|of| of == at)), "{path}");
    }
    for file in [
        "deploy/redis/redis.conf",
        "deploy/redis/sentinel.conf",
        "deploy/redis/haproxy.cfg",
        "deploy/nginx/nginx.conf",
    ] {
        let text = read(file);
        for word in text.split(|c: char| c.is_whitespace() || c == ';') {
            let host =
                word.strip_suffix(":6379").or(word.strip_suffix(":26379")).or(word.strip_suffix(":8080"));
            let known = host.is_none_or(|host| host.is_empty() || services.contains_key(host));
            assert!(known, "{file}: {word}");
        }
    }
    for name in ["redis-a", "redis-b"] {
        let entry = words(&services[name]["entrypoint"]);
        assert!(entry[2..].iter().all(|host| services.contains_key(host)), "{entry:?}");
    }
    assert_eq!(documents(COMPOSE).len(), 1);
}
