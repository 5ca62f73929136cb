use std::num::NonZeroU64;
use std::time::Duration;

use serde_json::{Value, json};
use turnpike::domain::limit::{CalendarUnit, Period};
use turnpike::domain::policy::{
    FailureMode, Methods, QuotaScope, Setting, UrlAccess, VersionAccess,
};

use turnpike::store::{Expect, Kind, RecordKey, Write};

use crate::admin_support::{Admin, credential, faults, id, plan, product};
use crate::whole::misfits;

const KEY: &str = "LEG-00fa-91c2-77aa";

#[tokio::test]
async fn a_fresh_store_holds_organisation_1_and_user_1() {
    let admin = Admin::start().await;
    let user = admin.expect(200, "GET", "/users/1", Value::Null).await;
    assert_eq!(user["OrganisationID"], 1);
    assert_eq!(user["Organisation"], "Default organisation");
    assert_eq!(user["Teams"][0]["Default"], true);
    let before = admin.records().await;
    turnpike::admin::seed(&admin.catalog, &*admin.clock).await.unwrap();
    assert_eq!(admin.records().await, before, "seeding again changes nothing");
    let made = json!({ "Email": "Dev@Acme.test", "OrganisationID": 1 });
    assert_eq!(id(&admin.expect(200, "POST", "/users", made).await), 2);
    admin.expect(200, "DELETE", "/users/1?force=true", Value::Null).await;
    turnpike::admin::seed(&admin.catalog, &*admin.clock).await.unwrap();
    admin.expect(404, "GET", "/users/1", Value::Null).await;
}

/// What was written to a store that has lost what it had, before anybody saw to that, stays.
#[tokio::test]
async fn what_a_fresh_store_holds_is_put_back_around_what_is_there() {
    let admin = Admin::start().await;
    admin.expect(200, "PUT", "/organisations/1", json!({ "Name": "Acme" })).await;
    admin.expect(200, "DELETE", "/users/1?force=true", Value::Null).await;
    let key = RecordKey::bytes(Kind::Meta, "portal/seeded");
    let gone = Write { key, expect: Expect::Anything, value: None };
    admin.catalog.commit(&[gone]).await.unwrap();
    let seed = || turnpike::admin::seed(&admin.catalog, &*admin.clock);
    assert!(seed().await.unwrap(), "it was not there");
    let user = admin.expect(200, "GET", "/users/1", Value::Null).await;
    assert_eq!(
        (&user["Organisation"], &user["Teams"][0]["Default"]),
        (&json!("Acme"), &json!(true))
    );
    assert_eq!(misfits(&**admin.catalog.store()).await, Vec::<String>::new());
    assert!(!seed().await.unwrap(), "it is there again");
}

