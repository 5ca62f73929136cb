//! Products and plans, as the gateway decides by them.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use turnpike::domain::denial::Denial;
use turnpike::domain::time::UnixMs;
use turnpike::enforce::Decision;

use crate::gate::Gate;

const S: Duration = Duration::from_secs(1);

fn unlimited() -> Value {
    json!({"Name": "plan", "UnlimitedRateLimit": true, "UnlimitedQuota": true})
}

#[tokio::test]
async fn api_product_of_several_apis() {
    let gate = Gate::new().await;
    let plan = gate.plan(unlimited()).await;
    let product = gate.product("a and b", &["a", "b"]).await;
    gate.import("tok", plan, &[product]).await;
    for (path, denial) in [("/a/x", None), ("/b/x", None), ("/v/x", Some(Denial::ApiNotGranted))] {
        assert_eq!(gate.denial("tok", path).await, denial, "{path}");
    }
}

#[tokio::test]
async fn documentation_only_product() {
    let gate = Gate::new().await;
    let (plan, a, _) = gate.simple(unlimited()).await;
    let body = json!({"Name": "paper", "IsDocumentationOnly": "true",
        "SpecDetails": [{"SpecAlias": "invoices", "OASUrl": "https://docs.test/inv.json"}]});
    let made = gate.ok(201, "POST", "/products", body.clone()).await;
    assert_eq!(made["SpecDetails"][0]["SpecAlias"], "invoices");
    assert!(made.get("ReferenceID").is_none(), "no policy: {made}");
    let credential = json!({"Alias": "new", "Type": "CREDENTIAL_TYPE_TYK_MANAGED", "PlanID": plan,
        "AuthTokenType": "AUTH_TOKEN_STANDARD", "ProductIDs": [a, made["ID"]]});
    let path = "/apps/1/custom_credentials";
    let refused = gate.ok(422, "POST", path, credential).await;
    let fault = format!("ProductIDs {} is documentation only and grants nothing", made["ID"]);
    assert_eq!(refused["errors"], json!([fault]));
    for (member, value, fault) in [
        (
            "SpecDetails",
            json!([{"OASUrl": "x"}]),
            "SpecDetails must have a SpecAlias in every entry",
        ),
        (
            "APIDetails",
            json!([{"APIID": "a"}]),
            "APIDetails must be empty when IsDocumentationOnly is true",
        ),
    ] {
        let mut body = body.clone();
        body["Name"] = json!("other");
        body[member] = value;
        let refused = gate.ok(422, "POST", "/products", body).await;
        assert_eq!(refused["errors"], json!([fault]));
    }
}

#[tokio::test]
async fn path_based_permissions_and_versions_inside_a_product() {
    let gate = Gate::new().await;
    let plan = gate.plan(unlimited()).await;
    let body = json!({"Name": "some", "ProviderID": 1, "IsDocumentationOnly": false,
    "APIDetails": [
        {"APIID": "a", "AllowedURLs": [{"URL": "/users/{id}", "Methods": ["GET"]}]},
        {"APIID": "v", "Versions": ["v2"]},
    ]});
    let product = gate.post("/products", body).await;
    gate.import("tok", plan, &[product]).await;
    for (method, path, version, denial) in [
        ("GET", "/a/users/7", None, None),
        ("POST", "/a/users/7", None, Some(Denial::PathNotGranted)),
        ("GET", "/a/users", None, Some(Denial::PathNotGranted)),
        ("GET", "/v/x", Some("v2"), None),
        ("GET", "/v/x", Some("v1"), Some(Denial::VersionNotGranted)),
        ("GET", "/v/x", None, Some(Denial::VersionNotGranted)),
    ] {
        let decision = gate.decide_as("tok", method, path, version, "192.0.2.1").await;
        let got = match decision {
            Decision::Admit(_) => None,
            Decision::Deny(refusal) => Some(refusal.denial),
        };
        assert_eq!(got, denial, "{method} {path} {version:?}");
    }
    // An edit of the product holds at once.
    let path = format!("/products/{product}");
    gate.ok(200, "PUT", &path, json!({"APIDetails": [{"APIID": "a"}]})).await;
    assert_eq!(gate.denial("tok", "/a/users").await, None);
    assert_eq!(gate.denial("tok", "/v/x").await, Some(Denial::ApiNotGranted));
}

#[tokio::test]
async fn several_products_under_one_plan_share_its_quota_unless_it_says_otherwise() {
    for (scope, of_b) in [(Value::Null, 0), (json!("credential"), 0), (json!("product"), 3)] {
        let gate = Gate::new().await;
        let plan = json!({"Name": "plan", "UnlimitedRateLimit": true, "Quota": 3,
            "QuotaRenewalRate": 3600, "QuotaScope": scope});
        let plan = gate.plan(plan).await;
        let (a, b) = (gate.product("a", &["a"]).await, gate.product("b", &["b"]).await);
        gate.import("tok", plan, &[a, b]).await;
        assert_eq!(gate.admitted("tok", "/a/x", 9).await, 3);
        assert_eq!(gate.admitted("tok", "/b/x", 9).await, of_b, "{scope}");
    }
}

