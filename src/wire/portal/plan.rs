//! Plans: limits without access rights (portal-api, B5), with our additions (design.md, 5).

use std::cmp::Ordering;
use std::num::NonZeroU64;

use serde_json::Value;

use super::fields::{ApiRef, Fields, Flag, Members};
use super::moment;
use super::product::{methods, pattern, provider};
use crate::domain::id::ApiId;
use crate::domain::limit::{Calendar, CalendarUnit, Period, Rate, Zone};
use crate::domain::policy::{
    CostRule, Limits, MetaValue, Partitions, Parts, PlanExtras, Policy, Setting,
};
use crate::wire::decimal;
use crate::wire::extras::{MODES, SCOPES};

/// The dearest request, in units: a cost above any sensible quota is a mistake.
const COST_MAX: i64 = 1_000_000_000;

/// The largest count of requests or units: the largest integer that Lua and readers of JSON carry
/// exactly.
const COUNT_MAX: u64 = 9_007_199_254_740_991;

/// The longest window of a rate, in milliseconds: ten years.
const PER_MS_MAX: u64 = 315_360_000_000;

/// A plan as a body describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name, unique among plans.
    pub name: String,
    /// Rate and quota.
    pub limits: Limits,
    /// Life of credentials issued under it, in seconds; 0 is for ever.
    pub key_expires_in_s: u64,
    /// Metadata copied to its credentials.
    pub metadata: Members,
    /// Our additions.
    pub extras: PlanExtras,
    /// The APIs that it names.
    pub apis: Vec<ApiRef>,
    /// The catalogues it is in, by number, custom id or name.
    pub catalogues: Vec<String>,
}

impl Plan {
    /// Reads a body or the members of a record. What it takes for unlimited it says so in the
    /// members that go out: a rate or quota of 0 or less is unlimited (portal-api, 0.14).
    pub fn read(fields: &mut Fields<'_>) -> Self {
        let name = fields.required_line("Name");
        provider(fields);
        fields.line("DisplayName");
        for text in ["Description", "JWTScope"] {
            fields.text(text);
        }
        fields.flag("AutoApproveAccessRequests", Flag::Off);
        for number in ["PlanQuota", "PlanQuotaRenewalRate"] {
            fields.whole(number);
        }
        let key_expires_in_s = u64::try_from(fields.whole("KeyExpiresIn")).unwrap_or(0);
        let metadata = fields.object("MetaData");
        let limits = root_limits(fields);
        let (extras, apis) = extras(fields);
        let catalogues = fields.lines("Catalogues");
        Self { name, limits, key_expires_in_s, metadata, extras, apis, catalogues }
    }

    /// Makes `policy` its own. It names no API: its limits are those of the credential.
    pub fn fill(self, policy: &mut Policy) {
        let parts = Parts { quota: true, rate_limit: true, ..Parts::default() };
        policy.partitions = Partitions::Parts(parts);
        policy.limits = self.limits;
        for (name, value) in self.metadata {
            policy.metadata.insert(name.into(), MetaValue(value.to_string().into()));
        }
        policy.key_expires_in_s = self.key_expires_in_s;
        policy.extras = self.extras;
    }
}

/// The three members that say one limit: the count, the seconds, and whether it is unlimited.
const LIMITS: [[&str; 3]; 2] =
    [["RateLimit", "Per", "UnlimitedRateLimit"], ["Quota", "QuotaRenewalRate", "UnlimitedQuota"]];

/// Brings a body into today's form: limits may come as the texts that the portal wrote up to 1.12,
/// and a limit that is set anew ends an earlier "unlimited" of the stored members.
pub fn normalise(body: &mut Members, stored: Option<&mut Members>) {
    for [count, per, unlimited] in LIMITS {
        if let Some(text) = body.get(count).and_then(Value::as_str) {
            if text.trim().eq_ignore_ascii_case("unlimited") {
                body.remove(count);
                body.insert(unlimited.to_owned(), true.into());
            } else if let Some((calls, span)) = text.split_once(" calls / ") {
                let (calls, seconds) = (calls.trim().to_owned(), moment::seconds(span));
                body.insert(count.to_owned(), calls.into());
                body.insert(per.to_owned(), seconds.into());
            }
        }
    }
    let Some(stored) = stored else { return };
    for [count, _, unlimited] in LIMITS {
        if body.contains_key(count) && !body.contains_key(unlimited) {
            stored.remove(unlimited);
        }
    }
}

