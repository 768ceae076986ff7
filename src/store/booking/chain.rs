//! The row of a batch in the audit chain of its partition, in the same SQL transaction as its transactions.

use std::collections::HashMap;

use sqlx::PgConnection;

use crate::{
    quota::{Entry, OutboxId, PartitionId},
    store::{
        StoreError,
        audit::chain::{BatchDigest, Content, LedgerFields, Link, append},
    },
};

/// Adds the row for the transactions that were really inserted; none for none. The chain is locked with the partition.
pub(super) async fn chain(
    connection: &mut PgConnection,
    partition: PartitionId,
    link: Link,
    rows: &[&Entry],
    refused: &HashMap<OutboxId, String>,
) -> Result<(), StoreError> {
    let mut inserted: Vec<_> = rows
        .iter()
        .filter(|entry| !refused.contains_key(&entry.outbox_id))
        .map(|entry| (entry.transaction_id(), *entry))
        .collect();
    if inserted.is_empty() {
        return Ok(());
    }
    inserted.sort_unstable_by_key(|(id, _)| *id);
    let mut digest = BatchDigest::default();
    for (id, entry) in inserted {
        digest.add(&LedgerFields {
            id,
            user: entry.user.0,
            reservation: entry.reservation.as_str(),
            kind: entry.kind.as_str(),
            tokens: entry.tokens,
            model: entry.model.as_ref().map(|model| model.as_str()),
            request_id: entry.request_id.as_ref().map(|id| id.as_str()),
            input_tokens: entry.input_tokens.map(u64::cast_signed),
            output_tokens: entry.output_tokens.map(u64::cast_signed),
            cached_tokens: entry.cached_input_tokens.map(u64::cast_signed),
            cost_usd: None,
            flags: i16::from(entry.flags.0),
            at_ms: entry.at_ms.cast_signed(),
            outbox_sequence: entry.outbox_id.sequence.cast_signed(),
            outbox_nonce: entry.outbox_id.nonce.cast_signed(),
        });
    }
    let (at_us, data) = (link.at_us, digest.data());
    let actor = format!("partition-{}", partition.0);
    let row = Content {
        at_us,
        actor: &actor,
        actor_role: "service",
        action: "batch.booked",
        user: None,
        data: &data,
    };
    append(connection, link, &[row]).await
}
