//! Days and months as a user's calendar has them, and the instants at which they begin.
//!
//! A day begins at its first instant, whatever the clocks do: where midnight is skipped it is the first instant after,
//! and where it comes twice the first of the two. So days and months join without gap or overlap.

use std::{fmt, str::FromStr};

use jiff::{Timestamp, civil::Date, tz::TimeZone};

/// A calendar month of the years 1970 to 9998, written `YYYY-MM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(Date);

/// No month in the form `YYYY-MM`, or none of the years 1970 to 9998.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a month is written YYYY-MM, from 1970-01 to 9998-12")]
pub struct InvalidMonth;

const YEARS: std::ops::RangeInclusive<i16> = 1970..=9998;

impl Month {
    /// The month of this day; of years out of range the nearest.
    pub fn containing(day: Date) -> Self {
        let year = day.year().clamp(*YEARS.start(), *YEARS.end());
        // The first is a day of every month.
        Self(Date::new(year, day.month(), 1).unwrap_or(Date::ZERO))
    }

    /// The month that is on the calendar at this instant.
    pub fn at(instant: Timestamp, zone: &TimeZone) -> Self {
        Self::containing(day_at(instant, zone))
    }

    pub fn first_day(self) -> Date {
        self.0
    }

    /// How many days it has.
    pub fn days(self) -> u8 {
        self.0.days_in_month().unsigned_abs()
    }

    /// The month after; the last stays.
    pub fn next(self) -> Self {
        self.0.last_of_month().tomorrow().map_or(self, Self::containing)
    }

    /// The month before; the first stays.
    pub fn previous(self) -> Self {
        self.0.yesterday().map_or(self, Self::containing)
    }

    /// Its first instant.
    pub fn start(self, zone: &TimeZone) -> Timestamp {
        day_start(self.0, zone)
    }

    /// The first instant of the month after.
    pub fn end(self, zone: &TimeZone) -> Timestamp {
        self.0.last_of_month().tomorrow().map_or(Timestamp::MAX, |day| day_start(day, zone))
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0.year(), self.0.month())
    }
}

impl FromStr for Month {
    type Err = InvalidMonth;

    fn from_str(text: &str) -> Result<Self, InvalidMonth> {
        let (year, month) = text.split_once('-').ok_or(InvalidMonth)?;
        let number = |digits: &str, length: usize| -> Result<i16, InvalidMonth> {
            let is_number = digits.len() == length && digits.bytes().all(|b| b.is_ascii_digit());
            if is_number { digits.parse().map_err(|_| InvalidMonth) } else { Err(InvalidMonth) }
        };
        let year = Some(number(year, 4)?).filter(|year| YEARS.contains(year)).ok_or(InvalidMonth)?;
        let month = i8::try_from(number(month, 2)?).map_err(|_| InvalidMonth)?;
        Date::new(year, month, 1).map(Self).map_err(|_| InvalidMonth)
    }
}

/// The day that is on the calendar at this instant.
pub fn day_at(instant: Timestamp, zone: &TimeZone) -> Date {
    zone.to_datetime(instant).date()
}

/// The first instant of a day.
pub fn day_start(day: Date, zone: &TimeZone) -> Timestamp {
    // Only days at the ends of the calendar have none.
    day.to_zoned(zone.clone()).map_or(Timestamp::MAX, |start| start.timestamp())
}

/// The day so many days before; the first day of the calendar stays.
pub fn days_before(day: Date, days: u16) -> Date {
    day.checked_sub(jiff::Span::new().days(days)).unwrap_or(Date::MIN)
}

