//! Bounded free text that travels with a reservation or transaction.

use std::fmt;

/// Longest model name, in bytes.
pub const MAX_MODEL_LENGTH: usize = 100;
/// Longest request id, in bytes.
pub const MAX_REQUEST_ID_LENGTH: usize = 255;
/// Longest metadata, in bytes of JSON as sent.
pub const MAX_METADATA_LENGTH: usize = 1024;

/// Why a text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    #[error("must not be empty")]
    Empty,
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    #[error("must not contain control characters")]
    Control,
    #[error("must be a JSON object")]
    NotAnObject,
}

fn checked(text: &str, longest: usize) -> Result<Box<str>, TextError> {
    if text.is_empty() {
        Err(TextError::Empty)
    } else if text.len() > longest {
        Err(TextError::TooLong(longest))
    } else if text.chars().any(char::is_control) {
        Err(TextError::Control)
    } else {
        Ok(text.into())
    }
}

macro_rules! bounded_text {
    ($(#[$doc:meta])* $name:ident, $longest:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// # Errors
            /// When empty, too long, or with control characters.
            pub fn new(text: &str) -> Result<Self, TextError> {
                checked(text, $longest).map(Self)
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

bounded_text!(
    /// Name of a model as the gateway calls it; any UTF-8, 1–100 bytes.
    Model,
    MAX_MODEL_LENGTH
);
bounded_text!(
    /// The gateway's own id of the call, for the ledger; any UTF-8, 1–255 bytes.
    RequestId,
    MAX_REQUEST_ID_LENGTH
);

/// A JSON object the caller hangs on a reservation; kept as sent, at most 1,024 bytes, and never looked into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata(Box<str>);

impl Metadata {
    /// Takes the text of a JSON object that a parser has already accepted.
    ///
    /// # Errors
    /// When it is no object, or too long.
    pub fn new(json: &str) -> Result<Self, TextError> {
        let json = json.trim();
        if json.len() > MAX_METADATA_LENGTH {
            Err(TextError::TooLong(MAX_METADATA_LENGTH))
        } else if !json.starts_with('{') {
            Err(TextError::NotAnObject)
        } else {
            Ok(Self(json.into()))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}
