use crate::http2_client::{Http2, fields, frame, preface};
use crate::proxy_support::{Gateway, Reply, Setup, Upstream, with_target};
use crate::raw_http::{LONG, Wire};

const KEYLESS: &str = "[[apis]]\nid = \"a\"\nlisten_path = \"/\"\nkeyless = true\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const GOAWAY: u8 = 7;

/// What came back for the one request of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    /// A status, where it is one of the static table's (RFC 7541, appendix A).
    Status(u16),
    /// The stream was reset, or the connection ended, before an answer.
    Refused,
}

/// Sends bytes after a preface, reads frames until one tells what became of it.
async fn ask(gw: &Gateway, bytes: &[u8]) -> Got {
    let mut wire = Wire::connect(gw.addr).await;
    wire.send([preface().as_slice(), bytes].concat()).await;
    loop {
        let Some((kind, _, payload)) = wire.frame().await else { return Got::Refused };
        match (kind, payload.first()) {
            (1, Some(0x88)) => return Got::Status(200),
            (1, Some(0x8c)) => return Got::Status(400),
            (1, Some(0x8d)) => return Got::Status(404),
            (1, first) => panic!("another status: {first:?}"),
            (RST_STREAM | GOAWAY, _) => return Got::Refused,
            _ => {}
        }
    }
}

const BASE: &[(&str, &str)] =
    &[(":method", "GET"), (":scheme", "http"), (":authority", "gw"), (":path", "/x")];
const BASE_POST: &[(&str, &str)] =
    &[(":method", "POST"), (":scheme", "http"), (":authority", "gw"), (":path", "/x")];
/// Flags of HEADERS: the list ends, and with END the stream too.
const END: u8 = 5;
const OPEN: u8 = 4;

/// Heads that no library sends, and what becomes of each.
#[expect(clippy::too_many_lines, reason = "a table")]
#[tokio::test]
async fn heads_that_could_be_read_in_two_ways_do_not_go_on() {
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Got, Option<&'a str>);
    let m = (":method", "GET");
    let s = (":scheme", "http");
    let a = (":authority", "gw");
    let p = (":path", "/x");
    let line = Some("GET /x HTTP/1.1");
    let cases: &[Case<'_>] = &[
        ("plain", BASE, Got::Status(200), line),
        ("a Host that agrees", &[m, s, a, p, ("host", "gw")], Got::Status(200), line),
        ("a Host alone", &[m, s, p, ("host", "gw")], Got::Status(200), line),
        ("a scheme of https in front", &[m, (":scheme", "https"), a, p], Got::Status(200), line),
        ("a Host that differs", &[m, s, a, p, ("host", "other")], Got::Status(400), None),
        ("two Hosts", &[m, s, a, p, ("host", "gw"), ("host", "gw")], Got::Status(400), None),
        ("no host at all", &[m, s, p], Got::Status(400), None),
        ("another scheme", &[m, (":scheme", "ftp"), a, p], Got::Status(400), None),
        ("a user in the authority", &[m, s, (":authority", "u@gw"), p], Got::Status(400), None),
        ("two authorities", &[m, s, a, (":authority", "b"), p], Got::Refused, None),
        ("a space in the authority", &[m, s, (":authority", "g w"), p], Got::Refused, None),
        ("no path", &[m, s, a], Got::Refused, None),
        ("an empty path", &[m, s, a, (":path", "")], Got::Refused, None),
        ("two paths", &[m, s, a, p, (":path", "/y")], Got::Refused, None),
        ("a path without a slash", &[m, s, a, (":path", "x")], Got::Refused, None),
        ("an asterisk", &[(":method", "OPTIONS"), s, a, (":path", "*")], Got::Status(400), None),
        ("a request in the path", &[m, s, a, (":path", "/ HTTP/1.1\r\nX: y")], Got::Refused, None),
        ("a space in the path", &[m, s, a, (":path", "/a b")], Got::Refused, None),
        ("an absolute path", &[m, s, a, (":path", "http://other/x")], Got::Refused, None),
        ("dots in the path", &[m, s, a, (":path", "/a/../../x")], Got::Status(400), None),
        ("no method", &[s, a, p], Got::Refused, None),
        (
            "a request in the method",
            &[(":method", "GET / HTTP/1.1\r\nX:"), s, a, p],
            Got::Refused,
            None,
        ),
        ("a space in the method", &[(":method", "GET /y"), s, a, p], Got::Refused, None),
        ("TRACE", &[(":method", "TRACE"), s, a, p], Got::Status(400), None),
        ("CONNECT", &[(":method", "CONNECT"), a], Got::Status(400), None),
        (
            "CONNECT to a protocol",
            &[(":method", "CONNECT"), (":protocol", "websocket"), s, a, p],
            Got::Refused,
            None,
        ),
        ("an unknown pseudo header", &[m, s, a, p, (":x", "1")], Got::Refused, None),
        ("a status in a request", &[m, s, a, p, (":status", "200")], Got::Refused, None),
        ("a pseudo header after a field", &[m, s, a, ("x", "1"), p], Got::Refused, None),
        ("an upper case name", &[m, s, a, p, ("X-Upper", "1")], Got::Refused, None),
        ("a colon in a name", &[m, s, a, p, ("x:y", "1")], Got::Refused, None),
        ("a space in a name", &[m, s, a, p, ("x y", "1")], Got::Refused, None),
        ("an empty name", &[m, s, a, p, ("", "1")], Got::Refused, None),
        ("a line feed in a value", &[m, s, a, p, ("x", "1\nhost: b")], Got::Refused, None),
        ("a carriage return in a value", &[m, s, a, p, ("x", "1\r\nhost: b")], Got::Refused, None),
        ("a zero byte in a value", &[m, s, a, p, ("x", "1\0")], Got::Refused, None),
        ("Connection", &[m, s, a, p, ("connection", "close")], Got::Refused, None),
        ("Transfer-Encoding", &[m, s, a, p, ("transfer-encoding", "chunked")], Got::Refused, None),
        ("Upgrade", &[m, s, a, p, ("upgrade", "h2c")], Got::Refused, None),
        ("Keep-Alive", &[m, s, a, p, ("keep-alive", "1")], Got::Refused, None),
        ("Proxy-Connection", &[m, s, a, p, ("proxy-connection", "close")], Got::Refused, None),
        ("TE other than trailers", &[m, s, a, p, ("te", "gzip")], Got::Refused, None),
        (
            "two lengths",
            &[m, s, a, p, ("content-length", "1"), ("content-length", "2")],
            Got::Refused,
            None,
        ),
        ("a length and no body", &[m, s, a, p, ("content-length", "5")], Got::Refused, None),
        ("no length that can be read", &[m, s, a, p, ("content-length", "+0")], Got::Refused, None),
    ];
    for (what, head, got, line) in cases {
        let upstream = Upstream::echo().await;
        let gw = Gateway::keyless(upstream.addr, "").await;
        assert_eq!(ask(&gw, &frame(HEADERS, END, 1, &fields(head))).await, *got, "{what}");
        let seen = upstream.seen();
        assert_eq!(seen.iter().map(|seen| seen.first.as_str()).next(), *line, "{what}");
        assert!(seen.len() < 2 && seen.iter().all(|seen| seen.all("host").count() == 1), "{what}");
    }
}

