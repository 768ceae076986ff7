//! When what failed is tried again.

use std::time::Duration;

/// Pauses between attempts, as the Standard Webhooks specification proposes: three days and four hours in all.
const DELAYS_SECONDS: [u64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];

/// Attempts at one notification: the first, and one after each pause.
pub const MAX_ATTEMPTS: u32 = DELAYS_SECONDS.len() as u32 + 1;

/// By how much a pause may be shorter or longer, so that what failed together is not tried together.
const JITTER: f64 = 0.2;

/// How long a receiver rests after its first failure, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// The longest wait that a receiver may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(86_400);

/// The pause after so many attempts (1, …); `None` when that was the last. `chance` is in 0 … 1.
pub fn retry_after(attempts: u32, chance: f64) -> Option<Duration> {
    let index = usize::try_from(attempts).ok()?.checked_sub(1)?;
    DELAYS_SECONDS.get(index).map(|seconds| jittered(Duration::from_secs(*seconds), chance))
}

/// How long a receiver rests after so many failures in a row (1, …), or as long as it asked for if that is longer.
pub fn pause(failures: u32, asked: Option<Duration>, chance: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let own = jittered(doubled.min(LONGEST_PAUSE), chance);
    own.max(asked.unwrap_or_default().min(LONGEST_ASKED))
}

fn jittered(pause: Duration, chance: f64) -> Duration {
    pause.mul_f64(1.0 - JITTER + 2.0 * JITTER * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_spread_over_days_and_end() {
        let whole: Duration = (1..MAX_ATTEMPTS).map(|n| retry_after(n, 0.5).unwrap()).sum();
        assert_eq!(whole, Duration::from_secs(75 * 3_600 + 35 * 60 + 5), "as in the specification");
        assert_eq!(retry_after(MAX_ATTEMPTS, 0.5), None);
        assert_eq!(retry_after(0, 0.5), None);
        for n in 1..MAX_ATTEMPTS {
            let middle = retry_after(n, 0.5).unwrap();
            assert_eq!(retry_after(n, 0.0).unwrap(), middle.mul_f64(0.8));
            assert_eq!(retry_after(n, 1.0).unwrap(), middle.mul_f64(1.2));
        }
    }

    #[test]
    fn a_receiver_rests_longer_with_every_failure_up_to_a_bound() {
        let seconds =
            |failures, asked: u64| pause(failures, Some(Duration::from_secs(asked)), 0.5).as_secs_f64();
        assert_eq!(
            [1, 2, 3, 7, 8, 100, u32::MAX].map(|n| seconds(n, 0)),
            [5.0, 10.0, 20.0, 320.0, 600.0, 600.0, 600.0]
        );
        assert_eq!(seconds(1, 3), 5.0, "never shorter");
        assert_eq!(seconds(1, 120), 120.0);
        assert_eq!(seconds(1, 10_000_000), 86_400.0, "nobody is made to wait for ever");
    }
}
