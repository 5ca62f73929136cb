use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::proxy_support::{Gateway, Reply, Setup, TOKEN, Upstream, ok};
use crate::raw_http::{Wire, ask, get};

const NO_CHECKS: &str = "health = { every_ms = 0 }\n";

/// A keyless API over these targets, with these further keys.
async fn over(targets: &[SocketAddr], keys: &str) -> Gateway {
    Gateway::start(Setup::new(&api(targets, &format!("keyless = true\n{keys}")))).await
}

fn api(targets: &[SocketAddr], keys: &str) -> String {
    let urls: Vec<String> = targets.iter().map(|at| format!("\"http://{at}\"")).collect();
    let urls = urls.join(", ");
    format!("[[apis]]\nid = \"a\"\nlisten_path = \"/\"\ntargets = [{urls}]\n{keys}\n")
}

fn of_target(name: &str, at: usize, more: &str) -> String {
    format!("turnpike_upstream_{name}{{api=\"a\",{more}target=\"{at}\"}}")
}

/// Answers `/first`, and closes every connection without an answer to anything else.
async fn fickle() -> Upstream {
    Upstream::start(|message| match message.target() {
        "/first" => Reply::Keep(ok(b"")),
        _ => Reply::Close(Vec::new()),
    })
    .await
}

#[tokio::test]
async fn requests_follow_the_weights() {
    let (a, b) = (Upstream::echo().await, Upstream::echo().await);
    let gw = over(&[a.addr, b.addr], &format!("weights = [3, 1]\n{NO_CHECKS}")).await;
    let mut wire = Wire::connect(gw.addr).await;
    for _ in 0..40 {
        wire.send("GET / HTTP/1.1\r\nHost: gw\r\n\r\n").await;
        assert_eq!(wire.answer().await.status(), 200);
    }
    assert_eq!((a.count(), b.count()), (30, 10));
    gw.until(&of_target("attempts_total", 0, "result=\"answered\","), 30).await;
}

#[tokio::test]
async fn the_same_header_means_the_same_target_on_every_gateway() {
    let (a, b) = (Upstream::echo().await, Upstream::echo().await);
    let keys = format!("balance = \"header\"\nbalance_header = \"X-User\"\n{NO_CHECKS}");
    let (one, two) = (over(&[a.addr, b.addr], &keys).await, over(&[a.addr, b.addr], &keys).await);
    for user in 0..30 {
        let before = (a.count(), b.count());
        for gw in [&one, &two, &one] {
            let header = format!("X-User: u{user}\r\n");
            assert_eq!(get(gw.addr, "/", &header).await.status(), 200);
        }
        let got = (a.count() - before.0, b.count() - before.1);
        assert!(got == (3, 0) || got == (0, 3), "u{user}: {got:?}");
    }
    assert!(5 < a.count() && 5 < b.count(), "{} and {}", a.count(), b.count());
}

#[tokio::test]
async fn a_cut_request_is_repeated_where_that_is_safe_and_costs_its_units_again() {
    let (a, b) = (fickle().await, Upstream::echo().await);
    let toml = api(&[a.addr, b.addr], &format!("ejection = {{ failures = 0 }}\n{NO_CHECKS}"));
    let gw = Gateway::start(Setup::new(&toml)).await;
    gw.credential(json!({"Quota": 100, "QuotaRenewalRate": 3600})).await;
    let token = format!("X-API-Key: {TOKEN}\r\n");
    let left = |answer: &crate::raw_http::Message| {
        answer.header("x-ratelimit-remaining").unwrap().parse::<u32>().unwrap()
    };
    // In turn: the first goes to `a`.
    let answer = get(gw.addr, "/x", &token).await;
    assert_eq!((answer.status(), a.count(), b.count()), (200, 1, 1));
    assert_eq!(left(&answer), 99, "told as of the first attempt");
    let answer = get(gw.addr, "/first", &token).await;
    assert_eq!((answer.status(), left(&answer)), (200, 97), "the second attempt was charged");
    assert_eq!(gw.metric("turnpike_upstream_retries_total{api=\"a\",kind=\"repeated\"}"), 1);
    let retries = [("PUT", "", 200), ("DELETE", "", 200), ("POST", "", 502), ("PUT", "hi", 200)];
    for (method, body, status) in retries {
        // Until it is `a`'s turn.
        let before = a.count();
        let mut last = 0;
        while a.count() == before {
            let length = body.len();
            let request = format!(
                "{method} /x HTTP/1.1\r\nHost: gw\r\n{token}Content-Length: {length}\r\n\r\n{body}"
            );
            last = ask(gw.addr, request).await.status();
        }
        assert_eq!((last, a.count()), (status, before + 1), "{method} {body}");
        assert!(status != 200 || b.last().text() == body, "{method} {body}: {:?}", b.last());
    }
    assert_eq!(gw.metric("turnpike_upstream_retries_total{api=\"a\",kind=\"repeated\"}"), 4);
}

