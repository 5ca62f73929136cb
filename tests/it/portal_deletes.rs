//! What deleting an object does to those that hang on it (portal-api, E8); bodies with many faults,
//! and lists of many objects.

use serde_json::{Value, json};
use turnpike::domain::denial::Denial;
use turnpike::store::{Expect, Kind, RecordKey, RecordStore, Write};
use turnpike::wire::portal::stored::Stored;

use crate::admin_support::{Admin, faults};
use crate::gate::Gate;

fn unlimited() -> Value {
    json!({"Name": "plan", "UnlimitedRateLimit": true, "UnlimitedQuota": true})
}

async fn nothing_dangles(gate: &Gate) {
    let misfits = crate::whole::misfits(&**gate.catalog.store()).await;
    assert!(misfits.is_empty(), "{misfits:#?}");
}

#[tokio::test]
async fn a_deleted_team_leaves_its_users_and_their_tokens_to_the_default_one() {
    let gate = Gate::new().await;
    let plan = gate.plan(unlimited()).await;
    let product = gate.product("a", &["a"]).await;
    let acme = gate.post("/organisations", json!({"Name": "Acme"})).await;
    let teams = format!("/organisations/{acme}/teams");
    let shown = gate.ok(200, "GET", &teams, Value::Null).await;
    let default = shown[0]["ID"].clone();
    let team = gate.post(&teams, json!({"Name": "robots"})).await;
    let body = json!({"Email": "dev@acme.test", "OrganisationID": acme, "Teams": [team]});
    let user = gate.post("/users", body).await;
    let app = gate.post("/apps", json!({"Name": "theirs", "UserID": user})).await;
    gate.import_into(app, "one", "tok", plan, &[product]).await;
    let shelf = json!({"Name": "shelf", "VisibilityStatus": "Private",
        "OrgCatalogues": [{"OrganisationID": acme, "TeamID": team}]});
    let shelf = gate.post("/catalogues", shelf).await;
    // The default team stays.
    let refused = gate.ok(422, "DELETE", &format!("{teams}/{default}"), Value::Null).await;
    assert_eq!(refused["errors"], json!(["the default team of an organisation cannot be deleted"]));
    assert_eq!(gate.ok(200, "GET", &teams, Value::Null).await.as_array().unwrap().len(), 2);
    gate.ok(200, "DELETE", &format!("{teams}/{team}"), Value::Null).await;
    let moved = gate.ok(200, "GET", &format!("/users/{user}"), Value::Null).await;
    assert_eq!((&moved["OrganisationID"], &moved["Teams"][0]["ID"]), (&json!(acme), &default));
    assert_eq!(gate.denial("tok", "/a/x").await, None);
    let audiences = format!("/catalogues/{shelf}/audiences");
    assert_eq!(gate.ok(200, "GET", &audiences, Value::Null).await, json!([]), "and no other's");
    nothing_dangles(&gate).await;
}

#[tokio::test]
async fn a_deleted_product_closes_what_has_no_other() {
    let gate = Gate::new().await;
    let plan = gate.plan(unlimited()).await;
    let (a, b) = (gate.product("a", &["a"]).await, gate.product("b", &["b"]).await);
    gate.import("sole", plan, &[a]).await;
    gate.import("both", plan, &[a, b]).await;
    for token in ["sole", "both"] {
        assert_eq!(gate.denial(token, "/a/x").await, None);
    }
    gate.ok(200, "DELETE", &format!("/products/{a}"), Value::Null).await;
    let sole = gate.denial("sole", "/a/x").await;
    assert_eq!(sole.map(|denial| denial.answer().status), Some(403), "{sole:?}");
    assert_eq!(gate.denial("both", "/a/x").await, Some(Denial::ApiNotGranted));
    assert_eq!(gate.denial("both", "/b/x").await, None, "the other works");
    // Another product does not come in under its number.
    let anew = gate.product("a", &["a"]).await;
    assert_ne!(anew, a);
    assert!(gate.denial("sole", "/a/x").await.is_some());
    nothing_dangles(&gate).await;
}

