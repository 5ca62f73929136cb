//! Change without loss: reload, upgrade, stop, targets that die and return; the built binary under
//! a steady load.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::process::{Client, Gateway, Upstream};

/// Longer than anything waited for here.
const LONG: Duration = Duration::from_secs(30);

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < LONG, "{what} did not come");
        std::thread::yield_now();
    }
}

/// Clients that send requests one after the other, at a steady pace, until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    /// Every client says what went wrong: nothing, at best.
    fn start(to: SocketAddr, clients: usize, path: &str, token: &str) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |n: usize| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let (path, token) = (path.to_owned(), token.to_owned());
            std::thread::spawn(move || {
                let (mut failures, mut client) = (Vec::new(), None);
                while !stop.load(Ordering::SeqCst) && failures.len() < 5 {
                    // Some come anew for every request: a refused connection would show.
                    let mut connected = match client.take().filter(|_| !n.is_multiple_of(4)) {
                        Some(connected) => connected,
                        None => match Client::connect(to) {
                            Ok(connected) => connected,
                            Err(error) => {
                                failures.push(format!("connect: {error}"));
                                continue;
                            }
                        },
                    };
                    let headers = [("X-API-Key", token.as_str())];
                    match connected.send("GET", &path, &headers, "") {
                        Ok(answer) if answer.status == 200 => {
                            answered.fetch_add(1, Ordering::SeqCst);
                            let close = answer.headers.get("connection");
                            if close.is_none_or(|value| value != "close") {
                                client = Some(connected);
                            }
                        }
                        Ok(answer) => failures.push(format!("{}: {}", answer.status, answer.body)),
                        Err(error) => failures.push(format!("request: {error}")),
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                failures
            })
        };
        let threads = (0..clients).map(client).collect();
        Self { stop, answered, threads }
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    /// Goes on until so many more are answered.
    fn more(&self, n: usize) {
        let before = self.answered();
        until("more answers", || before + n <= self.answered());
    }

    fn stop(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let failures: Vec<String> =
            self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert!(failures.is_empty(), "{failures:?}");
        self.answered.load(Ordering::SeqCst)
    }
}

fn metric(gateway: &Gateway, line: &str) -> u64 {
    let text = Client::new(gateway.admin).get("/metrics", &[]).body;
    let value = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

fn edit(folder: &Path, from: &str, to: &str) {
    let file = folder.join("turnpike.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    // In one step, as an editor does.
    let new = folder.join("turnpike.toml.new");
    std::fs::write(&new, text.replace(from, to)).unwrap();
    std::fs::rename(new, file).unwrap();
}

#[test]
fn a_reload_changes_apis_under_load_and_refuses_what_needs_a_restart() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let more = "[ops]\nlisten = \"127.0.0.1:0\"";
    let gateway = Gateway::start_with(folder.path(), &upstream, more);
    gateway.import(
        "tok",
        json!({"UnlimitedRateLimit": true, "Quota": 1_000_000,
        "QuotaRenewalRate": 3600}),
    );
    let load = Load::start(gateway.proxy, 8, "/a/x", "tok");
    load.more(50);
    // By signal: another path, and requests to the old one go on until then.
    for round in 0..5 {
        let (from, to) = match round % 2 {
            0 => ("listen_path = \"/b/\"", "listen_path = \"/c/\""),
            _ => ("listen_path = \"/c/\"", "listen_path = \"/b/\""),
        };
        edit(folder.path(), from, to);
        gateway.signal("-HUP");
        until("the reload", || {
            metric(&gateway, "turnpike_config_reloads_total{result=\"applied\"}") == round + 1
        });
        let there = if round % 2 == 0 { "/c/x" } else { "/b/x" };
        assert_eq!(gateway.get(there, "tok").json()["code"], "api_not_granted");
        load.more(20);
    }
    // By itself, when the file has changed.
    edit(folder.path(), "listen_path = \"/c/\"", "listen_path = \"/d/\"");
    until("the reload", || gateway.get("/d/x", "tok").status == 403);
    // Wrong, or not to be changed while running: by name, and nothing of it.
    for (from, to, named) in [
        ("listen_path = \"/d/\"", "listen_path = \"d\"", "apis[1].listen_path"),
        ("drain_s = 5", "drain_s = 6", "proxy.drain_s"),
    ] {
        edit(folder.path(), from, to);
        let refused = metric(&gateway, "turnpike_config_reloads_total{result=\"refused\"}");
        gateway.signal("-HUP");
        until("the refusal", || gateway.log().contains(named));
        until("the refusal's metric", || {
            metric(&gateway, "turnpike_config_reloads_total{result=\"refused\"}") == refused + 1
        });
        assert_eq!(metric(&gateway, "turnpike_config_current"), 0);
        assert_eq!(gateway.get("/d/x", "tok").status, 403, "as it was");
        edit(folder.path(), to, from);
        gateway.signal("-HUP");
        until("the file as it was", || metric(&gateway, "turnpike_config_current") == 1);
    }
    load.stop();
}

#[test]
fn metrics_and_health_have_an_address_without_writes() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start_with(folder.path(), &upstream, "[ops]\nlisten = \"127.0.0.1:0\"");
    let mut client = Client::new(gateway.ops.expect("the address is told"));
    for path in ["/live", "/ready", "/hello", "/metrics"] {
        assert_eq!(client.get(path, &[]).status, 200, "{path}");
    }
    let secret = [("Authorization", crate::process::SECRET)];
    assert_eq!(client.get("/portal-api/apps", &secret).status, 404);
}

