//! What a Redis server says about itself, and whether the ledger may use it.

use std::sync::Arc;

use super::session::CallError;

/// What the server said about itself when the connection was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Changes with every start of the server.
    pub run_id: Arc<str>,
    pub used_memory: u64,
    /// 0: no limit.
    pub max_memory: u64,
}

/// Reads the answer to INFO.
///
/// # Errors
/// [`CallError::NotRun`] when it is no master, is loading, or may evict keys.
pub fn check_info(text: &str) -> Result<ServerInfo, CallError> {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
            .unwrap_or_default()
    };
    let refuse = |why: &str| Err(CallError::NotRun(why.to_owned()));
    if field("loading") == "1" {
        return refuse("Redis is loading its data");
    }
    if field("role") != "master" {
        return refuse("this Redis is no master");
    }
    if field("maxmemory_policy") != "noeviction" {
        return refuse("maxmemory-policy must be noeviction: an evicted hold is a lost hold");
    }
    if field("aof_enabled") != "1" {
        tracing::warn!("Redis keeps no append-only file: a restart of it loses every pending reservation");
    }
    Ok(ServerInfo {
        run_id: field("run_id").into(),
        used_memory: field("used_memory").parse().unwrap_or_default(),
        max_memory: field("maxmemory").parse().unwrap_or_default(),
    })
}
