//! The one implementation of cryptography behind TLS, for this listener, Redis and Postgres alike.

use tokio_rustls::rustls::crypto::aws_lc_rs;

/// Makes aws-lc the provider of this process. Safe to call again: the first call counts.
pub fn install() {
    // An error means that there is one already: ours, or that of whoever embeds this library.
    let _ = aws_lc_rs::default_provider().install_default();
}
