use std::time::Duration;

use tokio::time::Instant;

use crate::proxy_support::{Event, Gateway, Reply, Setup, Upstream, ok, with_target};
use crate::raw_http::{LONG, Wire, ask, get};

/// A keyless API behind deadlines that a test can wait for.
async fn hasty(upstream: std::net::SocketAddr, proxy: &str, keys: &str) -> Gateway {
    let toml = format!(
        "[proxy]\n{proxy}\n[[apis]]\nid = \"a\"\nlisten_path = \"/\"\nkeyless = true\n{keys}\n"
    );
    Gateway::start(Setup::new(&with_target(&toml, upstream))).await
}

/// An address nobody listens on.
async fn nobody() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn an_upstream_that_refuses_connections_is_502() {
    let gw = Gateway::keyless(nobody().await, "").await;
    let mut wire = Wire::connect(gw.addr).await;
    for _ in 0..2 {
        wire.send("GET / HTTP/1.1\r\nHost: gw\r\n\r\n").await;
        let answer = wire.answer().await;
        assert_eq!((answer.status(), answer.code()), (502, "upstream_unreachable".into()));
    }
    gw.until("turnpike_requests_total{api=\"a\",class=\"5xx\",decision=\"denied\"}", 2).await;
}

#[tokio::test]
async fn a_target_that_refuses_connections_costs_no_request() {
    let (dead, alive) = (nobody().await, Upstream::echo().await);
    let keys = format!("targets = [\"http://{dead}\", \"http://{}\"]", alive.addr);
    let gw = Gateway::keyless(alive.addr, &keys).await;
    for n in 1..=4 {
        let request = "POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(ask(gw.addr, request).await.text(), "hi");
        assert_eq!(alive.count(), n);
    }
}

#[tokio::test]
async fn no_first_byte_in_time_is_504_and_the_upstream_request_is_cut() {
    let mut upstream = Upstream::start(|_| Reply::Hang(Vec::new())).await;
    let gw = Gateway::keyless(upstream.addr, "first_byte_timeout_ms = 50").await;
    let answer = get(gw.addr, "/", "").await;
    assert_eq!((answer.status(), answer.code()), (504, "upstream_timeout".into()));
    upstream.gone().await;
}

#[tokio::test]
async fn an_answer_head_of_64_kib_passes_and_an_endless_one_does_not() {
    for (len, status) in [(60 << 10, 200), (256 << 10, 502)] {
        let long = "x".repeat(len);
        let head = format!("HTTP/1.1 200 OK\r\nX-Long: {long}\r\nContent-Length: 2\r\n\r\nok");
        let upstream = Upstream::start(move |_| Reply::Close(head.clone().into_bytes())).await;
        let gw = Gateway::keyless(upstream.addr, "").await;
        assert_eq!(get(gw.addr, "/", "").await.status(), status, "{len}");
    }
}

#[tokio::test]
async fn half_an_answer_head_is_502_or_504() {
    let half = b"HTTP/1.1 200 OK\r\nConte".to_vec();
    let cut = Upstream::start({
        let half = half.clone();
        move |_| Reply::Close(half.clone())
    })
    .await;
    let gw = Gateway::keyless(cut.addr, "").await;
    let answer = get(gw.addr, "/", "").await;
    assert_eq!((answer.status(), answer.code()), (502, "upstream_broken".into()));
    let slow = Upstream::start(move |_| Reply::Hang(half.clone())).await;
    let gw = Gateway::keyless(slow.addr, "first_byte_timeout_ms = 50").await;
    assert_eq!(get(gw.addr, "/", "").await.status(), 504);
}