#[tokio::test]
async fn a_repeated_request_has_the_same_head() {
    let (a, b) = (fickle().await, Upstream::echo().await);
    let rules = "request_headers = { remove = [\"X-Old\"], set = { X-New = \"1\" }, \
                 add = { X-More = \"2\" } }";
    let gw = over(&[a.addr, b.addr], &format!("{rules}\n{NO_CHECKS}")).await;
    let headers = "X-Old: 0\r\nX-More: 1\r\nX-More: 3\r\nX-Real-IP: 6.6.6.6\r\nVia: 1.1 cdn\r\n\
                   Connection: TE, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\nContent-Length: 0\r\n";
    assert_eq!(get(gw.addr, "/x", headers).await.status(), 200);
    assert_eq!((a.count(), b.count()), (1, 1));
    let head = |upstream: &Upstream| {
        let mut headers = upstream.last().headers;
        headers.retain(|(name, _)| name != "host");
        headers
    };
    assert_eq!(head(&a), head(&b));
    let last = b.last();
    assert_eq!(last.all("x-more").collect::<Vec<_>>(), ["1", "3", "2"]);
    assert_eq!((last.header("x-real-ip"), last.header("x-hop")), (None, None));
    assert_eq!((last.header("x-old"), last.header("x-new")), (None, Some("1")));
}

#[tokio::test]
async fn a_repeat_that_would_exceed_a_limit_is_not_made() {
    let (a, b) = (fickle().await, Upstream::echo().await);
    let gw = Gateway::start(Setup::new(&api(&[a.addr, b.addr], NO_CHECKS))).await;
    gw.credential(json!({"Quota": 1, "QuotaRenewalRate": 3600})).await;
    let answer = get(gw.addr, "/x", &format!("X-API-Key: {TOKEN}\r\n")).await;
    assert_eq!((answer.status(), answer.code()), (502, "upstream_broken".into()));
    assert_eq!((a.count(), b.count()), (1, 0), "one unit, one request upstream");
    assert_eq!(gw.metric("turnpike_upstream_retries_total{api=\"a\",kind=\"over_limit\"}"), 1);
}

#[tokio::test]
async fn no_more_than_a_share_of_the_requests_is_repeated_at_once() {
    let a = fickle().await;
    let b = Upstream::start(|_| Reply::Hang(Vec::new())).await;
    let keys = format!("ejection = {{ failures = 0 }}\nretry = {{ percent = 20 }}\n{NO_CHECKS}");
    let gw = over(&[a.addr, b.addr], &keys).await;
    // In turn: four of them go to `a` first, and then have to go to `b` for ever.
    let mut wires = Vec::new();
    for _ in 0..8 {
        let mut wire = Wire::connect(gw.addr).await;
        wire.send("GET /x HTTP/1.1\r\nHost: gw\r\n\r\n").await;
        wires.push(wire);
    }
    gw.until("turnpike_upstream_retries_total{api=\"a\",kind=\"over_budget\"}", 1).await;
    gw.until("turnpike_upstream_retries_total{api=\"a\",kind=\"repeated\"}", 3).await;
    gw.until("turnpike_requests_total{api=\"a\",class=\"5xx\",decision=\"denied\"}", 1).await;
    // Their places are free again when they end.
    drop(wires);
    gw.until(&of_target("in_flight", 1, ""), 0).await;
    let mut wires = [Wire::connect(gw.addr).await, Wire::connect(gw.addr).await];
    for wire in &mut wires {
        wire.send("GET /x HTTP/1.1\r\nHost: gw\r\n\r\n").await;
    }
    gw.until("turnpike_upstream_retries_total{api=\"a\",kind=\"repeated\"}", 4).await;
}

