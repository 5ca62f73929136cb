//! The main job: import a token through the admin endpoint, enforce it, forward. The built
//! binary, real sockets, the upstream's own count as the judge.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use turnpike::clock::{Clock, SystemClock};

use crate::process::{Client, Gateway, SECRET, Upstream};

fn unlimited() -> serde_json::Value {
    json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true})
}

/// The two requests of the guide "How to Associate API Products with Tyk Managed Custom
/// Credentials", byte for byte but for the placeholders.
#[test]
fn the_guides_two_requests_import_a_token_that_then_works() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start(folder.path(), &upstream);
    let mut plan = unlimited();
    plan["Name"] = json!("robot");
    plan["ProviderID"] = json!(1);
    let plan = gateway.post("/plans", &plan);
    let product = gateway.post(
        "/products",
        &json!({"Name": "a", "ProviderID": 1,
        "IsDocumentationOnly": false, "APIDetails": [{"APIID": "a"}]}),
    );
    let token = "LEG-00fa-91c2-77aa";
    guide(&gateway, token, plan, product);

    let mut client = Client::new(gateway.proxy);
    let bearer = format!("Bearer {token}");
    for headers in
        [[("Authorization", bearer.as_str())], [("Authorization", token)], [("X-API-Key", token)]]
    {
        let answer = client.get("/a/endpoint?page=2", &headers);
        assert_eq!(answer.status, 200, "{headers:?}: {answer:?}");
    }
    assert_eq!(upstream.count(), 3);
    for head in upstream.seen() {
        assert!(head.starts_with("GET /endpoint?page=2 HTTP/1.1\r\n"), "{head}");
        assert!(!head.contains(token), "the token reached the upstream: {head}");
    }
    for (path, token, status, code) in [
        ("/a/x", "nobody", 403, "token_unknown"),
        ("/b/x", token, 403, "api_not_granted"),
        ("/c/x", token, 404, "no_route"),
    ] {
        let answer = client.get(path, &[("X-API-Key", token)]);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)));
        assert_eq!(answer.headers["content-type"], "application/problem+json");
    }
    let answer = client.get("/a/x", &[]);
    assert_eq!((answer.status, answer.json()["code"].as_str()), (401, Some("token_missing")));
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
    assert_eq!(upstream.count(), 3, "no refused request reaches the upstream");
    nothing_holds(&gateway, folder.path(), token);
}

/// The guide's two requests, their placeholders filled in.
fn guide(gateway: &Gateway, token: &str, plan: u64, product: u64) {
    let headers = [("Authorization", SECRET), ("Content-Type", "application/json")];
    let first = r#"{
           "Name": "Payment App",
           "Description": "This is my payment application",
           "RedirectURLs": "https://app-host/auth",
           "UserID": 1,
           "Visibility": "personal"
       }"#;
    let mut admin = Client::new(gateway.admin);
    let answer = admin.send("POST", "/portal-api/apps", &headers, first).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let app = answer.json()["ID"].as_u64().unwrap();
    let second = r#"{
           "Alias": "<string>",
           "Type": "CREDENTIAL_TYPE_TYK_MANAGED",
           "PlanID": 123,
           "AuthenticationMethod": "<string>",
           "ProductIDs": [
               123
           ],
           "AuthTokenType": "AUTH_TOKEN_CUSTOM",
           "KeyID": "<string>",
           "CredentialKey": "<string>",
           "CredentialSecret": "<string>",
           "ProviderID": 123,
           "ClientTypeID": 123
       }"#;
    let second = second
        .replacen("<string>", "Custom API Token", 1)
        .replacen("123", &plan.to_string(), 1)
        .replacen("<string>", "authToken", 1)
        .replacen("123", &product.to_string(), 1)
        .replacen("<string>", token, 1);
    let path = format!("/portal-api/apps/{app}/custom_credentials");
    let answer = admin.send("POST", &path, &headers, &second).unwrap();
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.json()["KeyID"], token, "shown once");
}

/// No log, metric, listing or file of the store holds the token.
pub fn nothing_holds(gateway: &Gateway, folder: &std::path::Path, token: &str) {
    let metrics = Client::new(gateway.admin).get("/metrics", &[]);
    assert!(
        metrics.body.contains("turnpike_requests_total{api=\"a\",class=\"2xx\""),
        "{metrics:?}"
    );
    assert!(!metrics.body.contains(token));
    let log = gateway.log();
    assert!(!log.contains(token), "{log}");
    let apps = gateway.admin("GET", "/portal-api/apps", &json!(null));
    assert!(!apps.body.contains(token));
    let mut folders = vec![folder.to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // The socket that listeners are handed over by holds nothing.
            if !path.is_file() {
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes.windows(token.len()).any(|window| window == token.as_bytes());
            assert!(!found, "{} holds the token", path.display());
            files += 1;
        }
    }
    assert!(2 < files, "records, journal and configuration were looked at");
}

#[test]
fn five_in_ten_seconds_and_the_sixth_is_told_when_to_come_back() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start(folder.path(), &upstream);
    gateway.import("tok", json!({"RateLimit": 5, "Per": 10, "UnlimitedQuota": true}));
    for n in (0..5).rev() {
        let answer = gateway.get("/a/x", "tok");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["x-ratelimit-limit"], "5");
        assert_eq!(answer.headers["x-ratelimit-remaining"], n.to_string());
        assert_eq!(answer.headers["ratelimit-policy"], "\"rate\";q=5;w=10");
    }
    let answer = gateway.get("/a/x", "tok");
    assert_eq!((answer.status, answer.json()["code"].as_str()), (429, Some("rate_exceeded")));
    let wait: u64 = answer.headers["retry-after"].parse().unwrap();
    assert!((9..=11).contains(&wait), "{wait}");
    let now = SystemClock.unix().0 / 1_000;
    let reset: u64 = answer.headers["x-ratelimit-reset"].parse().unwrap();
    assert!((now..=now + 12).contains(&reset), "{reset} at {now}");
    assert!(answer.headers["ratelimit"].starts_with("\"rate\";r=0;t="), "{answer:?}");
    assert_eq!(upstream.count(), 5);
}

