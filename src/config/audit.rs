//! The audit log (`docs/AUDIT.md`).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditConfig {
    /// Where checkpoints are written; none are when absent.
    pub checkpoint_dir: Option<PathBuf>,
    pub checkpoint_interval_seconds: u64,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { checkpoint_dir: None, checkpoint_interval_seconds: 60 }
    }
}
