//! A Prometheus of the test's own, with the configuration and the rules of `deploy/prometheus/`, in quicker time.

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use reqwest::Client;
use serde_json::Value;

use super::{is_answer, root};
use crate::support::{TempFolder, world::until};

pub struct Prometheus {
    child: Child,
    url: String,
    client: Client,
    _folder: TempFolder,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Gone already, or about to be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The deployment's configuration, with this service for its replicas and no one to alert. Each change must find what
/// it changes.
fn configuration(metrics: SocketAddr) -> String {
    let deploy = root().join("deploy/prometheus");
    let mut text = fs::read_to_string(deploy.join("prometheus.yml")).unwrap();
    for (from, to) in [
        ("scrape_interval: 15s\n", "scrape_interval: 500ms\n".to_owned()),
        ("scrape_interval: 30s\n", "scrape_interval: 500ms\n".to_owned()),
        ("evaluation_interval: 15s", "evaluation_interval: 1s".to_owned()),
        ("rules/*.yml", deploy.join("rules/*.yml").display().to_string()),
        ("[cota-1:9464, cota-2:9464]", format!("[\"{metrics}\"]")),
        ("[alertmanager:9093]", "[]".to_owned()),
    ] {
        assert!(text.contains(from), "prometheus.yml has no {from}");
        text = text.replace(from, &to);
    }
    text
}

impl Prometheus {
    /// Starts one that scrapes this address.
    pub async fn watching(metrics: SocketAddr) -> Self {
        let folder = TempFolder::new();
        fs::write(folder.join("prometheus.yml"), configuration(metrics)).unwrap();
        let log = folder.join("log");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "prometheus", "--web.listen-address=127.0.0.1:0"])
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .expect("prometheus is missing (Debian: apt-get install prometheus; script/test does)");
        let mut prometheus = Self { child, url: String::new(), client: Client::new(), _folder: folder };
        until("Prometheus listens", async || {
            assert!(prometheus.child.try_wait().unwrap().is_none(), "{}", fs::read_to_string(&log).unwrap());
            let text = fs::read_to_string(&log).unwrap();
            let listens = text.lines().find(|line| line.contains("msg=\"Listening on\""));
            let address = listens.and_then(|line| line.rsplit_once("address="));
            if let Some((_, address)) = address {
                prometheus.url = format!("http://{}", address.trim());
            }
            address.is_some()
        })
        .await;
        prometheus
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, String> {
        let url = reqwest::Url::parse_with_params(&format!("{}{path}", self.url), query);
        let request = self.client.get(url.map_err(|e| e.to_string())?);
        let answer: Value =
            request.send().await.map_err(|e| e.to_string())?.json().await.map_err(|e| e.to_string())?;
        if answer["status"] == "success" { Ok(answer["data"].clone()) } else { Err(answer.to_string()) }
    }

    /// Whether this query has an answer now that is a number.
    ///
    /// # Errors
    /// What Prometheus says of a query that it cannot run.
    pub async fn answer(&self, query: &str) -> Result<bool, String> {
        self.get("/api/v1/query", &[("query", query)]).await.map(|data| is_answer(&data["result"]))
    }

    pub async fn has(&self, query: &str) -> bool {
        self.answer(query).await.unwrap_or(false)
    }

    /// All rules, as the API tells them.
    pub async fn rules(&self) -> Vec<Value> {
        let data = self.get("/api/v1/rules", &[]).await.unwrap();
        let groups = data["groups"].as_array().unwrap();
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }

    /// Names of the alerts that fire.
    pub async fn firing(&self) -> Vec<String> {
        let data = self.get("/api/v1/alerts", &[]).await.unwrap();
        let alerts = data["alerts"].as_array().unwrap().iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect()
    }
}
