//! Whether an hour's use is out of the user's ordinary.
//!
//! An hour is compared with *its like*: the hour of the same time of day, the one before and the one after, on each of
//! the last [`BASELINE_DAYS`] days by the user's calendar. Median and median absolute deviation (MAD) describe them: up
//! to half of the past may be odd itself without moving these far. Since the use of many users is all but regular, or
//! naught at night, the spread is at least a quarter of what the user ordinarily uses in an hour in which it uses
//! anything. The hour is an anomaly when it used more than
//!
//! `threshold = median + 6 × max(1.4826 × MAD, typical / 4)`
//!
//! and at least the configured number of tokens. 1.4826 makes the MAD of a normal distribution its standard deviation.

use std::collections::BTreeMap;

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use super::period::{day_at, day_start, days_before, hour_start};

/// Days that are looked back upon.
pub const BASELINE_DAYS: u16 = 28;
/// Hours alike without which nothing is said: seven days of three.
pub const MIN_SAMPLES: usize = 21;
/// How many spreads above the median an hour may be.
const SPREADS: i64 = 6;

/// What a user's past says of one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// Of the tokens used in the hours alike.
    pub median: i64,
    /// Median of their distances from it.
    pub mad: i64,
    /// Median of all hours of these days in which anything was used.
    pub typical: i64,
    /// Hours alike.
    pub samples: usize,
}

impl Baseline {
    /// `None` when there are too few hours alike, or nothing was ever used. The order of the values does not matter.
    pub fn of(alike: &mut [i64], active: &mut [i64]) -> Option<Self> {
        let samples = alike.len();
        if samples < MIN_SAMPLES {
            return None;
        }
        let typical = median(active)?;
        let median_alike = median(alike)?;
        let mut distances: Vec<i64> = alike.iter().map(|value| (value - median_alike).abs()).collect();
        Some(Self { median: median_alike, mad: median(&mut distances)?, typical, samples })
    }

    /// What an hour has to use more than to be an anomaly; at least 1 less than `min_tokens`.
    pub fn threshold(&self, min_tokens: i64) -> i64 {
        // Sums of quarter hours are far below 2^53.
        let spread = (self.mad * 14_826 / 10_000).max(self.typical / 4);
        (self.median + SPREADS * spread).max(min_tokens - 1)
    }
}

/// The middle of the values, of two the lower; `None` of none.
fn median(values: &mut [i64]) -> Option<i64> {
    let middle = values.len().checked_sub(1)? / 2;
    Some(*values.select_nth_unstable(middle).1)
}

/// The hour that is judged, and the span of its past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hour {
    /// Its first instant: a quarter hour of UTC.
    pub start: Timestamp,
    /// First instant of the days that are looked back upon.
    pub past_start: Timestamp,
    /// First instant of its own day, which is no part of its past.
    pub past_end: Timestamp,
}

impl Hour {
    /// The hour of the user's clock at this instant.
    pub fn at(instant: Timestamp, zone: &TimeZone) -> Self {
        let start = hour_start(instant, zone);
        let today = day_at(start, zone);
        let past_start = day_start(days_before(today, BASELINE_DAYS), zone);
        Self { start, past_start, past_end: day_start(today, zone) }
    }

    /// The baseline from the user's use by quarter hour in the past of this hour.
    pub fn baseline(&self, zone: &TimeZone, quarters: &[(Timestamp, i64)]) -> Option<Baseline> {
        let mut hours = BTreeMap::<(Date, i8), i64>::new();
        for (quarter, tokens) in quarters {
            let clock = zone.to_datetime(*quarter);
            *hours.entry((clock.date(), clock.hour())).or_default() += tokens;
        }
        // Days before the first use say nothing of what is ordinary.
        let (first, _) = *hours.first_key_value()?.0;
        let hour = zone.to_datetime(self.start);
        let mut alike = Vec::with_capacity(usize::from(BASELINE_DAYS) * 3);
        for back in 1..=BASELINE_DAYS {
            let day = days_before(hour.date(), back);
            if day < first {
                break;
            }
            alike.extend((-1..=1).map(|offset| of_neighbour(&hours, day, hour.hour() + offset)));
        }
        let mut active: Vec<i64> = hours.into_values().filter(|tokens| *tokens > 0).collect();
        Baseline::of(&mut alike, &mut active)
    }
}