/// Shows limits as the portal did up to 1.12: `1000 calls / 1 minute(s)`, `unlimited`.
pub fn show_as_text(members: &mut Members) {
    for [count, per, unlimited] in LIMITS {
        let text = if members.get(unlimited) == Some(&Value::Bool(true)) {
            "unlimited".to_owned()
        } else {
            let show = |name| members.get(name).map(Value::to_string).unwrap_or_default();
            let seconds = members.get(per).and_then(Value::as_u64);
            let span = seconds.map_or_else(|| format!("{} second(s)", show(per)), moment::span);
            format!("{} calls / {span}", show(count))
        };
        members.insert(count.to_owned(), text.into());
    }
}

fn root_limits(fields: &mut Fields<'_>) -> Limits {
    let rate = match rate(fields) {
        Some(rate) => Setting::Limited(rate),
        None => Setting::Unlimited,
    };
    fields.set("UnlimitedRateLimit", rate == Setting::Unlimited);
    let quota = match quota(fields) {
        Some(quota) => Setting::Limited(quota),
        None => Setting::Unlimited,
    };
    fields.set("UnlimitedQuota", quota == Setting::Unlimited);
    let rolling = rolling_period(fields).unwrap_or(Period::Never);
    let period = fields.nested("QuotaPeriod", calendar).flatten().unwrap_or(rolling);
    Limits { rate, quota, period: Some(period), ..Limits::default() }
}

/// The limits of one API: what is not given says nothing.
fn api_limits(fields: &mut Fields<'_>) -> Limits {
    let mut limits = Limits::default();
    if fields.has("RateLimit") || fields.has("Per") || fields.has("UnlimitedRateLimit") {
        limits.rate = rate(fields).map_or(Setting::Unlimited, Setting::Limited);
        fields.set("UnlimitedRateLimit", limits.rate == Setting::Unlimited);
    }
    if fields.has("Quota") || fields.has("UnlimitedQuota") {
        limits.quota = quota(fields).map_or(Setting::Unlimited, Setting::Limited);
        fields.set("UnlimitedQuota", limits.quota == Setting::Unlimited);
    }
    if fields.has("QuotaRenewalRate") {
        limits.period = Some(rolling_period(fields).unwrap_or(Period::Never));
    }
    limits
}

/// `None` is unlimited.
fn rate(fields: &mut Fields<'_>) -> Option<Rate> {
    let unlimited = fields.flag("UnlimitedRateLimit", Flag::Off);
    let (requests, per) = (fields.decimal("RateLimit"), fields.decimal("Per"));
    if unlimited || requests.sign() != Ordering::Greater {
        return None;
    }
    if per.sign() != Ordering::Greater {
        fields.fault("Per", "must be above 0 when RateLimit is");
        return None;
    }
    match decimal::rate(requests, per) {
        Ok(Setting::Limited(rate)) if COUNT_MAX < rate.requests.get() => {
            fields.fault("RateLimit", format_args!("must be at most {COUNT_MAX}"));
            None
        }
        Ok(Setting::Limited(rate)) if PER_MS_MAX < rate.per_ms.get() => {
            fields.fault("Per", "must be at most ten years");
            None
        }
        Ok(Setting::Limited(rate)) => Some(rate),
        Ok(Setting::Unset | Setting::Unlimited) => None,
        Err(fault) => {
            fields.fault("RateLimit", fault);
            None
        }
    }
}

/// `None` is unlimited.
fn quota(fields: &mut Fields<'_>) -> Option<NonZeroU64> {
    let unlimited = fields.flag("UnlimitedQuota", Flag::Off);
    let units = u64::try_from(fields.whole("Quota")).unwrap_or(0);
    if COUNT_MAX < units {
        fields.fault("Quota", format_args!("must be at most {COUNT_MAX}"));
    }
    NonZeroU64::new(units).filter(|_| !unlimited)
}

