//! Rates, quotas and their periods.

use std::cmp::Ordering;
use std::num::NonZeroU64;

/// A short sliding window: at most `requests` in any `per_ms` milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Requests admitted in one window.
    pub requests: NonZeroU64,
    /// Length of the window, in milliseconds.
    pub per_ms: NonZeroU64,
}

impl Rate {
    /// Orders two rates by generosity: more requests per time first, then the larger burst.
    ///
    /// Cross-multiplied in a wider integer, so it is exact.
    #[must_use]
    pub fn cmp_generosity(&self, other: &Self) -> Ordering {
        let flow = |a: &Self, b: &Self| u128::from(a.requests.get()) * u128::from(b.per_ms.get());
        flow(self, other).cmp(&flow(other, self)).then(self.requests.cmp(&other.requests))
    }
}

/// A long fixed period with an allowance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    /// Units admitted in one period.
    pub limit: NonZeroU64,
    /// When the allowance is renewed.
    pub period: Period,
}

/// When a quota's allowance is renewed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// Never: one allowance for the life of the credential.
    Never,
    /// Every so many milliseconds, counted from the subject's first use.
    Every {
        /// Length of the period, in milliseconds.
        ms: NonZeroU64,
    },
    /// At a calendar boundary in a time zone.
    Calendar(Calendar),
}

/// A calendar boundary.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Calendar {
    /// Day, week or month.
    pub unit: CalendarUnit,
    /// IANA time zone, known to the bundled database.
    pub zone: Zone,
    /// Week: 1 (Monday) to 7. Month: 1 to 31; shorter months renew on their last day. Day: 1.
    pub anchor_day: u8,
}

/// The length of a calendar period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CalendarUnit {
    /// From midnight to midnight; 23 or 25 hours when clocks change.
    Day,
    /// Seven days from the anchor weekday.
    Week,
    /// From the anchor day of one month to that of the next.
    Month,
}

/// The name of an IANA time zone that the bundled database knows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone(std::sync::Arc<str>);

impl Zone {
    /// The zone's name, such as `Europe/Paris`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The rules of the zone.
    pub(crate) fn rules(&self) -> jiff::tz::TimeZone {
        jiff::tz::TimeZone::get(&self.0).unwrap_or(jiff::tz::TimeZone::UTC)
    }
}

/// A time zone name that the bundled database does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not an IANA time zone name such as UTC or Europe/Paris")]
pub struct UnknownZone;

impl std::str::FromStr for Zone {
    type Err = UnknownZone;
    fn from_str(text: &str) -> Result<Self, UnknownZone> {
        match jiff::tz::TimeZone::get(text) {
            Ok(_) => Ok(Self(text.into())),
            Err(_) => Err(UnknownZone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_generous_rate_is_the_greater() {
        check("10/1s", "5/60s", Ordering::Greater);
        check("2/1s", "120/60s", Ordering::Less); // Same flow: the larger burst wins.
        check("5/60s", "5/60s", Ordering::Equal);
    }

    #[track_caller]
    fn check(a: &str, b: &str, expect: Ordering) {
        assert_eq!(parse(a).cmp_generosity(&parse(b)), expect, "{a} against {b}");
    }

    fn parse(text: &str) -> Rate {
        let (requests, per) = text.trim_end_matches('s').split_once('/').unwrap();
        let per_s: u64 = per.parse().unwrap();
        Rate {
            requests: requests.parse().unwrap(),
            per_ms: NonZeroU64::new(per_s * 1_000).unwrap(),
        }
    }
}
