//! The keyring: seals and opens single values, makes blind indexes, and signs checkpoints.
//!
//! Each key of the ring is the root of two others, derived by HKDF-SHA256 for one use each: AES-256-GCM for sealing,
//! Ed25519 for signing. One key is active: what is written is sealed by it; the others still open what they sealed. The
//! index key is a root of its own, since every stored index would have to be made anew with it.
//!
//! A sealed value is `version (1 byte) ‖ length of key id (1) ‖ key id ‖ nonce (12) ‖ ciphertext ‖ tag (16)`. The nonce
//! is random; one key may seal 2^32 values. The place (table, column, row) and the head are authenticated with it.

use std::{collections::BTreeMap, fmt, fs, sync::Arc};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hkdf, hmac,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use super::{Indexed, Place};
use crate::config::{KeyConfig, KeysConfig, MAX_KEY_ID_LENGTH, Secret};

/// Of the form of sealed values.
const VERSION: u8 = 1;

const TAG_LENGTH: usize = 16;

/// Bytes of each key.
const KEY_LENGTH: usize = 32;

/// Bytes of a blind index.
const INDEX_LENGTH: usize = 32;

/// Keys in use; cheap to clone. Shows nothing of them but their ids.
#[derive(Clone)]
pub struct Keyring(Arc<Ring>);

struct Ring {
    active: String,
    keys: BTreeMap<String, Key>,
    index: hmac::Key,
}

/// What is derived from one key of the ring.
struct Key {
    sealing: RandomizedNonceKey,
    signing: Ed25519KeyPair,
}

/// Why there is no keyring. Tells ids, never keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error("keys.ring is empty: `cota keys generate` prints a configuration with new keys")]
    Empty,
    #[error("keys.active names {0:?}, which is not in keys.ring")]
    NoActive(String),
    #[error("keys.ring: an id is 1 to {MAX_KEY_ID_LENGTH} characters of a-z 0-9 . _ -, not {0:?}")]
    Id(String),
    #[error("keys.ring: {0:?} is there twice")]
    Twice(String),
    #[error("keys.ring, {0:?}: give either key or key_file")]
    Source(String),
    #[error("keys.ring, {0:?}: cannot read its file: {1}")]
    File(String, std::io::Error),
    #[error("{0}: a key is the base64 of exactly {KEY_LENGTH} bytes")]
    Form(String),
    #[error("the cryptographic library failed")]
    Library,
}

/// Why a sealed value cannot be opened. Tells ids, never what was sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Put that key back into the ring.
    #[error("sealed with the key {0:?}, which is not in keys.ring")]
    UnknownKey(String),
    #[error("sealed in a form this version does not know")]
    UnknownForm,
    /// Changed, moved from another row, or sealed by another key of the same id.
    #[error("the seal with the key {0:?} is broken")]
    Broken(String),
}

/// A signature, and which key made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    pub key_id: String,
    /// Ed25519, 64 bytes.
    pub signature: Vec<u8>,
    /// Of that key, 32 bytes: lets a signature be checked by who has no keyring.
    pub public_key: Vec<u8>,
}

impl Keyring {
    /// The keys that the configuration names, those in files read.
    ///
    /// # Errors
    /// When there is none, or one is no key; the text names it by its id.
    pub fn of(config: &KeysConfig) -> Result<Self, KeyringError> {
        if config.ring.is_empty() {
            return Err(KeyringError::Empty);
        }
        let mut keys = BTreeMap::new();
        for entry in &config.ring {
            let id = &entry.id;
            if !is_key_id(id) {
                return Err(KeyringError::Id(id.clone()));
            }
            let text = match (&entry.key, &entry.key_file) {
                (Some(key), None) => key.clone(),
                (None, Some(path)) => {
                    Secret::new(fs::read_to_string(path).map_err(|e| KeyringError::File(id.clone(), e))?)
                }
                _ => return Err(KeyringError::Source(id.clone())),
            };
            let key = Key::of(&decoded(&format!("keys.ring, {id:?}"), &text)?)?;
            if keys.insert(id.clone(), key).is_some() {
                return Err(KeyringError::Twice(id.clone()));
            }
        }
        if !keys.contains_key(&config.active) {
            return Err(KeyringError::NoActive(config.active.clone()));
        }
        let index = derived(&decoded("keys.index_key", &config.index_key)?, b"cota index v1")?;
        let index = hmac::Key::new(hmac::HMAC_SHA256, &index);
        Ok(Self(Arc::new(Ring { active: config.active.clone(), keys, index })))
    }

