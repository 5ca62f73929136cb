//! What a credential would open that is not stored.

use serde_json::{Value, json};

use crate::gate::Gate;

async fn preview(gate: &Gate, body: Value) -> (u16, Value) {
    let (status, told) = gate.request("POST", "/v1/preview", body).await;
    (status.as_u16(), told)
}

#[tokio::test]
async fn a_body_that_is_not_saved_is_told_what_it_would_open() {
    let gate = Gate::new().await;
    let plan = json!({"Name": "robot", "RateLimit": 5, "Per": 10, "Quota": 1000,
        "QuotaRenewalRate": 86400, "KeyExpiresIn": 60, "QuotaScope": "app",
        "MetaData": {"tier": "robot"}, "PerAPI": {"b": {"RateLimit": 1, "Per": 1}}});
    let plan = gate.plan(plan).await;
    let a = json!({"Name": "a", "ProviderID": 1, "IsDocumentationOnly": false, "APIDetails": [
        {"APIID": "a", "AllowedURLs": [{"URL": "/users/{id}", "Methods": ["GET"]}]},
        {"APIID": "v", "Versions": ["v2"]}]});
    let (a, b) = (gate.post("/products", a).await, gate.product("b", &["b"]).await);
    let app = gate.post("/apps", json!({"Name": "robot", "UserID": 1})).await;
    let before = gate.generation().await;
    let body = json!({"AppID": app.to_string(), "PlanID": plan.to_string(), "ProductIDs": [a, b],
        "MetaData": {"own": [1]}});
    let (status, told) = preview(&gate, body.clone()).await;
    assert_eq!((status, &told["status"], &told["reason"]), (200, &json!("active"), &Value::Null));
    assert_eq!(told["expires"], "2026-02-02T02:41:00.000Z");
    let quota = json!({"kind": "quota", "scope": "app", "limit": 1000,
        "period": {"every_ms": 86_400_000}});
    let rate = json!({"kind": "rate", "scope": "credential", "limit": 5, "per_ms": 10_000});
    let of_b = json!({"kind": "rate", "scope": "api", "limit": 1, "per_ms": 1_000});
    let rows = told["apis"].as_array().unwrap();
    let by_plan = format!("plan-{plan}");
    for (row, api, access, limits) in [
        (&rows[0], "a", a, json!([rate, quota])),
        (&rows[1], "b", b, json!([of_b, quota])),
        (&rows[2], "v", a, json!([rate, quota])),
    ] {
        assert_eq!((&row["api"], &row["limits"]), (&json!(api), &limits), "{told}");
        let policies = &row["policies"];
        assert_eq!(policies["access"], json!([format!("product-{access}")]), "{policies}");
        assert_eq!((&policies["rate"], &policies["quota"]), (&json!(by_plan), &json!(by_plan)));
    }
    assert_eq!(rows[0]["allowed_urls"], json!([{"url": "/users/{id}", "methods": ["GET"]}]));
    assert_eq!((&rows[1]["versions"], &rows[2]["versions"]), (&Value::Null, &json!(["v2"])));
    let metadata = json!({"tier": "robot", "own": [1], "ApplicationID": app, "DeveloperID": 1,
        "OrganisationID": 1, "TeamIDs": "1"});
    assert_eq!(told["metadata"], metadata);
    // What is enforced once it is saved is the same.
    assert_eq!(gate.generation().await, before, "nothing is stored");
    let mut saved = body;
    for (name, value) in [
        ("Alias", "one"),
        ("Type", "CREDENTIAL_TYPE_TYK_MANAGED"),
        ("AuthTokenType", "AUTH_TOKEN_CUSTOM"),
        ("KeyID", "tok"),
    ] {
        saved[name] = json!(value);
    }
    assert_eq!(preview(&gate, saved.clone()).await.1, told, "whatever its token");
    gate.post(&format!("/apps/{app}/custom_credentials"), saved.clone()).await;
    let (_, why) =
        gate.request("POST", "/v1/explain", json!({"KeyID": "tok", "Path": "/b/x"})).await;
    assert_eq!(why["metadata"], metadata);
    assert_eq!(
        why["policies"],
        rows[1]["policies"]
            .as_object()
            .map(|policies| {
                let mut policies = policies.clone();
                policies.insert("skipped".to_owned(), json!([]));
                Value::from(policies)
            })
            .unwrap()
    );
    // The token that is there now is in use.
    let (status, told) = preview(&gate, saved).await;
    assert_eq!((status, &told["codes"]), (422, &json!(["name_in_use", "key_in_use"])), "{told}");
}

