//! Who a JWT speaks for.
//!
//! The algorithm is ours, not the header's: HS256 with the shared secret, and nothing else. A JWT is taken only
//! with `exp`, `iat`, `iss`, `aud`, `sub` and `role`, within its time, and not longer-lived than the configuration
//! allows (RFC 8725 §3.1, §3.8, §3.9, §3.11). Keys that a header brings or points to are never looked at.

use std::sync::Arc;

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode, errors::ErrorKind,
    get_current_timestamp,
};
use moka::sync::Cache;
use serde::{Deserialize, Serialize};

use crate::config::AuthConfig;

/// Longest JWT that is looked at, in bytes.
const MAX_JWT_LENGTH: usize = 4096;
/// JWTs that were taken are remembered up to this many bytes of them, so that each is parsed and checked once.
const MAX_REMEMBERED_BYTES: u64 = 8 * 1024 * 1024;
/// Longest subject, in bytes.
const MAX_SUBJECT_LENGTH: usize = 255;

/// What the holder of a JWT may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads what is its own: its subject is its user id.
    User,
    /// Reserves and settles for any user.
    Gateway,
    /// What gateways do, and the user base.
    Admin,
}

/// Whoever makes a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub subject: Box<str>,
    pub role: Role,
}

/// Why a JWT is not taken. For logs and metrics; callers learn only that it is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("no JWT was sent")]
    Missing,
    #[error("the Authorization header stands twice or is no JWT")]
    Malformed,
    #[error("the header asks for what is not supported")]
    Header,
    #[error("the algorithm is not the pinned one")]
    Algorithm,
    #[error("the signature is wrong")]
    Signature,
    #[error("a claim or a part of the header is missing or has the wrong type")]
    Claims,
    #[error("it is for another audience or by another issuer")]
    Party,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    Early,
    #[error("it lives longer than allowed")]
    Lifetime,
}

impl AuthError {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Header => "header",
            Self::Algorithm => "algorithm",
            Self::Signature => "signature",
            Self::Claims => "claims",
            Self::Party => "party",
            Self::Expired => "expired",
            Self::Early => "early",
            Self::Lifetime => "lifetime",
        }
    }
}

/// The claims we read. Strict types: a time as text or fraction is no time, an issuer as list no issuer.
#[derive(Debug, Deserialize, Serialize)]
struct Claims {
    sub: String,
    iss: String,
    exp: u64,
    iat: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
    role: Role,
}

#[derive(Serialize)]
struct Minted<'a> {
    aud: &'a str,
    #[serde(flatten)]
    claims: Claims,
}

/// Checks JWTs. One per process; shared.
pub struct Verifier {
    taken: Cache<Arc<str>, Taken>,
    key: DecodingKey,
    validation: Validation,
    leeway_seconds: u64,
    max_lifetime_seconds: u64,
}

/// What a JWT was found to say. All but its end holds for ever.
#[derive(Clone)]
struct Taken {
    principal: Principal,
    exp: u64,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("validation", &self.validation).finish_non_exhaustive()
    }
}

