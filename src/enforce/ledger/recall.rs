//! Recalling units that others hold: who refuses for want of them says so, and who holds some he
//! has no use for gives them back. Without that they come back when they were idle for a while.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};

use crate::domain::counter::CounterKey;
use crate::enforce::ledger::Ledger;
use crate::enforce::slot::{InHand, Slot};
use crate::store::hint::{Hint, HintKind};

/// Hints that are followed at the same time.
const FOLLOWED_AT_ONCE_MAX: usize = 64;

impl Ledger {
    /// Follows hints of other gateways, for as long as it is polled.
    pub(in crate::enforce) async fn follow_hints(&self) {
        let next = async |()| Some((self.store.next_hint().await, ()));
        stream::unfold((), next)
            .for_each_concurrent(FOLLOWED_AT_ONCE_MAX, async |hint| self.follow_hint(&hint).await)
            .await;
    }

    async fn follow_hint(&self, hint: &Hint) {
        if hint.from == self.process {
            return;
        }
        // What nobody used here is not in memory: there is nothing to give and nobody to wake.
        let Some(slot) = self.slots.get(&hint.key).map(|slot| Arc::clone(&slot)) else { return };
        match hint.kind {
            HintKind::Short if slot.spare_units() == 0 => {}
            HintKind::Short => {
                let Some(_asking) = slot.try_ask() else { return };
                match self.give_back(&slot).await {
                    Ok(units) => self.metrics.recalled(units),
                    Err(error) => {
                        tracing::debug!(counter = %slot.key, %error, "could not return units");
                    }
                }
            }
            HintKind::Freed => {
                let now = self.clock.boot();
                if let InHand::Quota(quota) = &mut slot.state.lock().hand {
                    quota.ask_again = quota.ask_again.min(now);
                }
            }
        }
    }

    /// Gives a hint to all gateways, if there are any others.
    pub(super) fn hint(&self, kind: HintKind, key: &CounterKey) {
        if 1 < self.peers.count() {
            self.store.give_hint(Hint { from: self.process, kind, key: key.clone() });
        }
    }
}

impl Slot {
    /// Quota units in hand that no request waits for: to take those away would only move a refusal.
    fn spare_units(&self) -> u64 {
        let state = self.state.lock();
        match &state.hand {
            InHand::Quota(quota) => quota.held.hand.units().saturating_sub(state.waiting),
            InHand::Rate(_) => 0,
        }
    }
}
