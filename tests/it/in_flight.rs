//! Requests in flight, and shadow mode, through sockets.

use serde_json::{Value, json};
use turnpike::domain::counter::ProcessId;

use crate::proxy_support::{Gateway, Reply, Setup, TOKEN, Upstream, ok, with_target};
use crate::raw_http::{Message, Wire, get};

/// The head of an answer of which only a part comes.
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345";

async fn started(keys: &str, plan: Value) -> (Gateway, Upstream) {
    let upstream = Upstream::start(|message| match message.target() {
        "/hang" => Reply::Hang(Vec::new()),
        "/half" => Reply::Hang(HEAD.to_vec()),
        _ => Reply::Keep(ok(b"fine")),
    })
    .await;
    let gw = Gateway::with_token(upstream.addr, keys).await;
    gw.credential(plan).await;
    (gw, upstream)
}

async fn ask(gw: &Gateway, target: &str) -> Message {
    get(gw.addr, target, &format!("X-API-Key: {TOKEN}\r\n")).await
}

/// A request that stays in flight until dropped.
async fn begin(gw: &Gateway, target: &str) -> Wire {
    let mut wire = Wire::connect(gw.addr).await;
    wire.send(format!("GET {target} HTTP/1.1\r\nHost: gw\r\nX-API-Key: {TOKEN}\r\n\r\n")).await;
    wire
}

async fn until_in_flight(gw: &Gateway, expect: u64) {
    let deadline = tokio::time::Instant::now() + crate::raw_http::LONG;
    loop {
        gw.state.enforcer.sweep().await;
        let now = gw.metric("turnpike_requests_in_flight");
        if now == expect {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{now} in flight, not {expect}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn requests_in_flight_are_limited_until_their_answers_have_ended() {
    let plan = json!({"MaxInFlight": 3, "Quota": 4, "QuotaRenewalRate": 3600});
    let (gw, _upstream) = started("", plan).await;
    // One waits for its answer's head, one for the rest of its body.
    let hanging = begin(&gw, "/api/hang").await;
    let mut half = begin(&gw, "/api/half").await;
    assert_eq!(half.head().await.unwrap().status(), 200);
    until_in_flight(&gw, 2).await;
    assert_eq!(ask(&gw, "/api/x").await.status(), 200, "and is over at once");
    until_in_flight(&gw, 2).await;
    let third = begin(&gw, "/api/hang").await;
    until_in_flight(&gw, 3).await;
    for _ in 0..5 {
        let refused = ask(&gw, "/api/x").await;
        assert_eq!((refused.status(), refused.code()), (429, "in_flight_exceeded".into()));
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    // Clients that go away make room, with and without an answer begun.
    drop(hanging);
    drop(half);
    until_in_flight(&gw, 1).await;
    drop(third);
    until_in_flight(&gw, 0).await;
    // Four were admitted; refused ones were charged nothing.
    assert_eq!(ask(&gw, "/api/x").await.code(), "quota_exceeded");
    until_in_flight(&gw, 0).await;
    assert_eq!(gw.metric("turnpike_refusals_total{api=\"a\",code=\"in_flight_exceeded\"}"), 5);
}

#[tokio::test]
async fn gateways_share_the_requests_in_flight() {
    let (gw, _upstream) = started("", json!({"MaxInFlight": 3})).await;
    gw.state.enforcer.see_live([1, 2].map(ProcessId).into());
    let held = [begin(&gw, "/api/hang").await, begin(&gw, "/api/hang").await];
    until_in_flight(&gw, 2).await;
    assert_eq!(ask(&gw, "/api/x").await.code(), "in_flight_exceeded");
    gw.state.enforcer.see_live([1].map(ProcessId).into());
    assert_eq!(ask(&gw, "/api/x").await.status(), 200);
    drop(held);
    until_in_flight(&gw, 0).await;
}

/// Decided, counted, marked and let through, by plan or by API.
#[tokio::test]
async fn in_shadow_everything_is_let_through_and_marked() {
    let limits = [
        ("quota_exceeded", json!({"Quota": 2, "QuotaRenewalRate": 3600})),
        ("rate_exceeded", json!({"RateLimit": 2, "Per": 3600})),
        ("in_flight_exceeded", json!({"MaxInFlight": 2})),
    ];
    for (code, plan) in limits {
        for by_plan in [true, false] {
            let mut plan = plan.clone();
            plan["Shadow"] = by_plan.into();
            let dir = tempfile::tempdir().unwrap();
            let upstream = Upstream::start(|message| match message.target() {
                "/hang" => Reply::Hang(Vec::new()),
                _ => Reply::Keep(ok(b"fine")),
            })
            .await;
            let toml =
                format!("[[apis]]\nid = \"a\"\nlisten_path = \"/api/\"\nshadow = {}", !by_plan);
            let mut setup = Setup::new(&with_target(&toml, upstream.addr));
            setup.access = Some(dir.path().join("access.log"));
            let gw = Gateway::start(setup).await;
            gw.credential(plan).await;
            // Up to the limit nothing is marked.
            let held = [begin(&gw, "/api/hang").await, begin(&gw, "/api/hang").await];
            until_upstream(&upstream, 2).await;
            for _ in 0..3 {
                assert_eq!(ask(&gw, "/api/x").await.status(), 200, "{code}");
            }
            let line = format!("turnpike_shadowed_total{{api=\"a\",code=\"{code}\"}}");
            gw.until(&line, 3).await;
            let requests = "turnpike_requests_total{api=\"a\",class=\"2xx\",decision=\"shadowed\"}";
            assert_eq!(gw.metric(requests), 3, "{code}");
            drop(held);
            let admitted = "turnpike_requests_total{api=\"a\",class=\"4xx\",decision=\"admitted\"}";
            gw.until(admitted, 2).await;
            drop(gw);
            let log = std::fs::read_to_string(dir.path().join("access.log")).unwrap();
            let marked = log.lines().filter(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                line["shadowed"] == code && line["code"].is_null()
            });
            assert_eq!(marked.count(), 3, "{log}");
        }
    }
}

async fn until_upstream(upstream: &Upstream, requests: usize) {
    let deadline = tokio::time::Instant::now() + crate::raw_http::LONG;
    while upstream.count() < requests {
        assert!(tokio::time::Instant::now() < deadline, "the upstream gets {requests} requests");
        tokio::task::yield_now().await;
    }
}