#[test]
fn an_upgrade_under_load_loses_no_request_and_counts_every_unit_once() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let mut gateway = Gateway::start(folder.path(), &upstream);
    let quota = 1_000_000;
    gateway.import(
        "tok",
        json!({"UnlimitedRateLimit": true, "Quota": quota,
        "QuotaRenewalRate": 3600}),
    );
    let load = Load::start(gateway.proxy, 8, "/a/x", "tok");
    for _ in 0..3 {
        load.more(50);
        let (proxy, admin) = (gateway.proxy, gateway.admin);
        let next = gateway.upgrade(folder.path());
        assert_eq!((next.proxy, next.admin), (proxy, admin), "the same sockets");
        let old = std::mem::replace(&mut gateway, next);
        assert_eq!(old.wait(), Some(0));
        load.more(50);
    }
    let answered = load.stop();
    // Every request was charged once, by whichever process: this one tells the sum.
    let last = gateway.get("/a/x", "tok");
    let left: usize = last.headers["x-ratelimit-remaining"].parse().unwrap();
    assert_eq!(quota - left, answered + 1);
    assert_eq!(upstream.count(), answered + 1);
    assert_eq!(gateway.stop(), Some(0));
}

#[test]
fn an_upgrade_to_a_wrong_configuration_changes_nothing() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start(folder.path(), &upstream);
    gateway.import("tok", json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true}));
    edit(folder.path(), "listen_path = \"/b/\"", "listen_path = \"b\"");
    assert_eq!(Gateway::try_upgrade(folder.path()), Some(78));
    assert_eq!(gateway.get("/a/x", "tok").status, 200);
    // One that comes as far as the store, cannot read its pepper, and is gone: the running process
    // starts anew with what it had.
    edit(folder.path(), "listen_path = \"b\"", "listen_path = \"/b/\"");
    std::fs::write(folder.path().join("pepper"), "0".repeat(64)).unwrap();
    let section = "[store]\npepper_file = \"pepper\"\n[admin]";
    edit(folder.path(), "[admin]", section);
    assert_eq!(Gateway::try_upgrade(folder.path()), Some(78));
    assert_eq!(gateway.get("/a/x", "tok").status, 200, "as it was started");
    assert!(gateway.log().contains("starting anew"));
    until("the file to be looked at", || gateway.log().contains("store.pepper_file"));
    assert_eq!(gateway.stop(), Some(0));
}

#[test]
fn a_process_that_was_forsaken_in_an_upgrade_goes_on() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start(folder.path(), &upstream);
    gateway.import("tok", json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true}));
    // As a new process would, up to the moment at which it has the store and dies.
    let path = folder.path().join("data/upgrade/socket");
    let mut control = std::os::unix::net::UnixStream::connect(path).unwrap();
    control.write_all(b"take\n").unwrap();
    let mut names = Vec::new();
    while !names.ends_with(b"]\n\n") {
        let mut byte = [0];
        control.read_exact(&mut byte).unwrap();
        names.push(byte[0]);
    }
    control.write_all(b"yield\n").unwrap();
    let mut word = [0; 8];
    control.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"yielded\n");
    // It waits in the queue meanwhile.
    let mut waiting = Client::connect(gateway.proxy).unwrap();
    drop(control);
    let answer = waiting.send("GET", "/a/x", &[("X-API-Key", "tok")], "").unwrap();
    assert_eq!(answer.status, 200);
    assert!(gateway.log().contains("starting anew"));
    assert_eq!(gateway.stop(), Some(0));
}

#[test]
fn a_stop_answers_first_and_waits_for_no_half_sent_head() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start_with(folder.path(), &upstream, "");
    gateway.import("tok", json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true}));
    let token = [("X-API-Key", "tok")];
    let mut idle = Client::new(gateway.proxy);
    assert_eq!(idle.get("/a/x", &token).status, 200);
    let mut half = TcpStream::connect(gateway.proxy).unwrap();
    half.write_all(b"GET /a/x HTTP/1.1\r\nHost: x\r\nX-Half: ").unwrap();
    until("both connections", || metric(&gateway, "turnpike_connections") == 2);
    let began = Instant::now();
    gateway.terminate();
    until("the end of listening", || TcpStream::connect(gateway.proxy).is_err());
    // Who speaks now is answered, and told to connect anew.
    let last = idle.get("/a/x", &token);
    assert_eq!(
        (last.status, last.headers.get("connection").map(String::as_str)),
        (200, Some("close"))
    );
    assert_eq!(gateway.stop(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}, of 5 s to drain", began.elapsed());
    let mut rest = Vec::new();
    let _closed = half.read_to_end(&mut rest);
    assert!(rest.is_empty());
}

