//! Use cases on a user's webhook endpoints.

use std::time::Duration;

use uuid::Uuid;

use super::webhook::{Rules, TargetError, new_secret, spelt};
use crate::{
    config::{NotifyConfig, Secret},
    quota::{EventKind, UserId},
    store::{
        Delivery, DeliveryState, EndpointChange, EndpointCreation, EndpointUpdate, Expected, NewEndpoint,
        Resend, Store, StoreError, WebhookEndpoint,
    },
};

/// Longest time in which two secrets sign: 7 days.
pub const MAX_OVERLAP_SECONDS: u32 = 604_800;
/// The time in which two secrets sign unless the caller says otherwise: a day.
pub const DEFAULT_OVERLAP_SECONDS: u32 = 86_400;

/// What a user is told of its endpoints, and changes of them; cheap to clone.
#[derive(Clone)]
pub struct Endpoints {
    store: Store,
    rules: Rules,
    most: u32,
}

/// An endpoint and its secret, which is shown this once.
pub struct Shown {
    pub endpoint: WebhookEndpoint,
    /// As its receiver enters it: `whsec_…`.
    pub secret: Secret,
}

#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("there is no such user")]
    UserNotFound,
    #[error("the user has no such endpoint")]
    NotFound,
    #[error("the address: {0}")]
    Target(#[from] TargetError),
    /// An endpoint without a kind would never be sent anything.
    #[error("no kind of event is named")]
    NoKinds,
    #[error("the user has an endpoint with this address")]
    UrlTaken,
    #[error("a user has at most {0} endpoints")]
    TooMany(u32),
    /// Nothing was changed.
    #[error("the endpoint has changed since the caller read it")]
    Stale,
    #[error("the endpoint has no such delivery")]
    DeliveryNotFound,
    #[error("the endpoint is disabled")]
    Disabled,
    #[error("the system gives no random bytes")]
    Random,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Endpoints {
    pub fn new(store: Store, config: &NotifyConfig) -> Self {
        Self { store, rules: Rules::of(config), most: config.max_webhooks_per_user }
    }

    /// Makes an endpoint; `kinds` is `None` for all.
    pub async fn create(
        &self,
        user: UserId,
        url: &str,
        kinds: Option<Vec<EventKind>>,
    ) -> Result<Shown, EndpointError> {
        let url = String::from(self.rules.check(url)?);
        let kinds = kinds.map(distinct).transpose()?;
        let id = Uuid::now_v7();
        let secret = new_secret().map_err(|_| EndpointError::Random)?;
        let new = NewEndpoint { id, url, kinds, secret: secret.to_vec() };
        match self.store.create_webhook(user, &new, self.most).await? {
            EndpointCreation::Created(endpoint) => {
                Ok(Shown { endpoint, secret: Secret::new(spelt(&secret)) })
            }
            EndpointCreation::UserNotFound => Err(EndpointError::UserNotFound),
            EndpointCreation::UrlTaken => Err(EndpointError::UrlTaken),
            EndpointCreation::TooMany => Err(EndpointError::TooMany(self.most)),
        }
    }

    /// All of a user's, oldest first; an unknown user has none.
    pub async fn list(&self, user: UserId) -> Result<Vec<WebhookEndpoint>, StoreError> {
        self.store.webhooks(user).await
    }

    pub async fn show(&self, user: UserId, id: Uuid) -> Result<WebhookEndpoint, EndpointError> {
        self.store.webhook(user, id).await?.ok_or(EndpointError::NotFound)
    }

    /// Changes an endpoint, if its version is still one the caller expects.
    pub async fn update(
        &self,
        user: UserId,
        id: Uuid,
        expected: &Expected,
        change: EndpointChange,
    ) -> Result<WebhookEndpoint, EndpointError> {
        let url = change.url.map(|url| self.rules.check(&url).map(String::from)).transpose()?;
        let kinds = match change.kinds {
            Some(Some(kinds)) => Some(Some(distinct(kinds)?)),
            other => other,
        };
        let change = EndpointChange { url, kinds, ..change };
        match self.store.update_webhook(user, id, expected, &change).await? {
            EndpointUpdate::Updated(endpoint) => Ok(endpoint),
            EndpointUpdate::Stale => Err(EndpointError::Stale),
            EndpointUpdate::NotFound => Err(EndpointError::NotFound),
            EndpointUpdate::UrlTaken => Err(EndpointError::UrlTaken),
        }
    }

    /// Gives an endpoint a new secret; the old one goes on signing beside it for `overlap`, which may be zero.
    pub async fn rotate(&self, user: UserId, id: Uuid, overlap: Duration) -> Result<Shown, EndpointError> {
        let secret = new_secret().map_err(|_| EndpointError::Random)?;
        let endpoint = self.store.rotate_webhook_secret(user, id, &secret, overlap).await?;
        let endpoint = endpoint.ok_or(EndpointError::NotFound)?;
        Ok(Shown { endpoint, secret: Secret::new(spelt(&secret)) })
    }

    /// Deletes an endpoint with the log of its deliveries.
    pub async fn delete(&self, user: UserId, id: Uuid) -> Result<(), EndpointError> {
        if self.store.delete_webhook(user, id).await? { Ok(()) } else { Err(EndpointError::NotFound) }
    }

    /// What was or is to be sent to an endpoint, newest first, those before `before`, at most `limit`.
    pub async fn deliveries(
        &self,
        user: UserId,
        id: Uuid,
        before: Option<i64>,
        state: Option<DeliveryState>,
        limit: u32,
    ) -> Result<Vec<Delivery>, EndpointError> {
        self.store.deliveries(user, id, before, state, limit).await?.ok_or(EndpointError::NotFound)
    }

    /// Sends something again.
    pub async fn resend(&self, user: UserId, id: Uuid, delivery: i64) -> Result<Delivery, EndpointError> {
        match self.store.resend(user, id, delivery).await? {
            Resend::Queued(delivery) => Ok(delivery),
            Resend::Disabled => Err(EndpointError::Disabled),
            Resend::NotFound => Err(EndpointError::DeliveryNotFound),
        }
    }
}

/// Each kind once, in a fixed order.
fn distinct(kinds: Vec<EventKind>) -> Result<Vec<EventKind>, EndpointError> {
    let kinds: Vec<EventKind> = EventKind::ALL.into_iter().filter(|kind| kinds.contains(kind)).collect();
    if kinds.is_empty() { Err(EndpointError::NoKinds) } else { Ok(kinds) }
}
