//! The share of its total at which a user is warned.

use std::str::FromStr;

/// Above 0 and at most 1, in steps of a ten-thousandth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AlertThreshold(u16);

/// Not above 0 and at most 1, not in plain decimal digits, or with more than four of them after the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an alert threshold is a number above 0 and at most 1, with up to 4 decimals")]
pub struct InvalidThreshold;

const WHOLE: u16 = 10_000;

impl AlertThreshold {
    /// Everything.
    pub const WHOLE: Self = Self(WHOLE);

    /// # Errors
    /// When it is not 1 … 10,000.
    pub fn from_ten_thousandths(n: u16) -> Result<Self, InvalidThreshold> {
        if (1..=WHOLE).contains(&n) { Ok(Self(n)) } else { Err(InvalidThreshold) }
    }

    pub fn ten_thousandths(self) -> u16 {
        self.0
    }

    /// Whether `used` is at least this share of `total`, rounded up.
    pub fn is_reached(self, used: u64, total: u64) -> bool {
        u128::from(used) * u128::from(WHOLE) >= u128::from(total) * u128::from(self.0)
    }

    /// Written out it has at most four decimals again.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / f64::from(WHOLE)
    }
}

impl FromStr for AlertThreshold {
    type Err = InvalidThreshold;

    /// Reads digits, with or without a point; neither sign nor exponent.
    fn from_str(text: &str) -> Result<Self, InvalidThreshold> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !is_digits(whole) || !is_digits(fraction) || fraction.len() > 4 {
            return Err(InvalidThreshold);
        }
        let whole: u16 = whole.parse().ok().filter(|whole| *whole <= 1).ok_or(InvalidThreshold)?;
        let fraction: u16 = format!("{fraction:0<4}").parse().map_err(|_| InvalidThreshold)?;
        Self::from_ten_thousandths(whole * WHOLE + fraction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn above_zero_and_at_most_one() {
        for (text, n) in [("0.8", 8_000), ("0.95", 9_500), ("1", 10_000), ("1.0000", 10_000), ("0.0001", 1)] {
            let threshold: AlertThreshold = text.parse().unwrap();
            assert_eq!(threshold.ten_thousandths(), n, "{text}");
        }
        assert_eq!(serde_json::to_string(&"0.8".parse::<AlertThreshold>().unwrap().as_f64()).unwrap(), "0.8");
        for text in [
            "", ".", "0", "0.0", "0.0000", "1.0001", "2", "65537", "-0.5", "+1", "0.80000", "1e-1", ".8",
            "1.", "0.8 ",
        ] {
            assert_eq!(text.parse::<AlertThreshold>(), Err(InvalidThreshold), "{text:?}");
        }
    }
}
