//! The built binary, started while its redis-server is away: it goes on from its copy.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::process::{Client, Gateway, Upstream, until};
use crate::redis_gateways::{Place, credential, unlimited};
use crate::redis_server::RedisServer;

const KEPT: &str = "token-to-keep";
const REVOKED: &str = "token-to-revoke";

fn revoke(on: &Place, token: &str) {
    let path = credential(&on.gateway, token);
    assert!(on.gateway.admin("DELETE", &path, &Value::Null).status < 300);
}

/// What a token's record holds, and the token itself must not be part of.
fn mark(token: &str) -> String {
    token.chars().rev().collect()
}

fn has(folder: &Path, file: &str, text: &str) -> bool {
    let bytes = std::fs::read(folder.join("data").join(file)).unwrap();
    bytes.windows(text.len()).any(|at| at == text.as_bytes())
}

/// Returns when what was looked up is in the copy: a gateway that is killed may leave some behind.
fn copied(place: &Place, tokens: &[&str]) {
    let folder = place.folder.path();
    let has = |token: &&str| has(folder, "fallback.redb", &mark(token));
    until("it is copied", || tokens.iter().all(has));
}

/// A token whose record says so.
fn import(on: &Place, token: &str, plan: Value) {
    on.gateway.import(token, plan);
    let path = credential(&on.gateway, token);
    let body = json!({"MetaData": {"mark": mark(token)}});
    let answer = on.gateway.admin("PUT", &path, &body);
    assert!(answer.status < 300, "{answer:?}");
}

#[test]
fn a_gateway_starts_from_its_copy_and_goes_on_with_redis_when_that_is_back() {
    let (mut server, upstream) = (RedisServer::durable(), Upstream::start());
    let place = Place::start(&server, &upstream);
    for token in [KEPT, REVOKED, "token-never-used"] {
        import(&place, token, unlimited());
    }
    assert_eq!((place.asks(KEPT), place.asks(REVOKED)), (200, 200));
    copied(&place, &[KEPT, REVOKED]);
    revoke(&place, REVOKED);
    place.gateway.kill_now();
    server.kill();
    let place = place.start_again(&server, &upstream);
    assert_eq!(place.asks(KEPT), 200, "{}", place.gateway.log());
    assert_eq!(place.asks("nobodys-token"), 503);
    assert_eq!(place.asks("token-never-used"), 503, "it is not in the copy");
    assert_eq!(place.asks(REVOKED), 503, "nor is this one any more");
    let get = |path| Client::new(place.gateway.admin).get(path, &[]);
    assert_eq!(get("/ready").status, 200);
    assert!(get("/metrics").body.contains("\nturnpike_store_up 0\n"));
    assert_eq!(place.gateway.admin("GET", "/portal-api/plans", &Value::Null).status, 503);
    server.restart();
    until("what is unknown is known to be", || place.asks("nobodys-token") == 403);
    assert_eq!((place.asks(KEPT), place.asks("token-never-used")), (200, 200));
    assert_eq!(place.asks(REVOKED), 403);
    let other = Place::start(&server, &upstream);
    revoke(&other, KEPT);
    until("it follows the feed", || place.asks(KEPT) == 403);
    assert_eq!(place.status()["feed"]["resyncs"], 0, "from where the copy stood");
}

/// The other one is told, and this one is killed as soon as it says that it enforces that.
#[test]
fn what_was_acknowledged_is_never_undone_by_a_restart_without_redis() {
    let (mut server, upstream) = (RedisServer::durable(), Upstream::start());
    let (one, other) = (Place::start(&server, &upstream), Place::start(&server, &upstream));
    for token in [KEPT, REVOKED] {
        import(&other, token, unlimited());
        until("the feed brings it", || one.asks(token) == 200);
    }
    copied(&one, &[KEPT, REVOKED]);
    revoke(&other, REVOKED);
    let told = other.status()["store"]["generation"].as_u64().unwrap();
    until("it acknowledges", || {
        let all = other.status()["gateways"].clone();
        let all = all.as_array().unwrap();
        all.len() == 2 && all.iter().all(|g| told <= g["generation"].as_u64().unwrap())
    });
    one.gateway.kill_now();
    server.kill();
    let one = one.start_again(&server, &upstream);
    assert_eq!((one.asks(KEPT), one.asks(REVOKED)), (200, 503));
}

