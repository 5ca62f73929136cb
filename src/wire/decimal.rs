//! Exact decimals: numbers of JSON that may have a fraction, without floats.

use std::cmp::Ordering;
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::domain::limit::Rate;
use crate::domain::policy::Setting;

/// The most digits after the point: enough for nanoseconds, and all that 64 bits bear.
const SCALE_MAX: u32 = 18;

/// A decimal number, `±digits / 10^scale`, in lowest terms.
///
/// Exact for all integers of 64 bits, and for fractions of up to 15 significant digits: the JSON
/// reader hands fractions over as binary floats, whose shortest decimal text is what was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Decimal {
    negative: bool,
    digits: u64,
    scale: u32,
}

/// A text that is no decimal of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a decimal number of at most 19 digits, 18 of them after the point")]
pub struct InvalidDecimal;

impl Decimal {
    /// A whole number.
    #[must_use]
    pub fn from_u64(digits: u64) -> Self {
        Self { negative: false, digits, scale: 0 }
    }

    /// -1: how the formats of others write "unlimited".
    #[must_use]
    pub fn minus_one() -> Self {
        Self { negative: true, digits: 1, scale: 0 }
    }

    /// Thousandths, such as the seconds of a time in milliseconds.
    #[must_use]
    pub fn from_thousandths(thousandths: u64) -> Self {
        Self { negative: false, digits: thousandths, scale: 3 }.reduced()
    }

    /// How it compares with 0.
    #[must_use]
    pub fn sign(&self) -> Ordering {
        match (self.digits, self.negative) {
            (0, _) => Ordering::Equal,
            (_, true) => Ordering::Less,
            (_, false) => Ordering::Greater,
        }
    }

    /// The number, if it is whole and fits.
    #[must_use]
    pub fn whole(&self) -> Option<i64> {
        let digits = i64::try_from(self.digits).ok().filter(|_| self.scale == 0)?;
        Some(if self.negative { -digits } else { digits })
    }

    /// Whole thousandths, rounded down; 0 for a negative number, `None` beyond 64 bits.
    #[must_use]
    pub fn thousandths(&self) -> Option<u64> {
        if self.negative {
            return Some(0);
        }
        let scaled = u128::from(self.digits).checked_mul(1_000)?;
        u64::try_from(scaled / 10_u128.checked_pow(self.scale)?).ok()
    }

    fn reduced(mut self) -> Self {
        while self.scale > 0 && self.digits.is_multiple_of(10) {
            self.digits /= 10;
            self.scale -= 1;
        }
        Self { negative: self.negative && self.digits > 0, ..self }
    }
}

/// Reads requests per seconds as a rate of whole requests per whole milliseconds.
///
/// It is rounded towards less, so that in no window more is admitted than was written: 3.7 per
/// 10 s is 3 per 10 s, and not 37 per 100 s, which would admit 37 at once. Less than one request
/// is one in a longer window: 0.5 per 1 s is 1 per 2 s. Whole numbers stay as they are.
///
/// Less than 0 requests is unlimited; 0 requests, or no window, says nothing: Tyk's sentinels.
///
/// # Errors
/// When the window does not fit 64 bits.
pub fn rate(requests: Decimal, per_s: Decimal) -> Result<Setting<Rate>, InvalidDecimal> {
    match (requests.sign(), per_s.sign()) {
        (Ordering::Less, _) => return Ok(Setting::Unlimited),
        (Ordering::Equal, _) | (_, Ordering::Less | Ordering::Equal) => return Ok(Setting::Unset),
        (Ordering::Greater, Ordering::Greater) => {}
    }
    let ten = |scale: u32| 10_u128.checked_pow(scale).ok_or(InvalidDecimal);
    let (wanted, parts) = (u128::from(requests.digits), ten(requests.scale)?);
    let (window, window_parts) = (u128::from(per_s.digits) * 1_000, ten(per_s.scale)?);
    let (requests, per_ms) = match wanted / parts {
        0 => {
            let window = window.checked_mul(parts).ok_or(InvalidDecimal)?;
            let parts = window_parts.checked_mul(wanted).ok_or(InvalidDecimal)?;
            (1, window.div_ceil(parts))
        }
        whole => (whole, window.div_ceil(window_parts)),
    };
    let fit = |value: u128| u64::try_from(value).ok().and_then(NonZeroU64::new);
    Ok(Setting::Limited(Rate {
        requests: fit(requests).ok_or(InvalidDecimal)?,
        per_ms: fit(per_ms).ok_or(InvalidDecimal)?,
    }))
}

impl FromStr for Decimal {
    type Err = InvalidDecimal;
    fn from_str(text: &str) -> Result<Self, InvalidDecimal> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                (mantissa, exponent.parse::<i32>().map_err(|_bad| InvalidDecimal)?)
            }
            None => (text, 0),
        };
        let (negative, mantissa) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa),
        };
        let (whole, tail) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !plain(whole) || !plain(tail) {
            return Err(InvalidDecimal);
        }
        let tail = tail.trim_end_matches('0');
        let joined: u64 = format!("{whole}{tail}").parse().map_err(|_bad| InvalidDecimal)?;
        let places = i32::try_from(tail.len()).map_err(|_bad| InvalidDecimal)?;
        let scale = places.checked_sub(exponent).ok_or(InvalidDecimal)?;
        let (digits, scale) = match u32::try_from(scale) {
            Ok(scale) => (joined, scale),
            Err(_negative) if joined == 0 => (0, 0),
            Err(_negative) => {
                let times = 10_u64.checked_pow(scale.unsigned_abs()).ok_or(InvalidDecimal)?;
                (joined.checked_mul(times).ok_or(InvalidDecimal)?, 0)
            }
        };
        if digits == 0 {
            return Ok(Self::default());
        }
        // Reduced first: a long row of zeros after the point is no precision. Bounded, since each
        // step divides the digits.
        let number = Self { negative, digits, scale }.reduced();
        if number.scale > SCALE_MAX { Err(InvalidDecimal) } else { Ok(number) }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.negative { "-" } else { "" };
        let Some(parts) = 10_u64.checked_pow(self.scale).filter(|_| self.scale > 0) else {
            return write!(f, "{sign}{}", self.digits);
        };
        let width = usize::try_from(self.scale).unwrap_or_default();
        write!(f, "{sign}{}.{:0width$}", self.digits / parts, self.digits % parts)
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let signed = i64::try_from(self.digits).ok().and_then(i64::checked_neg);
        match (self.scale, self.negative, signed) {
            (0, false, _) => to.serialize_u64(self.digits),
            (0, true, Some(signed)) => to.serialize_i64(signed),
            // The writer prints the shortest text of the nearest float, which is this number's.
            (_, _, _) => to.serialize_f64(self.to_string().parse().unwrap_or_default()),
        }
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(DecimalVisitor)
    }
}

struct DecimalVisitor;

impl Visitor<'_> for DecimalVisitor {
    type Value = Decimal;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a decimal number")
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Decimal, E> {
        Ok(Decimal::from_u64(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Decimal, E> {
        Ok(Decimal { negative: value < 0, digits: value.unsigned_abs(), scale: 0 })
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Decimal, E> {
        let faulty = |_bad| E::invalid_value(Unexpected::Float(value), &self);
        // `Display` writes the shortest text that reads back as this float, without an exponent.
        value.to_string().parse().map_err(faulty)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Decimal, E> {
        text.trim().parse().map_err(|_bad| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Decimal, E> {
        Ok(Decimal::default())
    }
}

#[cfg(test)]
mod tests;
