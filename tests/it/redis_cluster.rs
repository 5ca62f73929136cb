//! Two real gateways on a real redis-server behave as one: writes that wait for both, rotation,
//! revocation under load.

use serde_json::{Value, json};
use turnpike::clock::{Clock, SystemClock};

use crate::process::{Client, SECRET, Upstream, until};
use crate::redis_gateways::{Place, credential, unlimited};
use crate::redis_server::RedisServer;

pub(crate) fn two() -> (RedisServer, Upstream, Place, Place) {
    let (server, upstream) = (RedisServer::start(), Upstream::start());
    let (one, other) = (Place::start(&server, &upstream), Place::start(&server, &upstream));
    until("they know each other", || one.status()["gateways"].as_array().unwrap().len() == 2);
    (server, upstream, one, other)
}

#[test]
fn a_write_that_waits_for_the_cluster_is_enforced_everywhere_when_it_is_answered() {
    let (_server, _upstream, one, other) = two();
    one.gateway.import("first-token", unlimited());
    let all = "/portal-api/apps/1/custom_credentials";
    let start = SystemClock.boot();
    for round in 0..5 {
        let token = format!("token-of-robot-{round}");
        assert_eq!(other.asks(&token), 403, "and remembers that nobody has it");
        let body = json!({"Alias": format!("robot {round}"), "Type": "CREDENTIAL_TYPE_TYK_MANAGED", "KeyID": token,
            "AuthTokenType": "AUTH_TOKEN_CUSTOM", "PlanID": 1, "ProductIDs": [1]});
        let made = one.gateway.admin("POST", &format!("{all}?wait=cluster"), &body);
        assert_eq!(made.status, 201, "{made:?}");
        assert_eq!(other.asks(&token), 200, "at once");
        let path = format!("{all}/{}?wait=cluster&timeout=20s", made.json()["ID"]);
        let gone = one.gateway.admin("DELETE", &path, &Value::Null);
        assert_eq!(gone.status, 200, "{gone:?}");
        assert_eq!(other.asks(&token), 403, "at once");
    }
    let took_ms = SystemClock.boot().since_ms(start);
    eprintln!("milliseconds for ten writes that both gateways enforce: {took_ms}");
    assert!(took_ms < 10_000, "a second each would be a heartbeat each: {took_ms}");
}

#[test]
fn an_import_that_waits_for_the_cluster_is_enforced_everywhere_when_it_is_answered() {
    let (_server, _upstream, one, other) = two();
    one.gateway.import("first-token", unlimited());
    let tokens: Vec<_> = (0..200).map(|n| format!("LEG-imported-{n:04}")).collect();
    let last = &tokens[tokens.len() - 1];
    assert_eq!(other.asks(last), 403, "and remembers that nobody has it");
    let lines: Vec<_> = tokens
        .iter()
        .map(|token| {
            json!({"AppID": 1, "Alias": &token[4..], "KeyID": token, "PlanID": 1, "ProductIDs": [1]})
                .to_string()
        })
        .collect();
    let path = "/v1/imports?format=ndjson&wait=cluster&timeout=20s";
    let mut admin = Client::new(one.gateway.admin);
    let headers = [("Authorization", SECRET)];
    let done = admin.send("POST", path, &headers, &lines.join("\n")).unwrap();
    assert_eq!((done.status, &done.json()["Created"]), (200, &json!(200)), "{done:?}");
    for token in [&tokens[0], last] {
        assert_eq!(other.asks(token), 200, "at once");
    }
    let at = done.json()["AppliedGeneration"].as_u64().unwrap();
    assert!(at <= other.status()["generation"].as_u64().unwrap(), "{done:?}");
}

