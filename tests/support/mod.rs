//! What every test binary shares: real servers, and ways to drive them.
#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]

pub mod certificates;
pub mod collector;
pub mod contract;
pub mod h2;
pub mod identity;
pub mod invariants;
pub mod load;
pub mod mail;
pub mod partition;
pub mod proxy;
pub mod receiver;
pub mod servers;
pub mod service;
pub mod sums;
pub mod world;

pub use servers::{
    TempFolder, TestDatabase, TestPostgres, TestRedis, database, empty_database, keyring, keys, postgres,
    redis, redis_with,
};