#[tokio::test]
async fn bodies_are_read_leniently() {
    let admin = Admin::start().await;
    let acme = admin.expect(200, "POST", "/organisations", json!({ "Name": "Acme" })).await;
    assert_eq!(acme["Teams"][0]["Name"], "Acme All users");
    let team = id(&acme["Teams"][0]);
    let body = json!({
        "Email": "a@acme.test", "Active": "true", "Teams": team.to_string(),
        "Organisation": { "ID": id(&acme).to_string() }, "Password": "hunter2hunter2"
    });
    let user = admin.expect(200, "POST", "/users", body).await;
    assert_eq!(user["OrganisationID"], id(&acme));
    assert_eq!(user["Active"], true);
    assert_eq!(user["Teams"][0]["ID"], team);
    assert!(!user.to_string().contains("hunter2"));
    let body = json!({ "Name": 12, "UserID": id(&user).to_string(), "Own": { "x": [1] } });
    let app = admin.expect(200, "POST", "/apps", body).await;
    assert_eq!((&app["Name"], &app["UserID"]), (&json!("12"), &user["ID"]));
    assert_eq!(app["Visibility"], "organisation");
    assert_eq!(app["Own"], json!({ "x": [1] }), "unknown members are kept");
    let path = format!("/apps/{}", id(&app));
    let mut same = admin.expect(200, "PUT", &path, app.clone()).await;
    same["UpdatedAt"] = app["UpdatedAt"].clone();
    assert_eq!(same, app);
    for (n, catalogues) in
        [json!(1), json!("1"), json!([{"ID": "1"}]), json!(["1"])].into_iter().enumerate()
    {
        let body = json!({"Name": format!("plan {n}"), "ProviderID": "1", "RateLimit": "5", "Per": "1",
            "UnlimitedQuota": "true", "Catalogues": catalogues});
        let plan = admin.expect(200, "POST", "/plans", body).await;
        assert_eq!((&plan["Catalogues"], &plan["RateLimit"]), (&json!([1]), &json!(5)), "{plan}");
    }
    for wrong in [json!([[1]]), json!({"Name": "x"}), json!([{}])] {
        let body = json!({"Name": "wrong", "ProviderID": 1, "Catalogues": wrong});
        let refused = admin.expect(422, "POST", "/plans", body).await;
        assert_eq!(refused["errors"], json!(["Catalogues must be a list of texts"]));
    }
    let by_cid = format!("/apps/{}", app["CID"].as_str().unwrap());
    assert_eq!(admin.expect(200, "GET", &by_cid, Value::Null).await, app);
}

#[tokio::test]
async fn lists_are_bare_and_paged() {
    let admin = Admin::start().await;
    for n in 1..=25 {
        let body = json!({ "Name": format!("app {n}"), "UserID": 1 });
        admin.expect(200, "POST", "/apps", body).await;
    }
    for (query, first, len) in [
        ("", 1, 20),
        ("?page=2", 21, 5),
        ("?page=3", 0, 0),
        ("?per_page=10&page=3", 21, 5),
        ("?per_page=10&page=2&limit=3", 11, 3),
        ("?p=-2", 1, 25),
    ] {
        let list = admin.expect(200, "GET", &format!("/apps{query}"), Value::Null).await;
        let list = list.as_array().unwrap();
        assert_eq!(list.len(), len, "{query}");
        assert_eq!(list.first().map_or(0, id), first, "{query}");
    }
    let enveloped = admin.expect(200, "GET", "/plans?envelope=1", Value::Null).await;
    assert_eq!(enveloped, json!({ "data": [] }));
    admin.expect(422, "GET", "/apps?page=one", Value::Null).await;
}

