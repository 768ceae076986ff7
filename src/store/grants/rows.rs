//! How grants are read.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Grant, GrantKind, Payment};
use crate::{
    quota::{Money, UserId},
    store::{Store, StoreError},
};

struct GrantRow {
    id: Uuid,
    user_id: Uuid,
    kind: String,
    tokens: i64,
    idempotency_key: String,
    reason: Option<String>,
    transaction_id: Option<Uuid>,
    created_at: jiff_sqlx::Timestamp,
    payment_method: Option<String>,
    amount_nano: Option<i64>,
    currency: Option<String>,
    provider: Option<String>,
    provider_reference: Option<String>,
}

impl GrantRow {
    fn payment(&mut self) -> Result<Option<Payment>, StoreError> {
        let (Some(method), Some(amount), Some(currency), Some(provider)) =
            (self.payment_method.take(), self.amount_nano, &self.currency, self.provider.take())
        else {
            return Ok(None);
        };
        let amount = Money::from_nano(amount).map_err(StoreError::corrupt)?;
        let currency = currency.parse().map_err(StoreError::corrupt)?;
        let reference = self.provider_reference.take();
        Ok(Some(Payment { method, amount, currency, provider, reference }))
    }
}

impl TryFrom<GrantRow> for Grant {
    type Error = StoreError;

    fn try_from(mut row: GrantRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            user: UserId(row.user_id),
            kind: GrantKind::from_name(&row.kind)
                .ok_or_else(|| StoreError::corrupt(format_args!("grant kind {:?}", row.kind)))?,
            tokens: row.tokens,
            payment: row.payment()?,
            idempotency_key: row.idempotency_key,
            reason: row.reason,
            transaction: row.transaction_id,
            created_at: row.created_at.to_jiff(),
        })
    }
}

impl Store {
    /// A user's grants with the payments behind them, newest first, those before `before`, at most `limit`.
    pub async fn grants(
        &self,
        user: UserId,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Grant>, StoreError> {
        let rows = self
            .run_as(user, async |mut connection| {
                sqlx::query_as!(
                    GrantRow,
                    r#"SELECT g.id, g.user_id, g.kind, g.tokens, g.idempotency_key, g.reason, g.transaction_id,
                              g.created_at, p.payment_method AS "payment_method?",
                              (p.amount_paid * 1000000000)::bigint AS "amount_nano?", p.currency AS "currency?",
                              p.provider AS "provider?", p.provider_reference
                       FROM grants g LEFT JOIN credit_purchases p ON p.grant_id = g.id
                       WHERE g.user_id = $1 AND g.id < $2 ORDER BY g.id DESC LIMIT $3"#,
                    user.0,
                    before.unwrap_or(Uuid::max()),
                    i64::from(limit),
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        rows.into_iter().map(Grant::try_from).collect()
    }
}

/// The grant that a user's key has made.
pub(in crate::store) async fn by_key(
    connection: &mut PgConnection,
    user: UserId,
    key: &str,
) -> Result<Option<Grant>, StoreError> {
    sqlx::query_as!(
        GrantRow,
        r#"SELECT g.id, g.user_id, g.kind, g.tokens, g.idempotency_key, g.reason, g.transaction_id, g.created_at,
                  p.payment_method AS "payment_method?", (p.amount_paid * 1000000000)::bigint AS "amount_nano?",
                  p.currency AS "currency?", p.provider AS "provider?", p.provider_reference
           FROM grants g LEFT JOIN credit_purchases p ON p.grant_id = g.id
           WHERE g.user_id = $1 AND g.idempotency_key = $2"#,
        user.0,
        key,
    )
    .fetch_optional(connection)
    .await?
    .map(Grant::try_from)
    .transpose()
}

/// The grant that was made for a payment, whoever's it is.
pub(super) async fn by_reference(
    connection: &mut PgConnection,
    provider: &str,
    reference: &str,
) -> Result<Option<Grant>, StoreError> {
    sqlx::query_as!(
        GrantRow,
        r#"SELECT g.id, g.user_id, g.kind, g.tokens, g.idempotency_key, g.reason, g.transaction_id, g.created_at,
                  p.payment_method AS "payment_method?", (p.amount_paid * 1000000000)::bigint AS "amount_nano?",
                  p.currency AS "currency?", p.provider AS "provider?", p.provider_reference
           FROM credit_purchases p JOIN grants g ON g.id = p.grant_id
           WHERE p.provider = $1 AND p.provider_reference = $2"#,
        provider,
        reference,
    )
    .fetch_optional(connection)
    .await?
    .map(Grant::try_from)
    .transpose()
}
