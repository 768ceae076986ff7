//! Endpoints that take webhooks.
//!
//! Secrets lie here sealed, and are opened for whoever is to sign. Locks: an account's row before its endpoints, an
//! endpoint before its notifications.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{Expected, MAX_ATTEMPTS, Store, StoreError, error::violates, signed, unsigned};
use crate::{
    crypto::{Keyring, Place},
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
        self.run(async |mut connection| create(&mut connection, user, new, &sealed, most).await).await
    }

    /// The endpoints of a user, oldest first.
    pub async fn webhooks(&self, user: UserId) -> Result<Vec<WebhookEndpoint>, StoreError> {
        let rows = self
            .run(async |mut connection| {
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
        self.run(async |mut connection| select(&mut connection, user, id).await)
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
        let done = self
            .run(async |mut connection| match update(&mut connection, user, id, expected, change).await {
                Ok(Some(row)) => Ok(Ok(row)),
                Ok(None) => Ok(Err(match select(&mut connection, user, id).await? {
                    Some(_) => EndpointUpdate::Stale,
                    None => EndpointUpdate::NotFound,
                })),
                Err(error) if violates(&error, "webhook_endpoints_once") => Ok(Err(EndpointUpdate::UrlTaken)),
                Err(error) => Err(error),
            })
            .await?;
        match done {
            Ok(row) => Ok(EndpointUpdate::Updated(row.try_into()?)),
            Err(refused) => Ok(refused),
        }
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
                rotate(&mut connection, &self.keyring, (user, id), secret, overlap).await
            });
            match rotation.await {
                Err(StoreError::Contended(_)) if attempt < MAX_ATTEMPTS => attempt += 1,
                result => return result?.map(WebhookEndpoint::try_from).transpose(),
            }
        }
    }

    /// Deletes an endpoint with the log of its deliveries; whether there was one.
    pub async fn delete_webhook(&self, user: UserId, id: Uuid) -> Result<bool, StoreError> {
        let deleted = self
            .run(async |mut connection| {
                sqlx::query!("DELETE FROM webhook_endpoints WHERE id = $1 AND user_id = $2", id, user.0)
                    .execute(&mut *connection)
                    .await
            })
            .await?;
        Ok(deleted.rows_affected() == 1)
    }
}

async fn create(
    connection: &mut PgConnection,
    user: UserId,
    new: &NewEndpoint,
    sealed: &[u8],
    most: u32,
) -> Result<EndpointCreation, StoreError> {
    let mut transaction = connection.begin().await?;
    let locked = sqlx::query_scalar!("SELECT id FROM user_accounts WHERE id = $1 FOR NO KEY UPDATE", user.0)
        .fetch_optional(&mut *transaction)
        .await?;
    if locked.is_none() {
        return Ok(EndpointCreation::UserNotFound);
    }
    let row = match insert(&mut transaction, user, new, sealed, most).await {
        Ok(Some(row)) => row,
        Ok(None) => return Ok(EndpointCreation::TooMany),
        Err(error) if violates(&error, "webhook_endpoints_once") => return Ok(EndpointCreation::UrlTaken),
        Err(error) => return Err(error.into()),
    };
    transaction.commit().await.map_err(StoreError::from_commit)?;
    Ok(EndpointCreation::Created(row.try_into()?))
}

