//! What was used, and by whom: asked through the admin router, against what was admitted.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::gate::Gate;

async fn usage(gate: &Gate, credential: u64) -> Value {
    let path = format!("/v1/usage/credentials/{credential}");
    let (status, answer) = gate.request("GET", &path, json!(null)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

/// The one limit of a kind.
fn limit<'a>(usage: &'a Value, kind: &str) -> &'a Value {
    let limits = usage["limits"].as_array().unwrap();
    let mut of_kind = limits.iter().filter(|limit| limit["kind"] == kind);
    let limit = of_kind.next().unwrap_or_else(|| panic!("no {kind}: {usage}"));
    assert!(of_kind.next().is_none(), "{usage}");
    limit
}

fn number(limit: &Value, name: &str) -> u64 {
    limit[name].as_u64().unwrap_or_else(|| panic!("{name}: {limit}"))
}

async fn reset(gate: &Gate, credential: u64) -> Value {
    let path = format!("/v1/usage/credentials/{credential}/reset");
    let (status, answer) = gate.request("POST", &path, json!({})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

#[tokio::test]
async fn usage_is_exact_and_asking_costs_nothing() {
    let gate = Gate::new().await;
    let plan = json!({"RateLimit": 200, "Per": 10, "Quota": 1000, "QuotaRenewalRate": 3600});
    let (plan, _, credential) = gate.simple(plan).await;
    let before = usage(&gate, credential).await;
    assert_eq!(limit(&before, "quota")["window_start"], Value::Null, "never used");
    assert_eq!(number(limit(&before, "quota"), "remaining"), 1_000);
    let mut admitted = 0;
    for _ in 0..60 {
        admitted += u64::try_from(gate.admitted("tok", "/a/x", 1).await).unwrap();
        gate.pass(Duration::from_millis(2));
        let now = usage(&gate, credential).await;
        let (quota, rate) = (limit(&now, "quota"), limit(&now, "rate"));
        assert_eq!(number(quota, "used"), admitted);
        assert_eq!(number(quota, "remaining"), 1_000 - admitted);
        assert!(number(quota, "reported") <= admitted);
        assert_eq!(number(rate, "used"), admitted);
    }
    assert_eq!(admitted, 60);
    let now = usage(&gate, credential).await;
    let quota = limit(&now, "quota");
    assert!(0 < number(quota, "held"), "a batch is in hand: {quota}");
    assert_eq!(number(quota, "lost"), 0);
    assert_eq!(quota["scope"], "credential");
    assert_eq!(quota["apis"], json!(["a"]));
    assert_eq!(quota["window_start"], "2026-02-02T02:40:00.000Z");
    assert_eq!(quota["window_end"], "2026-02-02T03:40:00.000Z");
    assert_eq!(number(quota, "reset_in_ms"), 3_600_000 - 120);
    let shown = json!({"id": plan, "name": "plan", "rate_limit": "200 calls / 10 second(s)",
                       "quota": "1000 calls / 1 hour(s)"});
    assert_eq!(now["plan"], shown);
    assert_eq!((&now["status"], &now["expires"]), (&json!("active"), &Value::Null));
    // The next window is empty, and nobody has used anything of it yet.
    gate.pass(Duration::from_secs(3_600));
    assert_eq!(number(limit(&usage(&gate, credential).await, "quota"), "used"), 0);
    assert_eq!(gate.admitted("tok", "/a/x", 150).await, 150);
}

#[tokio::test]
async fn what_a_crash_left_in_hand_is_lost_and_not_used() {
    let gate = Gate::new().await;
    let plan = json!({"UnlimitedRateLimit": true, "Quota": 1000, "QuotaRenewalRate": 3600});
    let (_, _, credential) = gate.simple(plan).await;
    assert_eq!(gate.admitted("tok", "/a/x", 200).await, 200);
    let (folder, clock) = (Arc::clone(&gate.folder), Arc::clone(&gate.clock));
    drop(gate);
    let gate = Gate::open(folder, clock, 2).await;
    let now = usage(&gate, credential).await;
    let quota = limit(&now, "quota");
    // What was spent of the last batch is not known any more: it counts as lost.
    let (used, lost) = (number(quota, "used"), number(quota, "lost"));
    assert!(used <= 200 && 200 <= used + lost && (1..=50).contains(&lost), "{quota}");
    assert_eq!(number(quota, "remaining"), 1_000 - used - lost);
    assert_eq!(number(quota, "held"), 0);
    let rest = usize::try_from(number(quota, "remaining")).unwrap();
    assert_eq!(gate.admitted("tok", "/a/x", 1_000).await, rest);
}

#[tokio::test]
async fn a_reset_gives_the_whole_quota_back_at_once() {
    let gate = Gate::new().await;
    let plan = json!({"UnlimitedRateLimit": true, "Quota": 5, "QuotaRenewalRate": 3600});
    let (_, _, credential) = gate.simple(plan).await;
    for resets in 1..=2 {
        assert_eq!(gate.admitted("tok", "/a/x", 9).await, 5);
        let answer = reset(&gate, credential).await;
        assert_eq!(answer, json!({"status": "ok", "resets": resets, "not_reset": []}));
        assert_eq!(number(limit(&usage(&gate, credential).await, "quota"), "remaining"), 5);
    }
    assert_eq!(gate.admitted("tok", "/a/x", 2).await, 2);
    assert_eq!(number(limit(&usage(&gate, credential).await, "quota"), "used"), 2);
}

/// An app with two credentials on each of two plans, whose quota the app shares.
async fn shared(gate: &Gate) -> [u64; 4] {
    let plan = |name: &str, units: u64| {
        json!({"Name": name, "UnlimitedRateLimit": true, "Quota": units,
               "QuotaRenewalRate": 3600, "QuotaScope": "app"})
    };
    let (small, large) = (gate.plan(plan("small", 10)).await, gate.plan(plan("large", 40)).await);
    let product = gate.product("product", &["a"]).await;
    let app = gate.post("/apps", json!({"Name": "app", "UserID": 1})).await;
    let mut credentials = [0; 4];
    for (n, plan) in [small, small, large, large].into_iter().enumerate() {
        let body = json!({"Alias": format!("n{n}"), "Type": "CREDENTIAL_TYPE_TYK_MANAGED",
            "AuthenticationMethod": "authToken", "AuthTokenType": "AUTH_TOKEN_CUSTOM",
            "KeyID": format!("tok{n}"), "PlanID": plan, "ProductIDs": [product]});
        credentials[n] = gate.post(&format!("/apps/{app}/custom_credentials"), body).await;
    }
    credentials
}

#[tokio::test]
async fn an_app_has_the_allowance_of_each_of_its_plans_and_no_more() {
    let gate = Gate::new().await;
    let credentials = shared(&gate).await;
    let mut admitted = [0; 4];
    // In turns, so that each plan's limit would be the last one told for the other's requests.
    for _ in 0..60 {
        for (n, admitted) in admitted.iter_mut().enumerate() {
            *admitted += gate.admitted(&format!("tok{n}"), "/a/x", 1).await;
        }
    }
    assert_eq!((admitted[0] + admitted[1], admitted[2] + admitted[3]), (10, 40));
    for (n, units) in [(0, 10), (1, 10), (2, 40), (3, 40)] {
        let now = usage(&gate, credentials[n]).await;
        let quota = limit(&now, "quota");
        assert_eq!((number(quota, "limit"), number(quota, "used")), (units, units));
        assert_eq!(quota["scope"], "app");
    }
}

#[tokio::test]
async fn a_reset_of_one_credential_leaves_what_its_app_shares() {
    let gate = Gate::new().await;
    let [one, _, _, _] = shared(&gate).await;
    assert_eq!(gate.admitted("tok0", "/a/x", 7).await, 7);
    assert_eq!(reset(&gate, one).await["not_reset"], json!(["app"]));
    let both = gate.admitted("tok0", "/a/x", 20).await + gate.admitted("tok1", "/a/x", 20).await;
    assert_eq!(both, 3, "7 of the 10 that both share are used");
}

#[tokio::test]
async fn usage_says_why_every_request_is_refused() {
    let gate = Gate::new().await;
    let (_, _, credential) = gate.simple(json!({"Quota": 5, "QuotaRenewalRate": 60})).await;
    let (app, one) = (1, format!("/custom_credentials/{credential}"));
    let (status, answer) =
        gate.call("PUT", &format!("/apps/{app}{one}"), json!({"Active": false})).await;
    assert!(status.is_success(), "{answer}");
    assert_eq!(usage(&gate, credential).await["status"], "inactive");
    for (method, path) in [
        ("GET", "/v1/usage/credentials/999"),
        ("GET", "/v1/usage/credentials/none"),
        ("POST", "/v1/usage/credentials/999/reset"),
        ("GET", "/v1/usage/credentials"),
    ] {
        let (status, answer) = gate.request(method, path, json!({})).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert!(answer["errors"][0].is_string(), "{answer}");
    }
}

#[tokio::test]
async fn a_page_of_usage_is_full_while_there_are_more() {
    let gate = Gate::new().await;
    let (plan, product, first) = gate.simple(json!({"UnlimitedRateLimit": true, "Quota": 9})).await;
    let mut ids = vec![first];
    for n in 0..5 {
        // Pairs for display have no limits, and are passed over.
        let pair = json!({"Alias": format!("pair {n}"), "Type": "CREDENTIAL_TYPE_CUSTOM",
            "CredentialKey": "a-key", "CredentialSecret": "a-secret-of-theirs"});
        gate.post("/apps/1/custom_credentials", pair).await;
        let (alias, token) = (format!("of {n}"), format!("token-{n}"));
        ids.push(gate.import_into(1, &alias, &token, plan, &[product]).await);
    }
    for filter in ["", "&app=1", &format!("&plan={plan}")] {
        let mut got = Vec::new();
        for page in 1..=4 {
            let path = format!("/v1/usage?per_page=2&page={page}{filter}");
            let (status, rows) = gate.request("GET", &path, Value::Null).await;
            assert_eq!(status.as_u16(), 200, "{rows}");
            let rows = rows.as_array().unwrap();
            assert_eq!(rows.len(), if page < 4 { 2 } else { 0 }, "{path}");
            got.extend(rows.iter().map(|row| row["credential"].as_u64().unwrap()));
        }
        assert_eq!(got, ids, "{filter:?}");
    }
}
