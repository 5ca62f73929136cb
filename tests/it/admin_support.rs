//! An admin listener over an embedded store in a temporary folder, spoken to without a socket.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;
use turnpike::admin::{AdminSecret, AdminState, router, seed};
use turnpike::catalog::Catalog;
use turnpike::clock::ManualClock;
use turnpike::domain::api::{
    Api, Auth, ExchangeRules, Preflight, Target, Timeouts, TokenSources, UpstreamRules, Versions,
};
use turnpike::domain::counter::ProcessId;
use turnpike::domain::grant::Defaults;
use turnpike::domain::merge::Mode;
use turnpike::domain::path::EncodedSlash;
use turnpike::domain::pattern::TykMatching;
use turnpike::domain::policy::{FailureMode, QuotaScope};
use turnpike::domain::time::UnixMs;
use turnpike::domain::token::{Pepper, TokenHash};
use turnpike::enforce::{Enforcer, Settings};
use turnpike::metrics::Metrics;
use turnpike::store::embedded::{EmbeddedOptions, EmbeddedStore};
use turnpike::store::{AnyStore, Kind, RecordKey, RecordStore};
use turnpike::wire::record::KeyRecord;

/// The kinds whose records are the portal's objects.
pub(crate) const OBJECTS: [Kind; 10] = [
    Kind::Organisation,
    Kind::Team,
    Kind::User,
    Kind::App,
    Kind::Product,
    Kind::Plan,
    Kind::Credential,
    Kind::AccessRequest,
    Kind::Catalogue,
    Kind::Audience,
];

/// The admin secret of all tests.
pub(crate) const SECRET: &str = "adm_7Hq-0123456789";

/// 2026-03-02 09:14:30 UTC.
pub(crate) const START: UnixMs = UnixMs(1_772_442_870_000);

/// One listener.
pub(crate) struct Admin {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) router: Router,
    folder: tempfile::TempDir,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) json: Value,
}

impl Admin {
    /// With the APIs `inv-v1`, `inv-v2` (versions v1 and v2) and `open` (keyless).
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(START));
        let options = EmbeddedOptions { cache_bytes: 1 << 20, ..EmbeddedOptions::default() };
        let store = EmbeddedStore::open(folder.path(), options, clock.clone()).unwrap();
        Self::on(AnyStore::Embedded(store), folder, clock).await
    }

    /// The same on any store.
    pub(crate) async fn on(
        store: AnyStore,
        folder: tempfile::TempDir,
        clock: Arc<ManualClock>,
    ) -> Self {
        let versions = Versions {
            header: "x-version".into(),
            known: vec!["v1".into(), "v2".into()],
            default: None,
        };
        let mut versioned = api("inv-v2");
        versioned.versions = Some(versions);
        let mut open = api("open");
        open.auth = Auth::Keyless;
        let apis = [api("inv-v1"), versioned, open].map(Arc::new).to_vec();
        let catalog = Catalog::load(Arc::new(store), Pepper::new([7; 32]), apis).await.unwrap();
        let catalog = Arc::new(catalog);
        seed(&catalog, &*clock).await.unwrap();
        let secret = AdminSecret::parse(SECRET).unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let settings = Settings {
            mode: Mode::Ours,
            defaults: Defaults {
                quota_scope: QuotaScope::Credential,
                on_store_unavailable: FailureMode::Closed,
                tyk_matching: TykMatching::default(),
            },
            credentials_max: 100,
            unknown_max: 100,
            failures_per_minute_max: 100,
            store_timeout: Duration::from_secs(5),
            round_trip_ms: 1,
        };
        let process = ProcessId(1);
        let enforcer =
            Enforcer::new(Arc::clone(&catalog), clock.clone(), metrics, process, settings);
        let state =
            AdminState::new(Arc::clone(&catalog), clock.clone(), secret, Arc::new(enforcer));
        Self { catalog, clock, router: router(state), folder }
    }

    /// Sends a request as an administrator does.
    pub(crate) async fn send(&self, method: &str, path: &str, body: &str) -> Reply {
        let request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("/portal-api{path}"))
            .header("Authorization", SECRET)
            .header("Content-Type", "application/json");
        self.raw(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    /// Sends a request and expects a status.
    #[track_caller]
    pub(crate) fn expect<'a>(
        &'a self,
        status: u16,
        method: &'a str,
        path: &'a str,
        body: Value,
    ) -> impl Future<Output = Value> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let text = if body.is_null() { String::new() } else { body.to_string() };
            let reply = self.send(method, path, &text).await;
            let (got, json) = (reply.status.as_u16(), reply.json);
            assert_eq!(got, status, "{method} {path} {text} at {caller}: {json}");
            json
        }
    }

    /// Sends any request.
    pub(crate) async fn raw(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        assert_eq!(parts.headers["content-type"], "application/json");
        let json = serde_json::from_slice(&bytes).unwrap();
        Reply { status: parts.status, json }
    }

    /// What the gateway enforces of a token.
    pub(crate) async fn token(&self, token: &str) -> Option<KeyRecord> {
        let hash: TokenHash = self.catalog.pepper().hash(token.as_bytes());
        let key = RecordKey::bytes(Kind::Token, hash.0);
        let record = self.catalog.store().get(&key).await.unwrap();
        record.map(|record| serde_json::from_slice(&record.value).unwrap())
    }

    /// All records of all kinds: equal before and after what must not write.
    pub(crate) async fn records(&self) -> Vec<(RecordKey, Arc<[u8]>)> {
        let mut all = Vec::new();
        let beside = [Kind::Token, Kind::Unique, Kind::Member, Kind::AdminToken];
        for kind in OBJECTS.into_iter().chain(beside) {
            let page = self.catalog.store().list(kind, &[], None, 100_000).await.unwrap();
            assert!(!page.more);
            all.extend(page.records.into_iter().map(|(key, record)| (key, record.value)));
        }
        all
    }

    /// A plan, a product of `inv-v1` and an app of user 1; their numbers.
    pub(crate) async fn furnish(&self) -> (u64, u64, u64) {
        let plan = self.expect(200, "POST", "/plans", plan("robot-tier")).await;
        let product = self.expect(201, "POST", "/products", product("invoices", "inv-v1")).await;
        let app = serde_json::json!({ "Name": "robot", "UserID": 1 });
        let app = self.expect(200, "POST", "/apps", app).await;
        (id(&plan), id(&product), id(&app))
    }

    /// Where the store lies.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}

