//! The service as `cota dev` runs it, in a folder of its own, and what is read from it while it runs.

use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::{AnyError, figures::target_folder};

const PATIENCE: Duration = Duration::from_secs(120);

/// What `dev.json` says.
#[derive(Deserialize)]
pub struct Facts {
    pub url: String,
    pub metrics_url: String,
    pub redis_url: String,
    pub postgres_url: String,
    pub gateway_jwt: String,
    pub admin_jwt: String,
}

/// A running service; [`Stack::stop`] ends it, and dropping it kills it.
pub struct Stack {
    pub facts: Facts,
    child: Child,
    folder: PathBuf,
}

impl Stack {
    pub async fn start() -> Result<Self, AnyError> {
        let folder = fs::canonicalize(target_folder())?.join(format!("bench-{}", std::process::id()));
        let dev_json = folder.join("dev.json");
        let mut child = Command::new(env!("CARGO_BIN_EXE_cota"))
            .args(["dev", "--http-port", "0", "--metrics-port", "0", "--data"])
            .arg(&folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let end = Instant::now() + PATIENCE;
        while !dev_json.exists() {
            if let Some(status) = child.try_wait()? {
                return Err(format!("cota dev ended: {status}; see {}", folder.display()).into());
            }
            if Instant::now() > end {
                return Err("cota dev is not ready".into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        let facts = serde_json::from_str(&fs::read_to_string(dev_json)?)?;
        Ok(Self { facts, child, folder })
    }

    /// Stops it as Ctrl-C does, and takes its data away.
    pub async fn stop(mut self) -> Result<(), AnyError> {
        if let Some(pid) = self.child.id() {
            Command::new("kill").arg(pid.to_string()).status().await?;
        }
        self.child.wait().await?;
        Ok(fs::remove_dir_all(&self.folder)?)
    }

    /// The largest value of a gauge over all its labels.
    pub async fn gauge(&self, name: &str) -> Result<f64, AnyError> {
        let text = reqwest::get(&self.facts.metrics_url).await?.text().await?;
        let values = text.lines().filter(|line| line.starts_with(name));
        Ok(values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).fold(0.0, f64::max))
    }
}
