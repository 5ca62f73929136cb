//! What happens without requests: idle units go back, forgotten slots go.

use std::sync::Arc;

use crate::domain::time::BootNs;
use crate::enforce::ledger::Ledger;
use crate::enforce::slot::{InHand, Slot};

/// Units of a slot that was not used for so long go back to the store.
const IDLE_MS: u64 = 1_000;
/// The same while at least half of the limit is free: nobody is short of units.
const IDLE_RELAXED_MS: u64 = 10_000;

impl Ledger {
    /// Returns what is idle and forgets what nobody refers to. Runs about once a second.
    pub(in crate::enforce) async fn sweep(&self) {
        let now = self.clock.boot();
        let idle: Vec<Arc<Slot>> = self
            .slots
            .iter()
            .filter(|slot| is_idle(slot, now))
            .map(|slot| Arc::clone(&slot))
            .collect();
        for slot in idle {
            if let Err(error) = self.give_back(&slot).await {
                tracing::debug!(counter = %slot.key, %error, "could not return idle units");
            }
        }
        // Sessions hold their slots; a slot that only the map holds is not in use. Its hand must
        // be empty, or its units would be taken without anybody to spend or return them.
        self.slots.retain(|_, slot| 1 < Arc::strong_count(slot) || !is_forgettable(slot, now));
    }

    /// Returns everything: a graceful stop.
    pub(in crate::enforce) async fn release_all(&self) {
        let all: Vec<Arc<Slot>> = self.slots.iter().map(|slot| Arc::clone(&slot)).collect();
        for slot in all {
            if let Err(error) = self.give_back(&slot).await {
                tracing::warn!(counter = %slot.key, %error, "could not return units at the end");
            }
        }
    }

    /// Slots, and quota units in hand.
    pub(in crate::enforce) fn totals(&self) -> (usize, u64) {
        let units = |slot: &Slot| match &slot.state.lock().hand {
            InHand::Quota(quota) => quota.hand.units(),
            InHand::Rate(_) => 0,
        };
        let held = self.slots.iter().map(|slot| units(&slot)).fold(0, u64::saturating_add);
        (self.slots.len(), held)
    }
}

fn is_idle(slot: &Slot, now: BootNs) -> bool {
    let state = slot.state.lock();
    let InHand::Quota(quota) = &state.hand else { return false };
    let unreported = 0 < quota.hand.spent_since_answer();
    let relaxed = quota.hand.units() <= quota.hand.remaining_at_store();
    let pause = if relaxed { IDLE_RELAXED_MS } else { IDLE_MS };
    let over = quota.window.is_some_and(|(_, ends)| ends.is_some_and(|ends| ends <= now));
    (0 < quota.hand.units() || unreported)
        && !state.asking
        && !over
        && state.used.plus_ms(pause) <= now
}

fn is_forgettable(slot: &Slot, now: BootNs) -> bool {
    let state = slot.state.lock();
    let empty = match &state.hand {
        InHand::Quota(quota) => {
            let over = quota.window.is_none_or(|(_, ends)| ends.is_some_and(|ends| ends <= now));
            over || (quota.hand.units() == 0 && quota.hand.spent_since_answer() == 0)
        }
        InHand::Rate(held) => held.hand.units(now) == 0,
    };
    empty && !state.asking && state.waiting == 0
}
