//! Credentials from their making to their end, as the portal sees them and as the gateway decides.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use turnpike::domain::denial::Denial;
use turnpike::domain::seal::Reveal;
use turnpike::store::{Kind, RecordStore};

use crate::gate::Gate;

const S: Duration = Duration::from_secs(1);

fn unlimited() -> Value {
    json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true})
}

/// A standard credential of a new app; the path of the app's credentials, the answer.
async fn standard(gate: &Gate, plan: u64, product: u64) -> (String, Value) {
    let app = gate.post("/apps", json!({"Name": "robot", "UserID": 1})).await;
    let path = format!("/apps/{app}/custom_credentials");
    let body = json!({"Alias": "one", "Type": "CREDENTIAL_TYPE_TYK_MANAGED",
        "AuthTokenType": "AUTH_TOKEN_STANDARD", "PlanID": plan, "ProductIDs": [product]});
    let made = gate.ok(201, "POST", &path, body).await;
    (path, made)
}

/// The path of the same credential below its access request.
async fn issued(gate: &Gate, path: &str, credential: &Value) -> String {
    let one = gate.ok(200, "GET", &format!("{path}/{}", credential["ID"]), Value::Null).await;
    let request = one["AccessRequest"].as_str().unwrap().replace("AccessRequest#", "");
    let app = path.trim_end_matches("/custom_credentials");
    format!("{app}/access-requests/{request}/credentials/{}", credential["ID"])
}

#[tokio::test]
async fn standard_generated_auth_token_credential() {
    let gate = Gate::new().await;
    let (plan, product, _) = gate.simple(unlimited()).await;
    let (path, made) = standard(&gate, plan, product).await;
    let token = made["KeyID"].as_str().unwrap();
    let (body, check) = token.rsplit_once('_').unwrap();
    assert!(body.starts_with("tp_") && body.len() == 30 && check.len() == 6, "{token}");
    assert_eq!(made["AuthTokenType"], "AUTH_TOKEN_STANDARD", "the caller's spelling");
    assert_eq!(gate.denial(token, "/a/x").await, None);
    // The portal reads it again, both ways.
    let shown = gate.ok(200, "GET", &format!("{path}/{}", made["ID"]), Value::Null).await;
    assert_eq!(shown["KeyID"], token);
    let issued = gate.ok(200, "GET", &issued(&gate, &path, &made).await, Value::Null).await;
    assert_eq!(issued["Credential"], token);
    // It lies sealed in the store, and another one is another.
    gate.holds_nowhere(token).await;
    let (_, other) = standard(&gate, plan, product).await;
    assert_ne!(other["KeyID"], token);
    let body = json!({"Alias": "two", "Type": "CREDENTIAL_TYPE_TYK_MANAGED", "KeyID": "given",
        "AuthTokenType": "AUTH_TOKEN_STANDARD", "PlanID": plan, "ProductIDs": [product]});
    let refused = gate.ok(422, "POST", &path, body).await;
    let fault = "KeyID must be absent when AuthTokenType is AUTH_TOKEN_STANDARD";
    assert_eq!(refused, json!({"errors": [fault]}));
}

#[tokio::test]
async fn a_generated_token_is_shown_once_where_that_is_configured() {
    let gate = Gate::new().await.with_reveal(Reveal::Once);
    let (plan, product, _) = gate.simple(unlimited()).await;
    let (path, made) = standard(&gate, plan, product).await;
    let token = made["KeyID"].as_str().unwrap();
    let one = format!("{path}/{}", made["ID"]);
    let shown = gate.ok(200, "GET", &one, Value::Null).await;
    assert!(shown["KeyID"].as_str().unwrap().contains('…') && token.len() == 37, "{shown}");
    let below = issued(&gate, &path, &made).await;
    let answer = gate.ok(200, "PUT", &format!("{below}/rotate"), Value::Null).await;
    let second = answer["Credential"].as_str().unwrap();
    assert_eq!(gate.denial(second, "/a/x").await, None, "told, since it cannot be read");
    assert_eq!(gate.denial(token, "/a/x").await, Some(Denial::TokenUnknown));
}

#[tokio::test]
async fn who_may_only_read_is_shown_no_token() {
    let gate = Gate::new().await;
    let (plan, product, _) = gate.simple(unlimited()).await;
    let (path, made) = standard(&gate, plan, product).await;
    let body = json!({"Name": "reader", "Scopes": ["read"]});
    let (_, reader) = gate.request("POST", "/v1/admin/tokens", body).await;
    let reader = reader["Token"].as_str().unwrap();
    for path in [format!("{path}/{}", made["ID"]), issued(&gate, &path, &made).await] {
        let path = format!("/portal-api{path}");
        let (status, shown) = gate.request_as(reader, "GET", &path, Value::Null).await;
        assert_eq!(status.as_u16(), 200, "{shown}");
        assert!(!shown.to_string().contains(made["KeyID"].as_str().unwrap()), "{shown}");
    }
}

