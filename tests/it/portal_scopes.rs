//! Quotas that are shared, through the portal's listener and the proxy: the upstream counts.

use serde_json::{Value, json};

use crate::process::{Gateway, Upstream};

/// Two organisations. Acme has a user with two apps, and another user; the other has one. Each app
/// has a token under one plan of 6 in an hour, with products of both APIs.
struct Place {
    _folder: tempfile::TempDir,
    upstream: Upstream,
    gateway: Gateway,
}

/// The tokens: of the same user, of another of the same organisation, of another organisation.
const TOKENS: [&str; 4] = ["robot-1-token", "robot-2-token", "colleague-token", "stranger-token"];

impl Place {
    fn new(scope: &str) -> Self {
        let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
        let gateway = Gateway::start(folder.path(), &upstream);
        let plan = gateway.post(
            "/plans",
            &json!({"Name": "plan", "ProviderID": 1, "UnlimitedRateLimit": true, "Quota": 6,
                "QuotaRenewalRate": 3600, "QuotaScope": scope}),
        );
        let product = |api: &str| {
            let body = json!({"Name": api, "ProviderID": 1, "IsDocumentationOnly": false,
                "APIDetails": [{"APIID": api}]});
            gateway.post("/products", &body)
        };
        let products = [product("a"), product("b")];
        let [acme, other] =
            ["Acme", "Other"].map(|name| gateway.post("/organisations", &json!({"Name": name})));
        let user = |name: &str, organisation: u64| {
            let email = format!("{name}@{organisation}.test");
            gateway.post("/users", &json!({"Email": email, "OrganisationID": organisation}))
        };
        let robots = user("robots", acme);
        let owners = [robots, robots, user("colleague", acme), user("stranger", other)];
        for (token, owner) in TOKENS.into_iter().zip(owners) {
            let app = gateway.post("/apps", &json!({"Name": token, "UserID": owner}));
            let body = json!({"Alias": "one", "Type": "CREDENTIAL_TYPE_TYK_MANAGED",
                "AuthTokenType": "AUTH_TOKEN_CUSTOM", "KeyID": token, "PlanID": plan,
                "ProductIDs": products});
            gateway.post(&format!("/apps/{app}/custom_credentials"), &body);
        }
        Self { _folder: folder, upstream, gateway }
    }

    /// How many of ten requests to each of both APIs with a token arrive upstream.
    fn arrived(&self, token: &str) -> [usize; 2] {
        ["/a/x", "/b/x"].map(|path| {
            let before = self.upstream.count();
            for _ in 0..10 {
                let answer = self.gateway.get(path, token);
                assert!([200, 429].contains(&answer.status), "{answer:?}");
            }
            self.upstream.count() - before
        })
    }
}

#[track_caller]
fn check(scope: &str, expect: [[usize; 2]; 4]) {
    let place = Place::new(scope);
    let got = TOKENS.map(|token| place.arrived(token));
    assert_eq!(got, expect, "{scope}: requests to a and b by {TOKENS:?}");
    // Moving an app to another owner moves its share: it counts with that owner from then on.
    if scope == "developer" {
        let user = place.gateway.post("/users", &json!({"Email": "new@new.test"}));
        let moved = json!({ "UserID": user });
        let answer = place.gateway.admin("PUT", "/portal-api/apps/1", &moved);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(place.arrived(TOKENS[0]), [6, 0], "app owner reassignment");
        let usage =
            place.gateway.admin("GET", &format!("/portal-api/users/{user}/usage"), &Value::Null);
        assert_eq!(usage.json()["Credentials"][0]["Quota"]["Used"], 6, "{usage:?}");
    }
}

#[test]
fn a_quota_of_an_api_is_one_for_each_api_of_a_credential() {
    check("api", [[6, 6], [6, 6], [6, 6], [6, 6]]);
}

#[test]
fn a_quota_of_a_developer_is_one_for_all_apps_of_the_user() {
    check("developer", [[6, 0], [0, 0], [6, 0], [6, 0]]);
}

#[test]
fn a_quota_of_an_organisation_is_one_for_all_its_users() {
    check("organisation", [[6, 0], [0, 0], [0, 0], [6, 0]]);
}
