//! Whose limit wins: for one API, and for the credential as a whole.

use std::cmp::Ordering;

use super::super::merged::CounterScope;
use super::super::rules;
use crate::domain::credential::Credential;
use crate::domain::id::{ApiId, PolicyId};
use crate::domain::policy::{Limits, Partitions, Policy, Setting, Throttle};

/// The kinds of limit that have counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Rate,
    Quota,
}

/// The limits that win, and who wrote them. Only the section asked for counts.
#[derive(Clone, Copy)]
pub(super) struct Pick<'a> {
    pub(super) limits: &'a Limits,
    pub(super) source: Source<'a>,
}

/// Who wrote a limit. Ordered, so that equals are told apart without their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source<'a> {
    /// The credential itself.
    Credential,
    /// A policy, for all the APIs it speaks of.
    Shared(&'a PolicyId),
    /// A `per_api` policy, for those of its APIs that have no limits of their own.
    PerApiRoot(&'a PolicyId),
    /// A policy, for this API alone.
    OneApi(&'a PolicyId),
}

impl<'a> Pick<'a> {
    /// The policy whose limit may share the credential's own counter, if this is a limit.
    pub(super) fn sharing(&self, section: Section) -> Option<&'a PolicyId> {
        match self.source {
            Source::Shared(id) if is_limit(section, self.limits) => Some(id),
            Source::Shared(_) | Source::Credential | Source::PerApiRoot(_) | Source::OneApi(_) => {
                None
            }
        }
    }

    /// The policy that wrote what holds.
    pub(super) fn winner(&self, section: Section) -> Option<&'a PolicyId> {
        if is_unset(section, self.limits) {
            return None;
        }
        match self.source {
            Source::Credential => None,
            Source::Shared(id) | Source::PerApiRoot(id) | Source::OneApi(id) => Some(id),
        }
    }

    /// The counter of this limit; `alone` where no second policy shares its limits in `section`.
    pub(super) fn counter(&self, section: Section, api: &ApiId, alone: bool) -> CounterScope {
        if is_unset(section, self.limits) {
            return CounterScope::Credential;
        }
        match self.source {
            Source::Credential => CounterScope::Credential,
            Source::Shared(_) if alone => CounterScope::Credential,
            Source::Shared(id) | Source::PerApiRoot(id) => CounterScope::Policy(id.clone()),
            Source::OneApi(_) => CounterScope::Api(api.clone()),
        }
    }
}

/// What the policies that speak of `api` say: the most generous; `None` where none speaks of it.
pub(super) fn for_api<'a>(
    section: Section,
    api: &ApiId,
    policies: &[&'a Policy],
) -> Option<Pick<'a>> {
    let setting = policies.iter().filter(|policy| sets(section, policy));
    let picks = setting.filter_map(|policy| {
        let (limits, source) = spoken(section, api, policy)?;
        Some(Pick { limits, source })
    });
    most_generous(section, picks)
}

/// What `policy` says of `api`.
fn spoken<'a>(
    section: Section,
    api: &ApiId,
    policy: &'a Policy,
) -> Option<(&'a Limits, Source<'a>)> {
    if policy.partitions == Partitions::PerApi {
        let access = policy.access.get(api)?;
        return Some(if access.limits.is_empty() {
            (&policy.limits, Source::PerApiRoot(&policy.id))
        } else {
            (&access.limits, Source::OneApi(&policy.id))
        });
    }
    match policy.extras.per_api.get(api) {
        Some(limits) if !is_unset(section, limits) => Some((limits, Source::OneApi(&policy.id))),
        Some(_) | None => {
            policy.access.get(api)?;
            Some((&policy.limits, Source::Shared(&policy.id)))
        }
    }
}

/// What holds for APIs that no policy of the section speaks of: what the plans that name no API
/// say; without such, the most generous of the others; without any, the credential's own.
pub(super) fn root<'a>(
    section: Section,
    credential: &'a Credential,
    policies: &[&'a Policy],
) -> Pick<'a> {
    let setting = || policies.iter().filter(|policy| sets(section, policy));
    let shared = |policy: &&&'a Policy| policy.partitions != Partitions::PerApi;
    let pick =
        |policy: &&'a Policy| Pick { limits: &policy.limits, source: Source::Shared(&policy.id) };
    let plans = setting().filter(shared).filter(|policy| policy.access.is_empty()).map(pick);
    let all = setting().filter(shared).map(pick);
    let own = Pick { limits: &credential.limits, source: Source::Credential };
    let covered = setting().next().is_some();
    most_generous(section, plans).or_else(|| most_generous(section, all)).unwrap_or(if covered {
        NOTHING
    } else {
        own
    })
}