/// The first instant of the hour that the user's clock shows at this instant. Where an hour comes twice these are two.
pub fn hour_start(instant: Timestamp, zone: &TimeZone) -> Timestamp {
    let clock = zone.to_datetime(instant);
    let into_hour = jiff::SignedDuration::new(
        i64::from(clock.minute()) * 60 + i64::from(clock.second()),
        clock.subsec_nanosecond(),
    );
    instant.checked_sub(into_hour).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_month_has_one_spelling() {
        for text in ["2026-01", "1970-01", "9998-12", "2028-02"] {
            assert_eq!(text.parse::<Month>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "2026",
            "2026-1",
            "2026-13",
            "2026-00",
            "26-01",
            "+026-01",
            "2026-01-01",
            "1969-12",
            "9999-01",
            "2026-٠١",
            " 2026-01",
            "-026-01",
        ] {
            assert_eq!(text.parse::<Month>(), Err(InvalidMonth), "{text:?}");
        }
    }

    #[test]
    fn months_follow_each_other_and_have_their_lengths() {
        let mut month: Month = "2027-11".parse().unwrap();
        let mut days = Vec::new();
        for _ in 0..5 {
            days.push((month.to_string(), month.days()));
            assert_eq!(month.next().previous(), month);
            month = month.next();
        }
        let expected = [("2027-11", 30), ("2027-12", 31), ("2028-01", 31), ("2028-02", 29), ("2028-03", 31)];
        assert_eq!(days, expected.map(|(month, days)| (month.to_owned(), days)));
    }

    #[test]
    fn a_month_begins_where_the_user_is() {
        let month: Month = "2026-03".parse().unwrap();
        for (name, start, end) in [
            ("UTC", "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z"),
            ("America/Sao_Paulo", "2026-03-01T03:00:00Z", "2026-04-01T03:00:00Z"),
            // Clocks go forward within the month.
            ("America/New_York", "2026-03-01T05:00:00Z", "2026-04-01T04:00:00Z"),
            ("Asia/Kathmandu", "2026-02-28T18:15:00Z", "2026-03-31T18:15:00Z"),
            ("Pacific/Kiritimati", "2026-02-28T10:00:00Z", "2026-03-31T10:00:00Z"),
            ("Pacific/Chatham", "2026-02-28T10:15:00Z", "2026-03-31T10:15:00Z"),
        ] {
            let zone = zone(name);
            assert_eq!((month.start(&zone), month.end(&zone)), (at(start), at(end)), "{name}");
            assert_eq!(Month::at(at(start), &zone), month, "{name}");
            assert_eq!(Month::at(at(end), &zone), month.next(), "{name}");
            let before = at(start) - jiff::SignedDuration::from_nanos(1);
            assert_eq!(Month::at(before, &zone), month.previous(), "{name}");
        }
    }

    #[test]
    fn a_day_without_midnight_or_with_two_begins_at_its_first_instant() {
        // Clocks went from 00:00 to 01:00, and from 01:00 back to 00:00.
        let (sao_paulo, havana) = (zone("America/Sao_Paulo"), zone("America/Havana"));
        let (spring, autumn) = ("2018-11-04".parse().unwrap(), "2026-11-01".parse().unwrap());
        assert_eq!(day_start(spring, &sao_paulo), at("2018-11-04T03:00:00Z"));
        assert_eq!(day_start(autumn, &havana), at("2026-11-01T04:00:00Z"));
        for (day, zone) in [(spring, &sao_paulo), (autumn, &havana)] {
            let start = day_start(day, zone);
            assert_eq!(day_at(start, zone), day);
            assert_eq!(day_at(start - jiff::SignedDuration::from_nanos(1), zone), day.yesterday().unwrap());
        }
    }

    #[test]
    fn an_hour_is_that_of_the_users_clock() {
        for (name, instant, start) in [
            ("UTC", "2026-03-01T10:59:59.999Z", "2026-03-01T10:00:00Z"),
            ("Asia/Kathmandu", "2026-03-01T10:10:00Z", "2026-03-01T09:15:00Z"),
            ("Asia/Kolkata", "2026-03-01T10:30:00Z", "2026-03-01T10:30:00Z"),
            // 01:30 twice: in summer time, then in winter time.
            ("America/New_York", "2026-11-01T05:30:00Z", "2026-11-01T05:00:00Z"),
            ("America/New_York", "2026-11-01T06:30:00Z", "2026-11-01T06:00:00Z"),
        ] {
            assert_eq!(hour_start(at(instant), &zone(name)), at(start), "{name} {instant}");
        }
    }

    /// What sums by quarter hour rest on.
    #[test]
    fn in_every_zone_days_begin_on_a_quarter_hour() {
        let mut zones = 0;
        for name in jiff::tz::db().available() {
            let Ok(zone) = TimeZone::get(name.as_str()) else { continue };
            let mut month: Month = "2020-01".parse().unwrap();
            for _ in 0..240 {
                assert_eq!(month.start(&zone).as_second() % 900, 0, "{name} {month}");
                month = month.next();
            }
            zones += 1;
        }
        assert!(zones > 300, "{zones}");
    }
}