#[tokio::test]
async fn limits_of_one_api_are_separate() {
    let gate = Gate::new().await;
    let mut plan = unlimited();
    plan["PerAPI"] = json!({"a": {"RateLimit": 2, "Per": 10}, "b": {"RateLimit": 4, "Per": 10}});
    let plan = gate.plan(plan).await;
    let (a, b) = (gate.product("a", &["a"]).await, gate.product("b", &["b"]).await);
    gate.import("tok", plan, &[a, b]).await;
    for _ in 0..2 {
        // One key, and each API has a rate of its own: 2 and 4 in ten seconds.
        assert_eq!(gate.admitted("tok", "/a/x", 9).await, 2);
        assert_eq!(gate.admitted("tok", "/b/x", 9).await, 4);
        gate.pass(10 * S - Duration::from_millis(1));
        assert_eq!(gate.denial("tok", "/a/x").await, Some(Denial::RateExceeded));
        gate.pass(S);
    }
}

#[tokio::test]
async fn a_calendar_quota_ends_with_its_day() {
    let gate = Gate::new().await;
    let plan = json!({"Name": "plan", "UnlimitedRateLimit": true, "Quota": 3,
        "QuotaPeriod": {"Unit": "day", "TimeZone": "Europe/Paris"}});
    let plan = gate.plan(plan).await;
    let product = gate.product("a", &["a"]).await;
    gate.import("tok", plan, &[product]).await;
    assert_eq!(gate.admitted("tok", "/a/x", 9).await, 3);
    // In winter midnight in Paris is 23:00 UTC.
    let midnight = |day: u64| UnixMs((day * 24 + 23) * 3_600_000);
    let now = turnpike::clock::Clock::unix(&*gate.clock);
    let next = (0..).map(|n| midnight(now.0 / 86_400_000 + n)).find(|at| now < *at).unwrap();
    gate.pass(Duration::from_millis(next.since_ms(now) - 1));
    assert_eq!(gate.denial("tok", "/a/x").await, Some(Denial::QuotaExceeded));
    gate.pass(Duration::from_millis(1));
    assert_eq!(gate.admitted("tok", "/a/x", 9).await, 3);
}

#[tokio::test]
async fn plan_edits_reach_every_credential_at_once() {
    let gate = Gate::new().await;
    let plan = json!({"Name": "plan", "UnlimitedRateLimit": true, "Quota": 3,
        "QuotaRenewalRate": 3600, "KeyExpiresIn": 600, "MetaData": {"tier": "robot"}});
    let plan = gate.plan(plan).await;
    let product = gate.product("a", &["a"]).await;
    let tokens = ["tok-1", "tok-2"];
    for token in tokens {
        gate.import(token, plan, &[product]).await;
        assert_eq!(gate.admitted(token, "/a/x", 9).await, 3);
    }
    let path = format!("/plans/{plan}");
    gate.ok(200, "PUT", &path, json!({"Quota": "5"})).await;
    for token in tokens {
        assert_eq!(gate.admitted(token, "/a/x", 9).await, 2, "raised: what was used stays");
    }
    gate.ok(200, "PUT", &path, json!({"Quota": 20})).await;
    // Only MetaData.
    gate.ok(200, "PUT", &path, json!({"MetaData": {"tier": "gold"}})).await;
    for token in tokens {
        let Decision::Admit(permit) = gate.decide(token, "GET", "/a/x").await else { panic!() };
        let tier = permit.metadata().and_then(|all| all.get("tier")).map(|v| v.0.to_string());
        assert_eq!(tier.as_deref(), Some("\"gold\""));
    }
    // Only KeyExpiresIn: for credentials that come, not for those that are there.
    gate.ok(200, "PUT", &path, json!({"KeyExpiresIn": 60})).await;
    gate.import("tok-3", plan, &[product]).await;
    gate.pass(60 * S);
    assert_eq!(gate.denial("tok-3", "/a/x").await, Some(Denial::Expired));
    assert_eq!(gate.denial("tok-1", "/a/x").await, None);
    gate.pass(540 * S);
    assert_eq!(gate.denial("tok-1", "/a/x").await, Some(Denial::Expired));
    // A deleted plan closes.
    gate.import("tok-4", plan, &[product]).await;
    assert_eq!(gate.denial("tok-4", "/a/x").await, None);
    gate.ok(200, "DELETE", &path, Value::Null).await;
    assert_eq!(gate.denial("tok-4", "/a/x").await, Some(Denial::PoliciesUnusable));
}

