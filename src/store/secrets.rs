//! E-mail addresses as rows hold them: sealed for their row, and found by a blind index of their lower case.

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{Store, StoreError, error::violates};
use crate::{
    crypto::{Indexed, Keyring, Place},
    quota::UserId,
};

/// The unique index over the blind indexes.
pub(super) const EMAIL_INDEX: &str = "user_accounts_email_index_key";

const EMAIL: Indexed<'static> = Indexed { table: "user_accounts", column: "email" };

/// An address on its way into a row.
pub(super) struct SealedEmail {
    pub(super) sealed: Vec<u8>,
    pub(super) index: Vec<u8>,
}

impl SealedEmail {
    pub(super) fn new(keyring: &Keyring, row: Uuid, email: &str) -> Result<Self, StoreError> {
        let sealed = keyring.seal(place(row), email.as_bytes())?;
        Ok(Self { sealed, index: email_index(keyring, email) })
    }
}

/// Where the address of an account is found, in whatever case it is written.
pub(super) fn email_index(keyring: &Keyring, email: &str) -> Vec<u8> {
    keyring.index(EMAIL, email.to_lowercase().as_bytes()).to_vec()
}

pub(super) fn open_email(keyring: &Keyring, row: Uuid, sealed: &[u8]) -> Result<String, StoreError> {
    let plain = keyring.open(place(row), sealed)?;
    String::from_utf8(plain).map_err(|_| StoreError::corrupt("a sealed address that is no text"))
}

fn place(row: Uuid) -> Place<'static> {
    Place { table: EMAIL.table, column: "email_sealed", row }
}

/// What came of sealing some plain addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmailsSealed {
    /// Accounts that were looked at.
    pub seen: usize,
    /// Where to go on; `None` at the end.
    pub next: Option<UserId>,
    /// Accounts whose address another one has, sealed already. They stay as they are, for an operator to decide.
    pub conflicts: Vec<UserId>,
}

impl Store {
    /// Seals the plain addresses of the next accounts by id, at most `limit`, in one SQL transaction. `keep` leaves the
    /// plain ones beside them, for replicas that know nothing else; else they are emptied. May be repeated.
    pub async fn seal_emails(
        &self,
        after: Option<UserId>,
        limit: u32,
        keep: bool,
    ) -> Result<EmailsSealed, StoreError> {
        let after = after.map_or(Uuid::nil(), |user| user.0);
        self.run(async |mut connection| {
            let mut transaction = connection.begin().await?;
            let rows = plain_emails(&mut transaction, after, limit).await?;
            let next = rows.last().filter(|_| rows.len() == limit as usize).map(|row| UserId(row.id));
            let conflicts = seal_rows(&mut transaction, &self.keyring, &rows, keep).await?;
            transaction.commit().await.map_err(StoreError::from_commit)?;
            Ok::<_, StoreError>(EmailsSealed { seen: rows.len(), next, conflicts })
        })
        .await
    }
}

struct PlainEmail {
    id: Uuid,
    email: String,
}

async fn plain_emails(
    connection: &mut PgConnection,
    after: Uuid,
    limit: u32,
) -> Result<Vec<PlainEmail>, sqlx::Error> {
    sqlx::query_as!(
        PlainEmail,
        r#"SELECT id, email AS "email!" FROM user_accounts
           WHERE email IS NOT NULL AND id > $1 ORDER BY id LIMIT $2 FOR NO KEY UPDATE"#,
        after,
        i64::from(limit),
    )
    .fetch_all(connection)
    .await
}

/// Seals rows by halves, so that an address that is taken holds up its own row alone; gives those.
async fn seal_rows(
    connection: &mut PgConnection,
    keyring: &Keyring,
    rows: &[PlainEmail],
    keep: bool,
) -> Result<Vec<UserId>, StoreError> {
    let mut conflicts = Vec::new();
    let mut ranges = vec![rows];
    while let Some(range) = ranges.pop() {
        if range.is_empty() {
            continue;
        }
        let mut savepoint = connection.begin().await?;
        match write_sealed(&mut savepoint, keyring, range, keep).await {
            Ok(()) => savepoint.commit().await?,
            Err(Taken::Address) => {
                savepoint.rollback().await?;
                if let [row] = range {
                    conflicts.push(UserId(row.id));
                } else {
                    let (first, second) = range.split_at(range.len() / 2);
                    ranges.extend([second, first]);
                }
            }
            Err(Taken::Not(error)) => return Err(error),
        }
    }
    Ok(conflicts)
}

/// Why rows were not written.
enum Taken {
    /// At least one of the addresses is another account's.
    Address,
    Not(StoreError),
}

async fn write_sealed(
    connection: &mut PgConnection,
    keyring: &Keyring,
    rows: &[PlainEmail],
    keep: bool,
) -> Result<(), Taken> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let sealed = rows.iter().map(|row| SealedEmail::new(keyring, row.id, &row.email));
    let sealed: Vec<SealedEmail> = sealed.collect::<Result<_, _>>().map_err(Taken::Not)?;
    let (sealed, indexes): (Vec<_>, Vec<_>) = sealed.into_iter().map(|e| (e.sealed, e.index)).unzip();
    let done = sqlx::query!(
        "UPDATE user_accounts a
         SET email_sealed = s.sealed, email_index = s.index, email = CASE WHEN $4 THEN a.email END
         FROM UNNEST($1::uuid[], $2::bytea[], $3::bytea[]) AS s (id, sealed, index) WHERE a.id = s.id",
        &ids,
        &sealed,
        &indexes,
        keep,
    )
    .execute(connection)
    .await;
    match done {
        Ok(_) => Ok(()),
        Err(error) if violates(&error, EMAIL_INDEX) => Err(Taken::Address),
        Err(error) => Err(Taken::Not(error.into())),
    }
}
