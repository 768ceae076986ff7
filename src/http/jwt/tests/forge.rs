//! Makes JWTs as they should be, and as they should not, for each kind of issuer.

use std::{fs, path::PathBuf};

use jsonwebtoken::{Algorithm, EncodingKey, get_current_timestamp};
use serde_json::{Map, Value, json};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    super::{AuthError, Verifier},
    identity::{ED25519_1, P256_1, RSA_1, TestKey, jwks},
};
use crate::config::{AuthConfig, IssuerConfig, PublicKeyAlgorithm, Role, Secret};

pub const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// The issuer with every kind of key.
pub const ONE: &str = "https://one.example/";
/// Another, whose JWTs are taken too: for users alone.
pub const TWO: &str = "https://two.example/";

pub fn now() -> u64 {
    get_current_timestamp()
}

/// With the shared secret alone.
pub fn secret_config() -> AuthConfig {
    AuthConfig { hs256_secret: Secret::new(SECRET), ..AuthConfig::default() }
}

/// An issuer whose keys come from nowhere yet.
pub fn issuer(name: &str) -> IssuerConfig {
    IssuerConfig {
        issuer: name.into(),
        audience: "cota".into(),
        jwks_file: None,
        jwks_url: None,
        algorithms: vec![PublicKeyAlgorithm::RS256, PublicKeyAlgorithm::ES256, PublicKeyAlgorithm::EdDSA],
        roles: vec![Role::User, Role::Gateway, Role::Admin],
    }
}

/// A file that goes with its test.
pub struct TempFile(pub PathBuf);

impl TempFile {
    pub fn new(text: &str) -> Self {
        let name = format!("cota-jwks-{}.json", uuid::Uuid::new_v4().simple());
        let file = Self(std::env::temp_dir().join(name));
        fs::write(&file.0, text).unwrap();
        file
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A verifier whose keys are kept fresh while it lives.
pub struct Fresh {
    verifier: Verifier,
    _task: AbortOnDropHandle<()>,
    _files: Vec<TempFile>,
}

impl std::ops::Deref for Fresh {
    type Target = Verifier;

    fn deref(&self) -> &Verifier {
        &self.verifier
    }
}

impl Fresh {
    pub fn new(verifier: Verifier) -> Self {
        let task = tokio::spawn(verifier.keep_keys_fresh(CancellationToken::new()));
        Self { verifier, _task: AbortOnDropHandle::new(task), _files: Vec::new() }
    }

    /// For the shared secret and two issuers with these keys.
    pub async fn with_keys(one: &[TestKey], two: &[TestKey]) -> Self {
        let files = vec![TempFile::new(&jwks(one)), TempFile::new(&jwks(two))];
        let mut config = secret_config();
        config.issuers = vec![issuer(ONE), issuer(TWO)];
        for (issuer, file) in config.issuers.iter_mut().zip(&files) {
            issuer.jwks_file = Some(file.0.clone());
        }
        config.issuers[1].roles = vec![Role::User];
        let fresh = Self { _files: files, ..Self::new(Verifier::new(&config)) };
        for issuer in [ONE, TWO] {
            fresh.has_read(issuer).await;
        }
        fresh
    }

    /// Waits until the issuer's keys were read.
    async fn has_read(&self, issuer: &str) {
        let source = self.verifier.issuer(issuer).unwrap().source().unwrap();
        super::until("the keys were read", || {
            source.find(None, Algorithm::HS512).err() != Some(AuthError::NoKeys)
        })
        .await;
    }
}

/// Base64url without padding.
pub fn b64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}

/// Signs any header over any payload.
pub fn signed(header: &str, payload: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", b64(header.as_bytes()), b64(payload.as_bytes()));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// A kind of issuer, with what signs for it.
#[derive(Clone, Copy, Debug)]
pub enum Family {
    Secret,
    Key(TestKey),
}

pub const FAMILIES: [Family; 4] =
    [Family::Secret, Family::Key(RSA_1), Family::Key(P256_1), Family::Key(ED25519_1)];

impl Family {
    pub fn algorithm(self) -> Algorithm {
        match self {
            Self::Secret => Algorithm::HS256,
            Self::Key(key) => key.algorithm,
        }
    }

    pub fn issuer(self) -> &'static str {
        match self {
            Self::Secret => "cota",
            Self::Key(_) => ONE,
        }
    }

    pub fn private(self) -> EncodingKey {
        match self {
            Self::Secret => EncodingKey::from_secret(SECRET.as_bytes()),
            Self::Key(key) => key.private(),
        }
    }

    pub fn header(self) -> Map<String, Value> {
        let mut header = Map::from_iter([
            ("typ".to_owned(), json!("JWT")),
            ("alg".to_owned(), json!(format!("{:?}", self.algorithm()))),
        ]);
        if let Self::Key(key) = self {
            header.insert("kid".into(), json!(key.kid));
        }
        header
    }

    pub fn claims(self) -> Map<String, Value> {
        super::identity::claims(self.issuer(), "u-1", "user").as_object().unwrap().clone()
    }

    /// Signed as it should be, whatever it says.
    pub fn sign(self, header: &str, payload: &str) -> String {
        signed(header, payload, &self.private(), self.algorithm())
    }

    pub fn good(self) -> String {
        self.with_claims(self.claims())
    }

    pub fn with_claims(self, claims: Map<String, Value>) -> String {
        self.sign(&Value::Object(self.header()).to_string(), &Value::Object(claims).to_string())
    }

    pub fn with_claim(self, name: &str, value: Value) -> String {
        let mut claims = self.claims();
        claims.insert(name.into(), value);
        self.with_claims(claims)
    }

    /// With a payload that is no map, or has a name twice.
    pub fn with_payload(self, payload: &str) -> String {
        self.sign(&Value::Object(self.header()).to_string(), payload)
    }

    /// With these members of the header set; `null` takes one away.
    pub fn header_with(self, members: &Value) -> String {
        let mut header = self.header();
        for (name, value) in members.as_object().unwrap() {
            match value {
                Value::Null => header.remove(name),
                value => header.insert(name.clone(), value.clone()),
            };
        }
        Value::Object(header).to_string()
    }

    pub fn with_header(self, members: &Value) -> String {
        self.sign(&self.header_with(members), &Value::Object(self.claims()).to_string())
    }

    /// With this header and the good claims, signed by another key.
    pub fn signed_by(self, members: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
        signed(&self.header_with(members), &Value::Object(self.claims()).to_string(), key, algorithm)
    }
}
