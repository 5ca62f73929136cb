//! What an edit does to units that are in hand, and to who is deciding meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use turnpike::domain::denial::Denial;
use turnpike::domain::time::UnixMs;
use turnpike::enforce::Decision;

use crate::gate::Gate;

const S: Duration = Duration::from_secs(1);

fn rate(requests: u64) -> Value {
    json!({"Name": "plan", "ProviderID": 1, "RateLimit": requests, "Per": 10, "UnlimitedQuota": true})
}

fn quota(name: &str, units: u64) -> Value {
    json!({"Name": name, "ProviderID": 1, "UnlimitedRateLimit": true, "Quota": units,
           "QuotaRenewalRate": 3600})
}

#[tokio::test]
async fn a_lowered_rate_holds_at_once_also_for_units_in_hand() {
    let gate = Gate::new().await;
    let (plan, _, _) = gate.simple(rate(1_000)).await;
    assert_eq!(gate.admitted("tok", "/a/x", 20).await, 20);
    let (status, answer) = gate.call("PUT", &format!("/plans/{plan}"), rate(25)).await;
    assert!(status.is_success(), "{answer}");
    assert_eq!(gate.admitted("tok", "/a/x", 200).await, 5, "20 of 25 are used");
}

#[tokio::test]
async fn units_of_a_batch_that_nobody_used_can_be_used_again() {
    let gate = Gate::new().await;
    gate.simple(rate(100)).await;
    let mut admitted = 0;
    // A burst makes the gateway take a large batch; the pause lets most of it expire unspent.
    for _ in 0..12 {
        admitted += gate.admitted("tok", "/a/x", 1).await;
        gate.pass(Duration::from_millis(1));
    }
    assert_eq!(admitted, 12);
    gate.pass(3 * S);
    assert_eq!(gate.admitted("tok", "/a/x", 200).await, 88);
}

#[tokio::test]
async fn a_credential_that_moves_to_another_plan_has_its_limit_at_once() {
    let gate = Gate::new().await;
    let small = gate.plan(quota("small", 10)).await;
    let large = gate.plan(quota("large", 10_000)).await;
    let product = gate.product("product", &["a"]).await;
    let (app, credential) = gate.import("tok", small, &[product]).await;
    let one = format!("/apps/{app}/custom_credentials/{credential}");
    let to = |plan: u64| json!({"Alias": "one", "PlanID": plan, "ProductIDs": [product]});
    assert_eq!(gate.admitted("tok", "/a/x", 20).await, 10);
    let (status, answer) = gate.call("PUT", &one, to(large)).await;
    assert!(status.is_success(), "{answer}");
    assert_eq!(gate.admitted("tok", "/a/x", 100).await, 100, "9,990 are left");
    let (status, answer) = gate.call("PUT", &one, to(small)).await;
    assert!(status.is_success(), "{answer}");
    assert_eq!(gate.admitted("tok", "/a/x", 100).await, 0, "110 of 10 are used");
}

#[tokio::test]
async fn a_wall_clock_behind_the_first_use_of_a_quota_still_admits() {
    let gate = Gate::new().await;
    gate.simple(quota("plan", 3)).await;
    assert_eq!(gate.admitted("tok", "/a/x", 1).await, 1);
    // The first use was noted by a clock that was a year ahead.
    gate.clock.step_unix(UnixMs(1_770_000_000_000 - 365 * 86_400_000));
    gate.pass(3_601 * S);
    assert_eq!(gate.denial("tok", "/a/x").await, None);
    assert_eq!(gate.admitted("tok", "/a/x", 9).await, 2);
}

#[tokio::test]
async fn a_refused_quota_says_to_the_millisecond_when_it_renews() {
    let gate = Gate::new().await;
    gate.simple(quota("plan", 1)).await;
    assert_eq!(gate.admitted("tok", "/a/x", 1).await, 1);
    let Decision::Deny(refusal) = gate.decide("tok", "GET", "/a/x").await else { panic!() };
    assert_eq!(refusal.retry_ms, Some(3_600_000));
    gate.pass(Duration::from_millis(3_599_999));
    let Decision::Deny(refusal) = gate.decide("tok", "GET", "/a/x").await else { panic!() };
    assert_eq!(refusal.retry_ms, Some(1));
    gate.pass(Duration::from_millis(1));
    assert_eq!(gate.denial("tok", "/a/x").await, None);
}

/// Whoever sends a write may hang up before it is answered: what is stored is enforced all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_whose_sender_hangs_up_is_enforced_if_it_is_stored() {
    let gate = Gate::new().await;
    let plan = gate.plan(quota("plan", 1_000_000)).await;
    let product = gate.product("product", &["a"]).await;
    let mut stored = 0;
    for n in 0..40_u64 {
        let token = format!("token-{n}");
        let (app, credential) = gate.import(&token, plan, &[product]).await;
        assert_eq!(gate.denial(&token, "/a/x").await, None);
        let one = format!("/apps/{app}/custom_credentials/{credential}");
        let patience = Duration::from_micros(n * 100);
        let _hung_up = tokio::time::timeout(patience, gate.call("DELETE", &one, json!(null))).await;
        // One thread writes: when a later commit is answered, the earlier one was executed.
        gate.post("/apps", json!({"Name": format!("later-{n}"), "UserID": 1})).await;
        let mut looks = 0;
        let gone = loop {
            let (status, _) = gate.call("GET", &one, json!(null)).await;
            let gone = !status.is_success();
            let expected = gone.then_some(Denial::TokenUnknown);
            let denial = gate.denial(&token, "/a/x").await;
            if denial == expected {
                break gone;
            }
            looks += 1;
            assert!(looks < 1_000, "hung up after {patience:?}: {denial:?}, stored: {gone}");
            tokio::task::yield_now().await;
        };
        stored += u32::from(gone);
    }
    assert!(0 < stored);
}

/// Sessions are made anew when a policy changes; that must not bring back a revoked credential.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_token_revoked_while_policies_change_stays_revoked() {
    let gate = Arc::new(Gate::new().await);
    let plan = gate.plan(quota("plan", 1_000_000)).await;
    let product = gate.product("product", &["a"]).await;
    for n in 0..24_u64 {
        let token = format!("token-{n}");
        let (app, credential) = gate.import(&token, plan, &[product]).await;
        assert_eq!(gate.denial(&token, "/a/x").await, None);
        let stop = Arc::new(AtomicBool::new(false));
        let users: Vec<_> = (0..3)
            .map(|_| {
                let (gate, token, stop) = (Arc::clone(&gate), token.clone(), Arc::clone(&stop));
                tokio::spawn(async move {
                    // Each round from another address: failures are counted by address.
                    let from = format!("198.51.100.{n}");
                    while !stop.load(Ordering::SeqCst) {
                        gate.decide_as(&token, "GET", "/a/x", None, &from).await;
                        // A decision from units in hand waits for nothing.
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        let edits = {
            let (gate, stop) = (Arc::clone(&gate), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    gate.call("PUT", &format!("/plans/{plan}"), quota("plan", 1_000_000)).await;
                }
            })
        };
        let one = format!("/apps/{app}/custom_credentials/{credential}");
        let (status, answer) = gate.call("DELETE", &one, json!(null)).await;
        assert!(status.is_success(), "{answer}");
        let after = gate.denial(&token, "/a/x").await;
        stop.store(true, Ordering::SeqCst);
        for user in users {
            user.await.unwrap();
        }
        edits.await.unwrap();
        assert_eq!(after, Some(Denial::TokenUnknown));
        assert_eq!(gate.denial(&token, "/a/x").await, Some(Denial::TokenUnknown));
    }
}
