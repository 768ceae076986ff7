//! Makes JWTs that [`super::Verifier`] takes: for development and for the operators' tools.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde::Serialize;

use super::{
    Role,
    claims::{Claims, MAX_SUBJECT_LENGTH},
    issuer,
};
use crate::config::{AuthConfig, IssuerConfig, PublicKeyAlgorithm};

/// Why a JWT could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    #[error("auth.hs256_secret is not set: sign with the private key of an issuer")]
    NoSecret,
    #[error("this is no private key in PEM of the kinds RSA, P-256 or Ed25519 (PKCS #8)")]
    Key,
    #[error("its issuer does not take JWTs signed with {0:?}")]
    Algorithm(PublicKeyAlgorithm),
    #[error("its issuer may not give this role")]
    Role,
    #[error("a JWT lives at least 1 and at most auth.max_lifetime_seconds = {0} seconds")]
    Lifetime(u64),
    #[error("a subject has 1 to 255 bytes")]
    Subject,
    #[error("the JWT could not be signed: {0}")]
    Sign(jsonwebtoken::errors::Error),
}

/// Signs as one issuer.
pub struct Signer {
    issuer: String,
    audience: String,
    roles: Vec<Role>,
    max_lifetime_seconds: u64,
    header: Header,
    key: EncodingKey,
}

#[derive(Serialize)]
struct Minted<'a> {
    aud: &'a str,
    #[serde(flatten)]
    claims: Claims,
}

impl Signer {
    /// With the shared secret.
    ///
    /// # Errors
    /// When there is none.
    pub fn with_secret(config: &AuthConfig) -> Result<Self, MintError> {
        if !config.has_secret() {
            return Err(MintError::NoSecret);
        }
        Ok(Self {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            roles: vec![Role::User, Role::Gateway, Role::Admin],
            max_lifetime_seconds: config.max_lifetime_seconds,
            header: Header::new(Algorithm::HS256),
            key: EncodingKey::from_secret(config.hs256_secret.expose().as_bytes()),
        })
    }

    /// With a private key of an issuer, whose kind says the algorithm. Its public half should be in the issuer's key
    /// set, under the name `kid`.
    ///
    /// # Errors
    /// When it is no such key.
    pub fn with_key(
        config: &AuthConfig,
        issuer: &IssuerConfig,
        pem: &[u8],
        kid: Option<String>,
    ) -> Result<Self, MintError> {
        let (algorithm, key) = read_key(pem).ok_or(MintError::Key)?;
        if !issuer.algorithms.contains(&algorithm) {
            return Err(MintError::Algorithm(algorithm));
        }
        let mut header = Header::new(issuer::algorithm(algorithm));
        header.kid = kid;
        Ok(Self {
            issuer: issuer.issuer.clone(),
            audience: issuer.audience.clone(),
            roles: issuer.roles.clone(),
            max_lifetime_seconds: config.max_lifetime_seconds,
            header,
            key,
        })
    }

    /// Makes a JWT.
    ///
    /// # Errors
    /// When the verifier would not take it.
    pub fn mint(&self, subject: &str, role: Role, lifetime_seconds: u64) -> Result<String, MintError> {
        if !(1..=self.max_lifetime_seconds).contains(&lifetime_seconds) {
            return Err(MintError::Lifetime(self.max_lifetime_seconds));
        }
        if !(1..=MAX_SUBJECT_LENGTH).contains(&subject.len()) {
            return Err(MintError::Subject);
        }
        if !self.roles.contains(&role) {
            return Err(MintError::Role);
        }
        let iat = get_current_timestamp();
        let claims = Claims {
            sub: subject.to_owned(),
            iss: self.issuer.clone(),
            exp: iat.saturating_add(lifetime_seconds),
            iat,
            nbf: None,
            role,
        };
        encode(&self.header, &Minted { aud: &self.audience, claims }, &self.key).map_err(MintError::Sign)
    }
}

fn read_key(pem: &[u8]) -> Option<(PublicKeyAlgorithm, EncodingKey)> {
    let rsa = EncodingKey::from_rsa_pem(pem).map(|key| (PublicKeyAlgorithm::RS256, key));
    let ec = || EncodingKey::from_ec_pem(pem).map(|key| (PublicKeyAlgorithm::ES256, key));
    let ed = || EncodingKey::from_ed_pem(pem).map(|key| (PublicKeyAlgorithm::EdDSA, key));
    rsa.or_else(|_| ec()).or_else(|_| ed()).ok()
}

/// Makes a JWT with the shared secret.
///
/// # Errors
/// When there is no secret, or the verifier would not take it.
pub fn mint(
    config: &AuthConfig,
    subject: &str,
    role: Role,
    lifetime_seconds: u64,
) -> Result<String, MintError> {
    Signer::with_secret(config)?.mint(subject, role, lifetime_seconds)
}
