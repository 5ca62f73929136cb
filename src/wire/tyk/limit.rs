//! Limits: the members that policies, sessions and single APIs have in common.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use crate::domain::limit::{CalendarUnit, Period, Rate};
use crate::domain::policy::{Limits, Setting, Throttle};
use crate::wire::decimal::{self, Decimal};
use crate::wire::{Invalid, is_default, or_default};

/// Seconds in a day, for showing a calendar period to those who know only lengths.
const DAY_S: i64 = 86_400;

/// `rate` per `per` seconds, quota and the rest. 0 says nothing, -1 is unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limit {
    /// Requests per `per`.
    #[serde(skip_serializing_if = "is_default")]
    pub rate: Decimal,
    /// Seconds.
    #[serde(skip_serializing_if = "is_default")]
    pub per: Decimal,
    /// Seconds to wait before trying again.
    #[serde(skip_serializing_if = "is_default")]
    pub throttle_interval: Decimal,
    /// Tries at most.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub throttle_retry_limit: i64,
    /// GraphQL query depth.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub max_query_depth: i64,
    /// Units per period.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub quota_max: i64,
    /// Unix seconds at which the period ends; informative.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub quota_renews: i64,
    /// Units left; informative.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub quota_remaining: i64,
    /// Seconds; 0 or less is never.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub quota_renewal_rate: i64,
}

impl Limit {
    /// The limits this says. `quota_remaining` belongs to the counter and is left behind.
    ///
    /// # Errors
    /// [`Invalid`] for a rate, depth or time beyond 64 (depth: 32) bits.
    pub fn to_domain(&self) -> Result<Limits, Invalid> {
        let rate = decimal::rate(self.rate, self.per);
        let rate = rate.map_err(|fault| Invalid::new("rate", fault))?;
        let window = match rate {
            Setting::Unlimited => self.per.thousandths().and_then(NonZeroU64::new),
            Setting::Unset | Setting::Limited(_) => None,
        };
        let depth = match u64::try_from(self.max_query_depth) {
            Err(_negative) => Setting::Unlimited,
            Ok(0) => Setting::Unset,
            Ok(depth) => {
                let depth = u32::try_from(depth);
                Setting::Limited(
                    depth.map_err(|_big| Invalid::new("max_query_depth", "is too large"))?,
                )
            }
        };
        let too_long = || Invalid::new("throttle_interval", "is too long");
        Ok(Limits {
            rate,
            unlimited_per_ms: window,
            quota: setting(self.quota_max),
            period: period(self.quota_renewal_rate),
            throttle: Throttle {
                interval_ms: self.throttle_interval.thousandths().ok_or_else(too_long)?,
                retries_max: u32::try_from(self.throttle_retry_limit.max(0)).unwrap_or(u32::MAX),
            },
            depth,
            quota_renews_s: super::unix_seconds(self.quota_renews).unwrap_or(0),
        })
    }
}

impl From<&Limits> for Limit {
    fn from(limits: &Limits) -> Self {
        let (rate, per) = rate_members(limits.rate, limits.unlimited_per_ms);
        Self {
            rate,
            per,
            throttle_interval: Decimal::from_thousandths(limits.throttle.interval_ms),
            throttle_retry_limit: i64::from(limits.throttle.retries_max),
            max_query_depth: match limits.depth {
                Setting::Unset => 0,
                Setting::Unlimited => -1,
                Setting::Limited(depth) => i64::from(depth),
            },
            quota_max: number(limits.quota),
            quota_renews: i64::try_from(limits.quota_renews_s).unwrap_or(i64::MAX),
            quota_remaining: 0,
            quota_renewal_rate: limits.period.as_ref().map_or(0, period_s),
        }
    }
}

/// `rate` and `per`.
pub(super) fn rate_members(
    rate: Setting<Rate>,
    unlimited_per_ms: Option<NonZeroU64>,
) -> (Decimal, Decimal) {
    let seconds = |ms: NonZeroU64| Decimal::from_thousandths(ms.get());
    match rate {
        Setting::Unset => (Decimal::default(), Decimal::default()),
        Setting::Unlimited => {
            (Decimal::minus_one(), unlimited_per_ms.map(seconds).unwrap_or_default())
        }
        Setting::Limited(rate) => (Decimal::from_u64(rate.requests.get()), seconds(rate.per_ms)),
    }
}

/// Reads Tyk's sentinels: 0 says nothing, less is unlimited.
pub(super) fn setting(number: i64) -> Setting<NonZeroU64> {
    match u64::try_from(number) {
        Err(_negative) => Setting::Unlimited,
        Ok(number) => NonZeroU64::new(number).map_or(Setting::Unset, Setting::Limited),
    }
}

/// Writes Tyk's sentinels.
pub(super) fn number(setting: Setting<NonZeroU64>) -> i64 {
    match setting {
        Setting::Unset => 0,
        Setting::Unlimited => -1,
        Setting::Limited(number) => i64::try_from(number.get()).unwrap_or(i64::MAX),
    }
}

/// A period of so many seconds; 0 says nothing, less is never.
pub(crate) fn period(seconds: i64) -> Option<Period> {
    match u64::try_from(seconds) {
        Err(_negative) => Some(Period::Never),
        Ok(seconds) => {
            let ms = NonZeroU64::new(seconds.saturating_mul(1_000));
            ms.map(|ms| Period::Every { ms })
        }
    }
}

/// The length of a period in seconds; a calendar's is nominal (a month has 30 days).
fn period_s(period: &Period) -> i64 {
    match period {
        Period::Never => 0,
        Period::Every { ms } => i64::try_from(ms.get().div_ceil(1_000)).unwrap_or(i64::MAX),
        Period::Calendar(calendar) => match calendar.unit {
            CalendarUnit::Day => DAY_S,
            CalendarUnit::Week => 7 * DAY_S,
            CalendarUnit::Month => 30 * DAY_S,
        },
    }
}
