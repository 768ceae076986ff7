//! Changes of endpoints, each on record with who made it.

use std::time::Duration;

use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{
    EndpointChange, EndpointCreation, EndpointUpdate, NewEndpoint, Row, previous_place, secret_place, select,
};
use crate::{
    crypto::Keyring,
    quota::{EventKind, UserId},
    store::{
        Expected, StoreError,
        audit::{Act, Action, record},
        error::violates,
        signed,
    },
};

pub(super) async fn create(
    connection: &mut PgConnection,
    keyring: &Keyring,
    (user, new): (UserId, &NewEndpoint),
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
    record(&mut transaction, keyring, act("webhook.created", user, new.id)).await?;
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

pub(super) async fn update(
    connection: &mut PgConnection,
    keyring: &Keyring,
    (user, id): (UserId, Uuid),
    expected: &Expected,
    change: &EndpointChange,
) -> Result<EndpointUpdate, StoreError> {
    let mut transaction = connection.begin().await?;
    let row = match set(&mut transaction, user, id, expected, change).await {
        Ok(Some(row)) => row,
        Ok(None) => {
            return Ok(match select(&mut transaction, user, id).await? {
                Some(_) => EndpointUpdate::Stale,
                None => EndpointUpdate::NotFound,
            });
        }
        Err(error) if violates(&error, "webhook_endpoints_once") => return Ok(EndpointUpdate::UrlTaken),
        Err(error) => return Err(error.into()),
    };
    record(&mut transaction, keyring, act("webhook.changed", user, id)).await?;
    transaction.commit().await.map_err(StoreError::from_commit)?;
    Ok(EndpointUpdate::Updated(row.try_into()?))
}

async fn set(
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
pub(super) async fn rotate(
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
    record(&mut transaction, keyring, act("webhook.secret_rotated", user, id)).await?;
    transaction.commit().await.map_err(StoreError::from_commit)?;
    Ok(Some(row))
}

pub(super) async fn delete(
    connection: &mut PgConnection,
    keyring: &Keyring,
    (user, id): (UserId, Uuid),
) -> Result<bool, StoreError> {
    let mut transaction = connection.begin().await?;
    let deleted = sqlx::query!("DELETE FROM webhook_endpoints WHERE id = $1 AND user_id = $2", id, user.0)
        .execute(&mut *transaction)
        .await?;
    if deleted.rows_affected() == 0 {
        return Ok(false);
    }
    record(&mut transaction, keyring, act("webhook.deleted", user, id)).await?;
    transaction.commit().await.map_err(StoreError::from_commit)?;
    Ok(true)
}

/// That an endpoint was changed, in one word.
fn act(what: &str, user: UserId, endpoint: Uuid) -> Act {
    let data = json!({"what": what, "webhook_id": endpoint});
    Act { action: Action::ConfigurationChanged, user: Some(user), data }
}

fn names(kinds: &[EventKind]) -> Vec<String> {
    kinds.iter().map(|kind| kind.as_str().to_owned()).collect()
}