/// `None` never renews.
fn rolling_period(fields: &mut Fields<'_>) -> Option<Period> {
    let seconds = u64::try_from(fields.whole("QuotaRenewalRate")).ok()?;
    let ms = seconds.checked_mul(1_000).filter(|ms| *ms <= COUNT_MAX);
    if ms.is_none() {
        fields.fault("QuotaRenewalRate", "is too long");
    }
    ms.and_then(NonZeroU64::new).map(|ms| Period::Every { ms })
}

fn calendar(fields: &mut Fields<'_>) -> Option<Period> {
    let units = [
        ("Day", CalendarUnit::Day),
        ("Week", CalendarUnit::Week),
        ("Month", CalendarUnit::Month),
        ("day", CalendarUnit::Day),
        ("week", CalendarUnit::Week),
        ("month", CalendarUnit::Month),
    ];
    if !fields.has("Unit") {
        fields.fault("Unit", "is required");
    }
    let unit = fields.choice("Unit", &units);
    let zone = if fields.has("TimeZone") { fields.line("TimeZone") } else { "UTC".to_owned() };
    fields.set("TimeZone", zone.as_str());
    let zone = zone.parse::<Zone>();
    if let Err(fault) = &zone {
        fields.fault("TimeZone", fault);
    }
    let day = if fields.has("AnchorDay") { fields.whole("AnchorDay") } else { 1 };
    fields.set("AnchorDay", day);
    let day_max = match unit {
        Some(CalendarUnit::Day) => 1,
        Some(CalendarUnit::Week) => 7,
        Some(CalendarUnit::Month) | None => 31,
    };
    let anchor_day = u8::try_from(day).ok().filter(|day| (1..=day_max).contains(day));
    if anchor_day.is_none() {
        fields.fault("AnchorDay", format_args!("must be 1 to {day_max}"));
    }
    Some(Period::Calendar(Calendar { unit: unit?, zone: zone.ok()?, anchor_day: anchor_day? }))
}

fn extras(fields: &mut Fields<'_>) -> (PlanExtras, Vec<ApiRef>) {
    let mut apis = Vec::new();
    let mut extras = PlanExtras {
        quota_scope: fields.choice("QuotaScope", &SCOPES),
        on_store_unavailable: fields.choice("OnStoreUnavailable", &MODES),
        ..PlanExtras::default()
    };
    if fields.has("Shadow") {
        extras.shadow = fields.flag("Shadow", Flag::Off);
    }
    if fields.has("MaxInFlight") {
        let requests = u64::try_from(fields.whole("MaxInFlight")).unwrap_or(0);
        if COUNT_MAX < requests {
            fields.fault("MaxInFlight", format_args!("must be at most {COUNT_MAX}"));
        }
        extras.in_flight_max = NonZeroU64::new(requests);
    }
    for (name, limits) in
        fields.by_name("PerAPI", |name, inner| (name.to_owned(), api_limits(inner)))
    {
        match name.parse::<ApiId>() {
            Ok(id) => {
                apis.push(ApiRef { path: "PerAPI".to_owned(), id: id.clone() });
                extras.per_api.insert(id, limits);
            }
            Err(fault) => fields.fault("PerAPI", format_args!("has a name that {fault}")),
        }
    }
    for (rule, api) in fields.each("Costs", cost) {
        extras.costs.push(rule);
        apis.extend(api);
    }
    (extras, apis)
}

fn cost(fields: &mut Fields<'_>) -> (CostRule, Option<ApiRef>) {
    let api = fields.api("APIID");
    if !fields.has("Cost") {
        fields.fault("Cost", "is required");
    }
    let cost = fields.whole("Cost");
    if !(0..=COST_MAX).contains(&cost) {
        fields.fault("Cost", format_args!("must be 0 to {COST_MAX}"));
    }
    let rule = CostRule {
        api: api.as_ref().map(|named| named.id.clone()),
        path: pattern(fields, "Path"),
        methods: methods(fields, "Methods"),
        cost: u32::try_from(cost).unwrap_or(u32::MAX),
    };
    (rule, api)
}
