use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use turnpike::catalog::Catalog;
use turnpike::clock::{Clock, SystemClock};
use turnpike::config::{Config, Overrides};
use turnpike::domain::counter::ProcessId;
use turnpike::domain::grant::Defaults;
use turnpike::domain::merge::Mode;
use turnpike::domain::policy::{FailureMode, QuotaScope};
use turnpike::domain::token::Pepper;
use turnpike::enforce::{Enforcer, Settings};
use turnpike::metrics::Metrics;
use turnpike::proxy::{ProxyState, serve};
use turnpike::store::embedded::{EmbeddedOptions, EmbeddedStore};
use turnpike::store::{AnyStore, Expect, Kind, RecordKey, Write};
use turnpike::telemetry::AccessLog;
use turnpike::wire::portal::stored::Stored;
use turnpike::wire::record::KeyRecord;

use crate::raw_http::Message;
use crate::raw_http::Wire;

/// The token that [`Gateway::credential`] makes.
pub const TOKEN: &str = "LEG-00fa";

/// What an upstream does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Sends these bytes and reads the next request.
    Keep(Vec<u8>),
    /// Sends these bytes and closes.
    Close(Vec<u8>),
    /// Sends these bytes and waits until the other side closes.
    Hang(Vec<u8>),
}

/// What happened at an upstream.
#[derive(Debug)]
pub enum Event {
    Connected,
    /// The gateway closed a connection.
    Gone,
}

/// An upstream on port 0.
pub struct Upstream {
    pub addr: SocketAddr,
    seen: Arc<Mutex<Vec<Message>>>,
    pub events: mpsc::UnboundedReceiver<Event>,
    _task: JoinHandle<()>,
}

impl Upstream {
    pub async fn start(reply: impl Fn(&Message) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Message>>> = Arc::default();
        let (report, events) = mpsc::unbounded_channel();
        let (noted, reply) = (Arc::clone(&seen), Arc::new(reply));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (noted, reply, report) =
                    (Arc::clone(&noted), Arc::clone(&reply), report.clone());
                tokio::spawn(async move {
                    let _ = report.send(Event::Connected);
                    let mut wire = Wire::new(stream);
                    while let Some(message) = wire.request().await {
                        let answer = reply(&message);
                        noted.lock().push(message);
                        let (bytes, on) = match answer {
                            Reply::Keep(bytes) => (bytes, true),
                            Reply::Close(bytes) => (bytes, false),
                            Reply::Hang(bytes) => {
                                wire.send(bytes).await;
                                while wire.more(&mut Vec::new()).await {}
                                break;
                            }
                        };
                        wire.send(bytes).await;
                        if !on {
                            break;
                        }
                    }
                    let _ = report.send(Event::Gone);
                });
            }
        });
        Self { addr, seen, events, _task: task }
    }

    /// Answers everything with 200 and the request's body.
    pub async fn echo() -> Self {
        Self::start(|message| Reply::Keep(ok(&message.body))).await
    }

    pub fn seen(&self) -> Vec<Message> {
        self.seen.lock().clone()
    }

    /// The last request.
    pub fn last(&self) -> Message {
        self.seen.lock().last().cloned().expect("the upstream got a request")
    }

    pub fn count(&self) -> usize {
        self.seen.lock().len()
    }

    /// Waits until the gateway has closed a connection.
    pub async fn gone(&mut self) {
        loop {
            let event = tokio::time::timeout(crate::raw_http::LONG, self.events.recv());
            if matches!(event.await.expect("it closes in time"), Some(Event::Gone)) {
                return;
            }
        }
    }
}

