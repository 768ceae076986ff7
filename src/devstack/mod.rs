//! Private Redis and Postgres servers as child processes, for `cota dev` and for the tests.
//!
//! Each server has a folder of its own and a loopback port of its own; nothing here touches the system's servers
//! or their ports. A child
//!
//! - is in its own process group, so that the terminal's Ctrl-C reaches `cota` only, which then stops it in order;
//! - is told to end by the kernel when `cota` dies without a word (`setpriv --pdeathsig`);
//! - is stopped when its handle is dropped.
//!
//! What a killed run left behind is found by its pid file, checked to be really ours, and stopped before the next
//! start. Ports lie below the range from which the kernel takes the ports of outgoing connections, so that a server
//! that comes back finds its own still free.

mod cluster;
mod error;
mod leftover;
mod ports;
mod postgres;
mod process;
mod redis;

pub use error::DevstackError;
pub use postgres::{PostgresOptions, PostgresServer};
pub use process::Signal;
pub use redis::{RedisOptions, RedisServer};
