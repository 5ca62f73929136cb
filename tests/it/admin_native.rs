//! Errors of our own paths, which programs read; paths of the portal's website.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use crate::admin_support::{Admin, SECRET, credential, id, plan, product};
use crate::gate::{Gate, SECRET as SECRET_OF_GATE};

#[tokio::test]
async fn every_error_of_our_own_paths_has_codes_and_the_requests_id() {
    let gate = Gate::new().await;
    gate.simple(json!({"UnlimitedRateLimit": true})).await;
    let reader = json!({"Name": "reader", "Scopes": ["read"]});
    let (_, reader) = gate.request("POST", "/v1/admin/tokens", reader).await;
    let reader = reader["Token"].as_str().unwrap();
    let none = Value::Null;
    for (who, method, path, body, status, codes) in [
        ("nobody", "GET", "/v1/audit", none.clone(), 401, vec!["unauthorized"]),
        (reader, "POST", "/v1/imports", none.clone(), 403, vec!["missing_scope"]),
        (SECRET_OF_GATE, "GET", "/v1/nowhere", none.clone(), 404, vec!["no_path"]),
        (SECRET_OF_GATE, "GET", "/v1/usage/credentials/9", none.clone(), 404, vec!["not_found"]),
        (SECRET_OF_GATE, "DELETE", "/v1/audit", none.clone(), 405, vec!["no_method"]),
        (SECRET_OF_GATE, "POST", "/v1/explain", none.clone(), 400, vec!["bad_json"]),
        (SECRET_OF_GATE, "POST", "/v1/explain", json!([]), 422, vec!["invalid"]),
        (SECRET_OF_GATE, "POST", "/v1/explain", json!({}), 422, vec!["missing_field"]),
        (SECRET_OF_GATE, "POST", "/v1/imports?format=xml", none.clone(), 422, vec!["invalid"]),
        (SECRET_OF_GATE, "GET", "/v1/audit?since=soon&limit=x", none, 422, vec!["invalid"; 2]),
        (
            SECRET_OF_GATE,
            "POST",
            "/v1/admin/tokens",
            json!({"Name": "reader", "Scopes": ["king"]}),
            422,
            vec!["invalid", "name_in_use"],
        ),
    ] {
        let (got, told) = gate.request_as(who, method, path, body).await;
        assert_eq!((got.as_u16(), &told["status"]), (status, &json!("error")), "{path}: {told}");
        assert_eq!(told["codes"], json!(codes), "{method} {path}: {told}");
        assert_eq!(told["errors"].as_array().unwrap().len(), codes.len(), "{path}: {told}");
        assert_eq!(told["request_id"].as_str().unwrap().len(), 32, "{path}: {told}");
    }
    // The portal's own paths answer as the portal does.
    let missing = gate.ok(404, "GET", "/apps/99", Value::Null).await;
    assert_eq!(missing, json!({"errors": ["app not found"]}));
}

#[tokio::test]
async fn an_errors_request_id_is_that_of_its_header_and_of_the_audit_log() {
    let admin = Admin::start().await;
    let send = async |method: &str, path: &str, token: &str| {
        let request = Request::builder().method(method).uri(path).header("Authorization", token);
        let request = request.body(Body::from("{}")).unwrap();
        let response = tower::ServiceExt::oneshot(admin.router.clone(), request).await.unwrap();
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (id, serde_json::from_slice::<Value>(&body).unwrap())
    };
    let (id, told) = send("POST", "/v1/admin/tokens", SECRET).await;
    assert_eq!((&told["request_id"], &told["codes"][0]), (&json!(id), &json!("missing_field")));
    let (_, entries) = send("GET", "/v1/audit", SECRET).await;
    assert_eq!(entries[0]["RequestID"], json!(id), "{entries}");
    // Also of who got no further than the door.
    let (id, told) = send("GET", "/v1/audit", "nobody").await;
    assert_eq!(told["request_id"], json!(id));
}

