//! The steps both modes are made of: how two values of one kind become one.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::limit::{CalendarUnit, Period, Rate};
use crate::domain::policy::{
    AllowedUrl, CostRule, EndpointLimit, FailureMode, Limits, Methods, PatternSyntax, PlanExtras,
    Policy, QuotaScope, Setting, Throttle, UrlAccess, VersionAccess,
};

/// Milliseconds in a day, for comparing periods by their nominal length.
const DAY_MS: u64 = 86_400_000;

/// Orders two settings: unset, then limits by `compare`, then unlimited.
pub(super) fn compare_settings<T>(
    a: &Setting<T>,
    b: &Setting<T>,
    compare: impl FnOnce(&T, &T) -> Ordering,
) -> Ordering {
    match (a, b) {
        (Setting::Limited(a), Setting::Limited(b)) => compare(a, b),
        (Setting::Unset, Setting::Unset) | (Setting::Unlimited, Setting::Unlimited) => {
            Ordering::Equal
        }
        (Setting::Unset, _) | (_, Setting::Unlimited) => Ordering::Less,
        (_, Setting::Unset) | (Setting::Unlimited, _) => Ordering::Greater,
    }
}

/// Orders two rates by generosity; unset is the least.
pub(super) fn compare_rates(a: &Setting<Rate>, b: &Setting<Rate>) -> Ordering {
    compare_settings(a, b, Rate::cmp_generosity)
}

/// Orders the quotas of two limits by generosity: the larger maximum, then the shorter period.
pub(super) fn compare_quotas(a: &Limits, b: &Limits) -> Ordering {
    compare_settings(&a.quota, &b.quota, Ord::cmp)
        .then_with(|| period_ms(b.period.as_ref()).cmp(&period_ms(a.period.as_ref())))
}

/// The nominal length of a period; one that never ends is the longest.
pub(super) fn period_ms(period: Option<&Period>) -> u64 {
    match period {
        None | Some(Period::Never) => u64::MAX,
        Some(Period::Every { ms }) => ms.get(),
        Some(Period::Calendar(calendar)) => match calendar.unit {
            CalendarUnit::Day => DAY_MS,
            CalendarUnit::Week => 7 * DAY_MS,
            CalendarUnit::Month => 30 * DAY_MS,
        },
    }
}

/// Copies the rate of `from`.
pub(super) fn copy_rate(to: &mut Limits, from: &Limits) {
    to.rate = from.rate;
    to.unlimited_per_ms = from.unlimited_per_ms;
}

/// Copies the quota of `from` and its period.
pub(super) fn copy_quota(to: &mut Limits, from: &Limits) {
    to.quota = from.quota;
    to.period.clone_from(&from.period);
}

/// Takes the rate of `policy` where it is more generous.
pub(super) fn raise_rate(current: &mut Limits, policy: &Limits) {
    if compare_rates(&policy.rate, &current.rate).is_gt() {
        copy_rate(current, policy);
    }
}

/// Whether Tyk's rate step takes a rate for "not set": also -1 without a window.
fn is_unset_to_tyk(limits: &Limits) -> bool {
    match limits.rate {
        Setting::Unset => true,
        Setting::Unlimited => limits.unlimited_per_ms.is_none(),
        Setting::Limited(_) => false,
    }
}

/// Tyk's rate step (reference/tyk-gateway.md, 2.3.1): a shorter time between requests wins.
/// Returns whether the policy's rate was taken.
pub(super) fn raise_rate_as_tyk_did(current: &mut Limits, policy: &Limits) -> bool {
    let taken = !is_unset_to_tyk(policy)
        && (is_unset_to_tyk(current) || compare_waits(&current.rate, &policy.rate).is_gt());
    if taken {
        copy_rate(current, policy);
    }
    taken
}

/// [`raise_rate_as_tyk_did`], for those who do not ask.
pub(super) fn raise_rate_as_tyk(current: &mut Limits, policy: &Limits) {
    let _taken = raise_rate_as_tyk_did(current, policy);
}