#[tokio::test]
async fn a_plan_becomes_the_policy_it_says() {
    let admin = Admin::start().await;
    let mut body = plan("robot-tier");
    body["RateLimit"] = json!("2.5");
    body["QuotaPeriod"] = json!({ "Unit": "month", "TimeZone": "Europe/Paris", "AnchorDay": 15 });
    body["QuotaScope"] = json!("app");
    body["OnStoreUnavailable"] = json!("closed");
    body["PerAPI"] = json!({ "inv-v1": { "RateLimit": 1, "Per": 1 } });
    body["Costs"] = json!([{ "Path": "/export/**", "Methods": ["post"], "Cost": 10 }]);
    let made = admin.expect(200, "POST", "/plans", body).await;
    assert_eq!((&made["RateLimit"], &made["Quota"]), (&json!(2.5), &json!(1000)));
    let policy = policy(&admin, "plan-1");
    let Setting::Limited(rate) = policy.limits.rate else { panic!("{policy:?}") };
    assert_eq!((rate.requests.get(), rate.per_ms.get()), (2, 10_000), "2.5 in 10 s, rounded down");
    assert_eq!(policy.limits.quota, Setting::Limited(NonZeroU64::new(1000).unwrap()));
    let Some(Period::Calendar(calendar)) = &policy.limits.period else { panic!("{policy:?}") };
    assert_eq!((calendar.unit, calendar.anchor_day), (CalendarUnit::Month, 15));
    assert_eq!(policy.extras.quota_scope, Some(QuotaScope::App));
    assert_eq!(policy.extras.on_store_unavailable, Some(FailureMode::Closed));
    assert_eq!(policy.extras.costs[0].methods, [std::sync::Arc::<str>::from("POST")]);
    assert_eq!(policy.extras.per_api.len(), 1);
    assert_eq!(policy.key_expires_in_s, 7_776_000);
    assert_eq!(&*policy.metadata["tier"].0, "\"robot\"");
    assert!(policy.access.is_empty());

    // One member alone reaches the policy; the rest stays.
    admin.clock.advance(Duration::from_secs(60));
    let path = format!("/plans/{}", id(&made));
    let put = admin.expect(200, "PUT", &path, json!({ "KeyExpiresIn": 60 })).await;
    assert_eq!(put["RateLimit"], json!(2.5));
    let changed = self::policy(&admin, "plan-1");
    assert_eq!((changed.key_expires_in_s, &changed.limits), (60, &policy.limits));
    // What GET returns, PUT takes.
    let same = admin.expect(200, "PUT", &path, put.clone()).await;
    assert_eq!(same, put);
    admin.expect(200, "PUT", &path, json!({ "QuotaPeriod": null })).await;
    let day = Period::Every { ms: NonZeroU64::new(86_400_000).unwrap() };
    assert_eq!(self::policy(&admin, "plan-1").limits.period, Some(day));
}

#[tokio::test]
async fn unlimited_is_said_and_ends_when_a_limit_is_set() {
    let admin = Admin::start().await;
    for (quota, rate) in [(json!(0), json!(-1)), (json!(-1), json!(0)), (json!(null), json!(null))]
    {
        let name = format!("free {quota} {rate}");
        let body = json!({ "Name": name, "ProviderID": 1, "Quota": quota, "RateLimit": rate });
        let made = admin.expect(200, "POST", "/plans", body).await;
        assert_eq!(
            (&made["UnlimitedQuota"], &made["UnlimitedRateLimit"]),
            (&json!(true), &json!(true))
        );
        let limits = policy(&admin, &format!("plan-{}", id(&made))).limits;
        assert_eq!((limits.quota, limits.rate), (Setting::Unlimited, Setting::Unlimited));
    }
    let made = admin.expect(200, "PUT", "/plans/1", json!({ "Quota": 10 })).await;
    assert_eq!(
        (&made["UnlimitedQuota"], &made["UnlimitedRateLimit"]),
        (&json!(false), &json!(true))
    );
    let limited = policy(&admin, "plan-1").limits;
    assert_eq!(limited.quota, Setting::Limited(NonZeroU64::new(10).unwrap()));
}

#[tokio::test]
async fn limits_read_as_they_were_shown_up_to_1_12() {
    let admin = Admin::start().await;
    let mut body = plan("old");
    body["RateLimit"] = json!("1000 calls / 1 minute(s)");
    body["Quota"] = json!("unlimited");
    body.as_object_mut().unwrap().remove("Per");
    body.as_object_mut().unwrap().remove("UnlimitedRateLimit");
    body.as_object_mut().unwrap().remove("UnlimitedQuota");
    let made = admin.expect(200, "POST", "/plans", body).await;
    assert_eq!((&made["RateLimit"], &made["Per"]), (&json!(1000), &json!(60)));
    let request = http::Request::get("/portal-api/plans/1")
        .header("Authorization", format!("Bearer {}", crate::admin_support::SECRET))
        .header("X-Portal-Compat", "1.12");
    let shown = admin.raw(request.body(axum::body::Body::empty()).unwrap()).await.json;
    assert_eq!(shown["RateLimit"], "1000 calls / 1 minute(s)");
    assert_eq!(shown["Quota"], "unlimited");
    let back = admin.expect(200, "PUT", "/plans/1", shown).await;
    assert_eq!((&back["RateLimit"], &back["UnlimitedQuota"]), (&json!(1000), &json!(true)));
}

