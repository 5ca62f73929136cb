//! What the portals of others can do (reference: portal-api, A1 and A2), row by row: the tests of
//! each row that this product must not be without, and those that no other file has.

use serde_json::{Value, json};
use turnpike::domain::denial::Denial;

use crate::gate::Gate;

/// Rows of the enterprise portal, and the tests that hold them.
const ENTERPRISE: &[(&str, &[&str])] = &[
    (
        "Import custom credential",
        &[
            "the_guides_two_requests_import_a_token_that_then_works",
            "a_token_is_shown_once_and_kept_nowhere",
        ],
    ),
    ("Standard (generated) auth-token credential", &["standard_generated_auth_token_credential"]),
    ("Non-managed custom key/secret", &["non_managed_custom_key_and_secret"]),
    (
        "Custom credential rotate/revoke",
        &[
            "custom_credential_rotate_and_revoke",
            "a_credential_revoked_under_load_is_refused_within_a_second",
            "a_credential_revoked_under_load_is_refused_on_both_gateways_within_a_second",
        ],
    ),
    ("Apps (developer applications)", &["apps_are_made_read_changed_and_deleted_with_their_keys"]),
    ("API product", &["api_product_of_several_apis"]),
    ("Product from several APIs, one auth method per product", &["one_auth_method_per_product"]),
    ("Documentation-only product", &["documentation_only_product"]),
    (
        "Path-based permissions inside a product policy",
        &["path_based_permissions_and_versions_inside_a_product"],
    ),
    (
        "API plan",
        &[
            "five_in_ten_seconds_and_the_sixth_is_told_when_to_come_back",
            "the_fourth_of_three_is_refused_also_after_a_restart",
        ],
    ),
    (
        "Unlimited rate / unlimited quota",
        &["ten_thousand_calls_under_an_unlimited_plan_are_admitted"],
    ),
    (
        "Key lifetime (KeyExpiresIn)",
        &["an_expired_credential_is_refused_with_401", "suspend_and_resume_and_an_exact_expiry"],
    ),
    ("Access-request frequency", &["access_request_frequency"]),
    ("Auto-approve", &["auto_approve"]),
    ("Provisioning / access request", &["provisioning_with_approve_and_reject"]),
    ("Reuse a credential for more products", &["reuse_a_credential_for_more_products"]),
    ("Remove one product from a credential", &["remove_one_product_from_a_credential"]),
    ("Change plan of a credential", &["change_plan_of_a_credential"]),
    (
        "Rotate credential",
        &[
            "rotation_after_a_429_works_at_once_and_keeps_the_quota",
            "rotation_after_a_429_works_at_once_on_both_gateways_and_keeps_the_quota",
        ],
    ),
    (
        "Revoke credential / access request / app / user",
        &["revoke_credential_access_request_app_and_user"],
    ),
    (
        "Portal-first product/plan",
        &["a_plan_becomes_the_policy_it_says", "a_product_becomes_the_policy_it_says"],
    ),
    ("Catalogues public/private + audiences", &["catalogues_public_and_private_with_audiences"]),
    (
        "Users, organisations, teams, default org/team",
        &["a_deleted_organisation_leaves_its_keys_to_the_default_one"],
    ),
    (
        "App owner reassignment",
        &[
            "owners_move_with_their_tokens",
            "a_quota_of_a_developer_is_one_for_all_apps_of_the_user",
        ],
    ),
    (
        "Credential metadata (plan MetaData)",
        &[
            "metadata_of_plans_and_credentials_is_kept_and_elsewhere_secrets_are_not",
            "plan_edits_reach_every_credential_at_once",
        ],
    ),
    (
        "Default metadata ApplicationID, DeveloperID, OrganisationID, TeamIDs",
        &["default_metadata_names_app_developer_organisation_and_teams"],
    ),
    ("Custom user attributes into key metadata", &["custom_user_attributes_into_key_metadata"]),
    (
        "Custom rate-limit key (rate_limit_pattern)",
        &[
            "a_quota_of_an_organisation_is_one_for_all_its_users",
            "a_quota_of_an_api_is_one_for_each_api_of_a_credential",
        ],
    ),
    ("Several providers", &["faults_of_plans_and_products_are_named_with_their_paths"]),
    ("My Apps / My Dashboard", &["a_credentials_usage_is_what_my_apps_shows"]),
    ("Audit log", &["every_write_is_in_the_audit_log_with_who_did_it"]),
    ("Custom IDs", &["custom_ids_name_what_numbers_do"]),
];

/// Rows of the classic portal.
const CLASSIC: &[(&str, &[&str])] = &[
    (
        "Several policies per key",
        &[
            "two_policies_with_rates_of_their_own_are_two_limits_under_one_key",
            "limits_of_one_api_are_separate",
            "several_products_under_one_plan_share_its_quota_unless_it_says_otherwise",
        ],
    ),
    ("Add a key to a developer with ≥1 policies", &["change_policy_of_a_key"]),
    ("Change policy of a key", &["change_policy_of_a_key"]),
    ("Revoke key; reset a key's quota", &["reset_a_keys_quota"]),
    (
        "One key for several APIs of the same auth type; edit its APIs later",
        &["one_key_for_several_apis_that_are_edited_later"],
    ),
    (
        "Aggregate usage of a developer and per key",
        &["usage_of_an_app_a_user_and_an_organisation", "history_is_kept_by_day_for_thirty_days"],
    ),
    (
        "Quota monitor e-mails",
        &[
            "events_at_80_and_100_percent_come_once_in_a_period",
            "events_of_a_quota_come_once_in_a_period_from_one_of_two_gateways",
        ],
    ),
];