#[tokio::test]
async fn no_request_is_repeated_where_the_api_wants_none() {
    let (a, b) = (fickle().await, Upstream::echo().await);
    let gw = over(&[a.addr, b.addr], &format!("retry = {{ max = 0 }}\n{NO_CHECKS}")).await;
    assert_eq!(get(gw.addr, "/x", "").await.status(), 502);
    assert_eq!((a.count(), b.count()), (1, 0));
}

#[tokio::test]
async fn a_sole_target_that_closed_an_idle_connection_is_asked_once_more() {
    let seen = Arc::new(AtomicBool::new(false));
    let first = Arc::clone(&seen);
    let upstream = Upstream::start(move |message| match message.target() {
        "/cut" if !first.swap(true, Ordering::SeqCst) => Reply::Close(Vec::new()),
        _ => Reply::Keep(ok(b"fine")),
    })
    .await;
    let gw = over(&[upstream.addr], "").await;
    assert_eq!(get(gw.addr, "/", "").await.status(), 200);
    assert_eq!(get(gw.addr, "/cut", "").await.text(), "fine", "over a new connection");
    // On a connection that was new nobody can have been late to close it.
    let gw = over(&[upstream.addr], "").await;
    seen.store(false, Ordering::SeqCst);
    assert_eq!(get(gw.addr, "/cut", "").await.status(), 502);
}

#[tokio::test]
async fn a_target_that_fails_in_a_row_is_left_alone_and_tried_again_later() {
    let ill = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&ill);
    let a = Upstream::start(move |_| {
        Reply::Keep(match state.load(Ordering::SeqCst) {
            true => b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_vec(),
            false => ok(b""),
        })
    })
    .await;
    let b = Upstream::echo().await;
    let keys = "ejection = { failures = 3, base_ms = 300, max_ms = 300 }\n";
    let gw = over(&[a.addr, b.addr], &format!("{keys}{NO_CHECKS}")).await;
    let mut failed = 0;
    while gw.metric(&of_target("ejections_total", 0, "")) == 0 {
        failed += u32::from(get(gw.addr, "/", "").await.status() == 503);
    }
    assert_eq!((failed, a.count()), (3, 3));
    assert_eq!(gw.metric(&of_target("available", 0, "")), 0);
    let before = b.count();
    for _ in 0..6 {
        assert_eq!(get(gw.addr, "/", "").await.status(), 200);
    }
    assert_eq!((a.count(), b.count()), (3, before + 6));
    ill.store(false, Ordering::SeqCst);
    gw.until(&of_target("available", 0, ""), 1).await;
    for _ in 0..6 {
        assert_eq!(get(gw.addr, "/", "").await.status(), 200);
    }
    assert_eq!(a.count(), 6, "it has its share again");
}

#[tokio::test]
async fn a_target_that_fails_its_checks_gets_nothing_until_it_passes() {
    let well = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&well);
    let a = Upstream::start(move |message| {
        let passes = message.target() != "/health" || state.load(Ordering::SeqCst);
        let status = if passes { "204 Fine" } else { "500 Ill" };
        Reply::Keep(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes())
    })
    .await;
    let b = Upstream::echo().await;
    let keys = "health = { every_ms = 20, path = \"/health\", rise = 2, fall = 2 }";
    let gw = over(&[a.addr, b.addr], keys).await;
    let served = |upstream: &Upstream| {
        upstream.seen().iter().filter(|message| message.target() == "/").count()
    };
    gw.until(&of_target("available", 1, ""), 1).await;
    gw.until(&of_target("available", 0, ""), 0).await;
    for _ in 0..6 {
        assert_eq!(get(gw.addr, "/", "").await.status(), 200);
    }
    assert_eq!((served(&a), served(&b)), (0, 6));
    let check = a.seen().into_iter().find(|message| message.target() == "/health").unwrap();
    assert_eq!(check.header("host"), Some(a.addr.to_string().as_str()));
    well.store(true, Ordering::SeqCst);
    gw.until(&of_target("available", 0, ""), 1).await;
    for _ in 0..6 {
        get(gw.addr, "/", "").await;
    }
    assert_eq!(served(&a), 3);
}

