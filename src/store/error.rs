//! What can go wrong between the service and Postgres.

use sqlx::error::DatabaseError;

use crate::crypto::{KeyringError, OpenError};

/// Why a call on the store has no answer.
///
/// Refusals that a caller can expect (a taken e-mail, an unknown user, a fenced booking) are values of each
/// method, not errors.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection, or Postgres said that it cannot now. Nothing was changed.
    #[error("Postgres is not available: {0}")]
    Unavailable(Box<str>),
    /// Deadlocks and serialization failures that outlived the store's own retries. Nothing was changed.
    #[error("Postgres was too contended: {0}")]
    Contended(Box<str>),
    /// The answer was lost, that of COMMIT included: done or not. Every method may be repeated.
    #[error("no answer from Postgres: {0}")]
    Unknown(Box<str>),
    /// The schema is not the one this program was built for.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// What Postgres holds cannot be: a value outside its domain, a row count that does not fit.
    #[error("Postgres holds what cannot be: {0}")]
    Corrupt(Box<str>),
    /// A sealed value cannot be opened: its key is missing, or it is not what was sealed.
    #[error(transparent)]
    Sealed(#[from] OpenError),
    /// Nothing can be sealed.
    #[error("{0}")]
    Sealing(Box<str>),
    /// A statement failed in a way no caller can mend: a bug, or rights that are missing.
    #[error("a statement failed: {0}")]
    Failed(Box<str>),
}

/// How the schema differs from the one this program was built for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    #[error("the database lacks migration {0}: run `cota migrate`")]
    Behind(i64),
    #[error("the database has migration {0}, which this program does not know: it is newer")]
    Ahead(i64),
    #[error("migration {0} was applied with another content")]
    Changed(i64),
    #[error("migration {0} was left half done")]
    Dirty(i64),
}

/// What the store makes of an SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Another transaction was in the way: run the whole again.
    Contention,
    /// A lock was not free in time.
    Locked,
    /// This row cannot be stored, however often it is tried.
    RefusesRow,
    /// The server is going away; whether the statement ran is open.
    Unknown,
    /// Not now.
    Unavailable,
    Failed,
}

pub(super) fn verdict(error: &dyn DatabaseError) -> Verdict {
    match error.code().as_deref() {
        Some("40001" | "40P01") => Verdict::Contention,
        Some("55P03") => Verdict::Locked,
        // The server ends the session while a statement may be under way.
        Some("57P01" | "57P02" | "25P03" | "57P05") => Verdict::Unknown,
        // Time-out of a statement, start-up and shutdown, too many connections, disk or memory full, a standby.
        Some("57014" | "57P03" | "25006") => Verdict::Unavailable,
        Some(code) if code.starts_with("53") || code.starts_with("08") || code.starts_with("58") => {
            Verdict::Unavailable
        }
        Some(code) if code.starts_with("22") || code.starts_with("23") => Verdict::RefusesRow,
        _ => Verdict::Failed,
    }
}

/// The verdict on an error of the driver, if Postgres itself spoke.
pub(super) fn verdict_of(error: &sqlx::Error) -> Option<Verdict> {
    error.as_database_error().map(verdict)
}

/// Whether this is the violation of the constraint or unique index of that name.
pub(super) fn violates(error: &sqlx::Error, constraint: &str) -> bool {
    error.as_database_error().and_then(DatabaseError::constraint) == Some(constraint)
}

impl StoreError {
    /// Whether the same call may succeed later. `Unknown` is: every method may be repeated.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Contended(_) | Self::Unknown(_) => true,
            Self::Schema(_) | Self::Corrupt(_) | Self::Sealed(_) | Self::Sealing(_) | Self::Failed(_) => {
                false
            }
        }
    }

    pub(super) fn corrupt(what: impl std::fmt::Display) -> Self {
        Self::Corrupt(what.to_string().into())
    }

    /// For errors before the first statement was sent: nothing can have happened.
    pub(super) fn from_acquire(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Configuration(_) => Self::Failed(error.to_string().into()),
            // The one setting of a session whose value may not exist is the role.
            sqlx::Error::Database(ref refused) if refused.code().as_deref() == Some("22023") => {
                Self::Failed(format!("{error}: run `cota migrate`, which makes it").into())
            }
            sqlx::Error::Database(ref refused) if verdict(refused.as_ref()) == Verdict::Failed => {
                Self::Failed(error.to_string().into())
            }
            _ => Self::Unavailable(error.to_string().into()),
        }
    }
}

impl From<KeyringError> for StoreError {
    fn from(error: KeyringError) -> Self {
        Self::Sealing(error.to_string().into())
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let text = || error.to_string().into();
        match verdict_of(&error) {
            Some(Verdict::Contention) => Self::Contended(text()),
            Some(Verdict::Locked | Verdict::Unavailable) => Self::Unavailable(text()),
            Some(Verdict::Unknown) => Self::Unknown(text()),
            Some(Verdict::RefusesRow | Verdict::Failed) => Self::Failed(text()),
            None => match error {
                sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => Self::Unavailable(text()),
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::RowNotFound => {
                    Self::Corrupt(text())
                }
                sqlx::Error::Encode(_) | sqlx::Error::Configuration(_) => Self::Failed(text()),
                _ => Self::Unknown(text()),
            },
        }
    }
}

impl StoreError {
    /// For COMMIT: whatever went wrong short of a refusal by Postgres, it may have been done.
    pub(super) fn from_commit(error: sqlx::Error) -> Self {
        match verdict_of(&error) {
            Some(Verdict::Unavailable) => Self::Unknown(error.to_string().into()),
            _ => error.into(),
        }
    }
}
