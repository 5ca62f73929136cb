use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use h2::client::Builder;
use http::{HeaderMap, Request};
use turnpike::clock::{Clock, SystemClock};
use turnpike::domain::time::{BootNs, UnixMs};

use crate::http2_client::{Http2, read};
use crate::proxy_support::{Gateway, Reply, Setup, Upstream, ok, with_target};
use crate::raw_http::{LONG, Wire};

const KEYLESS: &str = "[[apis]]\nid = \"a\"\nlisten_path = \"/\"\nkeyless = true\n";

/// A keyless gateway with these keys of `[proxy]` and of its API.
async fn gateway(upstream: &Upstream, proxy: &str, api: &str) -> Gateway {
    let toml = format!("[proxy]\n{proxy}\n{KEYLESS}{api}\n");
    Gateway::start(Setup::new(&with_target(&toml, upstream.addr))).await
}

#[tokio::test]
async fn a_request_over_http2_is_a_proper_one_upstream() {
    let upstream = Upstream::echo().await;
    let gw = gateway(&upstream, "", "").await;
    let mut http2 = Http2::connect(gw.addr).await;
    let request = Request::post("http://gw.example/a?b=1")
        .header("cookie", "one=1")
        .header("x-kept", "yes")
        .header("cookie", "two=2")
        .header("x-forwarded-for", "6.6.6.6")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let answer = http2.ask(request, &[b"hel", b"lo"], None).await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"hello".as_slice()));
    assert_eq!(answer.header("via"), Some("1.1 turnpike"));
    assert!(answer.header("connection").is_none());
    let seen = upstream.last();
    assert_eq!(seen.first, "POST /a?b=1 HTTP/1.1");
    assert_eq!(seen.all("host").collect::<Vec<_>>(), [upstream.addr.to_string()]);
    assert_eq!(seen.all("cookie").collect::<Vec<_>>(), ["one=1; two=2"]);
    assert_eq!(seen.header("x-kept"), Some("yes"));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-host"), Some("gw.example"));
    assert_eq!(seen.all("transfer-encoding").collect::<Vec<_>>(), ["chunked"]);
    assert_eq!(seen.header("content-length"), None);
    // The length is told, so it goes on.
    let request = Request::post("http://gw/").header("content-length", "5").body(()).unwrap();
    assert_eq!(http2.ask(request, &[b"hello"], None).await.unwrap().body, b"hello");
    assert_eq!(upstream.last().header("content-length"), Some("5"));
    assert_eq!(upstream.last().header("transfer-encoding"), None);
    // A refusal leaves the connection as it is, also with a body on its way.
    let request = Request::post("http://gw/../x").body(()).unwrap();
    let answer = http2.ask(request, &[&[7; 60_000]], None).await.unwrap();
    assert_eq!((answer.status, answer.code()), (400, "ambiguous_path".into()));
    assert_eq!(http2.get("http://gw/after").await.status, 200);
}

#[tokio::test]
async fn streams_share_a_connection_and_its_requests_are_counted_each() {
    let upstream = Upstream::echo().await;
    let gw = gateway(&upstream, "http2_streams_max = 4", "").await;
    let mut http2 = Http2::connect(gw.addr).await;
    // From then on it knows how many streams there may be.
    assert_eq!(http2.get("http://gw/first").await.status, 200);
    let asking: Vec<_> = (0..50)
        .map(|n| {
            let mut http2 =
                Http2 { send: http2.send.clone(), ended: tokio::spawn(async { Ok(()) }) };
            tokio::spawn(async move { http2.get(&format!("http://gw/{n}")).await.status })
        })
        .collect();
    for asked in asking {
        assert_eq!(asked.await.unwrap(), 200);
    }
    assert_eq!(upstream.count(), 51);
    assert_eq!(gw.metric("turnpike_connections"), 1);
    gw.until("turnpike_requests_under_way", 0).await;
}

#[tokio::test]
async fn bounds_of_the_head_hold_on_http2() {
    let upstream = Upstream::echo().await;
    let gw = gateway(&upstream, "", "").await;
    let mut http2 = Http2::connect(gw.addr).await;
    let mut many = Request::get("http://gw/");
    for n in 0..101 {
        many = many.header(format!("x-{n}"), "1");
    }
    let answer = http2.ask(many.body(()).unwrap(), &[], None).await.unwrap();
    assert_eq!((answer.status, answer.code()), (431, "head_too_large".into()));
    let long = format!("http://gw/{}", "a".repeat(9_000));
    assert_eq!(http2.get(&long).await.status, 414);
    // The library answers before there is a request.
    let large = Request::get("http://gw/").header("x", "a".repeat(20_000)).body(()).unwrap();
    assert_eq!(http2.ask(large, &[], None).await.unwrap().status, 431);
    assert_eq!(http2.get("http://gw/").await.status, 200);
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn more_requests_than_the_gateway_takes_are_told_to_come_back() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let toml = format!("[proxy]\nrequests_max = 2\n{KEYLESS}");
    let setup = Setup::new(&with_target(&toml, listener.local_addr().unwrap()));
    let gw = Gateway::start(setup).await;
    let mut http2 = Http2::connect(gw.addr).await;
    let mut held = Vec::new();
    let mut upstreams = Vec::new();
    for _ in 0..2 {
        let request = Request::get("http://gw/").body(()).unwrap();
        held.push(http2.send.clone().send_request(request, true).unwrap().0);
        let mut upstream = Wire::new(listener.accept().await.unwrap().0);
        upstream.head().await.unwrap();
        upstreams.push(upstream);
    }
    let answer = http2.get("http://gw/").await;
    assert_eq!((answer.status, answer.code()), (503, "overloaded".into()));
    assert_eq!(answer.header("retry-after"), Some("1"));
    for (answer, upstream) in held.into_iter().zip(&mut upstreams) {
        upstream.send(ok(b"late")).await;
        let (parts, body) = answer.await.unwrap().into_parts();
        assert_eq!(parts.status, 200);
        assert_eq!(read(body).await.unwrap().0, b"late");
    }
    gw.until("turnpike_requests_under_way", 0).await;
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
async fn a_panic_costs_its_stream_and_no_other_of_the_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fuse = Arc::new(Fuse::default());
    let mut setup = Setup::new(&with_target(KEYLESS, listener.local_addr().unwrap()));
    setup.clock = Arc::clone(&fuse) as Arc<dyn Clock>;
    let gw = Gateway::start(setup).await;
    let mut http2 = Http2::connect(gw.addr).await;
    let request = Request::get("http://gw/").body(()).unwrap();
    let other = http2.send.clone().send_request(request, true).unwrap().0;
    let mut upstream = Wire::new(listener.accept().await.unwrap().0);
    upstream.head().await.unwrap();
    fuse.0.store(2, Ordering::SeqCst);
    let answer = http2.get("http://gw/../").await;
    assert_eq!((answer.status, answer.code()), (500, "internal".into()));
    upstream.send(ok(b"fine")).await;
    assert_eq!(read(other.await.unwrap().into_body()).await.unwrap().0, b"fine");
    gw.until("turnpike_panics_total", 1).await;
}

