//! Each user's share of a lane's queue, so that one user cannot fill it.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::quota::UserId;

/// Number of counters. Users that fall on the same one share it; memory stays bounded however many there are.
const COUNTERS: usize = 4096;

/// Counts waiting reserves by user.
pub struct WaitingReserves {
    counters: Vec<AtomicUsize>,
    hasher: RandomState,
    most: usize,
}

impl WaitingReserves {
    pub fn new(most: usize) -> Self {
        Self {
            counters: (0..COUNTERS).map(|_| AtomicUsize::new(0)).collect(),
            // Keyed at random: nobody can choose ids that fall on another user's counter.
            hasher: RandomState::new(),
            most,
        }
    }

    /// Takes one share, or says that the user has no more.
    pub fn enter(self: &Arc<Self>, user: UserId) -> Option<Share> {
        let index = self.hasher.hash_one(user) as usize % COUNTERS;
        let before = self.counters[index].fetch_add(1, Ordering::Relaxed);
        let share = Share { of: Arc::clone(self), index };
        (before < self.most).then_some(share)
    }
}

/// One waiting reserve; ends when dropped.
pub struct Share {
    of: Arc<WaitingReserves>,
    index: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.counters[self.index].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_gets_its_share_and_no_more() {
        let waiting = Arc::new(WaitingReserves::new(2));
        let user = UserId::generate();
        let (first, second) = (waiting.enter(user), waiting.enter(user));
        assert!(first.is_some() && second.is_some());
        assert!(waiting.enter(user).is_none());
        drop(first);
        assert!(waiting.enter(user).is_some());
    }
}