#[tokio::test]
async fn custom_credential_rotate_and_revoke() {
    let gate = Gate::new().await;
    let plan = json!({"Name": "plan", "RateLimit": 2, "Per": 10, "Quota": 5,
        "QuotaRenewalRate": 3600});
    let plan = gate.plan(plan).await;
    let product = gate.product("product", &["a"]).await;
    let (app, id) = gate.import("old-token", plan, &[product]).await;
    let one = format!("/apps/{app}/custom_credentials/{id}");
    // The rate is used up; the new token has a rate of its own, and the quota goes on.
    assert_eq!(gate.admitted("old-token", "/a/x", 3).await, 2);
    assert_eq!(gate.denial("old-token", "/a/x").await, Some(Denial::RateExceeded));
    let body = json!({"KeyID": "new-token"});
    let answer = gate.ok(200, "POST", &format!("{one}/rotate"), body).await;
    assert_eq!((&answer["KeyID"], &answer["ID"]), (&json!("new-token"), &json!(id)));
    assert_eq!((&answer["status"], &answer["PreviousExpires"]), (&json!("ok"), &Value::Null));
    assert_eq!(gate.denial("old-token", "/a/x").await, Some(Denial::TokenUnknown));
    assert_eq!(gate.admitted("new-token", "/a/x", 3).await, 2, "at once");
    gate.pass(11 * S);
    assert_eq!(gate.admitted("new-token", "/a/x", 3).await, 1, "5 in all: the quota went on");
    assert_eq!(gate.denial("new-token", "/a/x").await, Some(Denial::QuotaExceeded));
    // The portal's own way generates one, and says nothing of it.
    let shown = gate.ok(200, "GET", &one, Value::Null).await;
    assert!(shown["KeyID"].as_str().unwrap().contains('…'), "what was imported stays masked");
    let below = format!(
        "{}/rotate",
        issued(&gate, &format!("/apps/{app}/custom_credentials"), &shown).await
    );
    let answer = gate.ok(200, "PUT", &below, Value::Null).await;
    let told = json!({"status": "ok", "message": "credential rotated", "PreviousExpires": null});
    assert_eq!(answer, told);
    let shown = gate.ok(200, "GET", &one, Value::Null).await;
    let third = shown["KeyID"].as_str().unwrap().to_owned();
    assert_eq!(gate.denial(&third, "/a/x").await, Some(Denial::QuotaExceeded), "not reset");
    assert_eq!(gate.denial("new-token", "/a/x").await, Some(Denial::TokenUnknown));
    // What was rotated out can come in again, and a revoked one too.
    gate.ok(200, "POST", &format!("{one}/rotate"), json!({"KeyID": "old-token"})).await;
    gate.ok(200, "DELETE", &one, Value::Null).await;
    assert_eq!(gate.denial("old-token", "/a/x").await, Some(Denial::TokenUnknown));
    gate.ok(404, "POST", &format!("/apps/{app}/custom_credentials/{id}/reset_quota"), json!({}))
        .await;
    let refused = gate.ok(422, "POST", &format!("{one}/rotate"), json!({})).await;
    assert_eq!(refused["status"], "error");
    assert_eq!(refused["errors"], json!(["credential not found"]));
}