    /// A configuration with new random keys, of which the one in the ring has this id.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate(id: &str) -> Result<KeysConfig, KeyringError> {
        let random = || {
            let mut key = [0; KEY_LENGTH];
            aws_lc_rs::rand::fill(&mut key).map_err(|_| KeyringError::Library)?;
            Ok(Secret::new(BASE64.encode(key)))
        };
        let key = KeyConfig { id: id.to_owned(), key: Some(random()?), key_file: None };
        Ok(KeysConfig { active: id.to_owned(), index_key: random()?, ring: vec![key] })
    }

    /// The id of the key that seals from now on.
    pub fn active(&self) -> &str {
        &self.0.active
    }

    /// Seals a value for one place, with the active key.
    ///
    /// # Errors
    /// When the cryptographic library fails, which takes a system without random bytes.
    pub fn seal(&self, place: Place<'_>, plain: &[u8]) -> Result<Vec<u8>, KeyringError> {
        let key = self.0.keys.get(&self.0.active).ok_or(KeyringError::Library)?;
        let head = self.active_head();
        let mut body = plain.to_vec();
        let nonce = key
            .sealing
            .seal_in_place_append_tag(Aad::from(bound(place, &head)), &mut body)
            .map_err(|_| KeyringError::Library)?;
        Ok([&head[..], &nonce.as_ref()[..], &body].concat())
    }

    /// Opens what was sealed for this very place, whichever key of the ring did it.
    ///
    /// # Errors
    /// When that key is gone, or the value is not what was sealed there.
    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let (id, head, rest) = split(sealed).ok_or(OpenError::UnknownForm)?;
        let key = self.0.keys.get(id).ok_or_else(|| OpenError::UnknownKey(id.to_owned()))?;
        let broken = || OpenError::Broken(id.to_owned());
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or(OpenError::UnknownForm)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| broken())?;
        let mut body = body.to_vec();
        let plain = key.sealing.open_in_place(nonce, Aad::from(bound(place, head)), &mut body);
        let length = plain.map_err(|_| broken())?.len();
        body.truncate(length);
        Ok(body)
    }

    /// How every value starts that the active key sealed; what starts otherwise waits for a rotation.
    pub fn active_head(&self) -> Vec<u8> {
        let id = self.0.active.as_bytes();
        // An id has at most `MAX_KEY_ID_LENGTH` bytes.
        [&[VERSION, id.len() as u8][..], id].concat()
    }

    /// The blind index of a value: equal for equal values of one column, and without the index key nothing can be told
    /// of the value, nor whether another column has it too. The caller brings the value into its one spelling.
    pub fn index(&self, of: Indexed<'_>, value: &[u8]) -> [u8; INDEX_LENGTH] {
        let tag = hmac::sign(&self.0.index, &of.bytes(b"cota index v1", value));
        let mut index = [0; INDEX_LENGTH];
        index.copy_from_slice(tag.as_ref());
        index
    }

    /// Signs with the active key.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn sign(&self, message: &[u8]) -> Result<Signed, KeyringError> {
        let key = self.0.keys.get(&self.0.active).ok_or(KeyringError::Library)?;
        Ok(Signed {
            key_id: self.0.active.clone(),
            signature: key.signing.sign(message).as_ref().to_vec(),
            public_key: key.signing.public_key().as_ref().to_vec(),
        })
    }

    /// Whether the key of that id made this signature. `None` when the ring has no such key.
    pub fn verify(&self, key_id: &str, message: &[u8], signature: &[u8]) -> Option<bool> {
        let key = self.0.keys.get(key_id)?;
        let public = UnparsedPublicKey::new(&ED25519, key.signing.public_key().as_ref());
        Some(public.verify(message, signature).is_ok())
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("active", &self.0.active).finish_non_exhaustive()
    }
}