#[tokio::test]
async fn a_product_becomes_the_policy_it_says() {
    let admin = Admin::start().await;
    let mut body = product("invoices", "inv-v2");
    body["APIDetails"] = json!([
        { "APIID": "inv-v1" },
        { "APIID": "inv-v2", "Versions": ["v1"], "AllowedURLs": [
            { "URL": "/users/{id}", "Methods": ["get"] }, { "URL": "/ping" }
        ] }
    ]);
    let made = admin.expect(201, "POST", "/products", body).await;
    assert_eq!((&made["AuthTypes"], &made["ReferenceID"]), (&json!(["key"]), &json!("product-1")));
    let policy = policy(&admin, "product-1");
    assert_eq!(policy.access["inv-v1"].allowed_urls, UrlAccess::Unrestricted);
    assert_eq!(policy.access["inv-v1"].versions, VersionAccess::Any);
    let rights = &policy.access["inv-v2"];
    assert_eq!(rights.versions, VersionAccess::Only(vec!["v1".into()]));
    let UrlAccess::Only(urls) = &rights.allowed_urls else { panic!("{rights:?}") };
    assert_eq!(urls[0].methods, Methods::Only(vec!["GET".into()]));
    assert_eq!(urls[1].methods, Methods::Any);
    let details = admin.expect(200, "GET", "/products/1/api-details", Value::Null).await;
    assert_eq!(
        (details.as_array().unwrap().len(), &details[0]["ListenPath"]),
        (2, &json!("/inv-v1"))
    );
    let one = admin.expect(200, "GET", "/products/1/api-details/inv-v2", Value::Null).await;
    assert_eq!(one, details[1]);
    admin.expect(404, "GET", "/products/1/api-details/open", Value::Null).await;
    admin.expect(404, "GET", "/products/9/api-details", Value::Null).await;
    admin.expect(200, "DELETE", "/products/1", Value::Null).await;
    assert!(snapshot_policy(&admin, "product-1").is_none());
}

#[tokio::test]
async fn faults_of_plans_and_products_are_named_with_their_paths() {
    let admin = Admin::start().await;
    admin.furnish().await;
    let before = admin.records().await;
    for (path, member, value, fault) in wrong() {
        let mut body = if path == "/plans" { plan("new") } else { product("new", "inv-v1") };
        body[member] = value;
        let refused = admin.expect(422, "POST", path, body).await;
        assert!(faults(&refused)[0].starts_with(fault), "{fault:?}: {refused}");
        assert_eq!(faults(&refused).len(), 1, "{refused}");
    }
    assert_eq!(admin.records().await, before, "nothing half-written");
}

/// Path, member, value, and how its one fault begins.
fn wrong() -> Vec<(&'static str, &'static str, Value, &'static str)> {
    let mut all = wrong_plans();
    all.extend(wrong_products());
    all
}

