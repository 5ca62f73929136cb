use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket};
use turnpike::store::{Expect, Kind, RecordKey, Write};

use crate::http2_client::{Http2, read};
use crate::proxy_support::{Gateway, Setup, TOKEN, Upstream, with_target};
use crate::raw_http::{Wire, get};

const AWAITED: &str = "turnpike_bodies_awaited";

/// A request of which the gateway has a part, and waits for the rest.
async fn begin(gw: &Gateway, head: &str, part: &str) -> Wire {
    let before = gw.metric(AWAITED);
    let mut wire = Wire::connect(gw.addr).await;
    wire.send(format!("{head}\r\n{part}")).await;
    gw.until(AWAITED, before + 1).await;
    wire
}

fn post(headers: &str) -> String {
    format!("POST /api/x HTTP/1.1\r\nHost: gw\r\nX-API-Key: {TOKEN}\r\n{headers}\r\n")
}

/// One API that takes tokens, with one of this plan.
async fn with_plan(upstream: &Upstream, keys: &str, plan: Value) -> Gateway {
    let gw = Gateway::with_token(upstream.addr, keys).await;
    gw.credential(plan).await;
    gw
}

fn nothing_came(upstream: &mut Upstream) {
    assert!(upstream.events.try_recv().is_err(), "no connection");
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn a_small_body_is_waited_for_and_sent_with_its_head() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gw = Gateway::keyless(listener.local_addr().unwrap(), "").await;
    let body = "0123456789".repeat(1_638);
    let mut client = begin(&gw, &post("Content-Length: 16384"), &body).await;
    for piece in ["a", "b", "c"] {
        client.send(piece).await;
    }
    assert_eq!(gw.metric(AWAITED), 1);
    // Only now the upstream is connected to.
    client.send("d").await;
    let mut upstream = Wire::new(listener.accept().await.unwrap().0);
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"abcd") {
        assert!(upstream.more(&mut bytes).await);
    }
    let text = String::from_utf8(bytes).unwrap();
    let (head, came) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\ncontent-length: 16384\r\n"), "{head}");
    assert_eq!(came, format!("{body}abcd"));
    gw.until(AWAITED, 0).await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(client.answer().await.text(), "ok");
    // A short one is there with a single read of the upstream's.
    client.send(format!("{}\r\nhello", post("Content-Length: 5"))).await;
    let mut bytes = Vec::new();
    assert!(upstream.more(&mut bytes).await);
    assert!(bytes.ends_with(b"\r\n\r\nhello"), "{}", bytes.escape_ascii());
}

#[tokio::test]
async fn whoever_goes_away_in_a_small_body_reaches_no_upstream_and_is_charged_nothing() {
    let mut upstream = Upstream::echo().await;
    let gw = with_plan(&upstream, "", json!({"Quota": 1, "QuotaRenewalRate": 3600})).await;
    let wire = begin(&gw, &post("Content-Length: 10"), "123").await;
    drop(wire);
    gw.until("turnpike_requests_under_way", 0).await;
    assert_eq!(gw.metric(AWAITED), 0);
    nothing_came(&mut upstream);
    let token = format!("X-API-Key: {TOKEN}\r\n");
    assert_eq!(get(gw.addr, "/api/x", &token).await.status(), 200);
    assert_eq!(get(gw.addr, "/api/x", &token).await.code(), "quota_exceeded");
}

