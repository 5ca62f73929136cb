//! Exact decimals: what JSON writes as `2.5` or `1e3` becomes integers without passing through
//! floating point.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use crate::domain::limit::Rate;

/// The most digits behind the point that count: more cannot be told from noise.
const SCALE_MAX: u32 = 9;

/// The largest count of requests or units: the largest integer that Lua and JSON readers carry
/// exactly.
pub const COUNT_MAX: u64 = 9_007_199_254_740_991;

/// The longest window of a rate, in milliseconds: ten years.
pub const PER_MS_MAX: u64 = 315_360_000_000;

/// A number as it was written: `digits / 10^scale`, `scale` at most 9 and as small as can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decimal {
    digits: i128,
    scale: u32,
}

/// A text that is no decimal number, or one with more than nine digits behind the point, or one
/// beyond 10^18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a decimal number of at most 9 digits behind the point")]
pub struct InvalidDecimal;

/// Why two numbers are no rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRate {
    /// The window is not a whole number of milliseconds, or too long.
    #[error("must be whole milliseconds, at most ten years")]
    Per,
    /// The count is too large, or too finely divided for its window.
    #[error("is too large or has too many digits for its window")]
    Count,
}

impl Decimal {
    /// Whether it is above zero.
    #[must_use]
    pub fn is_positive(self) -> bool {
        0 < self.digits
    }

    /// The number, if it is whole and fits.
    #[must_use]
    pub fn whole(self) -> Option<i64> {
        if self.scale == 0 { i64::try_from(self.digits).ok() } else { None }
    }

    /// The rate of this many requests in `per` seconds; both are above zero.
    ///
    /// A fraction of a request keeps its flow exactly: 2.5 in 10 s is 5 in 20 s, never 3 in 10 s.
    ///
    /// # Errors
    /// When no [`Rate`] says exactly that.
    pub fn rate_per(self, per: Self) -> Result<Rate, InvalidRate> {
        let per_ms = per.times_thousand().ok_or(InvalidRate::Per)?;
        let (requests, parts) = self.reduced();
        let per_ms = per_ms.checked_mul(parts).filter(|ms| *ms <= PER_MS_MAX);
        let requests = u64::try_from(requests).ok().filter(|n| *n <= COUNT_MAX);
        Ok(Rate {
            requests: requests.and_then(NonZeroU64::new).ok_or(InvalidRate::Count)?,
            per_ms: per_ms.and_then(NonZeroU64::new).ok_or(InvalidRate::Per)?,
        })
    }

    fn times_thousand(self) -> Option<u64> {
        let thousandfold = Self { digits: self.digits.checked_mul(1_000)?, scale: self.scale };
        thousandfold.trimmed().whole().and_then(|ms| u64::try_from(ms).ok())
    }

    /// The number as the fraction with the smallest denominator.
    fn reduced(self) -> (i128, u64) {
        let mut parts = 10_i128.pow(self.scale);
        let mut digits = self.digits;
        for prime in [2, 5] {
            while parts % prime == 0 && digits % prime == 0 && 1 < parts {
                parts /= prime;
                digits /= prime;
            }
        }
        (digits, u64::try_from(parts).unwrap_or(u64::MAX))
    }

    fn trimmed(mut self) -> Self {
        while 0 < self.scale && self.digits % 10 == 0 {
            self.digits /= 10;
            self.scale -= 1;
        }
        self
    }
}

impl FromStr for Decimal {
    type Err = InvalidDecimal;

    fn from_str(text: &str) -> Result<Self, InvalidDecimal> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                (mantissa, exponent.parse::<i32>().map_err(|_not_a_number| InvalidDecimal)?)
            }
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let unsigned = whole.strip_prefix(['-', '+']).unwrap_or(whole);
        let plain = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if unsigned.is_empty() || !plain(unsigned) || !plain(fraction) || 40 < mantissa.len() {
            return Err(InvalidDecimal);
        }
        let fraction = fraction.trim_end_matches('0');
        let digits = format!("{whole}{fraction}").parse::<i128>();
        let mut digits = digits.map_err(|_too_large| InvalidDecimal)?;
        if digits == 0 {
            return Ok(Self::default());
        }
        let behind = i32::try_from(fraction.len()).map_err(|_too_long| InvalidDecimal)?;
        let mut scale = behind.checked_sub(exponent).ok_or(InvalidDecimal)?;
        while scale < 0 {
            digits = digits.checked_mul(10).ok_or(InvalidDecimal)?;
            scale += 1;
        }
        let scale = u32::try_from(scale).map_err(|_negative| InvalidDecimal)?;
        let bounded = Self { digits, scale: scale.min(64) }.trimmed();
        if SCALE_MAX < bounded.scale || 10_i128.pow(18 + bounded.scale) < bounded.digits.abs() {
            return Err(InvalidDecimal);
        }
        Ok(bounded)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = 10_i128.pow(self.scale);
        let sign = if self.digits < 0 { "-" } else { "" };
        let (whole, rest) = (self.digits.abs() / unit, self.digits.abs() % unit);
        match usize::try_from(self.scale) {
            Ok(0) | Err(_) => write!(f, "{sign}{whole}"),
            Ok(width) => write!(f, "{sign}{whole}.{rest:0width$}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_keeps_its_flow_exactly() {
        // requests per(s)  expect
        check("5", "10", Some((5, 10_000)));
        check("2.5", "10", Some((5, 20_000)));
        check("0.5", "1", Some((1, 2_000)));
        check("5", "0.25", Some((5, 250)));
        check("1e3", "6e1", Some((1_000, 60_000)));
        check("0.001", "1", Some((1, 1_000_000)));
        check("1", "0.0001", None); // Below a millisecond.
        check("9007199254740992", "1", None);
        check("1", "315360001", None);
    }

    #[track_caller]
    fn check(requests: &str, per: &str, expect: Option<(u64, u64)>) {
        let parse = |text: &str| text.parse::<Decimal>().unwrap();
        let got = parse(requests).rate_per(parse(per)).ok();
        assert_eq!(got.map(|r| (r.requests.get(), r.per_ms.get())), expect, "{requests}/{per}");
    }

    #[test]
    fn decimals_read_as_they_are_written() {
        for (text, shown) in [("1.50", "1.5"), ("-0.05", "-0.05"), ("12e-1", "1.2"), ("0e999", "0")]
        {
            assert_eq!(text.parse::<Decimal>().map(|d| d.to_string()), Ok(shown.to_owned()));
        }
        for text in ["", "-", ".5", "1e", "1e99", "1e-99", "0x1", "1 ", "inf", "1e99999999999"] {
            assert_eq!(text.parse::<Decimal>(), Err(InvalidDecimal), "{text:?}");
        }
    }
}