#[tokio::test]
async fn a_rotated_token_goes_on_for_its_grace_period_and_not_longer() {
    let gate = Gate::new().await;
    let (_, _, id) = gate.simple(unlimited()).await;
    let one = format!("/apps/1/custom_credentials/{id}");
    let body = json!({"KeyID": "tok-2", "GracePeriod": "60"});
    let answer = gate.ok(200, "POST", &format!("{one}/rotate"), body).await;
    assert!(answer["PreviousExpires"].is_string(), "{answer}");
    for token in ["tok", "tok-2"] {
        assert_eq!(gate.denial(token, "/a/x").await, None, "{token}");
    }
    // Both are the one credential: what happens to it happens to both.
    gate.ok(200, "PUT", &one, json!({"Active": false})).await;
    for token in ["tok", "tok-2"] {
        assert_eq!(gate.denial(token, "/a/x").await, Some(Denial::Inactive), "{token}");
    }
    gate.ok(200, "PUT", &one, json!({"Active": true})).await;
    gate.pass(59 * S);
    assert_eq!(gate.denial("tok", "/a/x").await, None);
    gate.pass(S);
    assert_eq!(gate.denial("tok", "/a/x").await, Some(Denial::TokenUnknown));
    assert_eq!(gate.denial("tok-2", "/a/x").await, None);
    // Its value is free again, and is not taken from who has it now.
    let (app, _) = gate.import("tok", 1, &[1]).await;
    gate.ok(200, "PUT", &one, json!({"Alias": "renamed"})).await;
    gate.ok(200, "POST", &format!("{one}/rotate"), json!({"GracePeriod": 60})).await;
    assert_eq!(gate.denial("tok-2", "/a/x").await, None);
    // A second rotation within the grace period ends the first one's.
    gate.ok(200, "POST", &format!("{one}/rotate"), json!({"KeyID": "tok-4", "GracePeriod": 60}))
        .await;
    assert_eq!(gate.denial("tok-2", "/a/x").await, Some(Denial::TokenUnknown));
    gate.ok(200, "DELETE", &one, Value::Null).await;
    assert_eq!(gate.denial("tok-4", "/a/x").await, Some(Denial::TokenUnknown));
    assert_eq!(gate.denial("tok", "/a/x").await, None);
    gate.ok(200, "DELETE", &format!("/apps/{app}"), Value::Null).await;
    assert_eq!(gate.tokens().await, 0, "no record is left behind");
}

#[tokio::test]
async fn faults_of_a_rotation_are_named_and_nothing_is_written() {
    let gate = Gate::new().await;
    let (_, _, id) = gate.simple(unlimited()).await;
    let path = format!("/apps/1/custom_credentials/{id}/rotate");
    for (body, fault) in [
        (json!({"KeyID": "a b"}), "KeyID must be visible ASCII characters without spaces"),
        (json!({"GracePeriod": -1}), "GracePeriod must be 0 to 7776000 seconds"),
        (json!({"GracePeriod": 7_776_001}), "GracePeriod must be 0 to 7776000 seconds"),
        (json!({"KeyID": crate::gate::SECRET}), "KeyID must not be an admin token"),
        (json!({"KeyID": "tok"}), "key already in use"),
    ] {
        let refused = gate.ok(422, "POST", &path, body).await;
        assert_eq!(refused["errors"], json!([fault]));
        assert_eq!((&refused["status"], &refused["message"]), (&json!("error"), &json!(fault)));
    }
    assert_eq!(gate.denial("tok", "/a/x").await, None);
    assert_eq!(gate.tokens().await, 1);
}

#[tokio::test]
async fn non_managed_custom_key_and_secret() {
    let gate = Gate::new().await;
    gate.simple(unlimited()).await;
    let body = json!({"Alias": "pair", "Type": "CREDENTIAL_TYPE_CUSTOM", "PlanID": 123,
        "CredentialKey": "client-key-1234", "CredentialSecret": "s3cret-s3cret-s3cret",
        "ProductIDs": [123], "KeyID": "<string>"});
    let path = "/apps/1/custom_credentials";
    let made = gate.ok(201, "POST", path, body).await;
    assert_eq!(made["CredentialSecret"], "s3cret-s3cret-s3cret");
    let one = format!("{path}/{}", made["ID"]);
    let shown = gate.ok(200, "GET", &one, Value::Null).await;
    for (member, value) in [
        ("CredentialKey", json!("client-key-1234")),
        ("CredentialSecret", json!("s3cret-s3cret-s3cret")),
        ("KeyID", Value::Null),
        ("PlanID", Value::Null),
        ("ProductIDs", json!([])),
    ] {
        assert_eq!(shown[member], value, "{member}");
    }
    for secret in ["client-key-1234", "s3cret-s3cret-s3cret"] {
        assert_eq!(gate.denial(secret, "/a/x").await, Some(Denial::TokenUnknown));
        gate.holds_nowhere(secret).await;
    }
    gate.ok(200, "PUT", &one, shown).await;
    let renamed = gate.ok(200, "PUT", &one, json!({"Alias": "other", "CredentialKey": "x"})).await;
    assert_eq!(renamed["CredentialKey"], "client-key-1234");
    let told = json!({"Alias": "is s3cret-s3cret-s3cret"});
    gate.ok(422, "PUT", &one, told).await;
    gate.ok(422, "POST", &format!("{one}/rotate"), json!({})).await;
    gate.ok(404, "POST", &format!("{one}/reset_quota"), json!({})).await;
    let body = json!({"Alias": "none", "Type": "CREDENTIAL_TYPE_CUSTOM"});
    let refused = gate.ok(422, "POST", path, body).await;
    let fault = "CredentialKey is required when Type is CREDENTIAL_TYPE_CUSTOM";
    assert_eq!(refused, json!({"errors": [fault]}));
    gate.ok(200, "DELETE", &one, Value::Null).await;
    gate.ok(404, "GET", &one, Value::Null).await;
}

