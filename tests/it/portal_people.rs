//! What the metadata of a credential says of its owner: teams, custom attributes.

use serde_json::{Value, json};
use turnpike::enforce::Decision;

use crate::gate::Gate;

/// An organisation, its default team and another one, a user of it with the token `tok`: their
/// numbers, and that of the app.
struct Acme {
    organisation: u64,
    default: u64,
    team: u64,
    user: u64,
}

impl Acme {
    async fn new(gate: &Gate) -> Self {
        let plan = json!({"Name": "plan", "UnlimitedRateLimit": true, "UnlimitedQuota": true});
        let plan = gate.plan(plan).await;
        let product = gate.product("a", &["a"]).await;
        let made = gate.ok(200, "POST", "/organisations", json!({"Name": "Acme"})).await;
        let organisation = made["ID"].as_u64().unwrap();
        let default = made["Teams"][0]["ID"].as_u64().unwrap();
        let teams = format!("/organisations/{organisation}/teams");
        let team = gate.post(&teams, json!({"Name": "t"})).await;
        let user = json!({"Email": "dev@acme.test", "OrganisationID": organisation});
        let user = gate.post("/users", user).await;
        let app = gate.post("/apps", json!({"Name": "theirs", "UserID": user})).await;
        gate.import_into(app, "one", "tok", plan, &[product]).await;
        Self { organisation, default, team, user }
    }
}

/// What the metadata of `tok` says under a name, as a request carries it upstream.
async fn told(gate: &Gate, name: &str) -> Option<String> {
    let Decision::Admit(permit) = gate.decide("tok", "GET", "/a/x").await else { panic!() };
    permit.metadata().and_then(|all| all.get(name)).map(|value| value.0.to_string())
}

async fn nothing_dangles(gate: &Gate) {
    let misfits = crate::whole::misfits(&**gate.catalog.store()).await;
    assert!(misfits.is_empty(), "{misfits:#?}");
}

#[tokio::test]
async fn default_metadata_names_app_developer_organisation_and_teams() {
    let gate = Gate::new().await;
    let Acme { organisation, default, team, user } = Acme::new(&gate).await;
    let teams = format!("/organisations/{organisation}/teams/{team}");
    let person = format!("/users/{user}");
    let both = format!("\"{default},{team}\"");
    let [just_default, just_team] = [default, team].map(|id| format!("\"{id}\""));
    for (method, path, body, expect) in [
        ("GET", &person, Value::Null, &just_default),
        // By the team, by the user, and back again.
        ("PUT", &teams, json!({"Users": [user]}), &both),
        ("PUT", &person, json!({"Teams": [team]}), &just_team),
        ("PUT", &teams, json!({"Users": null}), &just_default),
        ("PUT", &teams, json!({"Users": [user]}), &both),
        ("DELETE", &teams, Value::Null, &just_default),
    ] {
        gate.ok(200, method, path, body).await;
        assert_eq!(told(&gate, "TeamIDs").await.as_ref(), Some(expect), "{method} {path}");
        nothing_dangles(&gate).await;
    }
    for (name, id) in
        [("ApplicationID", 1), ("DeveloperID", user), ("OrganisationID", organisation)]
    {
        assert_eq!(told(&gate, name).await, Some(id.to_string()), "{name}");
    }
    // The key's view has them, too.
    let question = json!({"KeyID": "tok", "Path": "/a/x"});
    let (_, why) = gate.request("POST", "/v1/explain", question).await;
    assert_eq!(why["metadata"]["TeamIDs"], default.to_string(), "{why}");
    // Another organisation has other teams.
    gate.ok(200, "DELETE", &format!("/organisations/{organisation}"), Value::Null).await;
    assert_eq!(told(&gate, "TeamIDs").await.as_deref(), Some("\"1\""));
    assert_eq!(told(&gate, "OrganisationID").await.as_deref(), Some("1"));
    nothing_dangles(&gate).await;
}