#[tokio::test]
async fn a_small_body_that_stops_coming_is_408_and_reaches_no_upstream() {
    let dir = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::echo().await;
    let toml = "[[apis]]\nid = \"a\"\nlisten_path = \"/\"\nkeyless = true\nidle_timeout_ms = 50";
    let mut setup = Setup::new(&with_target(toml, upstream.addr));
    setup.access = Some(dir.path().join("access.log"));
    let gw = Gateway::start(setup).await;
    let mut wire = begin(&gw, &post("Content-Length: 10"), "123").await;
    let answer = wire.answer().await;
    assert_eq!((answer.status(), answer.code()), (408, "body_timeout".into()));
    assert!(wire.closed().await);
    nothing_came(&mut upstream);
    // One that is there is not waited for.
    let mut wire = Wire::connect(gw.addr).await;
    wire.send(format!("{}\r\nhi", post("Content-Length: 2"))).await;
    assert_eq!(wire.answer().await.text(), "hi");
    gw.until("turnpike_requests_under_way", 0).await;
    drop(gw);
    let log = std::fs::read_to_string(dir.path().join("access.log")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["status"], &lines[0]["bytes_in"]), (&json!(408), &json!(3)));
    assert!(50 <= lines[0]["body_wait_ms"].as_u64().unwrap(), "{log}");
    assert!(lines[0]["upstream_ms"].is_null() && lines[1]["body_wait_ms"].is_null(), "{log}");
}

#[tokio::test]
async fn what_is_no_small_body_of_a_known_length_streams() {
    let long = "o".repeat(16_382);
    let cases = [
        ("body_buffer_bytes = 4", "Content-Length: 5\r\n", "hel", "lo"),
        ("body_buffer_bytes = 0", "Content-Length: 5\r\n", "", "hello"),
        ("", "Content-Length: 16385\r\n", "hel", long.as_str()),
        ("", "Transfer-Encoding: chunked\r\n", "3\r\nhel\r\n", "2\r\nlo\r\n0\r\n\r\n"),
        ("", "Content-Length: 5\r\nExpect: 100-continue\r\n", "", "hello"),
    ];
    for (keys, headers, part, rest) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gw = Gateway::keyless(listener.local_addr().unwrap(), keys).await;
        let mut client = Wire::connect(gw.addr).await;
        client.send(format!("POST / HTTP/1.1\r\nHost: gw\r\n{headers}\r\n{part}")).await;
        let mut upstream = Wire::new(listener.accept().await.unwrap().0);
        let mut message = upstream.head().await.expect("the head comes before the rest");
        client.send(rest).await;
        upstream.body(&mut message, false).await;
        let (text, whole) = (message.text(), message.whole);
        assert!(whole && text.starts_with("hel") && text.ends_with('o'), "{keys} {headers}");
        assert_eq!(gw.metric(AWAITED), 0, "{keys} {headers}");
    }
}

/// What a limit has no part in is said at once; what it has, when there is a request to charge.
#[tokio::test]
async fn a_request_that_is_not_let_in_is_not_waited_for() {
    let mut upstream = Upstream::echo().await;
    let gw = with_plan(&upstream, "", json!({"Quota": 1, "QuotaRenewalRate": 3600})).await;
    let head = "POST /api/x HTTP/1.1\r\nHost: gw\r\nContent-Length: 10\r\n";
    for (token, status) in [("", 401), ("X-API-Key: nobody\r\n", 403)] {
        let mut wire = Wire::connect(gw.addr).await;
        wire.send(format!("{head}{token}\r\n123")).await;
        let answer = wire.answer().await;
        assert_eq!((answer.status(), answer.header("connection")), (status, Some("close")));
    }
    nothing_came(&mut upstream);
    let mut wire = begin(&gw, &post("Content-Length: 10"), "123").await;
    let token = format!("X-API-Key: {TOKEN}\r\n");
    assert_eq!(get(gw.addr, "/api/x", &token).await.status(), 200);
    wire.send("4567890").await;
    assert_eq!(wire.answer().await.code(), "quota_exceeded");
    wire.send("GET /nowhere HTTP/1.1\r\nHost: gw\r\n\r\n").await;
    assert_eq!(wire.answer().await.status(), 404, "its body was read: the connection goes on");
}

