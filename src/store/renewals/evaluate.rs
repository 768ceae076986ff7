//! One look at one account: what is due is renewed or requested, what is over is ended, and the next look is set.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{
    RenewalState, Renewed,
    config::{request_ends, select},
};
use crate::{
    crypto::Keyring,
    quota::{EventKind, RenewalMode, RenewalRule, UserId, month_of, next_month},
    store::{
        Credit, GrantKind, MAX_ATTEMPTS, Store, StoreError,
        audit::{Act, record_together},
        events::{self, NewEvent},
        grants::{act, insert, lock_account},
        unsigned,
    },
};

/// While only the next month helps, another look comes at least so often: the user's time zone may change.
const CAPPED_PAUSE: SignedDuration = SignedDuration::from_hours(1);

impl Store {
    /// Looks at one account's renewal, in an SQL transaction that holds the account's row. A user that is gone, or has
    /// no renewal, is nothing to do.
    pub async fn renew(&self, user: UserId) -> Result<Renewed, StoreError> {
        let mut attempt = 1;
        loop {
            let done =
                self.run(async |mut connection| renew_once(&mut connection, &self.keyring, user).await);
            match done.await {
                Err(StoreError::Contended(_)) if attempt < MAX_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }
}

async fn renew_once(
    connection: &mut PgConnection,
    keyring: &Keyring,
    user: UserId,
) -> Result<Renewed, StoreError> {
    let mut transaction = connection.begin().await?;
    if lock_account(&mut transaction, user).await?.is_none() {
        return Ok(Renewed::default());
    }
    let (renewed, acts) = look(&mut transaction, user).await?;
    record_together(&mut transaction, keyring, acts).await?;
    transaction.commit().await.map_err(StoreError::from_commit)?;
    Ok(renewed)
}

/// The account as a look finds it.
struct Found {
    used: u64,
    total: u64,
    zone: TimeZone,
    now: Timestamp,
    /// The request that waits for its payment, and when it is over.
    pending: Option<(Uuid, Timestamp)>,
    capped_month: Option<String>,
}

impl Found {
    fn month(&self) -> String {
        month_of(self.now, &self.zone)
    }
}

/// Looks at an account whose row the caller holds; gives also what the caller is to put on record.
pub(super) async fn look(
    connection: &mut PgConnection,
    user: UserId,
) -> Result<(Renewed, Vec<Act>), StoreError> {
    let config = select(connection, user).await?;
    let mut found = find(connection, user).await?;
    let (mut renewed, mut acts) = (Renewed::default(), Vec::new());
    if let Some((_, end)) = found.pending
        && end <= found.now
    {
        end_request(connection, user, RenewalState::Expired).await?;
        found.pending = None;
    }
    let mut next = found.pending.map(|(_, end)| end);
    if config.enabled && found.pending.is_none() && config.rule.is_due(found.used, found.total) {
        let month = found.month();
        let plan = config.rule.plan(found.used, found.total, counted(connection, user, &month).await?);
        match config.mode {
            RenewalMode::Immediate => {
                for _ in 0..plan.renewals {
                    acts.push(grant_now(connection, user, &mut found, &config.rule).await?);
                }
                renewed.granted = plan.renewals;
                renewed.capped = plan.capped;
            }
            RenewalMode::OnPayment if plan.renewals > 0 => {
                next = Some(request(connection, user, &found, &config.rule).await?);
                renewed.requested = true;
            }
            RenewalMode::OnPayment => renewed.capped = plan.capped,
        }
        if renewed.capped {
            renewed.capped = tell_capped(connection, user, &found, &config.rule).await?;
            let later = found.now.checked_add(CAPPED_PAUSE).unwrap_or(Timestamp::MAX);
            next = Some(next_month(found.now, &found.zone).map_or(later, |month| month.min(later)));
        }
    }
    set_next(connection, user, next).await?;
    Ok((renewed, acts))
}

async fn find(connection: &mut PgConnection, user: UserId) -> Result<Found, StoreError> {
    let row = sqlx::query!(
        r#"SELECT a.used_tokens, a.total_tokens, a.time_zone, now() AS "now!", r.capped_month AS "capped_month?",
                  p.id AS "pending?", p.expires_at AS "expires_at?"
           FROM user_accounts a
           LEFT JOIN auto_renewals r ON r.user_id = a.id
           LEFT JOIN renewals p ON p.user_id = a.id AND p.state = 'pending'
           WHERE a.id = $1"#,
        user.0,
    )
    .fetch_one(connection)
    .await?;
    // A name that this machine's zones do not have is as good as none.
    let zone = row.time_zone.and_then(|name| TimeZone::get(&name).ok()).unwrap_or(TimeZone::UTC);
    Ok(Found {
        used: unsigned(row.used_tokens)?,
        total: unsigned(row.total_tokens)?,
        zone,
        now: row.now.to_jiff(),
        pending: row.pending.zip(row.expires_at.map(|at| at.to_jiff())),
        capped_month: row.capped_month,
    })
}

/// Renewals that were granted in this month.
async fn counted(connection: &mut PgConnection, user: UserId, month: &str) -> Result<u32, StoreError> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM renewals WHERE user_id = $1 AND month = $2 AND state = 'granted'"#,
        user.0,
        month,
    )
    .fetch_one(connection)
    .await?;
    u32::try_from(count).map_err(StoreError::corrupt)
}

