//! Teams and catalogues with more members than a commit holds: set and deleted in steps, on every
//! store, also when the gateway is cut off in the middle.

use http::Request;
use serde_json::{Value, json};
use turnpike::store::{Expect, Kind, RecordKey, RecordStore, Write};
use turnpike::wire::portal::stored::Stored;

use crate::admin_support::{Admin, SECRET, id};
use crate::large_owners::{Place, on_every_store};
use crate::whole::misfits;

/// Users of the team, and products of the catalogue.
const COUNT: usize = 700;

/// An organisation whose users have a token each, and a team of it.
struct Crowd {
    team: String,
    users: Vec<u64>,
    tokens: Vec<String>,
    /// The numbers of the default team and of the other one.
    teams: [u64; 2],
}

impl Crowd {
    async fn new(admin: &Admin) -> Self {
        let (plan, product, _) = admin.furnish().await;
        let acme = admin.expect(200, "POST", "/organisations", json!({"Name": "Acme"})).await;
        let tokens: Vec<_> = (0..COUNT).map(|n| format!("LEG-of-a-crowd-{n:04}")).collect();
        let line = |(n, token): (usize, &String)| {
            let user = json!({"Email": format!("dev-{n}@acme.test"), "OrganisationID": id(&acme)});
            json!({"User": user, "App": {"Name": format!("app {n}")}, "Alias": "k", "KeyID": token,
                "PlanID": plan, "ProductIDs": [product]})
            .to_string()
        };
        let lines: Vec<_> = tokens.iter().enumerate().map(line).collect();
        let request = Request::post("/v1/imports?format=ndjson&wait=60s");
        let request = request.header("Authorization", SECRET).body(lines.join("\n").into());
        let reply = admin.raw(request.unwrap()).await;
        assert_eq!(reply.json["Created"], COUNT, "{reply:?}");
        let teams = format!("/organisations/{}/teams", id(&acme));
        let team = id(&admin.expect(200, "POST", &teams, json!({"Name": "crowd"})).await);
        let all = admin.expect(200, "GET", "/users?per_page=5000", Value::Null).await;
        let of_acme = |user: &&Value| user["OrganisationID"] == acme["ID"];
        let users = all.as_array().unwrap().iter().filter(of_acme).map(id).collect();
        let default = id(&acme["Teams"][0]);
        Self { team: format!("{teams}/{team}"), users, tokens, teams: [default, team] }
    }

    /// All that the team and the tokens say fits together, and these users are in the team.
    async fn is(&self, admin: &Admin, within: &[u64]) {
        let shown = admin.expect(200, "GET", &self.team, Value::Null).await;
        let wanted: Vec<_> = within.iter().map(|id| json!(format!("User#{id}"))).collect();
        assert_eq!(shown["Users"], json!(wanted));
        let wrong = misfits(&**admin.catalog.store()).await;
        assert!(wrong.is_empty(), "{} such as {:?}", wrong.len(), wrong.first());
        let [default, team] = self.teams;
        let mut of_team = 0;
        for token in &self.tokens {
            let teams = admin.token(token).await.unwrap().teams;
            assert!(teams.contains(&default) || teams == [team], "{teams:?}");
            of_team += usize::from(teams.contains(&team));
        }
        assert_eq!(of_team, within.len());
    }
}

async fn a_large_team_is_set_and_deleted(place: Place) {
    let admin = place.open().await;
    let crowd = Crowd::new(&admin).await;
    let half = &crowd.users[..COUNT / 2];
    for users in [crowd.users.as_slice(), half, &[], &crowd.users] {
        let from = place.note_commits(&admin).await;
        let answer = admin.expect(200, "PUT", &crowd.team, json!({ "Users": users })).await;
        assert_eq!(answer["Users"].as_array().unwrap().len(), users.len());
        crowd.is(&admin, users).await;
        place.commits_are_small(&admin, from, COUNT / 2).await;
    }
    // A new team may come with as many, and comes once.
    let (teams, _) = crowd.team.rsplit_once('/').unwrap();
    let body = json!({ "Name": "another", "Users": crowd.users }).to_string();
    let mut made = Value::Null;
    for _ in 0..2 {
        let request = Request::post(format!("/portal-api{teams}")).header("Authorization", SECRET);
        let request = request.header("Idempotency-Key", "another").body(body.clone().into());
        let reply = admin.raw(request.unwrap()).await;
        assert!(reply.status == 200 && [&Value::Null, &reply.json].contains(&&made), "{reply:?}");
        made = reply.json;
    }
    let another = format!("{teams}/{}", id(&made));
    let shown = admin.expect(200, "GET", &another, Value::Null).await;
    assert_eq!(shown["Users"].as_array().unwrap().len(), COUNT);
    for path in [&another, &crowd.team] {
        let from = place.note_commits(&admin).await;
        admin.expect(200, "DELETE", path, Value::Null).await;
        place.commits_are_small(&admin, from, COUNT).await;
        admin.expect(404, "GET", path, Value::Null).await;
    }
    let wrong = misfits(&**admin.catalog.store()).await;
    assert!(wrong.is_empty(), "{} such as {:?}", wrong.len(), wrong.first());
    for token in &crowd.tokens {
        assert_eq!(admin.token(token).await.unwrap().teams, crowd.teams[..1]);
    }
}

