//! Asking for access: pending, approved, rejected; new credentials and changes of old ones.

use std::time::Duration;

use serde_json::{Value, json};
use turnpike::domain::denial::Denial;
use turnpike::domain::seal::Reveal;

use crate::gate::Gate;

const S: Duration = Duration::from_secs(1);

fn unlimited(name: &str) -> Value {
    json!({"Name": name, "UnlimitedRateLimit": true, "UnlimitedQuota": true})
}

/// A plan, a product of `/a/` and an app of user 1.
async fn furnished(gate: &Gate, plan: Value) -> (u64, u64, u64) {
    let plan = gate.plan(plan).await;
    let product = gate.product("a", &["a"]).await;
    (plan, product, gate.post("/apps", json!({"Name": "robot", "UserID": 1})).await)
}

/// The token of the only credential that an access request brought.
async fn token_of(gate: &Gate, request: &Value) -> String {
    let path = format!("/access_requests/{request}");
    let shown = gate.ok(200, "GET", &path, Value::Null).await;
    shown["Credentials"][0]["Credential"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn provisioning_with_approve_and_reject() {
    let gate = Gate::new().await;
    let (plan, product, app) = furnished(&gate, unlimited("plan")).await;
    let provision = format!("/apps/{app}/provision");
    // Loosely typed, as the portal's own collection sends it.
    let body = json!({"PlanID": plan.to_string(), "ProductIDs": [product.to_string()],
        "DCRTemplateID": 1});
    let asked = gate.ok(200, "PUT", &provision, body.clone()).await;
    assert_eq!(asked["status"], "ok");
    let request = asked["AccessRequestID"].clone();
    let one = format!("/access_requests/{request}");
    let shown = gate.ok(200, "GET", &one, Value::Null).await;
    for (member, value) in [
        ("Status", json!("pending")),
        ("Plan", json!("plan")),
        ("Products", json!("a")),
        ("User", json!("User#1")),
        ("Client", json!("robot")),
        ("Credentials", json!([])),
        ("ProvisionImmediately", json!(false)),
    ] {
        assert_eq!(shown[member], value, "{member}");
    }
    assert_eq!(gate.tokens().await, 0, "pending: no key");
    // Approved: a key that works.
    let answer = gate.ok(200, "PUT", &format!("{one}/approve"), Value::Null).await;
    let message = format!("access request {request} is approved");
    assert_eq!((&answer["status"], &answer["message"]), (&json!("ok"), &json!(message)));
    assert!(answer.get("Credential").is_none(), "the portal reads it: {answer}");
    let token = token_of(&gate, &request).await;
    assert!(token.starts_with("tp_"), "{token}");
    assert_eq!(gate.denial(&token, "/a/x").await, None);
    for way in ["approve", "reject"] {
        let again = gate.ok(422, "PUT", &format!("{one}/{way}"), Value::Null).await;
        let fault = "the access request is approved already";
        assert_eq!(again, json!({"status": "error", "message": fault, "errors": [fault]}));
    }
    // Rejected: no key, and the list keeps the record.
    let asked = gate.ok(200, "PUT", &provision, body).await;
    let second = asked["AccessRequestID"].clone();
    gate.ok(200, "PUT", &format!("/access_requests/{second}/reject"), Value::Null).await;
    let path = format!("/access_requests/{second}/approve");
    let refused = gate.ok(422, "PUT", &path, json!({})).await;
    assert_eq!(refused["message"], "the access request is rejected already");
    let below = format!("/apps/{app}/access-requests");
    let list = gate.ok(200, "GET", &below, Value::Null).await;
    assert_eq!((&list[0]["Status"], &list[1]["Status"]), (&json!("approved"), &json!("rejected")));
    assert_eq!(list[1]["Products"], json!(["a"]));
    assert_eq!(gate.tokens().await, 1);
    // Deleting one revokes what it brought.
    gate.ok(200, "DELETE", &format!("{below}/{request}"), Value::Null).await;
    assert_eq!(gate.denial(&token, "/a/x").await, Some(Denial::TokenUnknown));
    for (part, member, value) in
        [("user", "ID", json!(1)), ("plan", "Name", json!("plan")), ("client", "ID", json!(app))]
    {
        let path = format!("/access_requests/{second}/{part}");
        let related = gate.ok(200, "GET", &path, Value::Null).await;
        assert_eq!(related[member], value, "{part}");
    }
    gate.ok(404, "GET", &format!("/access_requests/{second}/catalogue"), Value::Null).await;
}

#[tokio::test]
async fn auto_approve() {
    let gate = Gate::new().await.with_reveal(Reveal::Once);
    let mut plan = unlimited("plan");
    plan["AutoApproveAccessRequests"] = json!("true");
    plan["KeyExpiresIn"] = json!(60);
    let (plan, product, app) = furnished(&gate, plan).await;
    let body = json!({"PlanID": plan, "ProductIDs": product, "Alias": "mine"});
    let answer = gate.ok(200, "PUT", &format!("/apps/{app}/provision"), body.clone()).await;
    let token = answer["Credential"].as_str().expect("it is told: it cannot be read").to_owned();
    assert_eq!(gate.denial(&token, "/a/x").await, None, "without the approve call");
    let path = format!("/apps/{app}/custom_credentials/{}", answer["CredentialID"]);
    let shown = gate.ok(200, "GET", &path, Value::Null).await;
    assert_eq!(
        (&shown["Alias"], &shown["AuthTokenType"]),
        (&json!("mine"), &json!("AUTH_TOKEN_STANDARD"))
    );
    let list = gate.ok(200, "GET", "/access_requests", Value::Null).await;
    assert_eq!(
        (&list[0]["Status"], &list[0]["ProvisionImmediately"]),
        (&json!("approved"), &json!(true))
    );
    gate.pass(60 * S);
    assert_eq!(gate.denial(&token, "/a/x").await, Some(Denial::Expired));
    let refused = gate.ok(422, "PUT", &format!("/apps/{app}/provision"), body).await;
    assert_eq!(refused["errors"], json!(["Alias is already in use"]));
    let list = gate.ok(200, "GET", "/access_requests", Value::Null).await;
    assert_eq!(list.as_array().unwrap().len(), 1, "nothing half-written");
}

#[tokio::test]
async fn access_request_frequency() {
    let gate = Gate::new().await;
    let mut plan = unlimited("plan");
    (plan["PlanQuota"], plan["PlanQuotaRenewalRate"]) = (json!(2), json!(3600));
    let (plan, product, app) = furnished(&gate, plan).await;
    let other = gate.plan(unlimited("other")).await;
    let second = gate.post("/apps", json!({"Name": "another app", "UserID": 1})).await;
    let user = json!({"Email": "b@acme.test", "OrganisationID": 1});
    let user = gate.post("/users", user).await;
    let theirs = gate.post("/apps", json!({"Name": "of another user", "UserID": user})).await;
    let ask = async |app: u64, plan: u64, status: u16| {
        let body = json!({"PlanID": plan, "ProductIDs": [product]});
        gate.ok(status, "PUT", &format!("/apps/{app}/provision"), body).await
    };
    ask(app, plan, 200).await;
    ask(second, plan, 200).await;
    for app in [app, second] {
        let refused = ask(app, plan, 422).await;
        assert_eq!(refused["errors"], json!(["Plan access quota exceeded"]));
    }
    ask(app, other, 200).await;
    ask(theirs, plan, 200).await;
    // Being refused counts for nothing, and an edit of the user keeps the count.
    gate.ok(200, "PUT", "/users/1", json!({"First": "Edited"})).await;
    gate.pass(3_599 * S);
    ask(app, plan, 422).await;
    gate.pass(S);
    ask(app, plan, 200).await;
    let body = json!({"Alias": "x", "Type": "CREDENTIAL_TYPE_TYK_MANAGED", "PlanID": plan,
        "AuthTokenType": "AUTH_TOKEN_CUSTOM", "KeyID": "imported", "ProductIDs": [product]});
    for n in 0..3 {
        let mut body = body.clone();
        (body["Alias"], body["KeyID"]) = (json!(format!("x{n}")), json!(format!("imported-{n}")));
        gate.ok(201, "POST", &format!("/apps/{app}/custom_credentials"), body).await;
    }
}

#[tokio::test]
async fn reuse_a_credential_for_more_products() {
    let gate = Gate::new().await;
    let (plan, a, app) = furnished(&gate, unlimited("plan")).await;
    let b = gate.product("b", &["b"]).await;
    let id = gate.import_into(app, "one", "tok", plan, &[a]).await;
    assert_eq!(gate.denial("tok", "/b/x").await, Some(Denial::ApiNotGranted));
    let provision = format!("/apps/{app}/provision");
    let asked =
        gate.ok(200, "PUT", &provision, json!({"CredentialID": id, "ProductIDs": [b]})).await;
    let request = asked["AccessRequestID"].clone();
    assert_eq!(gate.denial("tok", "/b/x").await, Some(Denial::ApiNotGranted), "not yet");
    let one = format!("/apps/{app}/custom_credentials/{id}");
    let shown = gate.ok(200, "GET", &one, Value::Null).await;
    assert_eq!(shown["PendingAccessRequest"], format!("AccessRequest#{request}"));
    gate.ok(200, "PUT", &format!("/access_requests/{request}/approve"), Value::Null).await;
    for api in ["/a/x", "/b/x"] {
        assert_eq!(gate.denial("tok", api).await, None, "the same token reaches {api}");
    }
    for (body, fault) in [
        (
            json!({"CredentialID": id, "ProductIDs": [b]}),
            "ProductIDs 2 is part of the credential already",
        ),
        (json!({"CredentialID": id, "PlanID": plan}), "PlanID is the credential's plan already"),
        (json!({"CredentialID": id}), "CredentialID needs a PlanID or ProductIDs to be changed to"),
        (json!({"CredentialID": 99, "ProductIDs": [b]}), "CredentialID 99 does not exist"),
    ] {
        let refused = gate.ok(422, "PUT", &provision, body).await;
        assert_eq!(refused["errors"], json!([fault]));
    }
    let strange = gate.post("/apps", json!({"Name": "another", "UserID": 1})).await;
    let body = json!({"CredentialID": id, "ProductIDs": [a]});
    let refused = gate.ok(422, "PUT", &format!("/apps/{strange}/provision"), body).await;
    assert_eq!(refused["errors"], json!(["CredentialID 1 does not exist"]));
    // The change is history: deleting it does not take the credential away.
    gate.ok(200, "DELETE", &format!("/access_requests/{request}"), Value::Null).await;
    assert_eq!(gate.denial("tok", "/b/x").await, None);
}

#[tokio::test]
async fn remove_one_product_from_a_credential() {
    let gate = Gate::new().await;
    let (plan, a, app) = furnished(&gate, unlimited("plan")).await;
    let b = gate.product("b", &["b"]).await;
    let id = gate.import_into(app, "one", "tok", plan, &[a, b]).await;
    assert_eq!(gate.denial("tok", "/b/x").await, None);
    let one = format!("/apps/{app}/custom_credentials/{id}");
    gate.ok(200, "PUT", &one, json!({"ProductIDs": [a]})).await;
    assert_eq!(gate.denial("tok", "/b/x").await, Some(Denial::ApiNotGranted));
    assert_eq!(gate.denial("tok", "/a/x").await, None, "others keep working");
    gate.ok(422, "PUT", &one, json!({"ProductIDs": []})).await;
}

#[tokio::test]
async fn change_plan_of_a_credential() {
    let gate = Gate::new().await;
    let old = json!({"Name": "old", "UnlimitedRateLimit": true, "Quota": 3,
        "QuotaRenewalRate": 3600});
    let (old, product, app) = furnished(&gate, old).await;
    let new = json!({"Name": "new", "UnlimitedRateLimit": true, "Quota": 5,
        "QuotaRenewalRate": 3600});
    let new = gate.plan(new).await;
    let id = gate.import_into(app, "one", "tok", old, &[product]).await;
    assert_eq!(gate.admitted("tok", "/a/x", 9).await, 3);
    let provision = format!("/apps/{app}/provision");
    let body = json!({"CredentialID": id, "PlanID": new});
    let asked = gate.ok(200, "PUT", &provision, body.clone()).await;
    assert_eq!(gate.admitted("tok", "/a/x", 9).await, 0, "the old plan until then");
    let waits = gate.ok(422, "PUT", &provision, body.clone()).await;
    let fault = format!("CredentialID waits for access request {}", asked["AccessRequestID"]);
    assert_eq!(waits["errors"], json!([fault]));
    let one = format!("/access_requests/{}", asked["AccessRequestID"]);
    gate.ok(200, "PUT", &format!("{one}/reject"), Value::Null).await;
    assert_eq!(gate.admitted("tok", "/a/x", 9).await, 0, "rejected: the old plan stays");
    let asked = gate.ok(200, "PUT", &provision, body.clone()).await;
    let one = format!("/access_requests/{}", asked["AccessRequestID"]);
    gate.ok(200, "DELETE", &one, Value::Null).await;
    let asked = gate.ok(200, "PUT", &provision, body).await;
    let one = format!("/access_requests/{}", asked["AccessRequestID"]);
    gate.ok(200, "PUT", &format!("{one}/approve"), Value::Null).await;
    assert_eq!(gate.admitted("tok", "/a/x", 9).await, 2, "5 less the 3 that were used");
    let path = format!("/apps/{app}/custom_credentials/{id}");
    let shown = gate.ok(200, "GET", &path, Value::Null).await;
    assert_eq!(
        (&shown["PlanID"], &shown["PendingAccessRequest"]),
        (&json!(new.to_string()), &Value::Null)
    );
    // What a request waits for can go: it is then told, and the request still waits.
    let body = json!({"CredentialID": id, "PlanID": old});
    let asked = gate.ok(200, "PUT", &provision, body).await;
    gate.ok(200, "DELETE", &format!("/plans/{old}"), Value::Null).await;
    let one = format!("/access_requests/{}", asked["AccessRequestID"]);
    let refused = gate.ok(422, "PUT", &format!("{one}/approve"), Value::Null).await;
    assert_eq!(refused["errors"], json!([format!("PlanID {old} does not exist")]));
    // A revoked credential takes the waiting request with it.
    gate.ok(200, "DELETE", &path, Value::Null).await;
    gate.ok(404, "GET", &one, Value::Null).await;
}

#[tokio::test]
async fn faults_of_a_request_are_named_at_once() {
    let gate = Gate::new().await;
    let (plan, product, app) = furnished(&gate, unlimited("plan")).await;
    let paper = json!({"Name": "paper", "IsDocumentationOnly": true, "SpecDetails": []});
    let paper = gate.post("/products", paper).await;
    let provision = format!("/apps/{app}/provision");
    for (body, faults) in [
        (json!({}), json!(["PlanID is required", "ProductIDs must name at least one product"])),
        (
            json!({"PlanID": 99, "ProductIDs": [98, paper]}),
            json!([
                "PlanID 99 does not exist",
                "ProductIDs 98 does not exist",
                format!("ProductIDs {paper} is documentation only and grants nothing"),
            ]),
        ),
        (
            json!({"PlanID": plan, "ProductIDs": [product], "CatalogueID": 9}),
            json!(["CatalogueID 9 does not exist"]),
        ),
        (
            json!({"PlanID": [], "ProductIDs": [[]]}),
            json!(["PlanID must be an id", "ProductIDs must be an id"]),
        ),
    ] {
        let refused = gate.ok(422, "PUT", &provision, body).await;
        assert_eq!(refused["errors"], faults);
        assert_eq!(refused["status"], "error");
    }
    let body = json!({"PlanID": plan, "ProductIDs": [product]});
    let refused = gate.ok(422, "PUT", "/apps/99/provision", body).await;
    assert_eq!(refused["errors"], json!(["app not found"]));
    gate.ok(422, "PUT", "/access_requests/99/approve", Value::Null).await;
    let all = gate.ok(200, "GET", "/access_requests", Value::Null).await;
    assert_eq!(all, json!([]));
    gate.import_into(app, "taken", "a-token", plan, &[product]).await;
    let body = json!({"PlanID": 99, "ProductIDs": [product], "Alias": "taken"});
    let refused = gate.ok(422, "PUT", &provision, body).await;
    let faults = json!(["PlanID 99 does not exist", "Alias is already in use"]);
    assert_eq!(refused["errors"], faults, "what is found at approval is told now");
}