#[tokio::test]
async fn an_answer_cut_off_by_the_upstream_does_not_end_cleanly() {
    let upstream = Upstream::start(|message| match message.target() {
        "/length" => Reply::Close(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345".to_vec()),
        _ => Reply::Close(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n".to_vec(),
        ),
    })
    .await;
    let gw = Gateway::keyless(upstream.addr, "").await;
    for target in ["/length", "/chunks"] {
        let answer = get(gw.addr, target, "").await;
        assert_eq!((answer.status(), answer.whole), (200, false), "{target}");
    }
}

#[tokio::test]
async fn an_answer_that_stops_coming_is_cut_off() {
    let mut upstream = Upstream::start(|_| {
        Reply::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345".to_vec())
    })
    .await;
    let gw = Gateway::keyless(upstream.addr, "idle_timeout_ms = 50").await;
    let answer = get(gw.addr, "/", "").await;
    assert_eq!((answer.status(), answer.text(), answer.whole), (200, "12345", false));
    upstream.gone().await;
}

#[tokio::test]
async fn a_request_body_that_stops_coming_is_408_and_cut_upstream() {
    let mut upstream = Upstream::echo().await;
    let keys = "idle_timeout_ms = 50\nfirst_byte_timeout_ms = 20\nbody_buffer_bytes = 0";
    let gw = Gateway::keyless(upstream.addr, keys).await;
    let mut wire = Wire::connect(gw.addr).await;
    wire.send("POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 10\r\n\r\n123").await;
    let answer = wire.answer().await;
    assert_eq!((answer.status(), answer.code()), (408, "body_timeout".into()));
    assert!(wire.closed().await);
    upstream.gone().await;
    assert!(upstream.seen().iter().all(|seen| !seen.whole));
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_upstream_request() {
    for reply in [Vec::new(), b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1".to_vec()] {
        let answered = !reply.is_empty();
        let mut upstream = Upstream::start(move |_| Reply::Hang(reply.clone())).await;
        let gw = Gateway::keyless(upstream.addr, "").await;
        let mut wire = Wire::connect(gw.addr).await;
        wire.send("GET / HTTP/1.1\r\nHost: gw\r\n\r\n").await;
        assert!(matches!(upstream.events.recv().await, Some(Event::Connected)));
        if answered {
            assert_eq!(wire.head().await.unwrap().status(), 200);
        } else {
            while upstream.count() == 0 {
                tokio::task::yield_now().await;
            }
        }
        drop(wire);
        upstream.gone().await;
        let class = if answered { "2xx" } else { "4xx" };
        let line =
            format!("turnpike_requests_total{{api=\"a\",class=\"{class}\",decision=\"admitted\"}}");
        gw.until(&line, 1).await;
    }
}

#[tokio::test]
async fn a_client_that_goes_away_in_its_body_leaves_no_whole_request() {
    let mut upstream = Upstream::echo().await;
    let gw = Gateway::keyless(upstream.addr, "body_buffer_bytes = 0").await;
    for framing in
        ["Content-Length: 10\r\n\r\n123", "Transfer-Encoding: chunked\r\n\r\n3\r\n123\r\n"]
    {
        let mut wire = Wire::connect(gw.addr).await;
        wire.send(format!("POST / HTTP/1.1\r\nHost: gw\r\n{framing}")).await;
        assert!(matches!(upstream.events.recv().await, Some(Event::Connected)));
        drop(wire);
        upstream.gone().await;
    }
    assert!(upstream.seen().iter().all(|seen| !seen.whole), "{:?}", upstream.seen());
}

#[tokio::test]
async fn a_connection_that_the_upstream_closed_is_not_used_again() {
    // The upstream says keep-alive and closes: every second request finds a dead connection.
    let mut upstream = Upstream::start(|message| Reply::Close(ok(&message.body))).await;
    let gw = Gateway::keyless(upstream.addr, "").await;
    let mut wire = Wire::connect(gw.addr).await;
    for n in 1..=20 {
        wire.send("POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 2\r\n\r\nhi").await;
        let answer = wire.answer().await;
        assert_eq!((answer.status(), answer.text()), (200, "hi"));
        assert_eq!(upstream.count(), n, "sent once");
        upstream.gone().await;
    }
}

#[tokio::test]
async fn a_request_that_may_have_arrived_is_not_sent_again() {
    // Closes without an answer, on a connection that answered before.
    let upstream = Upstream::start(|message| match message.target() {
        "/first" => Reply::Keep(ok(b"")),
        _ => Reply::Close(Vec::new()),
    })
    .await;
    let gw = Gateway::keyless(upstream.addr, "").await;
    assert_eq!(get(gw.addr, "/first", "").await.status(), 200);
    let request = "POST /second HTTP/1.1\r\nHost: gw\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(ask(gw.addr, request).await.status(), 502);
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn an_upstream_that_answers_before_the_body_is_heard() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gw = Gateway::keyless(listener.local_addr().unwrap(), "").await;
    let mut client = Wire::connect(gw.addr).await;
    client.send("POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 100000\r\n\r\n123").await;
    let mut upstream = Wire::new(listener.accept().await.unwrap().0);
    upstream.head().await.unwrap();
    upstream.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text()), (403, "no"));
    assert!(client.closed().await, "the rest of the body is not read as a request");
}

