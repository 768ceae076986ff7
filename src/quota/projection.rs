//! What a user will have used by the end of the month, and for how long the rest will do.
//!
//! The method is plain, so that it can be stated and checked by hand: the mean of the user's complete calendar days
//! among the last [`WINDOW_DAYS`], the day of the first use left out since it was not used from its beginning. With
//! fewer than [`MIN_DAYS`] such days nothing is projected. Amounts are rounded once, at the end, upward.

use jiff::{Timestamp, tz::TimeZone};

use super::period::{Month, day_at, day_start, days_before};

/// Complete days that are looked at, at most.
pub const WINDOW_DAYS: u16 = 28;
/// Complete days without which nothing is projected.
pub const MIN_DAYS: u16 = 3;

/// The complete days that a projection rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first instant of the first of them.
    pub start: Timestamp,
    /// The first instant of the day of the projection.
    pub end: Timestamp,
    /// How many there are, up to [`WINDOW_DAYS`]; 0 for a user who never used anything.
    pub days: u16,
}

impl Window {
    /// The window of a user who used something for the first time at `first_use`.
    pub fn of(now: Timestamp, zone: &TimeZone, first_use: Option<Timestamp>) -> Self {
        let today = day_at(now, zone);
        let end = day_start(today, zone);
        let earliest = days_before(today, WINDOW_DAYS);
        let after_first = first_use.and_then(|first_use| day_at(first_use, zone).tomorrow().ok());
        let first = after_first.map_or(today, |after| after.max(earliest)).min(today);
        let days = (today - first).get_days();
        Self { start: day_start(first, zone), end, days: u16::try_from(days).unwrap_or(0) }
    }
}

/// Where a month stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub month: Month,
    /// Its first instant.
    pub start: Timestamp,
    /// The first instant after it.
    pub end: Timestamp,
    /// Days that are still to come, in parts of `day_ms`: what is left of today counts by its own length, every
    /// further day as one.
    left_ms: u64,
    /// Length of today.
    day_ms: u64,
}

impl Progress {
    /// The month that runs.
    pub fn of(now: Timestamp, zone: &TimeZone) -> Self {
        let (month, today) = (Month::at(now, zone), day_at(now, zone));
        let starts = day_start(today, zone);
        let ends = today.tomorrow().map_or(starts, |tomorrow| day_start(tomorrow, zone));
        let ms = |from: Timestamp, to: Timestamp| {
            u64::try_from(to.as_millisecond().saturating_sub(from.as_millisecond())).unwrap_or(0)
        };
        let day_ms = ms(starts, ends).max(1);
        let after_today = u64::from(month.days()).saturating_sub(today.day().unsigned_abs().into());
        let left_ms = ms(now, ends).min(day_ms) + after_today * day_ms;
        Self { month, start: month.start(zone), end: month.end(zone), left_ms, day_ms }
    }
}

/// What can be said of the time to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Projection {
    /// Tokens of a mean day, rounded up.
    pub daily_average: u64,
    /// What the month will have used by its end: what it has used, and a mean day for each that is left.
    pub monthly_projection: i64,
    /// Tenths of days for which the rest will do, rounded down; `None` when a mean day uses nothing.
    pub days_left_tenths: Option<u64>,
}

impl Projection {
    /// From the tokens used in the window and in the month so far, and those that remain; `None` when the window has
    /// too few days. What corrections gave back beyond what was used counts as no use.
    pub fn of(
        window: &Window,
        window_tokens: i64,
        progress: &Progress,
        month_tokens: i64,
        remaining: i64,
    ) -> Option<Self> {
        if window.days < MIN_DAYS {
            return None;
        }
        let (days, used) = (u128::from(window.days), u128::try_from(window_tokens).unwrap_or(0));
        let to_come = (used * u128::from(progress.left_ms)).div_ceil(days * u128::from(progress.day_ms));
        let left = u128::try_from(remaining).unwrap_or(0);
        let narrow = |wide: u128| u64::try_from(wide).unwrap_or(u64::MAX);
        Some(Self {
            daily_average: narrow(used.div_ceil(days)),
            monthly_projection: month_tokens.saturating_add(i64::try_from(to_come).unwrap_or(i64::MAX)),
            days_left_tenths: (left * days * 10).checked_div(used).map(narrow),
        })
    }
}

