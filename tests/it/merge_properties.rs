//! What holds of every merge by our rules, whatever the policies.
//!
//! A failure prints its seed and the smallest case; both are kept beside this file and replayed.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use turnpike::domain::credential::{Credential, PolicyKind, Status};
use turnpike::domain::id::{ApiId, CredentialId, PolicyId};
use turnpike::domain::limit::{Period, Rate};
use turnpike::domain::merge::{CounterScope, Found, MergeError, Merged, Mode, merge};
use turnpike::domain::policy::{
    AllowedUrl, ApiAccess, EndpointLimit, Limits, MetaValue, Methods, Partitions, Parts,
    PatternSyntax, PlanExtras, Policy, PostExpiry, PostExpiryAction, QuotaScope, Setting, Throttle,
    UrlAccess, VersionAccess,
};

/// Few enough that policies meet on them.
const APIS: [&str; 4] = ["a", "b", "c", "d"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn merging_a_policy_twice_changes_nothing(key in credential(), policies in policies()) {
        let twice: Vec<Policy> = policies.iter().chain(&policies).cloned().collect();
        prop_assert_eq!(ours(&key, &policies), ours(&key, &twice));
    }

    #[test]
    fn the_order_of_policies_decides_nothing_but_metadata(
        key in credential(),
        (policies, shuffled) in policies().prop_flat_map(|list| {
            (Just(list.clone()), Just(list).prop_shuffle())
        }),
    ) {
        let plain = |result: Result<Merged, MergeError>| {
            result.map(|merged| Merged { metadata: BTreeMap::new(), ..merged })
        };
        prop_assert_eq!(plain(ours(&key, &policies)), plain(ours(&key, &shuffled)));
    }

    #[test]
    fn another_policy_never_removes_an_api(
        key in credential(),
        policies in policies(),
        more in policy(9),
    ) {
        let Ok(before) = ours(&key, &policies) else { return Ok(()) };
        let all: Vec<Policy> = policies.iter().cloned().chain([more]).collect();
        let Ok(after) = ours(&key, &all) else { return Ok(()) };
        prop_assert!(after.inactive || !before.inactive);
        for (api, grant) in &before.apis {
            let now = after.apis.get(api);
            prop_assert!(now.is_some(), "{} is gone", api);
            let now = now.unwrap();
            for url in ["/x", "/y"] {
                for method in ["GET", "POST"] {
                    prop_assert!(!opens(&grant.allowed_urls, url, method) || opens(&now.allowed_urls, url, method));
                }
            }
            prop_assert!(["v1", "v2"].iter().all(|v| !has(&grant.versions, v) || has(&now.versions, v)));
        }
    }

    #[test]
    fn nothing_is_more_generous_than_the_most_generous_input(key in credential(), policies in policies()) {
        let Ok(merged) = ours(&key, &policies) else { return Ok(()) };
        for (api, grant) in &merged.apis {
            let opening: Vec<&ApiAccess> = policies
                .iter()
                .filter(|policy| policy.partitions.parts().acl)
                .filter_map(|policy| policy.access.get(api))
                .collect();
            prop_assert!(!opening.is_empty(), "{} is opened by nobody", api);
            for url in ["/x", "/y"] {
                for method in ["GET", "POST"] {
                    let by_any = opening.iter().any(|access| opens(&access.allowed_urls, url, method));
                    prop_assert_eq!(opens(&grant.allowed_urls, url, method), by_any);
                }
            }
            for version in ["v1", "v2"] {
                let by_any = opening.iter().any(|access| has(&access.versions, version));
                prop_assert_eq!(has(&grant.versions, version), by_any);
            }
            check_limits(api, &grant.effective, &key, &policies)?;
        }
    }

    #[test]
    fn apis_of_one_counter_have_one_limit(key in credential(), policies in policies()) {
        let Ok(merged) = ours(&key, &policies) else { return Ok(()) };
        let mut rates: BTreeMap<&CounterScope, Rate> = BTreeMap::new();
        let mut quotas = BTreeMap::new();
        for grant in merged.apis.values() {
            if let Setting::Limited(rate) = grant.effective.rate {
                prop_assert_eq!(*rates.entry(&grant.rate_counter).or_insert(rate), rate);
            }
            if let Setting::Limited(quota) = grant.effective.quota_with_period() {
                let known = quotas.entry(&grant.quota_counter).or_insert_with(|| quota.clone());
                prop_assert_eq!(&*known, &quota);
            }
        }
    }

    #[test]
    fn a_missing_product_only_takes_its_rights_and_any_other_missing_policy_refuses(
        key in credential(),
        policies in policies(),
        kind in select(vec![PolicyKind::Product, PolicyKind::Plan, PolicyKind::Any]),
    ) {
        let gone: PolicyId = "gone".parse().unwrap();
        let mut found: Vec<Found<'_>> = policies.iter().map(Found::Policy).collect();
        found.push(Found::Missing { id: &gone, kind });
        let got = merge(&key, &found, None, Mode::Ours);
        match kind {
            PolicyKind::Product => {
                let expect = ours(&key, &policies).map(|m| Merged { skipped: vec![gone], ..m });
                prop_assert_eq!(got, expect);
            }
            PolicyKind::Plan | PolicyKind::Any => {
                prop_assert!(got.is_err());
            }
        }
    }
}

