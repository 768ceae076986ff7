//! What people deploy, as it stands in `deploy/` and in the Dockerfile: its files against the schemas of those who read
//! them and against the service's own configuration, and the whole stack started from them, without containers.

#[path = "../support/mod.rs"]
mod support;

mod compose;
mod failover;
mod files;
mod image;
mod kubernetes;
mod stack;
