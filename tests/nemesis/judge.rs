//! The upstream, and the only oracle: what arrived there was admitted.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;
use turnpike::clock::{Clock, SystemClock};
use turnpike::domain::time::BootNs;

/// One request that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The number its client gave it.
    pub number: u64,
    /// The API it came through.
    pub api: String,
    /// The credential it was charged to.
    pub credential: u64,
    /// When it was read.
    pub at: BootNs,
}

/// Counts. It ends with the process.
pub struct Judge {
    pub address: SocketAddr,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
}

impl Judge {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&arrivals);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let arrivals = Arc::clone(&arrivals);
                std::thread::spawn(move || {
                    // A connection ends when its gateway does.
                    let _ended = serve(stream, &arrivals);
                });
            }
        });
        Self { address, arrivals: kept }
    }

    /// Requests so far.
    pub fn count(&self) -> u64 {
        self.arrivals.lock().len() as u64
    }

    /// All of them, in the order they were read.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().clone()
    }

    /// Requests of one credential so far.
    pub fn count_of(&self, credential: u64) -> u64 {
        self.arrivals.lock().iter().filter(|arrival| arrival.credential == credential).count()
            as u64
    }
}

fn serve(stream: TcpStream, arrivals: &Mutex<Vec<Arrival>>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        // `GET /api/number HTTP/1.1`: the target's base path, then what the client asked for.
        let mut path = line.split(' ').nth(1).unwrap_or_default().trim_matches('/').split('/');
        let api = path.next().unwrap_or_default().to_owned();
        let number = path.next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let mut credential = 0;
        loop {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("x-turnpike-credential") {
                credential = value.trim().parse().unwrap_or(0);
            }
        }
        let at = SystemClock.boot();
        arrivals.lock().push(Arrival { number, api, credential, at });
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
    }
}