impl Key {
    fn of(root: &[u8; KEY_LENGTH]) -> Result<Self, KeyringError> {
        let sealing = RandomizedNonceKey::new(&AES_256_GCM, &derived(root, b"cota seal v1")?);
        let signing = Ed25519KeyPair::from_seed_unchecked(&derived(root, b"cota sign v1")?);
        Ok(Self {
            sealing: sealing.map_err(|_| KeyringError::Library)?,
            signing: signing.map_err(|_| KeyringError::Library)?,
        })
    }
}

/// HKDF-SHA256 (RFC 5869) with a salt of our own.
fn derived(root: &[u8; KEY_LENGTH], purpose: &[u8]) -> Result<[u8; KEY_LENGTH], KeyringError> {
    let mut key = [0; KEY_LENGTH];
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"cota keyring")
        .extract(root)
        .expand(&[purpose], hkdf::HKDF_SHA256)
        .and_then(|expanded| expanded.fill(&mut key))
        .map_err(|_| KeyringError::Library)?;
    Ok(key)
}

fn decoded(what: &str, text: &Secret) -> Result<[u8; KEY_LENGTH], KeyringError> {
    let form = || KeyringError::Form(what.to_owned());
    BASE64.decode(text.expose().trim()).map_err(|_| form())?.try_into().map_err(|_| form())
}

fn is_key_id(id: &str) -> bool {
    let is_part = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'_' | b'-');
    (1..=MAX_KEY_ID_LENGTH).contains(&id.len()) && id.bytes().all(is_part)
}

/// What the seal authenticates beside the value.
fn bound(place: Place<'_>, head: &[u8]) -> Vec<u8> {
    [&place.bytes(b"cota seal v1")[..], head].concat()
}

