//! Asking the store for units: one call per counter at a time, everybody else waits for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::enforce::ledger::Ledger;
use crate::enforce::ledger::quota::QuotaTerms;
use crate::enforce::slot::{Charge, ChargeLimit, Failure, Turn};
use crate::store::StoreError;

/// How long a request waits for a store that is learning what it has lost (design.md, section 4,
/// "When the store has lost writes").
pub(super) const LEARN_WAIT: Duration = Duration::from_millis(250);

impl Ledger {
    /// Asks about one limit, or waits for the answer that another request asked for.
    pub(super) async fn ask(&self, charge: &Charge, cost: u64) -> Result<(), StoreError> {
        let (_waiting, turn) = charge.slot.turn(cost);
        let patience =
            if self.store.may_forget() { self.timeout + LEARN_WAIT } else { self.timeout };
        match turn {
            Turn::Call(asking) => {
                let called = tokio::time::timeout(patience, self.call(charge, cost)).await;
                let called = called.unwrap_or_else(|_elapsed| Err(self.too_late()));
                called.inspect_err(|error| {
                    let learning = matches!(error, StoreError::Learning);
                    asking.failed(if learning { Failure::Learning } else { Failure::Away });
                })
            }
            Turn::Wait(wait) => match tokio::time::timeout(patience, wait.for_answer()).await {
                Ok(None) => Ok(()),
                Ok(Some(Failure::Learning)) => Err(StoreError::Learning),
                Ok(Some(Failure::Away)) | Err(_) => Err(self.too_late()),
            },
        }
    }

    pub(super) fn too_late(&self) -> StoreError {
        let deadline_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        StoreError::Timeout { deadline_ms }
    }

    /// Asks ahead, so that the next requests find units in hand. Nobody waits for it.
    pub(super) fn ask_ahead(self: &Arc<Self>, charge: &Charge) {
        let Some(asking) = charge.slot.try_ask() else { return };
        let (ledger, charge) = (Arc::clone(self), charge.clone());
        tokio::spawn(async move {
            if let Err(error) = ledger.call(&charge, 0).await {
                // A store that learns is waited for by whoever needs units, not by this call.
                if !matches!(error, StoreError::Learning) {
                    asking.failed(Failure::Away);
                }
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
        let took_ns = self.clock.boot().since_ns(started);
        self.metrics.reserve(charge.kind(), result.is_ok(), took_ns);
        result
    }

    pub(super) fn next_q(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::reading::LimitKind;
    use crate::enforce::slot::Slot;

    #[tokio::test]
    async fn who_waits_is_told_why_there_is_no_answer() {
        let key = "c1/q//never".parse().unwrap();
        let slot = Arc::new(Slot::new(0, key, LimitKind::Quota));
        for why in [Some(Failure::Learning), None, Some(Failure::Away)] {
            let (_first, Turn::Call(asking)) = slot.turn(1) else { panic!("nobody else calls") };
            let (_second, Turn::Wait(wait)) = slot.turn(2) else { panic!("one call at a time") };
            assert_eq!(slot.state.lock().waiting, 3);
            match why {
                Some(why) => asking.failed(why),
                None => drop(asking),
            }
            assert_eq!(wait.for_answer().await, why);
        }
    }
}