#[tokio::test]
async fn a_preview_says_why_nothing_would_be_opened() {
    let gate = Gate::new().await;
    let (plan, product, _) = gate.simple(json!({"UnlimitedRateLimit": true})).await;
    for (member, value, status) in
        [("Active", json!("false"), "inactive"), ("Expires", json!("2020-01-01 00:00"), "expired")]
    {
        let mut body = json!({"PlanID": plan, "ProductIDs": [product]});
        body[member] = value;
        let (got, told) = preview(&gate, body).await;
        assert_eq!((got, &told["status"]), (200, &json!(status)), "{told}");
        assert!(told["metadata"].get("ApplicationID").is_none(), "nobody's: {told}");
    }
    gate.ok(200, "PUT", &format!("/products/{product}"), json!({"APIDetails": []})).await;
    let (got, told) = preview(&gate, json!({"PlanID": plan, "ProductIDs": [product]})).await;
    assert_eq!((got, &told["status"]), (200, &json!("policies_unusable")), "{told}");
    assert!(told["reason"].is_string() && told["apis"] == json!([]), "{told}");
}

#[tokio::test]
async fn faults_of_a_preview_are_those_of_the_credential() {
    let gate = Gate::new().await;
    let (plan, product, _) = gate.simple(json!({"UnlimitedRateLimit": true})).await;
    let before = gate.generation().await;
    for (body, errors, codes) in [
        (
            json!({}),
            json!(["PlanID is required", "ProductIDs must name at least one product"]),
            json!(["missing_field", "missing_field"]),
        ),
        (
            json!({"AppID": 99, "PlanID": 98, "ProductIDs": ["nothing"], "Expires": "soon"}),
            json!([
                "Expires is not a time like 2026-03-02 09:14",
                "AppID 99 does not exist",
                "PlanID 98 does not exist",
                "ProductIDs names nothing that exists",
            ]),
            json!(["invalid", "unknown_reference", "unknown_reference", "unknown_reference"]),
        ),
        (
            json!({"PlanID": plan, "ProductIDs": [product], "KeyID": "tok",
                "MetaData": {"x": "is tok"}}),
            json!(["MetaData must not contain the token", "key already in use"]),
            json!(["invalid", "key_in_use"]),
        ),
        (
            json!({"Type": "CREDENTIAL_TYPE_CUSTOM", "CredentialKey": "k"}),
            json!(["Type must be CREDENTIAL_TYPE_TYK_MANAGED: a pair for display opens nothing"]),
            json!(["invalid"]),
        ),
    ] {
        let (status, told) = preview(&gate, body).await;
        assert_eq!((status, &told["errors"], &told["codes"]), (422, &errors, &codes));
    }
    assert_eq!(gate.generation().await, before);
    // Who may only read may ask, and nothing of it is in the audit log.
    let reader = json!({"Name": "reader", "Scopes": ["read"]});
    let (_, reader) = gate.request("POST", "/v1/admin/tokens", reader).await;
    let body = json!({"PlanID": plan, "ProductIDs": [product]});
    let token = reader["Token"].as_str().unwrap();
    let (status, told) = gate.request_as(token, "POST", "/v1/preview", body).await;
    assert_eq!(status.as_u16(), 200, "{told}");
    let (_, entries) = gate.request("GET", "/v1/audit", Value::Null).await;
    assert!(!entries.to_string().contains("preview"), "{entries}");
}
