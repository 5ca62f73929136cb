//! How far quotas are used.

use prometheus::{IntCounter, Registry};

use crate::domain::reading::QuotaShare;
use crate::metrics::{Metrics, counters, names};

/// Quotas of which most or all is used.
#[derive(Debug)]
pub(super) struct Quotas {
    most: IntCounter,
    all: IntCounter,
}

impl Quotas {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let reached = counters(
            names::QUOTAS_REACHED,
            "Quotas of which a share was used, once in a period by one of all gateways",
            &["percent"],
        )?;
        registry.register(Box::new(reached.clone()))?;
        let [most, all] = [QuotaShare::Most, QuotaShare::All]
            .map(|share| reached.with_label_values(&[share.percent().to_string().as_str()]));
        Ok(Self { most, all })
    }
}

impl Metrics {
    /// A share of a quota is used.
    pub fn quota_reached(&self, share: QuotaShare) {
        match share {
            QuotaShare::Most => self.quotas.most.inc(),
            QuotaShare::All => self.quotas.all.inc(),
        }
    }
}
