//! Several gateways of the built binary over one redis-server, a proxy between each and the store,
//! and one upstream behind them all.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use turnpike::clock::{Clock, SystemClock};

use crate::clients::{Address, Clients, Load};
use crate::fault_proxy::{Fault, FaultProxy};
use crate::judge::Judge;
use crate::process::{Answer, Client, Gateway, SECRET};
use crate::redis_server::RedisServer;

/// Longer than anything that must happen takes: by the design a used-up quota is asked about again
/// after 30 s at worst.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// All of it. Ends, with every process, when dropped; after a failure it shows the logs.
pub struct Fleet {
    pub redis: RedisServer,
    pub judge: Judge,
    seats: Vec<Seat>,
    _folder: TempDir,
}

struct Seat {
    folder: PathBuf,
    proxy: FaultProxy,
    address: Address,
    gateway: Option<Gateway>,
    environment: Vec<(String, String)>,
    /// What gateways before the present one wrote to standard error.
    logs: String,
}

/// A token with what it stands for.
pub struct Key {
    pub token: String,
    pub credential: u64,
    pub plan: u64,
}

/// What the usage report says of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub used: u64,
    pub reported: u64,
    pub held: u64,
    pub lost: u64,
    pub remaining: u64,
    pub window_start_ms: u64,
}

/// A plan with a quota alone, that refuses while there is no store.
pub fn quota(limit: u64, seconds: u64) -> Value {
    json!({"UnlimitedRateLimit": true, "Quota": limit, "QuotaRenewalRate": seconds,
        "OnStoreUnavailable": "closed"})
}

/// A plan with a rate alone, that refuses while there is no store.
pub fn rate(requests: u64, seconds: u64) -> Value {
    json!({"RateLimit": requests, "Per": seconds, "UnlimitedQuota": true,
        "OnStoreUnavailable": "closed"})
}

impl Fleet {
    /// Three gateways over a store that keeps every write.
    pub fn start() -> Self {
        Self::over(RedisServer::durable(), 3)
    }

    pub fn over(redis: RedisServer, gateways: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let judge = Judge::start();
        let seats = (0..gateways)
            .map(|n| {
                let folder = folder.path().join(n.to_string());
                std::fs::create_dir(&folder).unwrap();
                let proxy = FaultProxy::start(redis.port());
                let text = configuration(&proxy, &judge);
                std::fs::write(folder.join("turnpike.toml"), text).unwrap();
                let (address, environment) = (Address::default(), Vec::new());
                Seat { folder, proxy, address, gateway: None, environment, logs: String::new() }
            })
            .collect();
        let mut fleet = Self { redis, judge, seats, _folder: folder };
        for n in 0..gateways {
            fleet.start_gateway(n);
        }
        fleet
    }

    pub fn gateways(&self) -> usize {
        self.seats.len()
    }

    pub fn gateway(&self, n: usize) -> &Gateway {
        self.seats[n].gateway.as_ref().expect("it runs")
    }

    /// Where a gateway has its files.
    pub fn folder(&self, n: usize) -> &Path {
        &self.seats[n].folder
    }

    /// What a gateway takes the time to be, as its access log tells.
    pub fn gateway_clock_ms(&self, n: usize) -> u64 {
        let answer = Client::new(self.gateway(n).proxy).get("/nowhere", &[]);
        assert_eq!(answer.status, 404);
        let log = self.folder(n).join("access.log");
        let mut ts = None;
        until("the request is logged", PATIENCE, || {
            let text = std::fs::read_to_string(&log).unwrap();
            let last = text.lines().rfind(|line| line.contains("/nowhere"));
            let line = last.and_then(|line| serde_json::from_str::<Value>(line).ok());
            ts = line.and_then(|line| line["ts"].as_u64());
            ts.is_some()
        });
        ts.unwrap()
    }

    /// The proxy between a gateway and the store.
    pub fn proxy(&self, n: usize) -> &FaultProxy {
        &self.seats[n].proxy
    }

    /// The same fault for all.
    pub fn fault(&self, fault: Fault) {
        for seat in &self.seats {
            seat.proxy.set(fault);
        }
    }

    pub fn start_gateway(&mut self, n: usize) {
        let seat = &mut self.seats[n];
        let file = seat.folder.join("turnpike.toml");
        let gateway =
            Gateway::serve(&file, &seat.environment).unwrap_or_else(|log| panic!("{n}: {log}"));
        *seat.address.lock() = Some(gateway.proxy);
        seat.gateway = Some(gateway);
    }

    /// SIGKILL. Clients find nobody from then on.
    pub fn kill_gateway(&mut self, n: usize) {
        let gateway = self.leave(n);
        gateway.kill_now();
        self.seats[n].logs += &gateway.log();
    }

    /// SIGTERM, and waits for the end.
    pub fn stop_gateway(&mut self, n: usize) {
        let gateway = self.leave(n);
        let log = gateway.log();
        self.seats[n].logs += &log;
        assert_eq!(gateway.stop(), Some(0), "{n}: {log}");
    }

    fn leave(&mut self, n: usize) -> Gateway {
        *self.seats[n].address.lock() = None;
        self.seats[n].gateway.take().expect("it runs")
    }

