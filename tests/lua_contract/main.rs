//! The contract of every Lua script: each answer, what it writes and what it leaves alone, on a real Redis.
//!
//! One file per verb or script. Every test runs on a Redis of its own, and ends with the invariants of
//! [`case::Case::check`].
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[macro_use]
mod case;
mod invariants;
mod ops;
#[path = "../support/mod.rs"]
mod support;

mod ack;
mod batch;
mod batch_writes;
mod carry;
mod debit;
mod due;
mod expire;
mod extend;
mod fence;
mod head;
mod limits;
mod load;
mod malformed;
mod memory;
mod open;
mod outbox;
mod peek;
mod release;
mod reserve;
mod settle;
mod settle_late;
mod settle_unknown;
mod sync;
