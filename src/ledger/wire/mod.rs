//! What travels between the service and the scripts: packed, big-endian, with a format version where it is stored.
//!
//! The layouts are those in the headers of the Lua files; the contract tests run both sides against each other.

mod answer;
mod apply;
mod budget;
mod bytes;
mod entry;
mod operation;
mod record;

pub use answer::{Answer, Status};
pub use apply::{Head, apply};
pub use budget::StoredBudget;
pub use bytes::Malformed;
pub use entry::{Facts, decode_entry};
pub use operation::{Operation, Options, Verb, fingerprint};
pub use record::{Booked, Record};
