//! The keys that seal what is secret at rest (`docs/SECRETS.md`).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Secret;

/// Longest id of a key, in bytes.
pub const MAX_KEY_ID_LENGTH: usize = 32;

/// The keyring. Needed by whatever reads or writes the database; empty by default.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeysConfig {
    /// Id of the key that seals what is written from now on.
    pub active: String,
    /// Base64 of 32 bytes, from which the indexes come that find sealed values. Stays the same for ever.
    pub index_key: Secret,
    pub ring: Vec<KeyConfig>,
}

/// A key of the ring, in exactly one of `key` and `key_file`: base64 of 32 bytes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// 1 to 32 characters of `a-z 0-9 . _ -`; stands with everything the key sealed.
    pub id: String,
    #[serde(default)]
    pub key: Option<Secret>,
    #[serde(default)]
    pub key_file: Option<PathBuf>,
}