#[test]
fn every_row_has_its_tests() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let mut all = String::new();
    for file in std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
        if file.extension().is_some_and(|ending| ending == "rs") {
            all += &std::fs::read_to_string(file).unwrap();
        }
    }
    // Of a row that no request reaches yet: a credential of the portal has one plan.
    all += include_str!("../../src/domain/grant/tests.rs");
    for (row, tests) in ENTERPRISE.iter().chain(CLASSIC) {
        assert!(!tests.is_empty(), "{row}");
        for test in *tests {
            assert!(all.contains(&format!("fn {test}()")), "{row}: there is no test {test}");
        }
    }
}

fn unlimited() -> Value {
    json!({"Name": "plan", "UnlimitedRateLimit": true, "UnlimitedQuota": true})
}

#[tokio::test]
async fn apps_are_made_read_changed_and_deleted_with_their_keys() {
    let gate = Gate::new().await;
    let (plan, product, _) = gate.simple(unlimited()).await;
    let body = json!({"Name": "Robot", "Description": "nightly", "RedirectURLs": "", "UserID": 1,
        "Visibility": "personal"});
    let made = gate.ok(200, "POST", "/apps", body).await;
    let one = format!("/apps/{}", made["ID"]);
    assert_eq!(gate.ok(200, "GET", &one, Value::Null).await, made);
    let mut changed = made.clone();
    changed["Name"] = json!("Robot 2");
    let changed = gate.ok(200, "PUT", &one, changed).await;
    assert_eq!((&changed["Name"], &changed["Visibility"]), (&json!("Robot 2"), &json!("personal")));
    let body = json!({"Name": "x", "UserID": 99, "Visibility": "everybody"});
    let refused = gate.ok(422, "PUT", &one, body).await;
    assert_eq!(refused["errors"].as_array().unwrap().len(), 2, "all faults: {refused}");
    let app = made["ID"].as_u64().unwrap();
    gate.import_into(app, "one", "theirs", plan, &[product]).await;
    assert_eq!(gate.denial("theirs", "/a/x").await, None);
    assert_eq!(gate.ok(200, "DELETE", &one, Value::Null).await, json!({"status": "ok"}));
    assert_eq!(gate.denial("theirs", "/a/x").await, Some(Denial::TokenUnknown));
    for path in [&one, &format!("{one}/custom_credentials")] {
        gate.ok(404, "GET", path, Value::Null).await;
    }
}

#[tokio::test]
async fn one_auth_method_per_product() {
    let admin = crate::admin_support::Admin::start().await;
    let mut mixed = crate::admin_support::product("mixed", "inv-v1");
    mixed["APIDetails"] = json!([{"APIID": "inv-v1"}, {"APIID": "open"}]);
    let refused = admin.expect(422, "POST", "/products", mixed.clone()).await;
    assert!(refused["errors"][0].as_str().unwrap().contains("mixes APIs"), "{refused}");
    mixed["APIDetails"] = json!([{"APIID": "inv-v1"}, {"APIID": "inv-v2"}]);
    admin.expect(201, "POST", "/products", mixed).await;
}

#[tokio::test]
async fn a_deleted_organisation_leaves_its_keys_to_the_default_one() {
    let gate = Gate::new().await;
    let (plan, product, _) = gate.simple(unlimited()).await;
    let acme = gate.post("/organisations", json!({"Name": "Acme"})).await;
    let user = json!({"Email": "dev@acme.test", "OrganisationID": acme});
    let user = gate.post("/users", user).await;
    let app = gate.post("/apps", json!({"Name": "theirs", "UserID": user})).await;
    gate.import_into(app, "one", "theirs", plan, &[product]).await;
    assert_eq!(gate.denial("theirs", "/a/x").await, None);
    gate.ok(200, "DELETE", &format!("/organisations/{acme}"), Value::Null).await;
    let moved = gate.ok(200, "GET", &format!("/users/{user}"), Value::Null).await;
    assert_eq!(moved["OrganisationID"], 1, "{moved}");
    assert_eq!(gate.denial("theirs", "/a/x").await, None, "its keys work");
}

#[tokio::test]
async fn change_policy_of_a_key() {
    let gate = Gate::new().await;
    let (_, a, id) = gate.simple(unlimited()).await;
    let b = gate.product("b", &["b"]).await;
    let path = format!("/apps/1/custom_credentials/{id}");
    let (open, shut) = (None, Some(Denial::ApiNotGranted));
    for (products, of_a, of_b) in
        [(vec![a, b], open, open), (vec![b], shut, open), (vec![a], open, shut)]
    {
        gate.ok(200, "PUT", &path, json!({"ProductIDs": products})).await;
        let got = (gate.denial("tok", "/a/x").await, gate.denial("tok", "/b/x").await);
        assert_eq!(got, (of_a, of_b), "{products:?}, the same token");
    }
}

#[tokio::test]
async fn one_key_for_several_apis_that_are_edited_later() {
    let gate = Gate::new().await;
    let (_, product, _) = gate.simple(unlimited()).await;
    let path = format!("/products/{product}");
    let (open, shut) = (None, Some(Denial::ApiNotGranted));
    for (apis, of_a, of_b) in [
        (json!([{"APIID": "a"}, {"APIID": "b"}]), open, open),
        (json!([{"APIID": "b"}]), shut, open),
        (json!([{"APIID": "a"}]), open, shut),
    ] {
        let body = json!({"Name": "product", "ProviderID": 1, "IsDocumentationOnly": false,
            "APIDetails": apis});
        gate.ok(200, "PUT", &path, body).await;
        let got = (gate.denial("tok", "/a/x").await, gate.denial("tok", "/b/x").await);
        assert_eq!(got, (of_a, of_b), "{apis}, the same token");
    }
}
