//! Backups of Postgres (`docs/BACKUP.md`).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackupConfig {
    /// Where backups are written; the service makes none when absent.
    pub directory: Option<PathBuf>,
    /// How old the newest may become before the service makes the next.
    pub interval_seconds: u64,
    /// As many stay, the newest.
    pub keep: usize,
    /// Those that are younger stay as well.
    pub keep_days: u32,
}

impl Default for BackupConfig {
    fn default() -> Self {
        Self { directory: None, interval_seconds: 86_400, keep: 14, keep_days: 0 }
    }
}

impl BackupConfig {
    /// What is wrong with it, if anything is.
    pub(super) fn broken_rule(&self) -> Option<&'static str> {
        if self.interval_seconds == 0 {
            return Some("backup.interval_seconds must be at least 1");
        }
        (self.keep == 0).then_some("backup.keep must be at least 1")
    }
}
