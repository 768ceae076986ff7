//! What a JWT says: before its signature is checked only what is needed to find the key, then the claims.

use jsonwebtoken::{
    Algorithm, DecodingKey, Header, Validation, dangerous::insecure_decode_claims, decode, decode_header,
    errors::ErrorKind,
};
use serde::{Deserialize, Serialize};

use super::{AuthError, Role};

/// Longest JWT that is looked at, in bytes.
pub(super) const MAX_JWT_LENGTH: usize = 4096;
/// Longest subject, in bytes.
pub(super) const MAX_SUBJECT_LENGTH: usize = 255;
/// Longest id of a key, in bytes. Those of identity providers are hashes and names of some 20 to 80.
pub(super) const MAX_KID_LENGTH: usize = 256;

/// The claims we read. Strict types: a time as text or fraction is no time, an issuer as list no issuer.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Claims {
    pub sub: String,
    pub iss: String,
    pub exp: u64,
    pub iat: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    pub role: Role,
}

impl Claims {
    /// Reads a JWT that this key has signed and that this issuer meant for us.
    pub(super) fn read(jwt: &str, key: &DecodingKey, validation: &Validation) -> Result<Self, AuthError> {
        decode::<Self>(jwt, key, validation).map(|decoded| decoded.claims).map_err(|e| reason(e.kind()))
    }
}

/// Which key is to check a JWT: by its own word, so good for choosing among our keys and for nothing else.
#[derive(Debug)]
pub(super) struct Outline {
    pub issuer: String,
    pub algorithm: Algorithm,
    pub kid: Option<String>,
}

#[derive(Deserialize)]
struct Unverified {
    iss: String,
}

impl Outline {
    pub(super) fn of(jwt: &str) -> Result<Self, AuthError> {
        if jwt.len() > MAX_JWT_LENGTH {
            return Err(AuthError::Malformed);
        }
        let header = decode_header(jwt).map_err(|e| reason(e.kind()))?;
        check_header(&header)?;
        let Unverified { iss } = insecure_decode_claims(jwt).map_err(|e| reason(e.kind()))?;
        Ok(Self { issuer: iss, algorithm: header.alg, kid: header.kid })
    }
}

/// What the library parses and does not enforce.
fn check_header(header: &Header) -> Result<(), AuthError> {
    let type_is_ours = header.typ.as_deref().is_none_or(|typ| {
        ["JWT", "at+jwt", "application/at+jwt"].iter().any(|known| typ.eq_ignore_ascii_case(known))
    });
    let kid_is_one = header.kid.as_deref().is_none_or(|kid| (1..=MAX_KID_LENGTH).contains(&kid.len()));
    // `crit` lists what must be understood, and we understand none of it. `cty` is a JWT within a JWT.
    let plain = header.crit.is_none() && header.cty.is_none() && header.enc.is_none() && header.zip.is_none();
    if type_is_ours && kid_is_one && plain { Ok(()) } else { Err(AuthError::Header) }
}

/// The checks of the library for JWTs of this issuer and algorithm.
pub(super) fn validation(
    algorithm: Algorithm,
    issuer: &str,
    audience: &str,
    leeway_seconds: u64,
) -> Validation {
    let mut validation = Validation::new(algorithm);
    // The library checks these only where they are present, unless they are listed.
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    validation.validate_nbf = true;
    validation.leeway = leeway_seconds;
    validation
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
