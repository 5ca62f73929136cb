//! The composition root: builds the parts from the configuration, runs them on Pingora's server,
//! and takes them down in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::ops::OpsState;
use crate::admin::{AdminSecret, AdminState};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, StoreKind};
use crate::domain::counter::ProcessId;
use crate::domain::grant::Defaults;
use crate::domain::merge::Mode;
use crate::domain::pattern::TykMatching;
use crate::enforce::{Enforcer, Settings};
use crate::metrics::Metrics;
use crate::proxy::ProxyState;
use crate::store::{AnyStore, StoreError};
use crate::telemetry::{AccessLog, AccessLogGuard, TelemetryError};

pub mod demo;
mod following;
mod handover;
mod listeners;
mod opening;
mod pepper;
mod reload;
mod services;
mod supervisor;

use following::Membership;
pub use handover::{HandoverError, Inherited};
use listeners::Listeners;
pub use pepper::PepperError;
pub use reload::Source;

/// Why the gateway did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// An address could not be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store could not be opened or read.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// The pepper is not there, or not the one the store was made with.
    #[error("the pepper cannot be used")]
    Pepper(#[from] PepperError),
    /// The access log cannot be written.
    #[error("the log cannot be used")]
    Log(#[from] TelemetryError),
    /// The process that runs did not hand over.
    #[error("nothing could be taken over")]
    Handover(#[from] HandoverError),
    /// A bug of ours.
    #[error("could not start: {0}")]
    Internal(String),
}

/// The addresses that are listened on.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Bound {
    /// The data plane's, in the order of the configuration.
    pub proxy: Vec<SocketAddr>,
    /// The admin listener's.
    pub admin: SocketAddr,
    /// The one for metrics and health alone, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops: Option<SocketAddr>,
}

/// How a gateway came to its end.
#[derive(Debug)]
pub enum Ended {
    /// It was stopped, or another process goes on in its place.
    Stopped,
    /// A process that wanted to go on in its place is gone: these are the listeners to start anew
    /// with.
    Forsaken(Inherited),
}

/// A gateway that listens and does not answer yet.
pub struct App {
    bound: Bound,
    config: Config,
    listeners: Listeners,
    /// What the process before still has to be told.
    inherited: Inherited,
    source: Option<Source>,
    proxy: Arc<ProxyState>,
    admin: AdminState,
    ops: OpsState,
    enforcer: Arc<Enforcer>,
    store: Arc<AnyStore>,
    member: Arc<Membership>,
    access_log: AccessLogGuard,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("bound", &self.bound).finish_non_exhaustive()
    }
}

impl App {
    /// Opens the store, loads what is in it, and listens.
    ///
    /// # Errors
    /// When any of it is not possible. Nothing is left behind but an opened store's folder.
    pub fn build(config: Config) -> Result<Self, AppError> {
        Self::build_on(config, Inherited::default())
    }

    /// The same, on listeners of another process where there are any.
    ///
    /// # Errors
    /// As above.
    pub fn build_on(config: Config, mut inherited: Inherited) -> Result<Self, AppError> {
        let internal = |error: &dyn std::fmt::Display| AppError::Internal(error.to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| internal(&error))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = Arc::new(Metrics::new().map_err(|error| internal(&error))?);
        let dropped = metrics.access_log_dropped().clone();
        let (access_log, access_log_guard) = AccessLog::open(&config.log.access, dropped)?;
        let listeners = Listeners::open(&config, &mut inherited)?;
        let bound = listeners.bound().map_err(|error| internal(&error))?;
        if config.store.kind.is_exclusive() {
            inherited.claim_store()?;
        }
        let catalog = runtime.block_on(opening::open(&config, Arc::clone(&clock)))?;
        let store = Arc::clone(catalog.store());
        let process = ProcessId(random_u64().map_err(|error| internal(&error))?);
        let enforcer = Arc::new(Enforcer::new(
            Arc::clone(&catalog),
            Arc::clone(&clock),
            Arc::clone(&metrics),
            process,
            settings(&config),
        ));
        if let Some(folder) = config.store.state_folder() {
            enforcer.keep_shares(folder)?;
        }
        let proxy = Arc::new(ProxyState {
            catalog: Arc::clone(&catalog),
            enforcer: Arc::clone(&enforcer),
            metrics: Arc::clone(&metrics),
            clock: Arc::clone(&clock),
            access_log,
            config: config.proxy.clone(),
            policies: config.policies.clone(),
        });
        let secret = AdminSecret::parse(config.admin.secret.reveal());
        let secret = secret.map_err(|error| internal(&error))?;
        let admin = AdminState::new(
            Arc::clone(&catalog),
            Arc::clone(&clock),
            secret,
            Arc::clone(&enforcer),
        )
        .with_reveal(config.portal.reveal);
        let ops = OpsState::new(Arc::clone(&catalog), Arc::clone(&metrics), Arc::clone(&clock));
        let member = Arc::new(Membership::new(
            (catalog, Arc::clone(&enforcer)),
            metrics,
            clock,
            process,
            bound.admin,
            config.store.clone(),
        ));
        Ok(Self {
            bound,
            config,
            listeners,
            inherited,
            source: None,
            proxy,
            admin,
            ops,
            enforcer,
            store,
            member,
            access_log: access_log_guard,
        })
    }

    /// The addresses listened on.
    #[must_use]
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Lets the configuration be read again from where it came.
    #[must_use]
    pub fn reloads_from(self, source: Source) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Answers requests until SIGTERM or SIGINT, or until another process takes over; then drains
    /// and returns what is in hand. `ready` is called once, when such a signal would be heard.
    pub fn run(self, ready: impl FnOnce() + Send + 'static) -> Ended {
        services::run(self, ready)
    }
}

fn settings(config: &Config) -> Settings {
    let policies = &config.policies;
    Settings {
        mode: if policies.tyk_parity { Mode::Tyk } else { Mode::Ours },
        defaults: Defaults {
            quota_scope: policies.quota_scope,
            on_store_unavailable: policies.on_store_unavailable,
            tyk_matching: TykMatching::default(),
        },
        credentials_max: config.auth.credentials_max,
        unknown_max: config.auth.unknown_max,
        failures_per_minute_max: config.auth.failures_per_minute_max,
        store_timeout: Duration::from_millis(config.store.timeout_ms),
        round_trip_ms: match &config.store.kind {
            // One write into the page cache.
            StoreKind::Embedded => 1,
            // A busy server of the same site.
            #[cfg(feature = "redis")]
            StoreKind::Redis(_) => 10,
        },
    }
}

/// Random bits from the system.
fn random_u64() -> Result<u64, getrandom::Error> {
    getrandom::u64()
}
