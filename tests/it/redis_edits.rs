//! What is edited at one gateway holds at the other within a second: edit by edit.

use serde_json::{Value, json};

use crate::process::{Client, SECRET, Upstream, ms_until, until};
use crate::redis_cluster::two;
use crate::redis_gateways::{Place, unlimited};
use crate::redis_server::RedisServer;

const TOKEN: &str = "token-of-a-robot";
const CREDENTIAL: &str = "/portal-api/apps/1/custom_credentials/1";
/// The longest that an edit may take to hold everywhere, in milliseconds.
const BOUND_MS: u64 = 1_000;

/// Two gateways, and how long each edit took.
struct Pair {
    _server: RedisServer,
    _upstream: Upstream,
    one: Place,
    other: Place,
    took: Vec<(&'static str, u64)>,
}

impl Pair {
    /// Plan 1 and product 1 of `a` with the token; plan 2 with a quota, plan 3 that asks; product 2
    /// of `b`.
    fn start() -> Self {
        let (server, upstream, one, other) = two();
        one.gateway.import(TOKEN, unlimited());
        let quota = json!({"Name": "quota", "ProviderID": 1, "UnlimitedRateLimit": true,
            "Quota": 3, "QuotaRenewalRate": 3600});
        assert_eq!(one.gateway.post("/plans", &quota), 2);
        let mut asks = unlimited();
        (asks["Name"], asks["ProviderID"]) = (json!("asks"), json!(1));
        assert_eq!(one.gateway.post("/plans", &asks), 3);
        let b = json!({"Name": "b", "ProviderID": 1, "IsDocumentationOnly": false,
            "APIDetails": [{"APIID": "b"}]});
        assert_eq!(one.gateway.post("/products", &b), 2);
        until("it works there", || other.asks(TOKEN) == 200);
        Self { _server: server, _upstream: upstream, one, other, took: Vec::new() }
    }

