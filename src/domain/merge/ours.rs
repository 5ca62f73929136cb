//! Our rules: no order, no lost access, nothing opened by what is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;

use super::merged::{ApiGrant, CounterScope, Merged};
use super::{Found, MergeError, check_alone, rules, shell};
use crate::domain::credential::{Credential, PolicyKind, Status};
use crate::domain::id::{ApiId, OrgId, PolicyId};
use crate::domain::policy::{Limits, Partitions, Policy, PostExpiry, Setting};

mod pick;

use pick::{Pick, Section};

/// The policies that were found, and the products that were not.
pub(super) struct LookedUp<'a> {
    pub(super) policies: Vec<&'a Policy>,
    pub(super) skipped: Vec<PolicyId>,
}

/// Skips products that are gone, and refuses whatever else is wrong with a reference.
///
/// Of several faults, the one to report is chosen by kind and id, not by the order of references.
pub(super) fn look_over<'a>(
    found: &[Found<'a>],
    api_org: Option<&OrgId>,
) -> Result<LookedUp<'a>, MergeError> {
    let mut policies = Vec::with_capacity(found.len());
    let mut skipped = Vec::new();
    let mut faults = Vec::new();
    for one in found {
        match one {
            Found::Policy(policy) => match check_alone(policy, api_org) {
                Ok(()) => policies.push(*policy),
                Err(fault) => faults.push(fault),
            },
            Found::Missing { id, kind: PolicyKind::Product } => skipped.push((*id).clone()),
            Found::Missing { id, kind: PolicyKind::Plan | PolicyKind::Any } => {
                faults.push(MergeError::PolicyMissing { id: (*id).clone() });
            }
            Found::OtherOrg { id } => {
                faults.push(MergeError::OtherOrganisation { id: (*id).clone() });
            }
        }
    }
    let is = |kind| move |policy: &&Policy| policy.partitions == kind;
    let parted = policies.iter().any(|policy| matches!(policy.partitions, Partitions::Parts(_)));
    if parted && policies.iter().any(is(Partitions::PerApi)) {
        faults.push(MergeError::Mixed);
    }
    if let Some(first) = faults.into_iter().min_by_key(rank) {
        return Err(first);
    }
    if policies.is_empty() && !skipped.is_empty() {
        return Err(MergeError::NoAccess);
    }
    skipped.sort_unstable();
    skipped.dedup();
    Ok(LookedUp { policies, skipped })
}

fn rank(fault: &MergeError) -> (u8, String) {
    match fault {
        MergeError::OtherOrganisation { id } => (0, id.to_string()),
        MergeError::PolicyMissing { id } => (1, id.to_string()),
        MergeError::PerApiAndParts { id } => (2, id.to_string()),
        MergeError::Mixed => (3, String::new()),
        MergeError::NoAccess => (4, String::new()),
    }
}

/// Merges policies that were looked over.
pub(super) fn merge(credential: &Credential, policies: &[&Policy]) -> Result<Merged, MergeError> {
    let mut merged = shell(credential, policies);
    if policies.is_empty() {
        merged.apis = own_grants(credential);
        return Ok(merged);
    }
    merged.inactive =
        credential.status == Status::Inactive || policies.iter().any(|policy| policy.inactive);
    merged.last_updated_s =
        policies.iter().map(|p| p.last_updated_s).fold(credential.last_updated_s, u64::max);
    merged.post_expiry = post_expiry(credential.post_expiry, policies);
    merged.key_expires_in_s =
        policies.iter().map(|p| p.key_expires_in_s).filter(|life| *life > 0).min().unwrap_or(0);
    let root = Root::new(credential, policies);
    let opening: BTreeSet<&ApiId> = policies
        .iter()
        .filter(|policy| policy.partitions.parts().acl)
        .flat_map(|policy| policy.access.keys())
        .collect();
    let drafts: BTreeMap<ApiId, Draft<'_>> = opening
        .into_iter()
        .map(|api| (api.clone(), draft(api, credential, policies, &root)))
        .collect();
    if drafts.is_empty() {
        return Err(MergeError::NoAccess);
    }
    merged.apis = settle(drafts);
    merged.root = match single_api(&merged, policies) {
        Some(limits) => limits,
        None => root.limits(),
    };
    Ok(merged)
}

