//! The audit log: what was done, by whom, in chains that show every later change.
//!
//! # Chains
//!
//! Each row holds the hash of the row before it and its own: SHA-256 over all its fields, each behind its length
//! ([`chain`]). One row cannot be changed, taken out, put in or moved without all later ones being made anew, and the
//! exported checkpoints ([`Store::audit_heads`], signed outside of Postgres) name hashes that must still be there.
//!
//! There is a chain per partition for the batches of the flusher, and one, number -1, for acts: grants, changes of
//! configuration, suspensions, refused access. One chain for all would let the flushers of all partitions wait for each
//! other; a partition's bookings hold its row anyway. Acts are rare, and queue for one row.
//!
//! The row of a batch carries a digest over its transactions, and each transaction the number of its row, so that a
//! ledger row that was changed, deleted, put in or moved is found as well ([`verify`]). An act that made a grant names it.
//! `metadata` of a transaction is left out: it is the caller's own note, and has to be erasable.
//!
//! # Locks
//!
//! A row of `audit_chains` is locked last of all, after `partitions` and `user_accounts`, and to the end of the SQL
//! transaction: what commits has its row, and in the order of the chain.

mod act;
pub(super) mod chain;
mod check;
mod log;
mod verify;

pub(super) use act::{Act, Action, record, record_together};
pub use act::{Actor, caller_known, with_caller};
pub use log::{AuditRow, Refused};
pub use verify::{Extent, Finding, Flaw, Verification};

/// The chain of acts.
pub const ACTS: i16 = -1;

/// The newest row of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainHead {
    /// A partition, or [`ACTS`].
    pub chain: i16,
    /// 0 before the first row.
    pub number: u64,
    /// 32 bytes; zeros before the first row.
    pub hash: Vec<u8>,
}
