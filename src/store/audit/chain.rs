//! The bytes that are hashed, and how a row is added to a chain.

use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::store::StoreError;

pub(in crate::store) const HASH_LENGTH: usize = 32;

/// What stands before the first row of a chain.
pub(in crate::store) const NOTHING: [u8; HASH_LENGTH] = [0; HASH_LENGTH];

/// Feeds fields to SHA-256, each behind its length and a mark for absence: no two rows give the same bytes.
#[derive(Default)]
struct Fields(Sha256);

impl Fields {
    fn of(purpose: &str) -> Self {
        Self::default().bytes(purpose.as_bytes())
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }

    fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    fn number(mut self, number: i64) -> Self {
        self.0.update(number.to_be_bytes());
        self
    }

    fn maybe<T>(mut self, value: Option<T>, feed: impl FnOnce(Self, T) -> Self) -> Self {
        self.0.update([u8::from(value.is_some())]);
        match value {
            Some(value) => feed(self, value),
            None => self,
        }
    }

    fn hash(self) -> [u8; HASH_LENGTH] {
        self.0.finalize().into()
    }
}

/// A row of the log but for its place in the chain.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Content<'a> {
    /// Unix microseconds.
    pub at_us: i64,
    pub actor: &'a str,
    pub actor_role: &'a str,
    pub action: &'a str,
    pub user: Option<Uuid>,
    /// JSON.
    pub data: &'a str,
}

impl Content<'_> {
    /// The hash of the row with this content at that place.
    pub(in crate::store) fn hash(&self, chain: i16, number: i64, previous: &[u8]) -> [u8; HASH_LENGTH] {
        Fields::of("cota audit row v1")
            .number(i64::from(chain))
            .number(number)
            .bytes(previous)
            .number(self.at_us)
            .text(self.actor)
            .text(self.actor_role)
            .text(self.action)
            .maybe(self.user, |fields, user| fields.bytes(user.as_bytes()))
            .text(self.data)
            .hash()
    }
}

/// A transaction as the ledger has it, but for its metadata.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct LedgerFields<'a> {
    pub id: Uuid,
    pub user: Uuid,
    pub reservation: &'a str,
    pub kind: &'a str,
    pub tokens: i64,
    pub model: Option<&'a str>,
    pub request_id: Option<&'a str>,
    pub input_tokens: Option<i64>,
    pub output_tokens: Option<i64>,
    pub cached_tokens: Option<i64>,
    /// As `numeric(20, 9)` is written.
    pub cost_usd: Option<&'a str>,
    pub flags: i16,
    /// Unix milliseconds.
    pub at_ms: i64,
    pub outbox_sequence: i64,
    pub outbox_nonce: i64,
}

impl LedgerFields<'_> {
    fn hash(&self) -> [u8; HASH_LENGTH] {
        Fields::of("cota transaction v1")
            .bytes(self.id.as_bytes())
            .bytes(self.user.as_bytes())
            .text(self.reservation)
            .text(self.kind)
            .number(self.tokens)
            .maybe(self.model, Fields::text)
            .maybe(self.request_id, Fields::text)
            .maybe(self.input_tokens, Fields::number)
            .maybe(self.output_tokens, Fields::number)
            .maybe(self.cached_tokens, Fields::number)
            .maybe(self.cost_usd, Fields::text)
            .number(i64::from(self.flags))
            .number(self.at_ms)
            .number(self.outbox_sequence)
            .number(self.outbox_nonce)
            .hash()
    }
}

/// The digest over a batch's transactions, which come in the order of their ids.
#[derive(Default)]
pub(in crate::store) struct BatchDigest {
    hasher: Sha256,
    pub rows: u64,
    pub tokens: i64,
}

impl BatchDigest {
    pub(in crate::store) fn add(&mut self, row: &LedgerFields<'_>) {
        self.hasher.update(row.hash());
        self.rows += 1;
        self.tokens = self.tokens.saturating_add(row.tokens);
    }

    /// What the log says of the batch, as JSON.
    pub(in crate::store) fn data(self) -> String {
        let digest = hex(&self.hasher.finalize());
        serde_json::json!({"rows": self.rows, "tokens": self.tokens, "digest": digest}).to_string()
    }
}

pub(in crate::store) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where the next row of a chain goes. Lives as long as the lock on the chain: to the end of the SQL transaction.
#[derive(Debug)]
pub(in crate::store) struct Link {
    chain: i16,
    pub number: i64,
    previous: Vec<u8>,
    /// By the clock of Postgres.
    pub at_us: i64,
}