/// Hundredths of a percent of `total` that are used, rounded down: so 80.00 is shown from just where an alert at 80 %
/// is due. `None` when nothing was granted.
pub fn usage_hundredths(used: u64, total: u64) -> Option<u64> {
    (u128::from(used) * 10_000)
        .checked_div(u128::from(total))
        .map(|hundredths| u64::try_from(hundredths).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn project(
        now: &str,
        zone: &str,
        first: &str,
        window: i64,
        month: i64,
        remaining: i64,
    ) -> Option<Projection> {
        let zone = TimeZone::get(zone).unwrap();
        let range = Window::of(at(now), &zone, Some(at(first)));
        Projection::of(&range, window, &Progress::of(at(now), &zone), month, remaining)
    }

    #[test]
    fn a_month_by_hand() {
        // Noon of the 11th of 30 days: half of today and 19 days are left. 28 days used 2,800.
        let projection = project("2026-11-11T12:00:00Z", "UTC", "2026-01-01T00:00:00Z", 2_800, 1_050, 250);
        let expected =
            Projection { daily_average: 100, monthly_projection: 1_050 + 1_950, days_left_tenths: Some(25) };
        assert_eq!(projection, Some(expected));
        // Rounded once, upward; a third of a token is one.
        let odd = project("2026-11-11T00:00:00Z", "UTC", "2026-11-07T00:00:00Z", 10, 0, 10).unwrap();
        assert_eq!((odd.daily_average, odd.monthly_projection, odd.days_left_tenths), (4, 67, Some(30)));
    }

    #[test]
    fn too_few_days_say_nothing() {
        let zone = TimeZone::get("America/Sao_Paulo").unwrap();
        let now = at("2026-11-11T02:59:00Z");
        // It is still the 10th there.
        for (first, days) in [
            (None, 0),
            (Some("2026-11-11T02:58:00Z"), 0),
            (Some("2026-11-10T02:59:59Z"), 0),
            (Some("2026-11-09T02:59:59Z"), 1),
            (Some("2026-11-06T03:00:00Z"), 3),
            (Some("2026-10-01T03:00:00Z"), 28),
            // By a clock that is ahead.
            (Some("2026-12-01T03:00:00Z"), 0),
        ] {
            let window = Window::of(now, &zone, first.map(at));
            assert_eq!(window.days, days, "{first:?}");
            assert_eq!(window.end, at("2026-11-10T03:00:00Z"));
            let projection = Projection::of(&window, 1_000, &Progress::of(now, &zone), 1_000, 10);
            assert_eq!(projection.is_some(), days >= MIN_DAYS, "{first:?}");
        }
    }

    #[test]
    fn months_have_their_own_lengths_and_days_theirs() {
        // 100 a day, and nothing used this month: what is left of it, in days.
        for (now, zone, left) in [
            ("2026-02-01T00:00:00Z", "UTC", 2_800),
            ("2028-02-01T00:00:00Z", "UTC", 2_900),
            ("2026-04-01T00:00:00Z", "UTC", 3_000),
            ("2026-12-31T00:00:00Z", "UTC", 100),
            ("2026-12-31T23:59:59.999Z", "UTC", 1),
            // A day of 23 hours and one of 25: noon is 11, and 13, hours in.
            ("2026-03-08T16:00:00Z", "America/New_York", 2_300 + 53),
            ("2026-11-01T17:00:00Z", "America/New_York", 2_900 + 48),
        ] {
            let projection = project(now, zone, "2020-01-01T00:00:00Z", 2_800, 0, 0).unwrap();
            assert_eq!(projection.monthly_projection, left, "{now} {zone}");
        }
    }

    #[test]
    fn a_percentage_reaches_a_threshold_with_its_alert() {
        for (used, total, hundredths) in [
            (0, 0, None),
            (5, 0, None),
            (0, 1, Some(0)),
            (79_999, 100_000, Some(7_999)),
            (799_999, 1_000_000, Some(7_999)),
            (8, 10, Some(8_000)),
            (15, 10, Some(15_000)),
            ((1 << 53) - 1, (1 << 53) - 1, Some(10_000)),
        ] {
            assert_eq!(usage_hundredths(used, total), hundredths, "{used}/{total}");
        }
    }

    const ZONES: [&str; 8] = [
        "UTC",
        "America/Sao_Paulo",
        "America/New_York",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "Pacific/Chatham",
        "America/Havana",
        "Pacific/Kiritimati",
    ];

    proptest! {
        #[test]
        fn nothing_used_projects_nothing(second in 1_577_836_800_i64..2_208_988_800, zone in 0..ZONES.len()) {
            let zone = TimeZone::get(ZONES[zone]).unwrap();
            let now = Timestamp::from_second(second).unwrap();
            let window = Window::of(now, &zone, Some(now - 1_000.hours()));
            let projection = Projection::of(&window, 0, &Progress::of(now, &zone), 70, 1_000).unwrap();
            prop_assert_eq!(
                projection,
                Projection { daily_average: 0, monthly_projection: 70, days_left_tenths: None }
            );
        }

        #[test]
        fn more_use_projects_no_less(
            second in 1_577_836_800_i64..2_208_988_800, zone in 0..ZONES.len(), age_hours in 200_i64..2_000,
            used in 0_i64..1 << 53, more in 0_i64..1 << 52, month in -1_000_i64..1 << 53, remaining in -10_i64..1 << 53,
        ) {
            let zone = TimeZone::get(ZONES[zone]).unwrap();
            let now = Timestamp::from_second(second).unwrap();
            let window = Window::of(now, &zone, Some(now - age_hours.hours()));
            let progress = Progress::of(now, &zone);
            let of = |used, month, remaining| Projection::of(&window, used, &progress, month, remaining).unwrap();
            let (less, greater) = (of(used, month, remaining), of(used + more, month, remaining));
            prop_assert!(less.daily_average <= greater.daily_average);
            prop_assert!(less.monthly_projection <= greater.monthly_projection);
            prop_assert!(month <= less.monthly_projection);
            let days = |projection: Projection| projection.days_left_tenths.unwrap_or(u64::MAX);
            prop_assert!(days(less) >= days(greater));
            prop_assert!(days(of(used, month, remaining + 1)) >= days(less));
            // What is used in the month is in its projection, one for one.
            prop_assert_eq!(of(used, month + 1, remaining).monthly_projection, less.monthly_projection + 1);
        }

        /// As the month goes on without use, it projects less and less, and at its end what was used.
        #[test]
        fn what_is_left_shrinks_to_nothing(
            second in 1_577_836_800_i64..2_208_988_800, zone in 0..ZONES.len(), step in 1_i64..100_000,
        ) {
            let zone = TimeZone::get(ZONES[zone]).unwrap();
            let now = Timestamp::from_second(second).unwrap();
            let progress = Progress::of(now, &zone);
            prop_assert!(progress.start <= now && now < progress.end);
            let window = Window { start: now, end: now, days: 28 };
            let project = |now| Projection::of(&window, 2_800_000, &Progress::of(now, &zone), 0, 0).unwrap();
            let later = now + step.seconds();
            let last = progress.end - 1.millisecond();
            if later <= last {
                // The day on which clocks change is weighed by its own length: never by more than a day.
                prop_assert!(project(later).monthly_projection <= project(now).monthly_projection);
            }
            prop_assert!(project(last).monthly_projection <= 1);
        }

        #[test]
        fn a_window_is_of_whole_days_before_today(
            second in 1_577_836_800_i64..2_208_988_800, zone in 0..ZONES.len(), age_hours in 0_i64..2_000,
        ) {
            let zone = TimeZone::get(ZONES[zone]).unwrap();
            let now = Timestamp::from_second(second).unwrap();
            let first_use = now - age_hours.hours();
            let window = Window::of(now, &zone, Some(first_use));
            prop_assert!(window.start <= window.end && window.end <= now && window.days <= WINDOW_DAYS);
            prop_assert!(window.start > first_use || window.days == WINDOW_DAYS || window.days == 0);
            let hours = (window.end.as_second() - window.start.as_second()) as f64 / 3_600.0;
            prop_assert!((hours - 24.0 * f64::from(window.days)).abs() <= 2.0, "{hours} {}", window.days);
        }
    }
}
