//! Cota enforces per-user LLM-token quotas: **reserve** before a model call, **settle** after it, both atomic in
//! Redis; every settled transaction arrives in Postgres exactly once.
//!
//! The map, in the order of the imports (each may use those before it):
//!
//! - [`config`], [`crypto`], [`telemetry`], [`traces`], [`metrics`]: leaves, for all.
//! - [`quota`]: the vocabulary; pure.
//! - [`store`]: Postgres. Only here is SQL.
//! - [`ledger`]: the Redis protocol: scripts, lanes, gates, witnesses, recovery. Only here are Redis commands.
//! - [`flusher`]: outbox → Postgres.
//! - [`accounts`]: use cases on users and grants.
//! - [`backup`]: backups of Postgres, and bringing them back.
//! - [`notify`]: webhooks and e-mail.
//! - [`http`]: router, authentication, problems, one file per resource.
//! - [`app`]: what starts in which order, and drains in which.
//! - [`devstack`]: private Redis and Postgres servers, for `cota dev` and the tests.
//! - [`cli`]: the commands.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

pub mod accounts;
pub mod app;
pub mod backup;
pub mod cli;
pub mod config;
pub mod crypto;
pub mod devstack;
pub mod flusher;
pub mod http;
pub mod ledger;
pub mod metrics;
pub mod notify;
pub mod quota;
pub mod store;
pub mod telemetry;
pub mod traces;
