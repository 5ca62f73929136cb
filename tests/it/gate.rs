//! The parts of a gateway without sockets: catalog, admin router and enforcer over an embedded
//! store in a temporary folder, with a clock that moves when told to.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;
use turnpike::admin::{self, AdminSecret, AdminState};
use turnpike::catalog::Catalog;
use turnpike::clock::{Clock, ManualClock};
use turnpike::config::{Config, Overrides};
use turnpike::domain::counter::ProcessId;
use turnpike::domain::denial::Denial;
use turnpike::domain::grant::Defaults;
use turnpike::domain::merge::Mode;
use turnpike::domain::pattern::TykMatching;
use turnpike::domain::policy::{FailureMode, QuotaScope};
use turnpike::domain::seal::Reveal;
use turnpike::domain::time::UnixMs;
use turnpike::domain::token::Pepper;
use turnpike::enforce::{Decision, Enforcer, Facts, Settings};
use turnpike::metrics::Metrics;
use turnpike::store::embedded::{EmbeddedOptions, EmbeddedStore};
use turnpike::store::{AnyStore, Kind, RecordStore, StoreError};

pub const SECRET: &str = "an-admin-secret-of-tests";

/// Three APIs: `/a/`, `/b/` and, with versions, `/v/`.
const APIS: &str = r#"
[admin]
secret = "an-admin-secret-of-tests"
[[apis]]
id = "a"
listen_path = "/a/"
targets = ["http://127.0.0.1:1"]
[[apis]]
id = "b"
listen_path = "/b/"
targets = ["http://127.0.0.1:1"]
[[apis]]
id = "v"
listen_path = "/v/"
targets = ["http://127.0.0.1:1"]
version_header = "x-version"
versions = ["v1", "v2"]
default_version = "v1"
"#;

pub struct Gate {
    pub clock: Arc<ManualClock>,
    pub catalog: Arc<Catalog>,
    pub enforcer: Arc<Enforcer>,
    pub metrics: Arc<Metrics>,
    state: AdminState,
    admin: Router,
    pub folder: Arc<tempfile::TempDir>,
}