    /// Runs the next gateways of a seat with this in their environment.
    pub fn set_environment(&mut self, n: usize, environment: Vec<(String, String)>) {
        self.seats[n].environment = environment;
    }

    /// A plan, a product of both APIs, a token under both. All gateways know it when this returns.
    pub fn import(&self, token: &str, plan: Value) -> Key {
        let gateway = self.gateway(0);
        let name = |what: &str| json!(format!("{what} of {token}"));
        let mut plan = plan;
        plan["Name"] = name("plan");
        plan["ProviderID"] = json!(1);
        let plan = gateway.post("/plans", &plan);
        let product = gateway.post(
            "/products",
            &json!({"Name": name("product"), "ProviderID": 1, "IsDocumentationOnly": false,
                "APIDetails": [{"APIID": "a"}, {"APIID": "b"}]}),
        );
        let app = gateway.post("/apps", &json!({"Name": token, "UserID": 1}));
        let credential = gateway.post(
            &format!("/apps/{app}/custom_credentials"),
            &json!({"Alias": "one", "Type": "CREDENTIAL_TYPE_TYK_MANAGED",
                "AuthenticationMethod": "authToken", "AuthTokenType": "AUTH_TOKEN_CUSTOM",
                "KeyID": token, "PlanID": plan, "ProductIDs": [product]}),
        );
        let key = Key { token: token.into(), credential, plan };
        until("every gateway knows the token", PATIENCE, || {
            (0..self.gateways()).all(|n| self.usage_of(n, &key).is_some())
        });
        key
    }

    /// Sends `body` over the members of a plan, through one gateway.
    pub fn edit_plan(&self, through: usize, key: &Key, body: &Value) -> Answer {
        let path = format!("/portal-api/plans/{}", key.plan);
        let answer = self.gateway(through).admin("PUT", &path, body);
        assert!(answer.status < 300, "{answer:?}");
        answer
    }

    pub fn load(&self, load: &Load) -> Clients {
        let addresses: Vec<Address> = self.seats.iter().map(|seat| seat.address.clone()).collect();
        Clients::start(&addresses, load)
    }

    /// What a gateway says of a credential's quota; `None` while it cannot ask the store.
    pub fn usage(&self, through: usize, key: &Key) -> Option<Usage> {
        let limits = self.usage_of(through, key)?;
        let quota = limits["limits"].as_array()?.iter().find(|limit| limit["kind"] == "quota")?;
        let units = |name: &str| quota[name].as_u64().unwrap();
        let start: Timestamp = quota["window_start"].as_str()?.parse().unwrap();
        Some(Usage {
            used: units("used"),
            reported: units("reported"),
            held: units("held"),
            lost: units("lost"),
            remaining: units("remaining"),
            window_start_ms: start.as_millisecond() as u64,
        })
    }

    /// The usage report of a credential that can be used.
    fn usage_of(&self, through: usize, key: &Key) -> Option<Value> {
        let path = format!("/v1/usage/credentials/{}", key.credential);
        let headers = [("Authorization", SECRET)];
        let answer = Client::new(self.gateway(through).admin).get(&path, &headers);
        let report = (answer.status == 200).then(|| answer.json())?;
        (report["status"] == "active").then_some(report)
    }

    /// The lines of all access logs.
    pub fn access_lines(&self) -> Vec<Value> {
        let read = |seat: &Seat| std::fs::read_to_string(seat.folder.join("access.log"));
        let texts: Vec<String> = self.seats.iter().filter_map(|seat| read(seat).ok()).collect();
        // The last line of a killed gateway may be torn.
        texts
            .iter()
            .flat_map(|text| text.lines())
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let mut text = format!("{} requests arrived\n", self.judge.count());
        for (n, seat) in self.seats.iter().enumerate() {
            let log =
                seat.logs.clone() + &seat.gateway.as_ref().map(Gateway::log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(40);
            writeln!(text, "-- gateway {n}\n{}", lines[from..].join("\n")).unwrap();
        }
        println!("{text}");
    }
}

fn configuration(proxy: &FaultProxy, judge: &Judge) -> String {
    let mut text = format!(
        "[proxy]\nlisten = [\"127.0.0.1:0\"]\nthreads = 2\ndrain_s = 5\n\
         [admin]\nlisten = \"127.0.0.1:0\"\nsecret = \"{SECRET}\"\n\
         [store]\nkind = \"redis\"\npath = \"data\"\nurls = [\"redis://{}/0\"]\n\
         [log]\nfilter = \"info\"\naccess = \"access.log\"\n",
        proxy.address
    );
    for api in ["a", "b"] {
        let at = judge.address;
        writeln!(
            text,
            "[[apis]]\nid = \"{api}\"\nlisten_path = \"/{api}/\"\nidentity_headers = true\n\
             targets = [\"http://{at}/{api}\"]"
        )
        .unwrap();
    }
    text
}

/// Looks again and again until it holds; fails with `what` when it does not in time.
#[track_caller]
pub fn until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let began = SystemClock.boot();
    while !holds() {
        let waited = Duration::from_nanos(SystemClock.boot().since_ns(began));
        assert!(waited < patience, "not within {patience:?}: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Lets the fleet go on for so long: a fault that lasts.
pub fn lasting(span: Duration) {
    std::thread::sleep(span);
}
