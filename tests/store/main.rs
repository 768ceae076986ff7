//! The store against a real Postgres: every method, the races, and what happens to a call whose link dies.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod alerts;
mod anomalies;
mod audit;
mod booking;
mod budgets;
mod drift;
mod grants;
mod isolation;
mod ledger;
mod links;
mod notifications;
mod partitions;
mod personal;
mod purchases;
mod refusals;
mod renewals;
mod replicas;
mod reports;
mod schema;
mod scratch;
mod secrets;
#[path = "../support/servers.rs"]
mod servers;
#[path = "../support/sums.rs"]
mod sums;
mod usage;
mod users;
mod webhooks;