/// Depth and throttle of the credential as a whole.
pub(super) fn root_rest(credential: &Credential, policies: &[&Policy]) -> Limits {
    let mut rest = Limits { quota_renews_s: credential.limits.quota_renews_s, ..Limits::default() };
    let (mut throttled, mut deep) = (false, false);
    for policy in policies {
        let (parts, shared) = (policy.partitions.parts(), policy.partitions != Partitions::PerApi);
        throttled |= parts.rate_limit;
        deep |= parts.complexity;
        if parts.rate_limit && shared {
            rest.throttle = rules::unite_throttles(rest.throttle, policy.limits.throttle);
        }
        if parts.complexity && shared {
            raise_depth(&mut rest, &policy.limits);
        }
    }
    if !throttled {
        rest.throttle = credential.limits.throttle;
    }
    if !deep {
        rest.depth = credential.limits.depth;
    }
    rest
}

/// Depth and throttle of one API; the root's where no policy speaks of it.
pub(super) fn rest_for_api(to: &mut Limits, api: &ApiId, policies: &[&Policy], root: &Limits) {
    let (mut throttled, mut deep) = (false, false);
    for policy in policies {
        let Some((limits, _)) = spoken(Section::Rate, api, policy) else { continue };
        // What a plan says of a single API is about rate and quota only.
        let limits = if policy.partitions == Partitions::PerApi { limits } else { &policy.limits };
        let parts = policy.partitions.parts();
        if parts.rate_limit {
            throttled = true;
            to.throttle = rules::unite_throttles(to.throttle, limits.throttle);
        }
        if parts.complexity {
            deep = true;
            raise_depth(to, limits);
        }
    }
    if !throttled {
        to.throttle = root.throttle;
    }
    if !deep {
        to.depth = root.depth;
    }
}

/// No limits at all, for what policies set without saying anything.
const NOTHING: Pick<'static> = Pick {
    limits: &Limits {
        rate: Setting::Unset,
        unlimited_per_ms: None,
        quota: Setting::Unset,
        period: None,
        throttle: Throttle { interval_ms: 0, retries_max: 0 },
        depth: Setting::Unset,
        quota_renews_s: 0,
    },
    source: Source::Credential,
};

fn most_generous<'a>(section: Section, picks: impl Iterator<Item = Pick<'a>>) -> Option<Pick<'a>> {
    // Of equals the least source wins, whatever their order.
    picks.max_by(|a, b| compare(section, a.limits, b.limits).then_with(|| b.source.cmp(&a.source)))
}

fn compare(section: Section, a: &Limits, b: &Limits) -> Ordering {
    match section {
        // An unlimited rate with a window beside it says so more clearly; it is shown again.
        Section::Rate => rules::compare_rates(&a.rate, &b.rate)
            .then_with(|| a.unlimited_per_ms.cmp(&b.unlimited_per_ms)),
        Section::Quota => rules::compare_quotas(a, b),
    }
}

fn raise_depth(to: &mut Limits, from: &Limits) {
    if rules::compare_settings(&from.depth, &to.depth, u32::cmp).is_gt() {
        to.depth = from.depth;
    }
}

fn sets(section: Section, policy: &Policy) -> bool {
    match section {
        Section::Rate => policy.partitions.parts().rate_limit,
        Section::Quota => policy.partitions.parts().quota,
    }
}

fn is_unset(section: Section, limits: &Limits) -> bool {
    match section {
        Section::Rate => limits.rate.is_unset(),
        Section::Quota => limits.quota.is_unset(),
    }
}

fn is_limit(section: Section, limits: &Limits) -> bool {
    match section {
        Section::Rate => matches!(limits.rate, Setting::Limited(_)),
        Section::Quota => matches!(limits.quota, Setting::Limited(_)),
    }
}
