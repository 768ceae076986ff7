//! Keys that check JWTs. Each is pinned to one algorithm by where it comes from, never by the JWT (RFC 8725 §3.1).

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};

use super::AuthError;

pub(super) struct Key {
    kid: Option<Box<str>>,
    pub algorithm: Algorithm,
    pub material: DecodingKey,
    /// Once its issuer has withdrawn it. Whoever remembers a JWT keeps its key, and looks here.
    retired: AtomicBool,
}

impl Key {
    pub(super) fn new(kid: Option<Box<str>>, algorithm: Algorithm, material: DecodingKey) -> Self {
        Self { kid, algorithm, material, retired: AtomicBool::new(false) }
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    fn has_name(&self, kid: Option<&str>, algorithm: Algorithm) -> bool {
        self.kid.as_deref() == kid && self.algorithm == algorithm
    }

    fn is_same(&self, other: &Self) -> bool {
        let same_material = match (self.material.kind(), other.material.kind()) {
            (DecodingKeyKind::SecretOrDer(one), DecodingKeyKind::SecretOrDer(two)) => one == two,
            (
                DecodingKeyKind::RsaModulusExponent { n, e },
                DecodingKeyKind::RsaModulusExponent { n: other_n, e: other_e },
            ) => n == other_n && e == other_e,
            _ => false,
        };
        self.has_name(other.kid.as_deref(), other.algorithm) && same_material
    }
}

/// The keys an issuer has at the time.
#[derive(Default)]
pub(super) struct KeySet(Vec<Arc<Key>>);

impl KeySet {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The key for a JWT with these in its header. A JWT that names no key is taken only where there is no choice.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<Key>, AuthError> {
        let mut fitting = self.0.iter().filter(|key| match kid {
            Some(_) => key.has_name(kid, algorithm),
            None => key.algorithm == algorithm,
        });
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key.clone()),
            (Some(_), Some(_)) => Err(AuthError::Claims),
            (None, _) if kid.is_some() && self.0.iter().any(|key| key.kid.as_deref() == kid) => {
                Err(AuthError::Algorithm)
            }
            (None, _) => Err(AuthError::UnknownKey),
        }
    }

    /// Takes over what the issuer has now, and says how many keys came and went. A key that stays is the same object,
    /// so that JWTs it has checked stay remembered; one that is gone is retired.
    pub(super) fn replace(&mut self, keys: Vec<Key>) -> (usize, usize) {
        let before = std::mem::take(&mut self.0);
        let mut added = 0;
        for key in keys {
            let kept = before.iter().find(|old| old.is_same(&key));
            added += usize::from(kept.is_none());
            self.0.push(kept.cloned().unwrap_or_else(|| Arc::new(key)));
        }
        let gone = before.iter().filter(|old| !self.0.iter().any(|key| Arc::ptr_eq(old, key)));
        (added, gone.inspect(|key| key.retire()).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kid: Option<&str>, material: &str) -> Key {
        Key::new(kid.map(Into::into), Algorithm::ES256, DecodingKey::from_ec_der(material.as_bytes()))
    }

    #[test]
    fn a_key_is_found_by_its_name_and_its_own_algorithm() {
        let mut set = KeySet::default();
        assert_eq!(set.replace(vec![key(Some("a"), "1")]), (1, 0));
        let found = |set: &KeySet, kid, algorithm| set.find(kid, algorithm).map(|key| key.kid.clone());
        assert_eq!(found(&set, Some("a"), Algorithm::ES256), Ok(Some("a".into())));
        assert_eq!(found(&set, None, Algorithm::ES256), Ok(Some("a".into())));
        assert_eq!(found(&set, Some("a"), Algorithm::RS256), Err(AuthError::Algorithm));
        assert_eq!(found(&set, Some("A"), Algorithm::ES256), Err(AuthError::UnknownKey));
        assert_eq!(found(&set, None, Algorithm::RS256), Err(AuthError::UnknownKey));
        // Two to choose from: only by name. One without a name is nobody's first choice.
        assert_eq!(set.replace(vec![key(Some("a"), "1"), key(None, "2")]), (1, 0));
        assert_eq!(found(&set, None, Algorithm::ES256), Err(AuthError::Claims));
        assert_eq!(found(&set, Some("a"), Algorithm::ES256), Ok(Some("a".into())));
        assert_eq!(found(&set, Some("b"), Algorithm::ES256), Err(AuthError::UnknownKey));
    }

    #[test]
    fn a_key_that_stays_is_the_same_and_one_that_goes_is_retired() {
        let mut set = KeySet::default();
        set.replace(vec![key(Some("a"), "1"), key(Some("b"), "2")]);
        let find = |set: &KeySet, kid| set.find(Some(kid), Algorithm::ES256).unwrap();
        let (a, b) = (find(&set, "a"), find(&set, "b"));
        assert_eq!(set.replace(vec![key(Some("b"), "2"), key(Some("a"), "1")]), (0, 0));
        assert!(Arc::ptr_eq(&a, &find(&set, "a")) && !a.is_retired());
        // A name that is given to other material is another key.
        assert_eq!(set.replace(vec![key(Some("a"), "3")]), (1, 2));
        assert!(a.is_retired() && b.is_retired() && !find(&set, "a").is_retired());
        assert_eq!(set.replace(Vec::new()), (0, 1));
        assert_eq!(set.len(), 0);
    }
}
