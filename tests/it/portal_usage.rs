//! What was used, for the portal's pages and for the holder of a token.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use turnpike::clock::{Clock, SystemClock};
use turnpike::domain::denial::Denial;
use turnpike::enforce::LimitUsed;

use crate::gate::Gate;
use crate::process::{Client, Gateway, Upstream};

const S: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

fn plan() -> Value {
    json!({"Name": "robot-tier", "DisplayName": "Robot", "RateLimit": 5, "Per": 10, "Quota": 20,
        "QuotaRenewalRate": 3600})
}

#[tokio::test]
async fn a_credentials_usage_is_what_my_apps_shows() {
    let gate = Gate::new().await;
    let plan = gate.plan(plan()).await;
    let product = gate.product("a", &["a"]).await;
    let (app, id) = gate.import("tok", plan, &[product]).await;
    let path = format!("/apps/{app}/custom_credentials/{id}/usage");
    let before = gate.ok(200, "GET", &path, Value::Null).await;
    assert_eq!((&before["LastUsedAt"], &before["History"]), (&Value::Null, &json!([])));
    assert_eq!(gate.admitted("tok", "/a/x", 7).await, 5);
    for _ in 0..2 {
        let shown = gate.ok(200, "GET", &path, Value::Null).await;
        for (member, value) in [
            ("Plan", json!("Robot")),
            ("RateText", json!("5 calls / 10 second(s)")),
            ("QuotaText", json!("20 calls / 1 hour(s)")),
            ("Status", json!("active")),
            ("Expires", Value::Null),
            ("LastUsedAt", json!("2026-02-02T02:40:00.000Z")),
            ("History", json!([{"Date": "2026-02-02", "Admitted": 5, "Refused": 2}])),
            ("ByProduct", json!([])),
        ] {
            assert_eq!(shown[member], value, "{member}");
        }
        assert_eq!(shown["Rate"]["Remaining"], 0);
        let quota = &shown["Quota"];
        assert_eq!((&quota["Used"], &quota["Remaining"]), (&json!(5), &json!(15)), "{quota}");
        assert_eq!(quota["RenewsAt"], "2026-02-02T03:40:00.000Z");
    }
    let one = format!("/apps/{app}/custom_credentials/{id}");
    gate.ok(200, "PUT", &one, json!({"Active": false})).await;
    assert_eq!(gate.ok(200, "GET", &path, Value::Null).await["Status"], "inactive");
    gate.ok(404, "GET", &format!("/apps/99/custom_credentials/{id}/usage"), Value::Null).await;
}

