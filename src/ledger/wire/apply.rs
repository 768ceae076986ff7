//! One call of `apply`, as Redis gets it; see the header of `lua/apply/begin.lua` for its layout.

use redis::Cmd;

use super::Operation;
use crate::{
    ledger::{keys::Keys, scripts},
    quota::MAX_TTL_SECONDS,
};

/// What every operation of a call shares.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub epoch: u64,
    /// Largest count of mutations the caller has seen.
    pub high_water: u64,
    /// Of the Redis server behind the connection.
    pub run_id: &'a str,
    /// 62 random bits.
    pub nonce: u64,
    /// Reserves and raising extends are to answer FULL.
    pub full: bool,
    pub retention_ms: u64,
    pub expired_retention_ms: u64,
}

/// Arguments beside keys and operations: the name of the command, the script, the number of keys, and the head.
const FIXED: usize = 3 + 8;
/// A guess, so that the buffer seldom grows.
const BYTES_PER_OPERATION: usize = 320;

/// The whole command, written once into one buffer.
pub fn apply(keys: &Keys, head: Head<'_>, operations: &[&Operation]) -> Cmd {
    let key_count = 3 + operations.iter().map(|operation| 1 + operation.lines.len()).sum::<usize>();
    let count = operations.len();
    let mut command = Cmd::with_capacity(FIXED + key_count + count, 512 + BYTES_PER_OPERATION * count);
    command.arg("EVALSHA").arg(scripts::APPLY.sha()).arg(key_count);
    command.arg(keys.meta()).arg(keys.expiry()).arg(keys.outbox());
    for operation in operations {
        command.arg(keys.record(operation.user, &operation.id));
        for line in &operation.lines {
            command.arg(keys.budget(line.budget));
        }
    }
    command.arg(head.epoch).arg(head.high_water).arg(head.run_id).arg(head.nonce).arg(u8::from(head.full));
    command.arg(head.retention_ms).arg(head.expired_retention_ms).arg(u64::from(MAX_TTL_SECONDS) * 1000);
    for operation in operations {
        command.arg(operation.encode());
    }
    command
}
