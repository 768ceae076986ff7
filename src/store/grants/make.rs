//! One grant, in one SQL transaction.
//!
//! The transaction holds the account's row from its first statement to its end. So grants of one account are made one
//! after the other, and beside no booking of it; and whatever is decided from the account's numbers is decided on the
//! truth. Two users that report one payment at once meet in the unique key of payments.

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{
    Credit, CreditOutcome, Grant, GrantKind, Payment,
    rows::{by_key, by_reference},
};
use crate::{
    crypto::Keyring,
    quota::{EventKind, MAX_OPERATION_TOKENS, MAX_TOTAL_TOKENS, UserId},
    store::{
        MAX_ATTEMPTS, Store, StoreError, User, alerts,
        audit::{Act, Action, record},
        error::violates,
        events::{self, NewEvent},
        users::select_user,
    },
};

impl Store {
    /// Makes a grant, once per key and once per payment, in one SQL transaction that holds the account's row: calls
    /// with the same key queue up there and all but the first find the grant. Raises the account's version, so that
    /// the sync worker hands the new total to Redis.
    pub async fn credit(&self, user: UserId, credit: &Credit) -> Result<CreditOutcome, StoreError> {
        let mut attempt = 1;
        loop {
            let done = self
                .run(async |mut connection| credit_once(&mut connection, &self.keyring, user, credit).await);
            match done.await {
                Err(StoreError::Contended(_)) if attempt < MAX_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }
}

async fn credit_once(
    connection: &mut PgConnection,
    keyring: &Keyring,
    user: UserId,
    credit: &Credit,
) -> Result<CreditOutcome, StoreError> {
    let mut transaction = connection.begin().await?;
    let Some(total) = lock_account(&mut transaction, user).await? else {
        return Ok(CreditOutcome::UserNotFound);
    };
    if let Some(outcome) = made_before(&mut transaction, keyring, user, credit).await? {
        return Ok(outcome);
    }
    if let Some(refusal) = refusal(&mut transaction, user, total, credit).await? {
        return Ok(refusal);
    }
    let Some(grant) = insert(&mut transaction, user, credit, json!({})).await? else {
        return Ok(CreditOutcome::PaymentUsed);
    };
    let user = account(&mut transaction, keyring, user).await?;
    record(&mut transaction, keyring, act(&grant)).await?;
    transaction.commit().await.map_err(StoreError::from_commit)?;
    Ok(CreditOutcome::Granted { grant, user })
}

/// Locks the account and says what it has been granted so far. `NO KEY`: bookings only refer to the row.
pub(in crate::store) async fn lock_account(
    connection: &mut PgConnection,
    user: UserId,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT total_tokens FROM user_accounts WHERE id = $1 AND status <> 'deleted' FOR NO KEY UPDATE",
        user.0,
    )
    .fetch_optional(connection)
    .await
}

/// What the key, or else the payment, was granted for before.
async fn made_before(
    connection: &mut PgConnection,
    keyring: &Keyring,
    user: UserId,
    credit: &Credit,
) -> Result<Option<CreditOutcome>, StoreError> {
    let same = |earlier: &Grant| {
        earlier.kind == credit.kind && earlier.tokens == credit.tokens && earlier.payment == credit.payment
    };
    if let Some(earlier) = by_key(connection, user, &credit.idempotency_key).await? {
        if !same(&earlier) || earlier.transaction != credit.transaction {
            return Ok(Some(CreditOutcome::Mismatch));
        }
        let user = account(connection, keyring, user).await?;
        return Ok(Some(CreditOutcome::Replayed { grant: earlier, user }));
    }
    let Some(payment) = &credit.payment else { return Ok(None) };
    match by_payment(connection, payment).await? {
        None => Ok(None),
        Some(earlier) if earlier.user == user && same(&earlier) => {
            let user = account(connection, keyring, user).await?;
            Ok(Some(CreditOutcome::Replayed { grant: earlier, user }))
        }
        Some(_) => Ok(Some(CreditOutcome::PaymentUsed)),
    }
}

/// Whether this payment was credited before, for whatever and to whomever.
pub(in crate::store) async fn is_paid(
    connection: &mut PgConnection,
    payment: &Payment,
) -> Result<bool, StoreError> {
    Ok(by_payment(connection, payment).await?.is_some())
}

async fn by_payment(connection: &mut PgConnection, payment: &Payment) -> Result<Option<Grant>, StoreError> {
    match &payment.reference {
        Some(reference) => by_reference(connection, &payment.provider, reference).await,
        None => Ok(None),
    }
}

/// Why the grant cannot be made of this account.
async fn refusal(
    connection: &mut PgConnection,
    user: UserId,
    total: i64,
    credit: &Credit,
) -> Result<Option<CreditOutcome>, StoreError> {
    let tokens = credit.tokens;
    let carries = tokens != 0 && tokens.unsigned_abs() <= MAX_OPERATION_TOKENS;
    if !carries || (tokens < 0 && credit.kind != GrantKind::Adjustment) {
        return Ok(Some(CreditOutcome::OutOfRange));
    }
    if let Some(transaction) = credit.transaction {
        let Some(left) = left_of(connection, user, transaction).await? else {
            return Ok(Some(CreditOutcome::TransactionNotFound));
        };
        if tokens > left {
            return Ok(Some(CreditOutcome::Exceeds { limit: left.max(0).unsigned_abs() }));
        }
    }
    let total_after = total.saturating_add(tokens);
    Ok(if total_after < 0 {
        Some(CreditOutcome::Exceeds { limit: total.max(0).unsigned_abs() })
    } else if total_after > MAX_TOTAL_TOKENS as i64 {
        Some(CreditOutcome::OutOfRange)
    } else {
        None
    })
}

/// What may still be given back of a transaction: what its reservation was charged in all (an expiry and its correction
/// are one charge), less what was given back, plus what was taken in addition. `None` when the user has no such
/// transaction.
async fn left_of(
    connection: &mut PgConnection,
    user: UserId,
    transaction: Uuid,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"WITH charged AS (
               SELECT t.id, t.tokens_used
               FROM token_transactions named
               JOIN token_transactions t ON t.user_id = named.user_id AND t.reservation_id = named.reservation_id
               WHERE named.id = $1 AND named.user_id = $2
           )
           SELECT (sum(tokens_used) - coalesce(
                      (SELECT sum(g.tokens) FROM grants g WHERE g.transaction_id IN (SELECT id FROM charged)), 0
                  ))::bigint
           FROM charged"#,
        transaction,
        user.0,
    )
    .fetch_one(connection)
    .await
}