/// Tokens of this hour of a day; −1 and 24 are those of the days beside it.
fn of_neighbour(hours: &BTreeMap<(Date, i8), i64>, day: Date, hour: i8) -> i64 {
    let key = match hour {
        -1 => day.yesterday().map(|day| (day, 23)),
        24 => day.tomorrow().map(|day| (day, 0)),
        hour => Ok((day, hour)),
    };
    key.ok().and_then(|key| hours.get(&key).copied()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn regular_use_is_no_anomaly_and_ten_times_as_much_is() {
        let mut alike = [1_000; 84];
        let baseline = Baseline::of(&mut alike, &mut [1_000; 300]).unwrap();
        assert_eq!(baseline, Baseline { median: 1_000, mad: 0, typical: 1_000, samples: 84 });
        assert_eq!(baseline.threshold(0), 2_500);
        assert_eq!(baseline.threshold(5_000), 4_999);
        // Busy hours of 0 to 83 hundred.
        let mut alike: Vec<i64> = (0..84).map(|n| n * 100).collect();
        let baseline = Baseline::of(&mut alike, &mut [4_000; 300]).unwrap();
        assert_eq!((baseline.median, baseline.mad), (4_100, 2_100));
        assert_eq!(baseline.threshold(0), 4_100 + 6 * 3_113);
        // At night, when nothing is used.
        let baseline = Baseline::of(&mut [0; 84], &mut [4_000; 300]).unwrap();
        assert_eq!(baseline.threshold(0), 6_000);
    }

    #[test]
    fn too_little_past_says_nothing() {
        assert_eq!(Baseline::of(&mut [1; MIN_SAMPLES - 1], &mut [1; 300]), None);
        assert!(Baseline::of(&mut [1; MIN_SAMPLES], &mut [1]).is_some());
        assert_eq!(Baseline::of(&mut [0; MIN_SAMPLES], &mut []), None, "never used anything");
    }

    /// 10 tokens in every quarter hour from 09:00 to 11:00 by the user's clock, for so many days before `start`.
    fn mornings(start: Timestamp, zone: &TimeZone, days: i64) -> Vec<(Timestamp, i64)> {
        let quarters = (1..=days * 96).map(|n| start - (n * 15).minutes());
        let of_morning = |at: &Timestamp| (9..11).contains(&zone.to_datetime(*at).hour());
        quarters.filter(of_morning).map(|at| (at, 10)).collect()
    }

    #[test]
    fn an_hour_is_compared_with_its_like_by_the_users_clock() {
        // Clocks went back on the first, and Nepal's hours begin at a quarter past in UTC.
        for (name, now) in [
            ("UTC", "2026-11-11T09:59:00Z"),
            ("America/New_York", "2026-11-11T14:59:00Z"),
            ("Asia/Kathmandu", "2026-11-11T04:14:00Z"),
        ] {
            let zone = TimeZone::get(name).unwrap();
            let hour = Hour::at(now.parse().unwrap(), &zone);
            let clock = zone.to_datetime(hour.start);
            assert_eq!((clock.hour(), clock.minute()), (9, 0), "{name}");
            let quarters = mornings(hour.past_end, &zone, 28);
            let baseline = hour.baseline(&zone, &quarters).unwrap();
            // Two of three hours alike are of the morning.
            assert_eq!(baseline, Baseline { median: 40, mad: 0, typical: 40, samples: 84 }, "{name}");
            let evening = Hour::at(hour.start + 10.hours(), &zone).baseline(&zone, &quarters).unwrap();
            assert_eq!((evening.median, evening.typical), (0, 40), "{name}");
            // Of a week only the days since its beginning count, and of less nothing is said.
            assert_eq!(
                hour.baseline(&zone, &mornings(hour.past_end, &zone, 7)).unwrap().samples,
                21,
                "{name}"
            );
            assert_eq!(hour.baseline(&zone, &mornings(hour.past_end, &zone, 6)), None, "{name}");
            assert_eq!(hour.baseline(&zone, &[]), None);
        }
    }

    #[test]
    fn the_hours_around_midnight_have_neighbours_on_other_days() {
        let hour = Hour::at("2026-11-11T00:10:00Z".parse().unwrap(), &TimeZone::UTC);
        let quarters: Vec<_> = (1..=28).map(|day| (hour.start - (day * 24 + 1).hours(), 70)).collect();
        let baseline = hour.baseline(&TimeZone::UTC, &quarters).unwrap();
        assert_eq!((baseline.median, baseline.typical, baseline.samples), (0, 70, 84));
        assert_eq!((hour.past_start, hour.past_end), (hour.start - (28 * 24).hours(), hour.start));
    }

    proptest! {
        #[test]
        fn the_order_of_the_past_does_not_matter_and_its_scale_does(
            past in proptest::collection::vec(0_i64..1_000_000, MIN_SAMPLES..90), factor in 1_i64..1_000,
        ) {
            let of = |values: &[i64]| {
                Baseline::of(&mut values.to_vec(), &mut values.iter().map(|v| v + 1).collect::<Vec<_>>()).unwrap()
            };
            let mut turned = past.clone();
            turned.reverse();
            prop_assert_eq!(of(&past), of(&turned));
            let baseline = of(&past);
            prop_assert!(baseline.threshold(0) >= baseline.median);
            let scaled: Vec<i64> = past.iter().map(|value| value * factor).collect();
            prop_assert_eq!((of(&scaled).median, of(&scaled).mad), (baseline.median * factor, baseline.mad * factor));
        }

        /// Robust: whatever fewer than half of the hours were, the threshold stays within what the others say.
        #[test]
        fn odd_hours_in_the_past_hide_nothing(odd in proptest::collection::vec(0_i64..1 << 50, 0..20)) {
            let mut alike: Vec<i64> = (0..44).map(|n| 900 + n * 5).chain(odd.iter().copied()).collect();
            let mut active = alike.clone();
            let baseline = Baseline::of(&mut alike, &mut active).unwrap();
            prop_assert!((900..1_120).contains(&baseline.median));
            prop_assert!(baseline.threshold(0) < 1_120 + 6 * 330, "{baseline:?}");
        }
    }
}
