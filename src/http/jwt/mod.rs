//! Who a JWT speaks for.
//!
//! The key and its algorithm are ours, not the header's: a shared secret signs with HS256, a key of an issuer's key set
//! with what its kind stands for, and a key set holds no secrets ([`jwks`]). A JWT is taken only with `exp`, `iat`,
//! `iss`, `aud`, `sub` and `role`, within its time, and not longer-lived than the configuration allows (RFC 8725 §3.1,
//! §3.8, §3.9, §3.11). Its `iss` and `kid` choose among our keys; keys that a header brings or points to are never
//! looked at.
//!
//! The way of a JWT: [`memory`] knows most of them, and nothing waits. One that is new is checked with
//! the keys at hand ([`keys`]). Only one that names a key we do not have may wait for its issuer's key set
//! ([`source`]).

mod claims;
mod fetch;
mod issuer;
mod jwks;
mod keys;
mod memory;
mod mint;
mod source;

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::future::join_all;
use jsonwebtoken::get_current_timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use crate::config::Role;
pub use mint::{MintError, Signer, mint};

use crate::config::{AuthConfig, IssuerConfig};
use claims::{Claims, MAX_SUBJECT_LENGTH, Outline};
use issuer::Issuer;
use memory::{Memory, Taken};
use source::Timing;

/// Whoever makes a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    pub subject: Arc<str>,
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
    #[error("no key of its issuer has this name")]
    UnknownKey,
    #[error("the keys of its issuer are not known, or too old")]
    NoKeys,
    #[error("the signature is wrong")]
    Signature,
    #[error("a claim or a part of the header is missing or has the wrong type")]
    Claims,
    #[error("it is for another audience or by another issuer")]
    Party,
    #[error("its issuer may not give this role")]
    Role,
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
            Self::UnknownKey => "unknown_key",
            Self::NoKeys => "no_keys",
            Self::Signature => "signature",
            Self::Claims => "claims",
            Self::Party => "party",
            Self::Role => "role",
            Self::Expired => "expired",
            Self::Early => "early",
            Self::Lifetime => "lifetime",
        }
    }
}

/// Checks JWTs. One per process; shared.
pub struct Verifier {
    memory: Memory,
    issuers: Box<[Issuer]>,
    leeway_seconds: u64,
    max_lifetime_seconds: u64,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.issuers.iter().map(|issuer| &issuer.name);
        f.write_str("Verifier of ")?;
        f.debug_list().entries(names).finish()
    }
}

impl Verifier {
    /// For a configuration that was checked. Keys of issuers are there once [`Self::keep_keys_fresh`] runs.
    pub fn new(config: &AuthConfig) -> Self {
        Self::with_timing(config, Timing::default())
    }

    fn with_timing(config: &AuthConfig, timing: Timing) -> Self {
        Self {
            memory: Memory::new(),
            issuers: Issuer::all(config, timing),
            leeway_seconds: config.leeway_seconds,
            max_lifetime_seconds: config.max_lifetime_seconds,
        }
    }

    /// Reads the key sets of all issuers, and reads them again in time, until `stop`. To be run once.
    pub fn keep_keys_fresh(&self, stop: CancellationToken) -> impl Future<Output = ()> + Send + use<> {
        let sources: Vec<_> = self.issuers.iter().filter_map(Issuer::source).cloned().collect();
        async move {
            let all = join_all(sources.iter().map(|source| source.keep()));
            stop.run_until_cancelled(all).await;
        }
    }

    /// Whom a JWT speaks for that was taken before: costs no check of a signature.
    pub fn remembered(&self, jwt: &str) -> Option<Principal> {
        self.memory.recall(jwt, get_current_timestamp().saturating_sub(self.leeway_seconds))?.ok()
    }

    /// Whom the JWT speaks for, by the keys at hand.
    ///
    /// # Errors
    /// The first reason not to take it.
    pub fn verify(&self, jwt: &str) -> Result<Principal, AuthError> {
        let now = get_current_timestamp();
        if let Some(remembered) = self.memory.recall(jwt, now.saturating_sub(self.leeway_seconds)) {
            return remembered;
        }
        let taken = self.check(jwt, now)?;
        let principal = taken.principal.clone();
        self.memory.remember(jwt, taken);
        Ok(principal)
    }

    /// As [`Self::verify`], but a JWT whose key is not known may wait so long for the key set to be read again.
    ///
    /// # Errors
    /// The first reason not to take it.
    pub async fn authenticate(&self, jwt: &str, patience: Duration) -> Result<Principal, AuthError> {
        match self.verify(jwt) {
            // Apart, so that the future of everybody else stays small.
            Err(AuthError::UnknownKey | AuthError::NoKeys) => {
                Box::pin(self.look_for_key(jwt, patience)).await
            }
            verdict => verdict,
        }
    }

    async fn look_for_key(&self, jwt: &str, patience: Duration) -> Result<Principal, AuthError> {
        let until = Instant::now() + patience;
        let outline = Outline::of(jwt)?;
        if let Some(source) = self.issuer(&outline.issuer)?.source() {
            source.look_for(outline.kid.as_deref(), outline.algorithm, until).await;
        }
        self.verify(jwt)
    }

    fn issuer(&self, name: &str) -> Result<&Issuer, AuthError> {
        self.issuers.iter().find(|issuer| *issuer.name == *name).ok_or(AuthError::Party)
    }

    fn check(&self, jwt: &str, now: u64) -> Result<Taken, AuthError> {
        let outline = Outline::of(jwt)?;
        let issuer = self.issuer(&outline.issuer)?;
        let (key, validation) = issuer.key(&outline)?;
        let claims = Claims::read(jwt, &key.material, validation)?;
        if claims.iat > now.saturating_add(self.leeway_seconds) {
            return Err(AuthError::Early);
        }
        let lifetime = claims.exp.checked_sub(claims.iat).ok_or(AuthError::Lifetime)?;
        if lifetime > self.max_lifetime_seconds {
            return Err(AuthError::Lifetime);
        }
        if !(1..=MAX_SUBJECT_LENGTH).contains(&claims.sub.len()) {
            return Err(AuthError::Claims);
        }
        if !issuer.may_give(claims.role) {
            return Err(AuthError::Role);
        }
        let principal = Principal { subject: claims.sub.into(), role: claims.role };
        Ok(Taken { principal, exp: claims.exp, key })
    }
}

/// Why a file does not do as a key set.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("{0}")]
    Read(String),
    #[error("it is no key set: {0}")]
    Parse(#[from] serde_json::Error),
    #[error("it has no key that can be used; of those left out: {0:?}")]
    Empty(Vec<String>),
}

/// Reads a key set from a file as this issuer's, and says how many keys in it can be used.
///
/// # Errors
/// When there is none.
pub fn check_key_file(issuer: &IssuerConfig, path: &Path) -> Result<usize, KeyFileError> {
    let body = fetch::read_file(path).map_err(|error| KeyFileError::Read(error.to_string()))?;
    let allowed: Vec<_> = issuer.algorithms.iter().copied().map(issuer::algorithm).collect();
    let jwks = jwks::Jwks::parse(&body, &allowed)?;
    match jwks.keys.len() {
        0 => Err(KeyFileError::Empty(jwks.skipped.iter().map(ToString::to_string).collect())),
        keys => Ok(keys),
    }
}

#[cfg(test)]
mod tests;