fn wrong_plans() -> Vec<(&'static str, &'static str, Value, &'static str)> {
    vec![
        ("/plans", "Name", json!("robot-tier"), "Name is already in use"),
        ("/plans", "Name", json!("line\nbreak"), "Name must not contain control characters"),
        ("/plans", "ProviderID", json!(null), "ProviderID is required"),
        ("/plans", "ProviderID", json!(2), "ProviderID 2 does not exist"),
        ("/plans", "RateLimit", json!("many"), "RateLimit is not a decimal number"),
        ("/plans", "Per", json!(0), "Per must be above 0 when RateLimit is"),
        ("/plans", "Per", json!(1e12), "Per must be at most ten years"),
        ("/plans", "Quota", json!(1.5), "Quota must be a whole number"),
        (
            "/plans",
            "Quota",
            json!(9_007_199_254_740_992_u64),
            "Quota must be at most 9007199254740991",
        ),
        ("/plans", "MetaData", json!([]), "MetaData must be an object"),
        (
            "/plans",
            "QuotaPeriod",
            json!({ "Unit": "day", "TimeZone": "Mars/Base" }),
            "QuotaPeriod.TimeZone is not an IANA time zone",
        ),
        ("/plans", "QuotaPeriod", json!({ "Unit": "year" }), "QuotaPeriod.Unit must be one of"),
        (
            "/plans",
            "QuotaPeriod",
            json!({ "Unit": "week", "AnchorDay": 8 }),
            "QuotaPeriod.AnchorDay must be 1 to 7",
        ),
        ("/plans", "QuotaScope", json!("planet"), "QuotaScope must be one of credential, "),
        ("/plans", "OnStoreUnavailable", json!("panic"), "OnStoreUnavailable must be one of"),
        ("/plans", "PerAPI", json!({ "nope": {} }), "PerAPI nope does not exist"),
        (
            "/plans",
            "PerAPI",
            json!({ "inv-v1": { "RateLimit": 1 } }),
            "PerAPI.inv-v1.Per must be above 0",
        ),
        ("/plans", "Costs", json!([{ "Path": "x", "Cost": 1 }]), "Costs[0].Path must start with a"),
        ("/plans", "Costs", json!([{ "Path": "/x", "Cost": -1 }]), "Costs[0].Cost must be 0 to"),
    ]
}

fn wrong_products() -> Vec<(&'static str, &'static str, Value, &'static str)> {
    vec![
        ("/products", "Name", json!(""), "Name is required"),
        (
            "/products",
            "APIDetails",
            json!([{ "APIID": "nope" }]),
            "APIDetails[0].APIID nope does not",
        ),
        ("/products", "APIDetails", json!([{}]), "APIDetails[0].APIID is required"),
        ("/products", "APIDetails", json!(["inv-v1"]), "APIDetails[0] must be an object"),
        (
            "/products",
            "APIDetails",
            json!([{ "APIID": "inv-v1" }, { "APIID": "open" }]),
            "APIDetails mixes APIs",
        ),
        (
            "/products",
            "APIDetails",
            json!([{ "APIID": "inv-v2", "Versions": "v9" }]),
            "APIDetails[0].Versions names v9",
        ),
        (
            "/products",
            "APIDetails",
            json!([{ "APIID": "inv-v1", "AllowedURLs": [{ "URL": "/a*b" }] }]),
            "APIDetails[0].AllowedURLs[0].URL segment",
        ),
        (
            "/products",
            "APIDetails",
            json!([{ "APIID": "inv-v1", "AllowedURLs": [{ "URL": "/a", "Methods": ["G T"] }] }]),
            "APIDetails[0].AllowedURLs[0].Methods \"G T\" is not a method",
        ),
        ("/products", "IsDocumentationOnly", json!(true), "APIDetails must be empty when"),
    ]
}

#[tokio::test]
async fn a_documentation_only_product_is_attached_to_nothing() {
    let admin = Admin::start().await;
    let (plan, _, app) = admin.furnish().await;
    let body = json!({ "Name": "docs", "IsDocumentationOnly": true });
    let docs = id(&admin.expect(201, "POST", "/products", body).await);
    assert!(policy(&admin, &format!("product-{docs}")).access.is_empty());
    let path = format!("/apps/{app}/custom_credentials");
    let refused = admin.expect(422, "POST", &path, credential("a", KEY, plan, docs)).await;
    let text = format!("ProductIDs {docs} is documentation only and grants nothing");
    assert_eq!(faults(&refused), [text]);
}