/// A plain answer.
pub fn ok(body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// What a gateway is started with.
pub struct Setup {
    /// `[[apis]]` tables, `[proxy]` and `[policies]` sections; `$UP` is the first upstream.
    pub toml: String,
    pub clock: Arc<dyn Clock>,
    pub access: Option<std::path::PathBuf>,
    pub drain: Duration,
}

impl Setup {
    pub fn new(toml: &str) -> Self {
        let drain = Duration::from_secs(5);
        Self { toml: toml.into(), clock: Arc::new(SystemClock), access: None, drain }
    }
}

/// A gateway on port 0.
pub struct Gateway {
    pub addr: SocketAddr,
    pub state: Arc<ProxyState>,
    pub shutdown: watch::Sender<bool>,
    pub task: JoinHandle<()>,
    _log: turnpike::telemetry::AccessLogGuard,
    _dir: TempDir,
}

impl Gateway {
    /// One keyless API at `/` with these further keys.
    pub async fn keyless(upstream: SocketAddr, keys: &str) -> Self {
        let toml = format!("[[apis]]\nid = \"a\"\nlisten_path = \"/\"\nkeyless = true\n{keys}");
        Self::start(Setup::new(&with_target(&toml, upstream))).await
    }

    /// One API at `/api/` that takes tokens, with these further keys.
    pub async fn with_token(upstream: SocketAddr, keys: &str) -> Self {
        let toml = format!("[[apis]]\nid = \"a\"\nlisten_path = \"/api/\"\n{keys}");
        Self::start(Setup::new(&with_target(&toml, upstream))).await
    }

    pub async fn start(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let toml = format!("{}\n[admin]\nsecret = \"0123456789abcdef\"\n", setup.toml);
        let config = Config::parse(&toml, dir.path(), &Overrides::default()).unwrap();
        let clock = setup.clock;
        let options = EmbeddedOptions::default();
        let store = EmbeddedStore::open(&dir.path().join("data"), options, Arc::clone(&clock));
        let store = Arc::new(AnyStore::Embedded(store.unwrap()));
        let metrics = Arc::new(Metrics::new().unwrap());
        let catalog = Catalog::load(store, Pepper::new([7; 32]), config.shared_apis());
        let catalog = Arc::new(catalog.await.unwrap());
        let settings = Settings {
            mode: Mode::Ours,
            defaults: Defaults {
                quota_scope: QuotaScope::Credential,
                on_store_unavailable: FailureMode::Closed,
                tyk_matching: Default::default(),
            },
            credentials_max: 1_000,
            unknown_max: 1_000,
            failures_per_minute_max: 1_000,
            store_timeout: Duration::from_secs(2),
            round_trip_ms: 1,
        };
        let enforcer = Enforcer::new(
            Arc::clone(&catalog),
            Arc::clone(&clock),
            Arc::clone(&metrics),
            ProcessId(1),
            settings,
        );
        let to = match setup.access {
            Some(path) => turnpike::config::AccessLog::File(path),
            None => turnpike::config::AccessLog::Off,
        };
        let (access_log, log) = AccessLog::open(&to, metrics.access_log_dropped().clone()).unwrap();
        let state = Arc::new(ProxyState {
            catalog,
            enforcer: Arc::new(enforcer),
            metrics,
            clock,
            access_log,
            config: config.proxy,
            policies: config.policies,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (shutdown, told) = watch::channel(false);
        let task = tokio::spawn(serve(Arc::clone(&state), listener, told, setup.drain));
        Self { addr, state, shutdown, task, _log: log, _dir: dir }
    }

    /// A credential for API `a` with the token [`TOKEN`]; `plan` as the portal has it.
    pub async fn credential(&self, plan: Value) {
        let product = json!({"Name": "p", "ProviderID": 1, "APIDetails": [{"APIID": "a"}]});
        let mut all = plan.as_object().unwrap().clone();
        all.insert("Name".into(), "plan".into());
        all.insert("ProviderID".into(), 1.into());
        let record = KeyRecord {
            credential: 77,
            org: "default".into(),
            products: vec![1],
            plan: Some(2),
            app: Some(5),
            user: Some(6),
            ..KeyRecord::default()
        };
        let hash = self.state.catalog.pepper().hash(TOKEN.as_bytes());
        let product = stored(1, product.as_object().unwrap().clone());
        self.commit(vec![
            (RecordKey::number(Kind::Product, 1), product),
            (RecordKey::number(Kind::Plan, 2), stored(2, all)),
            (RecordKey::bytes(Kind::Token, hash.0), serde_json::to_vec(&record).unwrap()),
        ])
        .await;
    }

    async fn commit(&self, records: Vec<(RecordKey, Vec<u8>)>) {
        let writes: Vec<_> = records
            .into_iter()
            .map(|(key, value)| Write { key, expect: Expect::Anything, value: Some(value.into()) })
            .collect();
        self.state.catalog.commit(&writes).await.unwrap();
    }

    /// The value of a line of the metrics.
    pub fn metric(&self, line: &str) -> u64 {
        let text = String::from_utf8(self.state.metrics.render().unwrap()).unwrap();
        let value = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until a line of the metrics has a value: a record is written when the last byte of
    /// an answer is handed over, which a client may see first.
    pub async fn until(&self, line: &str, value: u64) {
        let reached = async {
            while self.metric(line) != value {
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(crate::raw_http::LONG, reached).await;
        reached.unwrap_or_else(|_| panic!("{line} is {}, not {value}", self.metric(line)));
    }
}

fn stored(id: u64, members: serde_json::Map<String, Value>) -> Vec<u8> {
    Stored { id, members, ..Stored::default() }.encode()
}

pub fn with_target(toml: &str, upstream: SocketAddr) -> String {
    match toml.contains("targets") {
        true => toml.replace("$UP", &format!("http://{upstream}")),
        false => format!("{toml}\ntargets = [\"http://{upstream}\"]\n"),
    }
}
