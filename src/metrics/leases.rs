//! Where units go.

use prometheus::core::Collector;
use prometheus::{IntCounter, Registry};

use crate::metrics::{Metrics, counter, names};

/// Units of quotas, all of them totals of this process.
#[derive(Debug)]
pub(super) struct Leases {
    leased: IntCounter,
    spent: IntCounter,
    returned: IntCounter,
    wasted: IntCounter,
}

impl Leases {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let leases = Self {
            leased: counter(names::LEASED_UNITS, "Quota units granted by the store")?,
            spent: counter(
                names::SPENT_UNITS,
                "Quota units spent by admitted requests, as reported to the store",
            )?,
            returned: counter(names::RETURNED_UNITS, "Quota units given back unspent")?,
            wasted: counter(
                names::WASTED_UNITS,
                "Quota units in hand when their window ended, or that the store forgot",
            )?,
        };
        for total in [&leases.leased, &leases.spent, &leases.returned, &leases.wasted] {
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
