//! Tells users what has happened to their accounts: webhooks, e-mail and live streams.
//!
//! Whatever changes an account writes its event in the same SQL transaction ([`crate::quota::EventKind`]). From there it
//! goes through a queue in Postgres ([`crate::store::Store::fan_out`] and what is beside it), which any number of
//! replicas work off ([`queue`]), each by the channels it has ([`channel`]). [`live`] shows the same events, and the
//! balance, as they happen. `docs/NOTIFICATIONS.md` tells receivers what they can rely on.

mod channel;
pub mod email;
pub mod endpoints;
pub mod live;
mod queue;
pub mod schedule;
pub mod settings;
pub mod webhook;

pub use endpoints::Endpoints;
pub use live::Live;
pub use queue::{Notifier, RunningNotifier};
pub use settings::Settings;
