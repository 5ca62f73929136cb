//! The rights of one API while Tyk's rules are applied.

use std::num::NonZeroU64;

use super::super::merged::{ApiGrant, Contributors, CounterScope};
use super::super::rules;
use crate::domain::credential::Credential;
use crate::domain::id::ApiId;
use crate::domain::limit::Period;
use crate::domain::policy::{EndpointLimit, Limits, Setting, UrlAccess, VersionAccess};

/// The rights of one API while policies are applied.
#[derive(Clone, Default)]
pub(super) struct Right {
    pub(super) versions: VersionAccess,
    pub(super) urls: UrlAccess,
    pub(super) limits: Limits,
    pub(super) endpoints: Vec<EndpointLimit>,
    pub(super) scope: Option<CounterScope>,
    pub(super) set_by: Option<CounterScope>,
    pub(super) by: Contributors,
}

impl Right {
    pub(super) fn grant(self, root: &Limits) -> ApiGrant {
        let mut by = self.by;
        by.access.sort_unstable();
        by.access.dedup();
        let counter = self.scope.unwrap_or_default();
        ApiGrant {
            versions: self.versions,
            allowed_urls: self.urls,
            effective: effective(&self.limits, root),
            limits: self.limits,
            endpoints: self.endpoints,
            rate_counter: counter.clone(),
            quota_counter: counter,
            by,
        }
    }
}

/// An API whose limits are all empty takes the root's, whole.
pub(super) fn effective(limits: &Limits, root: &Limits) -> Limits {
    if limits.is_empty() { root.clone() } else { limits.clone() }
}

/// What a `per_api` policy takes from an earlier one: better limits, but not versions and paths.
pub(super) fn take_earlier(right: &mut Right, earlier: &Right) {
    let mut taken = false;
    if rules::compare_waits(&right.limits.rate, &earlier.limits.rate).is_gt() {
        rules::copy_rate(&mut right.limits, &earlier.limits);
        right.by.rate.clone_from(&earlier.by.rate);
        taken = true;
    }
    let (new, old) = (right.limits.quota, earlier.limits.quota);
    if new != old && greater_quota(old, new) {
        right.limits.quota = old;
        right.by.quota.clone_from(&earlier.by.quota);
        taken = true;
    }
    raise_period(&mut right.limits, &earlier.limits);
    if right.limits.quota == Setting::Unlimited {
        right.limits.period = None;
    }
    if taken {
        right.scope.clone_from(&earlier.scope);
    }
    right.endpoints = rules::unite_endpoints_as_tyk(&right.endpoints, &earlier.endpoints);
    right.by.access.extend(earlier.by.access.iter().cloned());
}

/// Whether a quota is greater to Tyk: -1 beats all, 0 loses to all.
pub(super) fn greater_quota(a: Setting<NonZeroU64>, b: Setting<NonZeroU64>) -> bool {
    matches!(a, Setting::Unlimited) || rules::compare_settings(&a, &b, NonZeroU64::cmp).is_gt()
}

/// The longer period wins, whoever's maximum did.
pub(super) fn raise_period(to: &mut Limits, from: &Limits) {
    let length = |period: &Option<Period>| match period {
        None | Some(Period::Never) => 0,
        Some(Period::Every { .. } | Period::Calendar(_)) => rules::period_ms(period.as_ref()),
    };
    if length(&to.period) < length(&from.period) {
        to.period.clone_from(&from.period);
    }
}

pub(super) fn raise_depth(to: &mut Limits, depth: Setting<u32>) {
    if rules::compare_settings(&depth, &to.depth, u32::cmp).is_gt() {
        to.depth = depth;
    }
}

/// The end of the current period stays as the key had it.
pub(super) fn keep_renews(limits: &mut Limits, api: &ApiId, credential: &Credential) {
    if let Some(own) = credential.access.get(api).filter(|own| !own.limits.is_empty()) {
        limits.quota_renews_s = own.limits.quota_renews_s;
    }
}