#[test]
fn a_gateway_that_is_late_is_named_and_the_write_is_done() {
    let (_server, _upstream, one, other) = two();
    one.gateway.import("a-token", unlimited());
    until("it works there", || other.asks("a-token") == 200);
    let path = credential(&one.gateway, "a-token");
    let wrong =
        one.gateway.admin("DELETE", &format!("{path}?wait=cluster&timeout=soon"), &json!({}));
    assert_eq!(wrong.status, 422, "{wrong:?}");
    assert_eq!(one.asks("a-token"), 200, "nothing is done that cannot be waited for");
    other.gateway.signal("-STOP");
    let path = format!("{path}?wait=cluster&timeout=300ms");
    let gone = one.gateway.admin("DELETE", &path, &Value::Null);
    let (status, gone) = (gone.status, gone.json());
    assert_eq!((status, &gone["status"]), (202, &json!("ok")), "{gone}");
    let late: Vec<_> = gone["LateGateways"].as_array().unwrap().iter().collect();
    assert_eq!(late.len(), 1, "{gone}");
    let port = format!(":{}", other.gateway.admin.port());
    assert!(late[0].as_str().unwrap().ends_with(&port), "{gone}");
    assert_eq!(one.asks("a-token"), 403);
    // Also when it has been silent for so long that it does not count as live any more.
    let body = json!({"Name": "meanwhile", "UserID": 1});
    let made = one.gateway.admin("POST", "/portal-api/apps?wait=cluster", &body);
    assert_eq!((made.status, &made.json()["LateGateways"]), (202, &gone["LateGateways"]));
    other.gateway.signal("-CONT");
    until("it has caught up", || other.asks("a-token") == 403);
}

#[test]
fn rotation_after_a_429_works_at_once_on_both_gateways_and_keeps_the_quota() {
    let (_server, upstream, one, other) = two();
    one.gateway.import(
        "old-token",
        json!({"RateLimit": 2, "Per": 60, "Quota": 3, "QuotaRenewalRate": 3600}),
    );
    until("it works there", || other.asks("old-token") == 200);
    until("and here", || one.asks("old-token") == 200);
    assert_eq!((one.asks("old-token"), other.asks("old-token")), (429, 429));
    let path = format!("{}/rotate?wait=cluster", credential(&one.gateway, "old-token"));
    let answer = one.gateway.admin("POST", &path, &json!({"KeyID": "new-token"}));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(other.asks("new-token"), 200, "at once: its rate is its own");
    for place in [&one, &other] {
        assert_eq!(place.asks("old-token"), 403, "through a warm cache");
        let refused = place.gateway.get("/a/x", "new-token");
        assert_eq!(refused.json()["code"], "quota_exceeded", "2 + 1 of 3: the quota went on");
    }
    assert_eq!(upstream.count(), 3);
}

#[test]
fn a_credential_revoked_under_load_is_refused_on_both_gateways_within_a_second() {
    let (_server, upstream, one, other) = two();
    one.gateway.import("a-token", unlimited());
    until("it works there", || other.asks("a-token") == 200);
    let path = credential(&one.gateway, "a-token");
    let callers: Vec<_> = [&one, &other]
        .into_iter()
        .flat_map(|place| [place.gateway.proxy; 4])
        .map(|proxy| {
            std::thread::spawn(move || {
                let mut client = Client::new(proxy);
                let mut admitted = 0;
                // Bounded by the revocation: whoever is refused stops.
                while client.get("/a/x", &[("X-API-Key", "a-token")]).status == 200 {
                    admitted += 1;
                }
                (admitted, SystemClock.boot())
            })
        })
        .collect();
    let before = upstream.count();
    until("there is load", || before + 400 < upstream.count());
    assert_eq!(one.gateway.admin("DELETE", &path, &Value::Null).status, 200);
    let answered = SystemClock.boot();
    let mut took = Vec::new();
    for caller in callers {
        let (admitted, refused) = caller.join().unwrap();
        assert!(0 < admitted);
        took.push(refused.since_ms(answered));
    }
    eprintln!("milliseconds from the answer to a revocation to each caller's refusal: {took:?}");
    assert!(took.iter().all(|ms| *ms < 1_000), "{took:?}");
}
