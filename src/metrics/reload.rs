//! What became of the configuration when it was read again.

use prometheus::core::Collector;
use prometheus::{IntCounterVec, IntGauge};

use crate::metrics::{Metrics, counters, gauge, names};

/// How reading the configuration again ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// It is in force.
    Applied,
    /// It is as it was.
    Unchanged,
    /// It is wrong, or changes what cannot change: the one before is in force.
    Refused,
}

#[derive(Debug)]
pub(super) struct Reloads {
    reloads: IntCounterVec,
    current: IntGauge,
}

impl Metrics {
    /// The configuration was read again.
    pub fn reloaded(&self, reload: Reload) {
        self.reloads.note(reload);
    }
}

impl Reloads {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let current = gauge(names::CONFIG_CURRENT, "Whether the configuration file is in force")?;
        current.set(1);
        let help = "Configurations read while running, by result";
        Ok(Self { reloads: counters(names::RELOADS, help, &["result"])?, current })
    }

    pub(super) fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![Box::new(self.reloads.clone()), Box::new(self.current.clone())]
    }

    pub(super) fn note(&self, reload: Reload) {
        let result = match reload {
            Reload::Applied => "applied",
            Reload::Unchanged => "unchanged",
            Reload::Refused => "refused",
        };
        self.reloads.with_label_values(&[result]).inc();
        self.current.set(i64::from(reload != Reload::Refused));
    }
}
