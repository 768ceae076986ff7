//! Auto-renewal: when tokens are added by themselves, and how often.

use jiff::{Timestamp, Zoned, tz::TimeZone};

use super::{AlertThreshold, MAX_TOTAL_TOKENS, Tokens};

/// Most renewals of a calendar month that a rule may allow.
pub const MAX_RENEWALS_PER_MONTH: u32 = 100;

/// How a renewal comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalMode {
    /// Granted as soon as it is due.
    Immediate,
    /// Requested when it is due, granted once somebody confirms that it is paid.
    OnPayment,
}

impl RenewalMode {
    pub const ALL: [Self; 2] = [Self::Immediate, Self::OnPayment];

    /// The word in SQL and API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Immediate => "immediate",
            Self::OnPayment => "on_payment",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == name)
    }
}

/// When to renew, by how much, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewalRule {
    threshold: AlertThreshold,
    tokens: Tokens,
    max_renewals: u32,
}

/// A rule that would never, or always, be due; or one that adds nothing, or too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    /// With everything left it would still be due.
    #[error("the threshold is below 1")]
    Threshold,
    #[error("a renewal adds at least 1 token")]
    Tokens,
    #[error("a month has at most {MAX_RENEWALS_PER_MONTH} renewals")]
    MaxRenewals,
}

/// What a rule asks for now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// How often to renew.
    pub renewals: u32,
    /// Even then too little is left, and the month has no further renewal, or the total no room.
    pub capped: bool,
}

impl RenewalRule {
    /// # Errors
    /// When the threshold is everything, no token is added, or more than 100 renewals are allowed.
    pub fn new(threshold: AlertThreshold, tokens: Tokens, max_renewals: u32) -> Result<Self, InvalidRule> {
        if threshold == AlertThreshold::WHOLE {
            Err(InvalidRule::Threshold)
        } else if tokens == Tokens::ZERO {
            Err(InvalidRule::Tokens)
        } else if max_renewals > MAX_RENEWALS_PER_MONTH {
            Err(InvalidRule::MaxRenewals)
        } else {
            Ok(Self { threshold, tokens, max_renewals })
        }
    }

    /// The share of the total at or below which what is left calls for a renewal.
    pub fn threshold(&self) -> AlertThreshold {
        self.threshold
    }

    /// What a renewal adds.
    pub fn tokens(&self) -> Tokens {
        self.tokens
    }

    /// Renewals of a calendar month.
    pub fn max_renewals(&self) -> u32 {
        self.max_renewals
    }

    /// Whether so little is left. With nothing granted nothing is left.
    pub fn is_due(&self, used: u64, total: u64) -> bool {
        let left = i128::from(total) - i128::from(used);
        let share = i128::from(self.threshold.ten_thousandths());
        left * i128::from(AlertThreshold::WHOLE.ten_thousandths()) <= i128::from(total) * share
    }

    /// What to do for an account that has had `counted` renewals this month: as many as it takes to be no longer due,
    /// within the cap, and never past what a total may be.
    pub fn plan(&self, used: u64, total: u64, counted: u32) -> Plan {
        let (mut total, mut renewals) = (total, 0);
        while self.is_due(used, total) {
            let after = total.saturating_add(self.tokens.get());
            if counted.saturating_add(renewals) >= self.max_renewals || after > MAX_TOTAL_TOKENS {
                return Plan { renewals, capped: true };
            }
            (total, renewals) = (after, renewals + 1);
        }
        Plan { renewals, capped: false }
    }
}

/// The calendar month of this instant in that zone, as `YYYY-MM`.
pub fn month_of(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%Y-%m").to_string()
}

