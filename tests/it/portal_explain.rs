//! Why a request would be admitted or refused, without sending it.

use serde_json::{Value, json};

use crate::gate::Gate;

async fn explained(gate: &Gate, body: Value) -> Value {
    let (status, told) = gate.request("POST", "/v1/explain", body).await;
    assert_eq!(status.as_u16(), 200, "{told}");
    told
}

#[tokio::test]
async fn a_decision_is_told_with_the_policies_behind_it_and_costs_nothing() {
    let gate = Gate::new().await;
    let plan = json!({"Name": "p", "RateLimit": 100, "Per": 10, "Quota": 3,
        "QuotaRenewalRate": 3600});
    let plan = gate.plan(plan).await;
    let product = gate.product("a", &["a"]).await;
    let (_, id) = gate.import("tok-1", plan, &[product]).await;
    for _ in 0..5 {
        for holder in [json!({"KeyID": "tok-1"}), json!({"CredentialID": id.to_string()})] {
            let mut body = holder;
            (body["Path"], body["Method"]) = (json!("/a/x?y=1"), json!("POST"));
            let told = explained(&gate, body).await;
            assert_eq!((&told["decision"], &told["code"]), (&json!("admit"), &Value::Null));
            assert_eq!((&told["credential"], &told["api"]), (&json!(id), &json!("a")));
            assert_eq!(told["cost"], 1);
            let by = &told["policies"];
            assert_eq!(by["access"].as_array().unwrap().len(), 1, "{by}");
            assert_eq!((&by["rate"], &by["quota"]), (&by["quota"], &by["rate"]));
            let kinds: Vec<_> =
                told["limits"].as_array().unwrap().iter().map(|limit| &limit["kind"]).collect();
            assert_eq!(kinds, ["rate", "quota"]);
        }
    }
    assert_eq!(gate.admitted("tok-1", "/a/x", 4).await, 3, "asking cost nothing");
    let told = explained(&gate, json!({"KeyID": "tok-1", "Path": "/a/x"})).await;
    assert_eq!((&told["decision"], &told["code"]), (&json!("deny"), &json!("quota_exceeded")));
    assert_eq!((&told["status"], &told["limits"][1]["remaining"]), (&json!(429), &json!(0)));
}

#[tokio::test]
async fn each_refusal_is_the_one_that_the_request_gets() {
    let gate = Gate::new().await;
    let plan = gate.plan(json!({"Name": "p", "UnlimitedRateLimit": true})).await;
    let product = gate.product("a", &["a"]).await;
    let (app, id) = gate.import("tok-1", plan, &[product]).await;
    for (token, path, code) in [
        ("tok-2", "/a/x", "token_unknown"),
        ("tok-1", "/b/x", "api_not_granted"),
        ("tok-1", "/nowhere", "no_route"),
    ] {
        let told = explained(&gate, json!({"KeyID": token, "Path": path})).await;
        assert_eq!((&told["decision"], &told["code"]), (&json!("deny"), &json!(code)), "{path}");
    }
    let one = format!("/apps/{app}/custom_credentials/{id}");
    gate.ok(200, "PUT", &one, json!({"Active": false})).await;
    let told = explained(&gate, json!({"KeyID": "tok-1", "Path": "/a/x"})).await;
    assert_eq!(told["code"], "inactive");
    gate.ok(200, "PUT", &one, json!({"Active": true})).await;
    gate.ok(200, "DELETE", &format!("/plans/{plan}"), Value::Null).await;
    let told = explained(&gate, json!({"KeyID": "tok-1", "Path": "/a/x"})).await;
    assert_eq!(told["code"], "policies_unusable");
    assert!(told["reason"].as_str().unwrap().contains("policy not found"), "{told}");
}

#[tokio::test]
async fn every_fault_of_a_question_is_named() {
    let gate = Gate::new().await;
    let body = json!({"KeyID": "tok-1", "CredentialID": 1, "Method": {}, "Host": []});
    let (status, told) = gate.request("POST", "/v1/explain", body).await;
    assert_eq!(status.as_u16(), 422, "{told}");
    for name in ["CredentialID", "Method", "Path", "Host"] {
        assert!(told.to_string().contains(name), "{name}: {told}");
    }
    assert!(!told.to_string().contains("tok-1"));
    for (body, expect) in [
        (json!({"Path": "/a/x"}), 422),
        (json!({"Path": "/a/%zz", "KeyID": "t"}), 422),
        (json!({"Path": "/a/x", "CredentialID": 99}), 404),
    ] {
        let (status, told) = gate.request("POST", "/v1/explain", body).await;
        assert_eq!(status.as_u16(), expect, "{told}");
    }
    let (_, entries) = gate.request("GET", "/v1/audit", Value::Null).await;
    assert!(!entries.to_string().contains("explain"), "it changes nothing: {entries}");
}