impl Gate {
    pub async fn new() -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let clock = Arc::new(ManualClock::at(UnixMs(1_770_000_000_000)));
        Self::open(folder, clock, 1).await
    }

    /// Another run of a gateway on the same folder; the earlier one must be closed.
    pub async fn open(
        folder: Arc<tempfile::TempDir>,
        clock: Arc<ManualClock>,
        process: u64,
    ) -> Self {
        let dyn_clock: Arc<dyn Clock> = clock.clone();
        let options = EmbeddedOptions::default();
        let store = loop {
            match EmbeddedStore::open(folder.path(), options, Arc::clone(&dyn_clock)) {
                // Tasks of the earlier run that asked ahead still hold the store: let them end.
                Err(StoreError::InUse) => tokio::task::yield_now().await,
                other => break AnyStore::Embedded(other.unwrap()),
            }
        };
        Self::on(store, folder, clock, process).await
    }

    /// A gateway on any store; `folder` is its own.
    pub async fn on(
        store: AnyStore,
        folder: Arc<tempfile::TempDir>,
        clock: Arc<ManualClock>,
        process: u64,
    ) -> Self {
        let config = Config::parse(APIS, Path::new("."), &Overrides::default()).unwrap();
        let (store, dyn_clock): (_, Arc<dyn Clock>) = (Arc::new(store), clock.clone());
        let pepper = Pepper::new([7; 32]);
        let catalog = Catalog::load(store, pepper, config.shared_apis()).await.unwrap();
        let catalog = Arc::new(catalog);
        admin::seed(&catalog, clock.as_ref()).await.unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let settings = Settings {
            mode: Mode::Ours,
            defaults: Defaults {
                quota_scope: QuotaScope::Credential,
                on_store_unavailable: FailureMode::Local,
                tyk_matching: TykMatching::default(),
            },
            credentials_max: 1_000,
            unknown_max: 1_000,
            failures_per_minute_max: 50,
            store_timeout: Duration::from_secs(5),
            round_trip_ms: 1,
        };
        let enforcer = Enforcer::new(
            Arc::clone(&catalog),
            dyn_clock.clone(),
            Arc::clone(&metrics),
            ProcessId(process),
            settings,
        );
        let secret = AdminSecret::parse(SECRET).unwrap();
        let enforcer = Arc::new(enforcer);
        let state = AdminState::new(Arc::clone(&catalog), dyn_clock, secret, Arc::clone(&enforcer));
        let admin = admin::router(state.clone());
        Self { clock, catalog, enforcer, metrics, state, admin, folder }
    }

    /// The same with another choice of how often generated tokens are shown.
    pub fn with_reveal(mut self, reveal: Reveal) -> Self {
        self.admin = admin::router(self.state.clone().with_reveal(reveal));
        self
    }

    /// A request that is answered with `status`; the answer.
    #[track_caller]
    pub fn ok<'a>(
        &'a self,
        status: u16,
        method: &'a str,
        path: &'a str,
        body: Value,
    ) -> impl Future<Output = Value> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let (got, answer) = self.call(method, path, body).await;
            assert_eq!(got.as_u16(), status, "{method} {path} at {caller}: {answer}");
            answer
        }
    }

    /// No record and no file of the store holds a text.
    pub async fn holds_nowhere(&self, text: &str) {
        let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        for file in std::fs::read_dir(self.folder.path()).unwrap() {
            let path = file.unwrap().path();
            assert!(!holds(&std::fs::read(&path).unwrap()), "{} holds {text}", path.display());
        }
    }

    /// The generation of the last commit.
    pub async fn generation(&self) -> u64 {
        self.catalog.store().generation().await.unwrap().0
    }

    /// How many tokens gateways know.
    pub async fn tokens(&self) -> usize {
        let page = self.catalog.store().list(Kind::Token, &[], None, 1_000).await.unwrap();
        page.records.len()
    }

    pub async fn call(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        self.request(method, &format!("/portal-api{path}"), body).await
    }

    /// A call of the admin listener, by its whole path.
    pub async fn request(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        self.request_as(SECRET, method, path, body).await
    }

    /// The same with an admin token.
    pub async fn request_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", token)
            .body(Body::from(if body.is_null() { String::new() } else { body.to_string() }))
            .unwrap();
        let answer = self.admin.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    pub async fn post(&self, path: &str, body: Value) -> u64 {
        let (status, answer) = self.call("POST", path, body).await;
        assert!(status.is_success(), "{path}: {status} {answer}");
        answer["ID"].as_u64().unwrap()
    }

    pub async fn product(&self, name: &str, apis: &[&str]) -> u64 {
        let details: Vec<Value> = apis.iter().map(|id| json!({"APIID": id})).collect();
        let body = json!({"Name": name, "ProviderID": 1, "IsDocumentationOnly": false,
                          "APIDetails": details});
        self.post("/products", body).await
    }

    pub async fn plan(&self, mut body: Value) -> u64 {
        body["ProviderID"] = json!(1);
        self.post("/plans", body).await
    }

    /// Imports a token; answers the app and the credential.
    pub async fn import(&self, token: &str, plan: u64, products: &[u64]) -> (u64, u64) {
        let app = self.post("/apps", json!({"Name": token, "UserID": 1})).await;
        (app, self.import_into(app, "one", token, plan, products).await)
    }

    /// Imports a token into an app; answers the credential.
    pub async fn import_into(
        &self,
        app: u64,
        alias: &str,
        token: &str,
        plan: u64,
        products: &[u64],
    ) -> u64 {
        let body = json!({"Alias": alias, "Type": "CREDENTIAL_TYPE_TYK_MANAGED",
            "AuthenticationMethod": "authToken", "AuthTokenType": "AUTH_TOKEN_CUSTOM",
            "KeyID": token, "PlanID": plan, "ProductIDs": products});
        self.post(&format!("/apps/{app}/custom_credentials"), body).await
    }

    /// A plan, product `[a]` and token `tok` at once.
    pub async fn simple(&self, mut plan: Value) -> (u64, u64, u64) {
        plan["Name"] = json!("plan");
        let plan = self.plan(plan).await;
        let product = self.product("product", &["a"]).await;
        let (_, credential) = self.import("tok", plan, &[product]).await;
        (plan, product, credential)
    }

    pub async fn decide(&self, token: &str, method: &str, path: &str) -> Decision {
        self.decide_as(token, method, path, None, "192.0.2.1").await
    }

    pub async fn decide_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        version: Option<&str>,
        client: &str,
    ) -> Decision {
        let snapshot = self.catalog.snapshot();
        let hit = snapshot.route(None, path).expect("a route");
        let request = turnpike::domain::decision::Request {
            api: hit.value,
            method,
            path,
            rest: hit.rest,
            version,
        };
        let client: IpAddr = client.parse().unwrap();
        let token = (!token.is_empty()).then_some(token.as_bytes());
        self.enforcer.decide(&Facts { request, token, client }).await
    }

    /// The denial of a request, `None` when it is admitted.
    pub async fn denial(&self, token: &str, path: &str) -> Option<Denial> {
        match self.decide(token, "GET", path).await {
            Decision::Admit(_) => None,
            Decision::Deny(refusal) => Some(refusal.denial),
        }
    }

    /// How many of `n` requests are admitted.
    pub async fn admitted(&self, token: &str, path: &str, n: usize) -> usize {
        let mut admitted = 0;
        for _ in 0..n {
            admitted += usize::from(self.denial(token, path).await.is_none());
        }
        admitted
    }

    pub fn pass(&self, span: Duration) {
        self.clock.advance(span);
    }
}
