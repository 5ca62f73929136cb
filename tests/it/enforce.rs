//! Decisions, through the admin router and the embedded store, without sockets.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use turnpike::domain::denial::Denial;
use turnpike::domain::reading::LimitKind;
use turnpike::enforce::Decision;

use crate::gate::Gate;

const S: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_token_opens_what_its_products_say_and_nothing_else() {
    let gate = Gate::new().await;
    gate.simple(json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true})).await;
    assert_eq!(gate.denial("tok", "/a/x").await, None);
    assert_eq!(gate.denial("tok", "/b/x").await, Some(Denial::ApiNotGranted));
    assert_eq!(gate.denial("tok2", "/a/x").await, Some(Denial::TokenUnknown));
    assert_eq!(gate.denial("", "/a/x").await, Some(Denial::TokenMissing));
    assert_eq!(gate.denial("to", "/a/x").await, Some(Denial::TokenUnknown));
    assert_eq!(gate.admitted("tok", "/a/x", 10_000).await, 10_000);
}

#[tokio::test]
async fn the_sixth_of_five_in_ten_seconds_waits_for_the_first_to_leave() {
    let gate = Gate::new().await;
    gate.simple(json!({"RateLimit": 5, "Per": 10, "UnlimitedQuota": true})).await;
    for _ in 0..5 {
        assert_eq!(gate.denial("tok", "/a/x").await, None);
        gate.pass(Duration::from_millis(100));
    }
    let Decision::Deny(refusal) = gate.decide("tok", "GET", "/a/x").await else { panic!() };
    assert_eq!(refusal.denial, Denial::RateExceeded);
    // The first left its lease at 0 s, and counts for 10 s and the guard of 10 ms.
    assert_eq!(refusal.retry_ms, Some(10_010 - 500));
    gate.pass(Duration::from_millis(9_509));
    assert_eq!(gate.denial("tok", "/a/x").await, Some(Denial::RateExceeded));
    gate.pass(Duration::from_millis(1));
    assert_eq!(gate.denial("tok", "/a/x").await, None);
    assert_eq!(gate.denial("tok", "/a/x").await, Some(Denial::RateExceeded));
}

#[tokio::test]
async fn a_quota_of_three_admits_three_also_over_a_restart_and_renews() {
    let gate = Gate::new().await;
    let plan = json!({"UnlimitedRateLimit": true, "Quota": 3, "QuotaRenewalRate": 3600});
    gate.simple(plan).await;
    assert_eq!(gate.admitted("tok", "/a/x", 2).await, 2);
    let (folder, clock) = (Arc::clone(&gate.folder), Arc::clone(&gate.clock));
    gate.enforcer.close().await;
    drop(gate);
    let gate = Gate::open(folder, clock, 2).await;
    let Decision::Admit(permit) = gate.decide("tok", "GET", "/a/x").await else { panic!() };
    let reading = permit.readings().iter().next().copied().unwrap();
    assert_eq!((reading.kind, reading.limit, reading.remaining), (LimitKind::Quota, 3, 0));
    assert_eq!(reading.reset_ms.map(|ms| ms.div_ceil(1_000)), Some(3_600));
    let Decision::Deny(refusal) = gate.decide("tok", "GET", "/a/x").await else { panic!() };
    assert_eq!(refusal.denial, Denial::QuotaExceeded);
    gate.pass(3_600 * S);
    assert_eq!(gate.admitted("tok", "/a/x", 9).await, 3);
}

#[tokio::test]
async fn a_crash_wastes_at_most_a_twentieth() {
    for limit in [3_u64, 20, 100, 1_000] {
        let gate = Gate::new().await;
        let plan = json!({"UnlimitedRateLimit": true, "Quota": limit, "QuotaRenewalRate": 3600});
        gate.simple(plan).await;
        let mut admitted = gate.admitted("tok", "/a/x", usize::try_from(limit / 2).unwrap()).await;
        // No `close`: what is in hand is lost.
        let (folder, clock) = (Arc::clone(&gate.folder), Arc::clone(&gate.clock));
        drop(gate);
        let gate = Gate::open(folder, clock, 2).await;
        admitted += gate.admitted("tok", "/a/x", usize::try_from(limit).unwrap()).await;
        let (limit, admitted) = (limit, u64::try_from(admitted).unwrap());
        assert!(admitted <= limit, "{admitted} of {limit}");
        assert!(limit - (limit / 20).max(1) <= admitted, "{admitted} of {limit}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_at_once_are_admitted_exactly_the_quota() {
    let gate = Arc::new(Gate::new().await);
    let plan = json!({"RateLimit": 100000, "Per": 1, "Quota": 1000, "QuotaRenewalRate": 3600});
    gate.simple(plan).await;
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move { gate.admitted("tok", "/a/x", 40).await })
        })
        .collect();
    let mut admitted = 0;
    for task in tasks {
        admitted += task.await.unwrap();
    }
    assert_eq!(admitted, 1_000);
}

