//! The stack of `deploy/compose.yaml` without containers: the programs of Debian's packages, with the command lines and the
//! configurations that stand in `deploy/`.
//!
//! A container's name becomes a loopback address of its own (`127.x.y.z`), so that every port stays what it is; a path in a
//! container becomes one in the test's folder. Nothing else is changed.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    compose::services,
    files::{copy_of_deploy, filled_in, make_secrets, words},
    support::{TempFolder, world::until},
};

/// Services that a package offers, or that are ours, and the last number of their address. Longer names first: they are
/// replaced in this order. Grafana and the mail catcher are in no package.
const ADDRESSES: [(&str, u8); 14] = [
    ("alertmanager", 42),
    ("prometheus", 41),
    ("sentinel-1", 21),
    ("sentinel-2", 22),
    ("sentinel-3", 23),
    ("postgres", 51),
    ("redis-a", 11),
    ("redis-b", 12),
    ("mailpit", 43),
    ("cota-1", 31),
    ("cota-2", 32),
    ("redis", 10),
    ("nginx", 2),
    ("nobody", 99),
];

/// A program of the stack; ended by its own id when dropped.
pub struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Running {
    fn spawn(name: &str, mut command: Command, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = fs::File::options().create(true).append(true).open(&log).unwrap();
        // Where Debian puts servers that only root is expected to start.
        command.env("PATH", with_sbin()).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {command:?}: {error}"));
        Self { name: name.to_owned(), child, log }
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Waits for its end.
    pub async fn ended(&mut self) {
        until("it ends", async || self.child.try_wait().unwrap().is_some()).await;
    }

    /// Waits until it is so, while it runs.
    async fn ready(&mut self, mut holds: impl AsyncFnMut() -> bool) {
        until(&format!("{} is ready", self.name), async || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended ({status}): {}", self.name, fs::read_to_string(&self.log).unwrap());
            }
            holds().await
        })
        .await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // nginx and haproxy take their workers along only when they are asked to end.
        if self.child.try_wait().ok().flatten().is_none() {
            self.signal("TERM");
            let patience = std::time::Instant::now() + Duration::from_secs(5);
            while self.child.try_wait().ok().flatten().is_none() && std::time::Instant::now() < patience {
                std::thread::yield_now();
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn with_sbin() -> String {
    format!("{}:/usr/sbin", std::env::var("PATH").unwrap())
}

/// The files of the stack, made ready to start from.
pub struct Stack {
    services: Map<String, Value>,
    pub variables: BTreeMap<String, String>,
    network: String,
    deploy: PathBuf,
    folder: TempFolder,
}

impl Stack {
    pub fn new() -> Self {
        let folder = TempFolder::new();
        let deploy = copy_of_deploy(&folder);
        let variables = make_secrets(&deploy);
        let random = Uuid::new_v4();
        let [a, b, ..] = random.as_bytes();
        let network = format!("127.{}.{}", 64 + a % 64, 1 + b % 254);
        let stack = Self { services: services(), variables, network, deploy, folder };
        stack.address_files();
        stack
    }

    /// A service's address.
    pub fn address(&self, name: &str) -> String {
        let (_, last) = ADDRESSES.iter().find(|(service, _)| *service == name).unwrap();
        format!("{}.{last}", self.network)
    }

    /// A secret of `deploy/.env`.
    pub fn secret(&self, name: &str) -> &str {
        &self.variables[name]
    }

    /// A text with the services' names as addresses, where a host stands, and containers' paths as paths here.
    fn here(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, _) in ADDRESSES {
            let address = self.address(name);
            let places = [(" ", ":"), ("@", ":"), ("//", ":"), ("[", ":"), (" ", " "), (" ", "\n")];
            for (before, after) in places {
                text = text.replace(&format!("{before}{name}{after}"), &format!("{before}{address}{after}"));
            }
        }
        text.replace("/run/secrets", &self.deploy.join("secrets").display().to_string())
    }

    /// Puts addresses into every configuration, and makes each server listen on its own alone.
    fn address_files(&self) {
        let edit = |name: &str, change: &dyn Fn(&str) -> String| {
            let file = self.deploy.join(name);
            let text = fs::read_to_string(&file).unwrap();
            fs::write(&file, change(&text)).unwrap();
        };
        let tmp = self.dir("nginx");
        edit("nginx/nginx.conf", &|text| {
            let text = text.replace("listen 8080;", &format!("listen {}:8080;", self.address("nginx")));
            self.here(&text).replace(" /tmp/", &format!(" {}/", tmp.display()))
        });
        edit("redis/haproxy.cfg", &|text| {
            self.here(&text.replace("bind :6379", &format!("bind {}:6379", self.address("redis"))))
        });
        edit("alertmanager/alertmanager.yml", &|text| self.here(text));
        edit("prometheus/prometheus.yml", &|text| {
            self.here(&text.replace("localhost:9090", &format!("{}:9090", self.address("prometheus"))))
        });
        for name in ["redis-a", "redis-b", "sentinel-1", "sentinel-2", "sentinel-3"] {
            let conf = self.dir(&format!("conf-{name}"));
            for file in ["redis.conf", "sentinel.conf"] {
                let text = fs::read_to_string(self.deploy.join("redis").join(file)).unwrap();
                let text =
                    self.here(&text).replace("dir /data", &format!("dir {}", self.dir(name).display()));
                let text = text.replace("\nport ", &format!("\nbind {}\nport ", self.address(name)));
                fs::write(conf.join(file), text).unwrap();
            }
        }
    }

    /// A folder of this stack.
    fn dir(&self, name: &str) -> PathBuf {
        let dir = self.folder.join(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn environment(&self, name: &str) -> Vec<(String, String)> {
        let all = self.services[name]["environment"].as_object().into_iter().flatten();
        all.map(|(key, value)| (key.clone(), self.here(&filled_in(value.as_str().unwrap(), &self.variables))))
            .collect()
    }

    /// Starts a Redis server or a Sentinel as its container does.
    pub async fn redis(&self, name: &str) -> Running {
        let entry = words(&self.services[name]["entrypoint"]);
        let mut command = Command::new(self.deploy.join("redis/start"));
        command
            .arg(&entry[1])
            .args(entry[2..].iter().map(|host| self.address(host)))
            .env("CONF", self.dir(&format!("conf-{name}")))
            .env("DATA", self.dir(name))
            .env("SECRETS", self.deploy.join("secrets"));
        let mut running = Running::spawn(name, command, &self.folder);
        let port = if entry[1] == "sentinel" { 26379 } else { 6379 };
        running.ready(async || self.redis_says(name, port, &["PING"]).await == "PONG").await;
        running
    }

    /// What a server answers to its probe; empty when it does not.
    pub async fn redis_says(&self, name: &str, port: u16, command: &[&str]) -> String {
        let mut cli = tokio::process::Command::new("redis-cli");
        cli.args(["-h", &self.address(name), "-p", &port.to_string(), "--no-auth-warning"]);
        if port == 6379 {
            cli.args(["--user", "probe"]).env("REDISCLI_AUTH", self.secret("REDIS_PROBE_PASSWORD"));
        }
        let output = cli.args(command).output().await.unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub async fn haproxy(&self) -> Running {
        let words = words(&self.services["redis"]["command"]);
        let mut command = Command::new(&words[0]);
        let config = self.deploy.join("redis/haproxy.cfg").display().to_string();
        command
            .args(words[1..].iter().map(|word| word.replace("/usr/local/etc/haproxy/haproxy.cfg", &config)));
        command.envs(self.environment("redis"));
        let mut running = Running::spawn("redis", command, &self.folder);
        running.ready(async || self.redis_says("redis", 6379, &["ROLE"]).await.starts_with("master")).await;
        running
    }

    pub fn postgres_command(&self) -> Vec<String> {
        words(&self.services["postgres"]["command"])[1..].to_vec()
    }

    /// Brings the schema up to date, as the service `migrate` does. `postgres` is where the server listens.
    pub fn migrate(&self, postgres: &str) {
        let mut command = self.cota("migrate", postgres);
        command.args(words(&self.services["migrate"]["command"]));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn cota(&self, name: &str, postgres: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cota"));
        let there = format!("{}:5432", self.address("postgres"));
        let environment = self.environment(name).into_iter();
        command.env_clear().envs(environment.map(|(key, value)| (key, value.replace(&there, postgres))));
        // As the image sets them.
        let address = self.address(if name == "migrate" { "nobody" } else { name });
        command.env("COTA_HTTP__LISTEN", format!("{address}:8080"));
        command.env("COTA_HTTP__METRICS_LISTEN", format!("{address}:9464"));
        command.env("COTA_HTTP__TRUSTED_PROXIES", format!("[\"{}/32\"]", self.address("nginx")));
        command
    }

    /// Starts a replica and waits until its container would be healthy.
    pub async fn replica(&self, name: &str, postgres: &str) -> Running {
        let mut command = self.cota(name, postgres);
        command.arg("serve");
        let mut running = Running::spawn(name, command, &self.folder);
        let check = crate::image::health_check(&self.address(name));
        running
            .ready(async || {
                let mut command = tokio::process::Command::new(&check[0]);
                command.args(&check[1..]).stderr(Stdio::null()).status().await.unwrap().success()
            })
            .await;
        running
    }

    pub async fn nginx(&self) -> Running {
        let words = words(&self.services["nginx"]["entrypoint"]);
        let nginx = |more: &[&str]| {
            let mut command = Command::new("nginx");
            command.env("PATH", with_sbin());
            command.arg("-c").arg(self.deploy.join("nginx/nginx.conf")).args(more);
            command
        };
        let tested = nginx(&["-t"]).output().unwrap();
        assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
        let options: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        let mut running = Running::spawn("nginx", nginx(&options), &self.folder);
        let address = format!("{}:8080", self.address("nginx"));
        running.ready(async || TcpStream::connect(&address).is_ok()).await;
        running
    }

    /// Prometheus or Alertmanager, with the arguments of its container.
    pub async fn with_web(&self, name: &str, program: &str, port: u16) -> Running {
        let mut command = Command::new(program);
        for word in words(&self.services[name]["command"]) {
            let word = word.replace(&format!("/etc/{name}"), &self.deploy.join(name).display().to_string());
            command.arg(word.replace(&format!("=/{name}"), &format!("={}", self.dir(name).display())));
        }
        command.arg(format!("--web.listen-address={}:{port}", self.address(name)));
        let mut running = Running::spawn(name, command, &self.folder);
        let url = format!("http://{}:{port}/-/ready", self.address(name));
        running
            .ready(async || reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success()))
            .await;
        running
    }

    /// A file below `deploy/`, as this stack has it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.deploy.join(name)
    }
}
