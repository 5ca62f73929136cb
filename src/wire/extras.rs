//! What our plans say beyond Tyk's policies: in `/v1` beside the rest, and as the object `turnpike`
//! of a Tyk policy. Snake case; the portal's shapes spell the same members in its own case.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use super::decimal::{self, Decimal};
use super::{Invalid, is_default, or_default};
use crate::domain::id::ApiId;
use crate::domain::limit::{Calendar, CalendarUnit, Period};
use crate::domain::policy::{CostRule, FailureMode, Limits, PlanExtras, QuotaScope, Setting};

/// The members of ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extras {
    /// A calendar period, in place of `quota_renewal_rate`.
    #[serde(skip_serializing_if = "is_default")]
    pub quota_period: Option<QuotaPeriod>,
    /// `credential`, `product`, `api`, `app`, `developer` or `organisation`.
    #[serde(skip_serializing_if = "is_default")]
    pub quota_scope: Option<String>,
    /// `closed`, `open` or `local`.
    #[serde(skip_serializing_if = "is_default")]
    pub on_store_unavailable: Option<String>,
    /// Decide and count, but let through.
    #[serde(skip_serializing_if = "is_default")]
    pub shadow: bool,
    /// Requests in flight at most; 0 is any number.
    #[serde(skip_serializing_if = "is_default")]
    pub max_in_flight: u64,
    /// Limits of single APIs.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub per_api: BTreeMap<String, ApiLimit>,
    /// What requests cost, first match wins.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub costs: Vec<Cost>,
    /// Members we do not know.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// A calendar period.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QuotaPeriod {
    /// `day`, `week` or `month`.
    pub unit: String,
    /// IANA name; empty is UTC.
    pub time_zone: String,
    /// See [`Calendar::anchor_day`]; 0 is 1.
    pub anchor_day: u8,
}

/// The limits of one API of a plan. Left out or 0: the plan's; -1: unlimited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ApiLimit {
    /// Requests per `per`.
    #[serde(skip_serializing_if = "is_default")]
    pub rate_limit: Decimal,
    /// Seconds.
    #[serde(skip_serializing_if = "is_default")]
    pub per: Decimal,
    /// Units per period.
    #[serde(skip_serializing_if = "is_default")]
    pub quota: i64,
    /// Seconds; 0 or less is never.
    #[serde(skip_serializing_if = "is_default")]
    pub quota_renewal_rate: i64,
}

/// What requests on a path cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// The API; empty is any.
    #[serde(skip_serializing_if = "is_default")]
    pub api_id: String,
    /// Path pattern of ours.
    pub path: String,
    /// Methods; none is any.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub methods: Vec<String>,
    /// Units; 0 is free.
    pub cost: u32,
}

/// Names of scopes, in both directions.
pub(super) const SCOPES: [(&str, QuotaScope); 6] = [
    ("credential", QuotaScope::Credential),
    ("product", QuotaScope::Product),
    ("api", QuotaScope::Api),
    ("app", QuotaScope::App),
    ("developer", QuotaScope::Developer),
    ("organisation", QuotaScope::Organisation),
];

/// Names of failure modes, in both directions.
pub(super) const MODES: [(&str, FailureMode); 3] =
    [("closed", FailureMode::Closed), ("open", FailureMode::Open), ("local", FailureMode::Local)];

impl Extras {
    /// The plan's extras and, if it has one, its calendar period.
    ///
    /// # Errors
    /// [`Invalid`] with the path of the first member without a meaning.
    pub fn to_domain(&self) -> Result<(PlanExtras, Option<Period>), Invalid> {
        let period = self.quota_period.as_ref().map(QuotaPeriod::to_domain).transpose();
        let mut per_api = BTreeMap::new();
        for (id, limit) in &self.per_api {
            let at = format!("per_api.{id}");
            let api: ApiId = id.parse().map_err(|fault| Invalid::new(&at, fault))?;
            per_api.insert(api, limit.to_domain().map_err(|fault| fault.within(&at))?);
        }
        let extras = PlanExtras {
            quota_scope: named("quota_scope", &SCOPES, self.quota_scope.as_deref())?,
            on_store_unavailable: named(
                "on_store_unavailable",
                &MODES,
                self.on_store_unavailable.as_deref(),
            )?,
            shadow: self.shadow,
            in_flight_max: NonZeroU64::new(self.max_in_flight),
            costs: self.costs.iter().map(Cost::to_domain).collect::<Result<_, _>>()?,
            per_api,
        };
        Ok((extras, period.map_err(|fault| fault.within("quota_period"))?))
    }