#[tokio::test]
async fn usage_of_an_app_a_user_and_an_organisation() {
    let gate = Gate::new().await;
    let mut unlimited = json!({"Name": "plan", "UnlimitedRateLimit": true});
    (unlimited["Quota"], unlimited["QuotaRenewalRate"]) = (json!(100), json!(3600));
    unlimited["QuotaScope"] = json!("product");
    let plan = gate.plan(unlimited).await;
    let product = gate.product("a", &["a"]).await;
    let user = gate.post("/users", json!({"Email": "b@acme.test", "OrganisationID": 1})).await;
    let first = gate.post("/apps", json!({"Name": "first", "UserID": 1})).await;
    let second = gate.post("/apps", json!({"Name": "second", "UserID": user})).await;
    for (app, token, n) in [(first, "tok-1", 1), (first, "tok-2", 2), (second, "tok-3", 3)] {
        gate.import_into(app, &format!("of {n}"), token, plan, &[product]).await;
        assert_eq!(gate.admitted(token, "/a/x", n).await, n);
    }
    for (path, used) in [
        (format!("/apps/{first}/usage"), vec![1, 2]),
        (format!("/apps/{second}/usage"), vec![3]),
        ("/users/1/usage".to_owned(), vec![1, 2]),
        (format!("/users/{user}/usage"), vec![3]),
        ("/organisations/1/usage".to_owned(), vec![1, 2, 3]),
    ] {
        let shown = gate.ok(200, "GET", &path, Value::Null).await;
        let rows = shown["Credentials"].as_array().unwrap();
        let got: Vec<_> = rows.iter().map(|row| row["Quota"]["Used"].as_u64().unwrap()).collect();
        assert_eq!(got, used, "{path}");
        assert_eq!(shown["History"][0]["Admitted"], used.iter().sum::<u64>(), "{path}");
        assert_eq!(rows[0]["ByProduct"][0]["Product"], "a");
    }
    let page = "/organisations/1/usage?per_page=2&page=2";
    let shown = gate.ok(200, "GET", page, Value::Null).await;
    assert_eq!((&shown["Total"], &shown["Credentials"][0]["Alias"]), (&json!(3), &json!("of 3")));
    gate.ok(404, "GET", "/users/99/usage", Value::Null).await;
    // The same for machines, by filters.
    for (query, ids) in [
        (String::new(), vec![1, 2, 3]),
        (format!("?app={first}"), vec![1, 2]),
        (format!("?user={user}"), vec![3]),
        ("?organisation=1&per_page=1&page=3".to_owned(), vec![3]),
        (format!("?user=1&app={second}"), vec![]),
        (format!("?plan={plan}&user=1"), vec![1, 2]),
    ] {
        let (status, rows) = gate.request("GET", &format!("/v1/usage{query}"), Value::Null).await;
        assert_eq!(status.as_u16(), 200, "{rows}");
        let rows = rows.as_array().unwrap();
        let got: Vec<_> = rows.iter().map(|row| row["credential"].as_u64().unwrap()).collect();
        assert_eq!(got, ids, "{query}");
        let used = |row: &Value| row["limits"][0]["used"].as_u64() == row["credential"].as_u64();
        assert!(rows.iter().all(used), "{rows:?}");
    }
    let (status, _) = gate.request("GET", "/v1/usage?app=99", Value::Null).await;
    assert_eq!(status.as_u16(), 422);
}

