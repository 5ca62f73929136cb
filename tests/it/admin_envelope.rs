use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::ServiceExt;

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

pub(crate) fn json_value() -> impl Strategy<Value = Value> {
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

pub(crate) fn member() -> impl Strategy<Value = String> {
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
        "AppID",
        "App",
        "User",
        "KeyHash",
        "QuotaUsed",
        "Scopes",
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

/// Every path of the listener, as its router has them: a new one is tried as well.
pub(crate) fn templates() -> Vec<String> {
    let source = include_str!("../../src/admin.rs");
    let from = source.find("pub fn router(").unwrap();
    let (portal, native) = source[from..].split_once("let native =").unwrap();
    let native = native.split_once(".nest(").unwrap().0;
    let website = include_str!("../../src/admin/website.rs");
    let attributes = include_str!("../../src/admin/attributes.rs");
    let mut all = Vec::new();
    let texts = [portal, website, attributes].map(|text| ("/portal-api", text));
    for (base, text) in texts.into_iter().chain([("/v1", native)]) {
        for (before, path) in text.split('"').collect::<Vec<_>>().chunks(2).filter_map(|pair| {
            let [before, path] = pair else { return None };
            path.starts_with('/').then_some((before, path))
        }) {
            all.push(format!("{base}{path}"));
            let call = before.rsplit(".merge").next().unwrap();
            if call.starts_with("(crud::<") || call.starts_with("(issued::<") {
                all.push(format!("{base}{path}/{{id}}"));
            }
        }
    }
    all
}

#[test]
fn the_hostile_client_knows_every_path() {
    let all = templates();
    for path in [
        "/portal-api/apps/{app}/custom_credentials/{id}",
        "/portal-api/access_requests/{id}",
        "/v1/imports",
        "/v1/admin/tokens/{id}",
        "/v1/audit",
        "/v1/usage",
        "/v1/preview",
        "/portal-api/users/{id}/custom-attributes/{attribute}",
        "/portal-api/products/{id}/logo",
    ] {
        assert!(all.iter().any(|known| known == path), "{path} in {all:?}");
    }
}

/// A path of the listener with ids that there are and that there are not; now and then another.
fn path() -> impl Strategy<Value = String> {
    let id = prop_oneof![
        8 => (0_u32..4).prop_map(|n| n.to_string()),
        1 => "[a-zA-Z0-9%.~_-]{1,8}".prop_map(|text| text.replace('%', "%25")),
        1 => Just("18446744073709551616".to_owned()),
    ];
    let known = (proptest::sample::select(templates()), proptest::collection::vec(id, 4));
    let known = known.prop_map(|(path, ids)| {
        let mut ids = ids.into_iter();
        let parts = path.split('/').map(|part| match part.starts_with('{') {
            true => ids.next().unwrap(),
            false => part.to_owned(),
        });
        parts.collect::<Vec<_>>().join("/")
    });
    let strange = "[a-z0-9%.~_-]{0,8}".prop_map(|text| text.replace('%', "%25"));
    let strange = proptest::collection::vec(strange, 1..5).prop_map(|parts| parts.join("/"));
    prop_oneof![12 => known, 1 => strange.prop_map(|path| format!("/v1/{path}"))]
}

pub(crate) fn query() -> impl Strategy<Value = String> {
    let name = proptest::sample::select(vec![
        "page",
        "per_page",
        "limit",
        "p",
        "since",
        "user",
        "app",
        "plan",
        "organisation",
        "force",
        "format",
        "mode",
        "on_error",
        "dry_run",
        "map.plan.x",
        "envelope",
        "wait",
        "timeout",
    ]);
    let value = prop_oneof![
        (-3_i64..5).prop_map(|n| n.to_string()),
        Just("ndjson".to_owned()),
        Just("csv".to_owned()),
        Just("abort".to_owned()),
        Just("true".to_owned()),
        Just("cluster".to_owned()),
        "[a-z0-9%+.-]{0,8}",
    ];
    proptest::collection::vec((name, value), 0..4).prop_map(|pairs| {
        let pairs = pairs.into_iter().map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join("&")
    })
}

/// The status of a request, and its answer if that is one value of JSON: reports of imports are
/// one a line.
async fn answered(admin: &Admin, request: Request<Body>) -> (u16, Value) {
    let response = admin.router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let kind = parts.headers.get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    if parts.status == 200 && kind.as_deref() == Some("application/x-ndjson") {
        let text = std::str::from_utf8(&bytes).unwrap();
        assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
        return (200, Value::Null);
    }
    assert_eq!(kind.as_deref(), Some("application/json"), "{}", parts.status);
    (parts.status.as_u16(), serde_json::from_slice(&bytes).unwrap())
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
    let methods = vec!["GET", "POST", "PUT", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"];
    let methods = proptest::sample::select(methods);
    let body = proptest::collection::hash_map(member(), json_value(), 0..12);
    let cases = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_200) };
    let before = std::cell::RefCell::new(runtime.block_on(admin.records()));
    proptest!(cases, |(
        method in methods, path in path(), query in query(), body in body
    )| {
        let body = Value::Object(body.into_iter().collect());
        // An import that goes on after its answer would write behind the next request.
        let waits = if path == "/v1/imports" { "&wait=60s" } else { "" };
        let uri = format!("{path}?{query}{waits}");
        let request = Request::builder().method(method).uri(&uri);
        let request = request.header("Authorization", SECRET).body(Body::from(body.to_string()));
        let (status, json) = runtime.block_on(answered(&admin, request.unwrap()));
        // 501 is what paths of the portal's website say.
        let fine = status < 500 || status == 501;
        prop_assert!(fine, "{} {} {}: {}", method, uri, body, json);
        if status >= 400 {
            let told = json["errors"].as_array().is_some_and(|errors| {
                !errors.is_empty() && errors.iter().all(Value::is_string)
            });
            prop_assert!(told, "{} {} {}: {}", method, uri, body, json);
        }
        let after = runtime.block_on(admin.records());
        if status >= 400 {
            prop_assert_eq!(&*before.borrow(), &after, "half-written: {} {} {}", method, uri, body);
        }
        before.replace(after);
    });
}