#[tokio::test]
async fn custom_user_attributes_into_key_metadata() {
    let gate = Gate::new().await;
    let Acme { user, .. } = Acme::new(&gate).await;
    let all = format!("/users/{user}/custom-attributes");
    assert_eq!(gate.ok(200, "GET", &all, Value::Null).await, json!([]));
    let body = json!({"Name": "Cost centre", "Identifier": "cost-centre", "Value": 4711});
    let made = gate.ok(201, "POST", &all, body).await;
    let known = json!({"Name": "Cost centre", "Identifier": "cost-centre", "Type": "String",
        "AddToKeyMetadata": true, "WriteOnceReadMany": false});
    assert_eq!(made, json!({"ID": 1, "Value": "4711", "CustomAttribute": known}));
    assert_eq!(told(&gate, "cost-centre").await.as_deref(), Some("\"4711\""));
    // A credential that comes later has it, too.
    let body = json!({"Alias": "two", "Type": "CREDENTIAL_TYPE_TYK_MANAGED", "PlanID": 1,
        "AuthTokenType": "AUTH_TOKEN_CUSTOM", "KeyID": "tok-2", "ProductIDs": [1],
        "MetaData": {"cost-centre": "its own"}});
    gate.ok(201, "POST", "/apps/1/custom_credentials", body).await;
    let (_, why) =
        gate.request("POST", "/v1/explain", json!({"KeyID": "tok-2", "Path": "/a/x"})).await;
    assert_eq!(why["metadata"]["cost-centre"], "its own", "of two the credential's counts");
    // The portal's own way: only the value changes.
    let one = format!("{all}/1");
    let changed = gate.ok(200, "PUT", &one, json!({"Value": "4712"})).await;
    assert_eq!(gate.ok(200, "GET", &one, Value::Null).await, changed);
    assert_eq!(told(&gate, "cost-centre").await.as_deref(), Some("\"4712\""));
    let described = json!({"Value": "accepted", "CustomAttribute": {"Name": "terms",
        "AddToKeyMetadata": "false", "WriteOnceReadMany": "true"}});
    gate.ok(201, "POST", &all, described).await;
    assert_eq!(told(&gate, "terms").await, None, "not for keys");
    gate.ok(200, "PUT", &format!("{all}/2"), json!({"Value": "accepted"})).await;
    let refused = gate.ok(422, "PUT", &format!("{all}/2"), json!({"Value": "no"})).await;
    assert_eq!(refused["errors"], json!(["Value is written once and does not change"]));
    let shown = gate.ok(200, "GET", &all, Value::Null).await;
    assert_eq!(shown.as_array().unwrap().len(), 2);
    // An edit of the user leaves them, and one that goes is gone from the key.
    let person = format!("/users/{user}");
    let same = gate.ok(200, "GET", &person, Value::Null).await;
    gate.ok(200, "PUT", &person, same).await;
    assert_eq!(gate.ok(200, "GET", &all, Value::Null).await, shown);
    gate.ok(200, "DELETE", &one, Value::Null).await;
    assert_eq!(told(&gate, "cost-centre").await, None);
    nothing_dangles(&gate).await;
}

#[tokio::test]
async fn faults_of_a_custom_attribute_are_named() {
    let gate = Gate::new().await;
    let Acme { user, .. } = Acme::new(&gate).await;
    let all = format!("/users/{user}/custom-attributes");
    gate.ok(201, "POST", &all, json!({"Name": "tier", "Value": "gold"})).await;
    for (body, expect) in [
        (json!({}), json!(["Name is required"])),
        (json!({"Name": "tier"}), json!(["Identifier is already in use"])),
        (json!({"Name": "TeamIDs"}), json!(["Identifier is written by the portal itself"])),
        (
            json!({"Name": [], "Value": {}, "AddToKeyMetadata": "perhaps"}),
            json!([
                "Value must not be a list or an object",
                "Name must not be a list or an object",
                "AddToKeyMetadata must be true or false",
            ]),
        ),
    ] {
        assert_eq!(gate.ok(422, "POST", &all, body).await["errors"], expect);
    }
    let missing = json!({"errors": ["Value is required"]});
    assert_eq!(gate.ok(422, "PUT", &format!("{all}/1"), json!({})).await, missing);
    gate.ok(422, "PUT", &format!("{all}/9"), json!({"Value": "x"})).await;
    for (method, path) in
        [("GET", "/users/99/custom-attributes"), ("GET", "/users/1/custom-attributes/1")]
    {
        gate.ok(404, method, path, Value::Null).await;
    }
    gate.ok(404, "DELETE", &format!("{all}/x"), Value::Null).await;
}