#[tokio::test]
async fn a_head_that_drips_in_is_cut_after_its_total_deadline() {
    let upstream = Upstream::echo().await;
    let gw = hasty(upstream.addr, "head_timeout_ms = 150\nkeep_alive_ms = 60000", "").await;
    for first in ["", "GET / HTTP/1.1\r\nHost: gw\r\n\r\n"] {
        let mut wire = Wire::connect(gw.addr).await;
        if !first.is_empty() {
            wire.send(first).await;
            assert_eq!(wire.answer().await.status(), 200);
        }
        let began = Instant::now();
        wire.send("GET / HTTP/1.1\r\nHost: gw\r\nX: ").await;
        let (mut reader, mut writer) = wire.stream.into_split();
        let mut drip = tokio::time::interval(Duration::from_millis(20));
        let mut buffer = [0; 64];
        let closed = async {
            loop {
                tokio::select! {
                    n = tokio::io::AsyncReadExt::read(&mut reader, &mut buffer) => break n.unwrap_or(0),
                    _ = drip.tick() => drop(tokio::io::AsyncWriteExt::write(&mut writer, b"a").await),
                }
            }
        };
        assert_eq!(tokio::time::timeout(LONG, closed).await.unwrap(), 0);
        let took = began.elapsed();
        assert!(Duration::from_millis(140) < took && took < Duration::from_secs(5), "{took:?}");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_slow_answer_is_not() {
    let upstream = Upstream::start(|message| match message.target() {
        "/slow" => Reply::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1".to_vec()),
        _ => Reply::Keep(ok(b"")),
    })
    .await;
    let keys = "idle_timeout_ms = 600";
    let gw = hasty(upstream.addr, "head_timeout_ms = 10\nkeep_alive_ms = 100", keys).await;
    // Never a byte.
    assert!(Wire::connect(gw.addr).await.closed().await);
    // After a request.
    let mut wire = Wire::connect(gw.addr).await;
    for _ in 0..3 {
        wire.send("GET / HTTP/1.1\r\nHost: gw\r\n\r\n").await;
        assert_eq!(wire.answer().await.status(), 200);
    }
    let began = Instant::now();
    assert!(wire.closed().await);
    let took = began.elapsed();
    assert!(Duration::from_millis(80) < took && took < Duration::from_secs(5), "{took:?}");
    // While an answer is under way neither deadline runs.
    let mut wire = Wire::connect(gw.addr).await;
    wire.send("GET /slow HTTP/1.1\r\nHost: gw\r\n\r\n").await;
    let began = Instant::now();
    assert!(!wire.answer().await.whole);
    assert!(Duration::from_millis(500) < began.elapsed());
}

#[tokio::test]
async fn a_client_that_takes_no_answer_is_cut_off() {
    let mut upstream = Upstream::start(|_| {
        let size = 64 * 1024 * 1024;
        let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        bytes.resize(bytes.len() + size, b'x');
        Reply::Close(bytes)
    })
    .await;
    let gw = Gateway::keyless(upstream.addr, "idle_timeout_ms = 100").await;
    let mut wire = Wire::connect(gw.addr).await;
    wire.send("GET / HTTP/1.1\r\nHost: gw\r\n\r\n").await;
    // Its writes fail once the gateway has given up, and the task that panics then reports nothing
    // any more: both mean that the connection is gone.
    let gone =
        async { while upstream.events.recv().await.is_some_and(|e| !matches!(e, Event::Gone)) {} };
    drop(tokio::time::timeout(Duration::from_secs(1), gone).await);
    gw.until("turnpike_connections", 0).await;
}
