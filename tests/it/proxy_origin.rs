use crate::proxy_support::{Gateway, Setup, TOKEN, Upstream, with_target};
use crate::raw_http::{Wire, get};

/// A gateway with a listener and keys of `[proxy]`.
async fn gateway(upstream: &Upstream, listener: &str, proxy: &str, api: &str) -> Gateway {
    let toml = format!(
        "[proxy]\n{proxy}\n[[proxy.listeners]]\nlisten = \"127.0.0.1:0\"\n{listener}\n\
         [[apis]]\nid = \"a\"\nlisten_path = \"/\"\n{api}\n"
    );
    Gateway::start(Setup::new(&with_target(&toml, upstream.addr))).await
}

#[tokio::test]
async fn the_proxy_protocol_tells_the_client_where_it_is_configured() {
    let upstream = Upstream::echo().await;
    let request = "GET / HTTP/1.1\r\nHost: gw\r\n\r\n";
    let from = "proxy_protocol_from = [\"127.0.0.0/8\"]";
    let gw = gateway(&upstream, from, "first_byte_timeout_ms = 300", "keyless = true").await;
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x08\x0a\0\0\x01\0\x01\x01\xbb";
    for (head, client) in [
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 1 443\r\n".to_vec(), "192.0.2.7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (v2.to_vec(), "192.0.2.8"),
    ] {
        let mut wire = Wire::connect(gw.addr).await;
        wire.send([head.as_slice(), request.as_bytes(), request.as_bytes()].concat()).await;
        for _ in 0..2 {
            assert_eq!(wire.answer().await.status(), 200);
            assert_eq!(upstream.last().header("x-forwarded-for"), Some(client));
        }
    }
    let served = upstream.count();
    let mut without = Wire::connect(gw.addr).await;
    without.send(request).await;
    assert!(without.closed().await, "a header has to come first");
    let mut half = Wire::connect(gw.addr).await;
    half.send("PROXY TCP4 192").await;
    assert!(half.closed().await, "and in time");
    assert_eq!(upstream.count(), served);
    gw.until("turnpike_clients_cut_off_total{reason=\"handshake\"}", 1).await;
    gw.until("turnpike_clients_cut_off_total{reason=\"first_byte\"}", 1).await;
    // Nobody else may speak for others.
    let from = "proxy_protocol_from = [\"10.0.0.0/8\"]";
    let gw = gateway(&upstream, from, "", "keyless = true").await;
    let mut wire = Wire::connect(gw.addr).await;
    wire.send(format!("PROXY TCP4 192.0.2.7 10.0.0.1 1 443\r\n{request}")).await;
    assert_eq!(wire.answer().await.status(), 400);
    assert_eq!(get(gw.addr, "/", "").await.status(), 200);
    assert_eq!(upstream.last().header("x-forwarded-for"), Some("127.0.0.1"));
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_nobody_else() {
    let upstream = Upstream::echo().await;
    let told = "X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\nX-Forwarded-Proto: https\r\n";
    let trusting = "trusted_proxies = [\"127.0.0.0/8\"]";
    let gw = gateway(&upstream, "", trusting, "keyless = true\nallow = [\"192.0.2.7\"]").await;
    assert_eq!(get(gw.addr, "/", told).await.status(), 200);
    let seen = upstream.last();
    assert_eq!(seen.header("x-forwarded-for"), Some("6.6.6.6, 192.0.2.7, 127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(get(gw.addr, "/", "X-Forwarded-For: 192.0.2.9\r\n").await.status(), 403);
    let gw = gateway(&upstream, "", "", "keyless = true\nallow = [\"127.0.0.1\"]").await;
    assert_eq!(get(gw.addr, "/", told).await.status(), 200);
    let seen = upstream.last();
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
}

#[tokio::test]
async fn guesses_are_counted_by_the_client_that_a_trusted_proxy_tells() {
    let upstream = Upstream::echo().await;
    let gw = gateway(&upstream, "", "trusted_proxies = [\"127.0.0.0/8\"]", "").await;
    gw.credential(serde_json::json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true})).await;
    let mut wire = Wire::connect(gw.addr).await;
    let mut ask = async |client: &str, token: &str| {
        let head = format!("GET / HTTP/1.1\r\nHost: gw\r\nX-Forwarded-For: {client}\r\n");
        wire.send(format!("{head}X-API-Key: {token}\r\n\r\n")).await;
        wire.answer().await.status()
    };
    let mut statuses = Vec::new();
    for n in 0..1_100 {
        statuses.push(ask("192.0.2.7", &format!("guess-{n}")).await);
    }
    assert_eq!((statuses[0], statuses[1_099]), (403, 429));
    assert_eq!(ask("192.0.2.8", "guess").await, 403, "another client has guessed nothing");
    assert_eq!(ask("192.0.2.8", TOKEN).await, 200);
}

#[tokio::test]
async fn connections_of_one_address_are_bounded_and_slow_bodies_end() {
    let upstream = Upstream::echo().await;
    let keys = "keyless = true\nidle_timeout_ms = 300\nbody_rate_min = 100";
    let gw = gateway(&upstream, "", "connections_per_address_max = 2", keys).await;
    let mut one = Wire::connect(gw.addr).await;
    let mut two = Wire::connect(gw.addr).await;
    for wire in [&mut one, &mut two] {
        wire.send("GET / HTTP/1.1\r\nHost: gw\r\n\r\n").await;
        assert_eq!(wire.answer().await.status(), 200);
    }
    assert!(Wire::connect(gw.addr).await.closed().await, "a third is one too many");
    gw.until("turnpike_connections_refused_total", 1).await;
    drop(two);
    gw.until("turnpike_connections", 1).await;
    // A byte now and then is no pause that is too long, and too slow all the same.
    one.send("POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 1000\r\n\r\n").await;
    let (mut from, mut to) = one.stream.into_split();
    let drip = tokio::spawn(async move {
        for _ in 0..1_000 {
            if tokio::io::AsyncWriteExt::write_all(&mut to, b"x").await.is_err() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    let mut answer = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut from, &mut answer);
    // The connection is reset once the client has sent on for too long.
    let _ = tokio::time::timeout(crate::raw_http::LONG, reading).await.unwrap();
    drip.abort();
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{:?}", answer.escape_ascii().to_string());
}
