//! Where a user's usage stands: below every threshold, or at one of three levels.
//!
//! Integers alone decide: `used` has reached a threshold of `total` when it is at least the threshold's share of it,
//! rounded up. So landing exactly on it counts, and no rounding of a float ever decides about an alert.

use super::AlertThreshold;

/// How far usage has come; each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Early enough to do something about it; 80 % unless the user says otherwise.
    Warning,
    /// Urgent; 95 % unless the user says otherwise.
    Critical,
    /// Everything is used: reserves are refused, by the balance itself. Always at 100 %.
    Blocked,
}

impl Level {
    /// In the order in which they are reached.
    pub const ALL: [Self; 3] = [Self::Warning, Self::Critical, Self::Blocked];

    /// The word in SQL, events and API answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Blocked => "blocked",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == name)
    }
}

/// How many levels are reached, 0 … 3: what is kept of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Standing(u8);

impl Standing {
    /// Nothing is reached.
    pub const CLEAR: Self = Self(0);

    /// `None` above 3.
    pub fn from_rank(rank: u8) -> Option<Self> {
        (usize::from(rank) <= Level::ALL.len()).then_some(Self(rank))
    }

    /// 0 … 3.
    pub fn rank(self) -> u8 {
        self.0
    }

    /// The highest level that is reached.
    pub fn level(self) -> Option<Level> {
        self.0.checked_sub(1).map(|index| Level::ALL[usize::from(index)])
    }

    /// The levels that a move from here reaches, lowest first; none when it does not lead up.
    pub fn reached_by(self, after: Self) -> &'static [Level] {
        between(self, after)
    }

    /// The levels that a move from here leaves, lowest first; none when it does not lead down.
    pub fn left_by(self, after: Self) -> &'static [Level] {
        between(after, self)
    }
}

fn between(low: Standing, high: Standing) -> &'static [Level] {
    const ALL: &[Level] = &Level::ALL;
    ALL.get(usize::from(low.0)..usize::from(high.0)).unwrap_or_default()
}

/// The shares of the total at which the levels begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    warning: AlertThreshold,
    critical: AlertThreshold,
}

/// The warning's threshold is above the critical one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a warning comes at or before the critical alert")]
pub struct OutOfOrder;

impl Thresholds {
    /// # Errors
    /// When the warning would come after the critical alert.
    pub fn new(warning: AlertThreshold, critical: AlertThreshold) -> Result<Self, OutOfOrder> {
        if warning <= critical { Ok(Self { warning, critical }) } else { Err(OutOfOrder) }
    }

    /// Where the level begins.
    pub fn of(self, level: Level) -> AlertThreshold {
        match level {
            Level::Warning => self.warning,
            Level::Critical => self.critical,
            Level::Blocked => AlertThreshold::WHOLE,
        }
    }

    /// Where this usage stands. With a total of 0 there is nothing to be used up, and so no alert.
    pub fn standing(self, used: u64, total: u64) -> Standing {
        if total == 0 {
            return Standing::CLEAR;
        }
        let reached = Level::ALL.into_iter().filter(|level| self.of(*level).is_reached(used, total));
        Standing(reached.fold(0, |rank, _| rank + 1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quota::MAX_TOTAL_TOKENS;

    fn share(n: u16) -> AlertThreshold {
        AlertThreshold::from_ten_thousandths(n).unwrap()
    }

    fn usual() -> Thresholds {
        Thresholds::new(share(8_000), share(9_500)).unwrap()
    }

    #[test]
    fn a_threshold_is_reached_exactly_where_it_begins() {
        for (used, total, rank) in [
            (0, 100, 0),
            (79, 100, 0),
            (80, 100, 1),
            (94, 100, 1),
            (95, 100, 2),
            (99, 100, 2),
            (100, 100, 3),
            (160, 100, 3),
            (7_999, 10_000, 0),
            (8_000, 10_000, 1),
            // Rounded up: four fifths of 7 are 5.6.
            (5, 7, 0),
            (6, 7, 1),
            (1, 1, 3),
            (0, 0, 0),
            (50, 0, 0),
            (MAX_TOTAL_TOKENS - 1, MAX_TOTAL_TOKENS, 2),
            (MAX_TOTAL_TOKENS, MAX_TOTAL_TOKENS, 3),
        ] {
            assert_eq!(usual().standing(used, total).rank(), rank, "{used} of {total}");
        }
    }

    #[test]
    fn a_jump_reaches_each_level_in_order_and_the_way_back_leaves_them() {
        let (clear, all) = (Standing::CLEAR, usual().standing(100, 100));
        assert_eq!(clear.reached_by(all), Level::ALL);
        assert_eq!(all.left_by(clear), Level::ALL);
        assert!(all.reached_by(clear).is_empty() && clear.left_by(all).is_empty());
        let warned = usual().standing(80, 100);
        assert_eq!(warned.reached_by(all), [Level::Critical, Level::Blocked]);
        assert_eq!((warned.reached_by(warned), warned.left_by(warned)), (&[][..], &[][..]));
        assert_eq!((clear.level(), all.level()), (None, Some(Level::Blocked)));
        assert_eq!(Standing::from_rank(4), None);
    }

    #[test]
    fn thresholds_are_in_order() {
        assert_eq!(Thresholds::new(share(9_501), share(9_500)), Err(OutOfOrder));
        let at_once = Thresholds::new(share(10_000), share(10_000)).unwrap();
        assert_eq!(at_once.standing(99, 100).rank(), 0);
        assert_eq!(at_once.standing(100, 100).rank(), 3);
    }

    proptest! {
        /// However usage climbs, each level is reached once, in order, and never before its share is used.
        #[test]
        fn climbing_reaches_each_level_once(
            total in 1..=MAX_TOTAL_TOKENS,
            warning in 1..=10_000_u16,
            above in 0..=10_000_u16,
            mut steps in prop::collection::vec(0..=MAX_TOTAL_TOKENS, 1..40),
        ) {
            let critical = (warning + above).min(10_000);
            let thresholds = Thresholds::new(share(warning), share(critical)).unwrap();
            steps.sort_unstable();
            let (mut stands, mut fired) = (Standing::CLEAR, Vec::new());
            for used in steps.iter().copied() {
                let after = thresholds.standing(used, total);
                for level in stands.reached_by(after) {
                    let needed = u128::from(total) * u128::from(thresholds.of(*level).ten_thousandths());
                    prop_assert!(u128::from(used) >= needed.div_ceil(10_000));
                    fired.push(*level);
                }
                prop_assert!(stands.left_by(after).is_empty());
                stands = after;
            }
            prop_assert_eq!(&fired[..], &Level::ALL[..fired.len()]);
            let last = *steps.last().unwrap();
            prop_assert_eq!(fired.contains(&Level::Blocked), last >= total);
        }

        /// More tokens never lead up, fewer never down.
        #[test]
        fn grants_move_one_way(used in 0..=MAX_TOTAL_TOKENS, total in 1..=MAX_TOTAL_TOKENS, more in 0..1_000_000_u64) {
            let before = usual().standing(used, total);
            prop_assert!(usual().standing(used, (total + more).min(MAX_TOTAL_TOKENS)) <= before);
        }
    }
}
