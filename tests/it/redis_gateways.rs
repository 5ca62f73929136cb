//! The built binary on a real redis-server: what one gateway is told, all of them enforce.

use serde_json::{Value, json};

use crate::process::{Client, Gateway, Upstream, ms_until, until};
use crate::redis_server::RedisServer;

/// A gateway with a folder of its own.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) gateway: Gateway,
}

impl Place {
    pub(crate) fn start(server: &RedisServer, upstream: &Upstream) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), server, upstream)
    }

    /// What it says of itself and the other gateways.
    pub(crate) fn status(&self) -> Value {
        let answer = self.gateway.admin("GET", "/v1/state/status", &Value::Null);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// The status of a request with a token.
    pub(crate) fn asks(&self, token: &str) -> u16 {
        self.gateway.get("/a/x", token).status
    }

    /// Stops it in order, and starts it again.
    fn restart(self, server: &RedisServer, upstream: &Upstream) -> Self {
        let Self { folder, gateway } = self;
        assert_eq!(gateway.stop(), Some(0));
        Self::start_in(folder, server, upstream)
    }

    /// Starts one that was killed again.
    pub(crate) fn start_again(self, server: &RedisServer, upstream: &Upstream) -> Self {
        let Self { folder, gateway } = self;
        drop(gateway);
        Self::start_in(folder, server, upstream)
    }

    fn start_in(folder: tempfile::TempDir, server: &RedisServer, upstream: &Upstream) -> Self {
        let gateway = Gateway::start_with(folder.path(), upstream, &server.section());
        Self { folder, gateway }
    }
}

#[test]
fn a_gateway_imports_enforces_and_starts_again_with_what_redis_keeps() {
    let (mut server, upstream) = (RedisServer::durable(), Upstream::start());
    let place = Place::start(&server, &upstream);
    let plan = json!({"RateLimit": 100, "Per": 1, "Quota": 5, "QuotaRenewalRate": 3600,
                      "OnStoreUnavailable": "closed"});
    place.gateway.import("token-of-a-robot", plan);
    for left in [4, 3] {
        let answer = place.gateway.get("/a/x", "token-of-a-robot");
        assert_eq!(answer.status, 200, "{answer:?}; {}", place.gateway.log());
        assert_eq!(answer.headers["x-ratelimit-remaining"], left.to_string());
    }
    assert_eq!(place.gateway.get("/a/x", "nobodys-token").status, 403);
    let place = place.restart(&server, &upstream);
    assert_eq!(place.gateway.get("/a/x", "token-of-a-robot").status, 200);
    server.restart();
    // It learns for a second, and the rate is unknown for a window and a quarter: refused is free.
    until("redis is used again", || place.gateway.get("/a/x", "token-of-a-robot").status == 200);
    assert_eq!(place.gateway.get("/a/x", "token-of-a-robot").status, 200);
    assert_eq!(place.gateway.get("/a/x", "token-of-a-robot").status, 429);
    assert_eq!(upstream.count(), 5);
}

pub(crate) fn unlimited() -> Value {
    json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true})
}

/// The path of the only credential of an app.
pub(crate) fn credential(of: &Gateway, token: &str) -> String {
    let apps = of.admin("GET", "/portal-api/apps?per_page=100", &Value::Null).json();
    let app =
        apps.as_array().unwrap().iter().find(|app| app["Name"] == token).unwrap()["ID"].clone();
    let path = format!("/portal-api/apps/{app}/custom_credentials");
    let all = of.admin("GET", &path, &Value::Null).json();
    format!("{path}/{}", all[0]["ID"])
}

#[test]
fn an_import_on_one_gateway_is_enforced_by_the_other() {
    let (server, upstream) = (RedisServer::start(), Upstream::start());
    let (one, other) = (Place::start(&server, &upstream), Place::start(&server, &upstream));
    for round in 0..5 {
        let token = format!("token-of-robot-{round}");
        assert_eq!(other.asks(&token), 403, "and remembers that nobody has it");
        one.gateway.import(&token, unlimited());
        let took_ms = ms_until("it works there", || other.asks(&token) == 200);
        assert!(took_ms < 1_000, "{took_ms} ms; {}", other.gateway.log());
    }
    // One quota over both.
    one.gateway.import(
        "token-with-quota",
        json!({"UnlimitedRateLimit": true, "Quota": 7, "QuotaRenewalRate": 3600}),
    );
    until("it works there", || other.asks("token-with-quota") == 200);
    let before = upstream.count();
    for turn in 0..20 {
        let place = if turn % 2 == 0 { &one } else { &other };
        assert!([200, 429].contains(&place.asks("token-with-quota")));
    }
    assert_eq!(upstream.count() - before, 6, "and one before");
}

