//! Those whose JWTs are taken, each with its own keys, audience, algorithms and roles.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use super::{
    AuthError, Role,
    claims::{Outline, validation},
    fetch::Origin,
    keys::Key,
    source::{Source, Timing},
};
use crate::config::{AuthConfig, IssuerConfig, PublicKeyAlgorithm};

pub(super) struct Issuer {
    pub name: Box<str>,
    keys: Keys,
    /// One per algorithm it may use; an algorithm that is missing here is refused.
    validations: Vec<(Algorithm, Validation)>,
    roles: Vec<Role>,
}

enum Keys {
    /// A shared secret. It has no name, and what a JWT calls it is of no interest.
    Secret(Arc<Key>),
    Jwks(Arc<Source>),
}

impl Issuer {
    pub(super) fn all(config: &AuthConfig, timing: Timing) -> Box<[Self]> {
        let secret = config.has_secret().then(|| Self::with_secret(config));
        let providers =
            config.issuers.iter().filter_map(|issuer| Self::provider(issuer, config.leeway_seconds, timing));
        secret.into_iter().chain(providers).collect()
    }

    fn with_secret(config: &AuthConfig) -> Self {
        let algorithm = Algorithm::HS256;
        let material = DecodingKey::from_secret(config.hs256_secret.expose().as_bytes());
        let validation = validation(algorithm, &config.issuer, &config.audience, config.leeway_seconds);
        Self {
            name: config.issuer.as_str().into(),
            keys: Keys::Secret(Arc::new(Key::new(None, algorithm, material))),
            validations: vec![(algorithm, validation)],
            roles: vec![Role::User, Role::Gateway, Role::Admin],
        }
    }

    /// `None` without a place its keys come from, which a configuration that was checked has.
    fn provider(config: &IssuerConfig, leeway_seconds: u64, timing: Timing) -> Option<Self> {
        let origin = Origin::of(config)?;
        let algorithms: Vec<Algorithm> = config.algorithms.iter().copied().map(algorithm).collect();
        let with_validation = |&algorithm: &Algorithm| {
            (algorithm, validation(algorithm, &config.issuer, &config.audience, leeway_seconds))
        };
        Some(Self {
            name: config.issuer.as_str().into(),
            validations: algorithms.iter().map(with_validation).collect(),
            keys: Keys::Jwks(Arc::new(Source::new(config.issuer.clone(), origin, algorithms, timing))),
            roles: config.roles.clone(),
        })
    }

    /// The key that is to check such a JWT, and with what else.
    pub(super) fn key(&self, outline: &Outline) -> Result<(Arc<Key>, &Validation), AuthError> {
        let mut validations = self.validations.iter();
        let (_, validation) =
            validations.find(|(known, _)| *known == outline.algorithm).ok_or(AuthError::Algorithm)?;
        let key = match &self.keys {
            Keys::Secret(key) => key.clone(),
            Keys::Jwks(source) => source.find(outline.kid.as_deref(), outline.algorithm)?,
        };
        Ok((key, validation))
    }

    pub(super) fn may_give(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Where its keys come from, if they can change.
    pub(super) fn source(&self) -> Option<&Arc<Source>> {
        match &self.keys {
            Keys::Secret(_) => None,
            Keys::Jwks(source) => Some(source),
        }
    }
}

/// The library's name of it.
pub(super) fn algorithm(algorithm: PublicKeyAlgorithm) -> Algorithm {
    match algorithm {
        PublicKeyAlgorithm::RS256 => Algorithm::RS256,
        PublicKeyAlgorithm::ES256 => Algorithm::ES256,
        PublicKeyAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}
