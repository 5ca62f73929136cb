//! Used quota that an import brings: what is left of it is admitted, in the window that it is of.

use std::time::Duration;

use serde_json::{Value, json};
use turnpike::clock::Clock;
use turnpike::domain::denial::Denial;
use turnpike::domain::time::UnixMs;
use turnpike::enforce::Carried;
use turnpike::store::{Kind, RecordKey, RecordStore};
use turnpike::wire::portal::moment;

use crate::gate::Gate;

const TOKEN: &str = "LEG-00fa-91c2-77aa";
const MINUTE_MS: u64 = 60_000;

/// Imports 8 used of 10 an hour, in a window that ends 25 minutes after `now`.
async fn goes_on(gate: &Gate, now: UnixMs) {
    let plan = json!({"Name": "ten", "UnlimitedRateLimit": true, "Quota": 10,
                      "QuotaRenewalRate": 3600});
    let plan = gate.plan(plan).await;
    let product = gate.product("a", &["a"]).await;
    let app = gate.post("/apps", json!({"Name": "robot", "UserID": 1})).await;
    let renews = moment::exact(now.plus_ms(25 * MINUTE_MS));
    let import = async |alias: &str| {
        let line = json!({"AppID": app, "Alias": alias, "KeyID": TOKEN, "PlanID": plan,
            "ProductIDs": [product], "QuotaUsed": 8, "QuotaRenews": renews});
        let path = "/v1/imports?format=ndjson&wait=60s";
        let (status, done) = gate.request("POST", path, line).await;
        assert_eq!(status, 200, "{done}");
        assert_eq!(done["Received"], 1);
        let at = gate.generation().await;
        assert!((1..=at).contains(&done["AppliedGeneration"].as_u64().unwrap()), "{done}");
        ["Created", "Updated", "Unchanged"].map(|name| done[name].as_u64().unwrap())
    };
    let usage = async || {
        let path = format!("/apps/{app}/custom_credentials/1/usage");
        let quota = gate.ok(200, "GET", &path, Value::Null).await["Quota"].clone();
        assert_eq!(quota["RenewsAt"], renews, "{quota}");
        (quota["Used"].as_u64().unwrap(), quota["Remaining"].as_u64().unwrap())
    };
    assert_eq!(import("k").await, [1, 0, 0]);
    assert_eq!(usage().await, (8, 2));
    assert_eq!(import("k").await, [0, 0, 1]);
    // As after a crash between the counter and the commit.
    let hash = gate.catalog.pepper().hash(TOKEN.as_bytes());
    let key = RecordKey::bytes(Kind::Token, hash.0);
    let record = gate.catalog.store().get(&key).await.unwrap().unwrap();
    let renews = Some(now.plus_ms(25 * MINUTE_MS));
    let carried = Carried { token: hash, record: record.value, used: 8, renews };
    gate.enforcer.carry(&[carried]).await.unwrap();
    assert_eq!(usage().await, (8, 2), "told twice, counted once");
    assert_eq!(gate.admitted(TOKEN, "/a/x", 5).await, 2);
    assert_eq!(gate.denial(TOKEN, "/a/x").await, Some(Denial::QuotaExceeded));
    assert_eq!(import("renamed").await, [0, 1, 0]);
    assert_eq!(usage().await, (10, 0));
    assert_eq!(gate.admitted(TOKEN, "/a/x", 5).await, 0);
}

#[tokio::test]
async fn what_an_import_left_of_a_quota_is_admitted_until_it_renews() {
    let gate = Gate::new().await;
    goes_on(&gate, gate.clock.unix()).await;
    gate.pass(Duration::from_millis(25 * MINUTE_MS - 1));
    assert_eq!(gate.admitted(TOKEN, "/a/x", 3).await, 0);
    gate.pass(Duration::from_millis(1));
    assert_eq!(gate.admitted(TOKEN, "/a/x", 12).await, 10, "the next window is whole");
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn what_an_import_left_of_a_quota_is_admitted_from_redis() {
    let server = crate::redis_server::RedisServer::start();
    let store = turnpike::store::AnyStore::Redis(server.connect().await);
    // Windows are the server's.
    let now = turnpike::clock::SystemClock.unix();
    let clock = turnpike::clock::ManualClock::at(now).into();
    let gate = Gate::on(store, tempfile::tempdir().unwrap().into(), clock, 1).await;
    goes_on(&gate, now).await;
}
