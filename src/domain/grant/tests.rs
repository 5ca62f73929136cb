use std::num::NonZeroU64;

use super::*;
use crate::domain::credential::{Owner, PolicyKind, PolicyRef};
use crate::domain::id::{AppId, ConsumerOrgId, CredentialId, PolicyId, UserId};
use crate::domain::merge::{Found, Mode, merge};
use crate::domain::policy::{ApiAccess, Partitions, Parts, PlanExtras, Policy};

const DEFAULTS: Defaults = Defaults {
    quota_scope: QuotaScope::Credential,
    on_store_unavailable: FailureMode::Closed,
    tyk_matching: TykMatching { prefix: false, suffix: false },
};

fn policy(id: &str, parts: Parts) -> Policy {
    let org = "default".parse().unwrap();
    Policy::empty(id.parse().unwrap(), org, Partitions::Parts(parts))
}

fn product(id: &str, api: &str) -> Policy {
    let mut policy = policy(id, Parts { acl: true, ..Parts::default() });
    policy.access.insert(api.parse().unwrap(), ApiAccess::default());
    policy
}

fn plan(extras: PlanExtras) -> Policy {
    let parts = Parts { quota: true, rate_limit: true, ..Parts::default() };
    let mut plan = policy("plan-1", parts);
    let n = |n| NonZeroU64::new(n).unwrap();
    plan.limits.quota = Setting::Limited(n(10));
    plan.limits.period = Some(Period::Every { ms: n(60_000) });
    plan.limits.rate = Setting::Limited(Rate { requests: n(5), per_ms: n(1_000) });
    plan.extras = extras;
    plan
}

fn credential(owner: Owner) -> Credential {
    let mut credential = Credential::empty(CredentialId(7), "default".parse().unwrap());
    let reference = |id: &str, kind| PolicyRef { id: id.parse::<PolicyId>().unwrap(), kind };
    credential.policies = vec![
        reference("product-1", PolicyKind::Product),
        reference("product-2", PolicyKind::Product),
        reference("plan-1", PolicyKind::Plan),
    ];
    credential.owner = owner;
    credential
}

fn grant(extras: PlanExtras, owner: Owner) -> Grant {
    let (one, two, plan) = (product("product-1", "a"), product("product-2", "b"), plan(extras));
    let credential = credential(owner);
    let found = [Found::Policy(&one), Found::Policy(&two), Found::Policy(&plan)];
    let merged = merge(&credential, &found, None, Mode::Ours).unwrap();
    Grant::compile(&credential, &TokenHash([0xab; 32]), &merged, DEFAULTS)
}

#[test]
fn a_quota_scope_names_the_counter() {
    let all =
        Owner { app: Some(AppId(3)), user: Some(UserId(4)), consumer_org: Some(ConsumerOrgId(5)) };
    //    scope, owner                                    API a                    API b
    check(None, all, "c7/q/e60000/", "c7/q/e60000/");
    check(Some(QuotaScope::Product), all, "c7/q/e60000/p/product-1", "c7/q/e60000/p/product-2");
    check(Some(QuotaScope::Api), all, "c7/q/e60000/a/a", "c7/q/e60000/a/b");
    check(Some(QuotaScope::App), all, "a3/q/e60000/p/plan-1", "a3/q/e60000/p/plan-1");
    check(Some(QuotaScope::Developer), all, "u4/q/e60000/p/plan-1", "u4/q/e60000/p/plan-1");
    check(Some(QuotaScope::Organisation), all, "o5/q/e60000/p/plan-1", "o5/q/e60000/p/plan-1");
    // A credential without an owner shares with nobody.
    check(Some(QuotaScope::App), Owner::default(), "c7/q/e60000/", "c7/q/e60000/");
}

#[track_caller]
fn check(quota_scope: Option<QuotaScope>, owner: Owner, a: &str, b: &str) {
    let grant = grant(PlanExtras { quota_scope, ..PlanExtras::default() }, owner);
    for (api, expect) in [("a", a), ("b", b)] {
        let (_, opened) = grant.opened(&api.parse().unwrap()).unwrap();
        let quota = opened.limits.iter().find(|spec| matches!(spec.limit, Limit::Quota(_)));
        assert_eq!(quota.unwrap().key.to_string(), expect, "{quota_scope:?}");
    }
}

