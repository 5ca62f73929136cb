//! Where units go.

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use crate::domain::policy::FailureMode;
use crate::domain::reading::LimitKind;
use crate::metrics::{ApiMetrics, Metrics, counter, counters, gauge, names};

/// Units of quotas, all of them totals of this process.
#[derive(Debug)]
pub(super) struct Leases {
    leased: IntCounter,
    spent: IntCounter,
    returned: IntCounter,
    recalled: IntCounter,
    wasted: IntCounter,
    /// By kind of limit: rates, quotas.
    locally: [IntCounter; 2],
    debt: IntGauge,
    away: IntCounterVec,
}

impl Leases {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let locally = counters(
            names::LOCAL_UNITS,
            "Units admitted without the store, from this gateway's share",
            &["limit"],
        )?;
        let leases = Self {
            locally: [LimitKind::Rate, LimitKind::Quota]
                .map(|kind| locally.with_label_values(&[kind.name()])),
            debt: gauge(
                names::DEBT_UNITS,
                "Quota units admitted without the store, of which it has not heard",
            )?,
            away: counters(
                names::AWAY,
                "Requests admitted while the store was away, by API and rule",
                &["api", "rule"],
            )?,
            leased: counter(names::LEASED_UNITS, "Quota units granted by the store")?,
            spent: counter(
                names::SPENT_UNITS,
                "Quota units spent by admitted requests, as reported to the store",
            )?,
            returned: counter(names::RETURNED_UNITS, "Quota units given back unspent")?,
            recalled: counter(
                names::RECALLED_UNITS,
                "Of these, because another gateway was short of them",
            )?,
            wasted: counter(
                names::WASTED_UNITS,
                "Quota units in hand when their window ended, or that the store forgot",
            )?,
        };
        registry.register(Box::new(locally))?;
        registry.register(Box::new(leases.debt.clone()))?;
        registry.register(Box::new(leases.away.clone()))?;
        let Self { leased, spent, returned, recalled, wasted, .. } = &leases;
        for total in [leased, spent, returned, recalled, wasted] {
            let total: Box<dyn Collector> = Box::new(total.clone());
            registry.register(total)?;
        }
        Ok(leases)
    }
}

impl Metrics {
    /// The store granted units.
    pub fn leased(&self, units: u64) {
        self.leases.leased.inc_by(units);
    }

    /// The store heard of spent units.
    pub fn spent(&self, units: u64) {
        self.leases.spent.inc_by(units);
    }

    /// Units were given back.
    pub fn returned(&self, units: u64) {
        self.leases.returned.inc_by(units);
    }

    /// Of units given back, some were because another gateway was short of them.
    pub fn recalled(&self, units: u64) {
        self.leases.recalled.inc_by(units);
    }

    /// A request was admitted while the store was away.
    pub fn admitted_away(&self, api: &ApiMetrics, rule: FailureMode) {
        self.leases.away.with_label_values(&[api.api.as_str(), rule.name()]).inc();
    }

    /// Units were admitted without the store.
    pub fn admitted_locally(&self, kind: LimitKind, units: u64) {
        let [rate, quota] = &self.leases.locally;
        match kind {
            LimitKind::Rate => rate.inc_by(units),
            LimitKind::Quota => quota.inc_by(units),
        }
    }

    /// Quota units admitted without the store, of which it has not heard.
    pub fn debt(&self, units: u64) {
        self.leases.debt.set(i64::try_from(units).unwrap_or(i64::MAX));
    }

    /// Units were lost: nobody used them.
    pub fn wasted(&self, units: u64) {
        self.leases.wasted.inc_by(units);
    }

    /// What is in memory: credentials, counters, quota units in hand.
    pub fn sizes(&self, credentials: usize, counters: usize, units_held: u64) {
        self.credentials.set(i64::try_from(credentials).unwrap_or(i64::MAX));
        self.counters.set(i64::try_from(counters).unwrap_or(i64::MAX));
        self.units_held.set(i64::try_from(units_held).unwrap_or(i64::MAX));
    }
}
