//! Cases of `http1_cases.toml`: the built binary, bytes over a socket, and an upstream that reads
//! strictly.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use toml::{Table, Value};

use crate::process::{Gateway, SECRET, read_answer, until};
use crate::strict_http::{Strict, next};

const CASES: &str = include_str!("http1_cases.toml");
const PROBE: &str = "GET /probe HTTP/1.1\r\nHost: gw\r\n\r\n";

/// A row of the table.
#[derive(Debug)]
struct Case {
    name: String,
    send: Vec<u8>,
    statuses: Vec<u16>,
    keeps: bool,
    saw: Vec<Strict>,
}

/// Rows of one of the table's lists.
fn cases(list: &str) -> Vec<Case> {
    let table: Table = CASES.parse().unwrap();
    let rows = table[list].as_array().unwrap().iter();
    rows.map(|row| {
        let words: Vec<&str> = row.as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let [name, send, outcome, saw @ ..] = &words[..] else { panic!("{words:?}") };
        let (statuses, end) = outcome.rsplit_once(' ').unwrap_or(("", *outcome));
        assert!(["keeps", "closes"].contains(&end), "{words:?}");
        Case {
            name: format!("{list}: {name}"),
            send: latin(&repeated(send)),
            statuses: statuses.split_whitespace().map(|code| code.parse().unwrap()).collect(),
            keeps: end == "keeps",
            saw: saw.iter().map(|text| request(text)).collect(),
        }
    })
    .collect()
}

/// One byte for each character.
fn latin(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
}

/// `<text*n>` as often as it says.
fn repeated(text: &str) -> String {
    let Some((before, rest)) = text.split_once('<') else { return text.to_owned() };
    let (inside, after) = rest.split_once('>').unwrap();
    let (piece, n) = inside.rsplit_once('*').unwrap();
    format!("{before}{}{}", piece.repeat(n.parse().unwrap()), repeated(after))
}

/// A request as the table writes it.
fn request(text: &str) -> Strict {
    let mut words = text.split(" | ");
    let (method, target) = words.next().unwrap().split_once(' ').unwrap();
    let mut made = Strict { method: method.into(), target: target.into(), ..Strict::default() };
    for word in words {
        let field = |text: &str| {
            let (name, value) = text.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        };
        match (word.strip_prefix("= "), word.strip_prefix("~ ")) {
            (Some(body), _) => made.body = latin(body),
            (_, Some(trailer)) => made.trailers.push(field(trailer)),
            _ => made.headers.push(field(word)),
        }
    }
    made
}

/// An upstream and what it was sent.
struct Recorder {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<Strict>>>,
    faults: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (seen, faults) =
            (Arc::<Mutex<Vec<Strict>>>::default(), Arc::<Mutex<Vec<_>>>::default());
        let made = Self { addr, seen: Arc::clone(&seen), faults: Arc::clone(&faults) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, faults) = (Arc::clone(&seen), Arc::clone(&faults));
                std::thread::spawn(move || record(stream, &seen, &faults));
            }
        });
        made
    }

    /// What it has seen since the last time, without what the gateway says of itself in every
    /// request.
    fn taken(&self) -> Vec<Strict> {
        assert_eq!(*self.faults.lock(), Vec::<String>::new());
        let mut seen = std::mem::take(&mut *self.seen.lock());
        for request in &mut seen {
            let own = |name: &str| request.header(name).unwrap_or("").to_owned();
            assert_eq!(own("host"), self.addr.to_string());
            assert_eq!(
                (own("x-forwarded-for"), own("x-forwarded-proto")),
                ("127.0.0.1".into(), "http".into())
            );
            assert_eq!(own("x-forwarded-host"), "gw");
            assert!(["1.0 turnpike", "1.1 turnpike"].contains(&own("via").as_str()));
            assert_eq!(own("x-request-id").len(), 32);
            let ours = [
                "host",
                "x-forwarded-for",
                "x-forwarded-proto",
                "x-forwarded-host",
                "via",
                "x-request-id",
            ];
            let before = request.headers.len();
            request.headers.retain(|(name, _)| !ours.contains(&name.as_str()));
            assert_eq!(before - request.headers.len(), ours.len(), "each of them once");
            // Between names the order says nothing (RFC 9110, 5.3).
            request.headers.sort_by(|(a, _), (b, _)| a.cmp(b));
        }
        seen
    }
}

fn record(mut stream: TcpStream, seen: &Mutex<Vec<Strict>>, faults: &Mutex<Vec<String>>) {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 16_384]);
    loop {
        match next(&bytes) {
            Ok(None) => match stream.read(&mut buffer) {
                Ok(n @ 1..) => bytes.extend_from_slice(&buffer[..n]),
                _ => return,
            },
            Ok(Some((request, length))) => {
                bytes.drain(..length);
                seen.lock().push(request);
                // Whoever asked may have gone.
                let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
            Err(fault) => return faults.lock().push(fault),
        }
    }
}