/// Locks a chain. One that has no row yet has to be locked otherwise: a partition's by that partition.
pub(in crate::store) async fn next(connection: &mut PgConnection, chain: i16) -> Result<Link, sqlx::Error> {
    let head = sqlx::query!(
        r#"SELECT h.number AS "number?", h.hash AS "hash?",
                  (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS "at_us!"
           FROM (SELECT) AS one
           LEFT JOIN (SELECT number, hash FROM audit_chains WHERE chain = $1 FOR NO KEY UPDATE) AS h ON true"#,
        chain,
    )
    .fetch_one(connection)
    .await?;
    Ok(Link {
        chain,
        number: head.number.unwrap_or(0) + 1,
        previous: head.hash.unwrap_or_else(|| NOTHING.to_vec()),
        at_us: head.at_us,
    })
}

/// Adds rows to a locked chain, in their order.
pub(in crate::store) async fn append(
    connection: &mut PgConnection,
    link: Link,
    rows: &[Content<'_>],
) -> Result<(), StoreError> {
    let Link { chain, number: first, mut previous, .. } = link;
    let mut columns = Columns::default();
    for (number, row) in (first..).zip(rows) {
        let hash = row.hash(chain, number, &previous).to_vec();
        columns.push(number, std::mem::replace(&mut previous, hash.clone()), hash, row);
    }
    let Some(last) = columns.numbers.last().copied() else { return Ok(()) };
    let done = sqlx::query!(
        "WITH rows AS (
             INSERT INTO audit_log (chain, number, previous, hash, at, actor, actor_role, action, user_id, data)
             SELECT $1, number, previous, hash, 'epoch'::timestamptz + at_us * interval '1 microsecond', actor,
                    actor_role, action, user_id, data::json
             FROM UNNEST(
                 $2::bigint[], $3::bytea[], $4::bytea[], $5::bigint[], $6::text[], $7::text[], $8::text[],
                 $9::uuid[], $10::text[]
             ) AS r (number, previous, hash, at_us, actor, actor_role, action, user_id, data)
         )
         INSERT INTO audit_chains AS c (chain, number, hash) VALUES ($1, $11, $12)
         ON CONFLICT (chain) DO UPDATE SET number = EXCLUDED.number, hash = EXCLUDED.hash
         WHERE c.number = $13",
        chain,
        &columns.numbers,
        &columns.previous,
        &columns.hashes,
        &columns.at_us,
        &columns.actors as &[&str],
        &columns.roles as &[&str],
        &columns.actions as &[&str],
        &columns.users as &[Option<Uuid>],
        &columns.data as &[&str],
        last,
        previous,
        first - 1,
    )
    .execute(connection)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::corrupt("a locked audit chain moved")) }
}

/// Columns of `audit_log`, all of one length.
#[derive(Default)]
struct Columns<'a> {
    numbers: Vec<i64>,
    previous: Vec<Vec<u8>>,
    hashes: Vec<Vec<u8>>,
    at_us: Vec<i64>,
    actors: Vec<&'a str>,
    roles: Vec<&'a str>,
    actions: Vec<&'a str>,
    users: Vec<Option<Uuid>>,
    data: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, number: i64, previous: Vec<u8>, hash: Vec<u8>, row: &Content<'a>) {
        self.numbers.push(number);
        self.previous.push(previous);
        self.hashes.push(hash);
        self.at_us.push(row.at_us);
        self.actors.push(row.actor);
        self.roles.push(row.actor_role);
        self.actions.push(row.action);
        self.users.push(row.user);
        self.data.push(row.data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Content<'static> = Content {
        at_us: 1_700_000_000_000_000,
        actor: "admin-1",
        actor_role: "admin",
        action: "user.created",
        user: Some(Uuid::from_u128(7)),
        data: "{}",
    };

    #[test]
    fn the_hash_of_a_row_is_pinned() {
        // A change of this breaks every chain that there is.
        let hash = hex(&ROW.hash(-1, 1, &NOTHING));
        assert_eq!(hash, "6301550a6481fec47b27a4178ad1c6feab5b3c1df30974a166383a61bb7e2d4b");
    }

    #[test]
    fn every_field_and_the_place_count() {
        let hash = ROW.hash(-1, 1, &NOTHING);
        for other in [
            Content { at_us: 1, ..ROW },
            Content { actor: "admin-2", ..ROW },
            Content { actor_role: "user", ..ROW },
            Content { action: "user.changed", ..ROW },
            Content { user: None, ..ROW },
            Content { user: Some(Uuid::from_u128(8)), ..ROW },
            Content { data: "{ }", ..ROW },
            // The same letters, cut otherwise.
            Content { actor: "admin-1a", actor_role: "dmin", ..ROW },
        ] {
            assert_ne!(other.hash(-1, 1, &NOTHING), hash, "{other:?}");
        }
        assert_ne!(ROW.hash(0, 1, &NOTHING), hash);
        assert_ne!(ROW.hash(-1, 2, &NOTHING), hash);
        assert_ne!(ROW.hash(-1, 1, &hash), hash);
    }
}
