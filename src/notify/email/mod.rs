//! E-mails: what they say, in two languages, and the way to the mail server.

mod channel;
mod message;
mod smtp;
mod texts;

use std::time::Duration;

use jiff::Timestamp;

pub(super) use channel::Emails;
pub use message::MessageError;
pub use smtp::{MailerError, Refusal};

use super::schedule;
use crate::{
    config::EmailConfig,
    store::{EmailClaim, EmailVerdict, Store, StoreError},
};
use message::{Letterhead, message};
use smtp::Mailer;

/// Writes and sends e-mails; cheap to clone.
#[derive(Clone)]
pub struct Post {
    store: Store,
    mailer: Mailer,
    letterhead: Letterhead,
}

/// What came of one e-mail.
pub struct Sent {
    /// The mail server's code, if it said something.
    pub status: Option<u16>,
    pub error: Option<String>,
    pub verdict: EmailVerdict,
}

impl Post {
    /// `None` when the configuration names no mail server.
    ///
    /// # Errors
    /// When the sender is no address, or TLS cannot be set up.
    pub fn new(
        store: Store,
        config: &EmailConfig,
        top_up_url: Option<String>,
    ) -> Result<Option<Self>, MailerError> {
        if !config.is_on() {
            return Ok(None);
        }
        let letterhead = Letterhead { from: smtp::sender(config)?, top_up_url };
        Ok(Some(Self { store, mailer: Mailer::new(config)?, letterhead }))
    }

    /// Sends the e-mail once. `chance` is in 0 … 1.
    ///
    /// # Errors
    /// When the user cannot be read; then nothing was sent.
    pub async fn send(&self, claim: &EmailClaim, now: Timestamp, chance: f64) -> Result<Sent, StoreError> {
        let event = &claim.event;
        let failed = |error: String| Sent { status: None, error: Some(error), verdict: EmailVerdict::Failed };
        let Some(user) = self.store.user(event.user).await? else {
            return Ok(failed("the user is gone".into()));
        };
        let message = match message(&self.letterhead, event, &user, now) {
            Ok(message) => message,
            Err(error) => return Ok(failed(error.to_string())),
        };
        Ok(match self.mailer.send(message).await {
            Ok(status) => Sent { status: Some(status), error: None, verdict: EmailVerdict::Delivered },
            Err(refusal) => Sent {
                status: refusal.code(),
                error: Some(refusal.to_string()),
                verdict: verdict(&refusal, claim.attempts, chance),
            },
        })
    }
}

fn verdict(refusal: &Refusal, attempts: u32, chance: f64) -> EmailVerdict {
    let again: Option<Duration> = schedule::retry_after(attempts, chance);
    match refusal {
        Refusal::Final(_) => EmailVerdict::Failed,
        Refusal::Later(_) | Refusal::Timeout | Refusal::Unreachable => {
            again.map_or(EmailVerdict::Failed, EmailVerdict::Retry)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_refuses_for_good_is_not_tried_again() {
        assert_eq!(verdict(&Refusal::Final(550), 1, 0.5), EmailVerdict::Failed);
        for refusal in [Refusal::Later(451), Refusal::Timeout, Refusal::Unreachable] {
            assert_eq!(verdict(&refusal, 1, 0.5), EmailVerdict::Retry(Duration::from_secs(5)));
            assert_eq!(verdict(&refusal, schedule::MAX_ATTEMPTS, 0.5), EmailVerdict::Failed);
        }
    }
}