#[tokio::test]
async fn a_client_that_resets_a_stream_cancels_its_upstream_request() {
    let mut upstream = Upstream::start(|_| Reply::Hang(Vec::new())).await;
    let gw = gateway(&upstream, "", "").await;
    let http2 = Http2::connect(gw.addr).await;
    let request = Request::get("http://gw/").body(()).unwrap();
    let (answer, mut stream) = http2.send.clone().send_request(request, true).unwrap();
    while upstream.count() == 0 {
        tokio::task::yield_now().await;
    }
    stream.send_reset(h2::Reason::CANCEL);
    drop(answer);
    upstream.gone().await;
    gw.until("turnpike_requests_under_way", 0).await;
}

#[tokio::test]
async fn an_answer_that_is_not_taken_is_cut_off_and_others_are_not() {
    let large = vec![b'x'; 1 << 20];
    let upstream = Upstream::start(move |message| match message.target() {
        "/large" => Reply::Keep(ok(&large)),
        _ => Reply::Keep(ok(b"small")),
    })
    .await;
    let gw = gateway(&upstream, "", "idle_timeout_ms = 200").await;
    let stream = tokio::net::TcpStream::connect(gw.addr).await.unwrap();
    let mut http2 = Http2::with(stream, Builder::new().initial_window_size(1_000)).await;
    let request = Request::get("http://gw/large").body(()).unwrap();
    let (answer, _) = http2.send.clone().send_request(request, true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    // Nothing of it is released, so no more may come.
    let ended = async {
        loop {
            match body.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error.is_reset(),
                None => return false,
            }
        }
    };
    assert!(tokio::time::timeout(LONG, ended).await.unwrap(), "the stream is reset");
    gw.until("turnpike_clients_cut_off_total{reason=\"untaken\"}", 1).await;
    assert_eq!(http2.get("http://gw/small").await.body, b"small");
    gw.until("turnpike_requests_under_way", 0).await;
}

#[tokio::test]
async fn shutdown_says_goodbye_and_answers_what_is_under_way() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gw = Gateway::keyless(listener.local_addr().unwrap(), "").await;
    let busy = Http2::connect(gw.addr).await;
    let request = Request::post("http://gw/").body(()).unwrap();
    let (answer, mut body) = busy.send.clone().send_request(request, false).unwrap();
    let mut upstream = Wire::new(listener.accept().await.unwrap().0);
    upstream.head().await.unwrap();
    let mut idle = Http2::connect(gw.addr).await;
    assert_eq!(idle.get("http://gw/../").await.status, 400);
    gw.shutdown.send(true).unwrap();
    assert_eq!(idle.goodbye().await, None, "in good order");
    assert!(!gw.task.is_finished());
    body.send_data(Bytes::from_static(b"more"), true).unwrap();
    upstream.send(ok(b"late")).await;
    assert_eq!(read(answer.await.unwrap().into_body()).await.unwrap().0, b"late");
    assert_eq!(busy.goodbye().await, None);
    tokio::time::timeout(LONG, gw.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_told_and_closed() {
    let upstream = Upstream::echo().await;
    let gw = gateway(&upstream, "keep_alive_ms = 100", "").await;
    let mut http2 = Http2::connect(gw.addr).await;
    assert_eq!(http2.get("http://gw/").await.status, 200);
    assert_eq!(http2.goodbye().await, None, "in good order");
    gw.until("turnpike_connections", 0).await;
}

#[tokio::test]
async fn refused_trailers_of_a_stream_do_no_harm() {
    let upstream = Upstream::echo().await;
    let gw = gateway(&upstream, "", "").await;
    let mut http2 = Http2::connect(gw.addr).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("content-length", "1".parse().unwrap());
    trailers.insert("host", "elsewhere".parse().unwrap());
    let request = Request::post("http://gw/").body(()).unwrap();
    let answer = http2.ask(request, &[b"x"], Some(trailers)).await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"x".as_slice()));
    let seen = upstream.last();
    let text = String::from_utf8_lossy(&seen.bytes).into_owned();
    assert!(seen.whole && text.ends_with("\r\n0\r\n\r\n"), "{text}");
}
