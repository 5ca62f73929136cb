//! Tyk's rules, as they can be observed (reference/tyk-gateway.md, 2.3 to 2.5), oddities included.
//!
//! What is not brought back: rights that open everything because there are none, and results that
//! differ from run to run.

mod right;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::merged::{ApiGrant, Contributors, CounterScope, Merged};
use super::{Found, MergeError, check_alone, ours, rules, shell};
use crate::domain::credential::Credential;
use crate::domain::id::{ApiId, OrgId, PolicyId};
use crate::domain::policy::{ApiAccess, Limits, Partitions, Parts, Policy, Setting, Throttle};

use right::{
    Right, effective, greater_quota, keep_renews, raise_depth, raise_period, take_earlier,
};

/// The whole merge, step by step as 2.3 counts them.
pub(super) fn merge(
    credential: &Credential,
    found: &[Found<'_>],
    api_org: Option<&OrgId>,
) -> Result<Merged, MergeError> {
    let mut state = State { root: cleared(credential, found), ..State::default() };
    let mut applied = Vec::with_capacity(found.len());
    let mut skipped = Vec::new();
    for one in found {
        match one {
            Found::Policy(policy) => {
                check_alone(policy, api_org)?;
                state.apply(policy, credential)?;
                applied.push(*policy);
            }
            Found::Missing { id, .. } | Found::OtherOrg { id } if found.len() == 1 => {
                return Err(MergeError::PolicyMissing { id: (*id).clone() });
            }
            Found::Missing { id, .. } | Found::OtherOrg { id } => skipped.push((*id).clone()),
        }
    }
    let mut merged = shell(credential, &applied);
    merged.skipped = skipped;
    if found.is_empty() {
        merged.apis = own_grants(credential);
        return Ok(merged);
    }
    merged.inactive = applied.iter().any(|policy| policy.inactive);
    for policy in &applied {
        take_dates(&mut merged, policy);
    }
    state.inherit();
    state.name_scopes();
    state.show_single_api();
    if state.rights.is_empty() {
        return Err(MergeError::NoAccess);
    }
    merged.root = state.root;
    let root = &merged.root;
    merged.apis = state.rights.into_iter().map(|(api, right)| (api, right.grant(root))).collect();
    for policy in &applied {
        apply_plan_of_ours(policy, &mut merged.apis);
    }
    Ok(merged)
}

/// Step 2: what policies set is cleared from the credential's own limits; a missing policy stops it.
fn cleared(credential: &Credential, found: &[Found<'_>]) -> Limits {
    let mut root = credential.limits.clone();
    for one in found {
        let Found::Policy(policy) = one else { break };
        let parts = policy.partitions.parts();
        if parts.quota {
            root.quota = Setting::Unset;
        }
        if parts.rate_limit {
            rules::copy_rate(&mut root, &Limits::default());
            root.throttle = Throttle::default();
        }
        if parts.complexity {
            root.depth = Setting::Unset;
        }
    }
    root
}

/// Step 3e: later policies overwrite, and times compare as texts.
fn take_dates(merged: &mut Merged, policy: &Policy) {
    if policy.last_updated_s > 0
        && (merged.last_updated_s == 0
            || policy.last_updated_s.to_string() > merged.last_updated_s.to_string())
    {
        merged.last_updated_s = policy.last_updated_s;
    }
    if policy.post_expiry.action.is_some() {
        merged.post_expiry.action = policy.post_expiry.action;
    }
    if !policy.post_expiry.grace_s.is_unset() {
        merged.post_expiry.grace_s = policy.post_expiry.grace_s;
    }
    if policy.key_expires_in_s > 0 {
        merged.key_expires_in_s = policy.key_expires_in_s;
    }
}

/// Step 6: rights of a key without policies.
fn own_grants(credential: &Credential) -> BTreeMap<ApiId, ApiGrant> {
    let mut apis = ours::own_grants(credential);
    for (api, access) in &credential.access {
        let Some(grant) = apis.get_mut(api) else { continue };
        grant.versions = access.versions.clone();
        grant.allowed_urls = access.allowed_urls.clone();
        grant.effective = effective(&access.limits, &credential.limits);
        let scope = if access.limits.is_empty() {
            access.scope.as_ref().and_then(|name| name.parse().ok()).map(CounterScope::Policy)
        } else {
            Some(CounterScope::Api(api.clone()))
        };
        grant.rate_counter = scope.unwrap_or_default();
        grant.quota_counter = grant.rate_counter.clone();
    }
    apis
}

/// A plan's limits for single APIs are ours; Tyk has no rule for them, so they hold as written.
fn apply_plan_of_ours(policy: &Policy, apis: &mut BTreeMap<ApiId, ApiGrant>) {
    for (api, limits) in &policy.extras.per_api {
        let Some(grant) = apis.get_mut(api) else { continue };
        if !limits.rate.is_unset() {
            rules::copy_rate(&mut grant.limits, limits);
            rules::copy_rate(&mut grant.effective, limits);
            grant.rate_counter = CounterScope::Api(api.clone());
            grant.by.rate = Some(policy.id.clone());
        }
        if !limits.quota.is_unset() {
            rules::copy_quota(&mut grant.limits, limits);
            rules::copy_quota(&mut grant.effective, limits);
            grant.quota_counter = CounterScope::Api(api.clone());
            grant.by.quota = Some(policy.id.clone());
        }
    }
}

#[derive(Default)]
struct State {
    root: Limits,
    root_rate_by: Option<PolicyId>,
    root_quota_by: Option<PolicyId>,
    rights: BTreeMap<ApiId, Right>,
    did_acl: BTreeSet<ApiId>,
    did_quota: BTreeSet<ApiId>,
    did_rate: BTreeSet<ApiId>,
    did_depth: BTreeSet<ApiId>,
    /// Whether the last policy that was not `per_api` was partitioned: Tyk forgets the earlier.
    parted: bool,
    per_api: bool,
}

impl State {
    /// Step 3: one policy.
    fn apply(&mut self, policy: &Policy, credential: &Credential) -> Result<(), MergeError> {
        match policy.partitions {
            Partitions::PerApi | Partitions::PerApiAndParts if self.parted => {
                Err(MergeError::Mixed)
            }
            Partitions::PerApi | Partitions::PerApiAndParts => {
                for (api, access) in &policy.access {
                    self.apply_per_api(policy, api, access, credential);
                }
                Ok(())
            }
            Partitions::Parts(_) if self.per_api => Err(MergeError::Mixed),
            Partitions::Parts(_) | Partitions::Monolithic => {
                self.parted = policy.partitions != Partitions::Monolithic;
                for (api, access) in &policy.access {
                    self.apply_parts(policy, api, access, credential);
                }
                if policy.access.is_empty() {
                    self.apply_to_root(policy);
                }
                Ok(())
            }
        }
    }

    /// 2.3.1 for one API.
    fn apply_parts(
        &mut self,
        policy: &Policy,
        api: &ApiId,
        access: &ApiAccess,
        credential: &Credential,
    ) {
        let parts = policy.partitions.parts();
        self.note(api, parts);
        let right = self.rights.entry(api.clone()).or_default();
        if parts.acl {
            rules::unite_versions(&mut right.versions, &access.versions);
            rules::unite_urls_as_tyk(&mut right.urls, &access.allowed_urls);
            right.set_by = Some(CounterScope::Policy(policy.id.clone()));
            right.by.access.push(policy.id.clone());
        }
        let (limits, root) = (&mut right.limits, &mut self.root);
        if parts.quota {
            if greater_quota(policy.limits.quota, limits.quota) {
                limits.quota = policy.limits.quota;
                right.by.quota = Some(policy.id.clone());
            }
            if greater_quota(policy.limits.quota, root.quota) {
                root.quota = policy.limits.quota;
                self.root_quota_by = Some(policy.id.clone());
            }
            raise_period(limits, &policy.limits);
            raise_period(root, &policy.limits);
        }
        if parts.rate_limit {
            if rules::raise_rate_as_tyk_did(limits, &policy.limits) {
                right.by.rate = Some(policy.id.clone());
            }
            if rules::raise_rate_as_tyk_did(root, &policy.limits) {
                self.root_rate_by = Some(policy.id.clone());
            }
            right.endpoints = rules::unite_endpoints_as_tyk(&access.endpoints, &right.endpoints);
            limits.throttle = rules::unite_throttles(limits.throttle, policy.limits.throttle);
            root.throttle = rules::unite_throttles(root.throttle, policy.limits.throttle);
        }
        if parts.complexity {
            raise_depth(limits, policy.limits.depth);
            raise_depth(root, policy.limits.depth);
        }
        keep_renews(limits, api, credential);
    }

    /// 2.3.2 for one API.
    fn apply_per_api(
        &mut self,
        policy: &Policy,
        api: &ApiId,
        access: &ApiAccess,
        credential: &Credential,
    ) {
        self.note(api, policy.partitions.parts());
        self.per_api = true;
        let (limits, scope) = if access.limits.is_empty() {
            (policy.limits.clone(), CounterScope::Policy(policy.id.clone()))
        } else {
            (access.limits.clone(), CounterScope::Api(api.clone()))
        };
        let mut right = Right {
            versions: access.versions.clone(),
            urls: access.allowed_urls.clone(),
            limits,
            endpoints: rules::unite_endpoints_as_tyk(&access.endpoints, &[]),
            scope: Some(scope.clone()),
            set_by: Some(scope),
            by: Contributors {
                access: vec![policy.id.clone()],
                rate: Some(policy.id.clone()),
                quota: Some(policy.id.clone()),
            },
        };
        keep_renews(&mut right.limits, api, credential);
        if let Some(earlier) = self.rights.get(api) {
            take_earlier(&mut right, earlier);
        }
        self.rights.insert(api.clone(), right);
    }

    /// A policy that names no API sets the root; the last one wins.
    fn apply_to_root(&mut self, policy: &Policy) {
        let parts = policy.partitions.parts();
        if parts.rate_limit {
            rules::copy_rate(&mut self.root, &policy.limits);
            self.root.throttle = policy.limits.throttle;
            self.root_rate_by = Some(policy.id.clone());
        }
        if parts.complexity {
            self.root.depth = policy.limits.depth;
        }
        if parts.quota {
            rules::copy_quota(&mut self.root, &policy.limits);
            self.root_quota_by = Some(policy.id.clone());
        }
    }

    fn note(&mut self, api: &ApiId, parts: Parts) {
        let sets = [
            (parts.acl, &mut self.did_acl),
            (parts.quota, &mut self.did_quota),
            (parts.rate_limit, &mut self.did_rate),
            (parts.complexity, &mut self.did_depth),
        ];
        for (_, set) in sets.into_iter().filter(|(on, _)| *on) {
            set.insert(api.clone());
        }
    }

    /// Step 7: APIs without access rights go; what no policy set comes from the root.
    fn inherit(&mut self) {
        self.rights.retain(|api, _| self.did_acl.contains(api));
        for (api, right) in &mut self.rights {
            if !self.did_rate.contains(api) {
                rules::copy_rate(&mut right.limits, &self.root);
                right.limits.throttle = self.root.throttle;
                right.by.rate.clone_from(&self.root_rate_by);
            }
            if !self.did_depth.contains(api) {
                right.limits.depth = self.root.depth;
            }
            if !self.did_quota.contains(api) {
                rules::copy_quota(&mut right.limits, &self.root);
                right.limits.quota_renews_s = self.root.quota_renews_s;
                right.by.quota.clone_from(&self.root_quota_by);
            }
        }
    }

    /// Step 8: several policies behind the rights: each API counts under its last.
    fn name_scopes(&mut self) {
        let owner = |right: &Right| right.set_by.as_ref().and_then(|by| by.name().map(Arc::from));
        let owners: BTreeSet<Arc<str>> = self.rights.values().filter_map(owner).collect();
        if owners.len() > 1 {
            for right in self.rights.values_mut().filter(|right| right.scope.is_none()) {
                right.scope.clone_from(&right.set_by);
            }
        }
    }

    /// Step 9: the limits of a single API are the root's as well.
    fn show_single_api(&mut self) {
        let single = self.did_quota.len() == 1 && self.did_rate.len() == 1;
        if single && self.did_depth.len() == 1 {
            for right in self.rights.values() {
                self.root = right.limits.clone();
            }
        }
    }
}