/// Half set, then set again: by the same list, and by an edit of something else.
async fn a_large_team_half_set_is_set_again(mut place: Place) {
    let mut admin = place.open().await;
    let crowd = Crowd::new(&admin).await;
    let (first, team) = (crowd.tokens[0].clone(), crowd.teams[1]);
    for (again, within) in [(json!({ "Users": crowd.users }), true), (json!({"Name": "x"}), false)]
    {
        let users = if within { crowd.users.as_slice() } else { &[] };
        let body = json!({ "Users": users });
        let begun = |record: Option<turnpike::wire::record::KeyRecord>| {
            record.is_some_and(|record| record.teams.contains(&team) == within)
        };
        admin = place.cut(admin, ("PUT", &crowd.team, &body), (&first, begun)).await;
        admin.expect(200, "PUT", &crowd.team, again).await;
        crowd.is(&admin, users).await;
    }
}

/// Products as they lie in the store: making them one by one takes long.
async fn products(admin: &Admin) -> Vec<u64> {
    let ids: Vec<u64> = (1_000..1_000 + COUNT as u64).collect();
    let writes = ids.iter().map(|id| {
        let mut product = Stored { id: *id, ..Stored::default() };
        product.members.insert("Name".to_owned(), format!("product {id}").into());
        product.members.insert("IsDocumentationOnly".to_owned(), true.into());
        let key = RecordKey::number(Kind::Product, *id);
        Write { key, expect: Expect::Absent, value: Some(product.encode().into()) }
    });
    admin.catalog.store().commit(writes.collect()).await.unwrap();
    ids
}

async fn a_large_catalogue_is_set_and_deleted(place: Place) {
    let admin = place.open().await;
    let ids = products(&admin).await;
    let from = place.note_commits(&admin).await;
    let shelf = json!({"Name": "shelf", "VisibilityStatus": "Private", "Products": ids,
        "OrgCatalogues": [{"OrganisationID": 1}]});
    let made = admin.expect(200, "POST", "/catalogues", shelf).await;
    let one = format!("/catalogues/{}", id(&made));
    let names: Vec<_> = ids.iter().map(|id| json!(format!("product {id}"))).collect();
    assert_eq!(made["Products"], json!(names));
    assert_eq!(admin.expect(200, "GET", &one, Value::Null).await["Products"], json!(names));
    place.commits_are_small(&admin, from, COUNT).await;
    for (products, count) in [(&ids[1..], COUNT - 1), (&ids[..2], 2), (&ids, COUNT)] {
        admin.expect(200, "PUT", &one, json!({ "Products": products })).await;
        let shown = admin.expect(200, "GET", &one, Value::Null).await;
        assert_eq!(shown["Products"].as_array().unwrap().len(), count);
        assert_eq!(misfits(&**admin.catalog.store()).await, Vec::<String>::new());
    }
    let from = place.note_commits(&admin).await;
    admin.expect(200, "DELETE", &one, Value::Null).await;
    place.commits_are_small(&admin, from, COUNT).await;
    assert_eq!(misfits(&**admin.catalog.store()).await, Vec::<String>::new());
    let last = format!("/products/{}", ids[COUNT - 1]);
    assert_eq!(admin.expect(200, "GET", &last, Value::Null).await["Catalogues"], json!([]));
}

on_every_store! {
    a_large_team_is_set_and_deleted
    a_large_team_half_set_is_set_again
    a_large_catalogue_is_set_and_deleted
}