#[tokio::test]
async fn where_all_targets_are_left_alone_all_are_tried() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    drop(listener);
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = other.local_addr().unwrap();
    drop(other);
    let gw = over(&[at, gone], "health = { every_ms = 20, fall = 1 }").await;
    // The first request makes the metrics.
    for _ in 0..2 {
        assert_eq!(get(gw.addr, "/", "").await.code(), "upstream_unreachable");
        gw.until(&of_target("available", 0, ""), 0).await;
        gw.until(&of_target("available", 1, ""), 0).await;
    }
    for at in 0..2 {
        assert_eq!(gw.metric(&of_target("attempts_total", at, "result=\"unconnected\",")), 2);
    }
}

#[tokio::test]
async fn a_target_with_too_much_to_do_lets_some_wait_and_refuses_the_rest() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let keys = "breaker = { connections_max = 1, pending_max = 1 }\nconnect_timeout_ms = 20000";
    let gw = over(&[listener.local_addr().unwrap()], keys).await;
    let request = "GET / HTTP/1.1\r\nHost: gw\r\n\r\n";
    let mut one = Wire::connect(gw.addr).await;
    one.send(request).await;
    let mut upstream = Wire::new(listener.accept().await.unwrap().0);
    upstream.head().await.unwrap();
    let mut two = Wire::connect(gw.addr).await;
    two.send(request).await;
    gw.until(&of_target("in_flight", 0, ""), 2).await;
    let three = get(gw.addr, "/", "").await;
    assert_eq!((three.status(), three.code()), (503, "upstream_overloaded".into()));
    upstream.send(ok(b"one")).await;
    assert_eq!(one.answer().await.text(), "one");
    upstream.head().await.expect("the one that waited, on the same connection");
    upstream.send(ok(b"two")).await;
    assert_eq!(two.answer().await.text(), "two");
    gw.until(&of_target("in_flight", 0, ""), 0).await;
    // Who waits no longer than to connect is refused then.
    let keys = "breaker = { connections_max = 1, pending_max = 1 }\nconnect_timeout_ms = 50";
    let gw = over(&[listener.local_addr().unwrap()], keys).await;
    let mut one = Wire::connect(gw.addr).await;
    one.send(request).await;
    let mut upstream = Wire::new(listener.accept().await.unwrap().0);
    upstream.head().await.unwrap();
    assert_eq!(get(gw.addr, "/", "").await.code(), "upstream_overloaded");
    // A client that goes away leaves its place.
    drop(one);
    gw.until(&of_target("in_flight", 0, ""), 0).await;
}

#[tokio::test]
async fn a_request_beyond_one_targets_bounds_goes_to_another() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let b = Upstream::echo().await;
    let keys = format!("breaker = {{ requests_max = 1 }}\n{NO_CHECKS}");
    let gw = over(&[listener.local_addr().unwrap(), b.addr], &keys).await;
    let mut one = Wire::connect(gw.addr).await;
    one.send("GET / HTTP/1.1\r\nHost: gw\r\n\r\n").await;
    let _upstream = listener.accept().await.unwrap();
    for _ in 0..4 {
        assert_eq!(get(gw.addr, "/", "").await.status(), 200);
    }
    assert_eq!(b.count(), 4);
    assert_eq!(gw.metric(&of_target("attempts_total", 0, "result=\"overloaded\",")), 2);
}

#[tokio::test]
async fn a_name_is_a_target_too() {
    let upstream = Upstream::echo().await;
    let toml = format!(
        "[[apis]]\nid = \"a\"\nlisten_path = \"/\"\nkeyless = true\ntargets = [\"http://localhost:{}\"]\n",
        upstream.addr.port()
    );
    let gw = Gateway::start(Setup::new(&toml)).await;
    assert_eq!(get(gw.addr, "/", "").await.status(), 200);
    let host = format!("localhost:{}", upstream.addr.port());
    assert_eq!(upstream.last().header("host"), Some(host.as_str()));
}
