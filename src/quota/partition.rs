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

    /// The partition of an account: FNV-1a over the bytes of its root, so that every version and language that
    /// reads the keys finds the same one. An account is its own root until groups exist.
    pub fn of(self, root: UserId) -> PartitionId {
        let hash = root.0.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // The high half: FNV's low bits mix the last byte only weakly.
        PartitionId(((hash >> 32) % u64::from(self.0)) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_spread_evenly() {
        let partitions = Partitions::new(8).unwrap();
        let mut counts = [0; 8];
        for _ in 0..8000 {
            counts[usize::from(partitions.of(UserId::generate()).0)] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }

    /// Pinned: a change would strand every account's keys.
    #[test]
    fn the_place_of_an_account_never_changes() {
        let user: UserId = "0190a5a0-7b1c-7def-8123-456789abcdef".parse().unwrap();
        assert_eq!(Partitions::new(8).unwrap().of(user), PartitionId(6));
    }
}
