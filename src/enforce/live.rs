//! The gateways that are alive, as the store last listed them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use crate::domain::counter::ProcessId;

/// The gateways that are alive. It sizes shares; what is safe never rests on it.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// `None` until the store has told.
    listed: ArcSwapOption<BTreeSet<ProcessId>>,
    count: AtomicU64,
}

impl Live {
    pub(super) fn set(&self, live: BTreeSet<ProcessId>) {
        let count = u64::try_from(live.len()).unwrap_or(u64::MAX);
        self.count.store(count, Ordering::Relaxed);
        self.listed.store(Some(Arc::new(live)));
    }

    /// How many there are, at least one.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed).max(1)
    }

    /// The last list; `None`: the store has never told.
    pub(super) fn listed(&self) -> Option<Arc<BTreeSet<ProcessId>>> {
        self.listed.load_full()
    }
}