#[tokio::test]
async fn an_emptied_product_closes_its_tokens_and_a_refilled_one_opens_them_again() {
    let gate = Gate::new().await;
    let (_, product, _) = gate.simple(unlimited()).await;
    let path = format!("/products/{product}");
    for _ in 0..2 {
        assert_eq!(gate.denial("tok", "/a/x").await, None);
        gate.ok(200, "PUT", &path, json!({"APIDetails": []})).await;
        assert!(
            gate.denial("tok", "/a/x").await.is_some_and(|denial| denial.answer().status == 403)
        );
        gate.ok(200, "PUT", &path, json!({"APIDetails": [{"APIID": "a"}]})).await;
    }
    assert_eq!(gate.denial("tok", "/a/x").await, None, "the same token");
}

#[tokio::test]
async fn a_custom_id_made_here_names_its_object_and_cannot_be_taken() {
    let gate = Gate::new().await;
    let user = gate.ok(200, "GET", "/users/1", Value::Null).await["CID"].clone();
    let app = gate.post("/apps", json!({"Name": "robot", "UserID": user})).await;
    let mine = gate.ok(200, "GET", &format!("/apps/{app}"), Value::Null).await;
    let named = format!("/apps/{}", mine["CID"].as_str().unwrap());
    assert_eq!(gate.ok(200, "GET", &named, Value::Null).await, mine);
    // An edit leaves it as it is; of another kind it names nothing.
    gate.ok(200, "PUT", &named, json!({"Name": "other"})).await;
    assert_eq!(gate.ok(200, "GET", &named, Value::Null).await["ID"], app);
    let (status, _) = gate.call("GET", &named.replace("apps", "users"), Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let twin = json!({"Name": "twin", "UserID": 1, "CID": mine["CID"]});
    let (status, body) = gate.call("POST", "/apps", twin.clone()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(body.to_string().contains("CID is already in use"), "{body}");
    // Who has the number in another way is not meant; what is gone leaves its name to others.
    let other = format!(
        "/apps/{}",
        gate.ok(200, "GET", "/users/1", Value::Null).await["CID"].as_str().unwrap()
    );
    assert_eq!(gate.call("GET", &other, Value::Null).await.0, StatusCode::NOT_FOUND);
    gate.ok(200, "DELETE", &named, Value::Null).await;
    assert_eq!(gate.call("GET", &named, Value::Null).await.0, StatusCode::NOT_FOUND);
    let heir = gate.post("/apps", twin).await;
    assert_eq!(gate.ok(200, "GET", &named, Value::Null).await["ID"], heir);
}

#[tokio::test]
async fn custom_ids_name_what_numbers_do() {
    let gate = Gate::new().await;
    let cid = |n: u32| format!("2cYQsTfnXzzzzzzzzzzzzzzzz{n:02}");
    let made = |kind: &str, n: u32, mut body: Value| {
        body["CID"] = json!(cid(n));
        (format!("/{kind}"), body)
    };
    for (path, body) in [
        made("organisations", 1, json!({"Name": "Acme"})),
        made("users", 2, json!({"Email": "a@acme.test", "OrganisationID": cid(1)})),
        made("apps", 3, json!({"Name": "robot", "UserID": cid(2)})),
        made("plans", 4, json!({"Name": "plan", "ProviderID": 1})),
        made(
            "products",
            5,
            json!({"Name": "a", "ProviderID": 1, "IsDocumentationOnly": false,
            "APIDetails": [{"APIID": "a"}]}),
        ),
        made("catalogues", 6, json!({"Name": "all", "Products": [cid(5)]})),
        made(
            &format!("apps/{}/custom_credentials", cid(3)),
            7,
            json!({"Alias": "one", "Type": "CREDENTIAL_TYPE_TYK_MANAGED", "PlanID": cid(4),
                "AuthTokenType": "AUTH_TOKEN_CUSTOM", "KeyID": "tok", "ProductIDs": [cid(5)]}),
        ),
    ] {
        let id = gate.post(&path, body.clone()).await;
        let named = format!("{path}/{}", body["CID"].as_str().unwrap());
        let by_cid = gate.ok(200, "GET", &named, Value::Null).await;
        let by_number = gate.ok(200, "GET", &format!("{path}/{id}"), Value::Null).await;
        assert_eq!((&by_cid, &by_cid["CID"]), (&by_number, &body["CID"]), "{path}");
        let taken = gate.call("POST", &path, body).await;
        assert_eq!(taken.0, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
    }
    let Decision::Admit(permit) = gate.decide("tok", "GET", "/a/x").await else { panic!() };
    let owner = permit.owner();
    assert_eq!(owner.app.map(|id| id.0), Some(1));
    for (name, value) in [("ApplicationID", "1"), ("DeveloperID", "2"), ("OrganisationID", "2")] {
        let got = permit.metadata().and_then(|all| all.get(name)).map(|v| v.0.to_string());
        assert_eq!(got.as_deref(), Some(value), "{name}");
    }
}