    /// The members that say this; `period` is written if it is a calendar's.
    #[must_use]
    pub fn from_domain(extras: &PlanExtras, period: Option<&Period>) -> Self {
        let spelled = |names: &[(&str, FailureMode)], value: FailureMode| {
            names.iter().find(|(_, known)| *known == value).map(|(name, _)| (*name).to_owned())
        };
        let scope = extras.quota_scope.and_then(|scope| {
            SCOPES.iter().find(|(_, known)| *known == scope).map(|(name, _)| (*name).to_owned())
        });
        let limit = |(api, limits): (&ApiId, &Limits)| (api.to_string(), ApiLimit::from(limits));
        Self {
            quota_period: period.and_then(QuotaPeriod::from_domain),
            quota_scope: scope,
            on_store_unavailable: extras.on_store_unavailable.and_then(|m| spelled(&MODES, m)),
            shadow: extras.shadow,
            max_in_flight: extras.in_flight_max.map_or(0, NonZeroU64::get),
            per_api: extras.per_api.iter().map(limit).collect(),
            costs: extras.costs.iter().map(Cost::from).collect(),
            other: serde_json::Map::new(),
        }
    }
}

/// The value called `name`.
fn named<T: Copy>(
    path: &str,
    names: &[(&str, T)],
    name: Option<&str>,
) -> Result<Option<T>, Invalid> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
    match names.iter().find(|(known, _)| *known == name) {
        Some((_, value)) => Ok(Some(*value)),
        None => {
            let known: Vec<&str> = names.iter().map(|(known, _)| *known).collect();
            Err(Invalid::new(path, format!("must be one of {}", known.join(", "))))
        }
    }
}

impl QuotaPeriod {
    /// The calendar period.
    ///
    /// # Errors
    /// [`Invalid`] for an unknown unit or zone, or a day outside of the unit.
    pub fn to_domain(&self) -> Result<Period, Invalid> {
        let (unit, last) = match self.unit.as_str() {
            "day" => (CalendarUnit::Day, 1),
            "week" => (CalendarUnit::Week, 7),
            "month" => (CalendarUnit::Month, 31),
            _ => return Err(Invalid::new("unit", "must be one of day, week, month")),
        };
        let zone = if self.time_zone.is_empty() { "UTC" } else { &self.time_zone };
        let anchor_day = self.anchor_day.max(1);
        if anchor_day > last {
            return Err(Invalid::new("anchor_day", format!("must be 1 to {last}")));
        }
        let zone = zone.parse().map_err(|fault| Invalid::new("time_zone", fault))?;
        Ok(Period::Calendar(Calendar { unit, zone, anchor_day }))
    }

    fn from_domain(period: &Period) -> Option<Self> {
        let Period::Calendar(calendar) = period else { return None };
        let unit = match calendar.unit {
            CalendarUnit::Day => "day",
            CalendarUnit::Week => "week",
            CalendarUnit::Month => "month",
        };
        Some(Self {
            unit: unit.to_owned(),
            time_zone: calendar.zone.as_str().to_owned(),
            anchor_day: calendar.anchor_day,
        })
    }
}

impl ApiLimit {
    fn to_domain(&self) -> Result<Limits, Invalid> {
        let rate = decimal::rate(self.rate_limit, self.per);
        Ok(Limits {
            rate: rate.map_err(|fault| Invalid::new("rate_limit", fault))?,
            unlimited_per_ms: None,
            quota: match u64::try_from(self.quota) {
                Ok(quota) => NonZeroU64::new(quota).map_or(Setting::Unset, Setting::Limited),
                Err(_negative) => Setting::Unlimited,
            },
            period: super::tyk::period(self.quota_renewal_rate),
            ..Limits::default()
        })
    }
}

impl From<&Limits> for ApiLimit {
    fn from(limits: &Limits) -> Self {
        let shown = super::tyk::Limit::from(limits);
        Self {
            rate_limit: shown.rate,
            per: shown.per,
            quota: shown.quota_max,
            quota_renewal_rate: shown.quota_renewal_rate,
        }
    }
}

impl Cost {
    fn to_domain(&self) -> Result<CostRule, Invalid> {
        if !self.path.starts_with('/') {
            return Err(Invalid::new("costs.path", "must start with /"));
        }
        let api = Some(self.api_id.as_str()).filter(|id| !id.is_empty()).map(str::parse);
        Ok(CostRule {
            api: api.transpose().map_err(|fault| Invalid::new("costs.api_id", fault))?,
            path: self.path.as_str().into(),
            methods: self.methods.iter().map(|m| m.to_ascii_uppercase().into()).collect(),
            cost: self.cost,
        })
    }
}

impl From<&CostRule> for Cost {
    fn from(rule: &CostRule) -> Self {
        Self {
            api_id: rule.api.as_ref().map(ToString::to_string).unwrap_or_default(),
            path: rule.path.to_string(),
            methods: rule.methods.iter().map(ToString::to_string).collect(),
            cost: rule.cost,
        }
    }
}
