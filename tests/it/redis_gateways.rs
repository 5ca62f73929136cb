//! The built binary on a real redis-server: what one gateway is told, all of them enforce.

use serde_json::json;

use crate::process::{Gateway, Upstream, until};
use crate::redis_server::RedisServer;

/// A gateway with a folder of its own.
struct Place {
    folder: tempfile::TempDir,
    gateway: Gateway,
}

impl Place {
    fn start(server: &RedisServer, upstream: &Upstream) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let gateway = Gateway::start_with(folder.path(), upstream, &server.section());
        Self { folder, gateway }
    }

    /// Stops it in order, and starts it again.
    fn restart(self, server: &RedisServer, upstream: &Upstream) -> Self {
        let Self { folder, gateway } = self;
        assert_eq!(gateway.stop(), Some(0));
        let gateway = Gateway::start_with(folder.path(), upstream, &server.section());
        Self { folder, gateway }
    }
}

#[test]
fn a_gateway_imports_enforces_and_starts_again_with_what_redis_keeps() {
    let (mut server, upstream) = (RedisServer::durable(), Upstream::start());
    let place = Place::start(&server, &upstream);
    let plan = json!({"RateLimit": 100, "Per": 1, "Quota": 5, "QuotaRenewalRate": 3600});
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
