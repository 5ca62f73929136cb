//! The life of a credential with the built binary: warm caches, and no token left anywhere.

use serde_json::{Value, json};
use turnpike::clock::{Clock, SystemClock};

use crate::process::{Client, Gateway, Upstream};

/// The status of a request with a token, over a connection that is kept.
fn status(client: &mut Client, token: &str) -> u16 {
    client.get("/a/x", &[("X-API-Key", token)]).status
}

#[test]
fn rotation_after_a_429_works_at_once_and_keeps_the_quota() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start(folder.path(), &upstream);
    let plan = json!({"RateLimit": 2, "Per": 60, "Quota": 3, "QuotaRenewalRate": 3600});
    let id = gateway.import("old-token", plan);
    let one = format!("/portal-api/apps/1/custom_credentials/{id}");
    let mut client = Client::new(gateway.proxy);
    let got: Vec<_> = (0..3).map(|_| status(&mut client, "old-token")).collect();
    assert_eq!(got, [200, 200, 429]);
    // The portal's way: the new token is not in the answer, and is read afterwards.
    let shown = gateway.admin("GET", &one, &Value::Null).json();
    let request = shown["AccessRequest"].as_str().unwrap().replace("AccessRequest#", "");
    let below = format!("/portal-api/apps/1/access-requests/{request}/credentials/{id}");
    let answer = gateway.admin("PUT", &format!("{below}/rotate"), &Value::Null);
    assert_eq!(answer.status, 200, "{answer:?}");
    let shown = gateway.admin("GET", &below, &Value::Null).json();
    let new = shown["Credential"].as_str().unwrap();
    assert!(new.starts_with("tp_"), "{shown}");
    assert_eq!(status(&mut client, new), 200, "at once: its rate is its own");
    assert_eq!(status(&mut client, "old-token"), 403, "through a warm cache");
    let refused = client.get("/a/x", &[("X-API-Key", new)]);
    assert_eq!(refused.json()["code"], "quota_exceeded", "2 + 1 of 3: the quota went on");
    assert_eq!(upstream.count(), 3);
    // Revoked: at once, and nothing holds the token.
    assert_eq!(gateway.admin("DELETE", &one, &Value::Null).status, 200);
    assert_eq!(status(&mut client, new), 403);
    crate::main_job::nothing_holds(&gateway, folder.path(), new);
}

#[test]
fn a_credential_revoked_under_load_is_refused_within_a_second() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start_with(folder.path(), &upstream, "[log]\naccess = \"off\"");
    let id = gateway.import("tok", json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true}));
    let proxy = gateway.proxy;
    let callers: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::new(proxy);
                let mut admitted = 0;
                // Bounded by the revocation: whoever is refused stops.
                while status(&mut client, "tok") == 200 {
                    admitted += 1;
                }
                (admitted, SystemClock.boot())
            })
        })
        .collect();
    while upstream.count() < 200 {
        std::thread::yield_now();
    }
    let path = format!("/portal-api/apps/1/custom_credentials/{id}");
    assert_eq!(gateway.admin("DELETE", &path, &Value::Null).status, 200);
    let answered = SystemClock.boot();
    for caller in callers {
        let (admitted, refused) = caller.join().unwrap();
        assert!(0 < admitted);
        assert!(refused.since_ms(answered) < 1_000, "later than a second");
    }
}
