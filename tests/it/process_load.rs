//! A steady load on the built binary, and what changes meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::process::{Client, Gateway};

/// Longer than anything waited for here.
pub const LONG: Duration = Duration::from_secs(30);

pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < LONG, "{what} did not come");
        std::thread::yield_now();
    }
}

/// How a failure begins of somebody who was not let in yet.
pub const NEWCOMER: &str = "newcomer";

/// Clients that send requests one after the other, at a steady pace, until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    /// Every client says what went wrong: nothing, at best.
    pub fn start(to: SocketAddr, clients: usize, path: &str, token: &str) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |n: usize| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let (path, token) = (path.to_owned(), token.to_owned());
            std::thread::spawn(move || {
                let (mut failures, mut client) = (Vec::new(), None);
                while !stop.load(Ordering::SeqCst) && failures.len() < 5 {
                    // Some come anew for every request: a refused connection would show.
                    let known = client.take().filter(|_| !n.is_multiple_of(4));
                    let what = if known.is_some() { "request" } else { NEWCOMER };
                    let mut connected = match known {
                        Some(connected) => connected,
                        None => match Client::connect(to) {
                            Ok(connected) => connected,
                            Err(error) => {
                                failures.push(format!("{NEWCOMER}: {error}"));
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
                        Err(error) => failures.push(format!("{what}: {error}")),
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
    pub fn more(&self, n: usize) {
        let before = self.answered();
        until("more answers", || before + n <= self.answered());
    }

    /// How many were answered: all.
    pub fn stop(self) -> usize {
        let (answered, failures) = self.end();
        assert!(failures.is_empty(), "{failures:?}");
        answered
    }

    /// How many were answered, and what became of the others.
    pub fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        let failures = self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        (self.answered.load(Ordering::SeqCst), failures)
    }
}

pub fn metric(gateway: &Gateway, line: &str) -> u64 {
    let text = Client::new(gateway.admin).get("/metrics", &[]).body;
    let value = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

pub fn edit(folder: &Path, from: &str, to: &str) {
    let file = folder.join("turnpike.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    // In one step, as an editor does.
    let new = folder.join("turnpike.toml.new");
    std::fs::write(&new, text.replace(from, to)).unwrap();
    std::fs::rename(new, file).unwrap();
}

/// A target that can be killed and return on its port.
pub struct Target {
    pub address: SocketAddr,
    alive: Option<Arc<AtomicBool>>,
}

impl Target {
    pub fn start(address: &str) -> Self {
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

    pub fn kill(&mut self) {
        if let Some(alive) = self.alive.take() {
            alive.store(false, Ordering::SeqCst);
        }
        until("its end", || TcpStream::connect(self.address).is_err());
    }

    pub fn come_back(&mut self) {
        *self = Self::start(&self.address.to_string());
    }
}

/// What a service manager hears, in place of systemd.
pub struct Manager {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Manager {
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        Self { path, socket }
    }

    pub fn environment(&self) -> [(String, String); 2] {
        [
            ("NOTIFY_SOCKET".to_owned(), self.path.to_str().unwrap().to_owned()),
            ("WATCHDOG_USEC".to_owned(), "100000".to_owned()),
        ]
    }

    /// Waits for the next time that it is said.
    pub fn hear(&self, word: &str) {
        let began = Instant::now();
        let mut buffer = [0; 256];
        loop {
            let n = self.socket.recv(&mut buffer).unwrap();
            if String::from_utf8_lossy(&buffer[..n]).trim() == word {
                return;
            }
            assert!(began.elapsed() < LONG, "{word} was not said");
        }
    }

    /// What was said and not heard yet.
    pub fn forget(&self) {
        self.socket.set_nonblocking(true).unwrap();
        while self.socket.recv(&mut [0; 256]).is_ok() {}
        self.socket.set_nonblocking(false).unwrap();
    }
}
