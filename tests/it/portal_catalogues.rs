//! Catalogues: who sees what, and what follows for requests.

use serde_json::{Value, json};

use crate::gate::Gate;

/// A private catalogue `vip` for one team of organisation Acme, with a product and a plan; the
/// catalogue, the users in and outside of the team.
async fn private(gate: &Gate) -> (u64, u64, u64) {
    let acme = gate.ok(200, "POST", "/organisations", json!({"Name": "Acme"})).await;
    let teams = format!("/organisations/{}/teams", acme["ID"]);
    let team = gate.post(&teams, json!({"Name": "Billing"})).await;
    let user = async |email: &str, team: Value| {
        let body = json!({"Email": email, "OrganisationID": acme["ID"], "Teams": team});
        gate.post("/users", body).await
    };
    let inside = user("in@acme.test", json!([team])).await;
    let outside = user("out@acme.test", json!([])).await;
    gate.product("secret product", &["a"]).await;
    gate.plan(json!({"Name": "secret plan"})).await;
    let body = json!({"Name": "vip", "VisibilityStatus": "Private", "Products": [1],
        "Plans": ["secret plan"], "OrgCatalogues": [{"OrganisationID": acme["ID"], "TeamID": team}]});
    let catalogue = gate.post("/catalogues", body).await;
    (catalogue, inside, outside)
}

