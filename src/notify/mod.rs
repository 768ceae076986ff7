//! Tells users what has happened to their accounts: webhooks and e-mail.
//!
//! Whatever changes an account writes its event in the same SQL transaction ([`crate::quota::EventKind`]). From there it
//! goes through a queue in Postgres ([`crate::store::Store::fan_out`] and what is beside it), which any number of
//! replicas work off ([`queue`]). `docs/NOTIFICATIONS.md` tells receivers what they can rely on.

mod channel;
pub mod email;
pub mod endpoints;
mod queue;
pub mod schedule;
pub mod settings;
pub mod webhook;

pub use endpoints::Endpoints;
pub use queue::{Notifier, RunningNotifier};
pub use settings::Settings;
