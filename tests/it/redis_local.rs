//! `local`, with three real gateways on a real redis-server that hangs or dies, and an upstream that
//! counts.

use serde_json::{Value, json};

use crate::process::{Client, Gateway, Upstream, until};
use crate::redis_server::RedisServer;

const LIMIT: u64 = 600;
const TOKEN: &str = "token-of-a-robot";

/// Three gateways that know of each other, with a folder each.
struct Fleet {
    gateways: Vec<Gateway>,
    _folders: Vec<tempfile::TempDir>,
}

impl Fleet {
    fn start(server: &RedisServer, upstream: &Upstream) -> Self {
        let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let section = server.section().replace("timeout_ms = 2000", "timeout_ms = 500");
        let gateways: Vec<_> =
            folders.iter().map(|at| Gateway::start_with(at.path(), upstream, &section)).collect();
        let fleet = Self { gateways, _folders: folders };
        for gateway in &fleet.gateways {
            until("all know of three", || metric(gateway, "turnpike_gateways_live") == 3);
        }
        fleet
    }

    /// Requests at every gateway until each gives another status than 200, which is told.
    fn until_refused(&self, expect: u16) {
        for gateway in &self.gateways {
            let refused = (0..10_000).map(|_| ask(gateway).0).find(|status| *status != 200);
            assert_eq!(refused, Some(expect), "{}", gateway.log());
        }
    }
}

fn metric(gateway: &Gateway, line: &str) -> u64 {
    let answer = Client::new(gateway.admin).get("/metrics", &[]);
    let value = answer.body.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

/// A request's status, and what its answer says remains.
fn ask(gateway: &Gateway) -> (u16, u64) {
    let answer = gateway.get("/a/x", TOKEN);
    let remaining = answer.headers.get("x-ratelimit-remaining").map(|text| text.parse().unwrap());
    (answer.status, remaining.unwrap_or(0))
}

/// The quota as a gateway tells it.
fn quota(gateway: &Gateway, credential: u64) -> Value {
    let path = format!("/v1/usage/credentials/{credential}");
    let answer = gateway.admin("GET", &path, &Value::Null);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["limits"][0].clone()
}

fn number(limit: &Value, name: &str) -> u64 {
    limit[name].as_u64().unwrap_or_else(|| panic!("{name}: {limit}"))
}

#[test]
fn a_redis_that_hangs_or_dies_costs_at_most_the_bound_of_local_and_is_told_all() {
    for hangs in [true, false] {
        let (mut server, upstream) = (RedisServer::durable(), Upstream::start());
        let fleet = Fleet::start(&server, &upstream);
        let plan = json!({"UnlimitedRateLimit": true, "Quota": LIMIT, "QuotaRenewalRate": 3600});
        let credential = fleet.gateways[0].import(TOKEN, plan);
        let mut seen_most = 0;
        for gateway in &fleet.gateways {
            until("the feed brings the token", || ask(gateway).0 == 200);
            let remaining = (0..40).fold(0, |_, _| ask(gateway).1);
            seen_most = remaining.max(seen_most);
        }
        let before = quota(&fleet.gateways[2], credential);
        let held_most = number(&before, "held") + number(&before, "used");
        if hangs {
            server.signal("-STOP")
        } else {
            server.kill()
        }
        fleet.until_refused(503);
        let away = u64::try_from(upstream.count()).unwrap();
        let bound = held_most + seen_most;
        assert!(away <= bound, "{away} of {bound}, hangs: {hangs}");
        let locally = "turnpike_local_units_total{limit=\"quota\"}";
        let locally: u64 = fleet.gateways.iter().map(|gateway| metric(gateway, locally)).sum();
        assert!(0 < locally && locally <= seen_most, "{locally} of {seen_most}");
        if hangs {
            server.signal("-CONT")
        } else {
            server.restart()
        }
        for gateway in &fleet.gateways {
            until("redis is used again", || ask(gateway).0 != 503);
        }
        // A gateway may still be answered that others hold units; those come back when idle.
        let all_told = || {
            let usage = quota(&fleet.gateways[0], credential);
            let debt = |gateway| metric(gateway, "turnpike_settlement_debt_units");
            number(&usage, "used") == u64::try_from(upstream.count()).unwrap()
                && number(&usage, "held") == 0
                && fleet.gateways.iter().map(debt).all(|debt| debt == 0)
        };
        until("everything is told", all_told);
        fleet.until_refused(429);
        until("everything is told", all_told);
        let all = u64::try_from(upstream.count()).unwrap();
        assert!(LIMIT <= all && all <= LIMIT + locally, "{all} and {locally}, hangs: {hangs}");
    }
}