/// The grant, its payment and the new total, the event that tells of it (with `facts` beside its own), and the alerts
/// where they now belong. The caller holds the account's row, has checked the amount, and puts the [`act`] on record at the
/// end of its SQL transaction. `None` when another user's
/// grant was made for the payment meanwhile: then the SQL transaction is at its end.
pub(in crate::store) async fn insert(
    connection: &mut PgConnection,
    user: UserId,
    credit: &Credit,
    facts: Value,
) -> Result<Option<Grant>, StoreError> {
    let id = Uuid::now_v7();
    let created_at = sqlx::query_scalar!(
        "INSERT INTO grants (id, user_id, kind, tokens, idempotency_key, reason, transaction_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING created_at",
        id,
        user.0,
        credit.kind.as_str(),
        credit.tokens,
        credit.idempotency_key,
        credit.reason,
        credit.transaction,
    )
    .fetch_one(&mut *connection)
    .await?;
    if let Some(payment) = &credit.payment {
        match record_payment(connection, id, user, credit.tokens, payment).await {
            Err(error) if violates(&error, "credit_purchases_once") => return Ok(None),
            recorded => recorded?,
        }
    }
    raise_total(connection, user, credit.tokens).await?;
    let grant = Grant {
        id,
        user,
        kind: credit.kind,
        tokens: credit.tokens,
        idempotency_key: credit.idempotency_key.clone(),
        reason: credit.reason.clone(),
        payment: credit.payment.clone(),
        transaction: credit.transaction,
        created_at: created_at.to_jiff(),
    };
    tell(connection, &grant, facts).await?;
    alerts::settle(connection, &[user.0], alerts::Cause::Grant(credit.kind)).await?;
    Ok(Some(grant))
}

async fn record_payment(
    connection: &mut PgConnection,
    grant: Uuid,
    user: UserId,
    tokens: i64,
    payment: &Payment,
) -> Result<(), sqlx::Error> {
    // A product of numerics is exact, where a quotient would be rounded.
    sqlx::query!(
        "INSERT INTO credit_purchases (grant_id, user_id, tokens_purchased, payment_method, amount_paid, currency,
                                       provider, provider_reference)
         VALUES ($1, $2, $3, $4, $5::bigint * 0.000000001, $6, $7, $8)",
        grant,
        user.0,
        tokens,
        payment.method,
        payment.amount.nano(),
        payment.currency.as_str(),
        payment.provider,
        payment.reference,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn raise_total(connection: &mut PgConnection, user: UserId, tokens: i64) -> Result<(), StoreError> {
    let changed = sqlx::query!(
        "UPDATE user_accounts SET total_tokens = total_tokens + $2, version = version + 1, updated_at = now()
         WHERE id = $1",
        user.0,
        tokens,
    )
    .execute(connection)
    .await?
    .rows_affected();
    if changed == 1 {
        Ok(())
    } else {
        Err(StoreError::corrupt(format_args!("{changed} accounts have the id {user}")))
    }
}

/// The event of a grant, with the numbers it has led to.
async fn tell(connection: &mut PgConnection, grant: &Grant, facts: Value) -> Result<(), StoreError> {
    let now = sqlx::query!("SELECT used_tokens, total_tokens FROM user_accounts WHERE id = $1", grant.user.0)
        .fetch_one(&mut *connection)
        .await?;
    let mut data = facts;
    data["grant_id"] = grant.id.to_string().into();
    data["kind"] = grant.kind.as_str().into();
    data["tokens"] = grant.tokens.into();
    data["reason"] = grant.reason.clone().into();
    data["transaction_id"] = grant.transaction.map(|id| id.to_string()).into();
    data["payment"] = grant.payment.as_ref().map_or(Value::Null, |payment| {
        json!({
            "method": payment.method,
            "amount": payment.amount.to_string(),
            "currency": payment.currency.as_str(),
            "provider": payment.provider,
            "reference": payment.reference,
        })
    });
    data["spent"] = now.used_tokens.into();
    data["total"] = now.total_tokens.into();
    data["remaining"] = (now.total_tokens - now.used_tokens).into();
    let kind = match grant.kind {
        GrantKind::Renewal => EventKind::RenewalGranted,
        _ => EventKind::CreditGranted,
    };
    events::append(connection, &[NewEvent { user: grant.user, kind, data }]).await?;
    Ok(())
}

/// What goes on record about a grant.
pub(in crate::store) fn act(grant: &Grant) -> Act {
    let data = json!({"grant_id": grant.id, "kind": grant.kind.as_str(), "tokens": grant.tokens});
    Act { action: Action::GrantMade, user: Some(grant.user), data }
}

/// The account of a locked row.
pub(in crate::store) async fn account(
    connection: &mut PgConnection,
    keyring: &Keyring,
    user: UserId,
) -> Result<User, StoreError> {
    let row = select_user(connection, user).await?;
    row.ok_or(StoreError::Corrupt("a locked account is gone".into()))?.open(keyring)
}
