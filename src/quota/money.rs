//! Money: exact decimal amounts of a currency, in billionths.

use std::{fmt, str::FromStr};

/// An amount of money below 10^9 whole units, exact to the billionth of one. What it is an amount of, a [`Currency`] says.
///
/// The bound is that of a purchase in any currency; what one operation may cost is bounded more tightly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(i64);

/// Billionths of a whole unit.
const NANO: i64 = 1_000_000_000;

/// All amounts are below so many whole units.
const END: i64 = 1_000_000_000;

/// Digits on either side of the point.
const DIGITS: usize = 9;

/// Decimals of a written amount that is no more precise.
const USUAL_DECIMALS: usize = 2;

/// Why a text is no amount of money, or no currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Signed, in exponent form, with more than nine digits on a side of the point, or no number at all.
    #[error("an amount is up to 9 digits, with up to 9 decimals")]
    Amount,
    #[error("a currency is three capital letters (ISO 4217)")]
    Currency,
}

impl Money {
    /// # Errors
    /// When it is not 0 … 10^18 − 1 billionths.
    pub fn from_nano(nano: i64) -> Result<Self, MoneyError> {
        if (0..END * NANO).contains(&nano) { Ok(Self(nano)) } else { Err(MoneyError::Amount) }
    }

    /// In billionths of a whole unit.
    pub const fn nano(self) -> i64 {
        self.0
    }
}

impl FromStr for Money {
    type Err = MoneyError;

    /// Reads one to nine digits, with or without a point and one to nine decimals; no sign, no exponent, no blank.
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let is_part =
            |part: &str| (1..=DIGITS).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        if !is_part(whole) || !is_part(fraction) {
            return Err(MoneyError::Amount);
        }
        let whole: i64 = whole.parse().map_err(|_| MoneyError::Amount)?;
        let fraction: i64 = format!("{fraction:0<9}").parse().map_err(|_| MoneyError::Amount)?;
        Self::from_nano(whole * NANO + fraction)
    }
}

/// With at least two decimals, and as many as it takes: one spelling per amount.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:09}", self.0 % NANO);
        let digits = fraction.trim_end_matches('0').len().max(USUAL_DECIMALS);
        write!(f, "{}.{}", self.0 / NANO, &fraction[..digits])
    }
}

/// A currency by its code of three capital letters (ISO 4217). Which codes are in use is the payment provider's to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    pub fn as_str(&self) -> &str {
        // Three ASCII letters, so it always is.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let code: [u8; 3] = text.as_bytes().try_into().map_err(|_| MoneyError::Currency)?;
        if code.iter().all(u8::is_ascii_uppercase) { Ok(Self(code)) } else { Err(MoneyError::Currency) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_in_their_one_spelling() {
        for (text, nano, written) in [
            ("0", 0, "0.00"),
            ("19.9", 19_900_000_000, "19.90"),
            ("19.90", 19_900_000_000, "19.90"),
            ("0019.900000000", 19_900_000_000, "19.90"),
            ("0.000000001", 1, "0.000000001"),
            ("1.005", 1_005_000_000, "1.005"),
            ("999999999.999999999", 999_999_999_999_999_999, "999999999.999999999"),
        ] {
            let money: Money = text.parse().unwrap();
            assert_eq!((money.nano(), money.to_string().as_str()), (nano, written), "{text}");
        }
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "1,50",
            " 1",
            "1 ",
            "0x10",
            "NaN",
            "inf",
            "1.0000000000",
            "1000000000",
            "0000000001",
            "99999999999999999999",
            "1.2.3",
            "١",
        ] {
            assert_eq!(text.parse::<Money>(), Err(MoneyError::Amount), "{text:?}");
        }
        assert_eq!(Money::from_nano(-1), Err(MoneyError::Amount));
        assert_eq!(Money::from_nano(END * NANO), Err(MoneyError::Amount));
    }

    #[test]
    fn currencies_are_three_capitals() {
        assert_eq!("BRL".parse::<Currency>().unwrap().as_str(), "BRL");
        for text in ["", "BR", "BRLX", "brl", "R$ ", "ÉU"] {
            assert_eq!(text.parse::<Currency>(), Err(MoneyError::Currency), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(nano in 0..END * NANO) {
            let money = Money::from_nano(nano).unwrap();
            prop_assert_eq!(money.to_string().parse(), Ok(money));
        }
    }
}
