//! Hands e-mails to a mail server.

use std::{error::Error as _, fs, time::Duration};

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::Mailbox,
    transport::smtp::{
        Error,
        authentication::Credentials,
        client::{Certificate, CertificateStore, Tls, TlsParameters},
    },
};
use tokio::time::timeout;

use crate::config::{EmailConfig, MailTls, millis};

/// Why e-mail cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum MailerError {
    #[error("email.from is no address")]
    From,
    #[error("cannot read email.ca_file {0}: {1}")]
    CaFile(String, std::io::Error),
    #[error("{0}")]
    Tls(Error),
}

/// Why an e-mail was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This e-mail, and it will never be: so the server's code.
    #[error("the mail server refused it")]
    Final(u16),
    /// The server's code: not now.
    #[error("the mail server cannot take it now")]
    Later(u16),
    #[error("the mail server did not answer in time")]
    Timeout,
    #[error("the mail server cannot be reached")]
    Unreachable,
}

impl Refusal {
    /// What the server said, if it did.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Final(code) | Self::Later(code) => Some(*code),
            Self::Timeout | Self::Unreachable => None,
        }
    }
}

/// Sends e-mails; cheap to clone.
#[derive(Clone)]
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    timeout: Duration,
}

impl Mailer {
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(config: &EmailConfig) -> Result<Self, MailerError> {
        let timeout = millis(config.timeout_ms);
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host)
            .port(config.port)
            .timeout(Some(timeout))
            .tls(match config.tls {
                MailTls::None => Tls::None,
                MailTls::Starttls => Tls::Required(parameters(config)?),
                MailTls::Tls => Tls::Wrapper(parameters(config)?),
            });
        if !config.username.is_empty() {
            builder = builder
                .credentials(Credentials::new(config.username.clone(), config.password.expose().to_owned()));
        }
        Ok(Self { transport: builder.build(), timeout })
    }

    /// Hands over one e-mail.
    ///
    /// # Errors
    /// When it was not taken, or nobody knows: then it may come twice, under the same `Message-ID`.
    pub async fn send(&self, message: Message) -> Result<u16, Refusal> {
        // The time-out of the library is that of a single command.
        match timeout(self.timeout, self.transport.send(message)).await {
            Ok(Ok(response)) => Ok(response.code().into()),
            Ok(Err(error)) => Err(refusal(&error)),
            Err(_) => Err(Refusal::Timeout),
        }
    }
}

/// The sender of all e-mails.
pub fn sender(config: &EmailConfig) -> Result<Mailbox, MailerError> {
    config.from.parse().map_err(|_| MailerError::From)
}

fn parameters(config: &EmailConfig) -> Result<TlsParameters, MailerError> {
    let mut builder = TlsParameters::builder(config.host.clone());
    if let Some(path) = &config.ca_file {
        let pem = fs::read(path).map_err(|error| MailerError::CaFile(path.display().to_string(), error))?;
        let certificate = Certificate::from_pem(&pem).map_err(MailerError::Tls)?;
        builder = builder.certificate_store(CertificateStore::None).add_root_certificate(certificate);
    }
    builder.build().map_err(MailerError::Tls)
}

fn refusal(error: &Error) -> Refusal {
    let Some(code) = error.status() else {
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        tracing::warn!(%error, cause, "the mail server cannot be used");
        return if error.is_timeout() { Refusal::Timeout } else { Refusal::Unreachable };
    };
    let code: u16 = code.into();
    match code {
        // Of our credentials, and of TLS: nothing that is wrong with the e-mail.
        530..=539 => {
            tracing::error!(code, "the mail server does not let us in");
            Refusal::Later(code)
        }
        500..=599 => Refusal::Final(code),
        _ => Refusal::Later(code),
    }
}