/// Classic portal, "Several policies per key": 2 in 10 s on A and 4 in 10 s on B.
#[test]
fn two_policies_with_rates_of_their_own_are_two_limits_under_one_key() {
    let n = |n| NonZeroU64::new(n).unwrap();
    let whole = |id: &str, api: &str, requests| {
        let mut policy = product(id, api);
        policy.partitions = Partitions::Monolithic;
        policy.limits.rate = Setting::Limited(Rate { requests: n(requests), per_ms: n(10_000) });
        policy.limits.quota = Setting::Limited(n(100 * requests));
        policy.limits.period = Some(Period::Every { ms: n(60_000) });
        policy
    };
    let (one, two) = (whole("slow", "a", 2), whole("fast", "b", 4));
    let mut credential = credential(Owner::default());
    let reference = |policy: &Policy| PolicyRef { id: policy.id.clone(), kind: PolicyKind::Any };
    for order in [[&one, &two], [&two, &one]] {
        credential.policies = order.map(reference).to_vec();
        let found = order.map(Found::Policy);
        let merged = merge(&credential, &found, None, Mode::Ours).unwrap();
        let grant = Grant::compile(&credential, &TokenHash([0xab; 32]), &merged, DEFAULTS);
        for (api, requests, scope) in [("a", 2, "p/slow"), ("b", 4, "p/fast")] {
            let (_, opened) = grant.opened(&api.parse().unwrap()).unwrap();
            let got: Vec<_> = opened.limits.iter().map(|spec| spec.key.to_string()).collect();
            let token = "abababababababab";
            let keys = [format!("c7/r/10000/{token}/{scope}"), format!("c7/q/e60000/{scope}")];
            assert_eq!(got, keys, "{api}: counters of its own");
            let rate = Rate { requests: n(requests), per_ms: n(10_000) };
            assert_eq!(opened.limits.first().map(|spec| &spec.limit), Some(&Limit::Rate(rate)));
        }
    }
}

#[test]
fn a_rate_counts_per_token_and_a_quota_does_not() {
    let grant = grant(PlanExtras::default(), Owner::default());
    let (_, opened) = grant.opened(&"a".parse().unwrap()).unwrap();
    let keys: Vec<String> = opened.limits.iter().map(|spec| spec.key.to_string()).collect();
    assert_eq!(keys, ["c7/r/1000/abababababababab/", "c7/q/e60000/"]);
}

#[test]
fn the_first_cost_that_matches_counts() {
    let rule = |path: &str, methods: &[&str], cost| CostRule {
        api: None,
        path: path.into(),
        methods: methods.iter().map(|m| Arc::from(*m)).collect(),
        cost,
    };
    let costs = vec![rule("/big", &["POST"], 5), rule("/big", &[], 2), rule("/free/**", &[], 0)];
    let grant = grant(PlanExtras { costs, ..PlanExtras::default() }, Owner::default());
    let (_, opened) = grant.opened(&"b".parse().unwrap()).unwrap();
    assert_eq!(opened.cost("GET", "/big"), 2);
    assert_eq!(opened.cost("GET", "/free/x/y"), 0);
    assert_eq!(opened.cost("GET", "/other"), 1);
    assert_eq!(opened.cost("POST", "/big"), 5);
}

#[test]
fn a_pattern_that_cannot_be_compiled_opens_nothing() {
    let mut one = product("product-1", "a");
    let url =
        AllowedUrl { syntax: PatternSyntax::Tyk, url: "/x(".into(), methods: policy::Methods::Any };
    let access = ApiAccess { allowed_urls: UrlAccess::Only(vec![url]), ..ApiAccess::default() };
    one.access.insert("a".parse().unwrap(), access);
    let credential = credential(Owner::default());
    let plan = plan(PlanExtras::default());
    let merged = merge(&credential, &[Found::Policy(&one), Found::Policy(&plan)], None, Mode::Ours);
    let grant = Grant::compile(&credential, &TokenHash([1; 32]), &merged.unwrap(), DEFAULTS);
    let (_, opened) = grant.opened(&"a".parse().unwrap()).unwrap();
    assert!(!opened.allows_path("GET", "/a/x(", "/x("));
    assert_eq!(grant.faults.len(), 1);
}
