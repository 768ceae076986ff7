//! What every test binary shares.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod partition;

pub struct R;
impl R { pub fn url(&self) -> String { "redis://127.0.0.1:7999".into() } }
pub async fn redis() -> R { R }
