use std::path::Path;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http2_client::Http2;
use crate::proxy_support::{Gateway, Setup, Upstream, with_target};
use crate::raw_http::LONG;
use crate::tls_client::{Made, client, connect};

const KEYLESS: &str = "[[apis]]\nid = \"a\"\nlisten_path = \"/\"\nkeyless = true\n";

/// A gateway with a TLS listener; certificates `names` lie in `dir`.
async fn gateway(dir: &Path, names: &[&str], keys: &str, upstream: &Upstream) -> Gateway {
    let list = |ending: &str| -> String {
        let all = names.iter().map(|name| format!("\"{}/{name}.{ending}\"", dir.display()));
        all.collect::<Vec<_>>().join(", ")
    };
    let (proxy, keys) = if keys.starts_with('[') { (keys, "") } else { ("", keys) };
    let listener = format!(
        "{proxy}[[proxy.listeners]]\nlisten = \"127.0.0.1:0\"\ncertificates = [{}]\nkeys = [{}]\n{keys}\n",
        list("pem"),
        list("key")
    );
    Gateway::start(Setup::new(&format!("{listener}{}", with_target(KEYLESS, upstream.addr)))).await
}

#[tokio::test]
async fn a_certificate_is_found_by_name_and_http_by_alpn() {
    let upstream = Upstream::echo().await;
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Made::new(&["a.example"]), Made::new(&["b.example", "*.b.example"]));
    a.write(dir.path(), "a");
    b.write(dir.path(), "b");
    let gw = gateway(dir.path(), &["a", "b"], "", &upstream).await;
    for (name, expect) in [
        ("a.example", Some(&a)),
        ("A.EXAMPLE", Some(&a)),
        ("b.example", Some(&b)),
        ("x.b.example", Some(&b)),
        // The first answers, and the client does not take it for another.
        ("c.example", None),
        ("y.x.b.example", None),
    ] {
        let config = client(&[&a, &b], &["h2", "http/1.1"], false);
        match (connect(gw.addr, name, config).await, expect) {
            (Ok(stream), Some(made)) => {
                let (_, session) = stream.get_ref();
                assert_eq!(session.peer_certificates().unwrap()[0], made.der(), "{name}");
                assert_eq!(session.alpn_protocol(), Some(b"h2".as_slice()));
            }
            (Err(error), None) => {
                assert!(error.to_string().contains("not valid for name"), "{error}")
            }
            (other, _) => panic!("{name}: {other:?}"),
        }
    }
    for alpn in [&["http/1.1"][..], &[]] {
        for tls12 in [false, true] {
            let config = client(&[&a], alpn, tls12);
            let mut stream = connect(gw.addr, "a.example", config).await.unwrap();
            let request = b"GET /one HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert_eq!(upstream.last().header("x-forwarded-proto"), Some("https"));
            assert_eq!(upstream.last().header("via"), Some("1.1 turnpike"));
        }
    }
    let config = client(&[&a], &["h2"], false);
    let mut http2 = Http2::over(connect(gw.addr, "a.example", config).await.unwrap()).await;
    let answer = http2.get("https://a.example/two").await;
    assert_eq!(answer.status, 200);
    let seen = upstream.last();
    assert_eq!((seen.target(), seen.header("x-forwarded-host")), ("/two", Some("a.example")));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("via"), Some("2 turnpike"));
}