/// Bodies that are not as long as they say, and frames where none belong.
#[expect(clippy::too_many_lines, reason = "a table")]
#[tokio::test]
async fn bodies_and_frames_that_do_not_add_up_leave_no_whole_request() {
    let length = |n| [BASE_POST, &[("content-length", n)]].concat();
    let (five, none) = (fields(&length("5")), fields(BASE_POST));
    let data = |flags, text: &str| frame(DATA, flags, 1, text.as_bytes());
    let head = |block: &[u8], flags| frame(HEADERS, flags, 1, block);
    let trailers = fields(&[("x-sum", "1")]);
    type Case<'a> = (&'a str, Vec<Vec<u8>>, Got, Option<&'a str>);
    let cases: &[Case<'_>] = &[
        (
            "just as long",
            vec![head(&five, OPEN), data(1, "hello")],
            Got::Status(200),
            Some("hello"),
        ),
        (
            "no length",
            vec![head(&none, OPEN), data(0, "he"), data(1, "llo")],
            Got::Status(200),
            Some("hello"),
        ),
        (
            "an empty end",
            vec![head(&none, OPEN), data(0, "hello"), data(1, "")],
            Got::Status(200),
            Some("hello"),
        ),
        (
            "padded",
            vec![head(&five, OPEN), frame(DATA, 1 | 8, 1, b"\x03hello\0\0\0")],
            Got::Status(200),
            Some("hello"),
        ),
        (
            "trailers",
            vec![head(&none, OPEN), data(0, "hello"), frame(HEADERS, END, 1, &trailers)],
            Got::Status(200),
            Some("hello"),
        ),
        ("shorter than told", vec![head(&five, OPEN), data(1, "hel")], Got::Refused, None),
        ("longer than told", vec![head(&five, OPEN), data(1, "hello!")], Got::Refused, None),
        (
            "longer, in pieces",
            vec![head(&five, OPEN), data(0, "hello"), data(1, "!")],
            Got::Refused,
            None,
        ),
        ("ended, and a length", vec![head(&five, END)], Got::Refused, None),
        (
            "pseudo headers in trailers, which are dropped",
            vec![
                head(&none, OPEN),
                data(0, "a"),
                frame(HEADERS, END, 1, &fields(&[(":path", "/y")])),
            ],
            Got::Status(200),
            Some("a"),
        ),
        (
            "trailers that do not end",
            vec![head(&none, OPEN), data(0, "a"), frame(HEADERS, OPEN, 1, &trailers)],
            Got::Refused,
            None,
        ),
        (
            "too much padding",
            vec![head(&five, OPEN), frame(DATA, 1 | 8, 1, b"\xffhello")],
            Got::Refused,
            None,
        ),
        ("data before a head", vec![data(1, "hello")], Got::Refused, None),
        ("data without a stream", vec![frame(DATA, 1, 0, b"hello")], Got::Refused, None),
        ("a head without a stream", vec![frame(HEADERS, END, 0, &none)], Got::Refused, None),
        ("a head on a stream of ours", vec![frame(HEADERS, END, 2, &none)], Got::Refused, None),
        (
            "a stream that depends on itself",
            vec![frame(HEADERS, END | 32, 1, &[&[0, 0, 0, 1, 7], none.as_slice()].concat())],
            Got::Refused,
            None,
        ),
        (
            "another frame inside a head",
            vec![frame(HEADERS, 1, 1, &none), frame(6, 0, 0, &[0; 8])],
            Got::Refused,
            None,
        ),
        ("a continuation of nothing", vec![frame(CONTINUATION, 4, 1, &none)], Got::Refused, None),
        (
            "a continuation elsewhere",
            vec![frame(HEADERS, 1, 1, &none), frame(CONTINUATION, 4, 3, &[])],
            Got::Refused,
            None,
        ),
        ("a promise", vec![frame(5, 4, 1, &[0, 0, 0, 2])], Got::Refused, None),
        ("a window update of nothing", vec![frame(8, 0, 0, &[0; 4])], Got::Refused, None),
        (
            "a window beyond all bounds",
            vec![
                frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
                frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            ],
            Got::Refused,
            None,
        ),
        ("settings of half a setting", vec![frame(4, 0, 0, &[0; 5])], Got::Refused, None),
        ("a ping of seven bytes", vec![frame(6, 0, 0, &[0; 7])], Got::Refused, None),
        ("a frame too large", vec![frame(DATA, 0, 1, &[0; 20_000])], Got::Refused, None),
        (
            "no header block",
            vec![frame(HEADERS, END, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff])],
            Got::Refused,
            None,
        ),
        ("an index of nothing", vec![frame(HEADERS, END, 1, &[0xfe])], Got::Refused, None),
        (
            "a smuggled request",
            vec![head(&none, OPEN), data(1, "0\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n")],
            Got::Status(200),
            Some("0\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n"),
        ),
    ];
    for (what, frames, got, body) in cases {
        let upstream = Upstream::echo().await;
        let gw = Gateway::keyless(upstream.addr, "").await;
        assert_eq!(ask(&gw, &frames.concat()).await, *got, "{what}");
        let whole = upstream.seen().into_iter().filter(|seen| seen.whole);
        let whole: Vec<String> = whole.map(|seen| seen.text().to_owned()).collect();
        assert_eq!(whole, body.iter().copied().collect::<Vec<_>>(), "{what}");
    }
}

