use crate::proxy_support::{Gateway, Upstream};
use crate::raw_http::{Wire, ask};

/// Sends bytes, expects a status, and that the upstream got nothing.
#[track_caller]
fn refused(upstream: &Upstream, got: u16, expect: u16, what: &str) {
    assert_eq!(got, expect, "{what:?}");
    assert_eq!(upstream.count(), 0, "{what:?} went on");
}

#[tokio::test]
async fn what_is_ambiguous_is_refused_and_never_forwarded() {
    let upstream = Upstream::echo().await;
    let gw = Gateway::keyless(upstream.addr, "").await;
    let cases: &[(&str, u16)] = &[
        // Host: none, two, odd.
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400),
        // Transfer-Encoding.
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        // Content-Length.
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\na", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\na", 400),
        // Targets.
        ("GET http://elsewhere/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 400),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        // Syntax.
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 400),
        ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        // Paths that can be read in two ways.
        ("GET /../a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a%5cb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /..;x/a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /%252e%252e/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ];
    for (bytes, status) in cases {
        refused(&upstream, ask(gw.addr, bytes).await.status(), *status, bytes);
    }
}

#[tokio::test]
async fn bounds_of_the_head_have_their_statuses() {
    let upstream = Upstream::echo().await;
    let gw = Gateway::keyless(upstream.addr, "").await;
    let long = |n: usize| "a".repeat(n);
    let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(9_000));
    refused(&upstream, ask(gw.addr, target).await.status(), 414, "a long target");
    let query = format!("GET /?{} HTTP/1.1\r\nHost: a\r\n\r\n", long(9_000));
    refused(&upstream, ask(gw.addr, query).await.status(), 414, "a long query");
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", long(17_000));
    refused(&upstream, ask(gw.addr, head).await.status(), 431, "a large head");
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", long(70_000));
    refused(&upstream, ask(gw.addr, endless).await.status(), 431, "an endless head");
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(100));
    refused(&upstream, ask(gw.addr, many).await.status(), 431, "many headers");
    let just = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(99));
    assert_eq!(ask(gw.addr, just).await.status(), 200);
}

#[tokio::test]
async fn a_length_beside_chunks_goes_on_as_chunks_and_the_connection_closes() {
    let upstream = Upstream::echo().await;
    let gw = Gateway::keyless(upstream.addr, "").await;
    for headers in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Transfer-Encoding: Chunked\r\nContent-Length: 4\r\nContent-Length: 9",
    ] {
        let mut wire = Wire::connect(gw.addr).await;
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: gw\r\n\r\n";
        let request =
            format!("POST / HTTP/1.1\r\nHost: gw\r\n{headers}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        wire.send(request + smuggled).await;
        let answer = wire.answer().await;
        assert_eq!((answer.status(), answer.text()), (200, "hello"));
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(wire.closed().await, "what follows is not read as a request");
        let seen = upstream.last();
        assert_eq!(seen.all("content-length").count(), 0);
        assert_eq!(seen.all("transfer-encoding").collect::<Vec<_>>(), ["chunked"]);
        assert_eq!(seen.body, b"hello");
        assert_eq!(seen.target(), "/");
    }
}

#[tokio::test]
async fn bare_line_feeds_go_on_as_proper_lines() {
    let upstream = Upstream::echo().await;
    let gw = Gateway::keyless(upstream.addr, "").await;
    let answer = ask(gw.addr, "GET /x HTTP/1.1\nHost: gw\nX-A: 1\n\n").await;
    assert_eq!(answer.status(), 200);
    let seen = upstream.last();
    assert_eq!((seen.target(), seen.header("x-a")), ("/x", Some("1")));
    let lone = seen.bytes.windows(2).any(|w| w[1] == b'\n' && w[0] != b'\r');
    assert!(!lone, "{:?}", String::from_utf8_lossy(&seen.bytes));
}

#[tokio::test]
async fn repeated_equal_lengths_go_on_as_one() {
    let upstream = Upstream::echo().await;
    let gw = Gateway::keyless(upstream.addr, "").await;
    let request = "POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab";
    assert_eq!(ask(gw.addr, request).await.text(), "ab");
    assert_eq!(upstream.last().all("content-length").collect::<Vec<_>>(), ["2"]);
}

#[tokio::test]
async fn broken_chunks_are_refused() {
    let upstream = Upstream::echo().await;
    let gw = Gateway::keyless(upstream.addr, "").await;
    for chunks in [
        "zz\r\n",
        "5\r\nhelloX\r\n",
        "-1\r\n",
        "fffffffffffffffff\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
    ] {
        let head = "POST / HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = ask(gw.addr, format!("{head}{chunks}")).await;
        assert_eq!(answer.status(), 400, "{chunks:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{chunks:?}");
    }
    assert!(upstream.seen().iter().all(|seen| !seen.whole), "no upstream got a whole request");
}

#[tokio::test]
async fn the_absolute_form_of_this_host_is_a_path() {
    let upstream = Upstream::echo().await;
    let gw = Gateway::keyless(upstream.addr, "").await;
    for target in ["http://gw/a?b=1", "http://GW:80/a?b=1", "HTTP://gw/a?b=1"] {
        let answer = ask(gw.addr, format!("GET {target} HTTP/1.1\r\nHost: gw\r\n\r\n")).await;
        assert_eq!(answer.status(), 200, "{target}");
        assert_eq!(upstream.last().target(), "/a?b=1");
    }
}

#[tokio::test]
async fn a_refused_body_is_not_read_as_a_request() {
    let upstream = Upstream::echo().await;
    let gw = Gateway::with_token(upstream.addr, "").await;
    let inner = "GET /api/ HTTP/1.1\r\nHost: gw\r\n\r\n";
    // Small and there: read to its end, and the connection goes on.
    let mut wire = Wire::connect(gw.addr).await;
    let head =
        format!("POST /api/ HTTP/1.1\r\nHost: gw\r\nContent-Length: {}\r\n\r\n", inner.len());
    wire.send(format!("{head}{inner}GET /nowhere HTTP/1.1\r\nHost: gw\r\n\r\n")).await;
    assert_eq!(wire.answer().await.status(), 401);
    assert_eq!(wire.answer().await.status(), 404, "the next request, not the body");
    // Larger than what is read for nothing: the connection closes, and the answer arrives.
    let mut wire = Wire::connect(gw.addr).await;
    wire.send("POST /api/ HTTP/1.1\r\nHost: gw\r\nContent-Length: 900000\r\n\r\n").await;
    wire.send(inner.repeat(1_000)).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status(), answer.header("connection")), (401, Some("close")));
    assert!(wire.closed().await);
    assert_eq!(upstream.count(), 0);
}
