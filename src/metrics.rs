//! Every metric, registered once. Labels are closed enums and API ids: nothing grows with keys,
//! paths or clients.
#![expect(clippy::float_arithmetic, reason = "the Prometheus format counts in floats")]

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::domain::denial::Denial;
use crate::domain::id::ApiId;
use crate::domain::reading::LimitKind;

mod following;
mod labels;
mod leases;
mod names;
mod quotas;
mod reload;
mod upstream;

pub use following::Following;
use following::FollowingMetrics;
use leases::Leases;
use quotas::Quotas;
pub use reload::Reload;
pub use upstream::{Attempt, TargetMetrics};

pub use labels::{CacheUse, Cut, Decision};

/// Bounds of the overhead histogram, in seconds: a decision takes microseconds.
const OVERHEAD_BUCKETS: &[f64] =
    &[0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.01, 0.1, 1.0];
/// Bounds of the upstream histogram, in seconds.
const UPSTREAM_BUCKETS: &[f64] =
    &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Bounds of the store histogram, in seconds.
const STORE_BUCKETS: &[f64] =
    &[0.000_005, 0.000_025, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.01, 0.05, 0.1, 1.0];

/// The registry and what is in it.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    refusals: IntCounterVec,
    shadowed: IntCounterVec,
    overhead: HistogramVec,
    upstream: HistogramVec,
    per_api: ArcSwap<HashMap<ApiId, Arc<ApiMetrics>>>,
    growing: Mutex<()>,
    unrouted: Arc<ApiMetrics>,
    cache: [IntCounter; 4],
    credentials: IntGauge,
    connections: IntGauge,
    connections_refused: IntCounter,
    cuts: IntCounterVec,
    under_way: IntGauge,
    bodies_awaited: IntGauge,
    tls_reloads: IntCounterVec,
    reserves: IntCounterVec,
    reserve_seconds: HistogramVec,
    counters: IntGauge,
    units_held: IntGauge,
    in_flight: IntGauge,
    quotas: Quotas,
    access_log_dropped: IntCounter,
    panics: IntCounter,
    targets: upstream::Upstreams,
    leases: Leases,
    reloads: reload::Reloads,
    following: FollowingMetrics,
}