/// The instant at which the next month begins in that zone.
///
/// # Errors
/// When that is beyond the calendar.
pub fn next_month(at: Timestamp, zone: &TimeZone) -> Result<Timestamp, jiff::Error> {
    let local: Zoned = at.to_zoned(zone.clone());
    let first = local.date().first_of_month().checked_add(jiff::Span::new().months(1))?;
    Ok(first.to_zoned(zone.clone())?.timestamp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(threshold: u16, tokens: u64, max_renewals: u32) -> RenewalRule {
        let threshold = AlertThreshold::from_ten_thousandths(threshold).unwrap();
        RenewalRule::new(threshold, Tokens::new(tokens).unwrap(), max_renewals).unwrap()
    }

    #[test]
    fn due_at_or_below_the_share_that_is_left() {
        let tenth = rule(1_000, 5, 3);
        for (used, total, due) in [
            (89, 100, false),
            (90, 100, true),
            (100, 100, true),
            (200, 100, true),
            (0, 0, true),
            (0, 1, false),
            // A tenth of 15 is 1.5: 2 left are more.
            (13, 15, false),
            (14, 15, true),
        ] {
            assert_eq!(tenth.is_due(used, total), due, "{used} of {total}");
        }
    }

    #[test]
    fn a_gap_that_cannot_be_closed_ends_at_the_cap() {
        // Case 59: threshold 10, top-up 5, balance −100.
        let small = rule(1_000, 5, 3);
        assert_eq!(small.plan(200, 100, 0), Plan { renewals: 3, capped: true });
        assert_eq!(small.plan(200, 115, 3), Plan { renewals: 0, capped: true });
        assert_eq!(small.plan(90, 100, 1), Plan { renewals: 1, capped: false });
        assert_eq!(small.plan(89, 100, 0), Plan::default());
        assert_eq!(rule(1_000, 5, 0).plan(90, 100, 0), Plan { renewals: 0, capped: true });
        let full = rule(1_000, 1_000, 100).plan(MAX_TOTAL_TOKENS, MAX_TOTAL_TOKENS - 999, 0);
        assert_eq!(full, Plan { renewals: 0, capped: true }, "a total stays below 2^53");
    }

    #[test]
    fn rules_that_make_no_sense() {
        let share = |n| AlertThreshold::from_ten_thousandths(n).unwrap();
        let one = Tokens::new(1).unwrap();
        assert_eq!(RenewalRule::new(share(10_000), one, 1), Err(InvalidRule::Threshold));
        assert_eq!(RenewalRule::new(share(1), Tokens::ZERO, 1), Err(InvalidRule::Tokens));
        assert_eq!(RenewalRule::new(share(1), one, 101), Err(InvalidRule::MaxRenewals));
    }

    #[test]
    fn months_begin_where_the_user_lives() {
        let sao_paulo = TimeZone::get("America/Sao_Paulo").unwrap();
        for (at, utc, local) in [
            ("2026-01-31T23:59:59.999Z", "2026-01", "2026-01"),
            // The very instant belongs to the new month.
            ("2026-02-01T00:00:00Z", "2026-02", "2026-01"),
            ("2026-02-01T02:59:59.999Z", "2026-02", "2026-01"),
            ("2026-02-01T03:00:00Z", "2026-02", "2026-02"),
        ] {
            let at: Timestamp = at.parse().unwrap();
            assert_eq!(
                (month_of(at, &TimeZone::UTC).as_str(), month_of(at, &sao_paulo).as_str()),
                (utc, local)
            );
        }
        let at: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        assert_eq!(next_month(at, &sao_paulo).unwrap().to_string(), "2026-02-01T03:00:00Z");
        let december: Timestamp = "2026-12-05T00:00:00Z".parse().unwrap();
        assert_eq!(next_month(december, &TimeZone::UTC).unwrap().to_string(), "2027-01-01T00:00:00Z");
    }

    proptest! {
        /// Whatever the numbers: never more than the cap, never more than needed, and capped exactly when still due.
        #[test]
        fn as_many_as_needed_within_the_cap(
            threshold in 1..10_000_u16,
            tokens in 1..=1_000_000_000_000_u64,
            max in 0..=MAX_RENEWALS_PER_MONTH,
            counted in 0..=120_u32,
            used in 0..=MAX_TOTAL_TOKENS,
            total in 0..=MAX_TOTAL_TOKENS,
        ) {
            let rule = rule(threshold, tokens, max);
            let plan = rule.plan(used, total, counted);
            let after = total + u64::from(plan.renewals) * tokens;
            prop_assert!(counted.max(max) >= counted + plan.renewals);
            prop_assert!(after <= MAX_TOTAL_TOKENS);
            prop_assert_eq!(plan.capped, rule.is_due(used, after));
            if plan.renewals > 0 {
                prop_assert!(rule.is_due(used, after - tokens), "the last one was needed");
            }
        }

        #[test]
        fn the_next_month_is_the_next(seconds in 0..4_000_000_000_i64, zone in 0..4_usize) {
            let zones = ["UTC", "America/Sao_Paulo", "Pacific/Kiritimati", "Africa/Cairo"];
            let zone = TimeZone::get(zones[zone]).unwrap();
            let at = Timestamp::from_second(seconds).unwrap();
            let next = next_month(at, &zone).unwrap();
            prop_assert!(next > at);
            prop_assert!(month_of(next, &zone) > month_of(at, &zone));
            let before = next.checked_sub(jiff::SignedDuration::from_nanos(1)).unwrap();
            prop_assert_eq!(month_of(before, &zone), month_of(at, &zone));
        }
    }
}