/// Key id, head, and what follows it.
fn split(sealed: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let [VERSION, length, ..] = sealed else { return None };
    let (head, rest) = sealed.split_at_checked(2 + usize::from(*length))?;
    let id = std::str::from_utf8(&head[2..]).ok().filter(|id| is_key_id(id))?;
    (rest.len() >= NONCE_LEN + TAG_LENGTH).then_some((id, head, rest))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn key(id: &str, byte: u8) -> KeyConfig {
        KeyConfig { id: id.into(), key: Some(Secret::new(BASE64.encode([byte; 32]))), key_file: None }
    }

    fn ring(active: &str, ring: Vec<KeyConfig>) -> Result<Keyring, KeyringError> {
        let index_key = Secret::new(BASE64.encode([9; 32]));
        Keyring::of(&KeysConfig { active: active.into(), index_key, ring })
    }

    const ROW: Place<'static> =
        Place { table: "user_accounts", column: "email_sealed", row: Uuid::from_u128(7) };

    #[test]
    fn what_is_sealed_opens_in_its_place_alone() {
        let keys = ring("a", vec![key("a", 1)]).unwrap();
        let sealed = keys.seal(ROW, b"ana@b.co").unwrap();
        assert_eq!(keys.open(ROW, &sealed).unwrap(), b"ana@b.co");
        assert_ne!(keys.seal(ROW, b"ana@b.co").unwrap(), sealed, "a nonce of its own");
        assert!(sealed.starts_with(&keys.active_head()));
        for elsewhere in [
            Place { row: Uuid::from_u128(8), ..ROW },
            Place { column: "email", ..ROW },
            Place { table: "user_account", column: "semail_sealed", ..ROW },
        ] {
            assert_eq!(keys.open(elsewhere, &sealed), Err(OpenError::Broken("a".into())), "{elsewhere:?}");
        }
        let empty = keys.seal(ROW, b"").unwrap();
        assert_eq!(keys.open(ROW, &empty).unwrap(), b"");
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_found() {
        let keys = ring("a", vec![key("a", 1), key("c", 1)]).unwrap();
        let sealed = keys.seal(ROW, b"ana@b.co").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(keys.open(ROW, &changed).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(keys.open(ROW, &sealed[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn old_keys_open_and_missing_ones_are_named() {
        let old = ring("a", vec![key("a", 1)]).unwrap();
        let both = ring("b", vec![key("a", 1), key("b", 2)]).unwrap();
        let new = ring("b", vec![key("b", 2)]).unwrap();
        let sealed = old.seal(ROW, b"x").unwrap();
        assert_eq!(both.open(ROW, &sealed).unwrap(), b"x");
        assert_eq!(new.open(ROW, &sealed), Err(OpenError::UnknownKey("a".into())));
        assert!(OpenError::UnknownKey("a".into()).to_string().contains("keys.ring"));
        let other = ring("a", vec![key("a", 3)]).unwrap();
        assert_eq!(other.open(ROW, &sealed), Err(OpenError::Broken("a".into())));
        assert_eq!(new.open(ROW, &both.seal(ROW, b"x").unwrap()).unwrap(), b"x", "by the active key");
    }

    #[test]
    fn an_index_tells_columns_and_index_keys_apart() {
        let keys = ring("a", vec![key("a", 1)]).unwrap();
        let rotated = ring("b", vec![key("b", 2)]).unwrap();
        let email = Indexed { table: "user_accounts", column: "email" };
        assert_eq!(keys.index(email, b"ana@b.co"), rotated.index(email, b"ana@b.co"), "not of the ring");
        assert_ne!(keys.index(email, b"ana@b.co"), keys.index(email, b"ana@b.com"));
        let other = Indexed { column: "other", ..email };
        assert_ne!(keys.index(email, b"ana@b.co"), keys.index(other, b"ana@b.co"));
    }

    #[test]
    fn signatures_belong_to_a_key_and_a_message() {
        let keys = ring("a", vec![key("a", 1), key("b", 2)]).unwrap();
        let signed = keys.sign(b"head").unwrap();
        assert_eq!(keys.verify("a", b"head", &signed.signature), Some(true));
        assert_eq!(keys.verify("a", b"heads", &signed.signature), Some(false));
        assert_eq!(keys.verify("b", b"head", &signed.signature), Some(false));
        assert_eq!(keys.verify("c", b"head", &signed.signature), None);
    }

    #[test]
    fn a_ring_that_is_wrong_says_where_and_shows_no_key() {
        let hush = "aHVzaC1odXNoLWh1c2gtaHVzaC1odXNoLWh1c2gtaHU";
        let with =
            |id: &str, key: &str| KeyConfig { id: id.into(), key: Some(Secret::new(key)), key_file: None };
        let none = KeyConfig { id: "a".into(), key: None, key_file: None };
        let gone = KeyConfig { id: "a".into(), key: None, key_file: Some("/nowhere/key".into()) };
        for (refused, word) in [
            (ring("a", vec![]), "empty"),
            (ring("b", vec![key("a", 1)]), "\"b\""),
            (ring("a", vec![key("a", 1), key("a", 2)]), "twice"),
            (ring("A", vec![key("A", 1)]), "a-z"),
            (ring("a", vec![with("a", hush)]), "\"a\""),
            (ring("a", vec![with("a", "")]), "base64"),
            (ring("a", vec![none]), "either"),
            (ring("a", vec![gone]), "read"),
        ] {
            let text = refused.unwrap_err().to_string();
            assert!(text.contains(word) && !text.contains(hush), "{text}");
        }
        let index = KeysConfig { active: "a".into(), index_key: Secret::default(), ring: vec![key("a", 1)] };
        assert!(Keyring::of(&index).unwrap_err().to_string().contains("keys.index_key"));
        let shown = format!("{:?}", ring("a", vec![key("a", 1)]).unwrap());
        assert_eq!(shown, "Keyring { active: \"a\", .. }");
    }

    #[test]
    fn generated_keys_are_keys_and_new_ones() {
        let [one, two] = ["a", "a"].map(|id| Keyring::generate(id).unwrap());
        let [first, second] = [&one, &two].map(|config| Keyring::of(config).unwrap());
        let sealed = first.seal(ROW, b"x").unwrap();
        assert_eq!(second.open(ROW, &sealed), Err(OpenError::Broken("a".into())));
        assert_ne!(one.index_key.expose(), two.index_key.expose());
        assert_ne!(one.index_key.expose(), one.ring[0].key.as_ref().unwrap().expose());
    }
}