async fn insert(
    connection: &mut PgConnection,
    user: UserId,
    new: &NewEndpoint,
    sealed: &[u8],
    most: u32,
) -> Result<Option<Row>, sqlx::Error> {
    let kinds = new.kinds.as_deref().map(names);
    // An address that is there already is told before the number.
    sqlx::query_as!(
        Row,
        "INSERT INTO webhook_endpoints (id, user_id, url, kinds, secret_sealed)
         SELECT $1, $2, $3, $4, $5
         WHERE EXISTS (SELECT 1 FROM webhook_endpoints WHERE user_id = $2 AND url = $3)
            OR (SELECT count(*) FROM webhook_endpoints WHERE user_id = $2) < $6
         RETURNING id, url, kinds, disabled_at, disabled_reason, failing_since, previous_until, version, created_at,
                   updated_at",
        new.id,
        user.0,
        new.url,
        kinds.as_deref(),
        sealed,
        i64::from(most),
    )
    .fetch_optional(connection)
    .await
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

async fn update(
    connection: &mut PgConnection,
    user: UserId,
    id: Uuid,
    expected: &Expected,
    change: &EndpointChange,
) -> Result<Option<Row>, sqlx::Error> {
    let versions: Option<Vec<i64>> = match expected {
        Expected::Any => None,
        Expected::OneOf(versions) => Some(versions.iter().map(|version| signed(*version)).collect()),
    };
    let EndpointChange { url, kinds, enabled } = change;
    let new_kinds = kinds.as_ref().and_then(|kinds| kinds.as_deref().map(names));
    sqlx::query_as!(
        Row,
        "UPDATE webhook_endpoints
         SET url = coalesce($4, url),
             kinds = CASE WHEN $5 THEN $6 ELSE kinds END,
             disabled_at = CASE WHEN $7 THEN NULL WHEN NOT $7 THEN coalesce(disabled_at, now()) ELSE disabled_at END,
             disabled_reason = CASE WHEN $7 THEN NULL WHEN NOT $7 THEN coalesce(disabled_reason, 'asked')
                                    ELSE disabled_reason END,
             failing_since = CASE WHEN $7 OR $4 IS NOT NULL THEN NULL ELSE failing_since END,
             failures = CASE WHEN $7 OR $4 IS NOT NULL THEN 0 ELSE failures END,
             paused_until = CASE WHEN $7 OR $4 IS NOT NULL THEN NULL ELSE paused_until END,
             version = version + 1, updated_at = now()
         WHERE id = $1 AND user_id = $2 AND ($3::bigint[] IS NULL OR version = ANY($3))
         RETURNING id, url, kinds, disabled_at, disabled_reason, failing_since, previous_until, version, created_at,
                   updated_at",
        id,
        user.0,
        versions.as_deref(),
        url.as_deref(),
        kinds.is_some(),
        new_kinds.as_deref(),
        *enabled,
    )
    .fetch_optional(connection)
    .await
}

/// A sealed value opens in its own column alone, so the old secret is sealed anew for its new place.
async fn rotate(
    connection: &mut PgConnection,
    keyring: &Keyring,
    (user, id): (UserId, Uuid),
    secret: &[u8],
    overlap: Duration,
) -> Result<Option<Row>, StoreError> {
    let mut transaction = connection.begin().await?;
    let old = sqlx::query_scalar!(
        "SELECT secret_sealed FROM webhook_endpoints WHERE id = $1 AND user_id = $2 FOR NO KEY UPDATE",
        id,
        user.0,
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(old) = old else { return Ok(None) };
    let previous = match overlap {
        Duration::ZERO => None,
        _ => Some(keyring.seal(previous_place(id), &keyring.open(secret_place(id), &old)?)?),
    };
    let row = sqlx::query_as!(
        Row,
        "UPDATE webhook_endpoints
         SET secret_sealed = $2, previous_secret_sealed = $3,
             previous_until = CASE WHEN $3::bytea IS NOT NULL THEN now() + make_interval(secs => $4) END,
             version = version + 1, updated_at = now()
         WHERE id = $1
         RETURNING id, url, kinds, disabled_at, disabled_reason, failing_since, previous_until, version, created_at,
                   updated_at",
        id,
        keyring.seal(secret_place(id), secret)?,
        previous,
        overlap.as_secs_f64(),
    )
    .fetch_one(&mut *transaction)
    .await?;
    transaction.commit().await.map_err(StoreError::from_commit)?;
    Ok(Some(row))
}

/// Where the secret of an endpoint is sealed.
pub(super) fn secret_place(endpoint: Uuid) -> Place<'static> {
    Place { table: "webhook_endpoints", column: "secret_sealed", row: endpoint }
}

/// Where the secret before is.
pub(super) fn previous_place(endpoint: Uuid) -> Place<'static> {
    Place { column: "previous_secret_sealed", ..secret_place(endpoint) }
}

fn names(kinds: &[EventKind]) -> Vec<String> {
    kinds.iter().map(|kind| kind.as_str().to_owned()).collect()
}
