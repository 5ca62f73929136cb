//! Admin tokens and the audit log.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use crate::admin_support::{Admin, Reply, SECRET, faults, id, plan};

/// Sends a request with a token of one's own.
async fn send(admin: &Admin, token: &str, request: &str, body: Value) -> Reply {
    let (method, path) = request.split_once(' ').unwrap();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = Request::builder().method(method).uri(path).header("Authorization", token);
    admin.raw(request.body(Body::from(body)).unwrap()).await
}

async fn make(admin: &Admin, name: &str, scopes: Value) -> (u64, String) {
    let body = json!({ "Name": name, "Scopes": scopes });
    let made = send(admin, SECRET, "POST /v1/admin/tokens", body).await;
    assert_eq!(made.status, 201, "{made:?}");
    (id(&made.json), made.json["Token"].as_str().unwrap().to_owned())
}

async fn audit(admin: &Admin, query: &str) -> Vec<Value> {
    let reply = send(admin, SECRET, &format!("GET /v1/audit{query}"), Value::Null).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json.as_array().unwrap().clone()
}

#[tokio::test]
async fn each_scope_opens_what_it_names_and_nothing_else() {
    let admin = Admin::start().await;
    for (scope, opened) in [
        ("read", vec!["GET /portal-api/apps", "GET /v1/audit", "GET /portal-api/x/usage"]),
        ("write", vec!["POST /portal-api/plans"]),
        ("usage", vec!["GET /portal-api/x/usage"]),
    ] {
        let (_, token) = make(&admin, scope, json!([scope])).await;
        for request in [
            "GET /portal-api/apps",
            "GET /v1/audit",
            "GET /portal-api/x/usage",
            "POST /portal-api/plans",
            "GET /v1/admin/tokens",
            "POST /v1/admin/tokens",
            "DELETE /v1/admin/tokens/1",
        ] {
            let reply = send(&admin, &token, request, json!({})).await;
            let refused = reply.status == 403;
            assert_eq!(refused, !opened.contains(&request), "{scope} {request} {reply:?}");
            if refused {
                let fault = faults(&reply.json)[0];
                assert!(fault.starts_with("the admin token has not the scope this takes"));
            }
        }
    }
    let (_, all) = make(&admin, "all", json!("read,write,import,usage")).await;
    assert_eq!(send(&admin, &all, "GET /v1/admin/tokens", Value::Null).await.status, 200);
    let bearer = format!("Bearer {all}");
    assert_eq!(send(&admin, &bearer, "GET /portal-api/apps", Value::Null).await.status, 200);
}

#[tokio::test]
async fn a_token_is_replaced_while_both_work_and_is_kept_as_a_hash() {
    let admin = Admin::start().await;
    let (first, old) = make(&admin, "portal", json!(["read"])).await;
    let (_, new) = make(&admin, "portal 2", json!(["read"])).await;
    for token in [&old, &new] {
        assert_eq!(send(&admin, token, "GET /portal-api/apps", Value::Null).await.status, 200);
    }
    let gone = format!("DELETE /v1/admin/tokens/{first}");
    assert_eq!(send(&admin, SECRET, &gone, Value::Null).await.status, 200);
    assert_eq!(send(&admin, SECRET, &gone, Value::Null).await.status, 404);
    assert_eq!(send(&admin, &old, "GET /portal-api/apps", Value::Null).await.status, 401);
    assert_eq!(send(&admin, &new, "GET /portal-api/apps", Value::Null).await.status, 200);
    let listed = send(&admin, SECRET, "GET /v1/admin/tokens", Value::Null).await.json;
    assert_eq!(listed[0]["Name"], "portal 2");
    assert_eq!(listed[0]["Scopes"], json!(["read"]));
    assert_eq!(listed[0]["LastUsedAt"], "2026-03-02T09:14:30.000Z");
    assert!(listed[0].get("Token").is_none());
    // The last use is noted once a minute, not with every request.
    admin.clock.advance(std::time::Duration::from_secs(59));
    send(&admin, &new, "GET /portal-api/apps", Value::Null).await;
    let listed = send(&admin, SECRET, "GET /v1/admin/tokens", Value::Null).await.json;
    assert_eq!(listed[0]["LastUsedAt"], "2026-03-02T09:14:30.000Z");
    admin.clock.advance(std::time::Duration::from_secs(1));
    send(&admin, &new, "GET /portal-api/apps", Value::Null).await;
    let listed = send(&admin, SECRET, "GET /v1/admin/tokens", Value::Null).await.json;
    assert_eq!(listed[0]["LastUsedAt"], "2026-03-02T09:15:30.000Z");
    // Its name is free again.
    make(&admin, "portal", json!(["read"])).await;
    for file in std::fs::read_dir(admin.folder()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        for token in [&old, &new] {
            assert!(!bytes.windows(token.len()).any(|window| window == token.as_bytes()));
        }
    }
}