#[tokio::test]
async fn a_token_in_its_grace_period_goes_with_its_app_user_and_request() {
    let gate = Gate::new().await;
    let plan = gate.plan(unlimited()).await;
    let product = gate.product("a", &["a"]).await;
    for what in ["app", "user", "request", "credential"] {
        let email = json!({"Email": format!("{what}@acme.test"), "OrganisationID": 1});
        let user = gate.post("/users", email).await;
        let app = gate.post("/apps", json!({"Name": what, "UserID": user})).await;
        let (old, new) = (format!("old-{what}"), format!("new-{what}"));
        let id = gate.import_into(app, "one", &old, plan, &[product]).await;
        let one = format!("/apps/{app}/custom_credentials/{id}");
        let shown = gate.ok(200, "GET", &one, Value::Null).await;
        let request = shown["AccessRequest"].as_str().unwrap().replace("AccessRequest#", "");
        let body = json!({"KeyID": new, "GracePeriod": 600});
        gate.ok(200, "POST", &format!("{one}/rotate"), body).await;
        for token in [&old, &new] {
            assert_eq!(gate.denial(token, "/a/x").await, None, "{token}");
        }
        let path = match what {
            "app" => format!("/apps/{app}"),
            "user" => format!("/users/{user}"),
            "request" => format!("/access_requests/{request}"),
            _ => one,
        };
        gate.ok(200, "DELETE", &path, Value::Null).await;
        for token in [&old, &new] {
            assert_eq!(gate.denial(token, "/a/x").await, Some(Denial::TokenUnknown), "{token}");
        }
        assert_eq!(gate.tokens().await, 0, "{what}");
    }
    nothing_dangles(&gate).await;
}

#[tokio::test]
async fn all_faults_of_a_body_are_named_at_once() {
    let admin = Admin::start().await;
    admin.furnish().await;
    let before = admin.records().await;
    let fine = json!({"Email": "a@b.test"});
    let teams = "/organisations/1/teams";
    // path, body, how each of its faults begins
    let table: &[(&str, Value, &[&str])] = &[
        (
            "/plans",
            json!({"RateLimit": "many", "Quota": 1.5, "MetaData": [], "QuotaScope": "planet",
                "PerAPI": {"nope": {}}, "Catalogues": [99], "CID": "no id"}),
            &[
                "CID ",
                "Name ",
                "ProviderID ",
                "RateLimit ",
                "Quota ",
                "MetaData ",
                "QuotaScope ",
                "PerAPI ",
                "Catalogues ",
            ],
        ),
        (
            "/products",
            json!({"Name": "a\nb", "ProviderID": 7, "IsDocumentationOnly": "perhaps",
                "APIDetails": [{"APIID": "nope"}, {}, 3], "Catalogues": [99]}),
            &[
                "Name ",
                "ProviderID ",
                "IsDocumentationOnly ",
                "APIDetails[0].APIID ",
                "APIDetails[1].APIID ",
                "APIDetails[2] ",
                "Catalogues ",
            ],
        ),
        (
            "/users",
            json!({"Email": "nobody", "First": [], "Active": "perhaps", "Role": "king",
                "OrganisationID": 99, "Teams": [98]}),
            &["Email ", "First ", "Active ", "Role ", "OrganisationID ", "Teams "],
        ),
        (teams, json!({"Name": {}, "Users": [1, 99], "CID": 5}), &["CID ", "Name ", "Users "]),
        ("/organisations", json!({"Name": "a\u{7}", "CID": ""}), &["Name "]),
        ("/organisations", json!({"CID": []}), &["CID ", "Name "]),
    ];
    for (path, body, expect) in table {
        let refused = admin.expect(422, "POST", path, body.clone()).await;
        let got = faults(&refused);
        for begin in *expect {
            let named = got.iter().filter(|fault| fault.starts_with(begin)).count();
            assert_eq!(named, 1, "{path} {begin:?}: {got:#?}");
        }
        assert_eq!(got.len(), expect.len(), "{path}: {got:#?}");
    }
    assert_eq!(admin.records().await, before, "nothing half-written");
    // As the portal's own scripts send it.
    let mut typed = fine;
    (typed["OrganisationID"], typed["TeamID"]) = (json!("1"), json!("1"));
    let made = admin.expect(200, "POST", "/users", typed).await;
    assert_eq!((&made["OrganisationID"], &made["Teams"][0]["ID"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn lists_of_more_than_a_page_can_hold_ascend_over_all_pages() {
    let admin = Admin::start().await;
    // Across 255 and 65,535, where an order of texts or of other bytes would show.
    let ids: Vec<u64> = (1..5_200).chain(65_500..65_600).chain([1 << 40]).collect();
    let writes = ids.iter().map(|id| {
        let value = Stored { id: *id, ..Stored::default() }.encode();
        let (key, value) = (RecordKey::number(Kind::Plan, *id), Some(value.into()));
        Write { key, expect: Expect::Anything, value }
    });
    admin.catalog.store().commit(writes.collect()).await.unwrap();
    for (per_page, pages) in [(5_000, 2), (9_999, 2), (2_000, 3)] {
        let mut got = Vec::new();
        for page in 1..=pages {
            let path = format!("/plans?per_page={per_page}&page={page}");
            let list = admin.expect(200, "GET", &path, Value::Null).await;
            got.extend(list.as_array().unwrap().iter().map(crate::admin_support::id));
        }
        assert!(got.is_sorted_by(|a, b| a < b), "{per_page}");
        assert!(got == ids, "{per_page}: {} of {}", got.len(), ids.len());
    }
}