#[tokio::test]
async fn a_token_that_is_revoked_while_its_body_comes_opens_nothing() {
    let mut upstream = Upstream::echo().await;
    let gw = with_plan(&upstream, "", json!({"UnlimitedQuota": true})).await;
    let mut wire = begin(&gw, &post("Content-Length: 2"), "h").await;
    let hash = gw.state.catalog.pepper().hash(TOKEN.as_bytes());
    let key = RecordKey::bytes(Kind::Token, hash.0);
    let gone = Write { key, expect: Expect::Anything, value: None };
    gw.state.catalog.commit(&[gone]).await.unwrap();
    wire.send("i").await;
    assert_eq!(wire.answer().await.code(), "token_unknown");
    nothing_came(&mut upstream);
}

#[tokio::test]
async fn a_request_whose_body_is_waited_for_takes_no_place_of_others() {
    let upstream = Upstream::echo().await;
    let toml = "[proxy]\nrequests_max = 1\n[[apis]]\nid = \"a\"\nlisten_path = \"/api/\"";
    let gw = Gateway::start(Setup::new(&with_target(toml, upstream.addr))).await;
    gw.credential(json!({"MaxInFlight": 1})).await;
    let mut slow = begin(&gw, &post("Content-Length: 5"), "hel").await;
    let token = format!("X-API-Key: {TOKEN}\r\n");
    assert_eq!(get(gw.addr, "/api/x", &token).await.status(), 200);
    // Where none can wait any more, a request is as it would be without waiting.
    let mut second = Wire::connect(gw.addr).await;
    second.send(format!("{}\r\nhel", post("Content-Length: 5"))).await;
    gw.until("turnpike_upstream_in_flight{api=\"a\",target=\"0\"}", 1).await;
    assert_eq!(get(gw.addr, "/api/x", &token).await.code(), "overloaded");
    // Who has waited needs a place among the others, then.
    slow.send("lo").await;
    assert_eq!(slow.answer().await.code(), "overloaded");
    second.send("lo").await;
    assert_eq!(second.answer().await.text(), "hello");
    assert_eq!(upstream.last().header("content-length"), Some("5"));
}

#[tokio::test]
async fn a_stop_ends_the_waiting_and_not_the_request() {
    let upstream = Upstream::echo().await;
    let gw = Gateway::keyless(upstream.addr, "").await;
    let mut slow = begin(&gw, &post("Content-Length: 5"), "hel").await;
    gw.shutdown.send(true).unwrap();
    gw.until(AWAITED, 0).await;
    slow.send("lo").await;
    let answer = slow.answer().await;
    assert_eq!((answer.text(), answer.header("connection")), ("hello", Some("close")));
    tokio::time::timeout(crate::raw_http::LONG, gw.task).await.unwrap().unwrap();
}

/// RST_STREAM with NO_ERROR is no end of a body: neither of one that is waited for nor of one that
/// streams.
#[tokio::test]
async fn a_stream_that_is_given_up_is_not_taken_for_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gw = Gateway::keyless(listener.local_addr().unwrap(), "").await;
    let http2 = Http2::connect(gw.addr).await;
    let mut send = http2.send.clone().ready().await.unwrap();
    let request = Request::post("http://gw/").header("content-length", "5").body(()).unwrap();
    let (_gone, mut stream) = send.send_request(request, false).unwrap();
    stream.send_data(Bytes::from_static(b"hel"), false).unwrap();
    gw.until(AWAITED, 1).await;
    stream.send_reset(h2::Reason::NO_ERROR);
    gw.until("turnpike_requests_under_way", 0).await;
    let mut send = send.ready().await.unwrap();
    let request = Request::post("http://gw/").body(()).unwrap();
    let (_gone, mut stream) = send.send_request(request, false).unwrap();
    stream.send_data(Bytes::from_static(b"hel"), false).unwrap();
    // The first connection: nobody heard of the other request.
    let mut upstream = Wire::new(listener.accept().await.unwrap().0);
    let mut message = upstream.head().await.unwrap();
    assert_eq!(message.header("transfer-encoding"), Some("chunked"));
    stream.send_reset(h2::Reason::NO_ERROR);
    upstream.body(&mut message, false).await;
    assert!(!message.whole, "{message:?}");
}

