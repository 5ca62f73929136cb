use axum::body::Body;
use http::Request;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::admin_support::{Admin, SECRET, credential, faults};

#[tokio::test]
async fn only_the_secret_opens() {
    let admin = Admin::start().await;
    for (header, status) in [
        (Some(SECRET.to_owned()), 200),
        (Some(format!("Bearer {SECRET}")), 200),
        (Some(format!("Basic {SECRET}")), 401),
        (Some(format!("{SECRET}x")), 401),
        (Some(String::new()), 401),
        (None, 401),
    ] {
        for path in ["/portal-api/apps", "/portal-api/nowhere"] {
            let mut request = Request::get(path);
            if let Some(header) = &header {
                request = request.header("Authorization", header);
            }
            let reply = admin.raw(request.body(Body::empty()).unwrap()).await;
            let expect = if status == 200 && path.ends_with("nowhere") { 404 } else { status };
            assert_eq!(reply.status, expect, "{header:?} {path}");
            if status == 401 {
                assert_eq!(reply.json["status"], "error");
                assert_eq!(faults(&reply.json).len(), 1);
            }
        }
    }
}

#[tokio::test]
async fn every_endpoint_refuses_what_is_no_body() {
    let admin = Admin::start().await;
    let (plan, product, app) = admin.furnish().await;
    let all = format!("/apps/{app}/custom_credentials");
    admin.expect(201, "POST", &all, credential("a", "some-key", plan, product)).await;
    let before = admin.records().await;
    let big = format!(r#"{{"Name":"{}"}}"#, "x".repeat(1 << 20));
    let deep = "[".repeat(100_000);
    for path in [
        "/apps",
        "/users",
        "/organisations",
        "/organisations/1/teams",
        "/products",
        "/plans",
        "/catalogues",
        &all,
    ] {
        for (method, path) in [("POST", path.to_owned()), ("PUT", format!("{path}/1"))] {
            // body, status
            for (body, status) in [
                ("", 400),
                ("{", 400),
                (r#"{"Name": NaN}"#, 400),
                (r#"{"Name": 1e999}"#, 400),
                (&deep, 400),
                ("[]", 422),
                ("null", 422),
                (r#""text""#, 422),
                (&big, 413),
                (r#"{"Name":{},"Email":{},"Alias":[],"UserID":{},"PlanID":[[]]}"#, 422),
            ] {
                let reply = admin.send(method, &path, body).await;
                let start: String = body.chars().take(40).collect();
                assert_eq!(reply.status, status, "{method} {path} {start} {}", reply.json);
                assert!(!faults(&reply.json).is_empty());
            }
        }
        for method in ["PATCH", "TRACE"] {
            assert_eq!(admin.send(method, path, "{}").await.status, 405, "{method} {path}");
        }
        for unknown in ["/999", "/nobody", "/18446744073709551616", "/%ff", "/%00"] {
            let path = format!("{path}{unknown}");
            for method in ["GET", "DELETE"] {
                assert_eq!(admin.send(method, &path, "").await.status, 404, "{method} {path}");
            }
            let put = admin.send("PUT", &path, r#"{"Name":"x"}"#).await;
            assert!([404, 422].contains(&put.status.as_u16()), "PUT {path} {}", put.status);
        }
    }
    assert_eq!(admin.records().await, before, "nothing half-written");
}

#[tokio::test]
async fn another_format_than_json_is_not_promised() {
    let admin = Admin::start().await;
    for (accept, status) in [
        ("*/*", 200),
        ("application/json", 200),
        ("text/html, */*;q=0.1", 200),
        ("application/graphql", 406),
    ] {
        let request = Request::get("/portal-api/apps").header("Authorization", SECRET);
        let request = request.header("Accept", accept).body(Body::empty()).unwrap();
        assert_eq!(admin.raw(request).await.status, status, "{accept}");
    }
}

#[tokio::test]
async fn a_body_may_come_as_any_content_type() {
    let admin = Admin::start().await;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/json"] {
        let request = Request::post("/portal-api/apps")
            .header("Authorization", SECRET)
            .header("Content-Type", kind)
            .body(Body::from(json!({ "Name": "a", "UserID": 1 }).to_string()));
        assert_eq!(admin.raw(request.unwrap()).await.status, 200, "{kind}");
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-5_i64..5).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        proptest::num::f64::NORMAL.prop_map(Value::from),
        Just(json!("CREDENTIAL_TYPE_TYK_MANAGED")),
        Just(json!("CREDENTIAL_TYPE_CUSTOM")),
        Just(json!("AUTH_TOKEN_CUSTOM")),
        Just(json!("AUTH_TOKEN_STANDARD")),
        Just(json!("Private")),
        Just(json!("inv-v1")),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map(member(), inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn member() -> impl Strategy<Value = String> {
    let known = [
        "Name",
        "Alias",
        "UserID",
        "Email",
        "OrganisationID",
        "Organisation",
        "Teams",
        "Users",
        "ProviderID",
        "APIDetails",
        "APIID",
        "AllowedURLs",
        "URL",
        "Methods",
        "Versions",
        "RateLimit",
        "Per",
        "Quota",
        "QuotaRenewalRate",
        "UnlimitedQuota",
        "QuotaPeriod",
        "Unit",
        "TimeZone",
        "AnchorDay",
        "PerAPI",
        "Costs",
        "Path",
        "Cost",
        "MaxInFlight",
        "PlanQuota",
        "PlanQuotaRenewalRate",
        "AutoApproveAccessRequests",
        "CredentialKey",
        "CredentialSecret",
        "CredentialID",
        "CatalogueID",
        "GracePeriod",
        "VisibilityStatus",
        "OrgCatalogues",
        "Catalogues",
        "Products",
        "Plans",
        "TeamID",
        "SpecDetails",
        "KeyExpiresIn",
        "MetaData",
        "Type",
        "AuthTokenType",
        "KeyID",
        "PlanID",
        "ProductIDs",
        "Expires",
        "Active",
        "ID",
        "CID",
        "Visibility",
        "IsDocumentationOnly",
        "inv-v1",
    ];
    prop_oneof![4 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => ".{0,8}"]
}

fn path() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        6 => proptest::sample::select(vec![
            "apps", "users", "organisations", "teams", "products", "plans", "custom_credentials",
            "access_requests", "access-requests", "credentials", "catalogues", "audiences",
        ]).prop_map(str::to_owned),
        2 => proptest::sample::select(vec![
            "imports", "errors", "results", "admin", "tokens", "audit", "usage", "reset",
        ]).prop_map(str::to_owned),
        6 => (0_u32..4).prop_map(|n| n.to_string()),
        3 => proptest::sample::select(vec![
            "provision", "approve", "reject", "rotate", "reset_quota", "usage", "plan", "user",
        ]).prop_map(str::to_owned),
        1 => "[a-zA-Z0-9%.~_-]{0,8}".prop_map(|text| text.replace('%', "%25")),
    ];
    let base = prop_oneof![3 => Just("portal-api"), 1 => Just("v1"), 1 => Just("v1/admin")];
    let any = proptest::collection::vec(segment, 1..7);
    let any = (base, any).prop_map(|(base, parts)| format!("/{base}/{}", parts.join("/")));
    // What no random walk finds often enough.
    let known = proptest::sample::select(vec![
        "/apps/1/provision",
        "/access_requests/N/approve",
        "/access_requests/N/reject",
        "/access_requests/N/plan",
        "/apps/1/custom_credentials/N",
        "/apps/1/custom_credentials/N/rotate",
        "/apps/1/custom_credentials/N/reset_quota",
        "/apps/1/access-requests/N/credentials/N/rotate",
        "/catalogues/1",
        "/catalogues/1/audiences",
        "/products?user=N",
    ]);
    let known = (known, 0_u32..4)
        .prop_map(|(path, n)| format!("/portal-api{}", path.replace('N', &n.to_string())));
    prop_oneof![2 => any, 1 => known]
}

#[test]
fn no_request_is_answered_with_a_server_error() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let admin = runtime.block_on(async {
        let admin = Admin::start().await;
        let (plan, product, app) = admin.furnish().await;
        let path = format!("/apps/{app}/custom_credentials");
        admin.expect(201, "POST", &path, credential("a", "some-key", plan, product)).await;
        admin
    });
    let methods = proptest::sample::select(vec!["GET", "POST", "PUT", "PUT", "POST", "DELETE"]);
    let body = proptest::collection::hash_map(member(), json_value(), 0..12);
    let cases = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(900) };
    let before = std::cell::RefCell::new(runtime.block_on(admin.records()));
    proptest!(cases, |(method in methods, path in path(), body in body)| {
        let body = Value::Object(body.into_iter().collect());
        let request = Request::builder().method(method).uri(&path);
        let request = request.header("Authorization", SECRET).body(Body::from(body.to_string()));
        let reply = runtime.block_on(admin.raw(request.unwrap()));
        prop_assert!(reply.status.as_u16() < 500, "{} {} {}: {:?}", method, path, body, reply);
        if reply.status.as_u16() >= 400 {
            prop_assert!(reply.json["errors"].is_array());
        }
        let after = runtime.block_on(admin.records());
        if reply.status.as_u16() >= 400 {
            prop_assert_eq!(&*before.borrow(), &after, "half-written: {} {} {}", method, path, body);
        }
        before.replace(after);
    });
}
