use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pingora_core::services::Service;
use serde_json::{Value, json};
use turnpike::clock::{Clock, SystemClock};
use turnpike::domain::time::{BootNs, UnixMs};
use turnpike::proxy::ProxyService;

use crate::proxy_support::{Event, Gateway, Reply, Setup, TOKEN, Upstream, ok, with_target};
use crate::raw_http::{LONG, Wire, get};

const GET: &str = "GET / HTTP/1.1\r\nHost: gw\r\n\r\n";

#[tokio::test]
async fn shutdown_answers_what_is_under_way_and_closes_the_rest() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gw = Gateway::keyless(listener.local_addr().unwrap(), "").await;
    let mut busy = Wire::connect(gw.addr).await;
    busy.send(GET).await;
    let mut upstream = Wire::new(listener.accept().await.unwrap().0);
    upstream.head().await.unwrap();
    let mut idle = Wire::connect(gw.addr).await;
    gw.until("turnpike_connections", 2).await;
    gw.shutdown.send(true).unwrap();
    assert!(idle.closed().await);
    assert!(!gw.task.is_finished());
    upstream.send(ok(b"late")).await;
    let answer = busy.answer().await;
    assert_eq!((answer.text(), answer.header("connection")), ("late", Some("close")));
    assert!(busy.closed().await);
    tokio::time::timeout(LONG, gw.task).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(gw.addr).await.is_err(), "no longer listening");
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let mut upstream = Upstream::start(|_| Reply::Hang(Vec::new())).await;
    let toml = "[[apis]]\nid = \"a\"\nlisten_path = \"/\"\nkeyless = true\n";
    let mut setup = Setup::new(&with_target(toml, upstream.addr));
    setup.drain = Duration::from_millis(50);
    let gw = Gateway::start(setup).await;
    let mut wire = Wire::connect(gw.addr).await;
    wire.send(GET).await;
    assert!(matches!(upstream.events.recv().await, Some(Event::Connected)));
    gw.shutdown.send(true).unwrap();
    tokio::time::timeout(LONG, gw.task).await.unwrap().unwrap();
    upstream.gone().await;
    assert!(wire.closed().await);
}

#[tokio::test]
async fn connections_are_bounded() {
    let upstream = Upstream::echo().await;
    let toml =
        "[proxy]\nconnections_max = 2\n[[apis]]\nid = \"a\"\nlisten_path = \"/\"\nkeyless = true\n";
    let gw = Gateway::start(Setup::new(&with_target(toml, upstream.addr))).await;
    let mut one = Wire::connect(gw.addr).await;
    let mut two = Wire::connect(gw.addr).await;
    gw.until("turnpike_connections", 2).await;
    assert!(Wire::connect(gw.addr).await.closed().await);
    assert_eq!(gw.metric("turnpike_connections_refused_total"), 1);
    one.send(GET).await;
    assert_eq!(one.answer().await.status(), 200);
    drop(one);
    gw.until("turnpike_connections", 1).await;
    let mut three = Wire::connect(gw.addr).await;
    for wire in [&mut two, &mut three] {
        wire.send(GET).await;
        assert_eq!(wire.answer().await.status(), 200);
    }
}

/// Panics when the wall clock has been read so many times; never at 0.
#[derive(Debug, Default)]
struct Fuse(AtomicU32);

impl Clock for Fuse {
    fn unix(&self) -> UnixMs {
        let one_less = |n: u32| n.checked_sub(1);
        let left = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        assert!(left != Ok(1), "the fuse blew");
        SystemClock.unix()
    }

    fn boot(&self) -> BootNs {
        SystemClock.boot()
    }
}

#[tokio::test]
async fn a_panic_is_one_500_and_costs_no_other_request() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fuse = Arc::new(Fuse::default());
    let toml = "[[apis]]\nid = \"a\"\nlisten_path = \"/\"\nkeyless = true\n";
    let mut setup = Setup::new(&with_target(toml, listener.local_addr().unwrap()));
    setup.clock = Arc::clone(&fuse) as Arc<dyn Clock>;
    let gw = Gateway::start(setup).await;
    let mut other = Wire::connect(gw.addr).await;
    other.send(GET).await;
    let mut upstream = Wire::new(listener.accept().await.unwrap().0);
    upstream.head().await.unwrap();
    // Once when the request begins, once when its refusal is written.
    fuse.0.store(2, Ordering::SeqCst);
    let answer = get(gw.addr, "/../", "").await;
    assert_eq!((answer.status(), answer.code()), (500, "internal".into()));
    assert!(answer.header("x-request-id").is_some());
    upstream.send(ok(b"fine")).await;
    assert_eq!(other.answer().await.text(), "fine");
    gw.until("turnpike_panics_total", 1).await;
    gw.until("turnpike_requests_total{api=\"\",class=\"5xx\",decision=\"denied\"}", 1).await;
}

