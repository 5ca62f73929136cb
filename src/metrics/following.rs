//! How far the gateway is behind its store.
#![expect(clippy::float_arithmetic, reason = "the Prometheus format counts in floats")]

use prometheus::{Gauge, IntCounter, IntGauge, Registry};

use crate::metrics::{counter, gauge, names};

/// What following the store has shown.
#[derive(Clone, Copy, Debug)]
pub struct Following {
    /// The last commit that is enforced, with all before it.
    pub applied: u64,
    /// For how long commits may have been missed, in milliseconds.
    pub lag_ms: u64,
    /// How often everything was read anew.
    pub resyncs: u64,
    /// Gateways that are alive.
    pub gateways: usize,
    /// Whether there is a connection to the store.
    pub store_up: bool,
}

#[derive(Debug)]
pub(super) struct FollowingMetrics {
    applied: IntGauge,
    lag: Gauge,
    resyncs: IntCounter,
    gateways: IntGauge,
    store_up: IntGauge,
}

impl FollowingMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            applied: gauge(names::APPLIED, "The last commit enforced here, with all before it")?,
            lag: Gauge::new(
                names::FEED_LAG,
                "For how long commits of other gateways may have been missed; below 1 is normal",
            )?,
            resyncs: counter(names::RESYNCS, "Gaps in the change feed: everything was read anew")?,
            gateways: gauge(names::GATEWAYS, "Gateways of this store that are alive")?,
            store_up: gauge(names::STORE_UP, "1 while there is a connection to the store")?,
        };
        for collector in [&metrics.applied, &metrics.gateways, &metrics.store_up] {
            registry.register(Box::new(collector.clone()))?;
        }
        registry.register(Box::new(metrics.lag.clone()))?;
        registry.register(Box::new(metrics.resyncs.clone()))?;
        Ok(metrics)
    }

    #[expect(
        clippy::as_conversions,
        clippy::cast_precision_loss,
        reason = "a duration for a gauge"
    )]
    pub(super) fn set(&self, now: &Following) {
        self.applied.set(i64::try_from(now.applied).unwrap_or(i64::MAX));
        self.lag.set(now.lag_ms as f64 / 1e3);
        self.resyncs.inc_by(now.resyncs.saturating_sub(self.resyncs.get()));
        self.gateways.set(i64::try_from(now.gateways).unwrap_or(i64::MAX));
        self.store_up.set(i64::from(now.store_up));
    }
}