/// The month it is for this user now.
pub(super) async fn zoned_month(connection: &mut PgConnection, user: UserId) -> Result<String, StoreError> {
    Ok(find(connection, user).await?.month())
}

/// One renewal, granted at once; gives what is to be put on record of it.
async fn grant_now(
    connection: &mut PgConnection,
    user: UserId,
    found: &mut Found,
    rule: &RenewalRule,
) -> Result<Act, StoreError> {
    let id = Uuid::now_v7();
    let tokens = rule.tokens().get();
    let credit = Credit::new(GrantKind::Renewal, tokens.cast_signed(), key(id));
    let facts = json!({"renewal_id": id.to_string(), "period": found.month()});
    let grant = insert(connection, user, &credit, facts).await?;
    let grant = grant.ok_or_else(|| StoreError::corrupt("a renewal without a payment met one"))?;
    sqlx::query!(
        "INSERT INTO renewals (id, user_id, mode, state, tokens, used_tokens, total_tokens, month, finished_at,
                               grant_id)
         VALUES ($1, $2, $3, 'granted', $4, $5, $6, $7, now(), $8)",
        id,
        user.0,
        RenewalMode::Immediate.as_str(),
        tokens.cast_signed(),
        found.used.cast_signed(),
        found.total.cast_signed(),
        found.month(),
        grant.id,
    )
    .execute(&mut *connection)
    .await?;
    found.total += tokens;
    Ok(act(&grant))
}

/// The key of the grant that a renewal makes.
pub(super) fn key(renewal: Uuid) -> String {
    format!("renewal:{renewal}")
}

/// Asks for the payment of a renewal; gives the end of the request.
async fn request(
    connection: &mut PgConnection,
    user: UserId,
    found: &Found,
    rule: &RenewalRule,
) -> Result<Timestamp, StoreError> {
    let (id, tokens, end) = (Uuid::now_v7(), rule.tokens().get(), request_ends(found.now));
    sqlx::query!(
        "INSERT INTO renewals (id, user_id, mode, state, tokens, used_tokens, total_tokens, month, expires_at)
         VALUES ($1, $2, $3, 'pending', $4, $5, $6, $7, $8::timestamptz)",
        id,
        user.0,
        RenewalMode::OnPayment.as_str(),
        tokens.cast_signed(),
        found.used.cast_signed(),
        found.total.cast_signed(),
        found.month(),
        jiff_sqlx::Timestamp::from(end) as _,
    )
    .execute(&mut *connection)
    .await?;
    let mut data = facts(found, rule);
    data["renewal_id"] = id.to_string().into();
    data["tokens"] = tokens.into();
    data["expires_at"] = end.to_string().into();
    events::append(connection, &[NewEvent { user, kind: EventKind::RenewalRequested, data }]).await?;
    Ok(end)
}

/// Ends the request that waits, if there is one.
pub(super) async fn end_request(
    connection: &mut PgConnection,
    user: UserId,
    state: RenewalState,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE renewals SET state = $2, finished_at = now() WHERE user_id = $1 AND state = 'pending'",
        user.0,
        state.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Tells once a month that no renewal is left; says whether it did so now.
async fn tell_capped(
    connection: &mut PgConnection,
    user: UserId,
    found: &Found,
    rule: &RenewalRule,
) -> Result<bool, StoreError> {
    let month = found.month();
    if found.capped_month.as_deref() == Some(month.as_str()) {
        return Ok(false);
    }
    sqlx::query!("UPDATE auto_renewals SET capped_month = $2 WHERE user_id = $1", user.0, month)
        .execute(&mut *connection)
        .await?;
    let data = facts(found, rule);
    events::append(connection, &[NewEvent { user, kind: EventKind::RenewalCapped, data }]).await?;
    Ok(true)
}

async fn set_next(
    connection: &mut PgConnection,
    user: UserId,
    next: Option<Timestamp>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE auto_renewals SET check_at = $2::timestamptz WHERE user_id = $1",
        user.0,
        next.map(jiff_sqlx::Timestamp::from) as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What every event about a renewal that is due says.
fn facts(found: &Found, rule: &RenewalRule) -> serde_json::Value {
    json!({
        "spent": found.used,
        "limit": found.total,
        "remaining": found.total.cast_signed() - found.used.cast_signed(),
        "threshold": rule.threshold().as_f64(),
        "period": found.month(),
        "max_renewals": rule.max_renewals(),
    })
}