#[test]
fn the_fourth_of_three_is_refused_also_after_a_restart() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start(folder.path(), &upstream);
    let quota = json!({"UnlimitedRateLimit": true, "Quota": 3, "QuotaRenewalRate": 3600});
    gateway.import("tok", quota);
    for _ in 0..3 {
        assert_eq!(gateway.get("/a/x", "tok").status, 200);
    }
    let answer = gateway.get("/a/x", "tok");
    assert_eq!((answer.status, answer.json()["code"].as_str()), (429, Some("quota_exceeded")));
    assert_eq!(gateway.stop(), Some(0));
    let gateway = Gateway::start(folder.path(), &upstream);
    assert_eq!(gateway.get("/a/x", "tok").status, 429);
    assert_eq!(upstream.count(), 3);
}

#[test]
fn ten_thousand_calls_under_an_unlimited_plan_are_admitted() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start_with(folder.path(), &upstream, "[log]\naccess = \"off\"");
    gateway.import("tok", unlimited());
    let mut client = Client::new(gateway.proxy);
    for _ in 0..10_000 {
        assert_eq!(client.get("/a/x", &[("X-API-Key", "tok")]).status, 200);
    }
    assert_eq!(upstream.count(), 10_000);
}

#[test]
fn an_expired_credential_is_refused_with_401() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start(folder.path(), &upstream);
    let mut plan = unlimited();
    plan["KeyExpiresIn"] = json!(1);
    gateway.import("tok", plan);
    let mut client = Client::new(gateway.proxy);
    // Bounded by the time the credential lives, not by a guess.
    let refused = loop {
        let answer = client.get("/a/x", &[("X-API-Key", "tok")]);
        if answer.status != 200 {
            break answer;
        }
    };
    assert_eq!((refused.status, refused.json()["code"].as_str()), (401, Some("expired")));
    assert_eq!(refused.headers["www-authenticate"], "Bearer error=\"invalid_token\"");
}

/// 64 connections that send until they are told that the quota is used up, or the gateway is gone.
fn storm(gateway: &Gateway, per_connection: usize) -> (usize, usize) {
    let (ok, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let (to, ok, refused) = (gateway.proxy, Arc::clone(&ok), Arc::clone(&refused));
            std::thread::spawn(move || {
                let Ok(mut client) = Client::connect(to) else { return };
                for _ in 0..per_connection {
                    match client.send("GET", "/a/x", &[("X-API-Key", "tok")], "") {
                        Ok(answer) if answer.status == 200 => ok.fetch_add(1, Ordering::SeqCst),
                        Ok(answer) if answer.status == 429 => {
                            refused.fetch_add(1, Ordering::SeqCst)
                        }
                        Ok(answer) => panic!("{answer:?}"),
                        Err(_) => return,
                    };
                }
            })
        })
        .collect();
    for task in tasks {
        task.join().unwrap();
    }
    (ok.load(Ordering::SeqCst), refused.load(Ordering::SeqCst))
}

#[test]
fn sixty_four_connections_get_exactly_the_quota_by_the_upstreams_count() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start(folder.path(), &upstream);
    let plan = json!({"UnlimitedRateLimit": true, "Quota": 1000, "QuotaRenewalRate": 3600});
    gateway.import("tok", plan);
    let (ok, refused) = storm(&gateway, 40);
    assert_eq!((ok, refused), (1_000, 64 * 40 - 1_000));
    assert_eq!(upstream.count(), 1_000);
}

#[test]
fn a_kill_in_the_middle_wastes_at_most_a_twentieth_and_hands_nothing_out_twice() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start(folder.path(), &upstream);
    let plan = json!({"UnlimitedRateLimit": true, "Quota": 1000, "QuotaRenewalRate": 3600});
    gateway.import("tok", plan);
    let gateway = Arc::new(gateway);
    let storming = std::thread::spawn({
        let gateway = Arc::clone(&gateway);
        move || {
            storm(&gateway, 40);
        }
    });
    // The kill comes when about half of the quota has arrived upstream.
    while upstream.count() < 500 {
        std::thread::yield_now();
    }
    gateway.kill_now();
    storming.join().unwrap();
    drop(gateway);
    let gateway = Gateway::start(folder.path(), &upstream);
    storm(&gateway, 40);
    let arrived = upstream.count();
    assert!(arrived <= 1_000, "{arrived}");
    assert!(
        1_000 - 50 - 64 <= arrived,
        "{arrived}: more was wasted than a twentieth and 64 in flight"
    );
}

#[test]
fn a_stop_answers_what_is_in_flight_and_exits_cleanly() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start(folder.path(), &upstream);
    gateway.import("tok", unlimited());
    let mut client = Client::new(gateway.proxy);
    assert_eq!(client.get("/a/x", &[("X-API-Key", "tok")]).status, 200);
    let log = {
        gateway.terminate();
        gateway.stop()
    };
    assert_eq!(log, Some(0));
}