#[tokio::test]
async fn suspend_and_resume_and_an_exact_expiry() {
    let gate = Gate::new().await;
    let mut plan = unlimited();
    plan["KeyExpiresIn"] = json!(90);
    let (_, _, id) = gate.simple(plan).await;
    let one = format!("/apps/1/custom_credentials/{id}");
    gate.ok(200, "PUT", &one, json!({"Active": "false"})).await;
    assert_eq!(gate.denial("tok", "/a/x").await, Some(Denial::Inactive));
    gate.ok(200, "PUT", &one, json!({"Active": true})).await;
    assert_eq!(gate.denial("tok", "/a/x").await, None);
    // Shown in minutes, put back as shown, and exact all the same.
    let shown = gate.ok(200, "GET", &one, Value::Null).await;
    assert_eq!(shown["Expires"].as_str().unwrap().len(), "2026-03-02 09:14".len());
    gate.ok(200, "PUT", &one, shown).await;
    gate.pass(90 * S - Duration::from_millis(1));
    assert_eq!(gate.denial("tok", "/a/x").await, None);
    gate.pass(Duration::from_millis(1));
    for _ in 0..2 {
        assert_eq!(gate.denial("tok", "/a/x").await, Some(Denial::Expired));
        gate.pass(366 * 86_400 * S);
    }
    gate.ok(200, "PUT", &one, json!({"Expires": null})).await;
    assert_eq!(gate.denial("tok", "/a/x").await, None, "renewed");
}

#[tokio::test]
async fn reset_a_keys_quota() {
    let gate = Gate::new().await;
    let plan = json!({"Name": "plan", "UnlimitedRateLimit": true, "Quota": 3,
        "QuotaRenewalRate": 3600, "QuotaScope": "product"});
    let plan = gate.plan(plan).await;
    let (a, b) = (gate.product("a", &["a"]).await, gate.product("b", &["b"]).await);
    let (app, id) = gate.import("tok", plan, &[a, b]).await;
    let path = format!("/apps/{app}/custom_credentials/{id}");
    for _ in 0..3 {
        for api in ["/a/x", "/b/x"] {
            assert_eq!(gate.admitted("tok", api, 5).await, 3, "{api}");
        }
        let answer = gate.ok(200, "POST", &format!("{path}/reset_quota"), Value::Null).await;
        assert_eq!((&answer["status"], &answer["not_reset"]), (&json!("ok"), &json!([])));
    }
    // A rotation keeps the number of resets: no window of before opens again.
    assert_eq!(gate.admitted("tok", "/a/x", 5).await, 3);
    gate.ok(200, "POST", &format!("{path}/rotate"), json!({"KeyID": "tok-2"})).await;
    assert_eq!(gate.admitted("tok-2", "/a/x", 5).await, 0);
}

#[tokio::test]
async fn revoke_credential_access_request_app_and_user() {
    for what in ["credential", "request", "app", "user"] {
        let gate = Gate::new().await;
        let (plan, product, _) = gate.simple(unlimited()).await;
        let user = json!({"Email": "a@acme.test", "OrganisationID": 1});
        let user = gate.post("/users", user).await;
        let app = gate.post("/apps", json!({"Name": "theirs", "UserID": user})).await;
        let id = gate.import_into(app, "one", "theirs", plan, &[product]).await;
        assert_eq!(gate.denial("theirs", "/a/x").await, None, "the cache is warm");
        let one = format!("/apps/{app}/custom_credentials/{id}");
        let shown = gate.ok(200, "GET", &one, Value::Null).await;
        let request = shown["AccessRequest"].as_str().unwrap().replace("AccessRequest#", "");
        let path = match what {
            "credential" => one.clone(),
            "request" => format!("/access_requests/{request}"),
            "app" => format!("/apps/{app}"),
            _ => format!("/users/{user}?force=true"),
        };
        let answer = gate.ok(200, "DELETE", &path, Value::Null).await;
        assert_eq!(answer["status"], "ok", "{what}");
        assert_eq!(gate.denial("theirs", "/a/x").await, Some(Denial::TokenUnknown), "{what}");
        assert_eq!(gate.denial("tok", "/a/x").await, None, "others stay");
        assert_eq!(gate.call("GET", &one, Value::Null).await.0, StatusCode::NOT_FOUND);
        let left = gate.catalog.store().list(Kind::Credential, &[], None, 10).await.unwrap();
        assert_eq!(left.records.len(), 1, "{what}");
    }
}