impl Verifier {
    pub fn new(config: &AuthConfig) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // The library checks these only where they are present, unless they are listed.
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&[&config.audience]);
        validation.validate_nbf = true;
        validation.leeway = config.leeway_seconds;
        let weight = |jwt: &Arc<str>, _: &Taken| u32::try_from(jwt.len()).unwrap_or(u32::MAX);
        Self {
            taken: Cache::builder().weigher(weight).max_capacity(MAX_REMEMBERED_BYTES).build(),
            key: DecodingKey::from_secret(config.hs256_secret.expose().as_bytes()),
            validation,
            leeway_seconds: config.leeway_seconds,
            max_lifetime_seconds: config.max_lifetime_seconds,
        }
    }

    /// Whom the JWT speaks for.
    ///
    /// # Errors
    /// The first reason not to take it.
    pub fn verify(&self, jwt: &str) -> Result<Principal, AuthError> {
        if let Some(remembered) = self.recall(jwt, get_current_timestamp()) {
            return remembered;
        }
        let taken = self.check(jwt)?;
        self.taken.insert(jwt.into(), taken.clone());
        Ok(taken.principal)
    }

    /// What is remembered of a JWT that was taken before; by `now` it may have expired.
    fn recall(&self, jwt: &str, now: u64) -> Option<Result<Principal, AuthError>> {
        let Taken { principal, exp } = self.taken.get(jwt)?;
        if exp.saturating_add(self.leeway_seconds) >= now {
            return Some(Ok(principal));
        }
        self.taken.invalidate(jwt);
        Some(Err(AuthError::Expired))
    }

    fn check(&self, jwt: &str) -> Result<Taken, AuthError> {
        if jwt.len() > MAX_JWT_LENGTH {
            return Err(AuthError::Malformed);
        }
        let decoded = decode::<Claims>(jwt, &self.key, &self.validation).map_err(|e| reason(e.kind()))?;
        check_header(&decoded.header)?;
        let claims = decoded.claims;
        if claims.iat > get_current_timestamp().saturating_add(self.leeway_seconds) {
            return Err(AuthError::Early);
        }
        let lifetime = claims.exp.checked_sub(claims.iat).ok_or(AuthError::Lifetime)?;
        if lifetime > self.max_lifetime_seconds {
            return Err(AuthError::Lifetime);
        }
        if !(1..=MAX_SUBJECT_LENGTH).contains(&claims.sub.len()) {
            return Err(AuthError::Claims);
        }
        let principal = Principal { subject: claims.sub.into(), role: claims.role };
        Ok(Taken { principal, exp: claims.exp })
    }
}

/// What the library parses and does not enforce.
fn check_header(header: &Header) -> Result<(), AuthError> {
    let type_is_ours = header.typ.as_deref().is_none_or(|typ| {
        ["JWT", "at+jwt", "application/at+jwt"].iter().any(|known| typ.eq_ignore_ascii_case(known))
    });
    // `crit` lists what must be understood, and we understand none of it. `cty` is a JWT within a JWT.
    let plain = header.crit.is_none() && header.cty.is_none() && header.enc.is_none() && header.zip.is_none();
    if type_is_ours && plain { Ok(()) } else { Err(AuthError::Header) }
}

fn reason(kind: &ErrorKind) -> AuthError {
    match kind {
        ErrorKind::InvalidSignature => AuthError::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => {
            AuthError::Algorithm
        }
        ErrorKind::ExpiredSignature => AuthError::Expired,
        ErrorKind::ImmatureSignature => AuthError::Early,
        ErrorKind::InvalidIssuer | ErrorKind::InvalidAudience => AuthError::Party,
        ErrorKind::MissingRequiredClaim(_)
        | ErrorKind::InvalidClaimFormat(_)
        | ErrorKind::InvalidSubject
        | ErrorKind::Json(_) => AuthError::Claims,
        // Not three parts, Base64, UTF-8; also what a later version of the library may add.
        _ => AuthError::Malformed,
    }
}

/// Why a JWT could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    #[error("a JWT lives at least 1 and at most auth.max_lifetime_seconds = {0} seconds")]
    Lifetime(u64),
    #[error("a subject has 1 to 255 bytes")]
    Subject,
    #[error("the JWT could not be signed: {0}")]
    Sign(jsonwebtoken::errors::Error),
}

/// Makes a JWT that [`Verifier`] takes: for development and for the operators' tools.
///
/// # Errors
/// When the verifier would not take it.
pub fn mint(
    config: &AuthConfig,
    subject: &str,
    role: Role,
    lifetime_seconds: u64,
) -> Result<String, MintError> {
    if !(1..=config.max_lifetime_seconds).contains(&lifetime_seconds) {
        return Err(MintError::Lifetime(config.max_lifetime_seconds));
    }
    if !(1..=MAX_SUBJECT_LENGTH).contains(&subject.len()) {
        return Err(MintError::Subject);
    }
    let iat = get_current_timestamp();
    let claims = Claims {
        sub: subject.to_owned(),
        iss: config.issuer.clone(),
        exp: iat.saturating_add(lifetime_seconds),
        iat,
        nbf: None,
        role,
    };
    let key = EncodingKey::from_secret(config.hs256_secret.expose().as_bytes());
    encode(&Header::new(Algorithm::HS256), &Minted { aud: &config.audience, claims }, &key)
        .map_err(MintError::Sign)
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
