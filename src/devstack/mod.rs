//! Private Redis and Postgres servers as child processes, on free loopback ports: for `cota dev` and for every test.
//!
//! Each server has its own data folder, is stopped by its process id, and dies with this process even when that is
//! killed (`setpriv --pdeathsig`). It has its own process group, so that Ctrl-C reaches only us and we stop things in
//! order.

mod postgres;
mod process;
mod redis;

pub use postgres::{PostgresOptions, PostgresServer};
pub use process::{DevstackError, free_port};
pub use redis::{RedisOptions, RedisServer};