/// A credential without policies: its own rights, each API with limits of its own on a counter of
/// its own (reference/tyk-gateway.md, 2.3, step 6).
pub(super) fn own_grants(credential: &Credential) -> BTreeMap<ApiId, ApiGrant> {
    let grant = |(api, access): (&ApiId, &crate::domain::policy::ApiAccess)| {
        let mut grant = ApiGrant {
            versions: access.versions.clone(),
            allowed_urls: access.allowed_urls.clone(),
            limits: access.limits.clone(),
            effective: access.limits.clone(),
            endpoints: rules::unite_endpoints(&access.endpoints, &[]),
            ..ApiGrant::default()
        };
        rules::sort_access(&mut grant.versions, &mut grant.allowed_urls);
        if access.limits.rate.is_unset() {
            rules::copy_rate(&mut grant.effective, &credential.limits);
        } else {
            grant.rate_counter = CounterScope::Api(api.clone());
        }
        if access.limits.quota.is_unset() {
            rules::copy_quota(&mut grant.effective, &credential.limits);
        } else {
            grant.quota_counter = CounterScope::Api(api.clone());
        }
        fill_rest(&mut grant.effective, &credential.limits);
        (api.clone(), grant)
    };
    credential.access.iter().map(grant).collect()
}

/// Takes throttle and depth of the root where unset.
fn fill_rest(limits: &mut Limits, root: &Limits) {
    if limits.depth.is_unset() {
        limits.depth = root.depth;
    }
    if limits.throttle == crate::domain::policy::Throttle::default() {
        limits.throttle = root.throttle;
    }
}

/// What the credential as a whole gets, section by section.
struct Root<'a> {
    rate: Pick<'a>,
    quota: Pick<'a>,
    rest: Limits,
}

impl<'a> Root<'a> {
    fn new(credential: &'a Credential, policies: &[&'a Policy]) -> Self {
        let rest = pick::root_rest(credential, policies);
        Self {
            rate: pick::root(Section::Rate, credential, policies),
            quota: pick::root(Section::Quota, credential, policies),
            rest,
        }
    }

    fn limits(&self) -> Limits {
        let mut limits = self.rest.clone();
        rules::copy_rate(&mut limits, self.rate.limits);
        rules::copy_quota(&mut limits, self.quota.limits);
        limits
    }
}

/// One API before the counters have names.
struct Draft<'a> {
    grant: ApiGrant,
    rate: Pick<'a>,
    quota: Pick<'a>,
}

fn draft<'a>(
    api: &ApiId,
    credential: &Credential,
    policies: &[&'a Policy],
    root: &Root<'a>,
) -> Draft<'a> {
    let mut grant = ApiGrant::default();
    open(api, policies, &mut grant);
    let rate = pick::for_api(Section::Rate, api, policies);
    let quota = pick::for_api(Section::Quota, api, policies);
    rules::copy_rate(&mut grant.limits, rate.unwrap_or(root.rate).limits);
    rules::copy_quota(&mut grant.limits, quota.unwrap_or(root.quota).limits);
    pick::rest_for_api(&mut grant.limits, api, policies, &root.rest);
    grant.limits.quota_renews_s = match credential.access.get(api) {
        Some(own) if !own.limits.is_empty() => own.limits.quota_renews_s,
        Some(_) | None if quota.is_none() => credential.limits.quota_renews_s,
        Some(_) | None => 0,
    };
    for policy in policies.iter().filter(|policy| policy.partitions.parts().rate_limit) {
        if let Some(access) = policy.access.get(api) {
            grant.endpoints = rules::unite_endpoints(&access.endpoints, &grant.endpoints);
        }
    }
    let rate = rate.filter(|pick| !pick.limits.rate.is_unset()).unwrap_or(root.rate);
    let quota = quota.filter(|pick| !pick.limits.quota.is_unset()).unwrap_or(root.quota);
    grant.effective = grant.limits.clone();
    rules::copy_rate(&mut grant.effective, rate.limits);
    rules::copy_quota(&mut grant.effective, quota.limits);
    fill_rest(&mut grant.effective, &root.rest);
    Draft { grant, rate, quota }
}

