use serde_json::{Value, json};

use crate::admin_support::{Admin, SECRET, credential, id, plan, product};

/// What must be found nowhere.
const HIDDEN: &str = "LEG-hidden-91c2-77aa-0001";

/// A body with every member that the portal and its guides put a secret into, at any place.
fn with_secrets(mut body: Value) -> Value {
    let members = body.as_object_mut().unwrap();
    for name in [
        "KeyID",
        "CredentialKey",
        "CredentialSecret",
        "Credential",
        "CustomKeyID",
        "Password",
        "Secret",
        "keyid",
        "credential_secret",
        "Key",
        "api-key",
        "OAuthClientSecret",
        "DCRRegistrationAccessToken",
        "JWTToken",
        "Token",
    ] {
        members.entry(name).or_insert(HIDDEN.into());
    }
    members.insert("Credentials".to_owned(), json!([{ "KeyID": HIDDEN, "ID": 3 }]));
    members.insert("Configuration".to_owned(), json!({ "deep": [[{ "Secret": HIDDEN }]] }));
    body
}

#[tokio::test]
async fn secrets_in_bodies_that_have_no_use_for_them_are_not_kept() {
    let admin = Admin::start().await;
    let (plan_id, product_id, app) = admin.furnish().await;
    let mut slow = plan("slow-tier");
    slow["AutoApproveAccessRequests"] = false.into();
    let slow = id(&admin.expect(200, "POST", "/plans", slow).await);
    for (status, path, body) in [
        (200, "/apps", json!({ "Name": "a", "UserID": 1 })),
        (200, "/users", json!({ "Email": "a@b.test" })),
        (200, "/organisations", json!({ "Name": "o" })),
        (200, "/organisations/1/teams", json!({ "Name": "t" })),
        (200, "/catalogues", json!({ "Name": "c" })),
        (200, "/plans", plan("other-tier")),
        (201, "/products", product("other", "inv-v1")),
    ] {
        let made = admin.expect(status, "POST", path, with_secrets(body.clone())).await;
        assert!(!made.to_string().contains(HIDDEN), "{path}: {made}");
        assert_eq!(made["Credentials"], json!([{ "ID": 3 }]), "{path}: the rest is kept");
        let one = format!("{path}/{}", id(&made));
        let changed = admin.expect(200, "PUT", &one, with_secrets(body)).await;
        assert!(!changed.to_string().contains(HIDDEN), "{one}: {changed}");
    }
    let provision = format!("/apps/{app}/provision");
    for plan in [plan_id, slow] {
        let body = json!({ "PlanID": plan, "ProductIDs": [product_id] });
        admin.expect(200, "PUT", &provision, with_secrets(body)).await;
    }
    let all = format!("/apps/{app}/custom_credentials");
    // Where a credential takes them they are taken, by their names alone.
    let body = with_secrets(credential("mine", "LEG-shown-once-0001", plan_id, product_id));
    let made = admin.expect(201, "POST", &all, body.clone()).await;
    assert_eq!(made["KeyID"], "LEG-shown-once-0001");
    let one = format!("{all}/{}", id(&made));
    admin.expect(200, "PUT", &one, body).await;
    admin.expect(200, "POST", &format!("{one}/rotate"), with_secrets(json!({}))).await;
    nothing_shows(&admin).await;
}

/// Looks at all that the listener shows, and at all that lies in the store.
async fn nothing_shows(admin: &Admin) {
    let mut paths = Vec::new();
    for list in [
        "/portal-api/apps",
        "/portal-api/users",
        "/portal-api/organisations",
        "/portal-api/organisations/1/teams",
        "/portal-api/products",
        "/portal-api/plans",
        "/portal-api/catalogues",
        "/portal-api/access_requests",
        "/portal-api/apps/1/custom_credentials",
        "/portal-api/apps/1/access-requests",
    ] {
        paths.push(list.to_owned());
        paths.extend((1..6).map(|id| format!("{list}/{id}")));
    }
    for request in 1..6 {
        let of = format!("/portal-api/access_requests/{request}");
        paths.extend(["user", "plan", "client", "catalogue"].map(|what| format!("{of}/{what}")));
        let below = format!("/portal-api/apps/1/access-requests/{request}/credentials");
        paths.push(below.clone());
        paths.extend((1..6).map(|id| format!("{below}/{id}")));
    }
    for path in ["/v1/usage", "/v1/audit", "/v1/state/status", "/v1/imports", "/v1/admin/tokens"] {
        paths.push(path.to_owned());
    }
    let mut shown = 0;
    for path in &paths {
        let request = http::Request::get(format!("{path}?per_page=100"));
        let request = request.header("Authorization", SECRET).body(axum::body::Body::empty());
        let reply = admin.raw(request.unwrap()).await;
        shown += usize::from(reply.status == 200);
        // A pair's key would be told as a credential of its own; here nothing takes it.
        assert!(!reply.json.to_string().contains(HIDDEN), "{path}: {}", reply.json);
    }
    assert!(40 < shown, "only {shown} of {} paths showed something", paths.len());
    for (key, value) in admin.records().await {
        let texts = [key.id.as_ref(), value.as_ref()].map(String::from_utf8_lossy);
        assert!(texts.iter().all(|text| !text.contains(HIDDEN)), "{texts:?}");
    }
    for file in std::fs::read_dir(admin.folder()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(HIDDEN.len()).any(|window| window == HIDDEN.as_bytes()));
    }
}