/// The effective limits are values that somebody wrote, and are set where somebody limits the API.
fn check_limits(
    api: &ApiId,
    effective: &Limits,
    key: &Credential,
    policies: &[Policy],
) -> Result<(), TestCaseError> {
    let (mut written, mut bound) = (Vec::new(), Vec::new());
    for policy in policies {
        written.push(&policy.limits);
        written.extend(policy.extras.per_api.get(api));
        written.extend(policy.access.get(api).map(|access| &access.limits));
        if policy.partitions != Partitions::PerApi
            && (policy.access.is_empty() || policy.access.contains_key(api))
        {
            bound.push((policy.partitions.parts(), &policy.limits));
        }
    }
    written.push(&key.limits);
    let most = |a: &&Limits, b: &&Limits| match (a.rate, b.rate) {
        (Setting::Limited(a), Setting::Limited(b)) => a.cmp_generosity(&b),
        (a, b) => rank(&a).cmp(&rank(&b)),
    };
    if let Some(best) = written.iter().copied().max_by(most) {
        prop_assert!(most(&effective, &best).is_le());
    }
    let quotas: Vec<_> = written.iter().map(|limits| limits.quota_with_period()).collect();
    let quota = effective.quota_with_period();
    prop_assert!(
        quota == Setting::Unset || quotas.contains(&quota),
        "an invented quota {:?}",
        quota
    );
    let limited = bound.iter().any(|(parts, limits)| parts.rate_limit && !limits.rate.is_unset());
    prop_assert!(!limited || !effective.rate.is_unset(), "a rate got lost");
    let limited = bound.iter().any(|(parts, limits)| parts.quota && !limits.quota.is_unset());
    prop_assert!(!limited || !effective.quota.is_unset(), "a quota got lost");
    Ok(())
}

fn rank<T>(setting: &Setting<T>) -> u8 {
    match setting {
        Setting::Unset => 0,
        Setting::Limited(_) => 1,
        Setting::Unlimited => 2,
    }
}

fn opens(urls: &UrlAccess, url: &str, method: &str) -> bool {
    match urls {
        UrlAccess::Unrestricted => true,
        UrlAccess::Only(list) => list.iter().any(|entry| {
            *entry.url == *url
                && match &entry.methods {
                    Methods::Any => true,
                    Methods::Only(methods) => methods.iter().any(|known| **known == *method),
                }
        }),
    }
}

fn has(versions: &VersionAccess, version: &str) -> bool {
    match versions {
        VersionAccess::Any => true,
        VersionAccess::Only(list) => list.iter().any(|known| **known == *version),
    }
}

fn ours(key: &Credential, policies: &[Policy]) -> Result<Merged, MergeError> {
    let found: Vec<Found<'_>> = policies.iter().map(Found::Policy).collect();
    merge(key, &found, None, Mode::Ours)
}

fn credential() -> impl Strategy<Value = Credential> {
    (limits(), access(), any::<bool>(), post_expiry()).prop_map(
        |(limits, access, inactive, post_expiry)| {
            let mut key = Credential::empty(CredentialId(1), "org".parse().unwrap());
            key.limits = limits;
            key.access = access;
            key.status = if inactive { Status::Inactive } else { Status::Active };
            key.post_expiry = post_expiry;
            key
        },
    )
}

/// At least one: a credential without policies has its own rights.
fn policies() -> impl Strategy<Value = Vec<Policy>> {
    (1..=5_usize).prop_flat_map(|count| (0..count).map(policy).collect::<Vec<_>>())
}

fn policy(number: usize) -> impl Strategy<Value = Policy> {
    let partitions = prop_oneof![
        2 => Just(Partitions::Monolithic),
        4 => any::<[bool; 4]>().prop_map(|[acl, quota, rate_limit, complexity]| {
            let parts = Parts { acl, quota, rate_limit, complexity };
            if parts == Parts::default() { Partitions::Monolithic } else { Partitions::Parts(parts) }
        }),
        2 => Just(Partitions::PerApi),
    ];
    let meta = any::<[bool; 2]>();
    let times = (0..3_u64, 0..2_000_u64, post_expiry());
    let tuple = (partitions, limits(), access(), extras(), times, meta);
    tuple.prop_map(move |(partitions, limits, access, extras, times, [inactive, named])| {
        let id: PolicyId = format!("p{number}").parse().unwrap();
        let mut policy = Policy::empty(id, "org".parse().unwrap(), partitions);
        policy.limits = limits;
        policy.access = access;
        policy.extras = extras;
        (policy.key_expires_in_s, policy.last_updated_s, policy.post_expiry) = times;
        policy.inactive = inactive && named;
        policy.tags = vec![format!("t{}", number % 2).into()];
        if named {
            policy.metadata.insert("from".into(), MetaValue(number.to_string().into()));
        }
        policy
    })
}

