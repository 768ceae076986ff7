//! Reads a JSON Web Key Set (RFC 7517): of all that stands in it, the public keys that may check our JWTs.

use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{claims::MAX_KID_LENGTH, keys::Key};

/// Bits of an RSA modulus: below is too weak (RFC 7518 §3.3), above too slow to check.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The keys of a set, and what is said of those that are left out.
pub(super) struct Jwks {
    pub keys: Vec<Key>,
    pub skipped: Vec<Skipped>,
}

/// Why a key of a set is left out. Sets serve other purposes too, so this is no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Skipped {
    #[error("a key is malformed")]
    Malformed,
    #[error("a key is not for verification")]
    Use,
    #[error("a key is of a kind or for an algorithm that this issuer may not use")]
    Algorithm,
    #[error("a key is too weak")]
    Weak,
    #[error("two keys have one name")]
    Twice,
}

#[derive(Deserialize)]
struct Set<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// A key as it stands there. What is missing here, certificates and private parts above all, is not looked at.
#[derive(Deserialize)]
struct Entry {
    kty: String,
    crv: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    kid: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwks {
    /// Reads a set, for an issuer that may sign with these algorithms.
    ///
    /// # Errors
    /// When it is no key set at all.
    pub(super) fn parse(body: &[u8], allowed: &[Algorithm]) -> Result<Self, serde_json::Error> {
        let set: Set<'_> = serde_json::from_slice(body)?;
        let mut jwks = Self { keys: Vec::new(), skipped: Vec::new() };
        let mut names = Vec::new();
        for entry in set.keys {
            let entry: Result<Entry, _> = serde_json::from_str(entry.get());
            match entry.map_err(|_| Skipped::Malformed).and_then(|entry| entry.key(allowed)) {
                Ok((name, key)) if !names.contains(&name) => {
                    names.push(name);
                    jwks.keys.push(key);
                }
                Ok(_) => jwks.skipped.push(Skipped::Twice),
                Err(skipped) => jwks.skipped.push(skipped),
            }
        }
        Ok(jwks)
    }
}

/// What a key is found by.
type Name = (Option<String>, Algorithm);

impl Entry {
    fn key(self, allowed: &[Algorithm]) -> Result<(Name, Key), Skipped> {
        let verifies = self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !verifies || self.usage.as_ref().is_some_and(|usage| usage != "sig") {
            return Err(Skipped::Use);
        }
        if self.kid.as_ref().is_some_and(|kid| !(1..=MAX_KID_LENGTH).contains(&kid.len())) {
            return Err(Skipped::Malformed);
        }
        let algorithm = self.algorithm().filter(|own| allowed.contains(own)).ok_or(Skipped::Algorithm)?;
        let material = match algorithm {
            Algorithm::RS256 => self.rsa(),
            Algorithm::ES256 => self.p256(),
            _ => self.ed25519(),
        }?;
        let key = Key::new(self.kid.as_deref().map(Into::into), algorithm, material);
        Ok(((self.kid, algorithm), key))
    }

    /// The one algorithm of this key: `alg` must be the one that its kind stands for. `oct` stands for none: what is
    /// published is no secret.
    fn algorithm(&self) -> Option<Algorithm> {
        let (algorithm, name) = match (&*self.kty, self.crv.as_deref()) {
            ("RSA", _) => (Algorithm::RS256, "RS256"),
            ("EC", Some("P-256")) => (Algorithm::ES256, "ES256"),
            ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, "EdDSA"),
            _ => return None,
        };
        self.alg.as_ref().is_none_or(|alg| alg == name).then_some(algorithm)
    }

    fn rsa(&self) -> Result<DecodingKey, Skipped> {
        let parsed = DecodingKey::from_rsa_components(part(&self.n)?, part(&self.e)?);
        let parsed = parsed.map_err(|_| Skipped::Malformed)?;
        let DecodingKeyKind::RsaModulusExponent { n, e } = parsed.kind() else {
            return Err(Skipped::Malformed);
        };
        let (n, e) = (without_zeros(n), without_zeros(e));
        let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
        // FIPS 186-5 §A.1.1: odd, above 2^16. What has four bytes at most is also what the library takes.
        let exponent_is_sound = matches!(e.len(), 3..=4) && e.last().is_some_and(|byte| byte % 2 == 1);
        if !RSA_BITS.contains(&bits) || !exponent_is_sound {
            return Err(Skipped::Weak);
        }
        Ok(DecodingKey::from_rsa_raw_components(n, e))
    }

    fn p256(&self) -> Result<DecodingKey, Skipped> {
        let (x, y) = (part(&self.x)?, part(&self.y)?);
        // 32 bytes each (RFC 7518 §6.2.1.2), which are 43 characters.
        if x.len() != 43 || y.len() != 43 {
            return Err(Skipped::Malformed);
        }
        DecodingKey::from_ec_components(x, y).map_err(|_| Skipped::Malformed)
    }

    fn ed25519(&self) -> Result<DecodingKey, Skipped> {
        let x = part(&self.x)?;
        if x.len() != 43 {
            return Err(Skipped::Malformed);
        }
        DecodingKey::from_ed_components(x).map_err(|_| Skipped::Malformed)
    }
}

fn part(part: &Option<String>) -> Result<&str, Skipped> {
    part.as_deref().ok_or(Skipped::Malformed)
}

fn without_zeros(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}