#[tokio::test]
async fn history_is_kept_by_day_for_thirty_days() {
    let gate = Gate::new().await;
    let (_, _, id) = gate.simple(json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true})).await;
    let path = format!("/apps/1/custom_credentials/{id}/usage");
    let days = async || {
        let shown = gate.ok(200, "GET", &path, Value::Null).await;
        let rows = shown["History"].as_array().unwrap().clone();
        rows.iter().map(|row| row["Admitted"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    for n in 1..=40 {
        assert_eq!(gate.admitted("tok", "/a/x", n).await, n);
        gate.enforcer.sweep().await;
        assert_eq!(days().await.last(), Some(&(n as u64)), "stored or not");
        gate.pass(DAY);
        gate.enforcer.sweep().await;
    }
    assert_eq!(days().await, (12..=40).collect::<Vec<_>>(), "29 days before an empty one");
    // A rotated token counts for the same credential, also over a restart.
    let one = format!("/apps/1/custom_credentials/{id}");
    gate.ok(200, "POST", &format!("{one}/rotate"), json!({"KeyID": "tok-2"})).await;
    assert_eq!(gate.admitted("tok-2", "/a/x", 7).await, 7);
    let (folder, clock) = (gate.folder.clone(), gate.clock.clone());
    gate.enforcer.close().await;
    drop(gate);
    let gate = Gate::open(folder, clock, 2).await;
    assert_eq!(gate.denial("tok", "/a/x").await, Some(Denial::TokenUnknown));
    let shown = gate.ok(200, "GET", &path, Value::Null).await;
    let last = shown["History"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["Admitted"], &last["Refused"]), (&json!(7), &json!(0)));
}

#[tokio::test]
async fn a_minute_of_usage_is_one_record_for_many_credentials() {
    let gate = Gate::new().await;
    let plan = json!({"Name": "plan", "UnlimitedRateLimit": true, "UnlimitedQuota": true});
    let plan = gate.plan(plan).await;
    let product = gate.product("a", &["a"]).await;
    for n in 0..80 {
        let token = format!("token-{n}");
        gate.import(&token, plan, &[product]).await;
        assert_eq!(gate.admitted(&token, "/a/x", 3).await, 3);
    }
    let before = gate.generation().await;
    gate.enforcer.sweep().await;
    assert_eq!(gate.generation().await, before, "not yet");
    gate.pass(60 * S);
    gate.enforcer.sweep().await;
    assert_eq!(gate.generation().await - before, 64, "commits, for 240 requests of 80 credentials");
}

#[test]
fn the_holder_of_a_token_reads_its_own_quota() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start(folder.path(), &upstream);
    gateway
        .import("tok", json!({"RateLimit": 50, "Per": 60, "Quota": 20, "QuotaRenewalRate": 3600}));
    for _ in 0..3 {
        assert_eq!(gateway.get("/a/x", "tok").status, 200);
    }
    let mut client = Client::new(gateway.proxy);
    for _ in 0..3 {
        let answer = client.get("/.well-known/quota", &[("Authorization", "Bearer tok")]);
        assert_eq!((answer.status, answer.headers["cache-control"].as_str()), (200, "no-store"));
        let told = answer.json();
        let limits = told["limits"].as_array().unwrap();
        let limit = |kind: &str| limits.iter().find(|limit| limit["kind"] == kind).unwrap();
        let (rate, quota) = (limit("rate"), limit("quota"));
        assert_eq!((&rate["used"], &rate["remaining"]), (&json!(3), &json!(47)), "{told}");
        assert_eq!((&quota["used"], &quota["remaining"]), (&json!(3), &json!(17)), "{told}");
        assert_eq!(quota["apis"], json!(["a"]));
        assert!(quota["resets_at"].is_u64() && told["expires_at"].is_null(), "{told}");
    }
    assert_eq!(upstream.count(), 3, "nothing goes upstream");
    for (headers, status, code) in [
        (vec![], 401, "token_missing"),
        (vec![("X-API-Key", "nobody")], 403, "token_unknown"),
        (vec![("X-API-Key", "tok"), ("X-API-Key", "tok")], 400, "several_credentials"),
    ] {
        let answer = client.get("/.well-known/quota", &headers);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)));
    }
    let answer = client.send("POST", "/.well-known/quota", &[("X-API-Key", "tok")], "").unwrap();
    assert_eq!((answer.status, answer.headers["allow"].as_str()), (405, "GET, HEAD"));
    let path = "/portal-api/apps/1/custom_credentials/1";
    assert_eq!(gateway.admin("PUT", path, &json!({"Active": false})).status, 200);
    let answer = client.get("/.well-known/quota", &[("X-API-Key", "tok")]);
    assert_eq!((answer.status, answer.json()["code"].as_str()), (403, Some("inactive")));
}