#[tokio::test]
async fn faults_of_an_admin_token_are_named_and_it_is_no_api_token() {
    let admin = Admin::start().await;
    let (plan, product, app) = admin.furnish().await;
    let (_, token) = make(&admin, "portal", json!(["read"])).await;
    for (body, expect) in [
        (json!({ "Name": "a", "Scopes": ["all"] }), "Scopes must be of read, write, import, usage"),
        (
            json!({ "Name": "a", "Scopes": [] }),
            "Scopes must name at least one of read, write, import, usage",
        ),
        (json!({ "Scopes": ["read"] }), "Name is required"),
        (json!({ "Name": "portal", "Scopes": ["read"] }), "Name is already in use"),
        (json!({ "Name": "admin", "Scopes": ["read"] }), "Name is that of the configured secret"),
    ] {
        let reply = send(&admin, SECRET, "POST /v1/admin/tokens", body).await;
        assert_eq!((reply.status.as_u16(), faults(&reply.json)), (422, vec![expect]));
    }
    let path = format!("/apps/{app}/custom_credentials");
    let body = crate::admin_support::credential("a", &token, plan, product);
    let refused = admin.expect(422, "POST", &path, body).await;
    assert_eq!(faults(&refused), ["KeyID must not be an admin token"]);
}

#[tokio::test]
async fn every_write_is_in_the_audit_log_with_who_did_it() {
    let admin = Admin::start().await;
    let (portal, token) = make(&admin, "portal", json!(["read", "write"])).await;
    send(&admin, &token, "GET /portal-api/apps", Value::Null).await;
    let made = send(&admin, &token, "POST /portal-api/plans?x=secret", plan("robot")).await;
    let path = format!("PUT /portal-api/plans/{}", id(&made.json));
    send(&admin, &token, &path, json!({ "Name": [] })).await;
    admin.clock.advance(std::time::Duration::from_secs(1));
    send(&admin, &token, "DELETE /portal-api/apps/some-secret", Value::Null).await;
    send(&admin, &token, "POST /v1/admin/tokens", json!({})).await;
    send(&admin, "nobody", "POST /portal-api/plans", plan("robot")).await;
    send(&admin, &token, "POST /portal-api/nowhere", json!({})).await;
    let entries = audit(&admin, "").await;
    let rows: Vec<_> = entries
        .iter()
        .map(|e| {
            let text = |name: &str| e[name].as_str().unwrap().to_owned();
            format!(
                "{} {} {} {} {}",
                text("Who"),
                text("Method"),
                text("Path"),
                text("Object"),
                e["Status"]
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            format!("admin POST /v1/admin/tokens admin token {portal} 201"),
            "portal POST /portal-api/plans plan 1 200".to_owned(),
            "portal PUT /portal-api/plans/1  422".to_owned(),
            "portal DELETE /portal-api/apps/-  404".to_owned(),
        ]
    );
    assert_eq!(entries[1]["At"], "2026-03-02T09:14:30.000Z");
    assert_eq!(entries[1]["RequestID"].as_str().unwrap().len(), 32);
    let second = entries[1]["ID"].as_u64().unwrap();
    assert_eq!(audit(&admin, &format!("?since={second}")).await, entries[2..]);
    assert_eq!(audit(&admin, &format!("?since={second}&limit=1")).await, entries[2..3]);
    assert_eq!(audit(&admin, "?limit=1").await, entries[3..]);
    assert_eq!(audit(&admin, "?since=2026-03-02T09:14:30Z").await, entries[3..]);
    for wrong in ["?since=soon", "?limit=0", "?limit=x"] {
        let reply = send(&admin, SECRET, &format!("GET /v1/audit{wrong}"), Value::Null).await;
        assert_eq!(reply.status, 422, "{wrong}");
    }
}
