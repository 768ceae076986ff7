//! The mail server that e-mails go through.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Secret;

/// How the connection to the mail server is encrypted.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// From its first byte (port 465).
    Tls,
    /// After a word in the clear (port 587); nothing is sent if that fails.
    Starttls,
    /// Not at all: for a server on this machine.
    None,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmailConfig {
    /// No e-mails when empty.
    pub host: String,
    pub port: u16,
    pub tls: MailTls,
    /// No login when empty.
    pub username: String,
    pub password: Secret,
    /// Who may sign the server's certificate; the system's authorities when absent.
    pub ca_file: Option<PathBuf>,
    /// The sender, as in `Cota <cota@example.com>`.
    pub from: String,
    /// To hand one e-mail over.
    pub timeout_ms: u64,
    /// E-mails that this process hands over at a time.
    pub at_once: usize,
}

impl Default for EmailConfig {
    fn default() -> Self {
        Self {
            host: String::new(),
            port: 465,
            tls: MailTls::Tls,
            username: String::new(),
            password: Secret::default(),
            ca_file: None,
            from: String::new(),
            timeout_ms: 30_000,
            at_once: 4,
        }
    }
}

impl EmailConfig {
    /// Whether e-mails are sent.
    pub fn is_on(&self) -> bool {
        !self.host.is_empty()
    }

    /// The rule that is broken, if one is.
    pub(super) fn broken_rule(&self) -> Option<&'static str> {
        let rules = [
            (
                !self.is_on() || self.from.contains('@'),
                "email.from must be an address when email.host is set",
            ),
            ((100..=120_000).contains(&self.timeout_ms), "email.timeout_ms must be 100 to 120000"),
            ((1..=64).contains(&self.at_once), "email.at_once must be 1 to 64"),
        ];
        rules.into_iter().find_map(|(holds, rule)| (!holds).then_some(rule))
    }
}
