//! Ids of users and reservations.

use std::{fmt, str::FromStr};

use uuid::Uuid;

/// Longest reservation id, in bytes (all of them ASCII).
pub const MAX_RESERVATION_ID_LENGTH: usize = 128;

/// A person or service with a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(pub Uuid);

impl UserId {
    /// Time-ordered and random enough that nobody guesses one.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl FromStr for UserId {
    type Err = IdError;

    /// Only the hyphenated form, so that a user has one spelling; and not nil, which is nobody.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let shape = text.len() == uuid::fmt::Hyphenated::LENGTH;
        if !shape || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(IdError::User);
        }
        Uuid::try_parse(text).ok().filter(|id| !id.is_nil()).map(Self).ok_or(IdError::User)
    }
}

/// The caller's idempotency key of a reservation or debit, scoped to the user:
/// 1–128 characters of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReservationId(Box<str>);

impl ReservationId {
    /// # Errors
    /// [`IdError::Reservation`] when empty, too long or with any other character.
    pub fn new(text: &str) -> Result<Self, IdError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if (1..=MAX_RESERVATION_ID_LENGTH).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Reservation)
        }
    }

    /// For callers that sent none: a UUIDv7.
    pub fn generate() -> Self {
        Self(Uuid::now_v7().to_string().into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("a user id is a UUID in its hyphenated form, and not nil")]
    User,
    #[error("a reservation id is 1 to 128 characters of A-Z a-z 0-9 . _ -")]
    Reservation,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservation_ids_of_wrong_form_are_refused() {
        for bad in
            ["", " ", "a b", "{x}", "a:b", "a}b{c", "*", "a\n", "a\0", "é", "😀", "a/b", &"x".repeat(129)]
        {
            assert_eq!(ReservationId::new(bad), Err(IdError::Reservation), "{bad:?}");
        }
        for good in ["a", "A.b_c-9", "..", &"x".repeat(128)] {
            assert_eq!(ReservationId::new(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_user_id_has_one_spelling() {
        let id = UserId::generate();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.0.simple().to_string().parse::<UserId>(), Err(IdError::User));
        assert_eq!(id.0.braced().to_string().parse::<UserId>(), Err(IdError::User));
        assert_eq!(id.to_string().to_uppercase().parse::<UserId>(), Err(IdError::User));
        assert_eq!("".parse::<UserId>(), Err(IdError::User));
        assert_eq!(Uuid::nil().to_string().parse::<UserId>(), Err(IdError::User));
    }
}