#[tokio::test]
async fn every_request_is_one_line_without_secrets() {
    let upstream = Upstream::start(|message| match message.target() {
        "/cut?q=LEG-00fa" => {
            Reply::Close(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345".to_vec())
        }
        _ => Reply::Keep(ok(&message.body)),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let toml = "[[apis]]\nid = \"a\"\nlisten_path = \"/api/\"\n";
    let mut setup = Setup::new(&with_target(toml, upstream.addr));
    setup.access = Some(path.clone());
    let gw = Gateway::start(setup).await;
    gw.credential(json!({"Quota": 2, "QuotaRenewalRate": 3600})).await;
    let token = format!("X-API-Key: {TOKEN}\r\nX-Request-Id: r-1\r\n");
    let mut wire = Wire::connect(gw.addr).await;
    for (target, body) in [("/api/x?q=LEG-00fa", "hello"), ("/api/cut?q=LEG-00fa", "")] {
        let length = body.len();
        wire.send(format!(
            "POST {target} HTTP/1.1\r\nHost: gw\r\n{token}Content-Length: {length}\r\n\r\n{body}"
        ))
        .await;
        assert_eq!(wire.answer().await.status(), 200);
    }
    assert_eq!(get(gw.addr, "/api/x", &token).await.status(), 429);
    assert_eq!(get(gw.addr, "/api/x", "Authorization: wrong\r\n").await.status(), 403);
    assert_eq!(get(gw.addr, "/nowhere", "").await.status(), 404);
    gw.until("turnpike_refusals_total{api=\"\",code=\"no_route\"}", 1).await;
    gw.until("turnpike_overhead_seconds_count{api=\"a\"}", 4).await;
    assert_eq!(gw.metric("turnpike_upstream_seconds_count{api=\"a\"}"), 2);
    drop(gw);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("LEG-00fa") && !text.contains("wrong"), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5, "{text}");
    let first = &lines[0];
    for (member, value) in [
        ("id", json!("r-1")),
        ("client", json!("127.0.0.1")),
        ("method", json!("POST")),
        ("host", json!("gw")),
        ("path", json!("/api/x")),
        ("api", json!("a")),
        ("status", json!(200)),
        ("credential", json!(77)),
        ("bytes_in", json!(5)),
        ("bytes_out", json!(5)),
        ("target", json!(0)),
    ] {
        assert_eq!(first[member], value, "{member}");
    }
    assert!(first["overhead_us"].is_u64() && first["upstream_ms"].is_u64() && first["ts"].is_u64());
    assert_eq!((&lines[1]["aborted"], &lines[1]["bytes_out"]), (&json!(true), &json!(5)));
    let charged = |line: usize| lines[line]["charged_us"].as_u64();
    assert!(charged(0) < charged(1) && charged(0).is_some(), "{text}");
    assert_eq!(charged(2), None, "what is refused is charged nothing");
    assert_eq!(
        (&lines[2]["code"], &lines[2]["credential"]),
        (&json!("quota_exceeded"), &json!(77))
    );
    assert_eq!(
        (&lines[3]["code"], &lines[3]["credential"]),
        (&json!("token_unknown"), &Value::Null)
    );
    assert_eq!((&lines[4]["code"], &lines[4]["status"]), (&json!("no_route"), &json!(404)));
}

#[test]
fn the_service_runs_on_a_runtime_of_pingora_and_stops() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(async {
        let upstream = Upstream::echo().await;
        let gw = Gateway::keyless(upstream.addr, "").await;
        let listeners: Vec<_> = (0..2)
            .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
            .inspect(|listener| listener.set_nonblocking(true).unwrap())
            .collect();
        let addrs: Vec<_> =
            listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let state = Arc::clone(&gw.state);
        let mut service = ProxyService::new(state, listeners, Duration::from_secs(5));
        assert_eq!(Service::threads(&service), Some(gw.state.config.threads));
        let (stop, told) = tokio::sync::watch::channel(false);
        let running =
            tokio::spawn(async move { Service::start_service(&mut service, None, told, 1).await });
        let mut wires = Vec::new();
        for addr in &addrs {
            let mut wire = Wire::connect(*addr).await;
            wire.send(GET).await;
            assert_eq!(wire.answer().await.status(), 200);
            wires.push(wire);
        }
        stop.send(true).unwrap();
        for mut wire in wires {
            assert!(wire.closed().await);
        }
        tokio::time::timeout(LONG, running).await.unwrap().unwrap();
    });
}
