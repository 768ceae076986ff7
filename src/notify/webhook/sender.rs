//! Sends webhooks: within bounds of time and size, to no place but the one that was checked.

use std::{error::Error, io, sync::Arc, time::Duration};

use jiff::Timestamp;
use reqwest::{Client, ClientBuilder, Response, Url, header, redirect::Policy};
use tokio::time::timeout;
use tokio_rustls::rustls;

use super::{
    payload::{event_id, payload},
    resolver::{Guarded, Lookup, SystemLookup, Unusable},
    signature::signatures,
    target::Rules,
    verdict::{Said, asked_wait},
};
use crate::{
    config::{NotifyConfig, millis},
    store::Event,
    traces::Parent,
};

/// To connect, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Of an answer's body nothing is used. So much is read, for so long, to end the connection in order.
const MAX_ANSWER_BYTES: usize = 16_384;
const ANSWER_PATIENCE: Duration = Duration::from_millis(500);

const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";

/// Why there was no answer, for the log of deliveries: words of ours, nothing that came from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the address is not allowed")]
    Refused,
    #[error("there was no answer in time")]
    Timeout,
    #[error("the name of the host is not known")]
    Unknown,
    #[error("the TLS handshake failed")]
    Tls,
    #[error("no connection could be made")]
    Connect,
    #[error("the connection broke off")]
    Broken,
    #[error("the secret cannot be opened")]
    Sealed,
}

impl Fault {
    /// The word for it in spans.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unknown => "name_not_known",
            Self::Tls => "tls",
            Self::Connect => "connect",
            Self::Broken => "broken_off",
            Self::Sealed => "sealed",
        }
    }
}

/// Sends webhooks; cheap to clone.
#[derive(Clone)]
pub struct Sender {
    client: Client,
    rules: Rules,
}

impl Sender {
    /// Reads the certificates that the system trusts, which blocks. Without any, only `http` can be sent to.
    pub fn new(config: &NotifyConfig) -> reqwest::Result<Self> {
        Self::with_lookup(config, SystemLookup)
    }

    /// As [`Self::new`], with another way to look names up.
    pub fn with_lookup(config: &NotifyConfig, lookup: impl Lookup) -> reqwest::Result<Self> {
        let rules = Rules::of(config);
        let resolver = Arc::new(Guarded::new(lookup, rules.clone()));
        let builder = || {
            let timeout = millis(config.webhook_timeout_ms);
            bounded(Client::builder(), timeout).dns_resolver(Arc::clone(&resolver))
        };
        let client = builder().build().or_else(|error| {
            tracing::error!(%error, "webhooks cannot be sent over TLS");
            builder().tls_certs_only([]).build()
        })?;
        Ok(Self { client, rules })
    }

    /// Sends an event once, signed with each of the secrets.
    ///
    /// # Errors
    /// When there was no answer; then the receiver may have it or not.
    pub async fn send(
        &self,
        url: &str,
        secrets: &[Vec<u8>],
        event: &Event,
        now: Timestamp,
    ) -> Result<Said, Fault> {
        // The rules may have changed since the address was entered.
        let url = self.rules.check(url).map_err(|_| Fault::Refused)?;
        let response = self.post(url, secrets, event, now).await.map_err(|error| fault(&error))?;
        let said = Said {
            status: response.status().as_u16(),
            wait: asked_wait(response.headers().get(header::RETRY_AFTER), now),
        };
        let _ = timeout(ANSWER_PATIENCE, drain(response)).await;
        Ok(said)
    }

    async fn post(
        &self,
        url: Url,
        secrets: &[Vec<u8>],
        event: &Event,
        now: Timestamp,
    ) -> reqwest::Result<Response> {
        let (id, body) = (event_id(event.id), payload(event));
        let timestamp = now.as_second();
        let signatures = signatures(secrets.iter().map(Vec::as_slice), &id, timestamp, &body);
        let mut request = self.client.post(url);
        if let Some((name, value)) = Parent::current().and_then(|parent| parent.traceparent()) {
            request = request.header(name, value);
        }
        request
            .header(header::CONTENT_TYPE, "application/json")
            .header(ID, id)
            .header(TIMESTAMP, timestamp)
            .header(SIGNATURE, signatures)
            .body(body)
            .send()
            .await
    }
}

/// It goes where it is told: through no proxy of the environment, to no place that an answer names. No connection is kept:
/// the next one is judged anew.
fn bounded(builder: ClientBuilder, timeout: Duration) -> ClientBuilder {
    builder
        .user_agent(concat!("cota/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .no_proxy()
        .referer(false)
        .pool_max_idle_per_host(0)
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .timeout(timeout)
}

async fn drain(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > MAX_ANSWER_BYTES {
            return;
        }
    }
}

fn fault(error: &reqwest::Error) -> Fault {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    let mut is_tls = false;
    while let Some(error) = cause {
        match error.downcast_ref::<Unusable>() {
            Some(Unusable::Refused) => return Fault::Refused,
            Some(Unusable::Unknown(_)) => return Fault::Unknown,
            None => {}
        }
        is_tls |= is_of_tls(error);
        cause = error.source();
    }
    match () {
        () if error.is_timeout() => Fault::Timeout,
        () if is_tls => Fault::Tls,
        () if error.is_connect() => Fault::Connect,
        () => Fault::Broken,
    }
}

/// An I/O error carries its cause inside, where its source does not lead.
fn is_of_tls(error: &(dyn Error + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<rustls::Error>() || inner.is_some_and(|inner| is_of_tls(inner))
}

#[cfg(test)]
#[path = "sender_tests.rs"]
mod tests;