/// Unites the versions and paths of all policies that open the API.
fn open(api: &ApiId, policies: &[&Policy], grant: &mut ApiGrant) {
    let mut opened = false;
    for policy in policies.iter().filter(|policy| policy.partitions.parts().acl) {
        let Some(access) = policy.access.get(api) else { continue };
        if opened {
            rules::unite_versions(&mut grant.versions, &access.versions);
            rules::unite_urls(&mut grant.allowed_urls, &access.allowed_urls);
        } else {
            grant.versions = access.versions.clone();
            grant.allowed_urls = access.allowed_urls.clone();
            opened = true;
        }
        grant.by.access.push(policy.id.clone());
    }
    grant.by.access.sort_unstable();
    grant.by.access.dedup();
    rules::sort_access(&mut grant.versions, &mut grant.allowed_urls);
}

/// Names the counters: the credential's own where one policy's limits are shared by all, else the
/// policy's, so that no two limits meet in one counter.
fn settle(drafts: BTreeMap<ApiId, Draft<'_>>) -> BTreeMap<ApiId, ApiGrant> {
    let alone = |section: Section| {
        let picks = drafts.values().map(|draft| match section {
            Section::Rate => &draft.rate,
            Section::Quota => &draft.quota,
        });
        picks.filter_map(|pick| pick.sharing(section)).collect::<BTreeSet<_>>().len() <= 1
    };
    let (rate_alone, quota_alone) = (alone(Section::Rate), alone(Section::Quota));
    let name = |(api, draft): (ApiId, Draft<'_>)| {
        let mut grant = draft.grant;
        grant.rate_counter = draft.rate.counter(Section::Rate, &api, rate_alone);
        grant.quota_counter = draft.quota.counter(Section::Quota, &api, quota_alone);
        grant.by.rate = draft.rate.winner(Section::Rate).cloned();
        grant.by.quota = draft.quota.winner(Section::Quota).cloned();
        (api, grant)
    };
    drafts.into_iter().map(name).collect()
}

/// The limits of the only API, which Tyk also shows as the root's (2.3, step 9).
fn single_api(merged: &Merged, policies: &[&Policy]) -> Option<Limits> {
    let named = |sets: fn(&Policy) -> bool| {
        let setting = policies.iter().filter(|policy| sets(policy));
        setting.flat_map(|policy| policy.access.keys()).collect::<BTreeSet<_>>()
    };
    let (api, grant) = merged.apis.first_key_value()?;
    let only = BTreeSet::from([api]);
    let whole = merged.apis.len() == 1
        && named(|policy| policy.partitions.parts().rate_limit) == only
        && named(|policy| policy.partitions.parts().quota) == only
        && named(|policy| policy.partitions.parts().complexity) == only;
    whole.then(|| grant.effective.clone())
}

/// Retaining beats deleting, the longer grace the shorter; the credential's own counts where no
/// policy says.
fn post_expiry(own: PostExpiry, policies: &[&Policy]) -> PostExpiry {
    let action = policies.iter().filter_map(|policy| policy.post_expiry.action).max();
    let grace = policies
        .iter()
        .map(|policy| policy.post_expiry.grace_s)
        .max_by(|a, b| rules::compare_settings(a, b, NonZeroU64::cmp))
        .filter(|grace| !matches!(grace, Setting::Unset));
    PostExpiry { action: action.or(own.action), grace_s: grace.unwrap_or(own.grace_s) }
}