fn gateway(folder: &Path, upstream: SocketAddr, proxy: &str, api: &str) -> Gateway {
    let text = format!(
        "[proxy]\nlisten = [\"127.0.0.1:0\"]\n{proxy}\n\
         [admin]\nlisten = \"127.0.0.1:0\"\nsecret = \"{SECRET}\"\n\
         [[apis]]\nid = \"open\"\nlisten_path = \"/\"\nkeyless = true\nbody_bytes_max = 100000\n{api}\n\
         targets = [\"http://{upstream}\"]\n\
         [[apis]]\nid = \"a\"\nlisten_path = \"/api/\"\ntargets = [\"http://{upstream}\"]\n"
    );
    let file = folder.join("turnpike.toml");
    std::fs::write(&file, text).unwrap();
    Gateway::serve(&file, &[]).unwrap_or_else(|log| panic!("{log}"))
}

/// What the client gets; the reason where that is not as the case says.
fn speak(to: SocketAddr, case: &Case) -> Result<(), String> {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // It may be refused before all of it is sent.
    let _refused = stream.write_all(&case.send);
    let mut reader = BufReader::new(stream);
    let method = String::from_utf8_lossy(&case.send).split(' ').next().unwrap_or("").to_owned();
    let mut got = Vec::new();
    while got.len() < case.statuses.len() {
        let answer = read_answer(&mut reader, &method);
        got.push(answer.map_err(|error| format!("{error} after {got:?}"))?.status);
    }
    if got != case.statuses {
        return Err(format!("{got:?}"));
    }
    if case.keeps {
        reader.get_mut().write_all(PROBE.as_bytes()).map_err(|error| error.to_string())?;
        let answer = read_answer(&mut reader, "GET").map_err(|error| format!("closes: {error}"))?;
        return if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?} then")) };
    }
    let mut rest = Vec::new();
    match reader.read_to_end(&mut rest) {
        // Reset, where the rest of what was sent is too much to read.
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => Err(error.to_string()),
        _ if rest.is_empty() => Ok(()),
        _ => Err(format!("and then {}", rest.escape_ascii())),
    }
}

/// Rows that are not as they say.
fn odd(gw: SocketAddr, upstream: &Recorder, case: &Case) -> Option<String> {
    let said = speak(gw, case);
    let mut expect = case.saw.clone();
    if case.keeps {
        expect.push(request("GET /probe"));
    }
    let saw = upstream.taken();
    if said.is_ok() && saw == expect {
        return None;
    }
    Some(format!("{}: {}; saw {saw:?}", case.name, said.err().unwrap_or_default()))
}

#[test]
fn what_comes_in_is_answered_and_goes_on_in_one_way_only() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Recorder::start());
    let gw = gateway(folder.path(), upstream.addr, "", "");
    let lists =
        ["lengths", "encodings", "chunks", "hosts", "targets", "lines", "fields", "connections"];
    let all: Vec<Case> = lists.into_iter().flat_map(cases).collect();
    assert!(80 <= all.len(), "{}", all.len());
    let odd: Vec<String> = all.iter().filter_map(|case| odd(gw.proxy, &upstream, case)).collect();
    assert!(odd.is_empty(), "\n{}", odd.join("\n"));
    assert_eq!(gw.stop(), Some(0));
}

#[test]
fn what_stops_coming_ends_in_time() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Recorder::start());
    let proxy = "first_byte_timeout_ms = 500\nhead_timeout_ms = 500\nkeep_alive_ms = 500";
    let gw = gateway(folder.path(), upstream.addr, proxy, "idle_timeout_ms = 500");
    let all = cases("slow");
    let odd: Vec<String> = std::thread::scope(|scope| {
        let speaking = |case| scope.spawn(move || (case, speak(gw.proxy, case)));
        let spoken: Vec<_> = all.iter().map(speaking).collect();
        let joined = spoken.into_iter().map(|spoken| spoken.join().unwrap());
        joined.filter_map(|(case, said)| Some(format!("{}: {}", case.name, said.err()?))).collect()
    });
    assert!(odd.is_empty(), "\n{}", odd.join("\n"));
    let expect: Vec<Strict> = all.into_iter().flat_map(|case| case.saw).collect();
    assert_eq!(upstream.taken(), expect);
    until("nothing is under way", || {
        let metrics = crate::process::Client::new(gw.admin).get("/metrics", &[]);
        metrics.body.contains("\nturnpike_requests_under_way 0\n")
    });
}