async fn listed(gate: &Gate, path: &str) -> Vec<String> {
    let list = gate.ok(200, "GET", path, Value::Null).await;
    list.as_array().unwrap().iter().map(|row| row["Name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn catalogues_public_and_private_with_audiences() {
    let gate = Gate::new().await;
    let (catalogue, inside, outside) = private(&gate).await;
    gate.product("open product", &["b"]).await;
    let public = json!({"Name": "another", "ProviderID": 1, "IsDocumentationOnly": false,
        "Catalogues": ["Public catalogue"]});
    gate.post("/products", public).await;
    let all = ["secret product", "open product", "another"];
    assert_eq!(listed(&gate, "/products").await, all);
    assert_eq!(listed(&gate, &format!("/products?user={inside}")).await, all);
    assert_eq!(listed(&gate, &format!("/products?user={outside}")).await, all[1..]);
    let second = format!("/products?user={outside}&per_page=1&page=2");
    assert_eq!(listed(&gate, &second).await, all[2..]);
    assert_eq!(listed(&gate, &format!("/plans?user={outside}")).await, Vec::<String>::new());
    assert_eq!(listed(&gate, &format!("/plans?user={inside}")).await, ["secret plan"]);
    let seen = format!("/catalogues?user={outside}");
    assert_eq!(listed(&gate, &seen).await, ["Public catalogue"]);
    gate.ok(422, "GET", "/products?user=99", Value::Null).await;
    // Who does not see it cannot ask for it.
    for (user, status) in [(outside, 422), (inside, 200)] {
        let app = gate.post("/apps", json!({"Name": "x", "UserID": user})).await;
        let body = json!({"PlanID": 1, "ProductIDs": [1]});
        let answer = gate.ok(status, "PUT", &format!("/apps/{app}/provision"), body).await;
        if status == 422 {
            let faults = [
                "PlanID 1 is in no catalogue that the app's owner sees",
                "ProductIDs 1 is in no catalogue that the app's owner sees",
            ];
            assert_eq!(answer["errors"], json!(faults));
        }
    }
    // An audience of the whole organisation lets the other one in.
    let audiences = format!("/catalogues/{catalogue}/audiences");
    let made = gate.ok(201, "POST", &audiences, json!({"OrganisationID": "2"})).await;
    assert_eq!(listed(&gate, &format!("/products?user={outside}")).await, all);
    gate.ok(422, "POST", &audiences, json!({"OrganisationID": 2, "TeamID": 0})).await;
    gate.ok(422, "POST", &audiences, json!({"OrganisationID": 2, "TeamID": 1})).await;
    gate.ok(422, "POST", &audiences, json!({})).await;
    let list = gate.ok(200, "GET", &audiences, Value::Null).await;
    assert_eq!(list.as_array().unwrap().len(), 2);
    let one = format!("{audiences}/{}", made["ID"]);
    gate.ok(200, "GET", &one, Value::Null).await;
    gate.ok(200, "DELETE", &one, Value::Null).await;
    gate.ok(404, "GET", &one, Value::Null).await;
    assert_eq!(listed(&gate, &format!("/products?user={outside}")).await, all[1..]);
    // It goes with its organisation; nobody sees what is left, and nobody is shut out of it when
    // the catalogue goes too.
    gate.ok(200, "DELETE", "/organisations/2", Value::Null).await;
    assert_eq!(gate.ok(200, "GET", &audiences, Value::Null).await, json!([]));
    assert_eq!(listed(&gate, &format!("/products?user={inside}")).await, all[1..]);
    gate.ok(200, "DELETE", &format!("/catalogues/{catalogue}"), Value::Null).await;
    assert_eq!(listed(&gate, &format!("/products?user={inside}")).await, all);
}

#[tokio::test]
async fn a_catalogue_is_put_back_as_it_was_got() {
    let gate = Gate::new().await;
    let (catalogue, ..) = private(&gate).await;
    let one = format!("/catalogues/{catalogue}");
    let shown = gate.ok(200, "GET", &one, Value::Null).await;
    for (member, value) in [
        ("NameWithSlug", json!("vip")),
        ("Products", json!(["secret product"])),
        ("Plans", json!(["secret plan"])),
        ("VisibilityStatus", json!("Private")),
    ] {
        assert_eq!(shown[member], value, "{member}");
    }
    let audience = &shown["OrgCatalogues"][0];
    assert_eq!(
        (&audience["Catalogue"], &audience["Organisation"]),
        (&json!("vip"), &json!("Acme"))
    );
    assert_eq!(gate.ok(200, "PUT", &one, shown.clone()).await, shown);
    let product = gate.ok(200, "GET", "/products/1", Value::Null).await;
    assert_eq!(product["Catalogues"], json!(["vip"]), "names, as the portal shows them");
    assert_eq!(gate.ok(200, "PUT", "/products/1", product.clone()).await, product);
    let plan = gate.ok(200, "GET", "/plans/1", Value::Null).await;
    assert_eq!(plan["Catalogues"], json!([catalogue]), "numbers, as the portal shows them");
    assert_eq!(gate.ok(200, "PUT", "/plans/1", plan.clone()).await, plan);
    // null clears a list, and what is left out stays.
    let body = json!({"Products": null, "OrgCatalogues": []});
    let cleared = gate.ok(200, "PUT", &one, body).await;
    assert_eq!((&cleared["Products"], &cleared["Plans"]), (&json!([]), &json!(["secret plan"])));
    assert_eq!(cleared["OrgCatalogues"], json!([]));
    let product = gate.ok(200, "GET", "/products/1", Value::Null).await;
    assert_eq!(product["Catalogues"], json!([]));
    gate.ok(200, "PUT", "/products/1", json!({"Catalogues": [1, catalogue]})).await;
    let shown = gate.ok(200, "GET", &one, Value::Null).await;
    assert_eq!(shown["Products"], json!(["secret product"]));
    for (body, faults) in [
        (json!({}), json!(["Name is required"])),
        (json!({"Name": "vip"}), json!(["Name is already in use"])),
        (
            json!({"Name": "new", "VisibilityStatus": "secret"}),
            json!(["VisibilityStatus must be one of Private, Public"]),
        ),
        (
            json!({"Name": "new", "Products": [99], "Plans": ["none"],
                "OrgCatalogues": [{"OrganisationID": 9}, {}]}),
            json!([
                "OrgCatalogues[1].OrganisationID is required",
                "Products 99 does not exist",
                "Plans names nothing that exists",
                "OrgCatalogues[0].OrganisationID names nothing that exists",
            ]),
        ),
    ] {
        assert_eq!(gate.ok(422, "POST", "/catalogues", body).await["errors"], faults);
    }
    let body = json!({"Catalogues": [99]});
    let refused = gate.ok(422, "PUT", "/products/1", body).await;
    assert_eq!(refused["errors"], json!(["Catalogues 99 does not exist"]));
}
