//! Clients that send without pause until they are stopped, and remember every answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use turnpike::clock::{Clock, SystemClock};
use turnpike::domain::time::BootNs;

use crate::process::Client;

/// A client that is refused, or finds nobody, comes back after this.
const BACK_OFF: Duration = Duration::from_millis(5);
/// Answers remembered, at most: no test asks for more.
const ANSWERS_MAX: usize = 2_000_000;

/// Where a gateway listens, while it does: a restarted one has another port.
pub type Address = Arc<Mutex<Option<SocketAddr>>>;

/// How one request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    Status(u16),
    /// The connection broke before there was an answer.
    Broken,
}

/// One request as its client saw it.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub number: u64,
    pub gateway: usize,
    pub ended: Ended,
    pub at: BootNs,
}

/// What to send.
#[derive(Clone, Debug)]
pub struct Load {
    pub token: String,
    pub api: &'static str,
    /// Connections to each gateway.
    pub connections: usize,
    /// Between two requests of one connection; none: as fast as answers come.
    pub pace: Duration,
}

impl Load {
    /// Four connections to each gateway, as fast as answers come.
    pub fn of(token: &str) -> Self {
        Self { token: token.into(), api: "a", connections: 4, pace: Duration::ZERO }
    }
}

/// Clients at work. They stop when this is dropped.
pub struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    over: AtomicBool,
    told: Mutex<Vec<Told>>,
}

/// Numbers of all requests of this process: none is used twice.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

impl Clients {
    pub fn start(gateways: &[Address], load: &Load) -> Self {
        let shared =
            Arc::new(Shared { over: AtomicBool::new(false), told: Mutex::new(Vec::new()) });
        let mut threads = Vec::new();
        for (gateway, address) in gateways.iter().enumerate() {
            for _ in 0..load.connections {
                let (shared, address, load) =
                    (Arc::clone(&shared), Arc::clone(address), load.clone());
                threads.push(std::thread::spawn(move || shared.work(gateway, &address, &load)));
            }
        }
        Self { shared, threads }
    }

    /// Now, for [`Self::tally`].
    pub fn now(&self) -> BootNs {
        SystemClock.boot()
    }

    /// How often each gateway ended a request in each way, of those that ended after `since`.
    pub fn tally(&self, since: BootNs) -> BTreeMap<(usize, Ended), u64> {
        let mut tally = BTreeMap::new();
        for told in self.shared.told.lock().iter().filter(|told| since <= told.at) {
            *tally.entry((told.gateway, told.ended)).or_insert(0) += 1;
        }
        tally
    }

    /// Waits for the requests in flight, and says how all ended.
    pub fn stop(mut self) -> Vec<Told> {
        self.end();
        std::mem::take(&mut self.shared.told.lock())
    }

    fn end(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // Not joined: a failing test may leave a gateway standing still, which a client waits for.
        self.shared.over.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn work(&self, gateway: usize, address: &Address, load: &Load) {
        let mut client: Option<(SocketAddr, Client)> = None;
        while !self.over.load(Ordering::SeqCst) {
            let Some(now_at) = *address.lock() else {
                client = None;
                std::thread::sleep(BACK_OFF);
                continue;
            };
            let mut connection = match client.take().filter(|(at, _)| *at == now_at) {
                Some((_, connection)) => connection,
                None => match Client::connect(now_at) {
                    Ok(connection) => connection,
                    Err(_away) => {
                        std::thread::sleep(BACK_OFF);
                        continue;
                    }
                },
            };
            let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
            let path = format!("/{}/{number}", load.api);
            let answer = connection.send("GET", &path, &[("X-API-Key", &load.token)], "");
            let ended = match answer {
                Ok(answer) => {
                    let closes = answer.headers.get("connection").is_some_and(|v| v == "close");
                    client = (!closes).then_some((now_at, connection));
                    Ended::Status(answer.status)
                }
                Err(_broken) => Ended::Broken,
            };
            let mut told = self.told.lock();
            assert!(told.len() < ANSWERS_MAX, "the load of a test is bounded");
            told.push(Told { number, gateway, ended, at: SystemClock.boot() });
            drop(told);
            let pause = if ended == Ended::Status(200) { load.pace } else { BACK_OFF };
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
        }
    }
}
