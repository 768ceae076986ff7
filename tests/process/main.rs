//! The real binary, as it runs in production: replicas as processes, gateways over HTTP, signals from outside.

#[path = "../support/mod.rs"]
mod support;

mod backups;
mod canaries;
mod gateway;
mod losses;
mod replica;