/// The metrics of one API, looked up once per request.
#[derive(Debug)]
pub struct ApiMetrics {
    api: String,
    /// By decision (three) and status class (1xx to 5xx).
    requests: [[IntCounter; 5]; 3],
    overhead: Histogram,
    upstream: Histogram,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// Only when two metrics had the same name.
    #[expect(clippy::too_many_lines, reason = "one table of metrics")]
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let requests = counters(
            names::REQUESTS,
            "Requests by API, decision and status class",
            &["api", "decision", "class"],
        )?;
        let overhead = histogram(
            names::OVERHEAD,
            "Time a request spent in the gateway, without the upstream's",
            OVERHEAD_BUCKETS,
            &["api"],
        )?;
        let upstream = histogram(
            names::UPSTREAM,
            "Time from a request sent upstream to the head of its answer",
            UPSTREAM_BUCKETS,
            &["api"],
        )?;
        let cache = counters(names::CACHE, "Credential look-ups by result", &["result"])?;
        let build = IntGaugeVec::new(Opts::new(names::BUILD, "Version, in a label"), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let unrouted = Arc::new(ApiMetrics::new("", &requests, &overhead, &upstream));
        let metrics = Self {
            per_api: ArcSwap::default(),
            growing: Mutex::new(()),
            unrouted,
            refusals: counters(names::REFUSALS, "Refusals by API and code", &["api", "code"])?,
            shadowed: counters(
                names::SHADOWED,
                "Requests over a limit that were let through, by API and code",
                &["api", "code"],
            )?,
            cache: ["hit", "miss", "unknown_hit", "unknown_miss"]
                .map(|result| cache.with_label_values(&[result])),
            credentials: gauge(names::CREDENTIALS, "Credentials in memory")?,
            connections: gauge(names::CONNECTIONS, "Open client connections")?,
            connections_refused: counter(
                names::CONNECTIONS_REFUSED,
                "Connections closed at once because there were too many",
            )?,
            cuts: counters(names::CUTS, "Clients cut off, by reason", &["reason"])?,
            under_way: gauge(names::UNDER_WAY, "Requests under way, refused ones too")?,
            bodies_awaited: gauge(
                names::BODIES_AWAITED,
                "Of the requests under way, those whose body is waited for before they go upstream",
            )?,
            tls_reloads: counters(
                names::TLS_RELOADS,
                "Changed certificates of listeners, by result",
                &["result"],
            )?,
            reserves: counters(
                names::RESERVES,
                "Calls to the counter store by limit and result",
                &["limit", "result"],
            )?,
            reserve_seconds: histogram(
                names::RESERVE_SECONDS,
                "Time of calls to the counter store",
                STORE_BUCKETS,
                &["limit"],
            )?,
            counters: gauge(names::COUNTERS, "Counters in memory")?,
            units_held: gauge(
                names::UNITS_HELD,
                "Quota units in hand, neither spent nor returned",
            )?,
            in_flight: gauge(
                names::IN_FLIGHT,
                "Requests in flight of credentials whose plans limit them",
            )?,
            quotas: Quotas::register(&registry)?,
            access_log_dropped: counter(
                names::ACCESS_LOG_DROPPED,
                "Access log lines dropped because the writer was behind",
            )?,
            panics: counter(names::PANICS, "Requests that ended in a caught panic")?,
            targets: upstream::Upstreams::new()?,
            leases: Leases::register(&registry)?,
            reloads: reload::Reloads::new()?,
            following: FollowingMetrics::register(&registry)?,
            registry,
            requests,
            overhead,
            upstream,
        };
        let more = metrics.targets.collectors().into_iter().chain(metrics.reloads.collectors());
        for collector in metrics.collectors().into_iter().chain(more) {
            metrics.registry.register(collector)?;
        }
        metrics.registry.register(Box::new(cache))?;
        metrics.registry.register(Box::new(build))?;
        Ok(metrics)
    }

    fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.requests.clone()),
            Box::new(self.refusals.clone()),
            Box::new(self.shadowed.clone()),
            Box::new(self.overhead.clone()),
            Box::new(self.upstream.clone()),
            Box::new(self.credentials.clone()),
            Box::new(self.connections.clone()),
            Box::new(self.connections_refused.clone()),
            Box::new(self.cuts.clone()),
            Box::new(self.under_way.clone()),
            Box::new(self.bodies_awaited.clone()),
            Box::new(self.tls_reloads.clone()),
            Box::new(self.reserves.clone()),
            Box::new(self.reserve_seconds.clone()),
            Box::new(self.counters.clone()),
            Box::new(self.units_held.clone()),
            Box::new(self.in_flight.clone()),
            Box::new(self.access_log_dropped.clone()),
            Box::new(self.panics.clone()),
        ]
    }

    /// The metrics of an API; `None` is a request that found none.
    #[must_use]
    pub fn api(&self, id: Option<&ApiId>) -> Arc<ApiMetrics> {
        let Some(id) = id else { return Arc::clone(&self.unrouted) };
        if let Some(found) = self.per_api.load().get(id) {
            return Arc::clone(found);
        }
        let _growing = self.growing.lock();
        let mut all = HashMap::clone(&self.per_api.load());
        let make = || ApiMetrics::new(id.as_str(), &self.requests, &self.overhead, &self.upstream);
        let made = Arc::clone(all.entry(id.clone()).or_insert_with(|| Arc::new(make())));
        self.per_api.store(Arc::new(all));
        made
    }

    /// A request was refused.
    pub fn refused(&self, api: &ApiMetrics, denial: Denial) {
        self.refusals.with_label_values(&[api.api.as_str(), denial.answer().code]).inc();
    }

    /// A request over a limit was let through.
    pub fn shadowed(&self, api: &ApiMetrics, denial: Denial) {
        self.shadowed.with_label_values(&[api.api.as_str(), denial.answer().code]).inc();
    }

    /// A credential was looked up.
    pub fn cache(&self, result: CacheUse) {
        let [hit, miss, unknown_hit, unknown_miss] = &self.cache;
        match result {
            CacheUse::Hit => hit.inc(),
            CacheUse::Miss => miss.inc(),
            CacheUse::UnknownHit => unknown_hit.inc(),
            CacheUse::UnknownMiss => unknown_miss.inc(),
        }
    }

    /// A call to the counter store ended.
    pub fn reserve(&self, kind: LimitKind, answered: bool, took_ns: u64) {
        let result = if answered { "ok" } else { "error" };
        self.reserves.with_label_values(&[kind.name(), result]).inc();
        self.reserve_seconds.with_label_values(&[kind.name()]).observe(seconds(took_ns));
    }

    /// Open client connections.
    #[must_use]
    pub fn connections(&self) -> &IntGauge {
        &self.connections
    }

    /// Connections closed because there were too many.
    #[must_use]
    pub fn connections_refused(&self) -> &IntCounter {
        &self.connections_refused
    }

    /// A client was cut off.
    pub fn cut(&self, why: Cut) {
        self.cuts.with_label_values(&[why.name()]).inc();
    }

    /// Requests under way.
    #[must_use]
    pub fn under_way(&self) -> &IntGauge {
        &self.under_way
    }

    /// Of those, the ones whose body is waited for.
    #[must_use]
    pub fn bodies_awaited(&self) -> &IntGauge {
        &self.bodies_awaited
    }

    /// Certificates had changed and were read again.
    pub fn tls_reloaded(&self, usable: bool) {
        let result = if usable { "ok" } else { "error" };
        self.tls_reloads.with_label_values(&[result]).inc();
    }

    /// Requests that ended in a caught panic.
    #[must_use]
    pub fn panics(&self) -> &IntCounter {
        &self.panics
    }

    /// Access log lines that were dropped.
    #[must_use]
    pub fn access_log_dropped(&self) -> &IntCounter {
        &self.access_log_dropped
    }

    /// Requests in flight of credentials whose plans limit them.
    pub fn in_flight(&self, requests: u64) {
        self.in_flight.set(i64::try_from(requests).unwrap_or(i64::MAX));
    }

    /// How far this gateway is behind its store.
    pub fn follows(&self, now: &Following) {
        self.following.set(now);
    }

    /// Everything in Prometheus' text format.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl ApiMetrics {
    fn new(
        api: &str,
        requests: &IntCounterVec,
        overhead: &HistogramVec,
        upstream: &HistogramVec,
    ) -> Self {
        let of = |decision: &str| {
            ["1xx", "2xx", "3xx", "4xx", "5xx"]
                .map(|class| requests.with_label_values(&[api, decision, class]))
        };
        Self {
            api: api.to_owned(),
            requests: ["admitted", "denied", "shadowed"].map(of),
            overhead: overhead.with_label_values(&[api]),
            upstream: upstream.with_label_values(&[api]),
        }
    }

    /// A request ended: its one observation.
    pub fn observe(
        &self,
        decision: Decision,
        status: u16,
        overhead_ns: u64,
        upstream_ns: Option<u64>,
    ) {
        let [admitted, denied, shadowed] = &self.requests;
        let classes = match decision {
            Decision::Admitted => admitted,
            Decision::Denied => denied,
            Decision::Shadowed => shadowed,
        };
        let class = usize::from((status / 100).clamp(1, 5)).saturating_sub(1);
        if let Some(counter) = classes.get(class) {
            counter.inc();
        }
        self.overhead.observe(seconds(overhead_ns));
        if let Some(upstream_ns) = upstream_ns {
            self.upstream.observe(seconds(upstream_ns));
        }
    }
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a duration for a histogram"
)]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

fn counter(name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    IntCounter::new(name, help)
}

fn gauge(name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    IntGauge::new(name, help)
}

fn histogram(
    name: &str,
    help: &str,
    buckets: &[f64],
    labels: &[&str],
) -> Result<HistogramVec, prometheus::Error> {
    HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)
}
