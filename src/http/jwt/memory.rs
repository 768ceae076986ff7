//! JWTs that were taken are remembered, so that each is parsed and checked once.
//!
//! Only a JWT that was verified enters, so nobody without one can fill the memory; it is bounded in bytes, and drops
//! what is used least. An entry ends with its JWT, or with the key that has checked it.

use std::sync::Arc;

use moka::sync::Cache;

use super::{AuthError, Principal, keys::Key};

/// The JWTs are remembered up to this many bytes of them.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// What a JWT was found to say. All but its end and its key holds for ever.
pub(super) struct Taken {
    pub principal: Principal,
    pub exp: u64,
    pub key: Arc<Key>,
}

pub(super) struct Memory(Cache<Arc<str>, Arc<Taken>>);

impl Memory {
    pub(super) fn new() -> Self {
        let weight = |jwt: &Arc<str>, _: &Arc<Taken>| u32::try_from(jwt.len()).unwrap_or(u32::MAX);
        Self(Cache::builder().weigher(weight).max_capacity(MAX_BYTES).build())
    }

    /// What is remembered of a JWT. By `now`, less the leeway, it may have expired; when its key is gone, there is
    /// nothing to remember, and it is to be checked again.
    pub(super) fn recall(&self, jwt: &str, now: u64) -> Option<Result<Principal, AuthError>> {
        let taken = self.0.get(jwt)?;
        if taken.exp >= now && !taken.key.is_retired() {
            return Some(Ok(taken.principal.clone()));
        }
        self.0.invalidate(jwt);
        (!taken.key.is_retired()).then_some(Err(AuthError::Expired))
    }

    pub(super) fn remember(&self, jwt: &str, taken: Taken) {
        self.0.insert(jwt.into(), Arc::new(taken));
    }
}
