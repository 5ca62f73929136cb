//! Asking the store for units: one call per counter at a time, everybody else waits for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::enforce::ledger::Ledger;
use crate::enforce::ledger::quota::QuotaTerms;
use crate::enforce::slot::{Charge, ChargeLimit, Slot};
use crate::store::StoreError;

/// How long a request waits for a store that is learning what it has lost (design.md, section 4,
/// "When the store has lost writes").
pub(super) const LEARN_WAIT: Duration = Duration::from_millis(250);

/// Clears the mark of a call under way and wakes who waits, also when the asking request is gone.
pub(super) struct Asking<'a>(pub(super) &'a Slot);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.state.lock().asking = false;
        self.0.changed.notify_waiters();
    }
}

/// Counts the cost of a waiting request in, for as long as it waits.
struct Waiting<'a>(&'a Slot, u64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.waiting = state.waiting.saturating_sub(self.1);
    }
}

impl Ledger {
    /// Asks about one limit, or waits for the answer that another request asked for.
    pub(super) async fn ask(&self, charge: &Charge, cost: u64) -> Result<(), StoreError> {
        let slot = charge.slot.as_ref();
        let changed = slot.changed.notified();
        tokio::pin!(changed);
        let (asks, failures) = {
            let mut state = slot.state.lock();
            state.waiting = state.waiting.saturating_add(cost);
            changed.as_mut().enable();
            (!std::mem::replace(&mut state.asking, true), state.failures)
        };
        let _waiting = Waiting(slot, cost);
        let answer = async {
            if asks {
                let _asking = Asking(slot);
                return self.call(charge, cost).await;
            }
            changed.await;
            // Each of many who wait would else wait anew, one after the other.
            if slot.state.lock().failures == failures { Ok(()) } else { Err(self.too_late()) }
        };
        let patience =
            if self.store.may_forget() { self.timeout + LEARN_WAIT } else { self.timeout };
        tokio::time::timeout(patience, answer).await.unwrap_or_else(|_elapsed| {
            // Nobody is asking any more: who waited behind this call need not wait for another.
            let mut state = slot.state.lock();
            state.failures = state.failures.saturating_add(u64::from(asks));
            Err(self.too_late())
        })
    }

    pub(super) fn too_late(&self) -> StoreError {
        let deadline_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        StoreError::Timeout { deadline_ms }
    }

    /// Asks ahead, so that the next requests find units in hand. Nobody waits for it.
    pub(super) fn ask_ahead(self: &Arc<Self>, charge: &Charge) {
        if std::mem::replace(&mut charge.lock().asking, true) {
            return;
        }
        let (ledger, charge) = (Arc::clone(self), charge.clone());
        tokio::spawn(async move {
            let _asking = Asking(&charge.slot);
            if let Err(error) = ledger.call(&charge, 0).await {
                tracing::debug!(counter = %charge.slot.key, %error, "could not ask ahead");
            }
        });
    }

    /// One call; the caller holds the slot's `asking` mark.
    async fn call(&self, charge: &Charge, cost: u64) -> Result<(), StoreError> {
        let started = self.clock.boot();
        let result = match &charge.limit {
            ChargeLimit::Rate(rate) => self.call_rate(charge, *rate, cost).await,
            ChargeLimit::Quota { limit, period, resets, generation } => {
                let quota =
                    QuotaTerms { limit: *limit, period, resets: *resets, generation: *generation };
                self.call_quota(charge, &quota, cost).await
            }
        };
        if result.is_err() {
            let mut state = charge.lock();
            state.failures = state.failures.saturating_add(1);
        }
        let took_ns = self.clock.boot().since_ns(started);
        self.metrics.reserve(charge.kind(), result.is_ok(), took_ns);
        result
    }

    pub(super) fn next_q(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }
}