/// A target that can be killed and return on its port.
struct Target {
    address: SocketAddr,
    alive: Option<Arc<AtomicBool>>,
}

impl Target {
    fn start(address: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let alive = Arc::new(AtomicBool::new(true));
        let lives = Arc::clone(&alive);
        std::thread::spawn(move || {
            let mut streams: Vec<TcpStream> = Vec::new();
            while lives.load(Ordering::SeqCst) {
                if let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).unwrap();
                    stream.set_nodelay(true).unwrap();
                    streams.push(stream);
                }
                streams.retain_mut(|stream| {
                    let mut buffer = [0; 4_096];
                    match stream.read(&mut buffer) {
                        Ok(0) => false,
                        // One read is one request here: they are small.
                        Ok(_) => {
                            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                            stream.write_all(answer).is_ok()
                        }
                        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
                    }
                });
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        Self { address, alive: Some(alive) }
    }

    fn kill(&mut self) {
        if let Some(alive) = self.alive.take() {
            alive.store(false, Ordering::SeqCst);
        }
        until("its end", || TcpStream::connect(self.address).is_err());
    }

    fn come_back(&mut self) {
        *self = Self::start(&self.address.to_string());
    }
}

#[test]
fn targets_that_die_and_return_cost_no_request_that_is_safe_to_repeat() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let mut targets = [Target::start("127.0.0.1:0"), Target::start("127.0.0.1:0")];
    let api = format!(
        "[[apis]]\nid = \"t\"\nlisten_path = \"/t/\"\nkeyless = true\n\
         targets = [\"http://{}\", \"http://{}\"]\nhealth = {{ every_ms = 50, rise = 1, fall = 1 }}\n\
         ejection = {{ base_ms = 100 }}\n",
        targets[0].address, targets[1].address
    );
    let gateway = Gateway::start_with(folder.path(), &upstream, &api);
    let load = Load::start(gateway.proxy, 8, "/t/x", "");
    load.more(50);
    for n in [0, 1, 0] {
        let line = format!("turnpike_upstream_available{{api=\"t\",target=\"{n}\"}}");
        targets[n].kill();
        load.more(100);
        until("the target to be noticed", || metric(&gateway, &line) == 0);
        targets[n].come_back();
        until("the target to be back", || metric(&gateway, &line) == 1);
        load.more(50);
    }
    load.stop();
}

/// A process that nobody here started, to be ended with the test.
struct Stranger(String);

impl Drop for Stranger {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = std::process::Command::new("kill").args(["-KILL", &self.0]).status();
    }
}

#[test]
fn a_signal_lets_the_gateway_upgrade_itself() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let gateway = Gateway::start(folder.path(), &upstream);
    gateway.import("tok", json!({"UnlimitedRateLimit": true, "UnlimitedQuota": true}));
    let proxy = gateway.proxy;
    gateway.signal("-USR2");
    let id = || {
        let log = gateway.log();
        let (_, rest) = log.split_once("upgrading pid=")?;
        rest.split_once('\n').map(|(id, _)| id.trim().to_owned())
    };
    until("the new process", || id().is_some());
    let stranger = Stranger(id().unwrap());
    assert_eq!(gateway.wait(), Some(0));
    assert_eq!(Client::new(proxy).get("/a/x", &[("X-API-Key", "tok")]).status, 200);
    drop(stranger);
    until("its end", || TcpStream::connect(proxy).is_err());
}

#[test]
fn the_service_manager_hears_that_the_gateway_is_ready_alive_and_stopping() {
    let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    drop(Gateway::start(folder.path(), &upstream));
    let path = folder.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(LONG)).unwrap();
    let environment = [
        ("NOTIFY_SOCKET".to_owned(), path.to_str().unwrap().to_owned()),
        ("WATCHDOG_USEC".to_owned(), "100000".to_owned()),
    ];
    let gateway = Gateway::serve(&folder.path().join("turnpike.toml"), &environment).unwrap();
    let mut heard: Vec<String> = Vec::new();
    let mut hear = |word: &str, times: usize| {
        while heard.iter().filter(|said| *said == word).count() < times {
            let mut buffer = [0; 256];
            let n = manager.recv(&mut buffer).unwrap();
            heard.push(String::from_utf8_lossy(&buffer[..n]).trim().to_owned());
        }
    };
    hear("READY=1", 1);
    hear("WATCHDOG=1", 3);
    gateway.terminate();
    hear("STOPPING=1", 1);
    assert_eq!(gateway.wait(), Some(0));
}
