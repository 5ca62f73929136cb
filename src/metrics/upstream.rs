//! What becomes of requests at the targets of APIs, by API and the target's position.

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use crate::domain::id::ApiId;
use crate::metrics::{Metrics, counters, names};

/// How an attempt at a target ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// With the head of an answer below 500.
    Answered,
    /// With a 5xx.
    Failed,
    /// Without a connection.
    Unconnected,
    /// With a connection that broke.
    Broken,
    /// Without an answer in time.
    Late,
    /// Before it began: the target had as much to do as it may.
    Overloaded,
}

/// Metrics of all targets.
#[derive(Debug)]
pub(super) struct Upstreams {
    attempts: IntCounterVec,
    ejections: IntCounterVec,
    available: IntGaugeVec,
    in_flight: IntGaugeVec,
    retries: IntCounterVec,
}

/// Metrics of one target.
#[derive(Debug)]
pub struct TargetMetrics {
    attempts: [IntCounter; 6],
    /// How often it was ejected.
    pub ejections: IntCounter,
    /// Whether it gets requests.
    pub available: IntGauge,
    /// Requests in flight, as of the last look.
    pub in_flight: IntGauge,
}

impl Metrics {
    /// The metrics of one target of an API.
    #[must_use]
    pub fn target(&self, api: &ApiId, at: usize) -> TargetMetrics {
        self.targets.target(api, at)
    }

    /// A target is gone.
    pub fn forget_target(&self, api: &ApiId, at: usize) {
        self.targets.forget(api, at);
    }

    /// A request is sent again, or could not be.
    pub fn retry(&self, api: &ApiId, kind: &'static str) {
        self.targets.retry(api, kind);
    }
}

impl Upstreams {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let gauges = |name, help| IntGaugeVec::new(Opts::new(name, help), &["api", "target"]);
        Ok(Self {
            attempts: counters(
                names::ATTEMPTS,
                "Attempts at targets by API, position of the target and result",
                &["api", "target", "result"],
            )?,
            ejections: counters(
                names::EJECTIONS,
                "Targets left alone because their requests failed",
                &["api", "target"],
            )?,
            available: gauges(names::AVAILABLE, "Whether a target gets requests")?,
            in_flight: gauges(names::UPSTREAM_IN_FLIGHT, "Requests in flight at a target")?,
            retries: counters(
                names::RETRIES,
                "Second attempts by API: unsent ones, repeated ones, such that were not made",
                &["api", "kind"],
            )?,
        })
    }

    pub(super) fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.attempts.clone()),
            Box::new(self.ejections.clone()),
            Box::new(self.available.clone()),
            Box::new(self.in_flight.clone()),
            Box::new(self.retries.clone()),
        ]
    }

    pub(super) fn target(&self, api: &ApiId, at: usize) -> TargetMetrics {
        let at = at.to_string();
        let labels = [api.as_str(), at.as_str()];
        let attempts = ["answered", "failed", "unconnected", "broken", "late", "overloaded"]
            .map(|result| self.attempts.with_label_values(&[api.as_str(), at.as_str(), result]));
        TargetMetrics {
            attempts,
            ejections: self.ejections.with_label_values(&labels),
            available: self.available.with_label_values(&labels),
            in_flight: self.in_flight.with_label_values(&labels),
        }
    }

    /// A target is gone: its gauges would show its last state for ever.
    pub(super) fn forget(&self, api: &ApiId, at: usize) {
        let at = at.to_string();
        for gauge in [&self.available, &self.in_flight] {
            // It may never have been there.
            let _gone = gauge.remove_label_values(&[api.as_str(), at.as_str()]);
        }
    }

    pub(super) fn retry(&self, api: &ApiId, kind: &str) {
        self.retries.with_label_values(&[api.as_str(), kind]).inc();
    }
}

impl TargetMetrics {
    /// An attempt ended.
    pub fn attempt(&self, attempt: Attempt) {
        let [answered, failed, unconnected, broken, late, overloaded] = &self.attempts;
        match attempt {
            Attempt::Answered => answered.inc(),
            Attempt::Failed => failed.inc(),
            Attempt::Unconnected => unconnected.inc(),
            Attempt::Broken => broken.inc(),
            Attempt::Late => late.inc(),
            Attempt::Overloaded => overloaded.inc(),
        }
    }
}
