//! What an attempt means for the webhook and for its endpoint.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::HeaderValue;

use crate::{
    notify::schedule,
    store::{DisabledReason, Verdict},
};

/// Where the webhook and its endpoint stood when the attempt was made.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Attempts at this webhook, this one included.
    pub attempts: u32,
    /// Failures of the endpoint before this attempt, since its last success.
    pub failures: u32,
    /// For how long the endpoint has been failing.
    pub failing_for: Duration,
    /// An endpoint that has been failing for longer is given up.
    pub patience: Duration,
}

/// What the receiver said: its status, and how long it wants to be left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    pub status: u16,
    pub wait: Option<Duration>,
}

/// Judges an attempt; `said` is `None` when there was no answer, and `chance` is in 0 … 1.
///
/// As the Standard Webhooks specification has it: 2xx is a success, 410 asks for no more, and everything else, redirects
/// too, is a failure.
pub fn judge(standing: Standing, said: Option<Said>, chance: f64) -> Verdict {
    let (status, wait) = said.map_or((0, None), |said| (said.status, said.wait));
    if (200..300).contains(&status) {
        return Verdict::Delivered;
    }
    if status == 410 {
        return Verdict::Disable(DisabledReason::Gone);
    }
    if standing.failing_for >= standing.patience {
        return Verdict::Disable(DisabledReason::Failing);
    }
    let pause = schedule::pause(standing.failures.saturating_add(1), wait, chance);
    match schedule::retry_after(standing.attempts, chance) {
        Some(after) => Verdict::Retry { after: after.max(pause), pause },
        None => Verdict::Failed { pause },
    }
}

/// The wait that `Retry-After` asks for: seconds, or a date (RFC 9110, 10.2.3). What is neither asks for nothing.
pub fn asked_wait(value: Option<&HeaderValue>, now: Timestamp) -> Option<Duration> {
    let text = value?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const FRESH: Standing = Standing {
        attempts: 1,
        failures: 0,
        failing_for: Duration::ZERO,
        patience: Duration::from_secs(432_000),
    };

    fn said(status: u16) -> Option<Said> {
        Some(Said { status, wait: None })
    }

    #[test]
    fn success_is_2xx_alone() {
        for status in 100..600 {
            let verdict = judge(FRESH, said(status), 0.5);
            assert_eq!(verdict == Verdict::Delivered, (200..300).contains(&status), "{status}");
        }
        // Whatever went before.
        let last = Standing { attempts: 10, failures: 99, failing_for: 9 * DAY, ..FRESH };
        assert_eq!(judge(last, said(204), 0.5), Verdict::Delivered);
    }

    #[test]
    fn failures_are_tried_again_until_the_schedule_ends() {
        for said in [None, said(301), said(404), said(500), said(503)] {
            let five = Duration::from_secs(5);
            assert_eq!(judge(FRESH, said, 0.5), Verdict::Retry { after: five, pause: five });
            let last = Standing { attempts: schedule::MAX_ATTEMPTS, ..FRESH };
            assert_eq!(judge(last, said, 0.5), Verdict::Failed { pause: five });
        }
        let tenth = Standing { failures: 9, ..FRESH };
        let ten_minutes = Duration::from_secs(600);
        assert_eq!(judge(tenth, None, 0.5), Verdict::Retry { after: ten_minutes, pause: ten_minutes });
    }

    #[test]
    fn a_wait_that_is_asked_for_is_kept() {
        let said = Some(Said { status: 429, wait: Some(Duration::from_secs(1_000)) });
        let wait = Duration::from_secs(1_000);
        assert_eq!(judge(FRESH, said, 0.5), Verdict::Retry { after: wait, pause: wait });
        let endless = Some(Said { status: 503, wait: Some(Duration::MAX) });
        assert_eq!(judge(FRESH, endless, 0.5), Verdict::Retry { after: DAY, pause: DAY });
    }

    #[test]
    fn an_endpoint_is_given_up_when_it_says_so_or_fails_for_days() {
        assert_eq!(judge(FRESH, said(410), 0.5), Verdict::Disable(DisabledReason::Gone));
        let long = Standing { failing_for: FRESH.patience, ..FRESH };
        assert_eq!(judge(long, said(500), 0.5), Verdict::Disable(DisabledReason::Failing));
        let almost = Standing { failing_for: FRESH.patience - Duration::from_secs(1), ..FRESH };
        assert!(matches!(judge(almost, said(500), 0.5), Verdict::Retry { .. }));
    }

    #[test]
    fn waits_are_seconds_or_dates() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        for (text, seconds) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 120 ", Some(120)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sat, 31 Jan 2026 12:02:00 GMT", Some(120)),
            ("Sat, 31 Jan 2026 11:00:00 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let value = HeaderValue::from_str(text).unwrap();
            assert_eq!(asked_wait(Some(&value), now), seconds.map(Duration::from_secs), "{text:?}");
        }
        assert_eq!(asked_wait(None, now), None);
    }
}
