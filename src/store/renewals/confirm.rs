//! A request that is paid: its tokens are granted, once.

use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{
    Renewal, RenewalRow, RenewalState,
    evaluate::{key, look, zoned_month},
};
use crate::{
    crypto::Keyring,
    quota::{MAX_TOTAL_TOKENS, UserId},
    store::{
        Credit, Grant, GrantKind, MAX_ATTEMPTS, Payment, Store, StoreError, User,
        audit::record_together,
        grants::{account, act, by_key, insert, is_paid, lock_account},
    },
};

/// What came of a confirmation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// Granted now; `user` is as the grant left it.
    Granted {
        renewal: Renewal,
        grant: Grant,
        user: User,
    },
    /// Granted before; `user` is as it is now.
    Replayed {
        renewal: Renewal,
        grant: Grant,
        user: User,
    },
    /// It was confirmed before with another payment; nothing changed.
    Mismatch,
    /// The payment was credited before, for something else; nothing changed.
    PaymentUsed,
    /// The request was cancelled, or had expired; nothing changed.
    Finished(RenewalState),
    NotFound,
    /// The total would reach 2^53; nothing changed.
    OutOfRange,
}

impl Store {
    /// Grants a requested renewal, once, in an SQL transaction that holds the account's row: of many confirmations at
    /// once all but the first find it granted. It counts in the calendar month of the grant. What is still due then is
    /// requested at once.
    pub async fn confirm_renewal(
        &self,
        user: UserId,
        renewal: Uuid,
        payment: Option<&Payment>,
    ) -> Result<Confirmation, StoreError> {
        let mut attempt = 1;
        loop {
            let done = self.run(async |mut connection| {
                confirm_once(&mut connection, &self.keyring, user, renewal, payment).await
            });
            match done.await {
                Err(StoreError::Contended(_)) if attempt < MAX_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }
}

async fn confirm_once(
    connection: &mut PgConnection,
    keyring: &Keyring,
    user: UserId,
    id: Uuid,
    payment: Option<&Payment>,
) -> Result<Confirmation, StoreError> {
    let mut transaction = connection.begin().await?;
    let Some(total) = lock_account(&mut transaction, user).await? else {
        return Ok(Confirmation::NotFound);
    };
    let Some(renewal) = select(&mut transaction, user, id).await? else {
        return Ok(Confirmation::NotFound);
    };
    match renewal.state {
        RenewalState::Pending => {}
        RenewalState::Granted => return replay(&mut transaction, keyring, user, renewal, payment).await,
        state => return Ok(Confirmation::Finished(state)),
    }
    if total.unsigned_abs() + renewal.tokens > MAX_TOTAL_TOKENS {
        return Ok(Confirmation::OutOfRange);
    }
    if let Some(payment) = payment
        && is_paid(&mut transaction, payment).await?
    {
        return Ok(Confirmation::PaymentUsed);
    }
    let month = zoned_month(&mut transaction, user).await?;
    let credit = Credit {
        payment: payment.cloned(),
        ..Credit::new(GrantKind::Renewal, renewal.tokens.cast_signed(), key(id))
    };
    let facts = json!({"renewal_id": id.to_string(), "period": month});
    let Some(grant) = insert(&mut transaction, user, &credit, facts).await? else {
        return Ok(Confirmation::PaymentUsed);
    };
    finish(&mut transaction, id, &grant, &month).await?;
    let (_, made) = look(&mut transaction, user).await?;
    let mut acts = vec![act(&grant)];
    acts.extend(made);
    let renewal = select(&mut transaction, user, id).await?;
    let renewal = renewal.ok_or_else(|| StoreError::corrupt("a renewal is gone"))?;
    let user = account(&mut transaction, keyring, user).await?;
    record_together(&mut transaction, keyring, acts).await?;
    transaction.commit().await.map_err(StoreError::from_commit)?;
    Ok(Confirmation::Granted { renewal, grant, user })
}

async fn select(
    connection: &mut PgConnection,
    user: UserId,
    id: Uuid,
) -> Result<Option<Renewal>, StoreError> {
    sqlx::query_as!(
        RenewalRow,
        "SELECT id, user_id, mode, state, tokens, used_tokens, total_tokens, month, requested_at, expires_at,
                finished_at, grant_id
         FROM renewals WHERE id = $1 AND user_id = $2",
        id,
        user.0,
    )
    .fetch_optional(connection)
    .await?
    .map(Renewal::try_from)
    .transpose()
}

/// The first answer again; a payment that is named has to be the same.
async fn replay(
    connection: &mut PgConnection,
    keyring: &Keyring,
    user: UserId,
    renewal: Renewal,
    payment: Option<&Payment>,
) -> Result<Confirmation, StoreError> {
    let grant = by_key(connection, user, &key(renewal.id)).await?;
    let grant = grant.ok_or_else(|| StoreError::corrupt("a granted renewal has no grant"))?;
    if payment.is_some() && grant.payment.as_ref() != payment {
        return Ok(Confirmation::Mismatch);
    }
    let user = account(connection, keyring, user).await?;
    Ok(Confirmation::Replayed { renewal, grant, user })
}

async fn finish(
    connection: &mut PgConnection,
    id: Uuid,
    grant: &Grant,
    month: &str,
) -> Result<(), StoreError> {
    let changed = sqlx::query!(
        "UPDATE renewals SET state = 'granted', grant_id = $2, month = $3, finished_at = now()
         WHERE id = $1 AND state = 'pending'",
        id,
        grant.id,
        month,
    )
    .execute(connection)
    .await?
    .rows_affected();
    if changed == 1 { Ok(()) } else { Err(StoreError::corrupt("a pending renewal is gone")) }
}
