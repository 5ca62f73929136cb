use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use turnpike::config::tls::{chain, private_key, provider, roots};

use crate::http2_client::{Http2, read};
use crate::proxy_support::{Gateway, TOKEN};
use crate::raw_http::get;
use crate::tls_client::Made;

type Seen = Arc<Mutex<Vec<(http::request::Parts, Vec<u8>, Option<HeaderMap>)>>>;

/// An upstream that speaks HTTP/2 and echoes bodies, and what it took.
struct Echo {
    addr: SocketAddr,
    seen: Seen,
    connections: Arc<Mutex<usize>>,
}

impl Echo {
    async fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (seen, connections) = (Seen::default(), Arc::<Mutex<usize>>::default());
        let (noted, counted) = (Arc::clone(&seen), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *counted.lock() += 1;
                let (noted, tls) = (Arc::clone(&noted), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, noted).await,
                        Some(config) => match TlsAcceptor::from(config).accept(stream).await {
                            Ok(stream) => serve(stream, noted).await,
                            Err(_refused) => {}
                        },
                    }
                });
            }
        });
        Self { addr, seen, connections }
    }
}

async fn serve(io: impl AsyncRead + AsyncWrite + Unpin, seen: Seen) {
    let mut conn = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((request, mut respond))) = conn.accept().await {
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let (parts, body) = request.into_parts();
            let Ok((body, trailers)) = read(body).await else { return };
            let answer = Response::builder().header("content-type", "application/grpc").body(());
            let mut send = respond.send_response(answer.unwrap(), false).unwrap();
            seen.lock().push((parts, body.clone(), trailers));
            send.send_data(Bytes::from(body), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            trailers.insert("set-cookie", "evil".parse().unwrap());
            send.send_trailers(trailers).unwrap();
        });
    }
}

fn call(uri: &str) -> http::request::Builder {
    Request::post(uri).header("content-type", "application/grpc+proto").header("te", "trailers")
}

#[tokio::test]
async fn grpc_passes_with_its_trailers_over_shared_connections() {
    let echo = Echo::start(None).await;
    let gw = Gateway::keyless(echo.addr, "http2 = true").await;
    let mut http2 = Http2::connect(gw.addr).await;
    let message = b"\0\0\0\0\x05hello";
    for n in 0..20 {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        trailers.insert("authorization", "evil".parse().unwrap());
        let request = call(&format!("http://gw/pkg.Echo/Say{n}")).body(()).unwrap();
        let answer = http2.ask(request, &[&message[..3], &message[3..]], Some(trailers)).await;
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, message.as_slice()));
        let trailers = answer.trailers.unwrap();
        assert_eq!(trailers.get("grpc-status").unwrap(), "0");
        assert_eq!(trailers.get("set-cookie"), None);
        assert_eq!(answer.headers.get("via").unwrap(), "2 turnpike");
    }
    let seen = std::mem::take(&mut *echo.seen.lock());
    let (parts, body, trailers) = &seen[0];
    assert_eq!(parts.uri.to_string(), format!("http://{}/pkg.Echo/Say0", echo.addr));
    assert_eq!(body, message);
    let trailers = trailers.as_ref().unwrap();
    assert_eq!(trailers.get("x-sum").unwrap(), "7");
    assert_eq!(trailers.len(), 1);
    assert_eq!(parts.headers.get("te").unwrap(), "trailers");
    for name in ["host", "connection", "transfer-encoding"] {
        assert_eq!(parts.headers.get(name), None, "{name}");
    }
    assert_eq!(*echo.connections.lock(), 1, "20 requests share a connection");
    // A client of HTTP/1.1 gets it too, without the trailers it did not ask for.
    let answer = get(gw.addr, "/one", "").await;
    assert_eq!((answer.status(), answer.whole), (200, true));
    // Streams that go both ways at once.
    let (answer, mut up) =
        http2.send.clone().send_request(call("http://gw/stream").body(()).unwrap(), false).unwrap();
    up.send_data(Bytes::from_static(b"more"), true).unwrap();
    assert_eq!(read(answer.await.unwrap().into_body()).await.unwrap().0, b"more");
}