/// Through caches that are warm: the token was just used there.
#[test]
fn a_revoked_token_is_refused_by_the_other_gateway_within_a_second() {
    let (server, upstream) = (RedisServer::start(), Upstream::start());
    let (one, other) = (Place::start(&server, &upstream), Place::start(&server, &upstream));
    let mut took = Vec::new();
    for round in 0..10 {
        let token = format!("token-of-robot-{round}");
        one.gateway.import(&token, unlimited());
        until("it works there", || other.asks(&token) == 200);
        let path = credential(&one.gateway, &token);
        let mut client = Client::new(other.gateway.proxy);
        let mut asks = || client.get("/a/x", &[("X-API-Key", &token)]).status;
        assert_eq!(asks(), 200);
        let answer = one.gateway.admin("DELETE", &path, &Value::Null);
        assert!(answer.status < 300, "{answer:?}");
        took.push(ms_until("it is refused there", || asks() == 403));
        assert_eq!(one.asks(&token), 403, "at once where it was revoked");
    }
    took.sort_unstable();
    eprintln!("milliseconds from the answer to a revocation to the refusal elsewhere: {took:?}");
    assert!(took.iter().all(|ms| *ms < 1_000), "{took:?}");
}

#[test]
fn an_edited_and_a_deleted_plan_hold_on_the_other_gateway() {
    let (server, upstream) = (RedisServer::start(), Upstream::start());
    let (one, other) = (Place::start(&server, &upstream), Place::start(&server, &upstream));
    let token = "token-of-a-robot";
    one.gateway.import(
        token,
        json!({"UnlimitedRateLimit": true, "Quota": 1000, "QuotaRenewalRate": 3600}),
    );
    until("it works there", || other.asks(token) == 200);
    let plans = one.gateway.admin("GET", "/portal-api/plans", &Value::Null).json();
    let mut plan = plans[0].clone();
    let path = format!("/portal-api/plans/{}", plan["ID"]);
    plan["Quota"] = json!(2);
    plan["QuotaRenewalRate"] = json!(3600);
    let edited = json!({"Name": plan["Name"], "ProviderID": 1, "UnlimitedRateLimit": true,
        "Quota": 2, "QuotaRenewalRate": 3600});
    let answer = one.gateway.admin("PUT", &path, &edited);
    assert!(answer.status < 300, "{answer:?}");
    let took_ms = ms_until("the quota is 2", || {
        other.gateway.get("/a/x", token).headers["ratelimit-policy"].contains(";q=2;")
    });
    assert!(took_ms < 1_000, "{took_ms} ms");
    until("it is used up there", || other.asks(token) == 429);
    until("and here", || one.asks(token) == 429);
    let answer = one.gateway.admin("DELETE", &path, &Value::Null);
    assert!(answer.status < 300, "{answer:?}");
    let took_ms = ms_until("it is closed", || other.asks(token) == 403);
    assert!(took_ms < 1_000, "{took_ms} ms");
    let refused = other.status()["refused_credentials"].clone();
    assert!(refused[0]["reason"].as_str().unwrap().contains("plan-"), "{refused}");
}