/// The number of an answered object.
#[track_caller]
pub(crate) fn id(object: &Value) -> u64 {
    object["ID"].as_u64().unwrap()
}

/// The faults of an answer.
#[track_caller]
pub(crate) fn faults(answer: &Value) -> Vec<&str> {
    answer["errors"].as_array().unwrap().iter().map(|fault| fault.as_str().unwrap()).collect()
}

/// A plan of 5 in 10 s and 1000 a day.
pub(crate) fn plan(name: &str) -> Value {
    serde_json::json!({
        "Name": name, "DisplayName": "Robot", "ProviderID": 1, "RateLimit": 5, "Per": 10,
        "UnlimitedRateLimit": false, "Quota": 1000, "QuotaRenewalRate": 86400,
        "UnlimitedQuota": false, "KeyExpiresIn": 7_776_000, "PlanQuota": 2,
        "PlanQuotaRenewalRate": 3600, "AutoApproveAccessRequests": true, "Catalogues": [1],
        "MetaData": { "tier": "robot" }, "JWTScope": "", "Description": ""
    })
}

/// A product of one API.
pub(crate) fn product(name: &str, api: &str) -> Value {
    serde_json::json!({
        "Name": name, "DisplayName": "Invoices API", "ProviderID": 1,
        "IsDocumentationOnly": false, "Catalogues": [1], "DCREnabled": false, "Feature": false,
        "APIDetails": [{ "APIID": api, "Description": "List and export" }], "Scopes": ""
    })
}

/// A custom credential.
pub(crate) fn credential(alias: &str, key: &str, plan: u64, product: u64) -> Value {
    serde_json::json!({
        "Alias": alias, "Type": "CREDENTIAL_TYPE_TYK_MANAGED", "KeyID": key, "PlanID": plan,
        "AuthenticationMethod": "authToken", "AuthTokenType": "AUTH_TOKEN_CUSTOM",
        "ProductIDs": [product]
    })
}

fn api(id: &str) -> Api {
    let sources = TokenSources {
        authorization: true,
        x_api_key: true,
        header: None,
        query: None,
        cookie: None,
    };
    Api {
        id: id.parse().unwrap(),
        org: "default".parse().unwrap(),
        name: id.into(),
        hosts: Vec::new(),
        listen_path: format!("/{id}/").parse().unwrap(),
        strip_listen_path: true,
        targets: vec![Target {
            tls: false,
            authority: "127.0.0.1:9".into(),
            base_path: "".into(),
            weight: 1,
        }],
        upstream: UpstreamRules::default(),
        exchange: ExchangeRules::default(),
        auth: Auth::Token(sources),
        strip_credentials: true,
        encoded_slash: EncodedSlash::Refuse,
        preserve_host: false,
        preflight: Preflight::Authenticate,
        versions: None,
        limit_headers: true,
        identity_headers: false,
        body_bytes_max: 1 << 20,
        body_buffer_bytes: 0,
        body_rate_min: 0,
        upgrades: Vec::new(),
        upstream_http: Default::default(),
        upstream_tls: Default::default(),
        timeouts: Timeouts { connect_ms: 1_000, first_byte_ms: 1_000, idle_ms: 1_000 },
        shadow: false,
    }
}
