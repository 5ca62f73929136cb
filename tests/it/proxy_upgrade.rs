use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::proxy_support::{Gateway, Setup, Upstream, with_target};
use crate::raw_http::{LONG, Wire, get};

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: gw\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const YES: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
                   Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nX-Hop: 1\r\n\r\n";

/// A masked text frame, and the same from a server (RFC 6455, 5.2).
const FROM_CLIENT: &[u8] =
    &[0x81, 0x85, 1, 2, 3, 4, b'h' ^ 1, b'e' ^ 2, b'l' ^ 3, b'l' ^ 4, b'o' ^ 1];
const FROM_SERVER: &[u8] = b"\x81\x05hello";

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

#[tokio::test]
async fn a_websocket_goes_through_and_no_byte_before_its_101() {
    let listener = listener().await;
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let toml = "[[apis]]\nid = \"a\"\nlisten_path = \"/\"\nkeyless = true\n";
    let mut setup = Setup::new(&with_target(toml, listener.local_addr().unwrap()));
    setup.access = Some(log.clone());
    let gw = Gateway::start(setup).await;
    let mut client = Wire::connect(gw.addr).await;
    // The client is in a hurry: its first frame comes with the request.
    client.send([ASK.as_bytes(), FROM_CLIENT].concat()).await;
    let mut upstream = Wire::new(listener.accept().await.unwrap().0);
    let head = upstream.head().await.unwrap();
    assert_eq!(head.target(), "/ws");
    assert_eq!(
        (head.header("connection"), head.header("upgrade")),
        (Some("upgrade"), Some("websocket"))
    );
    assert_eq!(head.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    let early =
        tokio::time::timeout(std::time::Duration::from_millis(100), upstream.stream.readable());
    assert!(early.await.is_err(), "nothing before the upstream said yes");
    upstream.send([YES.as_bytes(), FROM_SERVER].concat()).await;
    let answer = client.head().await.unwrap();
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.header("upgrade").map(str::to_lowercase), Some("websocket".into()));
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    let mut bytes = vec![0; FROM_CLIENT.len()];
    tokio::time::timeout(LONG, upstream.stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(bytes, FROM_CLIENT, "what came early arrives now");
    let mut seen = Vec::new();
    client.rest(FROM_SERVER.len(), &mut seen).await;
    assert_eq!(seen, FROM_SERVER);
    // As much as one likes, both ways at once, and an end for each.
    let much = vec![7; 1 << 20];
    let (mut from, mut to) = client.stream.into_split();
    let sent = much.clone();
    let sending = tokio::spawn(async move {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    tokio::time::timeout(LONG, upstream.stream.read_to_end(&mut got)).await.unwrap().unwrap();
    assert_eq!(got, much);
    sending.await.unwrap();
    upstream.stream.write_all(b"bye").await.unwrap();
    drop(upstream);
    let mut last = Vec::new();
    tokio::time::timeout(LONG, from.read_to_end(&mut last)).await.unwrap().unwrap();
    assert_eq!(last, b"bye");
    gw.until("turnpike_requests_under_way", 0).await;
    drop(gw);
    let line: serde_json::Value =
        serde_json::from_str(std::fs::read_to_string(&log).unwrap().trim()).unwrap();
    assert_eq!((&line["status"], &line["aborted"]), (&101.into(), &serde_json::Value::Null));
    assert_eq!(line["bytes_in"], FROM_CLIENT.len() + much.len());
    assert_eq!(line["bytes_out"], FROM_SERVER.len() + 3);
}

#[tokio::test]
async fn only_upgrades_that_the_api_lists_go_on() {
    let upstream = Upstream::echo().await;
    for (keys, upgrade, goes_on) in [
        ("", "websocket", true),
        ("", "WebSocket", true),
        ("", "h2c", false),
        ("", "TLS/1.0", false),
        ("", "foo", false),
        ("", "websocket, foo", false),
        ("", "websocket\r\nUpgrade: foo", false),
        ("upgrades = [\"foo\"]", "foo", true),
        ("upgrades = [\"foo\"]", "websocket", false),
        ("upgrades = []", "websocket", false),
    ] {
        let gw = Gateway::keyless(upstream.addr, keys).await;
        let headers = format!(
            "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA\r\nUpgrade: {upgrade}\r\n"
        );
        // The upstream does not switch: the answer is as good as any.
        assert_eq!(get(gw.addr, "/", &headers).await.status(), 200, "{upgrade}");
        let seen = upstream.last();
        assert_eq!(seen.header("upgrade").is_some(), goes_on, "{keys} {upgrade}");
        assert_eq!(seen.header("connection").is_some(), goes_on, "{keys} {upgrade}");
        assert_eq!(seen.header("http2-settings"), None);
    }
    // Asked for with a body, or without saying so in Connection.
    let gw = Gateway::keyless(upstream.addr, "").await;
    for head in [
        "POST / HTTP/1.1\r\nHost: gw\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
        "GET / HTTP/1.1\r\nHost: gw\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: gw\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        assert_eq!(crate::raw_http::ask(gw.addr, head).await.status(), 200, "{head}");
        assert_eq!(upstream.last().header("upgrade"), None, "{head}");
    }
}

#[tokio::test]
async fn a_switch_to_something_else_is_502_and_a_refused_one_is_not_sent() {
    let listener = listener().await;
    let gw = Gateway::keyless(listener.local_addr().unwrap(), "").await;
    for odd in [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        let mut client = Wire::connect(gw.addr).await;
        client.send(ASK).await;
        let mut upstream = Wire::new(listener.accept().await.unwrap().0);
        upstream.head().await.unwrap();
        upstream.send(odd).await;
        assert_eq!(client.answer().await.status(), 502, "{odd}");
        assert!(upstream.closed().await, "{odd}");
    }
    let upstream = Upstream::echo().await;
    let gw = Gateway::with_token(upstream.addr, "").await;
    let mut client = Wire::connect(gw.addr).await;
    client.send(ASK.replace("/ws", "/api/ws")).await;
    assert_eq!(client.answer().await.status(), 401);
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn a_silent_tunnel_is_closed() {
    let listener = listener().await;
    let gw = Gateway::keyless(listener.local_addr().unwrap(), "idle_timeout_ms = 200").await;
    let mut client = Wire::connect(gw.addr).await;
    client.send(ASK).await;
    let mut upstream = Wire::new(listener.accept().await.unwrap().0);
    upstream.head().await.unwrap();
    upstream.send(YES).await;
    assert_eq!(client.head().await.unwrap().status(), 101);
    assert!(client.closed().await && upstream.closed().await);
    gw.until("turnpike_requests_under_way", 0).await;
}