/// Orders two rates by the time between requests, which Tyk takes for 0 where there is no rate.
pub(super) fn compare_waits(a: &Setting<Rate>, b: &Setting<Rate>) -> Ordering {
    let cross = |a: &Rate, b: &Rate| u128::from(a.per_ms.get()) * u128::from(b.requests.get());
    match (a, b) {
        (Setting::Limited(a), Setting::Limited(b)) => cross(a, b).cmp(&cross(b, a)),
        (Setting::Limited(_), Setting::Unset | Setting::Unlimited) => Ordering::Greater,
        (Setting::Unset | Setting::Unlimited, Setting::Limited(_)) => Ordering::Less,
        (Setting::Unset | Setting::Unlimited, Setting::Unset | Setting::Unlimited) => {
            Ordering::Equal
        }
    }
}

/// The greater of each.
pub(super) fn unite_throttles(a: Throttle, b: Throttle) -> Throttle {
    Throttle {
        interval_ms: a.interval_ms.max(b.interval_ms),
        retries_max: a.retries_max.max(b.retries_max),
    }
}

/// Adds the versions of `from`, in the order first seen.
pub(super) fn unite_versions(to: &mut VersionAccess, from: &VersionAccess) {
    match (&mut *to, from) {
        (VersionAccess::Any, _) => {}
        (VersionAccess::Only(_), VersionAccess::Any) => *to = VersionAccess::Any,
        (VersionAccess::Only(have), VersionAccess::Only(more)) => append_missing(have, more),
    }
}

/// Adds the allow list of `from`: no list at all is every path, and wins.
pub(super) fn unite_urls(to: &mut UrlAccess, from: &UrlAccess) {
    match (&mut *to, from) {
        (UrlAccess::Unrestricted, _) => {}
        (UrlAccess::Only(_), UrlAccess::Unrestricted) => *to = UrlAccess::Unrestricted,
        (UrlAccess::Only(have), UrlAccess::Only(more)) => append_urls(have, more),
    }
}

/// Adds the allow list of `from` as Tyk does: no list is an empty one, so that any list wins.
pub(super) fn unite_urls_as_tyk(to: &mut UrlAccess, from: &UrlAccess) {
    match (&mut *to, from) {
        (_, UrlAccess::Unrestricted) => {}
        (UrlAccess::Unrestricted, UrlAccess::Only(_)) => *to = from.clone(),
        (UrlAccess::Only(have), UrlAccess::Only(more)) => append_urls(have, more),
    }
}

fn append_urls(have: &mut Vec<AllowedUrl>, more: &[AllowedUrl]) {
    for entry in more {
        let same = |other: &&mut AllowedUrl| other.syntax == entry.syntax && other.url == entry.url;
        match have.iter_mut().find(same) {
            None => have.push(entry.clone()),
            Some(known) => match (&mut known.methods, &entry.methods) {
                (Methods::Any, _) => {}
                (Methods::Only(_), Methods::Any) => known.methods = Methods::Any,
                (Methods::Only(have), Methods::Only(more)) => append_missing(have, more),
            },
        }
    }
}

fn append_missing(have: &mut Vec<Arc<str>>, more: &[Arc<str>]) {
    for item in more {
        if !have.contains(item) {
            have.push(item.clone());
        }
    }
}

/// Sorts what has an order only by chance.
pub(super) fn sort_access(versions: &mut VersionAccess, urls: &mut UrlAccess) {
    if let VersionAccess::Only(list) = versions {
        list.sort_unstable();
        list.dedup();
    }
    if let UrlAccess::Only(list) = urls {
        let mut sorted = Vec::with_capacity(list.len());
        append_urls(&mut sorted, list);
        sorted.sort_unstable_by(|a, b| (a.syntax, &a.url).cmp(&(b.syntax, &b.url)));
        for entry in &mut sorted {
            if let Methods::Only(methods) = &mut entry.methods {
                methods.sort_unstable();
                methods.dedup();
            }
        }
        *list = sorted;
    }
}

type EndpointKey = (Arc<str>, Arc<str>, PatternSyntax);

