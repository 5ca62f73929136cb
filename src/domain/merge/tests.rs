use std::num::NonZeroU64;

use super::*;
use crate::domain::credential::PolicyRef;
use crate::domain::id::CredentialId;
use crate::domain::limit::{Period, Rate};
use crate::domain::policy::{ApiAccess, FailureMode, Parts, QuotaScope, Setting, VersionAccess};

#[test]
fn every_api_of_the_products_gets_the_plans_limits_on_one_counter() {
    let (p1, p2, plan) = (product("p1", &["a", "b"]), product("p2", &["c"]), plan("gold", 5, 100));
    let merged = run(&[&p1, &p2, &plan]).unwrap();
    assert_eq!(merged.apis.keys().map(|api| api.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    for grant in merged.apis.values() {
        assert_eq!(grant.effective, plan.limits);
        assert_eq!(grant.quota_counter, CounterScope::Credential);
        assert_eq!(grant.rate_counter, CounterScope::Credential);
        assert_eq!(grant.by.quota, Some(plan.id.clone()));
    }
    assert_eq!(merged.apis["c"].product(), Some(&p2.id));
}

#[test]
fn a_plans_limits_for_one_api_have_a_counter_of_their_own() {
    let mut gold = plan("gold", 5, 100);
    gold.extras.per_api.insert(api("b"), limits(Some(1), None));
    let merged = run(&[&product("p", &["a", "b"]), &gold]).unwrap();
    let (a, b) = (&merged.apis["a"], &merged.apis["b"]);
    assert_eq!(a.effective, gold.limits);
    assert_eq!((b.effective.rate, &b.rate_counter), (rate(1), &CounterScope::Api(api("b"))));
    // What the plan does not say of this API, it says of all.
    assert_eq!((b.effective.quota, &b.quota_counter), (quota(100), &CounterScope::Credential));
}

#[test]
fn two_plans_with_limits_for_different_apis_never_share_a_counter() {
    let mut first = plan("first", 5, 100);
    first.access.insert(api("a"), ApiAccess::default());
    let mut second = plan("second", 7, 200);
    second.access.insert(api("b"), ApiAccess::default());
    let merged = run(&[&product("p", &["a", "b", "c"]), &first, &second]).unwrap();
    let counter = |name: &str| merged.apis[name].quota_counter.name().map(str::to_owned);
    assert_eq!(counter("a").as_deref(), Some("first"));
    assert_eq!(counter("b").as_deref(), Some("second"));
    // No plan speaks of c: the more generous one holds.
    assert_eq!(counter("c").as_deref(), Some("second"));
}

#[test]
fn a_credential_that_nothing_opens_opens_nothing() {
    assert_eq!(run(&[&plan("gold", 5, 100)]), Err(MergeError::NoAccess));
    assert_eq!(run(&[]).unwrap().apis.len(), 0);
    let id: PolicyId = "gone".parse().unwrap();
    let gone = |kind| merge(&key(), &[Found::Missing { id: &id, kind }], None, Mode::Ours);
    assert_eq!(gone(PolicyKind::Product), Err(MergeError::NoAccess));
    assert_eq!(gone(PolicyKind::Plan), Err(MergeError::PolicyMissing { id: id.clone() }));
    for mode in [Mode::Ours, Mode::Tyk] {
        assert_eq!(merge(&key(), &[], None, mode).unwrap().apis.len(), 0);
    }
}

#[test]
fn a_plan_of_another_organisation_refuses() {
    let gold = plan("gold", 5, 100);
    let other: OrgId = "other".parse().unwrap();
    let found = [Found::Policy(&gold)];
    for mode in [Mode::Ours, Mode::Tyk] {
        let got = merge(&key(), &found, Some(&other), mode);
        assert_eq!(got, Err(MergeError::OtherOrganisation { id: gold.id.clone() }));
    }
}

#[test]
fn the_period_comes_from_the_policy_whose_maximum_won() {
    let (mut small, mut large) = (plan("small", 5, 10), plan("large", 5, 1_000));
    small.limits.period = Some(Period::Every { ms: NonZeroU64::new(7_200_000).unwrap() });
    large.limits.period = Some(Period::Every { ms: NonZeroU64::new(60_000).unwrap() });
    let merged = run(&[&product("p", &["a"]), &small, &large]).unwrap();
    assert_eq!(merged.apis["a"].effective.quota_with_period(), large.limits.quota_with_period());
    let mut unlimited = plan("unlimited", 5, 1);
    unlimited.limits.quota = Setting::Unlimited;
    let merged = run(&[&product("p", &["a"]), &large, &unlimited]).unwrap();
    assert_eq!(merged.apis["a"].effective.quota, Setting::Unlimited);
}

#[test]
fn what_protects_is_not_undone_by_a_plan_beside_it() {
    let (mut strict, mut loose) = (plan("strict", 5, 10), plan("loose", 5, 10));
    strict.extras.on_store_unavailable = Some(FailureMode::Closed);
    strict.extras.quota_scope = Some(QuotaScope::App);
    loose.extras.on_store_unavailable = Some(FailureMode::Open);
    loose.extras.shadow = true;
    let extras = run(&[&product("p", &["a"]), &loose, &strict]).unwrap().extras;
    assert_eq!(extras.on_store_unavailable, Some(FailureMode::Closed));
    assert_eq!(extras.quota_scope, Some(QuotaScope::App));
    assert!(!extras.shadow);
}

fn run(policies: &[&Policy]) -> Result<Merged, MergeError> {
    let found: Vec<Found<'_>> = policies.iter().map(|policy| Found::Policy(policy)).collect();
    merge(&key(), &found, None, Mode::Ours)
}

fn key() -> Credential {
    let mut key = Credential::empty(CredentialId(1), "org".parse().unwrap());
    key.policies.push(PolicyRef { id: "gold".parse().unwrap(), kind: PolicyKind::Plan });
    key
}

fn product(id: &str, apis: &[&str]) -> Policy {
    let parts = Partitions::Parts(Parts { acl: true, ..Parts::default() });
    let mut policy = Policy::empty(id.parse().unwrap(), "org".parse().unwrap(), parts);
    let open = ApiAccess { versions: VersionAccess::Any, ..ApiAccess::default() };
    policy.access = apis.iter().map(|name| (api(name), open.clone())).collect();
    policy
}

fn plan(id: &str, requests: u64, units: u64) -> Policy {
    let parts = Partitions::Parts(Parts { rate_limit: true, quota: true, ..Parts::default() });
    let mut policy = Policy::empty(id.parse().unwrap(), "org".parse().unwrap(), parts);
    policy.limits = limits(Some(requests), Some(units));
    policy
}

fn limits(requests: Option<u64>, units: Option<u64>) -> Limits {
    Limits {
        rate: requests.map_or(Setting::Unset, rate),
        quota: units.map_or(Setting::Unset, quota),
        ..Limits::default()
    }
}

fn rate(requests: u64) -> Setting<Rate> {
    let (requests, per_ms) = (NonZeroU64::new(requests), NonZeroU64::new(10_000));
    Setting::Limited(Rate { requests: requests.unwrap(), per_ms: per_ms.unwrap() })
}

fn quota(units: u64) -> Setting<NonZeroU64> {
    Setting::Limited(NonZeroU64::new(units).unwrap())
}

fn api(name: &str) -> crate::domain::id::ApiId {
    name.parse().unwrap()
}