#[tokio::test]
async fn a_request_refused_by_one_limit_costs_the_other_nothing() {
    let gate = Gate::new().await;
    gate.simple(json!({"RateLimit": 2, "Per": 10, "Quota": 4, "QuotaRenewalRate": 3600})).await;
    assert_eq!(gate.admitted("tok", "/a/x", 50).await, 2, "the rate");
    gate.pass(11 * S);
    assert_eq!(gate.admitted("tok", "/a/x", 50).await, 2);
    gate.pass(11 * S);
    assert_eq!(gate.denial("tok", "/a/x").await, Some(Denial::QuotaExceeded));
    // Refused for the quota, nothing of the rate is used either: after the quota's renewal both
    // are whole.
    gate.pass(3_600 * S);
    assert_eq!(gate.admitted("tok", "/a/x", 50).await, 2);
}

#[tokio::test]
async fn an_edited_plan_holds_at_once_and_keeps_what_was_used() {
    let gate = Gate::new().await;
    let (plan, _, _) = gate
        .simple(json!({"UnlimitedRateLimit": true, "Quota": 5, "QuotaRenewalRate": 3600}))
        .await;
    assert_eq!(gate.admitted("tok", "/a/x", 9).await, 5);
    let edit = |quota: u64| {
        json!({"Name": "plan", "ProviderID": 1, "UnlimitedRateLimit": true, "Quota": quota,
               "QuotaRenewalRate": 3600})
    };
    gate.call("PUT", &format!("/plans/{plan}"), edit(8)).await;
    assert_eq!(gate.admitted("tok", "/a/x", 9).await, 3);
    gate.call("PUT", &format!("/plans/{plan}"), edit(2)).await;
    assert_eq!(gate.admitted("tok", "/a/x", 9).await, 0);
    let (status, _) = gate.call("DELETE", &format!("/plans/{plan}"), json!({})).await;
    assert!(status.is_success());
    assert_eq!(gate.denial("tok", "/a/x").await, Some(Denial::PoliciesUnusable));
}

#[tokio::test]
async fn a_raised_rate_holds_at_once() {
    let gate = Gate::new().await;
    let plan = |rate: u64| json!({"Name": "plan", "ProviderID": 1, "RateLimit": rate, "Per": 60, "UnlimitedQuota": true});
    let (id, _, _) = gate.simple(plan(2)).await;
    assert_eq!(gate.admitted("tok", "/a/x", 5).await, 2);
    gate.call("PUT", &format!("/plans/{id}"), plan(4)).await;
    assert_eq!(gate.admitted("tok", "/a/x", 5).await, 2);
}

#[tokio::test]
async fn revoked_suspended_and_expired_credentials_are_refused_through_a_warm_cache() {
    let gate = Gate::new().await;
    let plan = json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true, "KeyExpiresIn": 60});
    gate.simple(plan).await;
    assert_eq!(gate.denial("tok", "/a/x").await, None);
    let (_, apps) = gate.call("GET", "/apps", json!(null)).await;
    let app = apps[0]["ID"].as_u64().unwrap();
    let (_, list) = gate.call("GET", &format!("/apps/{app}/custom_credentials"), json!(null)).await;
    let one = format!("/apps/{app}/custom_credentials/{}", list[0]["ID"]);
    let (status, answer) = gate.call("PUT", &one, json!({"Alias": "one", "Active": false})).await;
    assert!(status.is_success(), "{answer}");
    assert_eq!(gate.denial("tok", "/a/x").await, Some(Denial::Inactive));
    gate.call("PUT", &one, json!({"Alias": "one", "Active": true})).await;
    assert_eq!(gate.denial("tok", "/a/x").await, None);
    gate.pass(61 * S);
    assert_eq!(gate.denial("tok", "/a/x").await, Some(Denial::Expired));
    gate.call("DELETE", &one, json!(null)).await;
    assert_eq!(gate.denial("tok", "/a/x").await, Some(Denial::TokenUnknown));
}

#[tokio::test]
async fn a_token_that_was_unknown_works_as_soon_as_it_is_imported() {
    let gate = Gate::new().await;
    assert_eq!(gate.denial("tok", "/a/x").await, Some(Denial::TokenUnknown));
    gate.simple(json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true})).await;
    assert_eq!(gate.denial("tok", "/a/x").await, None);
}

#[tokio::test]
async fn a_flood_of_unknown_tokens_blocks_its_sender_and_evicts_nobody() {
    let gate = Gate::new().await;
    gate.simple(json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true})).await;
    assert_eq!(gate.denial("tok", "/a/x").await, None);
    for n in 0..5_000 {
        let client = format!("198.51.100.{}", n % 200);
        gate.decide_as(&format!("unknown-{n}"), "GET", "/a/x", None, &client).await;
    }
    let text = String::from_utf8(gate.metrics.render().unwrap()).unwrap();
    assert!(text.contains("turnpike_credential_cache_total{result=\"miss\"} 1"), "{text}");
    assert_eq!(gate.denial("tok", "/a/x").await, None);
    let text = String::from_utf8(gate.metrics.render().unwrap()).unwrap();
    assert!(text.contains("turnpike_credential_cache_total{result=\"miss\"} 1"), "still cached");
    for n in 0..50 {
        gate.denial(&format!("guess-{n}"), "/a/x").await;
    }
    let Decision::Deny(refusal) = gate.decide("guess-x", "GET", "/a/x").await else { panic!() };
    assert_eq!(refusal.denial, Denial::TooManyFailures);
    assert_eq!(refusal.retry_ms, Some(60_000));
    assert_eq!(gate.denial("tok", "/a/x").await, None, "a cached credential goes on working");
    gate.pass(60 * S);
    assert_eq!(gate.denial("guess-x", "/a/x").await, Some(Denial::TokenUnknown));
}