fn post_expiry() -> impl Strategy<Value = PostExpiry> {
    let action = select(vec![None, Some(PostExpiryAction::Delete), Some(PostExpiryAction::Retain)]);
    (action, setting(1..4_u64))
        .prop_map(|(action, grace)| PostExpiry { action, grace_s: number(grace) })
}

fn extras() -> impl Strategy<Value = PlanExtras> {
    let scope = select(vec![None, Some(QuotaScope::Api), Some(QuotaScope::App)]);
    let per_api = proptest::collection::btree_map(api(), limits(), 0..2);
    (scope, per_api, any::<bool>()).prop_map(|(quota_scope, per_api, shadow)| PlanExtras {
        quota_scope,
        per_api,
        shadow,
        ..PlanExtras::default()
    })
}

fn api() -> impl Strategy<Value = ApiId> {
    select(APIS.to_vec()).prop_map(|name| name.parse().unwrap())
}

fn access() -> impl Strategy<Value = BTreeMap<ApiId, ApiAccess>> {
    let words = |words: [&'static str; 2]| {
        proptest::collection::btree_set(select(words.to_vec()), 0..=2).prop_map(
            |set: BTreeSet<&str>| set.into_iter().map(Arc::from).collect::<Vec<Arc<str>>>(),
        )
    };
    let versions = prop_oneof![
        1 => Just(VersionAccess::Any),
        4 => words(["v1", "v2"]).prop_map(VersionAccess::Only),
    ];
    let methods = prop_oneof![
        1 => Just(Methods::Any),
        3 => words(["GET", "POST"]).prop_map(Methods::Only),
    ];
    let url = (select(vec!["/x", "/y"]), methods).prop_map(|(url, methods)| AllowedUrl {
        syntax: PatternSyntax::Tyk,
        url: url.into(),
        methods,
    });
    let urls = prop_oneof![
        2 => Just(UrlAccess::Unrestricted),
        3 => proptest::collection::vec(url, 0..3).prop_map(UrlAccess::Only),
    ];
    let own = prop_oneof![Just(Limits::default()), limits()];
    let endpoint = (select(vec!["/x", "/v:y"]), setting(rate())).prop_map(|(path, rate)| {
        EndpointLimit { syntax: PatternSyntax::Tyk, path: path.into(), method: "GET".into(), rate }
    });
    let endpoints = proptest::collection::vec(endpoint, 0..2);
    let one =
        (versions, urls, own, endpoints).prop_map(|(versions, allowed_urls, limits, endpoints)| {
            ApiAccess { versions, allowed_urls, limits, endpoints, scope: None }
        });
    proptest::collection::btree_map(api(), one, 0..4)
}

fn limits() -> impl Strategy<Value = Limits> {
    let period = select(vec![None, Some(Period::Never), every(60), every(3_600)]);
    let throttle = (0..3_u64, 0..3_u32);
    (setting(rate()), setting(1..5_u64), period, throttle, setting(1..4_u32)).prop_map(
        |(rate, quota, period, (interval_ms, retries_max), depth)| Limits {
            rate,
            quota: number(quota),
            period,
            throttle: Throttle { interval_ms, retries_max },
            depth,
            ..Limits::default()
        },
    )
}

fn rate() -> impl Strategy<Value = Rate> {
    (1..6_u64, select(vec![500_u64, 1_000, 60_000])).prop_map(|(requests, per_ms)| Rate {
        requests: NonZeroU64::new(requests).unwrap(),
        per_ms: NonZeroU64::new(per_ms).unwrap(),
    })
}

fn setting<T: std::fmt::Debug + Clone>(
    value: impl Strategy<Value = T>,
) -> impl Strategy<Value = Setting<T>> {
    prop_oneof![
        2 => Just(Setting::Unset),
        1 => Just(Setting::Unlimited),
        4 => value.prop_map(Setting::Limited),
    ]
}

fn number(setting: Setting<u64>) -> Setting<NonZeroU64> {
    match setting {
        Setting::Unset => Setting::Unset,
        Setting::Unlimited => Setting::Unlimited,
        Setting::Limited(value) => Setting::Limited(NonZeroU64::new(value).unwrap()),
    }
}

fn every(seconds: u64) -> Option<Period> {
    Some(Period::Every { ms: NonZeroU64::new(seconds * 1_000).unwrap() })
}