#[tokio::test]
async fn grpc_refusals_are_trailers_alone_with_a_status_of_grpc() {
    let echo = Echo::start(None).await;
    let gw = Gateway::with_token(echo.addr, "http2 = true").await;
    gw.credential(json!({"Quota": 1, "QuotaRenewalRate": 3600})).await;
    let mut http2 = Http2::connect(gw.addr).await;
    for (path, token, status, code) in [
        ("/api/x", "", "16", "token_missing"),
        ("/api/x", "nobody", "7", "token_unknown"),
        ("/api/x", TOKEN, "0", ""),
        ("/api/x", TOKEN, "8", "quota_exceeded"),
        ("/nowhere", TOKEN, "12", "no_route"),
        ("/../x", TOKEN, "13", "ambiguous_path"),
    ] {
        let mut request = call(&format!("http://gw{path}"));
        if !token.is_empty() {
            request = request.header("x-api-key", token);
        }
        let answer = http2.ask(request.body(()).unwrap(), &[b"x"], None).await.unwrap();
        assert_eq!(answer.status, 200, "{code}");
        if code.is_empty() {
            assert_eq!(answer.trailers.unwrap().get("grpc-status").unwrap(), status);
            continue;
        }
        assert_eq!(answer.header("grpc-status"), Some(status), "{code}");
        assert_eq!(answer.header("x-error-code"), Some(code));
        assert_eq!(answer.header("content-type"), Some("application/grpc"));
        assert!(answer.header("grpc-message").is_some() && answer.body.is_empty());
        assert!(answer.trailers.is_none(), "the head is all there is");
    }
    // Whoever speaks something else is answered in its own terms.
    assert_eq!(http2.get("http://gw/api/x").await.status, 401);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gw = Gateway::keyless(closed, "http2 = true").await;
    let mut http2 = Http2::connect(gw.addr).await;
    let answer = http2.ask(call("http://gw/x").body(()).unwrap(), &[b"x"], None).await.unwrap();
    assert_eq!(answer.header("grpc-status"), Some("14"));
}

/// An upstream's side of TLS, which asks for a certificate of `client`'s if it is given.
fn server(dir: &Path, alpn: &[u8], client: Option<&str>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match client {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let roots: RootCertStore = roots(&dir.join(name)).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let (own, key) = (chain(&dir.join("up.pem")), private_key(&dir.join("up.key")));
    let mut config = builder.with_single_cert(own.unwrap(), key.unwrap()).unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}

#[tokio::test]
async fn upstreams_are_spoken_to_in_tls_and_have_to_be_who_they_are() {
    let dir = tempfile::tempdir().unwrap();
    for (name, host) in [("up", "localhost"), ("us", "gateway"), ("else", "localhost")] {
        Made::new(&[host]).write(dir.path(), name);
    }
    let keys = |addr: SocketAddr, more: &str| {
        let more = more.replace("$D", &dir.path().display().to_string());
        format!("targets = [\"https://localhost:{}\"]\nhttp2 = true\n{more}", addr.port())
    };
    let trusted = "upstream_ca = \"$D/up.pem\"\n";
    let own = "upstream_certificate = \"$D/us.pem\"\nupstream_key = \"$D/us.key\"\n";
    for (what, alpn, asks, more, status) in [
        ("trusted", "h2", None, trusted.to_owned(), 200),
        ("not trusted", "h2", None, "upstream_ca = \"$D/else.pem\"\n".to_owned(), 502),
        ("not trusted by the system", "h2", None, String::new(), 502),
        ("no HTTP/2", "http/1.1", None, trusted.to_owned(), 502),
        ("asked who we are", "h2", Some("us.pem"), format!("{trusted}{own}"), 200),
        ("not told who we are", "h2", Some("us.pem"), trusted.to_owned(), 502),
    ] {
        let echo = Echo::start(Some(server(dir.path(), alpn.as_bytes(), asks))).await;
        let gw = Gateway::keyless(echo.addr, &keys(echo.addr, &more)).await;
        let answer = get(gw.addr, "/x", "").await;
        assert_eq!(answer.status(), status, "{what}");
        let seen: Vec<String> = echo.seen.lock().iter().map(|(p, ..)| p.uri.to_string()).collect();
        let expect = (status == 200).then(|| format!("https://localhost:{}/x", echo.addr.port()));
        assert_eq!(seen, expect.into_iter().collect::<Vec<_>>(), "{what}");
    }
}

#[tokio::test]
async fn changed_files_for_upstreams_are_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    for (name, host) in [("up", "localhost"), ("us", "gateway"), ("else", "localhost")] {
        Made::new(&[host]).write(dir.path(), name);
    }
    let copy = |from: &str, to: &str| {
        std::fs::copy(dir.path().join(from), dir.path().join(to)).unwrap();
    };
    let echo = Echo::start(Some(server(dir.path(), b"h2", Some("us.pem")))).await;
    copy("else.pem", "trusted.pem");
    copy("else.pem", "own.pem");
    copy("else.key", "own.key");
    let keys = format!(
        "targets = [\"https://localhost:{}\"]\nhttp2 = true\nupstream_ca = \"$D/trusted.pem\"\n\
         upstream_certificate = \"$D/own.pem\"\nupstream_key = \"$D/own.key\"\n",
        echo.addr.port()
    );
    let keys = keys.replace("$D", &dir.path().display().to_string());
    let gw = Gateway::keyless(echo.addr, &keys).await;
    assert_eq!(get(gw.addr, "/x", "").await.status(), 502, "neither side trusts the other");
    copy("us.pem", "own.pem");
    copy("us.key", "own.key");
    copy("up.pem", "trusted.pem");
    let taken_over = async {
        while get(gw.addr, "/x", "").await.status() != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::raw_http::LONG, taken_over).await.expect("they are read again");
}
