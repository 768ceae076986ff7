//! Which partition an account lives in.

use super::UserId;

/// Number of a partition, 0 … count − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId(pub u16);

/// How many partitions there are; stored in Postgres, changed only by repartitioning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitions(u16);

impl Partitions {
    /// Takes 1 … 1024.
    pub fn new(count: u16) -> Option<Self> {
        (1..=1024).contains(&count).then_some(Self(count))
    }

    pub fn count(self) -> u16 {
        self.0
    }

    pub fn iter(self) -> impl Iterator<Item = PartitionId> {
        (0..self.0).map(PartitionId)
    }

    /// The partition of an account: a fixed hash of its root, so that every version and language that reads the keys
    /// finds the same one. An account is its own root until groups exist.
    ///
    /// Both halves of the id count: ids that some system numbered one after the other must spread too. The mixing is
    /// the finalizer of SplitMix64 (Steele, Lea, Flood 2014).
    pub fn of(self, root: UserId) -> PartitionId {
        let (high, low) = root.0.as_u64_pair();
        PartitionId((mix(mix(high) ^ low) % u64::from(self.0)) as u16)
    }
}

/// Every bit of the result depends on every bit of the value.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_even(users: impl Iterator<Item = UserId>) {
        let partitions = Partitions::new(8).unwrap();
        let mut counts = [0; 8];
        users.for_each(|user| counts[usize::from(partitions.of(user).0)] += 1);
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }

    #[test]
    fn accounts_spread_evenly_however_their_ids_were_made() {
        assert_even((0..8000).map(|_| UserId::generate()));
        assert_even((0..8000).map(|n| UserId(uuid::Uuid::from_u64_pair(0x4000, n))));
        assert_even((0..8000).map(|n| UserId(uuid::Uuid::from_u64_pair(n, 0x8000 << 48))));
    }

    /// Pinned: a change would strand every account's keys.
    #[test]
    fn the_place_of_an_account_never_changes() {
        let user: UserId = "0190a5a0-7b1c-7def-8123-456789abcdef".parse().unwrap();
        assert_eq!(Partitions::new(8).unwrap().of(user), PartitionId(1));
    }
}