    /// An edit at one gateway, after which the other shows what it did not show before.
    #[track_caller]
    fn edit(
        &mut self,
        what: &'static str,
        (method, path, body): (&str, &str, Value),
        shows: impl Fn(&Place) -> bool,
    ) -> Value {
        assert!(!shows(&self.other), "{what}: already before");
        let answer = self.one.gateway.admin(method, path, &body);
        assert!(answer.status < 300, "{what}: {answer:?}");
        self.took.push((what, ms_until(what, || shows(&self.other))));
        assert!(shows(&self.one), "{what}: not where it was edited");
        answer.json()
    }
}

fn at(path: &'static str, status: u16) -> impl Fn(&Place) -> bool {
    move |place| place.gateway.get(path, TOKEN).status == status
}

fn get(place: &Place, path: &str, token: &str) -> u16 {
    Client::new(place.gateway.admin).get(path, &[("Authorization", token)]).status
}

fn rows(place: &Place, path: &str) -> Vec<Value> {
    place.gateway.admin("GET", path, &Value::Null).json().as_array().unwrap().clone()
}

#[test]
fn every_edit_at_one_gateway_holds_at_the_other_within_a_second() {
    let mut pair = Pair::start();
    let put = |body| ("PUT", CREDENTIAL, body);
    pair.edit("suspended", put(json!({"Active": false})), at("/a/x", 403));
    pair.edit("resumed", put(json!({"Active": true})), at("/a/x", 200));
    pair.edit("another product", put(json!({"ProductIDs": [2]})), at("/b/x", 200));
    assert_eq!(pair.other.asks(TOKEN), 403, "and not the one before");
    pair.edit("both products", put(json!({"ProductIDs": [1, 2]})), at("/a/x", 200));
    let product = |apis| ("PUT", "/portal-api/products/1", json!({"APIDetails": apis}));
    pair.edit("a product emptied", product(json!([])), at("/a/x", 403));
    pair.edit("and refilled", product(json!([{"APIID": "a"}])), at("/a/x", 200));
    pair.edit("another plan", put(json!({"PlanID": 2})), |place| {
        let answer = place.gateway.get("/a/x", TOKEN);
        answer.headers.get("ratelimit-policy").is_some_and(|policy| policy.contains(";q=3;"))
    });
    for place in [&pair.other, &pair.one] {
        until("the quota is used up", || place.asks(TOKEN) == 429);
    }
    // Looked at without spending what was given back.
    let used_up = |place: &Place| place.gateway.get("/a/x", TOKEN).status == 429;
    assert!(used_up(&pair.other));
    let reset = pair.one.gateway.admin("POST", &format!("{CREDENTIAL}/reset_quota"), &json!({}));
    assert_eq!(reset.status, 200, "{reset:?}");
    let took_ms = ms_until("the quota is given back", || !used_up(&pair.other));
    pair.took.push(("a quota reset", took_ms));
    requests(&mut pair);
    tokens_audit_and_imports(&mut pair);
    eprintln!("milliseconds from the answer to what the other gateway shows: {:?}", pair.took);
    assert!(pair.took.iter().all(|(_, ms)| *ms < BOUND_MS), "{:?}", pair.took);
}

/// Access that is asked for here and granted there.
fn requests(pair: &mut Pair) {
    let body = json!({"PlanID": 3, "ProductIDs": [1]});
    let asked = pair.one.gateway.admin("PUT", "/portal-api/apps/1/provision", &body).json();
    let path = format!("/portal-api/access_requests/{}", asked["AccessRequestID"]);
    let credentials = |place: &Place| {
        let shown = place.gateway.admin("GET", &path, &Value::Null).json();
        shown["Credentials"].as_array().is_some_and(|all| !all.is_empty())
    };
    let approve = format!("{path}/approve");
    pair.edit("a request approved", ("PUT", &approve, json!({})), credentials);
    let shown = pair.other.gateway.admin("GET", &path, &Value::Null).json();
    let token = shown["Credentials"][0]["Credential"].as_str().unwrap().to_owned();
    assert_eq!((pair.other.asks(&token), pair.one.asks(&token)), (200, 200));
}

fn tokens_audit_and_imports(pair: &mut Pair) {
    let admin = "/v1/admin/tokens";
    let body = json!({"Name": "portal", "Scopes": ["read"]});
    let made = pair.one.gateway.admin("POST", admin, &body).json();
    let token = made["Token"].as_str().unwrap().to_owned();
    assert_eq!(get(&pair.other, "/v1/audit", &token), 200);
    let path = format!("{admin}/{}", made["ID"]);
    let shut = |place: &Place| get(place, "/v1/audit", &token) == 401;
    pair.edit("an admin token revoked", ("DELETE", &path, Value::Null), shut);
    let line = json!({"KeyID": "an-imported-token-0001", "AppID": 1, "PlanID": 3,
        "ProductIDs": [1], "Alias": "imported"});
    let imported = |place: &Place| {
        rows(place, "/v1/imports").iter().any(|row| row["Status"] == "completed")
            && place.asks("an-imported-token-0001") == 200
    };
    let import = ("POST", "/v1/imports?format=ndjson&wait=20s", line);
    pair.edit("an import", import, imported);
    let audited = |place: &Place| {
        let rows = rows(place, "/v1/audit?limit=1000");
        rows.iter().any(|row| row["Method"] == "DELETE" && row["Path"] == "/portal-api/apps/2")
    };
    pair.one.gateway.post("/apps", &json!({"Name": "second", "UserID": 1}));
    pair.edit("an entry of the audit log", ("DELETE", "/portal-api/apps/2", Value::Null), audited);
    // What was done at one gateway is not done again at the other.
    let body = json!({"Name": "third", "UserID": 1}).to_string();
    let headers = [("Authorization", SECRET), ("Idempotency-Key", "once")];
    let made = [&pair.one, &pair.other].map(|place| {
        let mut client = Client::new(place.gateway.admin);
        client.send("POST", "/portal-api/apps", &headers, &body).unwrap()
    });
    assert_eq!(made[0].json(), made[1].json());
    assert_eq!(made[1].headers["idempotent-replayed"], "true");
}