#[tokio::test]
async fn what_is_deleted_takes_its_tokens_along() {
    for (path, gone) in [("/apps/{app}", true), ("/users/1", true), ("/plans/1", false)] {
        let admin = Admin::start().await;
        let (plan, product, app) = admin.furnish().await;
        let all = format!("/apps/{app}/custom_credentials");
        admin.expect(201, "POST", &all, credential("a", KEY, plan, product)).await;
        let path = path.replace("{app}", &app.to_string());
        admin.expect(200, "DELETE", &path, Value::Null).await;
        assert_eq!(admin.token(KEY).await.is_none(), gone, "{path}");
        admin.expect(404, "DELETE", &path, Value::Null).await;
        if gone {
            admin.expect(404, "GET", &all, Value::Null).await;
            let left: Vec<_> = admin.records().await;
            let left = left
                .iter()
                .filter(|(_, value)| String::from_utf8_lossy(value).contains("robot key"));
            assert_eq!(left.count(), 0);
        }
    }
}

#[tokio::test]
async fn owners_move_with_their_tokens() {
    let admin = Admin::start().await;
    let (plan, product, app) = admin.furnish().await;
    let all = format!("/apps/{app}/custom_credentials");
    admin.expect(201, "POST", &all, credential("a", KEY, plan, product)).await;
    let acme = id(&admin.expect(200, "POST", "/organisations", json!({ "Name": "Acme" })).await);
    let body = json!({ "Email": "b@acme.test", "OrganisationID": acme });
    let user = id(&admin.expect(200, "POST", "/users", body).await);
    admin.expect(200, "PUT", &format!("/apps/{app}"), json!({ "UserID": user })).await;
    let record = admin.token(KEY).await.unwrap();
    assert_eq!((record.user, record.organisation), (Some(user), Some(acme)));
    let teams = format!("/organisations/{acme}/teams");
    let body = json!({ "Name": "Billing", "Users": [user] });
    let team = admin.expect(200, "POST", &teams, body).await;
    assert_eq!(team["Users"], json!([format!("User#{user}")]));
    let shown = admin.expect(200, "GET", &format!("/users/{user}"), Value::Null).await;
    assert_eq!(shown["Teams"].as_array().unwrap().len(), 2);
    let refused = json!({ "Name": "Billing", "Users": [1] });
    admin.expect(422, "PUT", &format!("{teams}/{}", id(&team)), refused).await;
    admin.expect(422, "DELETE", "/organisations/1", Value::Null).await;
    admin.expect(200, "DELETE", &format!("/organisations/{acme}"), Value::Null).await;
    let moved = admin.expect(200, "GET", &format!("/users/{user}"), Value::Null).await;
    assert_eq!(moved["OrganisationID"], 1);
    assert_eq!(admin.token(KEY).await.unwrap().organisation, Some(1));
    admin.expect(404, "GET", &teams, Value::Null).await;
    admin.expect(200, "DELETE", &format!("/apps/{app}"), Value::Null).await;
}

#[track_caller]
fn policy(admin: &Admin, id: &str) -> turnpike::domain::policy::Policy {
    snapshot_policy(admin, id).unwrap_or_else(|| panic!("{id} is not in the catalog"))
}

fn snapshot_policy(admin: &Admin, id: &str) -> Option<turnpike::domain::policy::Policy> {
    let org = "default".parse().unwrap();
    let snapshot = admin.catalog.snapshot();
    snapshot.policy(&org, &id.parse().unwrap()).map(|policy| (**policy).clone())
}

#[tokio::test]
async fn an_apis_target_is_shown_as_it_is_reached() {
    let admin = Admin::start().await;
    let (_, product, _) = admin.furnish().await;
    let path = format!("/products/{product}/api-details/inv-v1");
    for (tls, url) in [(false, "http://127.0.0.1:9"), (true, "https://127.0.0.1:9")] {
        let mut api = (**admin.catalog.snapshot().api(&"inv-v1".parse().unwrap()).unwrap()).clone();
        api.targets[0].tls = tls;
        admin.catalog.replace_apis(vec![std::sync::Arc::new(api)]);
        let shown = admin.expect(200, "GET", &path, Value::Null).await;
        assert_eq!(shown["TargetURL"], url);
    }
}