#[test]
fn a_copy_is_brought_up_to_date_before_a_gateway_serves() {
    let (mut server, upstream) = (RedisServer::durable(), Upstream::start());
    let (one, other) = (Place::start(&server, &upstream), Place::start(&server, &upstream));
    for token in [KEPT, REVOKED] {
        import(&other, token, unlimited());
        until("the feed brings it", || one.asks(token) == 200);
    }
    copied(&one, &[KEPT, REVOKED]);
    one.gateway.kill_now();
    revoke(&other, REVOKED);
    let one = one.start_again(&server, &upstream);
    one.gateway.kill_now();
    server.kill();
    let one = one.start_again(&server, &upstream);
    assert_eq!((one.asks(KEPT), one.asks(REVOKED)), (200, 503));
    one.gateway.kill_now();
    // What happened is not in the feed any more: nothing in the copy can be relied on.
    server.restart();
    assert_ne!(server.command(&["XTRIM", "tp:{tp}feed", "MAXLEN", "0"]), "");
    until("it is back", || {
        Client::new(other.gateway.admin).get("/hello", &[]).json()["status"] == "pass"
    });
    import(&other, "token-of-meanwhile", unlimited());
    assert_ne!(server.command(&["XTRIM", "tp:{tp}feed", "MAXLEN", "0"]), "0");
    let one = one.start_again(&server, &upstream);
    one.gateway.kill_now();
    server.kill();
    let one = one.start_again(&server, &upstream);
    assert_eq!(one.asks(KEPT), 503);
}

#[test]
fn a_gateway_without_a_copy_does_not_start_without_redis() {
    let (mut server, upstream) = (RedisServer::durable(), Upstream::start());
    let place = Place::start(&server, &upstream);
    let file = place.folder.path().join("turnpike.toml");
    server.kill();
    let fresh = tempfile::tempdir().unwrap();
    let copy = fresh.path().join("turnpike.toml");
    std::fs::copy(&file, &copy).unwrap();
    let log = Gateway::serve(&copy, &[]).map(drop).unwrap_err();
    assert!(log.contains("exit status: 69"), "{log}");
    // A copy of another installation on the same server is none.
    place.gateway.kill_now();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("kind = \"redis\"", "kind = \"redis\"\nprefix = \"other\""))
        .unwrap();
    let log = Gateway::serve(&file, &[]).map(drop).unwrap_err();
    assert!(log.contains("exit status: 69"), "{log}");
}

#[test]
fn the_copy_is_its_owners_and_has_no_token() {
    let (server, upstream) = (RedisServer::durable(), Upstream::start());
    let place = Place::start(&server, &upstream);
    import(&place, KEPT, unlimited());
    // Plan and product are named after the first token.
    let path = credential(&place.gateway, KEPT);
    let body = json!({"KeyID": "another-token", "GracePeriod": 0});
    let answer = place.gateway.admin("POST", &format!("{path}/rotate"), &body);
    assert!(answer.status < 300, "{answer:?}");
    assert_eq!(place.asks("another-token"), 200);
    copied(&place, &[KEPT]);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let data = place.folder.path().join("data");
    assert_eq!(mode(&data), 0o700);
    for file in ["fallback.redb", "pepper"] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
        assert!(!has(place.folder.path(), file, "another-token"), "{file}");
    }
    assert_eq!(std::fs::read(data.join("pepper")).unwrap().len(), 32);
}

/// The new process finds the copy open: it takes it over when the other one has ended.
#[test]
fn a_copy_goes_over_to_the_process_that_takes_over() {
    let (mut server, upstream) = (RedisServer::durable(), Upstream::start());
    let place = Place::start(&server, &upstream);
    for token in [KEPT, REVOKED] {
        import(&place, token, unlimited());
        assert_eq!(place.asks(token), 200);
    }
    copied(&place, &[KEPT, REVOKED]);
    let Place { folder, gateway } = place;
    let next = gateway.upgrade(folder.path());
    assert_eq!(gateway.wait(), Some(0));
    let place = Place { folder, gateway: next };
    revoke(&place, REVOKED);
    import(&place, "token-of-later", unlimited());
    until("it copies again", || {
        place.asks("token-of-later");
        has(place.folder.path(), "fallback.redb", &mark("token-of-later"))
    });
    place.gateway.kill_now();
    server.kill();
    let place = place.start_again(&server, &upstream);
    assert_eq!(
        (place.asks(KEPT), place.asks(REVOKED), place.asks("token-of-later")),
        (200, 503, 200),
        "{}",
        place.gateway.log()
    );
}