/// One that may come as slowly as it likes may not be waited for as long as that takes.
#[tokio::test]
async fn where_no_pace_is_asked_for_a_body_is_not_waited_for_without_end() {
    let upstream = Upstream::echo().await;
    let keys = "body_rate_min = 0\nidle_timeout_ms = 300";
    let gw = Gateway::keyless(upstream.addr, keys).await;
    let mut slow = begin(&gw, &post("Content-Length: 50"), "h").await;
    // No pause is too long.
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(100));
    for _ in 0..20 {
        pace.tick().await;
        if gw.metric(AWAITED) == 0 {
            break;
        }
        slow.send("h").await;
    }
    assert_eq!(gw.metric(AWAITED), 0);
    assert_eq!(slow.answer().await.code(), "body_timeout");
}

#[tokio::test]
async fn a_small_body_over_http2_is_waited_for_to_its_end() {
    let mut upstream = Upstream::echo().await;
    let gw = Gateway::keyless(upstream.addr, "").await;
    let http2 = Http2::connect(gw.addr).await;
    let request = || Request::post("http://gw/").header("content-length", "5").body(()).unwrap();
    let mut send = http2.send.clone().ready().await.unwrap();
    let (answer, mut stream) = send.send_request(request(), false).unwrap();
    stream.send_data(Bytes::from_static(b"hel"), false).unwrap();
    gw.until(AWAITED, 1).await;
    stream.send_data(Bytes::from_static(b"lo"), false).unwrap();
    // It goes away: nobody hears of it.
    let mut send = send.ready().await.unwrap();
    let (_gone, mut other) = send.send_request(request(), false).unwrap();
    other.send_data(Bytes::from_static(b"hello"), false).unwrap();
    gw.until(AWAITED, 2).await;
    other.send_reset(h2::Reason::CANCEL);
    gw.until(AWAITED, 1).await;
    nothing_came(&mut upstream);
    stream.send_data(Bytes::new(), true).unwrap();
    let (parts, body) = answer.await.unwrap().into_parts();
    assert_eq!(parts.status, 200);
    assert_eq!(read(body).await.unwrap().0, b"hello");
    assert_eq!(upstream.count(), 1);
}

/// What the kernel holds of a connection's answer, in bytes: the fifth field of its line.
fn queued(from: std::net::SocketAddr, to: std::net::SocketAddr) -> usize {
    let ends = format!(":{:04X} 0100007F:{:04X} ", from.port(), to.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let line = table.lines().find(|line| line.contains(&ends)).expect("the connection");
    let queues = line.split_whitespace().nth(4).unwrap();
    usize::from_str_radix(queues.split_once(':').unwrap().0, 16).unwrap()
}

#[tokio::test]
async fn what_a_slow_reader_does_not_take_does_not_lie_in_the_kernel() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gw = Gateway::keyless(listener.local_addr().unwrap(), "").await;
    // Whoever came before the gateway ran has not inherited the bound.
    let _first = Wire::connect(gw.addr).await;
    gw.until("turnpike_connections", 1).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut client = Wire::new(socket.connect(gw.addr).await.unwrap());
    client.send("GET / HTTP/1.1\r\nHost: gw\r\n\r\n").await;
    let mut upstream = Wire::new(listener.accept().await.unwrap().0);
    upstream.head().await.unwrap();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await;
    let (piece, blocked) = (vec![b'x'; 1 << 20], std::time::Duration::from_millis(300));
    while let Ok(wrote) = tokio::time::timeout(blocked, upstream.stream.write(&piece)).await {
        wrote.unwrap();
    }
    let held = queued(gw.addr, client.stream.local_addr().unwrap());
    assert!(0 < held && held < 512 * 1024, "{held} bytes");
}
