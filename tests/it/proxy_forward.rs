use crate::proxy_support::{Gateway, Reply, Setup, Upstream, ok, with_target};
use crate::raw_http::{Wire, ask, get};

#[tokio::test]
async fn hop_by_hop_headers_stop_here_both_ways() {
    let upstream = Upstream::start(|_| {
        Reply::Keep(
            b"HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\n\
              Proxy-Authenticate: Basic\r\nTrailer: X-T\r\nUpgrade: h2c\r\nX-End: 1\r\nContent-Length: 2\r\n\r\nhi"
                .to_vec(),
        )
    })
    .await;
    let gw = Gateway::keyless(upstream.addr, "").await;
    let answer = get(
        gw.addr,
        "/",
        "Connection: X-Private, Upgrade, HTTP2-Settings\r\nX-Private: 1\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\
         Keep-Alive: 1\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\nProxy-Authorization: Basic x\r\nX-End: 1\r\n",
    )
    .await;
    assert_eq!((answer.status(), answer.text()), (200, "hi"));
    assert_eq!(answer.header("x-end"), Some("1"));
    for name in ["connection", "keep-alive", "x-hop", "proxy-authenticate", "trailer", "upgrade"] {
        assert_eq!(answer.header(name), None, "{name} came down");
    }
    let seen = upstream.last();
    assert_eq!(seen.header("x-end"), Some("1"));
    // Said of the gateway's own connection: it takes trailers, since the client does.
    assert_eq!((seen.header("te"), seen.header("connection")), (Some("trailers"), Some("te")));
    let hops = "x-private upgrade http2-settings keep-alive proxy-connection proxy-authorization";
    for name in hops.split(' ') {
        assert_eq!(seen.header(name), None, "{name} went up");
    }
}

