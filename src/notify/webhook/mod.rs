//! Webhooks, as the [Standard Webhooks](https://www.standardwebhooks.com) specification 1.0.0 has them.

mod address;
mod channel;
mod payload;
pub mod resolver;
mod sender;
mod signature;
mod target;
mod verdict;

pub use payload::{event_id, payload};
pub use sender::{Fault, Sender};
pub use target::{MAX_URL_LENGTH, Rules, TargetError};
pub use verdict::{Said, Standing, judge};

pub(super) use channel::Webhooks;
pub(super) use signature::{new_secret, spelt};