/// Unites two lists of endpoint limits; an entry that sets nothing is dropped.
pub(super) fn unite_endpoints(a: &[EndpointLimit], b: &[EndpointLimit]) -> Vec<EndpointLimit> {
    let set = a.iter().chain(b).filter(|entry| !entry.rate.is_unset());
    gather(set, |new, old| compare_rates(&new.rate, &old.rate))
}

/// Unites two lists as Tyk does: no rate is unlimited, and paths with a `:` are lost where both
/// lists have entries (reference/tyk-gateway.md, 2.3.1).
pub(super) fn unite_endpoints_as_tyk(
    policy: &[EndpointLimit],
    current: &[EndpointLimit],
) -> Vec<EndpointLimit> {
    let lossy = !policy.is_empty() && !current.is_empty();
    let kept = current.iter().chain(policy).filter(|entry| !lossy || !entry.path.contains(':'));
    gather(kept, |new, old| {
        let shorter = compare_waits(&old.rate, &new.rate);
        shorter.then_with(|| compare_rates(&new.rate, &old.rate))
    })
}

fn gather<'a>(
    entries: impl Iterator<Item = &'a EndpointLimit>,
    compare: impl Fn(&EndpointLimit, &EndpointLimit) -> Ordering,
) -> Vec<EndpointLimit> {
    let mut best: BTreeMap<EndpointKey, &EndpointLimit> = BTreeMap::new();
    for entry in entries {
        let key = (entry.path.clone(), entry.method.clone(), entry.syntax);
        let known = best.entry(key).or_insert(entry);
        if compare(entry, known).is_gt() {
            *known = entry;
        }
    }
    best.into_values().cloned().collect()
}

/// Unites what plans of ours say beyond limits. The result does not depend on their order.
///
/// What limits is merged generously, as limits are; what protects is merged strictly: a plan that
/// closes without the store, or is no trial (`shadow`), is not undone by another beside it.
pub(super) fn unite_extras(policies: &[&Policy]) -> PlanExtras {
    let limiting = policies.iter().filter(|policy| {
        let parts = policy.partitions.parts();
        parts.rate_limit || parts.quota
    });
    let mut plans: Vec<(&Policy, &PlanExtras)> =
        limiting.map(|policy| (*policy, &policy.extras)).collect();
    plans.sort_by(|a, b| a.0.id.cmp(&b.0.id));
    PlanExtras {
        quota_scope: plans.iter().filter_map(|p| p.1.quota_scope).max_by_key(|s| scope_rank(*s)),
        on_store_unavailable: plans
            .iter()
            .filter_map(|p| p.1.on_store_unavailable)
            .min_by_key(|mode| failure_rank(*mode)),
        shadow: !plans.is_empty() && plans.iter().all(|plan| plan.1.shadow),
        in_flight_max: plans.iter().filter_map(|plan| plan.1.in_flight_max).max(),
        costs: unite_costs(&plans),
        per_api: BTreeMap::new(),
    }
}

/// Rules of the plan with the least id first; of two rules for the same requests, the cheaper.
fn unite_costs(plans: &[(&Policy, &PlanExtras)]) -> Vec<CostRule> {
    let mut all: Vec<CostRule> = Vec::new();
    for rule in plans.iter().flat_map(|plan| &plan.1.costs) {
        let same = |other: &&mut CostRule| {
            other.api == rule.api && other.path == rule.path && other.methods == rule.methods
        };
        match all.iter_mut().find(same) {
            None => all.push(rule.clone()),
            Some(known) => known.cost = known.cost.min(rule.cost),
        }
    }
    all
}

/// The more counters a scope makes, the more generous it is.
fn scope_rank(scope: QuotaScope) -> u8 {
    match scope {
        QuotaScope::Organisation => 0,
        QuotaScope::Developer => 1,
        QuotaScope::App => 2,
        QuotaScope::Credential => 3,
        QuotaScope::Product => 4,
        QuotaScope::Api => 5,
    }
}

fn failure_rank(mode: FailureMode) -> u8 {
    match mode {
        FailureMode::Closed => 0,
        FailureMode::Local => 1,
        FailureMode::Open => 2,
    }
}
