//! The Redis protocol: reserve, settle, release, extend, expire and balance, each one atomic step.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `verbs`, `reads` | what callers ask, as methods of [`Ledger`] |
//! | `convoy`, `chain` | a batch call: what it sends first; the operations of one account, in order |
//! | `calls` | one operation until its answer is definite: cold accounts, stale policies, lost replies |
//! | `lane`, `batch`, `job`, `waiting` | from many callers to one pipeline of `apply` calls, and back |
//! | `gate`, `ring`, `shard` | which life of a partition this replica serves; what it witnessed |
//! | `keeper`, `recovery`, `witness` | what happens when Redis restarts, forgets or goes back |
//! | `restored` | what happens when Postgres goes back |
//! | `cold`, `loader`, `pusher`, `policy` | from Postgres to Redis: cold accounts, grants, policy versions |
//! | `sweeper`, `lookup`, `outbox` | expiry; Postgres's answer for ids Redis has forgotten; the flusher's source |
//! | `gauges` | how full and how far behind all that is, for the metrics |
//! | `session`, `server`, `scripts`, `keys`, `wire` | the connection, the server behind it, the scripts, the key names, the packed layouts |

mod batch;
mod calls;
mod chain;
mod cold;
mod convoy;
mod gate;
mod gauges;
mod job;
mod keeper;
pub mod keys;
mod lane;
mod loader;
mod lookup;
mod outbox;
mod policy;
mod pusher;
mod reads;
mod recovery;
mod refusal;
mod restored;
mod ring;
pub mod scripts;
mod server;
mod session;
mod shard;
mod start;
mod sweeper;
mod verbs;
mod waiting;
pub mod wire;
mod witness;

pub use chain::Chain;
pub use lane::LaneLoad;
pub use outbox::{Outbox, OutboxPage};
pub use reads::Warmth;
pub use refusal::{Account, Done, Outcome, Receipt, Refusal};
pub use session::CallError;
pub use start::{Background, Ledger, Running};