/// How often 80 and 100 percent of a quota were told of.
fn told(gate: &Gate) -> (u64, u64) {
    let text = String::from_utf8(gate.metrics.render().unwrap()).unwrap();
    let count = |percent: u64| {
        let begin = format!("turnpike_quotas_reached_total{{percent=\"{percent}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&begin));
        line.map_or(0, |count| count.parse().unwrap())
    };
    (count(80), count(100))
}

/// Lets calls to the store end, until so many events were told; more of them come later if at all.
#[track_caller]
fn told_until(gate: &Gate, expect: (u64, u64)) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        for _ in 0..1_000 {
            if told(gate) == expect {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("told of {:?}, not {expect:?}, at {caller}", told(gate));
    }
}

#[tokio::test]
async fn events_at_80_and_100_percent_come_once_in_a_period() {
    let gate = Gate::new().await;
    let plan = json!({"UnlimitedRateLimit": true, "Quota": 10, "QuotaRenewalRate": 3600});
    let (plan, ..) = gate.simple(plan).await;
    for period in 0..2 {
        // requests, told
        for (requests, most, all) in [(7, 0, 0), (1, 1, 0), (1, 1, 0), (1, 1, 1), (5, 1, 1)] {
            gate.admitted("tok", "/a/x", requests).await;
            told_until(&gate, (period + most, period + all)).await;
        }
        gate.pass(3_600 * S);
    }
    // An edit of the plan makes new sessions and tells nothing anew.
    assert_eq!(gate.admitted("tok", "/a/x", 9).await, 9);
    gate.ok(200, "PUT", &format!("/plans/{plan}"), json!({"MetaData": {"a": 1}})).await;
    assert_eq!(gate.denial("tok", "/a/x").await, None);
    told_until(&gate, (3, 3)).await;
}

/// A quota that was told of is not told of again by the next run of a gateway.
#[tokio::test]
async fn a_restart_tells_no_event_again() {
    let gate = Gate::new().await;
    gate.simple(json!({"UnlimitedRateLimit": true, "Quota": 10, "QuotaRenewalRate": 3600})).await;
    assert_eq!(gate.admitted("tok", "/a/x", 8).await, 8);
    told_until(&gate, (1, 0)).await;
    let (folder, clock) = (gate.folder.clone(), gate.clock.clone());
    gate.enforcer.close().await;
    drop(gate);
    let gate = Gate::open(folder, clock, 2).await;
    assert_eq!(gate.admitted("tok", "/a/x", 9).await, 2);
    told_until(&gate, (0, 1)).await;
}

/// A limit that is lowered below what is used is used up from then on.
#[tokio::test]
async fn a_lowered_quota_is_told_of_with_its_next_request() {
    let gate = Gate::new().await;
    let plan = json!({"UnlimitedRateLimit": true, "Quota": 100, "QuotaRenewalRate": 3600});
    let (plan, ..) = gate.simple(plan).await;
    assert_eq!(gate.admitted("tok", "/a/x", 20).await, 20);
    told_until(&gate, (0, 0)).await;
    gate.ok(200, "PUT", &format!("/plans/{plan}"), json!({"Quota": 20})).await;
    assert_eq!(gate.admitted("tok", "/a/x", 3).await, 0);
    told_until(&gate, (1, 1)).await;
}

#[test]
fn events_of_a_quota_are_logged_without_its_token() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start(folder.path(), &upstream);
    let plan = json!({"UnlimitedRateLimit": true, "Quota": 5, "QuotaRenewalRate": 3600});
    gateway.import("secret-token", plan);
    let events = || {
        let log = gateway.log();
        let lines = log.lines().filter(|line| line.contains("a share of a quota is used"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    for status in [200, 200, 200, 200, 200, 429, 429] {
        assert_eq!(gateway.get("/a/x", "secret-token").status, status);
    }
    let began = SystemClock.boot();
    while events().len() < 2 {
        assert!(SystemClock.boot().since_ms(began) < 10_000, "{}", gateway.log());
        std::thread::yield_now();
    }
    let events = events();
    assert!(events[0].contains("80") && events[1].contains("100"), "{events:?}");
    assert!(events.iter().all(|line| line.contains("c1/") && !line.contains("secret-token")));
}

#[tokio::test]
async fn a_holder_that_asks_without_end_asks_the_store_once_a_second() {
    let gate = Gate::new().await;
    let plan = json!({"UnlimitedRateLimit": true, "Quota": 10, "QuotaRenewalRate": 3600,
        "KeyExpiresIn": 60});
    gate.simple(plan).await;
    let ask = async || gate.enforcer.own_usage(Some(b"tok"), [192, 0, 2, 1].into()).await;
    let first = ask().await.unwrap();
    assert_eq!(gate.admitted("tok", "/a/x", 2).await, 2);
    assert!(Arc::ptr_eq(&first, &ask().await.unwrap()), "the same answer");
    gate.pass(S);
    let second = ask().await.unwrap();
    let LimitUsed::Quota { spread, .. } = &second.limits[0].used else { panic!() };
    assert_eq!(spread.used, 2);
    // What is told does not outlive the credential.
    gate.pass(58 * S);
    ask().await.unwrap();
    gate.pass(S);
    assert_eq!(ask().await.unwrap_err().denial, Denial::Expired);
}