#[tokio::test]
async fn headers_that_are_ours_cannot_be_sent_or_removed_by_a_client() {
    let upstream = Upstream::echo().await;
    let gw = Gateway::keyless(upstream.addr, "").await;
    let answer = get(
        gw.addr,
        "/",
        "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\n\
         X-Real-IP: 6.6.6.6\r\nX-Turnpike-Credential: 1\r\nX-Turnpike-User: 1\r\nProxy: x\r\n\
         Connection: Host, X-Forwarded-For, X-Request-Id\r\ntraceparent: 00-aa-bb-01\r\n",
    )
    .await;
    assert_eq!(answer.status(), 200);
    let seen = upstream.last();
    let host = upstream.addr.to_string();
    assert_eq!(seen.all("host").collect::<Vec<_>>(), [host.as_str()]);
    assert_eq!(seen.all("x-forwarded-for").collect::<Vec<_>>(), ["127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto").collect::<Vec<_>>(), ["http"]);
    assert_eq!(seen.all("x-forwarded-host").collect::<Vec<_>>(), ["gw"]);
    assert_eq!(seen.header("traceparent"), Some("00-aa-bb-01"));
    for name in ["forwarded", "x-real-ip", "x-turnpike-credential", "x-turnpike-user", "proxy"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_request_id_is_made_or_taken_over() {
    let upstream = Upstream::echo().await;
    let gw = Gateway::keyless(upstream.addr, "").await;
    let answer = get(gw.addr, "/", "").await;
    let made = answer.header("x-request-id").unwrap().to_owned();
    assert_eq!(upstream.last().header("x-request-id"), Some(made.as_str()));
    let answer = get(gw.addr, "/", "X-Request-Id: mine-1\r\n").await;
    assert_eq!(answer.header("x-request-id"), Some("mine-1"));
    assert_eq!(upstream.last().header("x-request-id"), Some("mine-1"));
    for odd in
        ["X-Request-Id: a b\r\n", "X-Request-Id: a\r\nX-Request-Id: b\r\n", "X-Request-Id: \"\r\n"]
    {
        let answer = get(gw.addr, "/", odd).await;
        let id = answer.header("x-request-id").unwrap();
        assert!(id != made && id.len() == 32, "{odd:?} gave {id}");
        assert_eq!(upstream.last().all("x-request-id").collect::<Vec<_>>(), [id]);
    }
}

#[tokio::test]
async fn the_upstream_gets_the_path_that_was_matched() {
    let upstream = Upstream::echo().await;
    let gw = Gateway::keyless(upstream.addr, "").await;
    for (sent, expect) in [
        ("/a/./b/../c", "/a/c"),
        ("//a///b/", "/a/b/"),
        ("/%61%2Db?q=%61%2f&x=//../", "/a-b?q=%61%2f&x=//../"),
        ("/%c3%a9", "/%C3%A9"),
        ("/a%20b;v=1", "/a%20b;v=1"),
        ("/a%23b%3Fc", "/a%23b%3Fc"),
        ("/?", "/"),
        ("/x?a=%zz&b='{}|", "/x?a=%zz&b='{}|"),
    ] {
        assert_eq!(get(gw.addr, sent, "").await.status(), 200, "{sent}");
        let target = upstream.last().target().to_owned();
        assert!(target == expect || target == format!("{expect}?"), "{sent} became {target}");
    }
}

#[tokio::test]
async fn listen_paths_base_paths_and_encoded_slashes() {
    let upstream = Upstream::echo().await;
    let toml = "[[apis]]\nid = \"cut\"\nlisten_path = \"/cut/\"\nkeyless = true\ntargets = [\"$UP/base/\"]\n\
                [[apis]]\nid = \"whole\"\nlisten_path = \"/whole/\"\nkeyless = true\nstrip_listen_path = false\n\
                keep_encoded_slash = true\npreserve_host = true\ntargets = [\"$UP\"]\n\
                [[apis]]\nid = \"host\"\nlisten_path = \"/\"\nhosts = [\"b.example\"]\nkeyless = true\ntargets = [\"$UP/b\"]\n";
    let gw = Gateway::start(Setup::new(&with_target(toml, upstream.addr))).await;
    for (sent, expect) in [
        ("/cut/x?y", "/base/x?y"),
        ("/cut", "/base/"),
        ("/cut/", "/base/"),
        ("/whole/x", "/whole/x"),
        ("/whole/a%2fb", "/whole/a%2Fb"),
        ("/cut/../whole/x", "/whole/x"),
    ] {
        assert_eq!(get(gw.addr, sent, "").await.status(), 200, "{sent}");
        assert_eq!(upstream.last().target(), expect, "{sent}");
    }
    assert_eq!(upstream.last().header("host"), Some("gw"), "preserve_host");
    let refused = get(gw.addr, "/cut/a%2fb", "").await;
    assert_eq!((refused.status(), refused.code()), (400, "ambiguous_path".into()));
    let nowhere = get(gw.addr, "/other", "").await;
    assert_eq!((nowhere.status(), nowhere.code()), (404, "no_route".into()));
    let other = ask(gw.addr, "GET /x HTTP/1.1\r\nHost: B.example:8080\r\n\r\n").await;
    assert_eq!((other.status(), upstream.last().target()), (200, "/b/x"));
}

#[tokio::test]
async fn bodies_keep_their_framing_and_trailers_go_on() {
    let upstream = Upstream::start(|message| {
        let chunks = "4\r\nwiki\r\n0\r\nX-Trailer: 1\r\nContent-Length: 9\r\n\r\n";
        match message.target() {
            "/chunks" => Reply::Keep(
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Trailer\r\n\r\n{chunks}").into(),
            ),
            "/close" => Reply::Close(b"HTTP/1.1 200 OK\r\n\r\nto the end".to_vec()),
            "/old" => Reply::Close(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold".to_vec()),
            _ => Reply::Keep(ok(&message.body)),
        }
    })
    .await;
    let gw = Gateway::keyless(upstream.addr, "").await;
    // Up: a length stays a length, chunks stay chunks, nothing stays nothing.
    let head = "POST / HTTP/1.1\r\nHost: gw\r\n";
    ask(gw.addr, format!("{head}Content-Length: 5\r\n\r\nhello")).await;
    assert_eq!(upstream.last().header("content-length"), Some("5"));
    ask(gw.addr, format!("{head}Content-Length: 0\r\n\r\n")).await;
    assert_eq!(upstream.last().header("content-length"), Some("0"));
    let chunks = "Transfer-Encoding: chunked\r\nTrailer: X-T, Host, X-Turnpike-User\r\n\r\n5;ext=1\r\nhello\r\n0\r\n\
                  X-T: told\r\nX-U: untold\r\nHost: evil\r\nX-Turnpike-User: evil\r\nX-Forwarded-For: evil\r\n\r\n";
    for method in ["POST", "GET", "DELETE"] {
        let answer = ask(gw.addr, format!("{method} / HTTP/1.1\r\nHost: gw\r\n{chunks}")).await;
        let seen = upstream.last();
        assert_eq!(
            (answer.text(), seen.body.as_slice()),
            ("hello", b"hello".as_slice()),
            "{method}"
        );
        assert_eq!(seen.header("transfer-encoding"), Some("chunked"));
        let text = String::from_utf8_lossy(&seen.bytes).into_owned();
        assert!(text.ends_with("\r\n0\r\nx-t: told\r\n\r\n"), "{text}");
        assert!(!text.contains("evil") && !text.contains("untold"), "{text}");
    }
    get(gw.addr, "/", "").await;
    let seen = upstream.last();
    assert_eq!((seen.header("content-length"), seen.header("transfer-encoding")), (None, None));
    // Down.
    let answer = get(gw.addr, "/chunks", "TE: trailers\r\n").await;
    assert_eq!((answer.text(), answer.header("transfer-encoding")), ("wiki", Some("chunked")));
    let text = String::from_utf8_lossy(&answer.bytes).into_owned();
    assert!(answer.whole && text.ends_with("\r\n0\r\nx-trailer: 1\r\n\r\n"), "{text}");
    let answer = get(gw.addr, "/chunks", "").await;
    let text = String::from_utf8_lossy(&answer.bytes).into_owned();
    assert!(answer.whole && text.ends_with("\r\n0\r\n\r\n"), "nobody asked for them: {text}");
    let answer = get(gw.addr, "/close", "").await;
    assert_eq!((answer.text(), answer.whole), ("to the end", true));
    assert_eq!(get(gw.addr, "/old", "").await.text(), "old");
    let old = ask(gw.addr, "GET /chunks HTTP/1.0\r\nHost: gw\r\n\r\n").await;
    assert_eq!((old.text(), old.header("transfer-encoding")), ("wiki", None));
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let upstream = Upstream::start(|message| {
        Reply::Keep(match message.target() {
            "/204" => b"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n".to_vec(),
            "/304" => b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 9\r\n\r\n".to_vec(),
            "/chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            "/early" => b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n".to_vec(),
        })
    })
    .await;
    let gw = Gateway::keyless(upstream.addr, "").await;
    // All on one connection: a body too much would show in the next answer.
    let mut wire = Wire::connect(gw.addr).await;
    for (method, target, status, length) in [
        ("HEAD", "/", 200, Some("1234")),
        ("GET", "/204", 204, None),
        // Allowed there, and taken off by hyper.
        ("GET", "/304", 304, None),
        ("HEAD", "/chunked", 200, None),
        ("GET", "/early", 200, Some("0")),
        ("HEAD", "/", 200, Some("1234")),
        ("HEAD", "/%", 400, None),
        ("GET", "/204", 204, None),
    ] {
        wire.send(format!("{method} {target} HTTP/1.1\r\nHost: gw\r\n\r\n")).await;
        let answer = wire.answer_to(method).await;
        assert_eq!(answer.status(), status, "{method} {target}");
        if status != 400 {
            assert_eq!(answer.header("content-length"), length, "{method} {target}");
        }
    }
    assert_eq!(upstream.count(), 7);
}

#[tokio::test]
async fn expect_100_continue_is_answered_once_the_body_is_wanted() {
    let upstream = Upstream::echo().await;
    let gw = Gateway::keyless(upstream.addr, "body_bytes_max = 10").await;
    let mut wire = Wire::connect(gw.addr).await;
    let head = "POST / HTTP/1.1\r\nHost: gw\r\nExpect: 100-continue\r\n";
    wire.send(format!("{head}Content-Length: 5\r\n\r\n")).await;
    assert_eq!(wire.head().await.unwrap().status(), 100);
    wire.send("hello").await;
    assert_eq!(wire.answer().await.text(), "hello");
    assert_eq!(upstream.last().header("expect"), None);
    // Refused without being told to go on.
    wire.send(format!("{head}Content-Length: 11\r\n\r\n")).await;
    let answer = wire.head().await.unwrap();
    assert_eq!((answer.status(), answer.header("connection")), (413, Some("close")));
}

#[tokio::test]
async fn bodies_are_bounded() {
    let upstream = Upstream::echo().await;
    let gw = Gateway::keyless(upstream.addr, "body_bytes_max = 10").await;
    let head = "POST / HTTP/1.1\r\nHost: gw\r\n";
    assert_eq!(
        ask(gw.addr, format!("{head}Content-Length: 10\r\n\r\n0123456789")).await.status(),
        200
    );
    let answer = ask(gw.addr, format!("{head}Content-Length: 11\r\n\r\n0123456789a")).await;
    assert_eq!((answer.status(), answer.code()), (413, "body_too_large".into()));
    assert_eq!(upstream.count(), 1);
    let chunks = "Transfer-Encoding: chunked\r\n\r\n8\r\n01234567\r\n";
    let answer = ask(gw.addr, format!("{head}{chunks}8\r\n01234567\r\n0\r\n\r\n")).await;
    assert_eq!((answer.status(), answer.code()), (413, "body_too_large".into()));
    assert!(
        upstream.seen().iter().filter(|seen| seen.whole).count() == 1,
        "no second whole request"
    );
    assert_eq!(ask(gw.addr, format!("{head}{chunks}0\r\n\r\n")).await.status(), 200);
}

#[tokio::test]
async fn a_large_body_streams_both_ways_with_back_pressure() {
    let (size, piece) = (64 * 1024 * 1024_usize, vec![b'x'; 1024 * 1024]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gw = Gateway::keyless(listener.local_addr().unwrap(), "body_bytes_max = 100000000").await;
    let mut client = Wire::connect(gw.addr).await;
    let head = format!("POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: {size}\r\n\r\n");
    client.send(head).await;
    let mut upstream = Wire::new(listener.accept().await.unwrap().0);
    upstream.head().await.unwrap();
    // The upstream reads nothing: the client gets rid of what fits into buffers, and no more.
    let mut sent = 0;
    let blocked = std::time::Duration::from_millis(300);
    while let Ok(n) =
        tokio::time::timeout(blocked, tokio::io::AsyncWriteExt::write(&mut client.stream, &piece))
            .await
    {
        sent += n.unwrap();
    }
    assert!(sent < size / 2, "{sent} bytes went into memory");
    let (mut up, mut down) = (upstream.stream.into_split(), client.stream.into_split());
    let upload = tokio::spawn(async move {
        while sent < size {
            let n = piece.len().min(size - sent);
            tokio::io::AsyncWriteExt::write_all(&mut down.1, &piece[..n]).await.unwrap();
            sent += n;
        }
        down
    });
    let mut buffer = vec![0; 1 << 20];
    let mut got = 0;
    while got < size {
        got += tokio::io::AsyncReadExt::read(&mut up.0, &mut buffer).await.unwrap();
    }
    let mut down = upload.await.unwrap();
    // And back: the client reads nothing.
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut up.1, head.as_bytes()).await.unwrap();
    let mut sent = 0;
    while let Ok(n) =
        tokio::time::timeout(blocked, tokio::io::AsyncWriteExt::write(&mut up.1, &buffer)).await
    {
        sent += n.unwrap();
    }
    assert!(sent < size / 2, "{sent} bytes went into memory");
    let download = tokio::spawn(async move {
        while sent < size {
            let n = buffer.len().min(size - sent);
            tokio::io::AsyncWriteExt::write_all(&mut up.1, &buffer[..n]).await.unwrap();
            sent += n;
        }
        up
    });
    let (mut buffer, mut got) = (vec![0; 1 << 20], 0);
    while got < size {
        let n = tokio::io::AsyncReadExt::read(&mut down.0, &mut buffer).await.unwrap();
        assert!(0 < n, "the answer ended after {got} bytes");
        got += n;
    }
    download.await.unwrap();
}

#[tokio::test]
async fn targets_take_turns_and_connections_are_reused() {
    let (a, b) = (Upstream::echo().await, Upstream::echo().await);
    let toml = format!(
        "[[apis]]\nid = \"a\"\nlisten_path = \"/\"\nkeyless = true\ntargets = [\"http://{}\", \"http://{}\"]\nhealth = {{ every_ms = 0 }}\n",
        a.addr, b.addr
    );
    let gw = Gateway::start(Setup::new(&toml)).await;
    let mut wire = Wire::connect(gw.addr).await;
    for _ in 0..10 {
        wire.send("GET / HTTP/1.1\r\nHost: gw\r\n\r\n").await;
        assert_eq!(wire.answer().await.status(), 200);
    }
    assert_eq!((a.count(), b.count()), (5, 5));
    for mut upstream in [a, b] {
        let mut connections = 0;
        while upstream.events.try_recv().is_ok() {
            connections += 1;
        }
        assert_eq!(connections, 1, "one connection serves one request at a time");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::start(|message| Reply::Keep(ok(message.target().as_bytes()))).await;
    let gw = Gateway::keyless(upstream.addr, "").await;
    let mut wire = Wire::connect(gw.addr).await;
    let requests: String =
        (0..40).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: gw\r\n\r\n")).collect();
    wire.send(requests).await;
    for n in 0..40 {
        assert_eq!(wire.answer().await.text(), format!("/{n}"));
    }
}

#[tokio::test]
async fn what_two_parsers_might_read_in_two_ways_does_not_come_down() {
    let upstream = Upstream::start(|message| {
        Reply::Close(match message.target() {
            "/gzip" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx".to_vec(),
            "/both" => b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n".to_vec(),
            "/lengths" => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi".to_vec(),
            "/same" => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi".to_vec(),
            "/switch" => b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_vec(),
            _ => b"garbage\r\n\r\n".to_vec(),
        })
    })
    .await;
    let gw = Gateway::keyless(upstream.addr, "").await;
    for target in ["/gzip", "/lengths", "/switch", "/garbage"] {
        let answer = get(gw.addr, target, "").await;
        assert_eq!((answer.status(), answer.code()), (502, "upstream_broken".into()), "{target}");
    }
    let both = get(gw.addr, "/both", "").await;
    assert_eq!((both.text(), both.header("content-length")), ("hi", None));
    let same = get(gw.addr, "/same", "").await;
    assert_eq!(same.all("content-length").collect::<Vec<_>>(), ["2"]);
}