/// Sends a flood; says whether the gateway cut it off before its end, as `reason`.
async fn flood(proxy: &str, pieces: impl Iterator<Item = Vec<u8>>, reason: &str) -> bool {
    let upstream = Upstream::echo().await;
    let toml = format!("[proxy]\n{proxy}\n{KEYLESS}");
    let gw = Gateway::start(Setup::new(&with_target(&toml, upstream.addr))).await;
    let mut wire = Wire::connect(gw.addr).await;
    wire.send(preface()).await;
    let (mut from, mut to) = wire.stream.into_split();
    let reading = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    });
    let mut cut = false;
    for piece in pieces {
        if tokio::io::AsyncWriteExt::write_all(&mut to, &piece).await.is_err() {
            cut = true;
            break;
        }
    }
    tokio::time::timeout(LONG, reading).await.expect("the connection ends").unwrap();
    if !reason.is_empty() {
        gw.until(&format!("turnpike_clients_cut_off_total{{reason=\"{reason}\"}}"), 1).await;
    }
    // Whoever else there is is served.
    assert_eq!(Http2::connect(gw.addr).await.get("http://gw/").await.status, 200);
    gw.until("turnpike_requests_under_way", 0).await;
    cut
}

#[tokio::test]
async fn floods_of_frames_are_cut_off() {
    let head = fields(BASE);
    // Rapid reset (CVE-2023-44487).
    let resets = (0..200_000u32).map(|n| {
        let stream = 2 * n + 1;
        [frame(HEADERS, END, stream, &head), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    });
    flood("", resets, "").await;
    let slow = (0..200_000u32).map(|n| {
        let stream = 2 * n + 1;
        let open = frame(HEADERS, OPEN, stream, &head);
        [open, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    });
    flood("http2_resets_max = 5", slow, "flood").await;
    let ping = |_| frame(6, 0, 0, &[0; 8]);
    assert!(flood("", (0..1_000_000).map(ping), "flood").await, "pings");
    let settings = |_| frame(4, 0, 0, &[]);
    assert!(flood("", (0..1_000_000).map(settings), "flood").await, "settings");
    let priority = |_| frame(2, 0, 1, &[0, 0, 0, 0, 1]);
    assert!(flood("", (0..1_000_000).map(priority), "flood").await, "priorities");
    let unknown = |_| frame(77, 0, 1, &[]);
    assert!(flood("", (0..1_000_000).map(unknown), "flood").await, "unknown frames");
    let post = frame(HEADERS, OPEN, 1, &fields(BASE_POST));
    let empty = std::iter::once(post).chain((0..1_000_000).map(|_| frame(DATA, 0, 1, &[])));
    assert!(flood("", empty, "").await, "empty data");
    // CONTINUATION (CVE-2024-27316): a header list without end, full or empty.
    for payload in [&head[..], &[]] {
        let open = frame(HEADERS, 1, 1, &head);
        let more = (0..1_000_000).map(|_| frame(CONTINUATION, 0, 1, payload));
        assert!(flood("", std::iter::once(open).chain(more), "").await, "continuations");
    }
}

/// A client that does not care how many streams it may have.
#[tokio::test]
async fn streams_beyond_the_bound_are_refused() {
    let upstream = Upstream::start(|_| Reply::Hang(Vec::new())).await;
    let toml = format!("[proxy]\nhttp2_streams_max = 2\n{KEYLESS}");
    let gw = Gateway::start(Setup::new(&with_target(&toml, upstream.addr))).await;
    let mut wire = Wire::connect(gw.addr).await;
    let heads = (0..5u32).map(|n| frame(HEADERS, END, 2 * n + 1, &fields(BASE)));
    wire.send([vec![preface()], heads.collect()].concat().concat()).await;
    for _ in 0..3 {
        let reason = loop {
            match wire.frame().await.expect("the connection goes on") {
                (RST_STREAM, _, reason) => break reason,
                (kind, ..) => assert!([4, 8].contains(&kind), "no answer: {kind}"),
            }
        };
        assert_eq!(reason, [0, 0, 0, 7], "REFUSED_STREAM: it may be tried again");
    }
    gw.until("turnpike_requests_under_way", 2).await;
    drop(wire);
    gw.until("turnpike_requests_under_way", 0).await;
    assert!(upstream.count() <= 2);
}

#[tokio::test]
async fn what_drips_in_has_its_deadline() {
    let proxy = "first_byte_timeout_ms = 100\nhead_timeout_ms = 200\nkeep_alive_ms = 400";
    let nothing = std::iter::empty;
    flood(proxy, nothing(), "").await;
    let upstream = Upstream::echo().await;
    let toml = format!("[proxy]\n{proxy}\n{KEYLESS}");
    let gw = Gateway::start(Setup::new(&with_target(&toml, upstream.addr))).await;
    let half = fields(BASE);
    type Case<'a> = (&'a str, Vec<u8>, Option<Vec<u8>>);
    let cases: &[Case<'_>] = &[
        ("nothing", Vec::new(), None),
        ("half a preface", b"PRI * HTTP/2.0\r\n".to_vec(), None),
        ("half a frame's head", [preface(), vec![0, 0]].concat(), None),
        (
            "half a header list",
            [preface(), frame(HEADERS, OPEN, 1, &half)[..20].to_vec()].concat(),
            None,
        ),
        (
            "a header list that goes on",
            [preface(), frame(HEADERS, 1, 1, &half)].concat(),
            Some(frame(CONTINUATION, 0, 1, &half[..10])),
        ),
        ("pings and no request", preface(), Some(frame(6, 0, 0, &[0; 8]))),
    ];
    for (what, first, drip) in cases {
        let mut wire = Wire::connect(gw.addr).await;
        wire.send(first).await;
        let ended = async {
            let mut buffer = [0; 4_096];
            loop {
                tokio::select! {
                    read = tokio::io::AsyncReadExt::read(&mut wire.stream, &mut buffer) => {
                        if !matches!(read, Ok(1..)) {
                            return;
                        }
                    }
                    () = tokio::time::sleep(std::time::Duration::from_millis(10)) => {}
                }
                if let Some(drip) = drip
                    && tokio::io::AsyncWriteExt::write_all(&mut wire.stream, drip).await.is_err()
                {
                    return;
                }
            }
        };
        tokio::time::timeout(LONG, ended).await.unwrap_or_else(|_| panic!("{what} goes on"));
    }
    assert_eq!(upstream.count(), 0);
}