#[tokio::test]
async fn paths_of_the_website_are_lists_or_say_that_they_are_not_done_here() {
    let admin = Admin::start().await;
    let (plan_id, ..) = admin.furnish().await;
    let specs = json!([{"SpecAlias": "invoices", "OASUrl": "https://docs.test/inv.json"}]);
    let paper = json!({"Name": "paper", "IsDocumentationOnly": true, "SpecDetails": specs,
        "Tags": [7]});
    let paper = id(&admin.expect(201, "POST", "/products", paper).await);
    for (path, list) in [
        ("tags", json!([7])),
        ("spec-details", specs),
        ("docs", json!([])),
        ("client_types", json!([])),
    ] {
        let one = format!("/products/{paper}/{path}");
        assert_eq!(admin.expect(200, "GET", &one, Value::Null).await, list, "{path}");
        admin.expect(404, "GET", &format!("/products/99/{path}"), Value::Null).await;
        let refused = admin.expect(501, "POST", &one, json!({})).await;
        assert_eq!(crate::admin_support::faults(&refused).len(), 1);
    }
    for path in [
        "/products/1/logo",
        "/products/1/preview",
        "/products/1/docs/3",
        "/products/1/spec-details/3/oas",
        "/products/1/oas",
        "/products/1/graphql/schema",
        "/products/1/api-details/inv-v1/oas",
        "/pages",
        "/pages/3/contents",
        "/themes",
        "/posts/1",
        "/menus",
        "/oas/1",
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let refused = admin.expect(501, method, path, json!({})).await;
            let text = "this is of the portal's website, and not done here";
            assert_eq!(refused["errors"], json!([text]), "{method} {path}");
        }
    }
    // Nobody looks at them without a token.
    let request = Request::get("/portal-api/pages").body(Body::empty()).unwrap();
    assert_eq!(admin.raw(request).await.status, 401);
    assert!(0 < plan_id);
}

/// What metadata says goes upstream, whatever it is called: in plans and credentials, which have
/// it. Elsewhere it is a member like others, and no token may be kept in it.
#[tokio::test]
async fn metadata_of_plans_and_credentials_is_kept_and_elsewhere_secrets_are_not() {
    let admin = Admin::start().await;
    let (plan_id, product_id, app) = admin.furnish().await;
    let text = json!({"token": "for-upstreams", "deep": {"api_key": "theirs"}, "tier": "gold"});
    let metadata = json!({ "MetaData": text });
    let with = |mut body: Value| {
        body.as_object_mut().unwrap().append(metadata.clone().as_object_mut().unwrap());
        body
    };
    let made = admin.expect(200, "POST", "/plans", with(plan("other"))).await;
    assert_eq!(made["MetaData"], text);
    let all = format!("/apps/{app}/custom_credentials");
    let body = credential("one", "LEG-00fa-91c2-77aa", plan_id, product_id);
    let made = admin.expect(201, "POST", &all, with(body)).await;
    let one = format!("{all}/{}", id(&made));
    assert_eq!(admin.expect(200, "GET", &one, Value::Null).await["MetaData"], text);
    let left = json!({"deep": {}, "tier": "gold"});
    for (status, path, body) in [
        (200, "/apps", json!({"Name": "a", "UserID": 1})),
        (200, "/users", json!({"Email": "a@b.test"})),
        (200, "/organisations", json!({"Name": "o"})),
        (201, "/products", product("other", "inv-v1")),
    ] {
        let mut body = with(body);
        body["Configuration"] = json!({ "MetaData": text });
        let made = admin.expect(status, "POST", path, body).await;
        assert_eq!((&made["MetaData"], &made["Configuration"]["MetaData"]), (&left, &left));
    }
    // The credential's own token is no metadata, under any name.
    for body in [json!({"note": "LEG-00fa-91c2-77aa"}), json!({"x": [{"LEG-00fa-91c2-77aa": 1}]})] {
        let refused = admin.expect(422, "PUT", &one, json!({ "MetaData": body })).await;
        assert_eq!(refused["errors"], json!(["MetaData must not contain the token"]));
    }
}