/// The one that holds units goes on using them, so that they are never idle.
#[test]
fn units_that_one_gateway_holds_come_to_the_one_that_is_short_of_them() {
    const QUOTA: usize = 1_000;
    let (server, upstream) = (RedisServer::start(), Upstream::start());
    let (one, other) = (Place::start(&server, &upstream), Place::start(&server, &upstream));
    let token = "token-of-a-robot";
    let plan = json!({"UnlimitedRateLimit": true, "Quota": QUOTA, "QuotaRenewalRate": 360_000});
    one.gateway.import(token, plan);
    until("it works there", || other.asks(token) == 200);
    let shows = |of: &Place, name: &str| {
        let text = Client::new(of.gateway.admin).get("/metrics", &[]).body;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    until("they know of each other", || {
        [&one, &other].iter().all(|place| shows(place, "turnpike_gateways_live ") == 2)
    });
    let [mut at_one, mut at_other] = [&one, &other].map(|place| Client::new(place.gateway.proxy));
    let asks = |client: &mut Client| client.get("/a/x", &[("X-API-Key", token)]).status;
    let mut turns = 0..20 * QUOTA;
    let recalled = turns.any(|turn| {
        if turn % 10 == 0 {
            asks(&mut at_one);
        }
        asks(&mut at_other) == 429 && 0 < shows(&one, "turnpike_quota_units_recalled_total ")
    });
    assert!(recalled, "{}", one.gateway.log());
    until("all of it is used", || {
        asks(&mut at_other);
        upstream.count() == QUOTA
    });
    assert_eq!((asks(&mut at_one), asks(&mut at_other)), (429, 429));
    assert_eq!(upstream.count(), QUOTA);
}

#[test]
fn a_gateway_that_missed_the_feed_reads_everything_anew() {
    let (server, upstream) = (RedisServer::start(), Upstream::start());
    let (one, other) = (Place::start(&server, &upstream), Place::start(&server, &upstream));
    for token in ["token-to-revoke", "token-to-keep"] {
        one.gateway.import(token, unlimited());
        until("it works there", || other.asks(token) == 200);
    }
    assert_eq!(other.status()["feed"]["resyncs"], 0);
    other.gateway.signal("-STOP");
    let path = credential(&one.gateway, "token-to-revoke");
    assert!(one.gateway.admin("DELETE", &path, &Value::Null).status < 300);
    one.gateway.import("token-of-meanwhile", unlimited());
    // What it missed is gone from the feed.
    assert_ne!(server.command(&["XTRIM", "tp:{tp}feed", "MAXLEN", "0"]), "0");
    until("it counts as dead", || {
        one.status()["gateways"].as_array().unwrap().iter().filter(|g| g["live"] == true).count()
            == 1
    });
    other.gateway.signal("-CONT");
    let took_ms = ms_until("it is refused there", || other.asks("token-to-revoke") == 403);
    assert!(took_ms < 1_000, "{took_ms} ms");
    assert_eq!(other.asks("token-to-keep"), 200);
    assert_eq!(other.asks("token-of-meanwhile"), 200, "with its plan and product");
    assert_eq!(other.status()["feed"]["resyncs"], 1);
}

#[test]
fn a_gateway_tells_how_it_stands_towards_the_others() {
    let (server, upstream) = (RedisServer::start(), Upstream::start());
    let (one, other) = (Place::start(&server, &upstream), Place::start(&server, &upstream));
    one.gateway.import("token-of-a-robot", unlimited());
    let generation = one.status()["store"]["generation"].clone();
    let live = |status: &Value| {
        let all = status["gateways"].as_array().unwrap();
        all.iter().filter(|g| g["live"] == true).cloned().collect::<Vec<Value>>()
    };
    until("both have acknowledged it", || {
        let live = live(&other.status());
        live.len() == 2 && live.iter().all(|g| g["generation"] == generation)
    });
    let status = other.status();
    assert_eq!((&status["synced"], &status["store"]["state"]), (&json!(true), &json!("up")));
    assert!(status["feed"]["lag_ms"].as_u64().unwrap() < 2_000, "{status}");
    let unknown = Client::new(one.gateway.admin).get("/v1/state/status", &[]);
    assert_eq!(unknown.status, 401);
    until("the metrics say so", || {
        let text = Client::new(other.gateway.admin).get("/metrics", &[]).body;
        text.contains("\nturnpike_gateways_live 2\n") && text.contains("\nturnpike_store_up 1\n")
    });
    let Place { folder: _folder, gateway } = one;
    assert_eq!(gateway.stop(), Some(0));
    let all = other.status()["gateways"].as_array().unwrap().len();
    until("who stopped is gone at the next word", || {
        other.status()["gateways"].as_array().unwrap().len() == 1
    });
    assert!(all <= 2);
}

#[test]
fn a_gateway_without_redis_stays_ready_and_says_so() {
    let (mut server, upstream) = (RedisServer::durable(), Upstream::start());
    let place = Place::start(&server, &upstream);
    place.gateway.import("token-of-a-robot", unlimited());
    assert_eq!(place.asks("token-of-a-robot"), 200);
    let get = |path| Client::new(place.gateway.admin).get(path, &[]);
    let shows = |line| get("/metrics").body.contains(line);
    assert_eq!(get("/ready").json()["warnings"], Value::Null);
    server.kill();
    until("it knows", || shows("\nturnpike_store_up 0\n"));
    let ready = get("/ready");
    assert_eq!(ready.status, 200);
    assert!(ready.json()["warnings"][0].as_str().unwrap().contains("away"), "{ready:?}");
    let hello = get("/hello").json();
    assert_eq!(
        (&hello["status"], &hello["details"]["store"]["status"]),
        (&json!("warn"), &json!("fail"))
    );
    assert_eq!(place.asks("token-of-a-robot"), 200, "it decides");
    server.restart();
    until("it knows", || shows("\nturnpike_store_up 1\n"));
    assert_eq!(get("/ready").json()["warnings"], Value::Null);
    assert_eq!(get("/hello").json()["status"], "pass");
}

/// Credentials are gone then, and written again by whoever wrote them; what gateways cannot be without
/// they give back themselves.
#[test]
fn redis_that_lost_everything_is_used_again_without_a_restart() {
    let (mut server, upstream) = (RedisServer::start(), Upstream::start());
    let [one, other] = [(); 2].map(|()| Place::start(&server, &upstream));
    one.gateway.import("token-of-a-robot", unlimited());
    until("both know it", || other.asks("token-of-a-robot") == 200);
    server.restart();
    until("what a fresh store holds is there again", || {
        other.gateway.admin("GET", "/portal-api/users/1", &Value::Null).status == 200
    });
    until("the token is gone", || {
        [&one, &other].iter().all(|place| place.asks("token-of-a-robot") == 403)
    });
    let logs = [one.gateway.log(), other.gateway.log()];
    assert!(logs.iter().any(|log| log.contains("the store has lost its records")), "{logs:?}");
    one.gateway.import("token-of-a-robot", unlimited());
    until("both know it again", || other.asks("token-of-a-robot") == 200);
    // One that starts only now hashes tokens as these do.
    let other = other.restart(&server, &upstream);
    assert_eq!(other.asks("token-of-a-robot"), 200);
    assert_eq!(one.asks("token-of-a-robot"), 200);
}
