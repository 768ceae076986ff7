//! Cryptography: the provider behind TLS, and the keys that seal what is secret at rest.

mod keyring;
mod place;

use tokio_rustls::rustls::crypto::aws_lc_rs;

pub use keyring::{Keyring, KeyringError, OpenError, Signed};
pub use place::{Indexed, Place};

/// Makes aws-lc the one implementation behind TLS in this process, for this listener, Redis and Postgres alike. Safe
/// to call again: the first call counts.
pub fn install() {
    // An error means that there is one already: ours, or that of whoever embeds this library.
    let _ = aws_lc_rs::default_provider().install_default();
}
