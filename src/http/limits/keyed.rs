//! One budget per key, in bounded memory.
//!
//! governor decides; the store behind it is ours for two reasons: a key past the cap must not make it grow, and a
//! budget must be looked at without being spent.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    nanos::Nanos,
    state::{StateStore, keyed::ShrinkableKeyedStateStore},
};

/// Keys of one limiter; those beyond share one budget until old ones are forgotten.
pub const MAX_KEYS: usize = 100_000;

const SHARDS: usize = 16;

/// Seconds until another call is worth a try; at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait(pub u32);

/// A budget per key.
pub struct Keyed {
    limiter: RateLimiter<Ask, Budgets, DefaultClock>,
    hasher: RandomState,
}

impl Keyed {
    pub fn new(quota: Quota, max_keys: usize) -> Self {
        let clock = DefaultClock::default();
        Self { limiter: RateLimiter::new(quota, Budgets::new(max_keys), clock), hasher: RandomState::new() }
    }

    /// Takes one from the budget of `key`.
    ///
    /// # Errors
    /// When it is spent.
    pub fn take(&self, key: impl Hash) -> Result<(), Wait> {
        self.ask(key, true)
    }

    /// As [`Self::take`], and takes nothing.
    ///
    /// # Errors
    /// When it is spent.
    pub fn look(&self, key: impl Hash) -> Result<(), Wait> {
        self.ask(key, false)
    }

    /// Forgets keys whose budget is whole again, and gives their memory back.
    pub fn tidy(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }

    /// How many keys are remembered.
    pub fn keys(&self) -> usize {
        self.limiter.len()
    }

    fn ask(&self, key: impl Hash, spends: bool) -> Result<(), Wait> {
        // A keyed hash of 64 bits stands for the key: eight bytes whatever a caller's name is, and nobody outside can
        // find two names that share one.
        let ask = Ask { key: self.hasher.hash_one(key), spends };
        self.limiter.check_key(&ask).map_err(|denied| {
            let wait = denied.wait_time_from(self.limiter.clock().now());
            let seconds = u32::try_from(wait.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u32::MAX);
            Wait(seconds.max(1))
        })
    }
}

/// A question to the store.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Ask {
    key: u64,
    spends: bool,
}

/// When each budget will be whole again, as governor counts it.
struct Budgets {
    shards: [Mutex<HashMap<u64, Nanos>>; SHARDS],
    keys: AtomicUsize,
    max_keys: usize,
    /// The one budget of all keys for which there is no room.
    shared: Mutex<Option<Nanos>>,
}

impl Budgets {
    fn new(max_keys: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            keys: AtomicUsize::new(0),
            max_keys,
            shared: Mutex::new(None),
        }
    }
}

/// What a panic could leave behind is a whole entry or none.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StateStore for Budgets {
    type Key = Ask;

    fn measure_and_replace<T, F, E>(&self, ask: &Ask, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut shard = lock(&self.shards[ask.key as usize % SHARDS]);
        if let Some(budget) = shard.get_mut(&ask.key) {
            let (answer, next) = decide(Some(*budget))?;
            if ask.spends {
                *budget = next;
            }
            return Ok(answer);
        }
        if self.keys.load(Ordering::Relaxed) >= self.max_keys {
            drop(shard);
            let mut shared = lock(&self.shared);
            let (answer, next) = decide(*shared)?;
            if ask.spends {
                *shared = Some(next);
            }
            return Ok(answer);
        }
        let (answer, next) = decide(None)?;
        if ask.spends {
            shard.insert(ask.key, next);
            self.keys.fetch_add(1, Ordering::Relaxed);
        }
        Ok(answer)
    }
}

impl ShrinkableKeyedStateStore<Ask> for Budgets {
    fn retain_recent(&self, drop_below: Nanos) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            let before = shard.len();
            shard.retain(|_, budget| *budget > drop_below);
            self.keys.fetch_sub(before - shard.len(), Ordering::Relaxed);
        }
    }

    fn shrink_to_fit(&self) {
        self.shards.iter().for_each(|shard| lock(shard).shrink_to_fit());
    }

    fn len(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use super::*;

    fn per_hour(calls: u32) -> Quota {
        Quota::per_hour(NonZeroU32::new(calls).unwrap())
    }

    #[test]
    fn a_budget_is_spent_by_its_own_key_alone() {
        let keyed = Keyed::new(per_hour(2), 10);
        assert_eq!((keyed.take("a"), keyed.take("a")), (Ok(()), Ok(())));
        let Err(Wait(seconds)) = keyed.take("a") else { panic!("a third call") };
        assert!((1_790..=1_801).contains(&seconds), "{seconds}: half an hour for each of two");
        assert_eq!(keyed.take("b"), Ok(()));
    }

    #[test]
    fn a_look_spends_nothing() {
        let keyed = Keyed::new(per_hour(1), 10);
        for _ in 0..3 {
            assert_eq!(keyed.look("a"), Ok(()));
        }
        assert_eq!(keyed.keys(), 0);
        keyed.take("a").unwrap();
        assert!(keyed.look("a").is_err());
    }

    #[test]
    fn a_million_keys_take_no_more_room_than_the_cap_and_share_one_budget() {
        let keyed = Keyed::new(per_hour(3), 1_000);
        let served = (0..1_000_000).filter(|key| keyed.take(key).is_ok()).count();
        assert_eq!(served, 1_000 + 3);
        assert_eq!(keyed.keys(), 1_000);
        let room: usize = keyed.limiter.into_state_store().shards.iter().map(|s| lock(s).capacity()).sum();
        assert!(room <= 4_000, "{room}");
    }

    #[test]
    fn what_is_whole_again_is_forgotten_and_its_memory_given_back() {
        // Whole again within a nanosecond; the pause only needs to be longer than that.
        let quota = Quota::with_period(Duration::from_nanos(1)).unwrap();
        let keyed = Keyed::new(quota, 10_000);
        (0..10_000).for_each(|key| keyed.take(key).unwrap());
        assert_eq!(keyed.keys(), 10_000);
        while keyed.keys() > 0 {
            keyed.tidy();
        }
        let room: usize = keyed.limiter.into_state_store().shards.iter().map(|s| lock(s).capacity()).sum();
        assert_eq!(room, 0);
    }
}