#[tokio::test]
async fn old_versions_and_what_is_no_tls_are_turned_away() {
    let upstream = Upstream::echo().await;
    let (dir, a) = (tempfile::tempdir().unwrap(), Made::new(&["a.example"]));
    a.write(dir.path(), "a");
    let gw = gateway(dir.path(), &["a"], "tls_version_min = \"1.3\"", &upstream).await;
    let old = connect(gw.addr, "a.example", client(&[&a], &[], true)).await;
    assert!(old.is_err());
    assert!(connect(gw.addr, "a.example", client(&[&a], &[], false)).await.is_ok());
    let mut plain = TcpStream::connect(gw.addr).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    // Cut off, or reset with the request unread.
    let _ = tokio::time::timeout(LONG, plain.read_to_end(&mut rest)).await.unwrap();
    assert!(!rest.starts_with(b"HTTP"), "{:?}", rest.escape_ascii().to_string());
    // Spoken otherwise than agreed.
    let mut agreed = connect(gw.addr, "a.example", client(&[&a], &["h2"], false)).await.unwrap();
    agreed.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    rest.clear();
    let _ = tokio::time::timeout(LONG, agreed.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
    gw.until("turnpike_clients_cut_off_total{reason=\"handshake\"}", 3).await;
    assert_eq!(upstream.count(), 0);
}

/// The certificate that a new connection gets.
async fn current(gw: &Gateway, trusted: &[&Made]) -> Vec<u8> {
    let stream = connect(gw.addr, "a.example", client(trusted, &[], false)).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn changed_certificates_are_taken_over_and_broken_ones_are_not() {
    let upstream = Upstream::echo().await;
    let dir: TempDir = tempfile::tempdir().unwrap();
    let (old, new) = (Made::new(&["a.example"]), Made::new(&["a.example"]));
    old.write(dir.path(), "a");
    let gw = gateway(dir.path(), &["a"], "", &upstream).await;
    assert_eq!(current(&gw, &[&old, &new]).await, old.der().to_vec());
    std::fs::write(dir.path().join("a.pem"), "nonsense").unwrap();
    gw.until("turnpike_tls_reloads_total{result=\"error\"}", 1).await;
    assert_eq!(current(&gw, &[&old, &new]).await, old.der().to_vec());
    new.write(dir.path(), "a");
    gw.until("turnpike_tls_reloads_total{result=\"ok\"}", 1).await;
    assert_eq!(current(&gw, &[&old, &new]).await, new.der().to_vec());
}

#[tokio::test]
async fn half_a_handshake_is_cut_off() {
    let upstream = Upstream::echo().await;
    let (dir, a) = (tempfile::tempdir().unwrap(), Made::new(&["a.example"]));
    a.write(dir.path(), "a");
    let keys = "[proxy]\nfirst_byte_timeout_ms = 100\n";
    let gw = gateway(dir.path(), &["a"], keys, &upstream).await;
    let mut silent = TcpStream::connect(gw.addr).await.unwrap();
    let mut half = TcpStream::connect(gw.addr).await.unwrap();
    half.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
    for stream in [&mut silent, &mut half] {
        let ended = tokio::time::timeout(LONG, stream.read(&mut [0; 64])).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    gw.until("turnpike_clients_cut_off_total{reason=\"first_byte\"}", 2).await;
    // A handshake that ends and nothing after it.
    let config = client(&[&a], &["h2"], false);
    let mut mute = connect(gw.addr, "a.example", config).await.unwrap();
    let ended = tokio::time::timeout(LONG, mute.read(&mut [0; 64])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

#[tokio::test]
async fn the_proxy_protocol_comes_before_tls() {
    let upstream = Upstream::echo().await;
    let (dir, a) = (tempfile::tempdir().unwrap(), Made::new(&["a.example"]));
    a.write(dir.path(), "a");
    let gw = gateway(dir.path(), &["a"], "proxy_protocol_from = [\"127.0.0.1\"]", &upstream).await;
    let config = std::sync::Arc::new(client(&[&a], &["h2"], false));
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x08\x0a\0\0\x01\0\x01\x01\xbb";
    for (head, from) in
        [(&b"PROXY TCP6 2001:db8::7 ::1 1 443\r\n"[..], "2001:db8::7"), (v2, "192.0.2.8")]
    {
        let mut stream = TcpStream::connect(gw.addr).await.unwrap();
        stream.write_all(head).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::clone(&config));
        let stream = connector.connect("a.example".try_into().unwrap(), stream).await.unwrap();
        let mut http2 = Http2::over(stream).await;
        assert_eq!(http2.get("https://a.example/").await.status, 200);
        let seen = upstream.last();
        assert_eq!(seen.header("x-forwarded-for"), Some(from));
        assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    }
    // Inside of TLS it is nothing but bytes that cannot be read.
    assert!(connect(gw.addr, "a.example", client(&[&a], &["h2"], false)).await.is_err());
}
