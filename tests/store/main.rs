//! The store against a real Postgres: every method, the races, and what happens to a call whose link dies.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod audit;
mod booking;
mod budgets;
mod grants;
mod ledger;
mod links;
mod partitions;
mod refusals;
mod replicas;
mod schema;
mod scratch;
mod secrets;
#[path = "../support/servers.rs"]
mod servers;
mod users;
