//! Endpoints that take webhooks.
//!
//! Secrets lie here sealed, and are opened for whoever is to sign. Locks: an account's row before its endpoints, an
//! endpoint before its notifications.

mod change;

use std::time::Duration;

use jiff::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Expected, MAX_ATTEMPTS, Store, StoreError, unsigned};
use crate::{
    crypto::Place,
    quota::{EventKind, UserId},
};

/// An endpoint as its user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookEndpoint {
    pub id: Uuid,
    pub url: String,
    /// Kinds of events it is sent; all when absent.
    pub kinds: Option<Vec<EventKind>>,
    /// Since when it is sent nothing, and why.
    pub disabled: Option<(Timestamp, DisabledReason)>,
    /// The first failure since the last success.
    pub failing_since: Option<Timestamp>,
    /// Until when the secret before goes on signing.
    pub previous_until: Option<Timestamp>,
    /// Counts the changes made by its users.
    pub version: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisabledReason {
    /// By its user or an operator.
    Asked,
    /// It answered 410.
    Gone,
    /// It failed for days.
    Failing,
}

impl DisabledReason {
    pub const ALL: [Self; 3] = [Self::Asked, Self::Gone, Self::Failing];

    /// The word in SQL, API answers and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Gone => "gone",
            Self::Failing => "failing",
        }
    }
}

/// An endpoint to be made. The caller has checked the address.
#[derive(Clone, Debug)]
pub struct NewEndpoint {
    pub id: Uuid,
    /// 1–2,048 bytes.
    pub url: String,
    pub kinds: Option<Vec<EventKind>>,
    /// What its webhooks are signed with.
    pub secret: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointCreation {
    Created(WebhookEndpoint),
    UserNotFound,
    /// The user has an endpoint with this address.
    UrlTaken,
    /// The user has as many as it may.
    TooMany,
}

/// New values; what is `None` stays. The caller has checked the address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointChange {
    pub url: Option<String>,
    /// Inside, `None` stands for all kinds.
    pub kinds: Option<Option<Vec<EventKind>>>,
    pub enabled: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointUpdate {
    Updated(WebhookEndpoint),
    /// Its version is another one; nothing was changed.
    Stale,
    NotFound,
    UrlTaken,
}

struct Row {
    id: Uuid,
    url: String,
    kinds: Option<Vec<String>>,
    disabled_at: Option<jiff_sqlx::Timestamp>,
    disabled_reason: Option<String>,
    failing_since: Option<jiff_sqlx::Timestamp>,
    previous_until: Option<jiff_sqlx::Timestamp>,
    version: i64,
    created_at: jiff_sqlx::Timestamp,
    updated_at: jiff_sqlx::Timestamp,
}

impl TryFrom<Row> for WebhookEndpoint {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let reason = |word: String| {
            DisabledReason::ALL
                .into_iter()
                .find(|reason| reason.as_str() == word)
                .ok_or_else(|| StoreError::corrupt(format_args!("reason {word:?} of a disabled endpoint")))
        };
        let disabled = match (row.disabled_at, row.disabled_reason) {
            (Some(at), Some(word)) => Some((at.to_jiff(), reason(word)?)),
            _ => None,
        };
        // A kind that a newer version has written is unknown here, and stays in the row.
        let known = |kinds: Vec<String>| kinds.iter().filter_map(|kind| EventKind::from_name(kind)).collect();
        Ok(Self {
            id: row.id,
            url: row.url,
            kinds: row.kinds.map(known),
            disabled,
            failing_since: row.failing_since.map(jiff_sqlx::Timestamp::to_jiff),
            previous_until: row.previous_until.map(jiff_sqlx::Timestamp::to_jiff),
            version: unsigned(row.version)?,
            created_at: row.created_at.to_jiff(),
            updated_at: row.updated_at.to_jiff(),
        })
    }
}

impl Store {
    /// Makes an endpoint, unless the user has `most` already. Creations for one user queue up at the account's row, so
    /// that the number holds.
    pub async fn create_webhook(
        &self,
        user: UserId,
        new: &NewEndpoint,
        most: u32,
    ) -> Result<EndpointCreation, StoreError> {
        let sealed = self.keyring.seal(secret_place(new.id), &new.secret)?;
        self.run(async |mut connection| {
            change::create(&mut connection, &self.keyring, (user, new), &sealed, most).await
        })
        .await
    }

    /// The endpoints of a user, oldest first.
    pub async fn webhooks(&self, user: UserId) -> Result<Vec<WebhookEndpoint>, StoreError> {
        let rows = self
            .run_as(user, async |mut connection| {
                sqlx::query_as!(
                    Row,
                    "SELECT id, url, kinds, disabled_at, disabled_reason, failing_since, previous_until, version,
                            created_at, updated_at
                     FROM webhook_endpoints WHERE user_id = $1 ORDER BY id",
                    user.0,
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        rows.into_iter().map(WebhookEndpoint::try_from).collect()
    }

    /// One endpoint of a user.
    pub async fn webhook(&self, user: UserId, id: Uuid) -> Result<Option<WebhookEndpoint>, StoreError> {
        self.run_as(user, async |mut connection| select(&mut connection, user, id).await)
            .await?
            .map(WebhookEndpoint::try_from)
            .transpose()
    }

    /// Changes an endpoint and raises its version by one, if its version is still as expected. A new address, or being
    /// enabled again, ends what failures had brought about.
    pub async fn update_webhook(
        &self,
        user: UserId,
        id: Uuid,
        expected: &Expected,
        change: &EndpointChange,
    ) -> Result<EndpointUpdate, StoreError> {
        self.run(async |mut connection| {
            change::update(&mut connection, &self.keyring, (user, id), expected, change).await
        })
        .await
    }

    /// Gives an endpoint a new secret; the old one goes on signing beside it for `overlap`, which may be zero. `None` when
    /// the user has no such endpoint.
    pub async fn rotate_webhook_secret(
        &self,
        user: UserId,
        id: Uuid,
        secret: &[u8],
        overlap: Duration,
    ) -> Result<Option<WebhookEndpoint>, StoreError> {
        let mut attempt = 1;
        loop {
            let rotation = self.run(async |mut connection| {
                change::rotate(&mut connection, &self.keyring, (user, id), secret, overlap).await
            });
            match rotation.await {
                Err(StoreError::Contended(_)) if attempt < MAX_ATTEMPTS => attempt += 1,
                result => return result?.map(WebhookEndpoint::try_from).transpose(),
            }
        }
    }

    /// Deletes an endpoint with the log of its deliveries; whether there was one.
    pub async fn delete_webhook(&self, user: UserId, id: Uuid) -> Result<bool, StoreError> {
        self.run(async |mut connection| change::delete(&mut connection, &self.keyring, (user, id)).await)
            .await
    }
}

async fn select(connection: &mut PgConnection, user: UserId, id: Uuid) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        "SELECT id, url, kinds, disabled_at, disabled_reason, failing_since, previous_until, version, created_at,
                updated_at
         FROM webhook_endpoints WHERE id = $1 AND user_id = $2",
        id,
        user.0,
    )
    .fetch_optional(connection)
    .await
}

/// Where the secret of an endpoint is sealed.
pub(in crate::store) fn secret_place(endpoint: Uuid) -> Place<'static> {
    Place { table: "webhook_endpoints", column: "secret_sealed", row: endpoint }
}

/// Where the secret before is.
pub(in crate::store) fn previous_place(endpoint: Uuid) -> Place<'static> {
    Place { column: "previous_secret_sealed", ..secret_place(endpoint) }
}