#[tokio::test]
async fn versions_and_paths_are_those_of_the_product() {
    let gate = Gate::new().await;
    let plan =
        gate.plan(json!({"Name": "p", "UnlimitedRateLimit": true, "UnlimitedQuota": true})).await;
    let product = gate
        .post(
            "/products",
            json!({"Name": "q", "ProviderID": 1, "IsDocumentationOnly": false, "APIDetails": [
                {"APIID": "v", "Versions": ["v1"]},
                {"APIID": "a", "AllowedURLs": [{"URL": "/users/{id}", "Methods": ["GET"]}]}]}),
        )
        .await;
    gate.import("tok", plan, &[product]).await;
    let version = |version| gate.decide_as("tok", "GET", "/v/x", version, "192.0.2.1");
    assert!(matches!(version(None).await, Decision::Admit(_)));
    assert!(matches!(version(Some("v1")).await, Decision::Admit(_)));
    let Decision::Deny(refusal) = version(Some("v2")).await else { panic!() };
    assert_eq!(refusal.denial, Denial::VersionNotGranted);
    let Decision::Deny(refusal) = version(Some("v3")).await else { panic!() };
    assert_eq!(refusal.denial, Denial::VersionUnknown);
    assert_eq!(gate.denial("tok", "/a/users/7").await, None);
    assert_eq!(gate.denial("tok", "/a/users/7/x").await, Some(Denial::PathNotGranted));
    let Decision::Deny(refusal) = gate.decide("tok", "POST", "/a/users/7").await else { panic!() };
    assert_eq!(refusal.denial, Denial::PathNotGranted);
}

#[tokio::test]
async fn a_calendar_quota_renews_at_local_midnight() {
    let gate = Gate::new().await;
    // 2026-02-02T02:40:00Z is 03:40 in Paris.
    gate.simple(json!({"UnlimitedRateLimit": true, "Quota": 2,
        "QuotaPeriod": {"Unit": "day", "TimeZone": "Europe/Paris"}}))
        .await;
    assert_eq!(gate.admitted("tok", "/a/x", 5).await, 2);
    let Decision::Deny(refusal) = gate.decide("tok", "GET", "/a/x").await else { panic!() };
    let to_midnight_s = 20 * 3_600 + 20 * 60;
    let told = refusal.retry_ms.unwrap().div_ceil(1_000);
    assert!((to_midnight_s * 999 / 1_000..=to_midnight_s).contains(&told), "{told}");
    gate.pass(Duration::from_secs(to_midnight_s));
    assert_eq!(gate.admitted("tok", "/a/x", 5).await, 2);
}

#[tokio::test]
async fn limits_of_one_api_and_costs_count_as_the_plan_says() {
    let gate = Gate::new().await;
    let plan = gate
        .plan(json!({"Name": "p", "UnlimitedRateLimit": true, "Quota": 10,
        "QuotaRenewalRate": 3600, "PerAPI": {"b": {"Quota": 2, "QuotaRenewalRate": 60}},
        "Costs": [{"Path": "/big", "Cost": 4}, {"Path": "/free", "Cost": 0}]}))
        .await;
    let product = gate.product("q", &["a", "b"]).await;
    gate.import("tok", plan, &[product]).await;
    assert_eq!(gate.admitted("tok", "/b/x", 5).await, 2, "b has its own");
    assert_eq!(gate.admitted("tok", "/a/big", 5).await, 2, "4 + 4, and 4 more do not fit");
    assert_eq!(gate.admitted("tok", "/a/free", 5).await, 5);
    assert_eq!(gate.admitted("tok", "/a/x", 5).await, 2);
}

#[tokio::test]
async fn idle_units_go_back_and_forgotten_counters_leave_memory() {
    let gate = Gate::new().await;
    gate.simple(json!({"UnlimitedRateLimit": true, "Quota": 1000, "QuotaRenewalRate": 3600})).await;
    gate.admitted("tok", "/a/x", 300).await;
    gate.enforcer.sweep().await;
    let held = |gate: &Gate| {
        let text = String::from_utf8(gate.metrics.render().unwrap()).unwrap();
        let line = text.lines().find(|l| l.starts_with("turnpike_quota_units_held")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert!(0 < held(&gate));
    // A task that asked ahead may not have run yet.
    tokio::task::yield_now().await;
    gate.pass(11 * S);
    gate.enforcer.sweep().await;
    assert_eq!(held(&gate), 0);
    assert_eq!(gate.admitted("tok", "/a/x", 1_000).await, 700);
}
